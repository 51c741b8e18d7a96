"""Which slot of a worker serves which model, and the targets that its slots are told of."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from modelrepo.errors import Corrupt, InvalidActiveFile, InvalidInput, ModelRepoError, NewerFormat
from modelrepo_runtime.accelerators import Box
from modelrepo_runtime.queue.demand import Demand, Taker
from modelrepo_runtime.worker.assignment import assign
from modelrepo_runtime.worker.journal import Journal
from modelrepo_runtime.worker.places import Place, Places
from modelrepo_runtime.worker.preparing import only_kind
from modelrepo_runtime.worker.reach import Reach
from modelrepo_runtime.worker.serving import SlotParts
from modelrepo_runtime.worker.settings import WorkerSettings
from modelrepo_runtime.worker.slot import Slot
from modelrepo_runtime.worker.slot_threads import SlotThreads
from modelrepo_runtime.worker.target import Look, Target, TargetWatcher, pinned_target, target_of

# Models that get their first active version are looked for this much more seldom than known ones are read.
POLLS_PER_MODEL_LIST = 8


class Roster:
    """Gives the slots of a worker their models, and starts them. For any thread.

    `parts` makes what a slot works with; it is called once for each model that a slot gets. `is_open` tells whether
    nobody has cordoned a slot.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        reach: Reach,
        places: Places,
        box: Box,
        journal: Journal,
        parts: Callable[[Place], SlotParts],
        is_open: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self._settings, self._reach, self._places, self._box = settings, reach, places, box
        self._repository, self._journal, self._parts = reach.repository, journal, parts
        self._is_open = is_open
        self._slots: dict[str, SlotThreads] = {}
        self._pins: dict[str, str] = {}
        """Slot -> the version that it was ordered to serve, whatever is active."""
        self._ordered: set[str] = set()
        """Slots whose model an operator has chosen."""
        self._models: tuple[str, ...] = ()
        """Those that had an active version when it was last looked."""
        self._lock = threading.Lock()
        self._closed = False
        self._polls = 0
        self._watcher = TargetWatcher(
            self._look,
            self._tell,
            journal,
            poll_s=self._poll_s(),
            at_each_poll=self._look_for_models,
            ask=self._ask_gateway,
        )

    def start_watching(self) -> None:
        """Follow what is active from now on."""
        self._watcher.start()

    def stop_watching(self) -> None:
        """Follow it no more."""
        self._watcher.stop()

    def look_again(self, model: str) -> None:
        """Read a model's active version now; slots hear of a change before this returns."""
        self._watcher.look_again(model)

    def close(self) -> Sequence[SlotThreads] | None:
        """Give no slot a model from now on, and return those that have one; None where it was closed before."""
        with self._lock:
            if self._closed:
                return None
            self._closed = True
            return list(self._slots.values())

    def slots(self) -> Mapping[str, Slot]:
        """Return every slot that has a model, by its name."""
        with self._lock:
            return {name: each.slot for name, each in self._slots.items()}

    def slot_names(self) -> Sequence[str]:
        """Name every slot, also those without a model."""
        return tuple(self._places)

    def slot_of(self, name: str) -> Slot | None:
        """Return a slot that has a model."""
        with self._lock:
            each = self._slots.get(name)
        return each.slot if each is not None else None

    def assign_slot(self, name: str, model: str, version: str | None) -> bool:
        """Bring a slot closer to what an operator wants it to serve; True once it does.

        Raises: InvalidInput for a model that this worker leaves to others; NotFound for one that is nowhere.
        """
        if self._settings.models and model not in self._settings.models:
            raise InvalidInput(f"this worker serves only {', '.join(self._settings.models)}; start it with others")
        slot = self.slot_of(name)
        if slot is None or slot.model != model or self._pins.get(name) != version:
            self._repository.resolve(f"{model}@{version}") if version else self._repository.versions(model)
        if version is None:
            self._pins.pop(name, None)
        else:
            self._pins[name] = version
        self._ordered.add(name)
        if slot is None or slot.model != model:
            slot = self._replace(name, model)
        wanted = self._wanted(name, model) if slot is not None else None
        if slot is None or wanted is None:
            return False
        if slot.target != wanted:
            slot.set_target(wanted)
        with slot.changed:
            return slot.serving is not None and slot.serving.target.key == wanted.key

    def is_ordered(self, name: str) -> bool:
        """Tell whether an operator has chosen a slot's model."""
        return name in self._ordered

    def is_open(self, name: str) -> bool:
        """Tell whether nobody has cordoned a slot."""
        return self._is_open(name)

    def shared_models(self) -> Sequence[str]:
        """Name the models that this worker may serve and that have an active version, as last looked at."""
        return self._models

    def demands(self, models: Sequence[str]) -> Callable[[str, str], Demand]:
        """Look at what waits for models now; the answer says what of it a slot could take. Raises: Unreachable."""
        found = self._reach.demand(models)
        cluster, worker = self._reach.cluster, self._settings.name
        takers = {
            name: Taker(slot.parts.box.on, cluster, worker, slot.parts.room) for name, slot in self.slots().items()
        }
        return lambda slot, model: takers[slot].demand(found.get(model, ()))

    def move(self, name: str, model: str) -> bool:
        """Bring a slot closer to having a model; True once it has."""
        slot = self.slot_of(name)
        if slot is None or slot.model != model:
            slot = self._replace(name, model)
        if slot is None:
            return False
        wanted = self._wanted(name, model)
        if wanted is not None and slot.target != wanted:
            slot.set_target(wanted)
        return True

    def _replace(self, name: str, model: str) -> Slot | None:
        """Have another model in a slot, once what it has is gone; None until then."""
        with self._lock:
            old = self._slots.get(name)
        if old is not None:
            old.slot.leave()
            if not old.join(0):
                return None
        fresh = SlotThreads(Slot(self._parts(self._places[name]), model))
        with self._lock:
            if self._closed:
                return None
            self._slots[name] = fresh
        self._journal.say("slot-assigned", slot=name, model=model)
        fresh.start()
        self._watch({model})
        return fresh.slot

    def _wanted(self, slot: str, model: str) -> Target | None:
        """Say what a slot should serve: the version that it is pinned to, else the active one."""
        known, pin = self._watcher.known(model), self._pins.get(slot)
        return known if pin is None else pinned_target(model, pin, known)

    def models(self) -> list[str]:
        """Name the models to serve that have an active version. Raises ModelNotFound for one that was named."""
        if self._reach.gateway is not None:
            active = self._reach.gateway.active_models()
            return [name for name in self._settings.models or active if name in active]
        if self._settings.models:
            for name in self._settings.models:
                self._repository.versions(name)
        names = self._settings.models or self._repository.models()
        return [name for name in names if self._is_active(name)]

    def _is_active(self, model: str) -> bool:
        try:
            return self._repository.promotions.state(model).version is not None
        except InvalidActiveFile as error:
            self._journal.say_once(f"target {model}", "target-unreadable", model=model, error=error)
            return self._repository.promotions.recorded(model).version is not None
        except (Corrupt, NewerFormat) as error:  # one model's fault must not keep the others from being served
            self._journal.say_once(f"target {model}", "target-unreadable", model=model, error=error)
            return False

    def assign(self, models: Sequence[str]) -> None:
        """Give free slots a model each, and say which models are left without one."""
        self._models = tuple(models)
        waiting = self._reach.waiting(models)
        kinds = {model: self._kinds_of(model) for model in models}
        with self._lock:
            if self._closed:
                return
            taken = {name: each.slot.model for name, each in self._slots.items()}
            found = assign(list(self._places), waiting, taken, lambda slot, model: self._runs(slot, kinds[model]))
            fresh = [name for name in found.by_slot if name not in taken]
            for name in fresh:
                self._slots[name] = SlotThreads(Slot(self._parts(self._places[name]), found.by_slot[name]))
            started = [self._slots[name] for name in fresh]
        for each in started:
            self._journal.say("slot-assigned", slot=each.slot.parts.name, model=each.slot.model)
            each.start()
        for model in found.unserved:
            self._journal.say_once(
                f"unserved {model}", "model-without-slot", model=model, next=self._next_for_unserved()
            )
        if not models:
            self._journal.say_once("models", "no-model", next="push and promote a model")
        self._watch({each.slot.model for each in started})
        for each in started:
            # A slot that is assigned later hears of a target that the watcher knows already.
            target = self._wanted(each.slot.parts.name, each.slot.model)
            if target is not None:
                each.slot.set_target(target)

    def _next_for_unserved(self) -> str:
        if self._settings.share_slots:
            return "it gets a slot that is idle, or one whose jobs are less urgent"
        return "add slots, name it with --models, or let slots be shared with --share-slots true"

    def _kinds_of(self, model: str) -> frozenset[str]:
        """Name what the stages of a model's active version run on; what cannot be read may run on anything."""
        try:
            version = self._repository.promotions.state(model).version
            spec = self._repository.version(model, version).spec if version is not None else None
        except ModelRepoError:
            spec = None
        return frozenset(stage.on for stage in spec.stages) if spec is not None else frozenset({"cpu", "gpu"})

    def _runs(self, slot: str, kinds: frozenset[str]) -> bool:
        only = only_kind(self._settings, self._places[slot].layout)
        has_accelerators = any(device.kind != "cpu" for device in self._box.devices)
        if only is None and self._places[slot].layout.on_cpu and has_accelerators:
            only = "cpu"
        return only is None or only in kinds

    def _watch(self, models: Iterable[str]) -> None:
        """Follow what is active of these models too."""
        self._watcher.watch(models)
        if self._reach.gateway is not None:
            with self._lock:
                watched = sorted({each.slot.model for each in self._slots.values()})
            self._reach.gateway.watch(watched, self._watcher.wake)
            self._reach.gateway.look_now(watched)

    def _ask_gateway(self, model: str) -> None:
        if self._reach.gateway is not None:
            self._reach.gateway.look_now([model])

    def _look(self, model: str) -> Look:
        if self._reach.gateway is not None:
            look: Look = self._reach.gateway.look(model) or Look("", None)
            if look.recorded is not None and not self._all_serve(model):
                return replace(look, target=look.recorded)
            return look
        promotions = self._repository.promotions
        try:
            state = promotions.state(model)
        except InvalidActiveFile:
            if self._watcher.known(model) is not None:
                raise
            state = promotions.recorded(model)
        if state.edited_by_hand and state.digest is None and not self._all_serve(model):
            # A slot that serves nothing has nothing that could run on while such an edit is refused.
            state = promotions.recorded(model)
        return Look(state.seen, target_of(state))

    def _all_serve(self, model: str) -> bool:
        with self._lock:
            return all(each.slot.serving is not None for each in self._slots.values() if each.slot.model == model)

    def _tell(self, target: Target) -> None:
        with self._lock:
            slots = [each.slot for each in self._slots.values() if each.slot.model == target.model]
        for slot in slots:
            pin = self._pins.get(slot.parts.name)
            slot.set_target(target if pin is None else pinned_target(target.model, pin, target))

    def _look_for_models(self) -> None:
        """Now and then, while slots are free or shared: a model may have got its first active version."""
        self._polls += 1
        every = 1 if self._reach.gateway is not None else POLLS_PER_MODEL_LIST
        taken = len(self._slots) == len(self._places)
        if (taken and not self._settings.share_slots) or self._polls % every:
            return
        try:
            if taken:
                self._models = tuple(self.models())
            else:
                self.assign(self.models())
        except Exception as error:  # noqa: BLE001 - the next look may find the store again
            self._journal.say_once("models", "models-unreadable", error=error)

    def _poll_s(self) -> float:
        if self._reach.gateway is not None:
            return self._reach.timing.beat_s  # answers bring what is new sooner
        local = self._repository.store.ability.local
        return self._reach.timing.active_poll_local_s if local else self._reach.timing.active_poll_bucket_s

    def slots_total(self, model: str) -> int:
        """Count the slots of the whole fleet that serve a model, our own at least."""
        fleet = self._reach.slots(model)
        with self._lock:
            return max(fleet, sum(1 for each in self._slots.values() if each.slot.model == model))
