"""Finds, makes and reads uv.lock."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from modelrepo.environments.index_settings import IndexSettings, local_path
from modelrepo.environments.interpreters import Interpreter
from modelrepo.environments.uv_tool import Uv, failed
from modelrepo.errors import InvalidInput, LockOutOfDate, NewerFormat

LOCK_FILE = "uv.lock"
PROJECT_FILE = "pyproject.toml"
_LOCK_VERSION = 1


@dataclass(frozen=True, slots=True)
class Project:
    """A model's pyproject.toml, and the folder where its lock is or would be made."""

    folder: Path
    root: Path
    name: str
    requires_python: str
    extras: tuple[str, ...]
    text: bytes

    @property
    def lock(self) -> Path:
        return self.root / LOCK_FILE


@dataclass(frozen=True, slots=True)
class LockedPackage:
    """One [[package]] of a lock; `wheels` and `sdist` are files of this box, `directory` a source tree of it."""

    name: str
    version: str | None
    source: Mapping[str, Any]
    wheels: tuple[Path, ...]
    hashes: Mapping[str, str]
    sdist: Path | None
    directory: Path | None
    itself: bool


def read_project(folder: Path) -> Project:
    """Raises: InvalidInput."""
    path = folder / PROJECT_FILE
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise InvalidInput(
            f"{folder} has no {PROJECT_FILE}, so its environment is not known; `uv init --bare` writes a first one"
        ) from None
    tree = _toml(path, text)
    project = tree.get("project")
    if not isinstance(project, Mapping) or not isinstance(project.get("name"), str):
        raise InvalidInput(f"{path} has no [project] with a name; add one, as in `uv init --bare`")
    extras = project.get("optional-dependencies") or {}
    return Project(
        folder=folder,
        root=_workspace_root(folder) or folder,
        name=project["name"],
        requires_python=str(project.get("requires-python") or ""),
        extras=tuple(extras),
        text=text,
    )


def ensure_lock(uv: Uv, project: Project, interpreter: Interpreter, *, may_create: bool) -> bool:
    """Leave the lock answering to pyproject.toml; tell whether it was made.

    A lock that is there is never rewritten. Raises: LockOutOfDate, EnvironmentFailed, Unreachable.
    """
    python = ("--python", interpreter.path)
    if not project.lock.is_file():
        if not may_create:
            raise LockOutOfDate(f"{project.root} has no {LOCK_FILE}; run `uv lock` there and commit it, or pass --lock")
        made = uv.run(["lock", *python, *uv.index.arguments()], cwd=project.folder)
        if made.returncode != 0:
            raise failed(f"cannot lock {project.folder}", made)
        return True
    # A lock that answers needs no index to say so; one made against another index than this box's is none the worse.
    without_index = replace(uv, index=IndexSettings())
    if without_index.run(["lock", "--check", *python], cwd=project.folder, offline=True).returncode == 0:
        return False
    checked = uv.run(["lock", "--check", *python, *uv.index.arguments()], cwd=project.folder)
    if checked.returncode == 0:
        return False
    error = failed(f"cannot check {project.lock}", checked)
    if "needs to be updated" in checked.stderr or "No solution found" in checked.stderr:
        raise LockOutOfDate(
            f"{project.lock} does not answer to {PROJECT_FILE}; run `uv lock` in {project.folder} and push again"
        ) from error
    raise error


def read_lock(path: Path) -> Mapping[str, Any]:
    """Raises: LockOutOfDate, NewerFormat."""
    try:
        tree = _toml(path, path.read_bytes())
    except FileNotFoundError:
        raise LockOutOfDate(f"there is no {path}; run `uv lock`") from None
    if tree.get("version") != _LOCK_VERSION:
        raise NewerFormat(
            f"{path} has the format {tree.get('version')!r}, this modelrepo reads {_LOCK_VERSION}; upgrade it"
        )
    return tree


def locked_packages(tree: Mapping[str, Any], project: Project) -> Iterator[LockedPackage]:
    """Yield what the lock holds, with what of it lies on this box."""
    for package in tree.get("package", ()):
        source = package.get("source", {})
        base = _registry_folder(source, project.root)
        files = [(_file(wheel, base, source, project.root), wheel.get("hash")) for wheel in package.get("wheels", ())]
        directory = next((source[kind] for kind in ("editable", "directory", "virtual") if kind in source), None)
        tree_path = None if directory is None else (project.root / directory).resolve()
        sdist = package.get("sdist") or (source if str(source.get("path", "")).endswith((".tar.gz", ".zip")) else {})
        yield LockedPackage(
            name=package["name"],
            version=package.get("version"),
            source=source,
            wheels=tuple(path for path, _ in files if path is not None),
            hashes={path.name: sha for path, sha in files if path is not None and sha is not None},
            sdist=_file(sdist, base, source, project.root),
            directory=tree_path,
            itself=tree_path == project.folder.resolve(),
        )


def without_machine_paths(tree: Mapping[str, Any]) -> Any:
    """Return the lock as JSON in which every path of this box is only its last part."""
    return _plain(tree, None)


def _plain(value: Any, key: str | None) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner, key) for inner in value]
    if isinstance(value, str) and key in ("path", "url", "registry", "directory", "editable", "virtual", "index"):
        path = local_path(value)
        return value if path is None else (path.name if path.is_absolute() or ".." in path.parts else path.as_posix())
    return value if isinstance(value, str | bool | int | float) or value is None else str(value)


def _file(entry: Mapping[str, Any], base: Path | None, source: Mapping[str, Any], root: Path) -> Path | None:
    """Return where a wheel or sdist of the lock lies on this box, None where an index serves it."""
    if "path" in entry:
        return Path((base or root) / str(entry["path"])).resolve()
    if "url" in entry:
        path = local_path(entry["url"])
        return None if path is None else (root / path).resolve()
    if "path" in source and "filename" in entry:
        return Path(root / str(source["path"])).resolve()
    return None


def _registry_folder(source: Mapping[str, Any], root: Path) -> Path | None:
    path = local_path(source["registry"]) if "registry" in source else None
    return None if path is None else root / path


def _workspace_root(folder: Path) -> Path | None:
    """Return the nearest folder above whose [tool.uv.workspace] has this one as a member, as uv finds it."""
    for parent in folder.resolve().parents:
        path = parent / PROJECT_FILE
        if not path.is_file():
            continue
        workspace = _toml(path, path.read_bytes()).get("tool", {}).get("uv", {}).get("workspace")
        if workspace is not None:
            return parent if _is_member(parent, folder.resolve(), workspace) else None
    return None


def _is_member(root: Path, folder: Path, workspace: Mapping[str, Any]) -> bool:
    def among(patterns: list[str]) -> bool:
        return any(folder == match.resolve() for pattern in patterns for match in root.glob(pattern.removeprefix("./")))

    return among(workspace.get("members", [])) and not among(workspace.get("exclude", []))


def _toml(path: Path, text: bytes) -> dict[str, Any]:
    try:
        return tomllib.loads(text.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} is no TOML: {error}") from None
