"""Which index is asked where nobody names one: uv's own, and uv is asked for it."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache

from uv import find_uv_bin

from modelrepo.errors import EnvironmentFailed

_OPTION = "--index-url "


@cache
def uvs_own_index() -> str:
    """Return the address of the index that uv takes by itself; no network is asked. Raises: EnvironmentFailed."""
    command = [find_uv_bin(), "pip", "compile", "--no-config", "--no-cache", "--offline", "--quiet", "--no-header"]
    done = subprocess.run(
        [*command, "--python", sys.executable, "--emit-index-url", "-"],
        input="",
        env={name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    for line in done.stdout.splitlines():
        if line.startswith(_OPTION):
            return line.removeprefix(_OPTION).strip()
    raise EnvironmentFailed("uv does not say which index it asks by itself; name one with --index-url", log=done.stderr)
