"""What fetching does to this box's disk, in one place, so that a test can pull the plug at each step."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelrepo.errors import NoSpace
from modelrepo.fetching.linux_calls import allocate, begin_writing

READ_ONLY, READ_ONLY_EXECUTABLE = 0o444, 0o555
SPARE_BYTES = 64 << 20  # left free: journals, logs and other processes share the disk
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class Disk:
    """The disk as it is."""

    def make_folder(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)

    def create(self, path: Path) -> int:
        """Open a file that must not be there yet, for writing; a symlink in its place is an error."""
        return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)

    def reopen(self, path: Path) -> int:
        """Open what an earlier try has left, for reading and writing; -1 where there is nothing."""
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            return os.open(path, flags)
        except FileNotFoundError:
            return -1
        except PermissionError:
            path.chmod(0o600)  # it was finished already
            return os.open(path, flags)

    def allocate(self, fd: int, size_bytes: int) -> None:
        """Reserve room for a whole file; raises OSError where there is none."""
        allocate(fd, size_bytes)

    def begin_writing(self, fd: int, start: int, size_bytes: int) -> None:
        """Let the disk begin with what was written, without waiting for it."""
        begin_writing(fd, start, size_bytes)

    def write(self, fd: int, data: bytes | memoryview, start: int) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(fd, view, start)
            view, start = view[written:], start + written

    def seal(self, fd: int, mode: int) -> None:
        """Give a file its mode, make it durable and close it."""
        try:
            os.fchmod(fd, mode)
            os.fsync(fd)
        finally:
            os.close(fd)

    def link(self, source: Path, target: Path) -> None:
        """Make `target` the same file as `source`, or a copy where the file system has no more links to give."""
        try:
            os.link(source, target, follow_symlinks=False)
        except OSError as error:
            if error.errno in _FULL:
                raise
            shutil.copy2(source, target, follow_symlinks=False)
            fd = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def rename(self, source: Path, target: Path) -> None:
        """Rename, durably: the folder that holds `target` is synced."""
        source.rename(target)
        self.sync_folder(target.parent)

    def sync_folder(self, folder: Path) -> None:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def sync_tree(self, folder: Path) -> None:
        """Make the names in a folder, and in the folders below it, durable."""
        for here, _, _ in os.walk(folder):
            self.sync_folder(Path(here))

    def remove(self, path: Path) -> None:
        """Remove a file's name, if it is there."""
        path.unlink(missing_ok=True)

    def remove_tree(self, folder: Path) -> None:
        """Remove a folder with all that it holds, if it is there; of a link only the link."""
        if folder.is_symlink():
            folder.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)

    def free(self, folder: Path) -> tuple[int, int]:
        """Return the bytes and inodes that are free on the folder's file system."""
        facts = os.statvfs(folder)
        # Some file systems make inodes as they go and say 0 for "all".
        return facts.f_bavail * facts.f_frsize, facts.f_favail if facts.f_files else 1 << 62


def check_space(disk: Disk, folder: Path, *, size_bytes: int, files: int, what: str) -> None:
    """Raise NoSpace, with sizes, where `size_bytes` in `files` files would not fit."""
    free_bytes, free_files = disk.free(folder)
    if size_bytes and size_bytes + SPARE_BYTES > free_bytes:
        raise NoSpace(
            f"cannot fetch {what}: it needs {human(size_bytes)} on {folder}, and {human(free_bytes)} are free "
            f"({human(SPARE_BYTES)} stay spare); free some space or choose another folder"
        )
    if files > free_files:
        raise NoSpace(f"cannot fetch {what}: it needs {files} files on {folder}, and {free_files} inodes are free")


@contextmanager
def full_disk_named(disk: Disk, folder: Path, *, what: str, size_bytes: int) -> Iterator[None]:
    """Turn the system's "no space left" into NoSpace, with sizes."""
    try:
        yield
    except OSError as error:
        if isinstance(error, NoSpace) or error.errno not in _FULL:
            raise
        free_bytes, _ = disk.free(folder)
        raise NoSpace(
            f"cannot fetch {what}: {folder} became full; {human(size_bytes)} were to be written, "
            f"{human(free_bytes)} are free now; free some space and run it again"
        ) from error


def bytes_on_disk(found: os.stat_result) -> int:
    """Return what a file takes of the disk."""
    return found.st_blocks * 512


def human(size_bytes: int) -> str:
    """Write a size for people: `1.5 GiB`."""
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
