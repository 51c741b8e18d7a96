"""Bring bytes back from another repository: what verify has found missing or damaged."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from modelrepo.canonical import sha256
from modelrepo.errors import ObjectExists, ObjectNotFound
from modelrepo.maintenance.needs import Problem
from modelrepo.stores.port import ObjectStore
from modelrepo.versions.clock import Clock
from modelrepo.versions.leases import PendingPrunes, PushLease
from modelrepo.versions.window import Window


@dataclass(frozen=True, slots=True)
class Repairs:
    """Repairs `store` from `source`: only bytes of the digest that should be there are written."""

    store: ObjectStore
    source: ObjectStore
    by: str
    clock: Clock
    stop: Callable[[], bool] | None = None

    def bring_documents(self, problems: Iterable[Problem]) -> list[Problem]:
        """Bring back manifests whose digest the history has, and bundles; returns the problems, some repaired."""
        return [self._bring(problem, self.source.read) if _is_document(problem) else problem for problem in problems]

    def bring_objects(self, problems: Sequence[Problem], sizes: Mapping[str, int]) -> list[Problem]:
        """Bring back objects, several at once; returns the problems, some repaired."""
        repaired = dict(enumerate(problems))
        guard = threading.Lock()

        def bring(number: int, problem: Problem, size_bytes: int) -> None:
            # No more than there should be: what is longer is not it.
            done = self._bring(problem, lambda key: self.source.read_range(key, 0, size_bytes + 1))
            with guard:
                repaired[number] = done

        self._hold([problem.digest for problem in problems if problem.digest])
        with Window(stop=self.stop) as window:
            for number, problem in enumerate(problems):
                size_bytes = sizes[problem.digest or ""]
                window.submit(size_bytes, bring, number, problem, size_bytes)
        return [repaired[number] for number in sorted(repaired)]

    def _hold(self, digests: Sequence[str]) -> None:
        """Keep prune from what is about to be written, as a push does."""
        PushLease(self.store, model="verify", by=self.by, digests=digests, clock=self.clock).take()
        PendingPrunes.look(self.store, self.clock).release(digests)

    def _bring(self, problem: Problem, read: Callable[[str], bytes]) -> Problem:
        try:
            data = read(problem.key)
        except ObjectNotFound:
            return replace(problem, message=f"{problem.message}; {self.source.url} has it not either")
        if sha256(data) != problem.digest:
            return replace(problem, message=f"{problem.message}; {self.source.url} has other bytes too")
        try:
            self.store.create(problem.key, data)
        except ObjectExists:
            self.store.replace(problem.key, data)
        return replace(problem, repaired=True)


def _is_document(problem: Problem) -> bool:
    return problem.digest is not None and problem.key.endswith(".json")
