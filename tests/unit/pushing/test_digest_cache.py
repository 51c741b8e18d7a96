"""What is remembered of files is believed only while nothing can have touched them."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelrepo.pushing import digest_cache
from modelrepo.pushing.content import Content
from modelrepo.pushing.digest_cache import FILE_NAME, DigestCache
from modelrepo.pushing.packing import SourceFile
from modelrepo.versions import chunks
from modelrepo.versions.chunks import MIB, Span
from modelrepo.versions.manifest import FileRecord

HOUR_NS = 3600 * 10**9


class CountedFile(SourceFile):
    """Counts how often it is read from its beginning."""

    reads = 0

    def stream(self, span: Span) -> Iterator[memoryview]:
        CountedFile.reads += span.start == 0
        return SourceFile.stream(self, span)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "w.bin"
    path.write_bytes(bytes(2 * MIB))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def describe(file: Path, known: DigestCache) -> tuple[FileRecord, int]:
    """Describe a file; returns its record, and how often it was read for it."""
    CountedFile.reads = 0
    (record,) = Content(known).describe([CountedFile("packed.bin", file, 0o644, file.stat().st_size)])
    return record, CountedFile.reads


def test_an_unchanged_file_is_not_read_again(file: Path, folder: Path) -> None:
    known = DigestCache(folder, racy_ns=0)
    first, reads = describe(file, known)
    assert reads == 1
    assert describe(file, known) == (first, 0)
    assert describe(file, DigestCache(folder, distrusted=True)) == (first, 1)
    assert describe(file, DigestCache()) == (first, 1)


def test_origins_of_a_file_that_was_not_read_still_verify(file: Path, folder: Path) -> None:
    known = DigestCache(folder, racy_ns=0)
    describe(file, known)
    content = Content(known)
    (record,) = content.describe([SourceFile("packed.bin", file, 0o644, 2 * MIB)])
    assert content.origins[record.chunks[0].sha256].read() == bytes(2 * MIB)


def test_a_file_that_was_written_just_before_is_not_remembered(file: Path, folder: Path) -> None:
    known = DigestCache(folder, racy_ns=HOUR_NS)
    describe(file, known)
    assert describe(file, known)[1] == 1


def test_a_time_in_the_future_is_not_believed(file: Path, folder: Path) -> None:
    known = DigestCache(folder, racy_ns=0)
    os.utime(file, ns=(0, file.stat().st_mtime_ns + HOUR_NS))
    describe(file, known)
    assert describe(file, known)[1] == 1


def rewritten(file: Path) -> None:
    file.write_bytes(b"1" * (2 * MIB))


def rewritten_with_its_old_time(file: Path) -> None:
    before = file.stat()
    file.write_bytes(b"1" * (2 * MIB))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def replaced(file: Path) -> None:
    before = file.stat()
    other = file.with_name("other")
    other.write_bytes(b"1" * (2 * MIB))
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(file)


def longer(file: Path) -> None:
    with file.open("ab") as stream:
        stream.write(b"1")


@pytest.mark.parametrize("change", [rewritten, rewritten_with_its_old_time, replaced, longer])
def test_a_file_that_was_touched_is_read_again(file: Path, folder: Path, change: object) -> None:
    known = DigestCache(folder, racy_ns=0)
    first, _ = describe(file, known)
    assert callable(change)
    change(file)
    second, reads = describe(file, known)
    assert reads == 1
    assert second.sha256 != first.sha256


def test_another_rule_of_cutting_takes_nothing_from_this_one(
    file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = DigestCache(folder, racy_ns=0)
    describe(file, known)
    monkeypatch.setattr(chunks, "WHOLE_UP_TO_BYTES", MIB)
    monkeypatch.setattr(chunks, "PIECE_BYTES", MIB)
    record, reads = describe(file, known)
    assert reads > 0
    assert len(record.chunks) == 2


def test_small_files_are_not_worth_it(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "small").write_bytes(b"small")
    describe(tmp_path / "small", DigestCache(folder, racy_ns=0))
    assert not folder.exists()


@pytest.mark.parametrize("damage", [b"no database" * 1000, b""])
def test_a_damaged_cache_is_made_anew(file: Path, folder: Path, damage: bytes) -> None:
    known = DigestCache(folder, racy_ns=0)
    first, _ = describe(file, known)
    (folder / FILE_NAME).write_bytes(damage)
    assert describe(file, known) == (first, 1)
    assert describe(file, known) == (first, 0)


def test_a_row_that_does_not_add_up_is_passed_over(file: Path, folder: Path) -> None:
    known = DigestCache(folder, racy_ns=0)
    first, _ = describe(file, known)
    for broken in ("[]", '[["x"]]', "?", "7"):
        with sqlite3.connect(folder / FILE_NAME) as rows:
            rows.execute("update files set chunks = ?", (broken,))
        rows.close()
        assert describe(file, known) == (first, 1)


def test_a_cache_that_cannot_be_written_fails_nobody(file: Path, tmp_path: Path) -> None:
    (tmp_path / "blocked").write_bytes(b"")
    assert describe(file, DigestCache(tmp_path / "blocked", racy_ns=0))[1] == 1
    folder = tmp_path / "busy"
    folder.mkdir()
    with sqlite3.connect(folder / FILE_NAME, isolation_level=None) as rows:
        rows.execute("begin exclusive")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(digest_cache, "WAIT_S", 0.01)
            assert describe(file, DigestCache(folder, racy_ns=0))[1] == 1
    rows.close()


def test_what_nobody_has_used_for_long_is_forgotten(file: Path, folder: Path, tmp_path: Path) -> None:
    known = DigestCache(folder, racy_ns=0)
    describe(file, known)
    with sqlite3.connect(folder / FILE_NAME) as rows:
        rows.execute("update files set used_ns = 0")
    rows.close()
    other = tmp_path / "other.bin"
    other.write_bytes(b"2" * MIB)
    describe(other, known)
    assert describe(file, known)[1] == 1
