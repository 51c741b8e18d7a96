"""The adapters of one repository: published, listed, and read again piece by piece."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from modelrepo import layout
from modelrepo.adapters.record import PIECE_BYTES, AdapterRecord, parse_adapter_reference, piece_count
from modelrepo.clock import Clock
from modelrepo.errors import InvalidInput, NotFound, ObjectExists, ObjectNotFound, Stopped, VersionExists
from modelrepo.names import check_model_name, check_version_id, near_names, next_version, sort_key
from modelrepo.stores.port import ObjectStore


class Adapters:
    """Reads and writes below `adapters/`; may be shared by threads. `check_trust` raises where we may not write."""

    def __init__(self, store: ObjectStore, by: str, check_trust: Callable[[str], None]) -> None:
        self._store, self._by, self._check_trust = store, by, check_trust

    def push(
        self,
        name: str,
        file: Path,
        *,
        version: str | None = None,
        message: str | None = None,
        stop: Callable[[], bool] | None = None,
        clock: Clock | None = None,
    ) -> AdapterRecord:
        """Publish a file as a new version of an adapter, by default the next `vN`.

        Bytes that the adapter's newest version has already are published once: that version is returned. Killed at any
        point before the end this leaves nothing that a job could name; run again it skips what was sent.

        Raises:
            InvalidInput: the file is empty or cannot be read. VersionExists: `version` has other bytes.
            StoreNotTrusted, NoSpace, Unreachable, Stopped
        """
        self._check_trust("publish an adapter")
        check_model_name(name)
        if version is not None:
            check_version_id(version)
        sha256, size_bytes, pieces = _measured(file)
        known = self.list(name)
        same = next((one for one in reversed(known) if one.sha256 == sha256 and version in (None, one.version)), None)
        if same is not None:
            return same
        self._send(name, file, sha256, pieces, stop)
        taken = [one.version for one in known]
        facts = (file.name, size_bytes, sha256, (clock or Clock()).timestamp(), self._by, message)
        while True:
            record = AdapterRecord(name, version or next_version(taken), *facts)
            try:
                self._store.create(layout.adapter(name, record.version), record.to_bytes())
                return record
            except ObjectExists as error:
                if version is not None:
                    told = f"adapter {name} has a version {version!r} with other bytes; choose another version"
                    raise VersionExists(told) from error
                taken.append(record.version)

    def list(self, name: str | None = None) -> list[AdapterRecord]:
        """Return the versions of one adapter, or of all, by name and age."""
        folder = layout.ADAPTERS if name is None else layout.adapter_versions(check_model_name(name))
        keys = [stat.key for stat in self._store.list(folder)]
        found = [AdapterRecord.from_bytes(self._store.read(key), key) for key in keys if layout.adapter_of(key)]
        return sorted(found, key=lambda one: (one.name, sort_key(one.version)))

    def find(self, reference: str) -> AdapterRecord:
        """Return what `NAME@VERSION` means. Raises: NotFound, InvalidName, InvalidReference, Corrupt."""
        name, version = parse_adapter_reference(reference)
        key = layout.adapter(name, version)
        try:
            return AdapterRecord.from_bytes(self._store.read(key), key)
        except ObjectNotFound as error:
            raise NotFound(f"no adapter {reference} in {self._store.url}; {self._near(name)}") from error

    def read(self, reference: str, sha256: str, size_bytes: int) -> Iterator[bytes]:
        """Yield the bytes of a published adapter; whoever keeps them compares the digest. Raises: ObjectNotFound."""
        name, _ = parse_adapter_reference(reference)
        for number in range(piece_count(size_bytes)):
            yield self._store.read(layout.adapter_piece(name, sha256, number))

    def _send(self, name: str, file: Path, sha256: str, pieces: Sequence[str], stop: Callable[[], bool] | None) -> None:
        there = {stat.key for stat in self._store.list(layout.adapter_pieces(name, sha256))}
        with file.open("rb") as source:
            for number, digest in enumerate(pieces):
                if stop is not None and stop():
                    raise Stopped(f"stopped while adapter {name} was sent; run it again and it goes on from there")
                piece, key = source.read(PIECE_BYTES), layout.adapter_piece(name, sha256, number)
                if hashlib.sha256(piece).hexdigest() != digest:  # before it lies where it could never be mended
                    raise InvalidInput(f"cannot publish {file}: it was changed while it was read; push it again")
                if key not in there:
                    self._store.create(key, piece)

    def _near(self, name: str) -> str:
        known = self.list()
        versions = [one.version for one in known if one.name == name]
        if versions:
            return f"{name} has {', '.join(versions[-5:])}"
        near = near_names(name, {one.name for one in known})
        return f"did you mean {' or '.join(map(repr, near))}?" if near else f"publish it: modelrepo adapter push {name}"


def _measured(file: Path) -> tuple[str, int, list[str]]:
    """Return digest and size of a file, and the digest of each of its pieces."""
    digest, size, pieces = hashlib.sha256(), 0, list[str]()
    try:
        with file.open("rb") as source:
            while piece := source.read(PIECE_BYTES):
                digest.update(piece)
                size += len(piece)
                pieces.append(hashlib.sha256(piece).hexdigest())
    except OSError as error:
        raise InvalidInput(f"cannot publish {file}: {error.strerror or error}") from error
    if not size:
        raise InvalidInput(f"cannot publish {file}: it is empty")
    return digest.hexdigest(), size, pieces
