"""A store whose objects are read from mirrors first: another bucket nearer to this box, or a disk of its data centre.

Only whole objects are looked for in a mirror, since only they can be held against the digest in their key. Whatever a
mirror lacks, spoils or is slow to give comes from the store itself, so a mirror can cost time but never bytes. Nothing
is ever written to one.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

from modelrepo import layout
from modelrepo.errors import ModelRepoError, ObjectNotFound, Unreachable
from modelrepo.stores.opening import open_store
from modelrepo.stores.passing_on import PassingOn
from modelrepo.stores.port import LocalFolders, ObjectStat, ObjectStore, ReadsInPieces
from modelrepo.stores.retrying import IMPATIENT

FIRST_REST_S = 30.0
LONGEST_REST_S = 600.0
PATIENCE_S = 5.0
"""What an answer may take whatever its size: a bucket that has to wake up."""

SLOWEST_BYTES_PER_S = 1 << 20
"""A mirror that gives less than this helps nobody."""

LARGEST_BYTES = 128 << 20
"""More than any object that is read whole: one without an end is no object."""

Tell = Callable[[str], None]


class Mirror:
    """A mirror and how it has been doing. One that fails is left alone for a while, then tried by one caller first.

    `tell` is given a line when it begins to fail, when it is in order again, and for each object that it has spoilt.
    """

    def __init__(
        self, store: ObjectStore, *, tell: Tell = lambda _line: None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store, self._tell, self._clock = store, tell, clock
        self._guard = threading.Lock()
        self._failing, self._on_trial, self._looked_at = False, False, False
        self._rest_s = 0.0
        self._rests_until = 0.0

    @property
    def url(self) -> str:
        return self._store.url

    def read(self, key: str, digest: str) -> bytes | None:
        """Return the object if the mirror has it whole and soon; None where it does not, or is left alone."""
        trial = self._admit()
        if trial is None:
            return None
        try:
            data, too_slow = self._read(key)
        except ObjectNotFound:
            self._done_well(trial)
            self._look_once()
            return None
        except ModelRepoError as error:
            self._failed(trial, str(error))
            return None
        except BaseException:
            self._failed(trial, "it was interrupted")
            raise
        if hashlib.sha256(data).hexdigest() != digest:
            self._done_well(trial)
            self._tell(f"object mirror {self.url} has other bytes under {key}; they are not used: remove them there")
            return None
        if too_slow is None:
            self._done_well(trial)
        else:
            self._failed(trial, too_slow)
        return data

    def _read(self, key: str) -> tuple[bytes, str | None]:
        """Return the object, and why it was too slow where it was; one that is so with more to come is given up."""
        begun, pieces, done, too_slow = self._clock(), list[bytes](), 0, None
        whole = (self._store.read(key) for _ in range(1))
        for piece in self._store.read_pieces(key) if isinstance(self._store, ReadsInPieces) else whole:
            if too_slow is not None:
                raise Unreachable(too_slow)
            pieces.append(bytes(piece))
            done += len(piece)
            if done > LARGEST_BYTES:
                raise Unreachable(f"it gives more than {LARGEST_BYTES:,} bytes for {key}")
            taken_s = self._clock() - begun
            if taken_s > PATIENCE_S + done / SLOWEST_BYTES_PER_S:
                too_slow = f"it took {taken_s:.0f} s for {done:,} bytes"
        return b"".join(pieces), too_slow

    def _look_once(self) -> None:
        """Say so where the first object is missing because no repository was ever copied there."""
        with self._guard:
            looked_at, self._looked_at = self._looked_at, True
        if looked_at:
            return
        try:
            self._store.stat(layout.REPOSITORY)
        except ObjectNotFound:
            self._tell(f"object mirror {self.url} holds no repository; is its URL right? Objects come from elsewhere")
        except ModelRepoError:
            pass  # whether it answers is seen by the next read

    def _admit(self) -> bool | None:
        """Say whether a call is the one that tries a failing mirror; None where it is to be left alone."""
        with self._guard:
            if not self._failing:
                return False
            if self._on_trial or self._clock() < self._rests_until:
                return None
            self._on_trial = True
            return True

    def _done_well(self, trial: bool) -> None:
        if not trial:
            return  # a call that was under way when the mirror began to fail says nothing about it now
        with self._guard:
            self._failing, self._on_trial, self._rest_s = False, False, 0.0
        self._tell(f"object mirror {self.url} is in order again")

    def _failed(self, trial: bool, why: str) -> None:
        with self._guard:
            news = not self._failing
            if not news and not trial:
                return
            self._failing, self._on_trial = True, False
            self._rest_s = min(max(2 * self._rest_s, FIRST_REST_S), LONGEST_REST_S)
            self._rests_until = self._clock() + self._rest_s
        if news:
            self._tell(f"object mirror {self.url} is left alone for a while, objects come from the repository: {why}")


class MirroredStore(PassingOn):
    """Reads whole objects from the first of `mirrors` that has them, and does everything else on `inner`."""

    def __init__(self, inner: ObjectStore, mirrors: Sequence[Mirror]) -> None:
        self.inner, self._mirrors = inner, tuple(mirrors)

    def read(self, key: str) -> bytes:
        digest = layout.digest_of(key)
        if digest is not None:
            for mirror in self._mirrors:
                if (data := mirror.read(key, digest)) is not None:
                    return data
        return self.inner.read(key)

    def read_range(self, key: str, start: int, length: int) -> bytes:
        return self.inner.read_range(key, start, length)

    def create(self, key: str, data: bytes) -> None:
        self.inner.create(key, data)

    def replace(self, key: str, data: bytes, *, if_etag: str | None = None) -> None:
        self.inner.replace(key, data, if_etag=if_etag)

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        return self.inner.list(prefix)

    def delete(self, key: str) -> None:
        self.inner.delete(key)

    def stat(self, key: str) -> ObjectStat:
        return self.inner.stat(key)


class MirroredLocalStore(MirroredStore):
    """The same over a store of local files."""

    def locked(self, folder: str) -> AbstractContextManager[None]:
        return self._folders().locked(folder)

    def exchange(self, key: str, data: bytes) -> bytes | None:
        return self._folders().exchange(key, data)

    def _folders(self) -> LocalFolders:
        assert isinstance(self.inner, LocalFolders)
        return self.inner


def mirrored(inner: ObjectStore, mirrors: Sequence[Mirror]) -> ObjectStore:
    """Return a store that can do what `inner` can, and reads objects from the mirrors first."""
    if not mirrors:
        return inner
    kind = MirroredLocalStore if isinstance(inner, LocalFolders) else MirroredStore
    return kind(inner, mirrors)


def open_mirrors(urls: Sequence[str], tell: Tell) -> tuple[Mirror, ...]:
    """Open mirrors by URL; nothing is looked up yet, and one that does not answer is not asked twice.

    Raises:
        InvalidInput, MissingExtra
    """
    return tuple(Mirror(open_store(url, patience=IMPATIENT), tell=tell) for url in urls)
