"""Which question about a job is the first that is answered with yes: the same for all ranks of a group.

A file of numbers of eight bytes each: the first question that is answered with yes (0: none yet), then, for each rank,
how often it has asked. Rank 0 alone decides, at a question of its own, for a number that no rank has asked yet; so
every answer is known at once, and no rank ever waits for another one's progress. What is waited for is the lock on the
file, which is held for a few small reads and writes, and falls with its holder.
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

_NUMBER = struct.Struct("<q")


def make(path: Path, ranks: int) -> None:
    """Make the file of one job, before any rank is told of it."""
    path.write_bytes(bytes(_NUMBER.size * (1 + ranks)))


class Ballot:
    """One rank's place in the file of one job. The caller sees to it that one thread asks at a time."""

    def __init__(self, path: str, rank: int) -> None:
        self._rank = rank
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._asked = 0
        self._held = 0

    def ask(self, wanted: bool) -> bool:
        """Ask the next question; `wanted` says that the answer should be yes from now on, which only rank 0 may say."""
        self._asked += 1
        number = self._asked
        self._hold()
        try:
            first, *asked = self._read()
            if wanted and not first and self._rank == 0:
                first = max([number, *(others + 1 for others in asked[1:])])
                self._write(0, first)
            # Not `number`: a signal handler may have asked in between.
            self._write(1 + self._rank, self._asked)
        finally:
            self._let_go()
        return 0 < first <= number

    def close(self) -> None:
        os.close(self._file)

    def _read(self) -> list[int]:
        size = os.fstat(self._file).st_size
        return [number for (number,) in _NUMBER.iter_unpack(os.pread(self._file, size, 0))]

    def _write(self, place: int, number: int) -> None:
        os.pwrite(self._file, _NUMBER.pack(number), place * _NUMBER.size)

    def _hold(self) -> None:
        """Take the lock; a signal handler of the model may come here while it is held."""
        self._held += 1
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def _let_go(self) -> None:
        self._held -= 1
        if self._held == 0:
            fcntl.flock(self._file, fcntl.LOCK_UN)
