"""Where the files of jobs are kept: inputs, outputs and logs, beside the queue and never in the repository.

jobs/<date>/<job>/input/<name>       handed over with the submission
jobs/<date>/<job>/adapter/<n>/<name> the same, for its adapters
jobs/<date>/<job>/<fence>/<name>     made by one attempt; only the accepted one's are named by the job
jobs/<date>/<job>/<fence>/state-<n>  saved by one attempt for the next
jobs/<date>/<job>/<fence>.log        what that attempt printed
uploads/<date>/<file>/<name>         handed over beforehand, named by id in a submission
"""

from __future__ import annotations

import mimetypes
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, runtime_checkable

from modelrepo.errors import InvalidInput, NoSpace, NotFound, ObjectNotFound, Unreachable
from modelrepo.stores.filesystem import FilesystemStore
from modelrepo.stores.opening import open_store
from modelrepo.stores.port import ObjectStat, ObjectStore, check_key
from modelrepo.stores.retrying import retrying
from modelrepo_runtime.jobs import Fence, OutputFile, id_time, new_id

LARGEST_FILE_BYTES = 5 * 2**30
"""The largest output; also what one PUT may carry on S3."""
PIECE_BYTES = 8 * 2**20
WHOLE_BYTES = 32 * 2**20
"""Up to this size a file is read whole and written by one call."""
URL_LIFE_S = 3600


@runtime_checkable
class TakesFiles(Protocol):
    """A store that takes files of any size without our holding them in memory."""

    def put_file(self, key: str, path: Path) -> None: ...


@runtime_checkable
class SignsUrls(Protocol):
    """A store whose objects can be fetched by URL for a while."""

    def signed_url(self, key: str, life_s: int) -> str: ...


@runtime_checkable
class SignsWrites(Protocol):
    """A store whose objects can be written by URL for a while."""

    def signed_put_url(self, key: str, life_s: int) -> str: ...


class JobStore:
    """Files of jobs under one store's URL; may be shared by threads."""

    def __init__(
        self, url: str, *, store: ObjectStore | None = None, largest_file_bytes: int = LARGEST_FILE_BYTES
    ) -> None:
        self._store = store or _open(url)
        self.url = self._store.url
        self._largest = largest_file_bytes

    @property
    def store(self) -> ObjectStore:
        """The store itself."""
        return self._store

    def put_input(self, job_id: str, created_at: float, name: str, path: Path) -> str:
        """Keep a file that comes with a submission; return its key. Raises: InvalidInput, NoSpace, Unreachable."""
        key = f"{_job_folder(job_id, created_at)}input/{name}{path.suffix}"
        self._put(key, path, "input")
        return key

    def put_adapter(self, job_id: str, created_at: float, place: int, path: Path) -> str:
        """Keep an adapter that comes with a submission; return its key. Raises: InvalidInput, NoSpace, Unreachable."""
        key = f"{_job_folder(job_id, created_at)}adapter/{place}/{path.name}"
        self._put(key, path, "adapter")
        return key

    def put_upload(self, path: Path, name: str | None = None) -> str:
        """Keep a file for a later submission; return the id by which that names it."""
        file_id = new_id("file")
        self._put(f"{_upload_folder(file_id)}{name or path.name}", path, "upload")
        return file_id

    def find_upload(self, file_id: str) -> str:
        """Return the key of an uploaded file. Raises: NotFound."""
        return self.stat_upload(file_id).key

    def stat_upload(self, file_id: str) -> ObjectStat:
        """Return key and size of an uploaded file. Raises: NotFound."""
        try:
            folder = _upload_folder(file_id)
        except ValueError:
            folder = None
        found = next(iter(self._store.list(folder)), None) if folder else None
        if found is None:
            raise NotFound(f"no uploaded file {file_id}; upload it again")
        return found

    def upload_key(self, file_id: str, name: str) -> str:
        """Return where the bytes of a fresh upload go. Raises: InvalidInput for a name that no key may hold."""
        return check_key(f"{_upload_folder(file_id)}{name}")

    def put(self, key: str, path: Path) -> int:
        """Keep a file under a key of `upload_key` or of an attempt; return its size. Raises as `put_output`."""
        return self._put(key, path, "file")

    def put_url(self, key: str, life_s: int) -> str | None:
        """Return a URL by which anybody may write one file for a while; None where the store cannot sign."""
        return self._store.signed_put_url(key, life_s) if isinstance(self._store, SignsWrites) else None

    def put_output(
        self, job_id: str, created_at: float, fence: Fence, name: str, path: Path, content_type: str | None = None
    ) -> OutputFile:
        """Keep a file that an attempt made. Raises: InvalidInput where it is too large; NoSpace, Unreachable."""
        stored = name if Path(name).suffix else f"{name}{path.suffix}"
        if _is_state(stored):
            stored = f"{stored}.bin"
        key = f"{_job_folder(job_id, created_at)}{fence}/{stored}"
        size = self._put(key, path, "output")
        kind = content_type or mimetypes.guess_type(stored)[0] or "application/octet-stream"
        return OutputFile(name, key, size, kind)

    def put_state(self, job_id: str, created_at: float, fence: Fence, number: int, path: Path) -> str:
        """Keep what a running stage has saved; return its key. Raises as `put_output`."""
        key = f"{_job_folder(job_id, created_at)}{fence}/state-{number}"
        self._put(key, path, "state")
        return key

    def put_log(self, job_id: str, created_at: float, fence: Fence, path: Path) -> str:
        """Keep what an attempt printed; return its key."""
        key = f"{_job_folder(job_id, created_at)}{fence}.log"
        self._put(key, path, "log")
        return key

    def read(self, key: str) -> bytes:
        """Return a small file whole. Raises: ObjectNotFound, Unreachable."""
        return self._store.read(key)

    def pieces(self, key: str) -> Iterator[bytes]:
        """Yield a kept file's bytes, a piece at a time. Raises: ObjectNotFound, Unreachable."""
        start = 0
        while piece := self._store.read_range(key, start, PIECE_BYTES):
            yield piece
            start += len(piece)
            if len(piece) < PIECE_BYTES:
                return
        if start == 0:
            self._store.stat(key)

    def fetch(self, key: str, target: Path) -> Path:
        """Copy a kept file to `target`, whole or not at all. Raises: ObjectNotFound, NoSpace, Unreachable."""
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        try:
            with _disk_named(target), temporary.open("wb") as file:
                file.writelines(self.pieces(key))
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        return target

    def place(self, key: str) -> tuple[str | None, float | None]:
        """Return (URL, when it runs out) for a key: a file's own URL, or one signed for an hour where the store can."""
        if isinstance(self._store, FilesystemStore):
            return (self._store.root / check_key(key)).as_uri(), None
        if isinstance(self._store, SignsUrls):
            return self._store.signed_url(key, URL_LIFE_S), time.time() + URL_LIFE_S
        return None, None

    def delete_job(self, job_id: str, created_at: float) -> None:
        """Delete everything that belongs to one job; nothing there is no error."""
        self._delete_below(_job_folder(job_id, created_at))

    def delete_states(self, job_id: str, created_at: float) -> None:
        """Delete all that a job ever saved, also what no queue heard of: a box may be lost while it copies."""
        for found in self._store.list(_job_folder(job_id, created_at)):
            if _is_state(found.key.rpartition("/")[2]):
                self._store.delete(found.key)

    def delete(self, key: str) -> None:
        """Delete one file; nothing there is no error."""
        self._store.delete(key)

    def sweep(self, before: float, before_of: Callable[[str], float] | None = None) -> int:
        """Delete files kept before a moment, orphans of lost attempts too; return how many.

        `before_of(job id)` is asked once for each job that has such files, and with an empty id for uploads, for an
        earlier moment: what is younger stays.
        """
        deleted = 0
        moments: dict[str, float] = {}
        for folder in ("jobs/", "uploads/"):
            for found in self._store.list(folder):
                if found.modified >= before:
                    continue
                job_id = job_of(found.key) if folder == "jobs/" else ""
                if job_id not in moments:
                    moments[job_id] = before if before_of is None else before_of(job_id)
                if found.modified < moments[job_id]:
                    self._store.delete(found.key)
                    deleted += 1
        return deleted

    def _delete_below(self, folder: str) -> None:
        if isinstance(self._store, FilesystemStore):
            shutil.rmtree(self._store.root / check_key(folder.rstrip("/")), ignore_errors=True)
            return
        for found in self._store.list(folder):
            self._store.delete(found.key)

    def _put(self, key: str, path: Path, what: str) -> int:
        check_key(key)
        try:
            size = path.stat().st_size
        except OSError as error:
            raise InvalidInput(f"cannot keep {what} {path}: {error.strerror}") from error
        if size > self._largest:
            raise InvalidInput(
                f"{what} too large: {path.name} has {size} bytes, the limit is {self._largest};"
                " make it smaller or split it"
            )
        if isinstance(self._store, FilesystemStore):
            _copy(path, self._store.root / key)
        elif size > WHOLE_BYTES and isinstance(self._store, TakesFiles):
            self._store.put_file(key, path)
        else:
            self._store.replace(key, path.read_bytes())
        return size


def _open(url: str) -> ObjectStore:
    """Open a store, or what a gateway lets us see of its own."""
    if not url.startswith(("https://", "http://")):
        return open_store(url)
    from modelrepo_runtime.remote.file_store import FileStore
    from modelrepo_runtime.remote.talk import Talk, find_token

    return retrying(FileStore(Talk(url, find_token())))


def _copy(source: Path, target: Path) -> None:
    with _disk_named(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".tmp-{target.name}-{secrets.token_hex(4)}")
        try:
            with source.open("rb") as reading, temporary.open("wb") as writing:
                shutil.copyfileobj(reading, writing, PIECE_BYTES)
                writing.flush()
                os.fsync(writing.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def _disk_named(target: Path) -> Iterator[None]:
    import errno

    try:
        yield
    except (ObjectNotFound, Unreachable):
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(
                f"cannot write {target}: the disk is full ({_free(target)} bytes free); free space"
            ) from error
        raise Unreachable(f"cannot write {target}: {error.strerror or error}; check the folder's rights") from error


def _free(target: Path) -> int:
    folder = next(parent for parent in target.parents if parent.exists())
    return shutil.disk_usage(folder).free


def _date(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")


def _job_folder(job_id: str, created_at: float) -> str:
    return f"jobs/{_date(created_at)}/{job_id}/"


def job_of(key: str) -> str:
    """Return the id of the job that a file under `jobs/` belongs to."""
    return key.split("/")[2]


def _is_state(name: str) -> bool:
    return re.fullmatch(r"state-\d+", name) is not None


def _upload_folder(file_id: str) -> str:
    return f"uploads/{_date(id_time(file_id))}/{file_id}/"
