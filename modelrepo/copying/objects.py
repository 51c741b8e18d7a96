"""An object of one repository on its way to another: read and verified here, or taken over by the server."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from modelrepo import layout
from modelrepo.copying.pace import Pace
from modelrepo.copying.place import Place
from modelrepo.errors import Corrupt, ModelRepoError, ObjectNotFound, VersionDeleted
from modelrepo.stores.pieces import pieces_of
from modelrepo.stores.port import ObjectStore, TakesOver


@dataclass(frozen=True, slots=True)
class CopiedObject:
    """The origin of one object that `model`@`version` is made of.

    `number`: where it stands among them. `stop`: asked while it waits for its turn.
    """

    source: Place
    model: str
    version: str
    sha256: str
    size_bytes: int
    number: int
    pace: Pace
    stop: Callable[[], bool]

    @property
    def place(self) -> tuple[str, int]:
        return ("", self.number)

    def read(self) -> bytes:
        """Return the bytes.

        Raises:
            Corrupt: they are not there, or not those of the digest.
            VersionDeleted: they are gone because the version was deleted meanwhile.
        """
        return b"".join([bytes(piece) for piece in self._verified()])

    def send(self, target: ObjectStore, key: str) -> None:
        """Create the object in `target`; where one server keeps both, the bytes do not go back over the wire.

        The server is told to take over exactly what was read and verified here: its own word for the sha256 is not
        asked, because not every server has one.
        """
        if isinstance(target, TakesOver) and target.reaches(self.source.store):
            try:
                etag = self.source.store.stat(key).etag
            except ObjectNotFound as error:
                raise self._missing() from error
            for _ in self._verified():
                pass
            if target.take_over(self.source.store, key, etag):
                return
        target.create(key, self.read())

    def _verified(self) -> Iterator[bytes | memoryview]:
        """Yield the bytes in pieces, and end only where all of them together are those of the digest."""
        self.pace.wait_for(self.size_bytes, self.stop)
        digest, done = hashlib.sha256(), 0
        try:
            for piece in pieces_of(self.source.store, layout.object_(self.sha256), self.size_bytes):
                digest.update(piece)
                done += len(piece)
                if done > self.size_bytes:
                    raise self._corrupt(f"holds more than its {self.size_bytes} bytes")
                yield piece
        except ObjectNotFound as error:
            raise self._missing() from error
        if done != self.size_bytes:
            raise self._corrupt(f"holds {done} bytes instead of {self.size_bytes}")
        if digest.hexdigest() != self.sha256:
            raise self._corrupt("holds other bytes")

    def _missing(self) -> ModelRepoError:
        if self.source.catalogue.is_deleted(self.model, self.version):
            return VersionDeleted(
                f"cannot copy {self.model}@{self.version}: it was deleted in {self.source.url} meanwhile, and "
                "its bytes are gone"
            )
        return self._corrupt("is missing")

    def _corrupt(self, found: str) -> Corrupt:
        return Corrupt(
            f"cannot copy {self.model}@{self.version}: object sha256:{self.sha256} {found} in {self.source.url}; "
            f"find what else is damaged with `modelrepo verify {self.model}@{self.version}`, and push it again",
            path=layout.object_(self.sha256),
            digest=self.sha256,
        )
