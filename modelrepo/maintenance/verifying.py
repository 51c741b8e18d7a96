"""Read everything that versions need, and say what is not what its digest says."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from modelrepo import layout
from modelrepo.errors import ObjectNotFound, Stopped
from modelrepo.maintenance.needs import Fault, Needs, Problem, Scope
from modelrepo.maintenance.repairing import Repairs
from modelrepo.progress import Progress
from modelrepo.stores.pieces import pieces_of
from modelrepo.stores.port import ObjectStore
from modelrepo.window import Window

QUICK_THREADS = 32  # they only wait for answers


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was looked at, and what is wrong. `objects` were each looked at once, however many versions name them."""

    versions: int
    bundles: int
    objects: int
    size_bytes: int
    quick: bool
    problems: Sequence[Problem]

    @property
    def wrong(self) -> Sequence[Problem]:
        """What is wrong still."""
        return [problem for problem in self.problems if not problem.repaired]


def verify(
    scope: Scope,
    *,
    quick: bool = False,
    repairs: Repairs | None = None,
    progress: Progress | None = None,
    stop: Callable[[], bool] | None = None,
) -> VerifyReport:
    """Look at the manifests, bundles and objects in `scope`; with `repairs` bring back what is wrong.

    `quick`: objects are not read, and only their sizes are looked at.

    Raises: Unreachable, Forbidden, Stopped.
    """
    needs = scope.needs()
    problems = needs.problems
    if repairs is not None and any(problem.digest for problem in problems):
        problems = repairs.bring_documents(problems)
        if any(problem.repaired for problem in problems):
            repaired = [problem for problem in problems if problem.repaired]
            needs = scope.needs()
            problems = repaired + needs.problems
    looking = _Looking(scope.store, needs, progress, stop)
    damaged = looking.sizes(everything=scope.version is None) if quick else looking.bytes()
    if damaged:
        users = scope.users({problem.digest for problem in damaged if problem.digest})
        damaged = [replace(problem, used_by=tuple(users[problem.digest or ""])) for problem in damaged]
        if repairs is not None:
            damaged = repairs.bring_objects(damaged, {digest.hex(): size for digest, size in needs.objects.items()})
    found = sorted([*problems, *damaged], key=lambda problem: problem.key)
    size_bytes = sum(needs.objects.values())
    return VerifyReport(needs.versions, needs.bundles, len(needs.objects), size_bytes, quick, found)


class _Looking:
    def __init__(
        self, store: ObjectStore, needs: Needs, progress: Progress | None, stop: Callable[[], bool] | None
    ) -> None:
        self._store, self._wanted = store, needs.objects
        self._progress, self._stop = progress, stop
        self._total = sum(needs.objects.values())
        self._done = 0
        self._guard = threading.Lock()
        self._problems: list[Problem] = []

    def bytes(self) -> list[Problem]:
        """Read and hash every object."""
        with Window(stop=self._stop) as window:
            for digest, size_bytes in self._wanted.items():
                window.submit(0, self._read, digest.hex(), size_bytes)
        return self._problems

    def sizes(self, *, everything: bool) -> list[Problem]:
        """Look at the size of every object; of `everything` by a listing, which answers for a thousand at once."""
        doubtful = dict(self._wanted)
        if everything:
            for stat in self._store.list(layout.OBJECTS):
                self._check_stop()
                digest = layout.digest_of(stat.key)
                if digest is not None and doubtful.get(bytes.fromhex(digest)) == stat.size_bytes:
                    del doubtful[bytes.fromhex(digest)]
        with Window(threads=QUICK_THREADS, stop=self._stop) as window:
            for key, size_bytes in doubtful.items():
                window.submit(0, self._stat, key.hex(), size_bytes)
        return self._problems

    def _read(self, digest: str, size_bytes: int) -> None:
        key = layout.object_(digest)
        actual, found = hashlib.sha256(), 0
        try:
            for piece in pieces_of(self._store, key, size_bytes):
                actual.update(piece)
                found += len(piece)
            if found > size_bytes:
                found = self._store.stat(key).size_bytes
        except ObjectNotFound:
            self._missing(digest)
        else:
            if found != size_bytes:
                self._other_size(digest, found, size_bytes)
            elif actual.hexdigest() != digest:
                self._note(Problem(key, "corrupt", f"holds bytes of sha256:{actual.hexdigest()}", digest=digest))
        self._tell(size_bytes)

    def _stat(self, digest: str, size_bytes: int) -> None:
        try:
            found = self._store.stat(layout.object_(digest)).size_bytes
        except ObjectNotFound:
            self._missing(digest)
            return
        if found != size_bytes:
            self._other_size(digest, found, size_bytes)

    def _missing(self, digest: str) -> None:
        self._note(Problem(layout.object_(digest), "missing", "is not there", digest=digest))

    def _other_size(self, digest: str, found: int, wanted: int) -> None:
        fault: Fault = "truncated" if found < wanted else "corrupt"
        message = f"has {found:,} bytes instead of {wanted:,}"
        self._note(Problem(layout.object_(digest), fault, message, digest=digest))

    def _note(self, problem: Problem) -> None:
        with self._guard:
            self._problems.append(problem)

    def _tell(self, size_bytes: int) -> None:
        with self._guard:
            self._done += size_bytes
            if self._progress is not None:
                self._progress("verify", self._done, self._total)

    def _check_stop(self) -> None:
        if self._stop is not None and self._stop():
            raise Stopped("stopped on request while the repository was verified; run it again")
