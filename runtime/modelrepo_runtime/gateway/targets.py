"""What each model's slots should serve: read from the repository by the gateway, so that 9,000 boxes need not.

Every change gets a number from a row of the queue's database (`active_seen`), compared and appended: of two gateways
neither can put an older look after a newer one, and a worker takes no target with a lower number than it has.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from modelrepo import layout
from modelrepo.errors import Corrupt, InvalidActiveFile, InvalidName, ModelRepoError, NewerFormat, NotFound
from modelrepo.names import check_model_name
from modelrepo.repository import Repository
from modelrepo_runtime.queue.desired import Look, target_of
from modelrepo_runtime.queue.http.wire import read, write
from modelrepo_runtime.queue.port import ActiveSeen, JobQueue

log = logging.getLogger(__name__)

MODELS_EVERY = 8
"""Polls between two lists of all models: one that gets its first active version may be heard of a little later."""
STOP_S = 1.0


class Targets:
    """The newest target of every model, and a thread that looks."""

    def __init__(self, repository: Repository, queue: JobQueue, poll_s: float) -> None:
        self._repository, self._queue, self._poll_s = repository, queue, poll_s
        self._looks: Mapping[str, Look] = {}
        self._on_change: list[Callable[[str], None]] = []
        self._models: frozenset[str] = frozenset()
        self._listed_at = float("-inf")
        self._said: dict[str, str] = {}
        self._stopped = threading.Event()
        self._looking = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="targets", daemon=True)

    def start(self) -> None:
        """Look from now on."""
        self._thread.start()

    def close(self) -> None:
        """Look no more; closing twice is legal."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(STOP_S)

    def on_change(self, tell: Callable[[str], None]) -> None:
        """Have `tell(model)` called, from the looking thread, for each change."""
        self._on_change.append(tell)

    def newer(self, known: Mapping[str, int]) -> tuple[Look, ...]:
        """Return the targets of these models that have a higher number than is known of them."""
        looks = self._looks
        return tuple(looks[model] for model, seq in known.items() if model in looks and looks[model].seq > seq)

    def knows(self, model: str) -> bool:
        """Say whether the repository is known to have a model; asks nobody."""
        return model in self._looks or model in self._models

    def listed(self, models: Sequence[str]) -> tuple[str, ...]:
        """Return those of these models that the repository has; it is asked of new ones. Raises: Unreachable."""
        return tuple(model for model in models if self.knows(model) or self._is_published(model))

    def models(self) -> tuple[str, ...]:
        """Name the models that have a target; those of the repository are looked up where that was a while ago."""
        if time.monotonic() - self._listed_at > self._poll_s:
            with self._looking:
                if time.monotonic() - self._listed_at > self._poll_s:
                    self._list()
                    for model in sorted(self._models):
                        self._look_at(model)
        return tuple(sorted(model for model, look in self._looks.items() if look.target is not None))

    def look(self, models: Sequence[str]) -> None:
        """Look at models now, in the caller's thread."""
        with self._looking:
            for model in models:
                self._look_at(model)

    def _run(self) -> None:
        polls = 0
        while not self._stopped.is_set():
            if polls % MODELS_EVERY == 0:
                self._list()
            polls += 1
            self.look(sorted(self._models))
            self._stopped.wait(self._poll_s)

    def _is_published(self, model: str) -> bool:
        try:
            folder = layout.versions_folder(check_model_name(model))
        except InvalidName:
            return False
        if next(iter(self._repository.store.list(folder)), None) is None:
            return False
        self._models |= {model}
        return True

    def _list(self) -> None:
        self._listed_at = time.monotonic()
        try:
            self._models = frozenset(self._repository.models())
        except ModelRepoError as error:
            self._say("", error)

    def _look_at(self, model: str) -> None:
        try:
            found = self._newest(model)
        except ModelRepoError as error:
            self._say(model, error)
            return
        except Exception:
            log.exception("cannot look at the active version of %s", model)
            return
        self._said.pop(model, None)
        if found is None:
            return
        known = self._looks.get(model)
        if known is None or found.seq > known.seq:
            self._looks = {**self._looks, model: found}
            for tell in self._on_change:
                tell(model)

    def _newest(self, model: str) -> Look | None:
        """Return the newest look at a model, ours or another gateway's; None where it has no active version yet.

        The row is read before the file: what the file then says is at least as new, and is appended only if no other
        gateway has appended meanwhile.
        """
        seen = next(iter(self._queue.active_seen([model])), None)
        look = self._read(model, None if seen is None else seen.body)
        if look is None:
            return _look_of(seen)
        body = write(Look, look)
        if seen is None or dict(seen.body) != body:
            if look.target is None and seen is None:
                return None
            self._queue.see_active(model, 0 if seen is None else seen.seq, body)
            seen = next(iter(self._queue.active_seen([model])), None)
        return _look_of(seen)

    def _read(self, model: str, known: Mapping[str, Any] | None) -> Look | None:
        """Read a model's active file; None where it cannot be read and what is known should stand."""
        promotions = self._repository.promotions
        try:
            state = promotions.state(model)
        except InvalidActiveFile as error:
            self._say(model, error)
            if known is not None:
                return None
            state = promotions.recorded(model)
        except (Corrupt, NewerFormat) as error:  # one model's fault must not keep the others from being served
            self._say(model, error)
            return None
        except NotFound:
            return None
        recorded = None
        if state.edited_by_hand and state.digest is None:
            recorded = target_of(promotions.recorded(model))
        return Look(state.seen, target_of(state), 0, model, recorded)

    def _say(self, model: str, error: ModelRepoError) -> None:
        if self._said.get(model) != str(error):
            self._said[model] = str(error)
            log.warning("cannot read the active version%s: %s", f" of {model}" if model else "s", error)


def _look_of(seen: ActiveSeen | None) -> Look | None:
    return None if seen is None else read(Look, {**seen.body, "seq": seen.seq}, "active_seen")
