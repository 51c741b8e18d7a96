"""Digests of this box's files, remembered, so that an unchanged checkpoint is not read again by the next push.

What is remembered only spares work: before bytes are sent they are hashed all the same.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard, TypeVar

from modelrepo.pushing.packing import FileIdentity, SourceFile
from modelrepo.pushing.sources import Hashed, Source
from modelrepo.versions.chunks import cutting_rule
from modelrepo.versions.manifest import ChunkRecord, FileRecord

FILE_NAME = "digests.sqlite"
WORTH_REMEMBERING_BYTES = 1 << 20
# A write this soon after another may leave the times of a file as they were: two seconds on FAT, a tick elsewhere.
RACY_NS = 3 * 10**9
KEPT_NS = 180 * 24 * 3600 * 10**9
WAIT_S = 5.0

T = TypeVar("T")

TABLE = """
create table if not exists files (
    path text not null, rule text not null, size_bytes integer, mtime_ns integer, ctime_ns integer, inode integer,
    device integer, sha256 text, chunks text, used_ns integer, primary key (path, rule)
)
"""
SAME = "path = ? and rule = ? and size_bytes = ? and mtime_ns = ? and ctime_ns = ? and inode = ? and device = ?"


@dataclass(frozen=True, slots=True)
class DigestCache:
    """Remembers in one file of the box cache; without a folder it knows nothing. Its own faults fail nobody.

    `distrusted` hashes everything anew and remembers that.
    """

    folder: Path | None = None
    distrusted: bool = False
    racy_ns: int = RACY_NS

    def recall(self, files: Sequence[Source]) -> list[FileRecord | None]:
        """Return what each file was when it was last hashed, where nothing has touched it since."""
        nothing: list[FileRecord | None] = [None] * len(files)
        if self.distrusted or not any(_worth(file) for file in files):
            return nothing
        return self._run(lambda rows: [_recall(rows, file) for file in files], nothing)

    def remember(self, hashed: Iterable[Hashed]) -> None:
        """Keep what was hashed, unless the file may have been written to again without its times showing it."""
        settled = [
            (each.source, each.identity, each.record)
            for each in hashed
            if _worth(each.source)
            and isinstance(each.identity, FileIdentity)
            and max(each.identity.mtime_ns, each.identity.ctime_ns) + self.racy_ns <= each.began_ns
        ]
        if settled:
            self._run(lambda rows: _remember(rows, settled), None)

    def _run(self, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        if self.folder is None:
            return otherwise
        path = self.folder / FILE_NAME
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with contextlib.closing(sqlite3.connect(path, timeout=WAIT_S)) as rows, rows:
                rows.execute(TABLE)
                return work(rows)
        except (OSError, sqlite3.OperationalError):
            return otherwise  # another push writes for long, or the disk is full or read-only
        except (sqlite3.DatabaseError, ValueError, TypeError):
            path.unlink(missing_ok=True)  # torn; it is made anew
            return otherwise


def _worth(file: Source) -> TypeGuard[SourceFile]:
    return isinstance(file, SourceFile) and file.size_bytes >= WORTH_REMEMBERING_BYTES


def _recall(rows: sqlite3.Connection, file: Source) -> FileRecord | None:
    if not _worth(file):
        return None
    at = (*_key(file), *_facts(file.identity()))
    row = rows.execute(f"select sha256, chunks from files where {SAME}", at).fetchone()
    if row is None:
        return None
    rows.execute("update files set used_ns = ? where path = ? and rule = ?", (time.time_ns(), *_key(file)))
    chunks = tuple(ChunkRecord(str(digest), int(size)) for digest, size in json.loads(row[1]))
    if sum(chunk.size_bytes for chunk in chunks) != file.size_bytes:
        return None
    return FileRecord(file.path, file.mode, file.size_bytes, row[0], chunks)


def _remember(rows: sqlite3.Connection, hashed: Iterable[tuple[SourceFile, FileIdentity, FileRecord]]) -> None:
    now = time.time_ns()
    for file, identity, record in hashed:
        chunks = json.dumps([[chunk.sha256, chunk.size_bytes] for chunk in record.chunks])
        values = (*_key(file), *_facts(identity), record.sha256, chunks, now)
        rows.execute(f"insert or replace into files values ({', '.join('?' * len(values))})", values)
    rows.execute("delete from files where used_ns < ?", (now - KEPT_NS,))


def _key(file: SourceFile) -> tuple[str, str]:
    return str(file.file.resolve()), cutting_rule(file.path)


def _facts(identity: FileIdentity) -> tuple[int, ...]:
    return identity.size_bytes, identity.mtime_ns, identity.ctime_ns, identity.inode, identity.device
