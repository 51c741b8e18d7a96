"""The plan of a job, as it is stored."""

from __future__ import annotations

import json
from functools import lru_cache

from modelrepo_runtime.jobs import StageNeed


@lru_cache(maxsize=256)
def read_stages(text: str) -> tuple[StageNeed, ...]:
    """Read what `write_stages` wrote."""
    return tuple(StageNeed.from_json(value) for value in json.loads(text))
