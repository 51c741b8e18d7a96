from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelrepo import window
from modelrepo.errors import Stopped
from modelrepo.pushing.content import Content, of_files
from modelrepo.versions import chunks
from modelrepo.versions.chunks import MIB, cut
from modelrepo.window import Window


@given(st.integers(0, 1 << 40))
def test_spans_cover_a_file_without_gap_or_overlap(size_bytes: int) -> None:
    end = count = 0
    for span in cut(min(size_bytes, 1 << 30)):
        assert span.start == end
        assert 0 < span.size_bytes <= 64 * MIB
        end += span.size_bytes
        count += 1
    assert end == min(size_bytes, 1 << 30)
    assert count <= 64


def test_files_large_and_small_are_described_by_their_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "WHOLE_UP_TO_BYTES", 10)
    monkeypatch.setattr(chunks, "PIECE_BYTES", 4)
    contents = {"empty": b"", "small": b"0123456789", "large": b"0123456789a"}
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    content = Content()
    empty, small, large = content.describe(of_files(tmp_path / name for name in contents))
    assert empty.chunks == ()
    assert empty.sha256 == hashlib.sha256(b"").hexdigest()
    assert [chunk.size_bytes for chunk in small.chunks] == [10]
    assert [chunk.size_bytes for chunk in large.chunks] == [4, 4, 3]
    assert large.sha256 == hashlib.sha256(contents["large"]).hexdigest()
    assert b"".join(content.origins[chunk.sha256].read() for chunk in large.chunks) == contents["large"]


def test_no_more_bytes_are_held_than_the_window_allows() -> None:
    guard, held, most = threading.Lock(), 0, 0

    def hold(size_bytes: int) -> None:
        nonlocal held, most
        with guard:
            held += size_bytes
            most = max(most, held)
        with guard:
            held -= size_bytes

    with Window(in_flight_bytes=4 * MIB, threads=8) as opened:
        for _ in range(64):
            opened.submit(MIB, hold, MIB)
    assert held == 0
    assert MIB <= most <= 4 * MIB


def test_the_first_error_ends_the_window() -> None:
    ran = []

    def work(number: int) -> None:
        ran.append(number)
        if number == 3:
            raise OSError("three")

    def numbers() -> Iterator[int]:
        yield from range(10_000)

    with pytest.raises(OSError, match="three"), Window(threads=1, in_flight_bytes=window.SMALLEST_BYTES) as opened:
        for number in numbers():
            opened.submit(0, work, number)
    assert len(ran) < 10


def test_stop_ends_the_window() -> None:
    asked = threading.Event()
    with pytest.raises(Stopped), Window(stop=asked.is_set) as opened:
        opened.submit(0, asked.set)
        for _ in range(1_000_000):
            opened.submit(0, lambda: None)


def test_what_has_not_begun_is_dropped_when_the_wait_for_the_rest_is_interrupted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened, free, ran = Window(threads=1), threading.Event(), list[int]()
    shutdown = opened._pool.shutdown

    def interrupted(wait: bool = True) -> None:
        assert wait
        raise KeyboardInterrupt

    monkeypatch.setattr(opened._pool, "shutdown", interrupted)
    with pytest.raises(KeyboardInterrupt), opened:
        opened.submit(0, free.wait)
        for number in range(100):
            opened.submit(0, ran.append, number)
    free.set()
    shutdown(wait=True)
    assert ran == []


def test_an_interrupt_waits_for_no_call_that_is_under_way() -> None:
    free = threading.Event()
    with pytest.raises(KeyboardInterrupt), Window(threads=1) as opened:
        opened.submit(0, free.wait)
        raise KeyboardInterrupt
    assert not free.is_set()  # else this test would not have come so far
    free.set()
    opened._pool.shutdown(wait=True)
