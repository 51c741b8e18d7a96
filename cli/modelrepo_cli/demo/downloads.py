"""What a model's environment will fetch: told before anything of it is fetched."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.markers import Marker
from packaging.tags import Tag
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from modelrepo.contract import load_spec
from modelrepo.contract.conditions import AcceleratorFacts, choose_extra
from modelrepo.environments.carried import supported_tags
from modelrepo.environments.index_settings import IndexSettings
from modelrepo.environments.interpreters import Interpreter, choose_interpreter, version_specifier
from modelrepo.environments.lock import LockedPackage, Project, ensure_lock, locked_packages, read_lock, read_project
from modelrepo.environments.requirements import export
from modelrepo.environments.uv_tool import Uv
from modelrepo_cli.output import size

_WOULD_DOWNLOAD = re.compile(r"Would download (\d+) package")
_CUDA_PARTS = ("nvidia-", "cuda-", "triton")  # what the CUDA build of torch brings along


@dataclass(frozen=True, slots=True)
class Package:
    """A package of an environment as this box would install it; the size is None where nobody says."""

    name: str
    version: str
    size_bytes: int | None
    on_this_box: bool


@dataclass(frozen=True, slots=True)
class Needs:
    """The packages of an environment, and how many of them have to be fetched."""

    packages: tuple[Package, ...]
    to_fetch: int

    @property
    def size_bytes(self) -> int:
        return sum(package.size_bytes or 0 for package in self.packages)


def needs(folder: Path, index: IndexSettings, cache: Path) -> Needs:
    """Lock the model in `folder` and return what its environment takes on this box. Raises: as a push does."""
    project = read_project(folder.resolve())
    interpreter = choose_interpreter(version_specifier(project.requires_python))
    uv = Uv(index, cache=cache / "uv")
    ensure_lock(uv, project, interpreter, may_create=True)
    extra = choose_extra(load_spec(folder).accelerators, AcceleratorFacts(kind="cpu"))
    tree = read_lock(project.lock)
    locked = tuple(package for package in locked_packages(tree, project) if not package.itself)
    tags = supported_tags(interpreter)
    packages = tuple(
        _package(line.package, tree, tags)
        for line in export(uv, project, interpreter, extra, locked)
        if line.marker is None or Marker(line.marker).evaluate({"extra": ""})
    )
    return Needs(packages, _to_fetch(uv, project, interpreter, extra, packages))


def describe(found: Needs) -> tuple[str, ...]:
    """Say what will be fetched, which build of torch, and how large."""
    if not found.packages:
        return ("the environment is bare Python: nothing is fetched",)
    total = f"the environment has {len(found.packages)} packages, {_size(found.size_bytes)}"
    torch = next((package for package in found.packages if package.name == "torch"), None)
    lines = [total if torch is None else f"{total}, with torch {torch.version}: {_build(torch, found)}"]
    if found.to_fetch == 0:
        lines.append("nothing has to be fetched: every package lies in uv's cache or in a folder of this box")
    else:
        largest = sum(package.size_bytes or 0 for package in found.packages if not package.on_this_box)
        count = "1 package is" if found.to_fetch == 1 else f"{found.to_fetch} packages are"
        lines.append(f"{count} fetched from the index now, {_at_most(largest)}, and kept")
    return tuple(lines)


def _build(torch: Package, found: Needs) -> str:
    if any(package.name.startswith(_CUDA_PARTS) for package in found.packages):
        return (
            f"the CUDA build, {_size(found.size_bytes)} with all that it brings. For a small one, put a CPU wheel of "
            "torch into a folder and name that in UV_FIND_LINKS"
        )
    _, _, label = torch.version.partition("+")
    kind = "the CPU build" if label == "cpu" else f"the {label} build" if label else "the index's build"
    if not label and sys.platform == "darwin":
        kind = "the build for macOS"
    place = "from a folder of wheels on this box" if torch.on_this_box else "from the package index"
    return f"{kind}, {_size(torch.size_bytes)}, {place}"


def _package(package: LockedPackage, tree: Mapping[str, Any], tags: Sequence[Tag]) -> Package:
    rank = {tag: place for place, tag in enumerate(tags)}
    here = [path for path in package.wheels if path.is_file()]
    sizes: list[tuple[str, int | None]] = [(path.name, path.stat().st_size) for path in here]
    on_this_box = bool(sizes)
    if not sizes:
        sizes = [(str(wheel.get("url", "")).rpartition("/")[2], wheel.get("size")) for wheel in _wheels(package, tree)]
    best: tuple[int, int | None] | None = None
    for filename, size_bytes in sizes:
        place = min((rank[tag] for tag in _tags(filename) if tag in rank), default=None)
        if place is not None and (best is None or place < best[0]):
            best = (place, size_bytes)
    return Package(canonicalize_name(package.name), package.version or "", best[1] if best else None, on_this_box)


def _wheels(package: LockedPackage, tree: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    for entry in tree.get("package", ()):
        if (entry["name"], entry.get("version")) == (package.name, package.version):
            return list(entry.get("wheels", ()))
    return []


def _tags(filename: str) -> frozenset[Tag]:
    try:
        return parse_wheel_filename(filename.replace("%2B", "+"))[3]
    except InvalidWheelFilename:
        return frozenset()


def _to_fetch(
    uv: Uv, project: Project, interpreter: Interpreter, extra: str | None, packages: Sequence[Package]
) -> int:
    here = [package.name for package in packages if package.on_this_box]
    if len(here) == len(packages):
        return 0
    arguments: list[str | Path] = ["sync", "--frozen", "--dry-run", "--no-default-groups", "--no-install-project"]
    arguments += [f"--no-install-package={name}" for name in here]
    arguments += ["--python", interpreter.path, *(("--extra", extra) if extra else ())]
    found = _WOULD_DOWNLOAD.search(uv.run(arguments, cwd=project.folder).stderr)
    return int(found[1]) if found else 0


def _at_most(size_bytes: int) -> str:
    return f"at most {_size(size_bytes)}" if size_bytes else _size(None)


def _size(size_bytes: int | None) -> str:
    return "of unknown size" if not size_bytes else size(size_bytes)
