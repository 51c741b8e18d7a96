"""Look through what this box has fetched and built: versions by their chunks, environments by their RECORDs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelrepo.box_cache.cache_folder import CacheFolder
from modelrepo.box_cache.checking import LocalProblem, remove_broken, verify_box
from modelrepo.environments.cache import remove_environment
from modelrepo.environments.verifying import EnvironmentProblem, environments_in, verify_environment
from modelrepo.fetching.disk import Disk
from modelrepo.holds import holders_of, take, try_take
from modelrepo.progress import Progress


@dataclass(frozen=True, slots=True)
class BrokenEnvironment:
    """An environment of which files are not as they were installed."""

    path: Path
    problems: Sequence[EnvironmentProblem]


@dataclass(frozen=True, slots=True)
class BoxReport:
    """What is wrong on this box. `removed`: what was taken out. `kept`: what stays all the same, and why."""

    cache: Path
    environments: int
    contents: Sequence[LocalProblem]
    broken: Sequence[BrokenEnvironment]
    removed: Sequence[str] = ()
    kept: Sequence[str] = ()

    @property
    def whole(self) -> bool:
        return not self.contents and not self.broken


def verify_cache(
    cache: Path,
    *,
    remove: bool = False,
    progress: Progress | None = None,
    stop: Callable[[], bool] | None = None,
) -> BoxReport:
    """Hash every version and environment in the box's cache; `remove` takes out what is broken and unused.

    Raises: Stopped.
    """
    folder = CacheFolder(cache.absolute())
    contents = verify_box(folder.root, progress=progress, stop=stop)
    broken: list[BrokenEnvironment] = []
    environments = list(environments_in(folder.environments))
    for path in (folder.locks, folder.holds) if environments or contents else ():
        Disk().make_folder(path)
    for path in environments:
        with take(_hold(folder, path), shared=True, stop=stop):  # it is not evicted while it is looked at
            found = verify_environment(path, stop=stop) if path.exists() else ()
        if found:
            broken.append(BrokenEnvironment(path, found))
    if not remove:
        return BoxReport(folder.root, len(environments), contents, broken)
    kept = remove_broken(folder.root, contents)
    removed = [] if kept else sorted({str(problem.path) for problem in contents})
    for each in broken:
        reason = _remove(folder, each.path)
        (removed if reason is None else kept).append(str(each.path) if reason is None else reason)
    if broken and (reason := _remove_supplies(folder)) is not None:
        kept.append(reason)
    return BoxReport(folder.root, len(environments), contents, broken, removed, kept)


def _remove(folder: CacheFolder, environment: Path) -> str | None:
    """Remove an environment that nobody uses; returns why it stays."""
    path = _hold(folder, environment)
    with take(folder.eviction_lock, shared=False):
        hold = try_take(path, shared=False)
        if hold is None:
            pids = ", ".join(map(str, holders_of(path))) or "unknown"
            return f"{environment} is used by pid {pids}; end it, and run this again"
        with hold:
            remove_environment(environment)
    return None


def _hold(folder: CacheFolder, environment: Path) -> Path:
    return folder.hold(f"environment-{environment.relative_to(folder.environments).parts[0]}")


def _remove_supplies(folder: CacheFolder) -> str | None:
    """Remove uv's cache: an environment's files are links into it, so a new one would have the same bytes."""
    supplies = folder.root / "uv"
    if not supplies.exists():
        return None
    lock = try_take(supplies / ".lock", shared=False)  # uv's own: every uv at work shares it
    if lock is None:
        return f"{supplies} is used by uv, and may hold the same damage; run this again"
    with lock:
        Disk().remove_tree(supplies)
    return None
