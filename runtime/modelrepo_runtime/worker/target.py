"""What a slot should serve, as the repository says it, and the thread that looks."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from modelrepo.errors import ModelRepoError, NotFound
from modelrepo.promotion import ActiveState
from modelrepo_runtime.jobs import Json
from modelrepo_runtime.worker.journal import Journal

STOP_S = 1.0


@dataclass(frozen=True, slots=True)
class Target:
    """The version and configuration that a model's slots should serve, and the change that said so."""

    model: str
    version: str
    digest: str | None
    generation: int
    config: Mapping[str, Json] = field(default_factory=dict)
    max_unavailable: str = "10%"
    end_running: bool = False
    """Attempts of any other version are to end now, uncounted."""
    notes: tuple[str, ...] = ()
    pinned: bool = False
    """An operator, or the queue for jobs that must go on as they began, wants this version whatever is active."""

    @property
    def key(self) -> str:
        """Name what would run: equal keys are no swap, whatever their generations."""
        config = json.dumps(self.config, sort_keys=True, default=str)
        return f"{self.digest or self.version}+{hashlib.sha256(config.encode()).hexdigest()[:16]}"

    def __str__(self) -> str:
        return f"{self.model}@{self.version}"


def pinned_target(model: str, version: str, known: Target | None) -> Target:
    """Return what a slot serves that is pinned to a version; `known` is what is active of the model.

    The active configuration goes with the active version only: another one may not declare its keys.
    """
    if known is None:
        return Target(model, version, None, 0, pinned=True)
    if known.version == version:
        return replace(known, pinned=True)
    return replace(known, version=version, digest=None, config={}, end_running=False, notes=(), pinned=True)


@dataclass(frozen=True, slots=True)
class Look:
    """A look at a model's active version: `seen` is equal as long as nothing changed."""

    seen: str
    target: Target | None


def target_of(state: ActiveState) -> Target | None:
    """Say what a model's slots should serve by its active state; None where nothing is active."""
    if state.version is None:
        return None
    return Target(
        model=state.model,
        version=state.version,
        digest=state.digest,
        generation=state.generation,
        config=dict(state.config),
        max_unavailable=state.rollout.max_unavailable,
        end_running=state.rollout.now,
        notes=state.notes,
    )


class TargetWatcher:
    """Looks at the active version of each model that slots serve, and tells the slots of changes.

    What cannot be read changes nothing: slots keep serving what they have.
    """

    def __init__(
        self,
        look: Callable[[str], Look],
        tell: Callable[[Target], None],
        journal: Journal,
        *,
        poll_s: float,
        at_each_poll: Callable[[], None] = lambda: None,
    ) -> None:
        self._look, self._tell, self._journal, self._poll_s = look, tell, journal, poll_s
        self._at_each_poll = at_each_poll
        self._models: set[str] = set()
        self._known: dict[str, str] = {}
        self._targets: dict[str, Target] = {}
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._stopped = threading.Event()
        self._looking = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="target watcher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Look no more. A look at a store that does not answer is not waited for: whom it tells, leaves."""
        self._stopped.set()
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join(STOP_S)

    def watch(self, models: Iterable[str]) -> None:
        """Add models, and look at once."""
        with self._lock:
            self._models.update(models)
        self._woken.set()

    def look_again(self, model: str) -> None:
        """Look at one model now, in the caller's thread: what is read at each phase's edge of a swap."""
        with self._looking:  # so that of two looks at once the older does not tell last
            self._look_at(model)

    def _look_at(self, model: str) -> None:
        try:
            found = self._look(model)
        except NotFound as error:
            self._journal.say_once(f"target {model}", "target-missing", model=model, error=error)
            return
        except ModelRepoError as error:
            self._journal.say_once(f"target {model}", "target-unreadable", model=model, error=error)
            return
        if self._known.get(model) == found.seen:
            return
        self._known[model] = found.seen
        self._journal.forget(f"target {model}")
        target = found.target
        if target is None:
            self._journal.say_once(f"target {model}", "target-none", model=model, next="promote a version")
            return
        self._journal.say(
            "target",
            model=model,
            version=target.version,
            generation=target.generation,
            notes="; ".join(target.notes) or None,
        )
        self._targets[model] = target
        self._tell(target)

    def known(self, model: str) -> Target | None:
        """Return what was last read of a model."""
        return self._targets.get(model)

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._woken.wait(self._poll_s)
            self._woken.clear()
            with self._lock:
                models = sorted(self._models)
            for model in models:
                if self._stopped.is_set():
                    return
                try:
                    self.look_again(model)
                except Exception as error:  # noqa: BLE001 - one model's fault must not blind the others
                    self._journal.confess(f"target {model}", error)
            self._at_each_poll()
