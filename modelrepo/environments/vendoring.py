"""The wheels that an environment installs on one Python and platform: fetched by the lock's hashes, or built once.

uv downloads into its own cache, where a wheel is no file any more, and pip need not be here: so files are looked up in
the index and fetched by us, and only what the lock has a hash of is ever unpacked or run.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from modelrepo.environments.carried import build_wheel, describe_wheel, file_sha256, is_carried, supported_tags
from modelrepo.environments.index_settings import local_path
from modelrepo.environments.installing import applicable
from modelrepo.environments.interpreters import Interpreter
from modelrepo.environments.offers import OfferedWheel, WheelSource, choose_offer, fitting_rank
from modelrepo.environments.record import EnvironmentRecord, Requirement
from modelrepo.environments.simple_index import IndexFile, SimpleIndex
from modelrepo.environments.uv_tool import Uv
from modelrepo.environments.web import Web, without_password
from modelrepo.errors import Corrupt, EnvironmentFailed

Progress = Callable[[str, int, int | None], None]
_THREADS = 8


@dataclass(slots=True)
class Vendor:
    """Gathers wheels below `work`. `known` offers those that need not be fetched, such as the ones that are carried.

    `files` are the wheels that were fetched or built; one that two extras install is there once.
    """

    uv: Uv
    record: EnvironmentRecord
    interpreter: Interpreter
    work: Path
    known: WheelSource
    progress: Progress | None = None
    stop: Callable[[], bool] | None = None
    files: dict[OfferedWheel, Path] = field(default_factory=dict)

    def gather(self, extra: str | None) -> tuple[OfferedWheel, ...]:
        """Return every wheel that the environment installs here.

        Raises: EnvironmentFailed (not to be had, or not built), Corrupt (not what is locked), Unreachable, Stopped.
        """
        self.work.mkdir(parents=True, exist_ok=True)
        wanted = list(applicable(self.record, extra, self.interpreter))
        offered = [*self.known.offered(extra, self.interpreter), *self.files]
        chosen = {one: self._known(one, offered) for one in wanted}
        lacking = [one for one, wheel in chosen.items() if wheel is None]
        if lacking and self.progress is not None:
            self.progress(f"fetching {len(lacking)} wheels", 0, None)
        chosen.update(self._obtained(lacking))
        return tuple(sorted((one for one in chosen.values() if one is not None), key=lambda one: one.filename))

    def _known(self, requirement: Requirement, offered: Sequence[OfferedWheel]) -> OfferedWheel | None:
        wheel = choose_offer(requirement, offered, self.record.carried, supported_tags(self.interpreter))
        if wheel is None and (not requirement.hashes or is_carried(requirement, self.record.carried)):
            raise EnvironmentFailed(
                f"{requirement} travels with the version, but not for {self.interpreter}; "
                "put its wheel for this platform beside the others, lock and push again"
            )
        return wheel

    def _obtained(self, requirements: Sequence[Requirement]) -> Iterator[tuple[Requirement, OfferedWheel]]:
        web = Web(self.uv.index)
        index = SimpleIndex(self.uv.index, web)
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="modelrepo-wheels") as threads:
            fetched = list(threads.map(partial(self._fetch, index, web), requirements))
        for requirement, (path, is_wheel) in zip(requirements, fetched, strict=True):
            built_from = None if is_wheel else file_sha256(path)
            wheel = path if is_wheel else self._build(requirement, path)
            about = describe_wheel(wheel)
            offer = OfferedWheel(about.filename, about.sha256, about.size_bytes, built_from)
            self.files[offer] = wheel
            yield requirement, offer

    def _fetch(self, index: SimpleIndex, web: Web, requirement: Requirement) -> tuple[Path, bool]:
        """Bring the best file that the lock knows: a wheel for this Python and platform, else the source."""
        files = [file for file in index.files(requirement) if _may_be_locked(file, requirement)]
        wrong: Corrupt | None = None
        for file in self._in_order(files, requirement):
            path = self.work / "fetched" / (file.sha256 or "unnamed") / file.filename
            path.parent.mkdir(parents=True, exist_ok=True)
            self._bring(web, file, path)
            found = file_sha256(path)
            if f"sha256:{found}" in requirement.hashes and found == (file.sha256 or found):
                return path, file.is_wheel
            path.unlink()
            wrong = Corrupt(
                f"{without_password(file.url)} is not what the lock names: it has sha256:{found}, and the lock has "
                f"{', '.join(requirement.hashes)} for {requirement}; use another index, or lock again",
                path=file.filename,
                digest=found,
            )
        if wrong is not None:
            raise wrong
        raise EnvironmentFailed(
            f"{requirement} has neither a wheel for {self.interpreter} nor a source distribution with a hash of the "
            f"lock in {index.asked()}; name the index that has it with --index-url or --extra-index-url"
        )

    def _in_order(self, files: Sequence[IndexFile], requirement: Requirement) -> Iterator[IndexFile]:
        tags = supported_tags(self.interpreter)
        ranked = [
            (rank, file) for file in files if (rank := fitting_rank(requirement, file.filename, tags)) is not None
        ]
        yield from (file for _, file in sorted(ranked, key=lambda pair: pair[0]))
        yield from (file for file in files if not file.is_wheel)

    def _bring(self, web: Web, file: IndexFile, path: Path) -> None:
        local = local_path(file.url)
        if local is None:
            web.download(file.url, path, self.stop)
            return
        try:
            shutil.copyfile(local, path)
        except FileNotFoundError:
            raise EnvironmentFailed(f"the package index lists {local}, which is not there") from None

    def _build(self, requirement: Requirement, source: Path) -> Path:
        if self.progress is not None:
            self.progress(f"building {requirement}", 0, None)
        wheel = build_wheel(self.uv, source, self.interpreter, self.work)
        if fitting_rank(requirement, wheel.name, supported_tags(self.interpreter)) is None:
            raise EnvironmentFailed(
                f"{source.name} was built into {wheel.name}, which is not {requirement} for this box"
            )
        return wheel


def _may_be_locked(file: IndexFile, requirement: Requirement) -> bool:
    return file.sha256 is None or f"sha256:{file.sha256}" in requirement.hashes
