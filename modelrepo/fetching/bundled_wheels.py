"""The wheels that a repository keeps for an environment: joined from its bundles, brought here verified."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from modelrepo.environments.interpreters import Interpreter
from modelrepo.environments.offers import OfferedWheel
from modelrepo.environments.record import EnvironmentRecord
from modelrepo.fetching.disk import Disk, check_space, full_disk_named
from modelrepo.fetching.fetcher import Fetcher, Target
from modelrepo.progress import Progress
from modelrepo.publication.delivery import missing_objects
from modelrepo.stores.port import ObjectStore
from modelrepo.versions.bundles import Bundle, check_carried, read_bundles
from modelrepo.versions.manifest import PLAIN, FileRecord
from modelrepo.versions.paths import inside


class BundledWheels:
    """A WheelSource over one environment's bundles, which are read when they are first asked for.

    `version` is one that has the environment. What the record carries must be in the bundles.
    """

    def __init__(
        self,
        store: ObjectStore,
        environment: EnvironmentRecord,
        version: str,
        *,
        progress: Progress | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> None:
        self._store, self._environment, self._version = store, environment, version
        self._progress, self._stop = progress, stop
        self._bundles: list[Bundle] | None = None

    @property
    def version(self) -> str:
        return self._version

    def offered(self, extra: str | None, interpreter: Interpreter) -> Sequence[OfferedWheel]:
        """List the wheels of all bundles, those of the most complete one for this extra, Python and platform first.

        Raises: Corrupt or NewerFormat where a wheel that travels with the version is in none of them; Unreachable.
        """
        named = {wheel.sha256: wheel.filename for wheel in self._environment.carried}
        found: dict[tuple[str, str], OfferedWheel] = {}
        for bundle in self.bundles(extra, interpreter):
            here = (bundle.python, bundle.platform) == (interpreter.tag, interpreter.platform)
            for record in bundle.wheels:
                built_from = bundle.built_from.get(record.path)
                if built_from is None or here:  # what was built elsewhere counts there
                    name = named.get(record.sha256, record.path)
                    wheel = OfferedWheel(name, record.sha256, record.size_bytes, built_from)
                    found.setdefault((name, record.sha256), wheel)
        return tuple(found.values())

    def bring(self, wheels: Sequence[OfferedWheel], folder: Path) -> None:
        """Fetch wheels. Raises: Corrupt for bytes that are not those of their digest; NoSpace, Stopped, Unreachable."""
        records = self.records()
        disk, what = Disk(), f"the wheels of {self._version}"
        size = sum(wheel.size_bytes for wheel in wheels)
        check_space(disk, folder, size_bytes=size, files=len(wheels), what=what)
        fetcher = Fetcher(self._store, disk, what=what, total_bytes=size, progress=self._progress, stop=self._stop)
        with full_disk_named(disk, folder, what=what, size_bytes=size):
            paths = {one: inside(folder, one.filename) for one in wheels}
            fetcher.fetch(
                Target(records[one.sha256], path, PLAIN, path.with_name(f".{one.sha256}"))
                for one, path in paths.items()
            )

    def bundles(self, extra: str | None, interpreter: Interpreter) -> list[Bundle]:
        """Return the environment's bundles, the most useful for one extra, Python and platform first."""

        def order(bundle: Bundle) -> tuple[bool, bool, int]:
            here = (bundle.python, bundle.platform) == (interpreter.tag, interpreter.platform)
            return (not here, bundle.extra != extra, -len(bundle.wheels))

        return sorted(self._read(), key=order)

    def records(self) -> dict[str, FileRecord]:
        """Return every bundled wheel by its sha256."""
        return {record.sha256: record for record in _wheels(self._read())}

    def leave_out_lost(self) -> None:
        """Forget wheels whose objects the repository has lost, so that they are fetched anew; looks at each object.

        Not those that travel with a version, which nobody else may have.
        """
        carried = {wheel.sha256 for wheel in self._environment.carried}
        objects = {chunk.sha256: chunk.size_bytes for record in _wheels(self._read()) for chunk in record.chunks}
        lost = missing_objects(self._store, objects, stop=self._stop)

        def is_kept(record: FileRecord) -> bool:
            return record.sha256 in carried or not any(chunk.sha256 in lost for chunk in record.chunks)

        self._bundles = [replace(one, wheels=tuple(filter(is_kept, one.wheels))) for one in self._read()]

    def _read(self) -> list[Bundle]:
        if self._bundles is None:
            bundles, unreadable = read_bundles(self._store, self._environment.digest)
            check_carried(self._environment, (one.sha256 for one in _wheels(bundles)), unreadable, self._store.url)
            self._bundles = bundles
        return self._bundles


def _wheels(bundles: Sequence[Bundle]) -> Iterator[FileRecord]:
    for bundle in bundles:
        yield from bundle.wheels
