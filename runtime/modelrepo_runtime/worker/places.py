"""The slots that this worker has taken, before any of them has a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelrepo_runtime.accelerators import SlotLayout
from modelrepo_runtime.supervision.record import end_recorded_group
from modelrepo_runtime.worker.journal import Journal
from modelrepo_runtime.worker.locks import SlotLocks


@dataclass(frozen=True, slots=True)
class Place:
    """A slot, its folder, and the locks that its children inherit."""

    layout: SlotLayout
    folder: Path
    descriptors: tuple[int, ...]


class Places(Mapping[str, Place]):
    """Places by the slot's name. Each of a slot's devices is locked: other workers may divide them in another way."""

    def __init__(self, folder: Path, journal: Journal) -> None:
        self._folder, self._journal = folder, journal
        self._places: dict[str, Place] = {}
        self._locks: list[SlotLocks] = []

    def __getitem__(self, slot: str) -> Place:
        return self._places[slot]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def take(self, layouts: Sequence[SlotLayout]) -> None:
        """Take all of the slots or none, and end what a killed worker left in them.

        Raises:
            AlreadyServed: another worker has one of them, or one of their devices.
        """
        try:
            for layout in layouts:
                taken = tuple(self._lock(name) for name in layout.lock_names)
                self._places[layout.name] = Place(layout, self._folder / layout.name, taken)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Let go of all locks; children that live on keep theirs. Twice is legal."""
        for locks in self._locks:
            locks.release()

    def _lock(self, name: str) -> int:
        locks = SlotLocks(self._folder / name, name)
        ended = locks.acquire(end_recorded_group)
        self._locks.append(locks)
        if ended:
            self._journal.say("orphans-ended", slot=name, pids=",".join(map(str, ended)))
        return locks.slot_descriptor
