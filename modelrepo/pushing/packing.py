"""What of a model's folder goes into a version."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from modelrepo.contract.spec import SPEC_FILE, ModelSpec
from modelrepo.errors import InvalidCode, InvalidInput
from modelrepo.publication.origins import FileOrigin, read_span, stream_span
from modelrepo.pushing.ignoring import IgnoreRules, never_packed
from modelrepo.versions.chunks import Span
from modelrepo.versions.manifest import EXECUTABLE, PLAIN
from modelrepo.versions.paths import path_problem

# Packed whatever roots and ignore rules say: a version is complete, and what `pull` gives back can be pushed.
ALWAYS_PACKED = (SPEC_FILE, "pyproject.toml", "uv.lock")


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """What a file system says of a file. `ctime_ns` moves with every write, and nobody can set it back."""

    size_bytes: int
    mtime_ns: int
    ctime_ns: int = field(compare=False)  # a further hard link moves it too
    inode: int
    device: int


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A local file that is to be packed as `path`."""

    path: str
    file: Path
    mode: int
    size_bytes: int

    def read(self, span: Span) -> bytes:
        return read_span(self.file, span)

    def stream(self, span: Span) -> Iterator[memoryview]:
        return stream_span(self.file, span)

    def origin(self, span: Span, sha256: str) -> FileOrigin:
        return FileOrigin(self.file, span, sha256)

    def identity(self) -> FileIdentity:
        """Return what changes when the file does; raises InvalidInput where it has not the size that it had."""
        try:
            status = self.file.stat()
        except OSError as error:
            raise InvalidInput(f"{self.file} vanished while it was being pushed; push again") from error
        if status.st_size != self.size_bytes:
            raise InvalidInput(f"{self.file} changed its size while it was being pushed; push again")
        return FileIdentity(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev)


def source_file(path: str, file: Path, status: os.stat_result) -> SourceFile:
    """Describe a regular file; of its mode only "executable or not" is kept, so that digests do not hang on a umask."""
    return SourceFile(path, file, EXECUTABLE if status.st_mode & 0o100 else PLAIN, status.st_size)


def code_files(folder: Path, spec: ModelSpec) -> tuple[SourceFile, ...]:
    """List the code of a model's folder, sorted by path; checkpoints that lie in it are left out.

    Raises:
        InvalidCode: a root is missing, a symlink leaves the folder or is broken, a name cannot be written down,
            or something is neither file nor folder.
    """
    walk = _CodeWalk(folder.resolve(), _checkpoint_paths(folder, spec))
    found: dict[str, SourceFile] = {}
    for root in spec.code:
        for file in walk.root(root):
            found[file.path] = file
    for name in ALWAYS_PACKED:
        if (folder / name).is_file():
            found[name] = walk.file(name, folder / name)
    return tuple(found[path] for path in sorted(found))


def _checkpoint_paths(folder: Path, spec: ModelSpec) -> frozenset[str]:
    paths = set()
    for source in spec.checkpoints.values():
        if source.kind == "local":
            relative = os.path.relpath(folder.absolute() / Path(source.source).expanduser(), folder.absolute())
            paths.add(PurePosixPath(relative).as_posix())
    return frozenset(paths)


@dataclass(frozen=True, slots=True)
class _CodeWalk:
    folder: Path  # resolved
    checkpoints: frozenset[str]

    def root(self, root: str) -> Iterator[SourceFile]:
        relative = PurePosixPath(os.path.normpath(root)).as_posix()
        start = self.folder if relative == "." else self.folder / relative
        if Path(root).is_absolute() or relative == ".." or relative.startswith("../"):
            raise InvalidCode(f"code root {root!r} leaves the model's folder {self.folder}; name a folder inside it")
        if not start.is_dir():
            raise InvalidCode(f"code root {root!r} is not a folder in {self.folder}; correct code: in {SPEC_FILE}")
        if not start.resolve().is_relative_to(self.folder):
            raise InvalidCode(f"code root {root!r} is a symlink that leaves the model's folder; copy the code into it")
        rules = IgnoreRules.for_folder(self.folder)
        if relative == ".":
            yield from self._folder(start, "", rules, ())
            return
        above = ""
        for part in relative.split("/"):
            above += part + "/"
            rules = rules.naming(above)
            rules = rules.below(self.folder / above, above)
        yield from self._folder(start, above, rules, ())

    def file(self, relative: str, path: Path) -> SourceFile:
        status = self._stat(relative, path)
        if not stat.S_ISREG(status.st_mode):
            raise InvalidCode(f"cannot pack {relative!r}: it is neither file nor folder; remove or ignore it")
        problem = path_problem(relative)
        if problem is not None:
            raise InvalidCode(f"cannot pack {relative!r}: its name {problem}; rename or ignore it")
        return source_file(relative, path, status)

    def _folder(self, folder: Path, relative: str, rules: IgnoreRules, trail: tuple[Path, ...]) -> Iterator[SourceFile]:
        here = folder.resolve()
        if here in trail:
            raise InvalidCode(f"cannot pack {relative!r}: its symlinks lead in a circle; remove or ignore it")
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries)
        for name in names:
            path, inside = folder / name, relative + name
            if never_packed(name) or inside in self.checkpoints:
                continue
            is_folder = path.is_dir()
            if rules.ignore(inside + "/" if is_folder else inside):
                continue
            if path.is_symlink():
                self._check_link(inside, path)
            if is_folder:
                yield from self._folder(path, inside + "/", rules.below(path, inside + "/"), (*trail, here))
            else:
                yield self.file(inside, path)

    def _check_link(self, relative: str, path: Path) -> None:
        target = path.resolve()
        if not target.is_relative_to(self.folder):
            raise InvalidCode(
                f"cannot pack {relative!r}: it is a symlink that leaves the model's folder, to {target}; "
                "copy what it points to, or ignore it"
            )
        part = never_packed(target.relative_to(self.folder).as_posix())
        if part is not None:
            raise InvalidCode(f"cannot pack {relative!r}: it is a symlink to {part}, which is never packed; remove it")

    def _stat(self, relative: str, path: Path) -> os.stat_result:
        try:
            return path.stat()
        except OSError as error:
            broken = path.is_symlink()
            what = "it is a broken symlink" if broken else f"it cannot be read ({error.strerror})"
            raise InvalidCode(f"cannot pack {relative!r}: {what}; repair, remove or ignore it") from error
