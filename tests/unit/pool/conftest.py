"""A pool in shared memory, and files to bring into it."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelrepo.versions.manifest import ChunkRecord, FileRecord
from modelrepo_runtime.pool.checkpoints import content_of
from modelrepo_runtime.pool.filling import Content
from modelrepo_runtime.pool.place import SHARED_MEMORY

MIB = 1 << 20


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder on tmpfs that is not there yet."""
    above = Path(tempfile.mkdtemp(prefix="modelrepo-test-", dir=SHARED_MEMORY))
    yield above / "pool"
    shutil.rmtree(above)


def write(path: Path, data: bytes, chunk_bytes: int = 100_001) -> Content:
    """Write a file, and return what a manifest says of it; cuts are where no page ends."""
    path.write_bytes(data)
    cuts = [data[at : at + chunk_bytes] for at in range(0, len(data), chunk_bytes)]
    chunks = tuple(ChunkRecord(hashlib.sha256(cut).hexdigest(), len(cut)) for cut in cuts)
    return content_of(FileRecord(path.name, 0o644, len(data), hashlib.sha256(data).hexdigest(), chunks))


def some_bytes(seed: str, size_bytes: int = MIB) -> bytes:
    return hashlib.shake_128(seed.encode()).digest(size_bytes)
