"""`modelrepo worker`: everything wired together, from the settings to the last goodbye."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from modelrepo.box_cache.version_cache import VersionCache
from modelrepo.environments import EnvironmentCache, IndexSettings
from modelrepo.errors import Unreachable
from modelrepo_runtime.accelerators import Box, SlotLayout, facts, find_box, lay_out
from modelrepo_runtime.job_memory import MemoryRoom
from modelrepo_runtime.jobstore import JobStore
from modelrepo_runtime.pool.checkpoints import CheckpointPool
from modelrepo_runtime.queue.port import BeatReply, SlotReport, WorkerInfo
from modelrepo_runtime.supervision.memory_group import MemoryGroups, find_memory_groups, remove_abandoned
from modelrepo_runtime.supervision.rank_group import start_child
from modelrepo_runtime.supervision.spawner import shared_spawner
from modelrepo_runtime.supervision.spec import ChildSpec
from modelrepo_runtime.timing import Timing
from modelrepo_runtime.worker.adapters import open_adapters
from modelrepo_runtime.worker.attempt import Attempts
from modelrepo_runtime.worker.claiming import Claimer
from modelrepo_runtime.worker.device_watch import DeviceWatch
from modelrepo_runtime.worker.figures import LOOK_S as FIGURES_S
from modelrepo_runtime.worker.figures import BoxSources, Figures
from modelrepo_runtime.worker.flusher import Flusher
from modelrepo_runtime.worker.footprint import Learnt
from modelrepo_runtime.worker.handover import Handovers
from modelrepo_runtime.worker.journal import Journal
from modelrepo_runtime.worker.leaving import Leaving
from modelrepo_runtime.worker.memory import Reservations, host_room
from modelrepo_runtime.worker.mover import Mover
from modelrepo_runtime.worker.order_keeper import OrderKeeper
from modelrepo_runtime.worker.periodic import Periodic
from modelrepo_runtime.worker.places import Place, Places
from modelrepo_runtime.worker.preparing import RepositorySource, SlotBox, only_kind
from modelrepo_runtime.worker.pressure_watch import LOOK_S, PressureWatch
from modelrepo_runtime.worker.reach import flush_address, reach
from modelrepo_runtime.worker.roster import Roster
from modelrepo_runtime.worker.serving import SlotChild, SlotParts
from modelrepo_runtime.worker.session import WorkerSession
from modelrepo_runtime.worker.settings import WorkerSettings
from modelrepo_runtime.worker.signals import serve_until_signalled
from modelrepo_runtime.worker.slot_report import with_box
from modelrepo_runtime.worker.state_folders import StateFolders
from modelrepo_runtime.worker.states import States
from modelrepo_runtime.worker.swap_plan import Room
from modelrepo_runtime.worker.upkeep import SWEEP_EVERY_S, for_the_fleet, forget_old, let_go_of_handovers

# Adapters that nobody uses go before anybody is ended for lack of memory.
ADAPTERS_LOOK_S = 1.0
# What a job's stages handed over is forgotten with the job; of a job that ended elsewhere, a day later.
HANDOVER_KEPT_S = 86_400.0


def run_worker(settings: WorkerSettings, *, timing: Timing | None = None) -> int:
    """Serve until SIGTERM, SIGINT or SIGUSR1; a second one hands back what runs at once. Returns the exit code.

    Raises:
        AlreadyServed: another worker holds one of the slots.
        InvalidInput, NotFound, Unreachable: the settings name what cannot be used.
    """
    serve_until_signalled(Worker(settings, timing=timing))
    return 0


class Worker:
    """One worker process: its slots, its session with the queue, and the threads between them."""

    def __init__(
        self,
        settings: WorkerSettings,
        *,
        timing: Timing | None = None,
        box: Box | None = None,
        journal: Journal | None = None,
    ) -> None:
        self._settings = settings
        self._journal = journal or Journal()
        self._box = box or find_box()
        self._reach = reach(settings, timing, lambda line: self._journal.say("object-mirror", said=line))
        self._timing, self._repository = self._reach.timing, self._reach.repository
        self._queue, self._files = self._reach.queue, self._reach.files
        cluster_files = self._cluster_files = JobStore(_storage_url(settings.handover)) if settings.handover else None
        self._handovers = Handovers(settings.cache / "worker" / "handovers", self._files, cluster_files)
        address, folders = flush_address(settings), StateFolders.open(settings.cache, settings.state_memory)
        flusher = Flusher(address, self._journal) if address is not None else None
        self._states = States(folders, self._files, self._journal, flusher)
        self._learnt, self._reservations = Learnt(settings.cache / "worker" / "footprints.json"), Reservations()
        self._memory_groups: MemoryGroups = find_memory_groups()
        self._places = Places(settings.cache / "worker" / "slots", self._journal)
        self._roster = Roster(settings, self._reach, self._places, self._box, self._journal, self._parts, self._is_open)
        self._hurry = threading.Event()
        index = IndexSettings.from_environment(default_index=settings.default_index, find_links=settings.find_links)
        self._versions = VersionCache(settings.cache, self._repository.store, limit_bytes=settings.cache_size)
        environments = EnvironmentCache(
            settings.cache, index=index, allow_builds=settings.allow_builds, link_mode=settings.link_mode
        )
        self._pool = CheckpointPool.open(settings.pool, settings.pool_size, settings.pool_numa_node)
        self._pressure = PressureWatch(self._pool, self._journal, self._all_changed)
        self._pool.hold_back = self._pressure.tight
        self._adapters = open_adapters(
            (settings.adapter_cache, settings.adapter_files),
            settings.cache / "worker" / "adapters",
            self._pool.pool,
            (self._files, self._repository.adapters),
            self._journal,
        )
        self._source = RepositorySource(self._repository, self._versions, environments, self._pool)

    def start(self) -> None:
        """Take the slots, begin the session, and serve. Returns at once; models come up in their own time."""
        settings = self._settings
        layouts = lay_out(settings.slots, settings.cpu_slots, self._box.devices)
        models = self._roster.models()
        self._places.take(layouts)
        try:
            info = WorkerInfo(
                settings.name, socket.gethostname(), os.getpid(), self._reach.cluster, tuple(self._places)
            )
            self._session = WorkerSession(self._queue, info, self._timing, self.reports, self._journal, self._hear)
            self._claimer = Claimer(self._session, self._journal)
            self._devices = DeviceWatch(
                self._box.accelerator,
                {name: place.layout.devices for name, place in self._places.items()},
                self._journal,
                fell_sick=self._fell_sick,
                changed=self._changed,
            )
            self._figures = Figures(
                self._box.accelerator,
                {name: place.layout.devices for name, place in self._places.items()},
                self._roster.slots,
                BoxSources(self._pool, self._states, self._devices.sick, self._notes),
            )
            self._keeper = OrderKeeper(self._roster, self._session, self._journal, self._devices.forget)
            figures = Periodic("figures", self._figures.look, FIGURES_S, self._journal)
            devices = Periodic("devices", self._devices.look, self._timing.beat_s, self._journal)
            memory = Periodic("memory", self._pressure.look, LOOK_S, self._journal)
            pool = Periodic("pool", self._pressure.relieve, LOOK_S, self._journal)
            self._upkeep = (*self._make_upkeep(), *self._make_mover(), memory, pool, devices, figures)
        except BaseException:
            self._places.release()
            raise
        forget_old(settings.cache / "worker" / "handovers", HANDOVER_KEPT_S)
        remove_abandoned(self._memory_groups)  # now empty: whoever takes a place ends what was left in it
        self._journal.say(
            "worker-starts",
            name=settings.name,
            pid=os.getpid(),
            repository=self._repository.url,
            queue=self._queue.url,
            slots=",".join(f"{layout.name}={layout.label}" for layout in layouts),
            states=self._states.place,
            memory_groups="yes" if self._memory_groups.parent else f"no: {self._memory_groups.problem}",
        )
        self._sweep_states()
        self._pressure.look()
        self._figures.look()
        self._devices.look()  # from here on their counters count
        self._session.beat_once()  # brings the orders that stand: a cordoned slot takes no job in between
        self._keeper.catch_up()
        self._session.start()
        self._keeper.start()
        self._claimer.start()
        for upkeep in self._upkeep:
            upkeep.start()
        try:
            self._roster.assign(models)
        except BaseException:
            self.stop(0, reason="cannot start")
            raise
        self._roster.start_watching()

    def _make_upkeep(self) -> Sequence[Periodic]:
        """Return what is done now and then. What is done for the whole fleet, a gateway does where there is one."""
        own = [
            Periodic("cache", self._versions.tidy, SWEEP_EVERY_S, self._journal),
            Periodic("states", self._sweep_states, SWEEP_EVERY_S, self._journal),
            Periodic("adapters", self._adapters.relieve, ADAPTERS_LOOK_S, self._journal),
        ]
        if self._cluster_files is not None:
            let_go_here = partial(let_go_of_handovers, self._cluster_files, self._journal)
            own.append(Periodic("handovers", let_go_here, SWEEP_EVERY_S, self._journal))
        if self._reach.gateway is not None:
            return own
        return (*for_the_fleet(self._queue, self._files, self._timing, self._journal), *own)

    def _sweep_states(self) -> None:
        try:
            self._states.sweep(self._queue.wanted_states)
        except Unreachable as error:
            self._journal.say_once("queue", "queue-unreachable", error=error)

    def stop(self, grace_s: float | None = None, *, reason: str = "stop") -> None:
        """Claim nothing more, let jobs finish for the grace, hand back the rest, and go. Twice is legal."""
        slots = self._roster.close()
        if slots is None:
            return
        grace_s = self._settings.grace_s if grace_s is None else grace_s
        self._journal.say("worker-leaves", reason=reason, grace_s=grace_s)
        until = time.monotonic() + grace_s
        self._session.hurry(grace_s)
        self._keeper.stop(0)
        self._claimer.stop(0)
        self._states.hurry(until)
        _all_at_once(each.slot.leave for each in slots)
        leaving = Leaving([each.slot for each in slots])
        self._roster.stop_watching()
        while not self._hurry.is_set() and time.monotonic() < until:
            if all(each.join(0) for each in slots):
                break
            leaving.end_saved()
            self._hurry.wait(0.02)
        if self._hurry.is_set():
            self._states.hurry(time.monotonic())
        _all_at_once(each.slot.abandon for each in slots if not each.join(0))
        until = time.monotonic() + self._timing.stop_grace_s
        for each in slots:
            if not each.join(max(0.0, until - time.monotonic())):
                self._journal.say("slot-left-behind", slot=each.slot.parts.name, next="its lease goes to another")
        self._claimer.stop(self._timing.beat_s)
        for upkeep in self._upkeep:
            upkeep.stop()
        self._session.stop()
        self._states.close()
        self._places.release()
        self._queue.close()
        self._journal.say("worker-left")

    def hurry(self) -> None:
        """Hand back what runs now rather than at the end of the grace."""
        self._hurry.set()

    def dump_stacks(self) -> None:
        """Write the stacks of all threads of every child to the log of its job."""
        self._journal.say("stacks-asked-for")
        for slot in self._roster.slots().values():
            slot.dump_stacks()

    def reports(self) -> Sequence[SlotReport]:
        """Describe every slot, also those without a model."""
        slots = self._roster.slots()
        found = (
            slots[name].report() if name in slots else self._empty(name, place) for name, place in self._places.items()
        )
        return with_box(tuple(found), self._figures.of_box())

    def _empty(self, name: str, place: Place) -> SlotReport:
        why = self._cordon(name) or self._pressure.tight()
        reason = why or "no model for this slot yet"
        return SlotReport(name, "cordoned" if why else "open", device=place.layout.label, reason=reason)

    def _notes(self) -> Sequence[str]:
        tight = self._pressure.tight()
        return () if tight is None else (tight,)

    def _cordon(self, name: str) -> str | None:
        return self._keeper.cordon(name) or self._devices.cordon(name)

    def _fell_sick(self, name: str) -> None:
        """Hand back what runs on a device that is past use, uncounted; its child is ended and none is started."""
        slot = self._roster.slot_of(name)
        if slot is not None:
            slot.abandon()
        self._changed(name)

    def _changed(self, name: str) -> None:
        slot = self._roster.slot_of(name)
        if slot is not None:
            slot.look_again()

    def _all_changed(self) -> None:
        for slot in self._roster.slots().values():
            slot.look_again()

    def _make_mover(self) -> Sequence[Periodic]:
        if not self._settings.share_slots:
            return ()
        mover = Mover(self._roster, self._session, self._journal)
        return (Periodic("slots shared", mover.look, self._timing.beat_s, self._journal),)

    def _is_open(self, name: str) -> bool:
        return self._cordon(name) is None

    def _hear(self, reply: BeatReply) -> None:
        """Pass on what a beat was answered."""
        self._keeper.hear(reply.orders)
        for slot in self._roster.slots().values():
            slot.want(reply.versions.get(slot.model, ()))

    def _parts(self, place: Place) -> SlotParts:
        settings, layout = self._settings, place.layout
        attempts = place.folder / "attempts"
        shutil.rmtree(attempts, ignore_errors=True)
        has_accelerators = any(device.kind != "cpu" for device in self._box.devices)
        versions = self._box.accelerator.versions()
        room = MemoryRoom(smallest_bytes(layout), host_room().total_bytes)
        return SlotParts(
            name=layout.name,
            layout=layout,
            figures=partial(self._figures.of_slot, layout.name),
            folder=place.folder,
            box=SlotBox(
                layout,
                facts(layout.devices, versions),
                has_accelerators,
                settings.secrets_dir,
                os.environ,
                only_kind(settings, layout),
            ),
            timing=self._timing,
            journal=self._journal,
            session=self._session,
            claimer=self._claimer,
            attempts=Attempts(
                attempts,
                self._handovers,
                self._files,
                self._timing,
                self._journal,
                self._states,
                self._adapters,
                room=room,
            ),
            source=self._source,
            learnt=self._learnt,
            reservations=self._reservations,
            start_child=self._start_child,
            host_room=partial(host_room, evictable_bytes=self._evictable_bytes),
            make_room=self._relieve,
            device_room=self._device_room(layout),
            slots_total=self._roster.slots_total,
            look_again=self._roster.look_again,
            cordon=partial(self._cordon, layout.name),
            drop_spare=self._pool.drop_spare,
            tight=self._pressure.tight,
            device_broken=partial(self._devices.is_broken, layout.name),
            look_at_devices=partial(self._devices.look_at, layout.name),
            slot_descriptors=place.descriptors,
            room=room,
        )

    def _relieve(self, size_bytes: int = 0) -> None:
        """Give memory back that nobody uses: adapters first, they are the smaller fetch."""
        self._adapters.relieve(size_bytes)
        self._pool.relieve(size_bytes)

    def _evictable_bytes(self) -> int:
        return self._adapters.evictable_bytes() + self._pool.evictable_bytes()

    def _start_child(self, spec: ChildSpec) -> SlotChild:
        return start_child(spec, shared_spawner(), memory=self._memory_groups)

    def _device_room(self, layout: SlotLayout) -> Callable[[], Room | None]:
        total = smallest_bytes(layout)
        if total is None:
            return lambda: None
        return lambda: Room(self._box.free_bytes(layout.devices), total)


def smallest_bytes(layout: SlotLayout) -> int | None:
    """Return the memory of the smallest device of a slot; None for a slot on the CPU."""
    if layout.on_cpu:
        return None
    return min(device.memory_total_bytes for device in layout.devices)


def _storage_url(place: str) -> str:
    """Return the URL of a store that may be named by a folder."""
    return place if "://" in place else Path(place).expanduser().absolute().as_uri()


def _all_at_once(calls: Iterable[Callable[[], None]]) -> None:
    """Models that ignore SIGTERM take seconds to end: one slot's must not take them from the others' grace."""
    threads = [threading.Thread(target=call, daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
