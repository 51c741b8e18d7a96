"""What slots should serve, and the thread that looks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from modelrepo.errors import ModelRepoError, NotFound
from modelrepo_runtime.queue.desired import Look, Target, pinned_target, target_of
from modelrepo_runtime.worker.journal import Journal

__all__ = ["Look", "Target", "TargetWatcher", "pinned_target", "target_of"]

STOP_S = 1.0


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
        ask: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._look, self._tell, self._journal, self._poll_s = look, tell, journal, poll_s
        self._at_each_poll, self._ask = at_each_poll, ask
        self._models: set[str] = set()
        self._known: dict[str, str] = {}
        self._seqs: dict[str, int] = {}
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

    def wake(self) -> None:
        """Look at all models, in the watcher's own thread: there is news."""
        self._woken.set()

    def look_again(self, model: str) -> None:
        """Look at one model now, in the caller's thread: what is read at each phase's edge of a swap.

        Where a gateway looks for us, it is asked first.
        """
        try:
            self._ask(model)
        except ModelRepoError as error:
            self._journal.say_once(f"target {model}", "target-unreadable", model=model, error=error)
        self._look_in_turn(model)

    def _look_in_turn(self, model: str) -> None:
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
        if self._known.get(model) == found.seen or found.seq < self._seqs.get(model, 0):
            return
        self._known[model], self._seqs[model] = found.seen, found.seq
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
                    self._look_in_turn(model)
                except Exception as error:  # noqa: BLE001 - one model's fault must not blind the others
                    self._journal.confess(f"target {model}", error)
            self._at_each_poll()
