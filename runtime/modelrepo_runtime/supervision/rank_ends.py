"""How a job ends that several ranks run: whose end counts, how long the others may take, whether they are in step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

from modelrepo_runtime.jobs import Cause

from .spec import ChildOutcome, MemoryPeaks

FAILURE_GRACE_S = 2.0
"""How long the others may take to fail as well; they may also wait for the failed one in a collective, for ever."""
STACKS_GRACE_S = 10.0
"""After a hang: the others have the same deadline, and their stacks are worth having."""

_SHOWS_A_BROKEN_GROUP = ("gloo", "nccl", "rccl", "process group")
"""In the message of an exception: the ranks can no longer reach each other."""


@dataclass(frozen=True, slots=True)
class RankEnd:
    """How one rank ended a call for one or more jobs. `alive`: its process lives on and can take the next."""

    rank: int
    outcomes: tuple[ChildOutcome, ...]
    alive: bool


def patience_s(end: RankEnd, *, cancel_asked: bool) -> float | None:
    """How long the other ranks may go on after this end; None: as long as their own deadlines let them."""
    causes = {outcome.cause for outcome in end.outcomes}
    if not end.alive:
        if causes & {Cause.HANG, Cause.CANCELLED}:
            return STACKS_GRACE_S
        return None if causes == {Cause.PREEMPTED} else 0.0
    if causes <= {Cause.SUCCEEDED} or (causes <= {Cause.SUCCEEDED, Cause.CANCELLED} and cancel_asked):
        return None
    return FAILURE_GRACE_S


def joined(ends: Sequence[RankEnd], *, stop_asked: bool) -> list[ChildOutcome]:
    """Make one outcome for each job from what all ranks say, in the order in which they ended."""
    leader = next(end for end in ends if end.rank == 0)
    return [_joined_one(ends, place, stop_asked) for place in range(len(leader.outcomes))]


def are_in_step(ends: Sequence[RankEnd]) -> bool:
    """True where all ranks live on and ended in the same way, so that their next collectives will meet."""
    return (
        all(end.alive for end in ends)
        and len({tuple(map(_manner, end.outcomes)) for end in ends}) == 1
        and not any(_is_of_the_group(outcome) for end in ends for outcome in end.outcomes)
    )


def _joined_one(ends: Sequence[RankEnd], place: int, stop_asked: bool) -> ChildOutcome:
    told = [(end.rank, end.alive, end.outcomes[place]) for end in ends]
    runtime_s = max(outcome.runtime_s for _, _, outcome in told)
    memory = reduce(MemoryPeaks.with_rank, (outcome.memory for _, _, outcome in told))
    leader = next(outcome for rank, _, outcome in told if rank == 0)
    rank, alive, first = min(told, key=lambda one: _weight(one[2], one[1], stop_asked))
    # Ranks that share a memory cgroup all find that it has killed, also those that were ended on account of another.
    died = not alive and first.cause in (Cause.CRASH, Cause.OUT_OF_MEMORY)
    if not died and len({_manner(outcome) for _, _, outcome in told}) == 1:
        return replace(leader, runtime_s=runtime_s, memory=memory)
    error = first.error and replace(first.error, message=f"rank {rank}: {first.error.message}")
    return replace(first, outputs=(), result=None, error=error, runtime_s=runtime_s, memory=memory)


def _weight(outcome: ChildOutcome, alive: bool, stop_asked: bool) -> int:
    """Order the ends of ranks by what they explain: a death explains the exceptions of those that it left."""
    match outcome.cause:
        case Cause.SUCCEEDED:
            return 6
        case Cause.PREEMPTED:
            return 1 if stop_asked else 5  # else it was ended on account of another rank
        case Cause.OUT_OF_MEMORY if not alive:
            return 0
        case Cause.CANCELLED:
            return 2
        case Cause.CRASH | Cause.HANG:
            return 3
        case _:
            return 4


def _manner(outcome: ChildOutcome) -> tuple[str, str]:
    if outcome.error is None:
        return outcome.cause.value, ""
    text = outcome.error.message.split(":")[0] if outcome.cause is Cause.EXCEPTION else outcome.error.code
    return outcome.cause.value, text


def _is_of_the_group(outcome: ChildOutcome) -> bool:
    if outcome.cause is not Cause.EXCEPTION or outcome.error is None:
        return False
    text = outcome.error.message
    return text.startswith("Dist") or any(word in text.lower() for word in _SHOWS_A_BROKEN_GROUP)
