"""Bring bytes back from another repository: what verify has found missing or damaged."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from modelrepo import layout
from modelrepo.canonical import sha256
from modelrepo.clock import Clock
from modelrepo.errors import Corrupt, NewerFormat, ObjectExists, ObjectNotFound
from modelrepo.maintenance.needs import Problem
from modelrepo.publication.leases import PendingPrunes, PushLease
from modelrepo.stores.port import ObjectStore
from modelrepo.versions.bundles import parse_bundle, read_bundles
from modelrepo.versions.manifest import Manifest
from modelrepo.window import Window


@dataclass(frozen=True, slots=True)
class Repairs:
    """Repairs `store` from `source`: only bytes of the digest that should be there are written."""

    store: ObjectStore
    source: ObjectStore
    by: str
    clock: Clock
    stop: Callable[[], bool] | None = None

    def bring_documents(self, problems: Sequence[Problem]) -> list[Problem]:
        """Bring back manifests whose digest the history has, and bundles; returns the problems, some repaired.

        What they name is held before they are there, as a push does: a sweep under way has not seen them.
        """
        looked = [self._fetch(problem, self.source.read) if _is_document(problem) else problem for problem in problems]
        fetched = [each for each in looked if isinstance(each, _Fetched)]
        self._hold({digest for each in fetched for digest in self._named(each)})
        return [self._write(each) if isinstance(each, _Fetched) else each for each in looked]

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

    def _hold(self, digests: Collection[str]) -> None:
        """Keep prune from what is about to be written, as a push does."""
        if digests:
            PushLease(self.store, model="verify", by=self.by, digests=digests, clock=self.clock).take()
            PendingPrunes(self.store, self.clock).release(digests)

    def _named(self, fetched: _Fetched) -> set[str]:
        """Return the objects and the environment that a document counts on; one of a newer format cannot be asked."""
        key = fetched.problem.key
        with suppress(Corrupt, NewerFormat):
            if key.startswith(layout.ENVIRONMENTS):
                return {layout.environment_of(key), *parse_bundle(key, fetched.data).objects()}
            manifest = Manifest.from_bytes(fetched.data, name=key)
            environment = manifest.environment.digest
            bundles, _ = read_bundles(self.store, environment)
            return {environment, *manifest.objects(), *(digest for bundle in bundles for digest in bundle.objects())}
        return set()

    def _bring(self, problem: Problem, read: Callable[[str], bytes]) -> Problem:
        fetched = self._fetch(problem, read)
        return self._write(fetched) if isinstance(fetched, _Fetched) else fetched

    def _fetch(self, problem: Problem, read: Callable[[str], bytes]) -> _Fetched | Problem:
        """Return the bytes that should be there, or the problem with what stands in the way."""
        try:
            data = read(problem.key)
        except ObjectNotFound:
            return replace(problem, message=f"{problem.message}; {self.source.url} has it not either")
        if sha256(data) != problem.digest:
            return replace(problem, message=f"{problem.message}; {self.source.url} has other bytes too")
        return _Fetched(problem, data)

    def _write(self, fetched: _Fetched) -> Problem:
        key = fetched.problem.key
        try:
            self.store.create(key, fetched.data)
        except ObjectExists:
            self.store.replace(key, fetched.data)
        return replace(fetched.problem, repaired=True)


@dataclass(frozen=True, slots=True)
class _Fetched:
    """A problem, and the bytes that mend it."""

    problem: Problem
    data: bytes


def _is_document(problem: Problem) -> bool:
    return problem.digest is not None and problem.key.endswith(".json")
