"""The states of a child, from the decision to have it to its end."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum


class ChildState(StrEnum):
    """Where a child is; `docs/states.md` has the drawing."""

    FETCHING = "fetching"
    """The version's files come into the box's cache."""
    BUILDING = "building"
    """Its environment is installed."""
    STARTING = "starting"
    """The process is there; the entrypoint is being imported."""
    LOADING = "loading"
    WARMING = "warming"
    READY = "ready"
    RUNNING = "running"
    RELOADING = "reloading"
    """Between two jobs the model takes up another version's checkpoints in place."""
    DRAINING = "draining"
    """Asked to leave: it takes no job and ends by itself."""
    STOPPING = "stopping"
    """It is being ended, or has ended."""


CHILD_TRANSITIONS: Mapping[ChildState, frozenset[ChildState]] = {
    ChildState.FETCHING: frozenset({ChildState.BUILDING, ChildState.STOPPING}),
    ChildState.BUILDING: frozenset({ChildState.STARTING, ChildState.STOPPING}),
    ChildState.STARTING: frozenset({ChildState.LOADING, ChildState.STOPPING}),
    ChildState.LOADING: frozenset({ChildState.WARMING, ChildState.STOPPING}),
    ChildState.WARMING: frozenset({ChildState.READY, ChildState.STOPPING}),
    ChildState.READY: frozenset({ChildState.RUNNING, ChildState.RELOADING, ChildState.DRAINING, ChildState.STOPPING}),
    ChildState.RUNNING: frozenset({ChildState.READY, ChildState.DRAINING, ChildState.STOPPING}),
    ChildState.RELOADING: frozenset({ChildState.READY, ChildState.STOPPING}),
    ChildState.DRAINING: frozenset({ChildState.STOPPING}),
    ChildState.STOPPING: frozenset(),
}


_LEAST_FIRST = (
    ChildState.STOPPING,
    ChildState.DRAINING,
    ChildState.FETCHING,
    ChildState.BUILDING,
    ChildState.STARTING,
    ChildState.LOADING,
    ChildState.WARMING,
    ChildState.RELOADING,
    ChildState.RUNNING,
    ChildState.READY,
)


def joint_state(states: Collection[ChildState]) -> ChildState:
    """Return the state of a group of ranks: that of the one which is furthest from taking a job."""
    return next(state for state in _LEAST_FIRST if state in states)


def may_move(old: ChildState, new: ChildState) -> bool:
    """True where the table has the step."""
    return new in CHILD_TRANSITIONS[old]
