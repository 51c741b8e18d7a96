"""What a child had of the host's memory, and what there is: the figures of an end for want of it."""

from __future__ import annotations

from modelrepo.fetching.disk import human
from modelrepo_runtime.memory_limits import group_limits, memory_info


def host_figures(peak_bytes: int, limit_bytes: int | None) -> str:
    """Say the most that a child's processes had (0: not known), their own limit, and what is free around them now."""
    told = []
    if peak_bytes:
        told.append(f"its processes had {human(peak_bytes)} at most")
    if limit_bytes is not None:
        told.append(f"may have {human(limit_bytes)}" if told else f"its processes may have {human(limit_bytes)}")
    box, around = memory_info(), list(group_limits())
    free = [f"{human(box[0])} of {human(box[1])} on this box"] if box is not None else []
    free += [f"{human(max(0, limit - used))} of the control group's {human(limit)}" for limit, used in around]
    now = f"free now: {', '.join(free)}" if free else ""
    return "; ".join(part for part in (" and ".join(told), now) if part)
