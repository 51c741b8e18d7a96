"""The supervisor's side of a child: it never imports a model's code, and outlives whatever that code does."""

from .child import Child, ChildGone
from .memory_group import MemoryGroups, find_memory_groups, remove_abandoned
from .rank_group import RankGroup, start_child
from .record import end_recorded_group
from .spawner import Spawner, shared_spawner
from .spec import ChildOutcome, ChildSpec, Footprint, JobRequest, OutputPath, StopReport
from .states import CHILD_TRANSITIONS, ChildState

__all__ = [
    "CHILD_TRANSITIONS",
    "Child",
    "ChildGone",
    "ChildOutcome",
    "ChildSpec",
    "ChildState",
    "Footprint",
    "JobRequest",
    "MemoryGroups",
    "OutputPath",
    "RankGroup",
    "Spawner",
    "StopReport",
    "end_recorded_group",
    "find_memory_groups",
    "remove_abandoned",
    "shared_spawner",
    "start_child",
]
