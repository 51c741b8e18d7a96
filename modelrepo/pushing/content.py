"""The bytes that a push can send: where each object lies on this box, found by hashing files once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from modelrepo.progress import Progress
from modelrepo.publication.delivery import Delivery
from modelrepo.publication.origins import Origin
from modelrepo.pushing.digest_cache import DigestCache
from modelrepo.pushing.hashing import Draft, hash_files, send_files
from modelrepo.pushing.packing import SourceFile
from modelrepo.pushing.sources import Source
from modelrepo.versions.chunks import Span
from modelrepo.versions.manifest import FileRecord


@dataclass(slots=True)
class Content:
    """Files described, and the origin of every object that they are made of.

    `known` spares the files that it knows their hashing. What `delivery` is given is sent as it is hashed.
    """

    known: DigestCache = field(default_factory=DigestCache)
    delivery: Delivery | None = None
    origins: dict[str, Origin] = field(default_factory=dict)

    def describe(
        self,
        files: Sequence[Source],
        *,
        progress: Progress | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> tuple[FileRecord, ...]:
        """Hash files, several at once, with bounded memory; records come in the order of `files`."""
        records = self.known.recall(files)
        drafts = {index: Draft(file) for index, file in enumerate(files) if records[index] is None}
        if self.delivery is None:
            hash_files(tuple(drafts.values()), progress=progress, stop=stop)
        else:
            self.delivery.expect(sum(file.size_bytes for file in files))
            send_files(tuple(drafts.values()), self.delivery)
        hashed = {index: draft.hashed() for index, draft in drafts.items()}
        self.known.remember(hashed.values())
        described = tuple(hashed[index].record if record is None else record for index, record in enumerate(records))
        for file, record in zip(files, described, strict=True):
            self._add_origins(file, record)
        return described

    def _add_origins(self, file: Source, record: FileRecord) -> None:
        start = 0
        for chunk in record.chunks:
            if chunk.sha256 not in self.origins:
                self.origins[chunk.sha256] = file.origin(Span(start, chunk.size_bytes), chunk.sha256)
            start += chunk.size_bytes


def of_files(files: Iterable[Path]) -> list[SourceFile]:
    """Describe loose files, each packed under its own name."""
    return [SourceFile(file.name, file, 0o644, file.stat().st_size) for file in files]
