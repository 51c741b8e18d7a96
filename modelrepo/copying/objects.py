"""An object of one repository on its way to another: read and verified here, or taken over by the server."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from modelrepo import layout
from modelrepo.copying.pace import Pace
from modelrepo.copying.place import Place
from modelrepo.errors import Corrupt, ModelRepoError, ObjectNotFound, VersionDeleted
from modelrepo.stores.port import ObjectStore, TakesOver


@dataclass(frozen=True, slots=True)
class CopiedObject:
    """The origin of one object that `model`@`version` is made of. `number`: where it stands among them."""

    source: Place
    model: str
    version: str
    sha256: str
    size_bytes: int
    number: int
    pace: Pace

    @property
    def place(self) -> tuple[str, int]:
        return ("", self.number)

    def read(self) -> bytes:
        """Return the bytes.

        Raises:
            Corrupt: they are not there, or not those of the digest.
            VersionDeleted: they are gone because the version was deleted meanwhile.
        """
        self.pace.wait_for(self.size_bytes)
        try:
            data = self.source.store.read(layout.object_(self.sha256))
        except ObjectNotFound as error:
            raise self._missing() from error
        if len(data) != self.size_bytes:
            raise self._corrupt(f"holds {len(data)} bytes instead of {self.size_bytes}")
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise self._corrupt("holds other bytes")
        return data

    def send(self, target: ObjectStore, key: str) -> None:
        """Create the object in `target`; where one server keeps both, the bytes do not go back over the wire.

        The server is told to take over exactly what was read and verified here: its own word for the sha256 is not
        asked, because not every server has one.
        """
        etag = None
        if isinstance(target, TakesOver) and target.reaches(self.source.store):
            try:
                etag = self.source.store.stat(key).etag
            except ObjectNotFound as error:
                raise self._missing() from error
        data = self.read()
        if etag is not None and isinstance(target, TakesOver) and target.take_over(self.source.store, key, etag):
            return
        target.create(key, data)

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
