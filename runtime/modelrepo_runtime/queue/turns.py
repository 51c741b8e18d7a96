"""Turns: how many slots of a model may swap at once, and how many boxes of a cluster fetch it at once."""

from __future__ import annotations

import math
import re

from modelrepo.errors import InvalidInput

SWAP = "swap"
"""The kind of turn by which a slot may be away from its jobs."""
SHARE = "share"
"""The kind of turn by which a slot may come to a model from another one."""


def fetch_kind(cluster: str) -> str:
    """Name the kind of turn by which a box of a cluster may fetch: what it is about is that cluster's link."""
    return f"fetch {cluster}"


def check_share(max_unavailable: str) -> None:
    """Raises: InvalidInput for what is no share or number of slots, or is none of them."""
    slots_allowed(max_unavailable, 1)
    figure = float(max_unavailable.strip().rstrip("%"))
    if figure == 0 or (figure > 100 and "%" in max_unavailable):
        raise InvalidInput(
            f"cannot take max_unavailable {max_unavailable!r}: nothing would ever have its turn, or more than all;"
            " give a share such as 10%, or a number of slots from 1 on"
        )


def slots_allowed(max_unavailable: str, slots_total: int) -> int:
    """Return max(1, floor(share x slots)) for a share such as "10%", or the number itself for one such as "2".

    Raises: InvalidInput.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(%?)\s*", max_unavailable)
    if match is None:
        raise InvalidInput(
            f"cannot read max_unavailable {max_unavailable!r}; give a share such as 10% or a number of slots"
        )
    figure = float(match[1])
    return max(1, math.floor(figure / 100 * slots_total) if match[2] else math.floor(figure))
