"""Hash files and cut them into chunks; where they are to be sent, from the same bytes that were hashed."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from modelrepo.errors import InvalidInput
from modelrepo.progress import Progress
from modelrepo.publication.delivery import Delivery
from modelrepo.publication.origins import Origin
from modelrepo.pushing.sources import Hashed, Source
from modelrepo.versions.chunks import Span, cut, cut_tensors
from modelrepo.versions.manifest import ChunkRecord, FileRecord
from modelrepo.versions.tensors import is_tensor_file, read_header
from modelrepo.window import IN_FLIGHT_BYTES, THREADS, Window

# Half of what may be in memory: one batch is being sent while the next is hashed, and each costs a lease of its own.
BATCH_BYTES = IN_FLIGHT_BYTES // 2
BATCH_PIECES = 4096


class Draft:
    """A file whose digests are being computed."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.began_ns = time.time_ns()
        self.identity = source.identity()
        self.spans = tuple(_cut(source))
        self.digests = [""] * len(self.spans)
        self.whole = hashlib.sha256()

    def hashed(self) -> Hashed:
        """Return what was found; raises InvalidInput where the file changed meanwhile."""
        if self.source.identity() != self.identity:
            raise InvalidInput(f"{self.source.path} changed while it was being pushed; push again")
        chunks = tuple(
            ChunkRecord(digest, span.size_bytes) for span, digest in zip(self.spans, self.digests, strict=True)
        )
        whole = chunks[0].sha256 if len(chunks) == 1 else self.whole.hexdigest()
        record = FileRecord(self.source.path, self.source.mode, self.source.size_bytes, whole, chunks)
        return Hashed(self.source, self.identity, self.began_ns, record)


def hash_files(drafts: Sequence[Draft], *, progress: Progress | None, stop: Callable[[], bool] | None) -> None:
    """Hash files, several at once, through little memory."""
    total, done = sum(draft.source.size_bytes for draft in drafts), 0
    with Window(stop=stop) as window:
        for draft in drafts:
            for index, span in enumerate(draft.spans):
                window.submit(span.size_bytes, _hash_span, draft, index)
                if len(draft.spans) > 1:
                    # The file's own digest is one long chain: this thread follows it, close behind those of the chunks.
                    for piece in draft.source.stream(span):
                        draft.whole.update(piece)
            done += draft.source.size_bytes
            if progress is not None:
                progress("hash", done, total)


def send_files(drafts: Sequence[Draft], delivery: Delivery) -> None:
    """Hash files and bring their chunks, each read once: one batch is sent while the next is hashed."""
    with ThreadPoolExecutor(THREADS, thread_name_prefix="modelrepo-hash") as pool:
        batch = _Batch(delivery)
        for draft in drafts:
            for index, span in enumerate(draft.spans):
                batch.make_room(span.size_bytes)
                if len(draft.spans) == 1:
                    batch.add(pool.submit(_load, draft, index))
                    continue
                data = draft.source.read(span)
                batch.add(pool.submit(_hash_data, draft, index, data))
                draft.whole.update(data)
        batch.bring()


@dataclass(frozen=True, slots=True)
class _Loaded:
    sha256: str
    data: bytes
    origin: Origin


class _Batch:
    """Chunks in memory that become one `bring`."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery
        self._loading: list[Future[_Loaded]] = []
        self._held = 0

    def make_room(self, size_bytes: int) -> None:
        """Wait until so many bytes may be read into memory."""
        if self._loading and (self._held + size_bytes > BATCH_BYTES or len(self._loading) >= BATCH_PIECES):
            self.bring()
        self._delivery.hold(size_bytes)
        self._held += size_bytes

    def add(self, loading: Future[_Loaded]) -> None:
        self._loading.append(loading)

    def bring(self) -> None:
        loaded = [loading.result() for loading in self._loading]
        self._loading, self._held = [], 0
        self._delivery.bring_loaded([(each.origin, each.data) for each in loaded])


def _cut(source: Source) -> Iterator[Span]:
    if is_tensor_file(source.path):
        header = read_header(source.size_bytes, lambda start, length: source.read(Span(start, length)))
        if header is not None:
            return cut_tensors(header)
    return cut(source.size_bytes)


def _hash_span(draft: Draft, index: int) -> None:
    digest = hashlib.sha256()
    for piece in draft.source.stream(draft.spans[index]):
        digest.update(piece)
    draft.digests[index] = digest.hexdigest()


def _load(draft: Draft, index: int) -> _Loaded:
    return _hash_data(draft, index, draft.source.read(draft.spans[index]))


def _hash_data(draft: Draft, index: int, data: bytes) -> _Loaded:
    draft.digests[index] = digest = hashlib.sha256(data).hexdigest()
    return _Loaded(digest, data, draft.source.origin(draft.spans[index], digest))
