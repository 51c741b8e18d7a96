"""The slots of a simulated day: pools that grow and shrink, boxes that are lost, swaps in turns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, auto

from modelrepo_runtime.queue.lanes import LiveSlot, Place
from modelrepo_runtime.queue.turns import slots_allowed
from modelrepo_runtime.simulation.agenda import Agenda
from modelrepo_runtime.simulation.day import FIRST_VERSION, MODEL, Cluster, Day


class State(Enum):
    """What an accelerator slot does."""

    OFF = auto()
    LOADING = auto()
    IDLE = auto()
    BUSY = auto()
    SWAPPING = auto()
    LOST = auto()


class Slot:
    """An accelerator slot; mutable, since there are thousands and each changes with every job."""

    __slots__ = ("box", "claimed_at", "cluster", "job", "key", "leaving", "life", "number", "place", "state", "version")

    def __init__(self, cluster: int, number: int, place: Place) -> None:
        self.cluster, self.number, self.place = cluster, number, place
        self.key, self.box = place.key, place.host
        self.state = State.OFF
        self.leaving = False
        self.version = FIRST_VERSION
        """Served, or loaded next."""
        self.life = 0
        """What was begun in an earlier life is void."""
        self.job = -1
        self.claimed_at = 0.0


@dataclass(slots=True)
class Target:
    """The active version, and how slots come to it."""

    version: str = FIRST_VERSION
    max_unavailable: str = "10%"
    swap_s: float = 0.0


class Fleet:
    """All accelerator slots. Calls `free(slot)` when one may take a job and `fed(cluster)` when credits may be free."""

    def __init__(
        self,
        day: Day,
        agenda: Agenda,
        free: Callable[[Slot], None],
        fed: Callable[[int], None],
        halted: Callable[[str], bool],
    ) -> None:
        self.clusters, self.target = day.clusters, Target()
        self._agenda, self._free, self._fed, self._halted = agenda, free, fed, halted
        self.slots = [_slots(n, cluster) for n, cluster in enumerate(day.clusters)]
        self.idle: dict[tuple[int, str], dict[int, Slot]] = {}
        """(cluster, version) -> slots without a job, by number; the one that fell idle last is last."""
        self.feeding: Counter[tuple[int, str]] = Counter()
        """(cluster, version) -> slots that serve or load it."""
        self.serving = 0
        self.busy = 0
        self.swapping = 0
        self.most_swapping = 0
        self.swaps = 0

    def set_pool(self, what: tuple[int, int]) -> None:
        """Bring a cluster's pool to so many slots."""
        cluster, wanted = what
        for slot in self.slots[cluster]:
            if slot.number < wanted:
                slot.leaving = False
                if slot.state is State.OFF:
                    self._come(slot, self.clusters[cluster].warm_up_s if self._agenda.now > 0 else 0.0)
            elif slot.state is State.BUSY:
                slot.leaving = True
            elif slot.state is not State.OFF:
                self._vanish(slot, State.OFF)
        self._fed(cluster)

    def _come(self, slot: Slot, after_s: float) -> None:
        slot.state, slot.version = State.LOADING, self.target.version
        self.feeding[slot.cluster, slot.version] += 1
        self._agenda.after(after_s, self._loaded, (slot, slot.life))

    def _loaded(self, what: tuple[Slot, int]) -> None:
        slot, life = what
        if slot.life != life:
            return
        if slot.state is State.SWAPPING:
            self.swapping -= 1
            self.swaps += 1
        self.serving += 1
        slot.state = State.IDLE
        self.ready(slot)
        self._give_turns()

    def ready(self, slot: Slot) -> None:
        """A slot has no job: it leaves, swaps, or looks for one."""
        if slot.leaving:
            self._vanish(slot, State.OFF)
        elif slot.version != self.target.version and self._may_swap():
            self._swap(slot)
        else:
            self._free(slot)

    def takes(self, slot: Slot, job: int, now: float) -> None:
        """A slot begins a job."""
        if slot.state is State.IDLE:
            self.idle.get((slot.cluster, slot.version), {}).pop(slot.number, None)
        slot.state, slot.job, slot.claimed_at = State.BUSY, job, now
        self.busy += 1

    def ends(self, slot: Slot) -> None:
        """A slot's job has ended."""
        slot.state, slot.job = State.IDLE, -1
        self.busy -= 1

    def waits(self, slot: Slot) -> None:
        """A slot found no job."""
        self.idle.setdefault((slot.cluster, slot.version), {})[slot.number] = slot

    def lose(self, box: int, away_s: float) -> list[tuple[int, Slot, int, float]]:
        """Lose the n-th box of all clusters' largest pools; return (job, slot, life, claimed at) of what ran on it."""
        lost: list[tuple[int, Slot, int, float]] = []
        cluster = 0
        for cluster, slots in enumerate(self.slots):
            boxes = -(-len(slots) // self.clusters[cluster].gpus_per_box)
            if box < boxes:
                break
            box -= boxes
        size = self.clusters[cluster].gpus_per_box
        for slot in self.slots[cluster][box * size : (box + 1) * size]:
            if slot.state in (State.OFF, State.LOST):
                continue
            if slot.state is State.BUSY:
                lost.append((slot.job, slot, slot.life, slot.claimed_at))
            self._vanish(slot, State.LOST)
            self._agenda.after(away_s, self._back, slot)
        self._fed(cluster)
        return lost

    def _back(self, slot: Slot) -> None:
        if slot.state is State.LOST:
            slot.state = State.OFF
            if not slot.leaving:
                self._come(slot, self.clusters[slot.cluster].warm_up_s)
                self._fed(slot.cluster)

    def _vanish(self, slot: Slot, state: State) -> None:
        was, slot.state = slot.state, state
        slot.life += 1
        if was is State.LOST:
            return
        self.feeding[slot.cluster, slot.version] -= 1
        if was is State.IDLE:
            self.idle.get((slot.cluster, slot.version), {}).pop(slot.number, None)
        if was is State.BUSY:
            self.busy -= 1
            slot.job = -1
        if was is State.SWAPPING:
            self.swapping -= 1
        if was in (State.IDLE, State.BUSY):
            self.serving -= 1
        if state is State.OFF:
            slot.leaving = False

    def aim(self, target: Target) -> None:
        """Make another version the active one."""
        self.target = target
        self._give_turns()

    def _may_swap(self) -> bool:
        if self._halted(self.target.version):
            return False
        return self.swapping < slots_allowed(self.target.max_unavailable, self.serving + self.swapping)

    def _swap(self, slot: Slot) -> None:
        self.idle.get((slot.cluster, slot.version), {}).pop(slot.number, None)
        self.feeding[slot.cluster, slot.version] -= 1
        slot.state, slot.version = State.SWAPPING, self.target.version
        self.feeding[slot.cluster, slot.version] += 1
        self.serving -= 1
        self.swapping += 1
        self.most_swapping = max(self.most_swapping, self.swapping)
        self._agenda.after(self.target.swap_s, self._loaded, (slot, slot.life))
        self._fed(slot.cluster)

    def _give_turns(self) -> None:
        """Let idle slots of other versions swap, as far as there are turns."""
        for (_, version), slots in self.idle.items():
            while version != self.target.version and slots and self._may_swap():
                self._swap(next(reversed(slots.values())))

    def served(self, version: str, cluster: int | None = None) -> bool:
        """True if any slot (of one cluster) serves or loads a version."""
        where = range(len(self.clusters)) if cluster is None else (cluster,)
        return any(self.feeding[n, version] > 0 for n in where)

    def live(self) -> Iterator[LiveSlot]:
        """Yield the slots that serve, as the queue knows them."""
        for slots in self.slots:
            for slot in slots:
                if slot.state in (State.IDLE, State.BUSY):
                    yield LiveSlot(slot.place, "open", MODEL, slot.version, cluster=self.clusters[slot.cluster].name)


def _slots(number: int, cluster: Cluster) -> list[Slot]:
    size = cluster.gpus_per_box
    hosts = [f"{cluster.name}-{n}" for n in range(-(-cluster.most(cluster.gpus) // size))]
    return [
        Slot(number, n, Place(hosts[n // size], f"gpu{n % size}", hosts[n // size]))
        for n in range(cluster.most(cluster.gpus))
    ]
