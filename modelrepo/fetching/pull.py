"""Pull a version into a folder that a person can edit and push again."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from filelock import FileLock, Timeout

from modelrepo.errors import AlreadyServed, Corrupt, InvalidInput, Stopped, Unreachable
from modelrepo.fetching.disk import Disk, bytes_on_disk, check_space, full_disk_named
from modelrepo.fetching.fetcher import Fetcher, Target
from modelrepo.progress import Progress
from modelrepo.stores.port import ObjectStore
from modelrepo.versions.manifest import FileRecord
from modelrepo.versions.paths import collision, inside, path_problem
from modelrepo.versions.version import Version

ELSEWHERE = ".modelrepo/checkpoints"  # for checkpoints whose source is no path inside the model's folder; never packed


def pull_version(
    store: ObjectStore,
    version: Version,
    target: Path,
    *,
    checkpoints: Collection[str] | None = None,
    progress: Progress | None = None,
    stop: Callable[[], bool] | None = None,
    disk: Disk | None = None,
) -> Path:
    """Write a version's files below `target`, which must be absent or empty; all of them or none.

    What a pull has fetched that was cut off or killed stays in the hidden folder `.<target's name>.incoming` beside it,
    where the next pull to the same place takes it up.

    Raises:
        AlreadyServed: another process is pulling to the same place.
        InvalidInput: the folder holds something already, or the version has no such checkpoint.
        Corrupt, NoSpace, Stopped, Unreachable
    """
    disk = disk or Disk()
    target = target.absolute()
    if target.is_symlink():
        raise InvalidInput(f"cannot pull {version} to {target}: it is a link; name the folder that it leads to")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InvalidInput(f"cannot pull {version} to {target}: it is not an empty folder; name another")
    layout = _layout(version, version.checkpoint_names(checkpoints))
    size = sum(file.size_bytes for file in layout.values())
    disk.make_folder(target.parent)
    incoming = target.parent / f".{target.name}.incoming"
    with _alone(disk, incoming, f"cannot pull {version} to {target}"):
        try:
            draft = _draft(disk, incoming, version)
            left = max(size - sum(bytes_on_disk(path.lstat()) for path in draft.rglob("*")), 0)
            check_space(disk, target.parent, size_bytes=left, files=len(layout), what=str(version))
            with full_disk_named(disk, target.parent, what=str(version), size_bytes=size):
                _write(store, version, layout, draft, disk, size, progress, stop)
                _move(draft / "files", target, f"cannot pull {version} to {target}")
        except (Unreachable, Stopped, KeyboardInterrupt):
            raise  # it is worth going on from
        except BaseException:
            disk.remove_tree(incoming)
            raise
        disk.remove_tree(incoming)
    return target


@contextmanager
def _alone(disk: Disk, incoming: Path, what: str) -> Iterator[None]:
    disk.make_folder(incoming)
    facts = incoming.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid():  # its name can be guessed, also in /tmp
        raise InvalidInput(f"{what}: {incoming} is a link or somebody else's; remove it, or name another folder")
    incoming.chmod(0o700)
    lock = FileLock(incoming / "lock", blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise AlreadyServed(f"{what}: another process is doing so; wait for it, or name another folder") from None
    try:
        yield
    finally:
        lock.release()


def _draft(disk: Disk, incoming: Path, version: Version) -> Path:
    """Return where a version's files gather; those of another version, for which nobody came back, go."""
    draft = incoming / version.digest
    for other in list(incoming.iterdir()):
        if other.is_dir() and other != draft:
            disk.remove_tree(other)
    disk.make_folder(draft)
    return draft


def local_checkpoint(version: Version, name: str) -> str:
    """Return where `pull` puts a checkpoint, relative to the model's folder: its own source where that lies inside."""
    source = version.spec.checkpoints.get(name)
    if source is not None and source.kind == "local":
        path = PurePosixPath(os.path.normpath(source.source)).as_posix()
        if path_problem(path) is None:
            return path
    record = version.manifest.checkpoints[name]
    inside = f"{ELSEWHERE}/{name}"
    return f"{inside}/{record.files[0].path}" if record.single else inside


def _layout(version: Version, names: Collection[str]) -> dict[str, FileRecord]:
    placed = [(file.path, file) for file in version.manifest.code]
    for name in sorted(names):
        record, base = version.manifest.checkpoints[name], local_checkpoint(version, name)
        placed += [(base if record.single else f"{base}/{file.path}", file) for file in record.files]
    layout = dict(placed)
    # Two names for one checkpoint folder are fine; different bytes for one path are not.
    clash = collision(layout) or next((path for path, file in placed if layout[path].sha256 != file.sha256), None)
    if clash is not None:
        raise Corrupt(f"cannot pull {version}: two of its files would be {clash!r}", path=clash)
    return layout


def _write(
    store: ObjectStore,
    version: Version,
    layout: dict[str, FileRecord],
    draft: Path,
    disk: Disk,
    size: int,
    progress: Progress | None,
    stop: Callable[[], bool] | None,
) -> None:
    files, journals = draft / "files", draft / "journals"
    targets = [
        Target(file, inside(files, path), file.mode, journals / str(number))
        for number, (path, file) in enumerate(layout.items())
    ]
    _clear(disk, files, [target.path for target in targets])
    for parent in (files, journals, *sorted({target.path.parent for target in targets})):
        disk.make_folder(parent)
    Fetcher(store, disk, what=str(version), total_bytes=size, progress=progress, stop=stop).fetch(targets)


def _clear(disk: Disk, folder: Path, wanted: Collection[Path]) -> None:
    """Remove what an earlier try has left and this one does not want, such as half of another checkpoint; and links."""
    kept = {*wanted, *(parent for path in wanted for parent in path.parents)}
    for here, folders, files in os.walk(folder, topdown=False):
        for path in (Path(here, name) for name in (*folders, *files)):
            if path.is_symlink() or path not in kept:
                disk.remove_tree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _move(draft: Path, target: Path, what: str) -> None:
    try:
        draft.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ENOTEMPTY, errno.EEXIST):
            raise InvalidInput(f"{what}: something else has taken its place meanwhile; name another") from error
        # A folder that is a mount point or somebody's working directory stays itself.
        if error.errno not in (errno.EBUSY, errno.EXDEV, errno.EINVAL):
            raise
        for path in sorted(draft.iterdir()):
            path.rename(target / path.name)
