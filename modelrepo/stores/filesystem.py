"""A store in a folder of this box, or of a file system that it mounts.

A file appears whole: written under a temporary name beside its place, fsynced, then linked there (create) or renamed
there (replace), then the folder is fsynced. `link` and not `rename`, because only `link` refuses a name that is taken.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from modelrepo.errors import (
    Forbidden,
    ModelRepoError,
    NoSpace,
    ObjectChanged,
    ObjectExists,
    ObjectNotFound,
    Unreachable,
)
from modelrepo.stores.folder_lock import folder_lock
from modelrepo.stores.port import ObjectStat, StoreAbility, StoreIdentity, check_key, check_prefix
from modelrepo.stores.renames import exchange_names

PIECE_BYTES = 256 << 10
"""What one step of a stream holds: it stays in the processor's cache until it is hashed and written."""

_TEMPORARY = ".tmp-"
_CREATE_TRIES = 4  # a name that is taken and yet not to be read: an editor may be in the middle of a save
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
_REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


class FilesystemStore:
    """Keys are files below `root`, which the first write makes."""

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.abspath(root))  # noqa: PTH100 - resolve() would follow links that may move
        self.url = self.root.as_uri()
        # A folder may be mounted elsewhere on another box, so its path is no part of its identity.
        self.identity = StoreIdentity(endpoint="file", bucket="")
        self._links = True

    @property
    def ability(self) -> StoreAbility:
        return StoreAbility(
            conditional_create=self._links, conditional_replace=False, single_put_limit_bytes=2**63 - 1, local=True
        )

    def read(self, key: str) -> bytes:
        with self._mapped("read", key):
            return self._path(key).read_bytes()

    def read_range(self, key: str, start: int, length: int) -> bytes:
        with self._mapped("read", key):
            descriptor = os.open(self._path(key), os.O_RDONLY | os.O_CLOEXEC)
            try:
                pieces: list[bytes] = []
                length = min(length, os.fstat(descriptor).st_size - start)  # pread makes room for all that it is told
                while length > 0 and (piece := os.pread(descriptor, length, start)):
                    pieces.append(piece)
                    start, length = start + len(piece), length - len(piece)
                return b"".join(pieces)
            finally:
                os.close(descriptor)

    def read_pieces(self, key: str, start: int = 0) -> Iterator[memoryview]:
        buffer = memoryview(bytearray(PIECE_BYTES))
        with self._mapped("read", key), self._path(key).open("rb", buffering=0) as file:
            file.seek(start)
            while count := file.readinto(buffer):
                yield buffer[:count]

    def create(self, key: str, data: bytes) -> None:
        path = self._path(key)
        with self._mapped("create", key, len(data)), self._written(path, data) as temporary:
            for _ in range(_CREATE_TRIES):
                if self._link(temporary, path):
                    return
                with suppress(FileNotFoundError, IsADirectoryError):
                    if path.read_bytes() != data:
                        raise ObjectExists(f"cannot create {key} in {self.url}: it is there with other bytes", key=key)
                    _sync_folder(path.parent)  # its creator may not have come so far yet
                    return
            raise ObjectChanged(
                f"cannot create {key} in {self.url}: its name is taken by what is no file that can be read, such as a "
                "broken link; remove it, then run it again"
            )

    def replace(self, key: str, data: bytes, *, if_etag: str | None = None) -> None:
        path = self._path(key)
        with self._mapped("replace", key, len(data)), self._written(path, data) as temporary:
            if if_etag is None:
                temporary.replace(path)
            else:
                with folder_lock(path.parent):
                    if not path.exists() or self.stat(key).etag != if_etag:
                        raise ObjectChanged(
                            f"cannot replace {key} in {self.url}: it was changed in between; read it again"
                        )
                    temporary.replace(path)
            _sync_folder(path.parent)

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        return self._listed(check_prefix(prefix), temporary=False)

    def temporaries(self) -> Iterator[ObjectStat]:
        """Yield what writers have half written, under keys that `delete` takes; those of the living among them."""
        return self._listed("", temporary=True)

    def delete(self, key: str) -> None:
        path = self._path(key)
        with self._mapped("delete", key), suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()
            _sync_folder(path.parent)

    def stat(self, key: str) -> ObjectStat:
        with self._mapped("look at", key):
            path = self._path(key)
            found = path.stat()
            if not path.is_file():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            return _stat(key, found)

    def locked(self, folder: str) -> AbstractContextManager[None]:
        check_prefix(folder)
        return self._locked(self.root / folder)

    def exchange(self, key: str, data: bytes) -> bytes | None:
        path = self._path(key)
        with self._mapped("replace", key, len(data)), self._written(path, data) as temporary:
            exchange_names(temporary, path)
            _sync_folder(path.parent)
            return temporary.read_bytes() if temporary.exists() else None

    @contextmanager
    def _locked(self, folder: Path) -> Iterator[None]:
        with self._mapped("lock", folder.name):
            _make_folder(folder)
        with folder_lock(folder):
            yield

    @contextmanager
    def _written(self, path: Path, data: bytes) -> Iterator[Path]:
        _make_folder(path.parent)
        temporary = path.parent / f"{_TEMPORARY}{secrets.token_hex(8)}"
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(descriptor, view) :]
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            yield temporary
        finally:
            with suppress(FileNotFoundError):
                temporary.unlink()

    def _link(self, temporary: Path, path: Path) -> bool:
        """Give the temporary file its name, unless the name is taken."""
        try:
            os.link(temporary, path)
        except FileExistsError:
            # Over NFS a lost acknowledgement makes the client link again: two names mean that the first try won.
            if temporary.stat().st_nlink != 2:
                return False
        except OSError as error:
            if error.errno not in _NO_LINKS or not os.access(path.parent, os.W_OK):
                raise
            self._links = False
            # No link, so nothing here can refuse a taken name: the lock keeps at least this box's creators apart.
            with folder_lock(path.parent):
                if os.path.lexists(path):
                    return False
                temporary.rename(path)
        _sync_folder(path.parent)
        return True

    def _listed(self, prefix: str, *, temporary: bool) -> Iterator[ObjectStat]:
        with self._mapped("list", prefix):
            yield from self._walk(self.root / prefix, prefix, temporary)

    def _walk(self, folder: Path, prefix: str, temporary: bool) -> Iterator[ObjectStat]:
        try:
            # A folder sorts as the keys below it do, so that nothing needs to be held to be sorted.
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name + "/" * entry.is_dir())
        except (FileNotFoundError, NotADirectoryError):
            return
        for entry in entries:
            half_written = entry.name.startswith(_TEMPORARY)
            try:
                if entry.is_dir():
                    if not half_written:
                        yield from self._walk(folder / entry.name, f"{prefix}{entry.name}/", temporary)
                elif half_written is temporary and entry.is_file():
                    yield _stat(prefix + entry.name, entry.stat())
            except FileNotFoundError:
                continue

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)

    @contextmanager
    def _mapped(self, verb: str, key: str, size_bytes: int = 0) -> Iterator[None]:
        try:
            yield
        except ModelRepoError:
            raise
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise ObjectNotFound(f"{key} is not in {self.url}", key=key) from error
        except OSError as error:
            raise self._error(verb, key, size_bytes, error) from error

    def _error(self, verb: str, key: str, size_bytes: int, error: OSError) -> ModelRepoError:
        what = f"cannot {verb} {key} in {self.url}: {error.strerror}"
        if error.errno in _NO_ROOM:
            room = shutil.disk_usage(_existing(self.root)).free
            return NoSpace(
                error.errno, f"{what}: {size_bytes:,} bytes wanted, {room:,} free; make room and run it again"
            )
        if error.errno in _REFUSED:
            user = f"user id {os.geteuid()}"
            return Forbidden(f"{what} as {user}; grant it read and write access to the folder")
        return Unreachable(f"{what}; is the disk or the network mount in order?")


def _stat(key: str, found: os.stat_result) -> ObjectStat:
    etag = f"{found.st_ino:x}-{found.st_mtime_ns:x}-{found.st_size:x}"
    return ObjectStat(key, found.st_size, etag, found.st_mtime)


def _make_folder(folder: Path) -> None:
    """Make the folder and those above it, each durable in the one that holds it."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
        _sync_folder(each.parent)


def _existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
