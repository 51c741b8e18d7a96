"""Put the wheels of a version's environment beside it, for the platform of this box: docs/format.md, "bundles"."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from modelrepo.environments import EnvironmentRecord, IndexSettings, named_interpreter
from modelrepo.environments.installing import interpreter_for
from modelrepo.environments.offers import OfferedWheel
from modelrepo.environments.processes import full_disk_told
from modelrepo.environments.record import NO_EXTRA
from modelrepo.environments.uv_tool import Uv
from modelrepo.environments.vendoring import Vendor
from modelrepo.errors import EnvironmentFailed, InvalidInput
from modelrepo.promotion import Promotions
from modelrepo.stores.port import ObjectStore
from modelrepo.versions.box import default_cache
from modelrepo.versions.bundled_wheels import BundledWheels
from modelrepo.versions.bundles import Bundle
from modelrepo.versions.clock import Clock
from modelrepo.versions.content import Content, Progress, of_files
from modelrepo.versions.delivery import deliver
from modelrepo.versions.manifest import FileRecord
from modelrepo.versions.version import Version


@dataclass(frozen=True, slots=True)
class VendorOptions:
    """How to vendor. Without `extra` it is done for every one that this platform has wheels for."""

    extra: str | None = None
    python: Path | None = None
    index: IndexSettings | None = None
    cache: Path | None = None


@dataclass(frozen=True, slots=True)
class VendoredBundle:
    """One bundle that holds all that an extra installs on one Python and platform; `added` where it was not there."""

    key: str
    extra: str | None
    python: str
    platform: str
    wheels: tuple[str, ...]
    built: tuple[str, ...]
    added: bool


@dataclass(frozen=True, slots=True)
class VendorResult:
    """What vendoring did; `notes` say which extras have no bundle, and why."""

    model: str
    version: str
    bundles: tuple[VendoredBundle, ...]
    new_bytes: int
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class BundleMaker:
    """Makes bundles of what a Vendor gathers. `known` are wheels that the repository describes already, by sha256."""

    vendor: Vendor
    content: Content
    known: Mapping[str, FileRecord] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def make(self, extra: str | None) -> list[Bundle]:
        """Make one for each extra, or for the given one.

        Raises: InvalidInput (no such extra), EnvironmentFailed where not even one of them can be installed here.
        """
        record, made = self.vendor.record, list[Bundle]()
        failure: EnvironmentFailed | None = None
        for each in [extra] if extra is not None else _extras(record):
            if (each or NO_EXTRA) not in record.requirements:
                raise InvalidInput(f"the version has no extra {each!r}: its environment is for {_named(record)}")
            try:
                wheels = self.vendor.gather(each)
            except EnvironmentFailed as error:
                failure = error
                self.notes.append(f"nothing was vendored for {f'the extra {each}' if each else 'no extra'}: {error}")
                continue
            if wheels:
                made.append(self._bundle(each, wheels))
        if failure is not None and not made:
            raise failure
        return made

    def _bundle(self, extra: str | None, wheels: Iterable[OfferedWheel]) -> Bundle:
        record, interpreter = self.vendor.record, self.vendor.interpreter
        built = {wheel.filename: wheel.built_from for wheel in wheels if wheel.built_from is not None}
        records = tuple(replace(self._record(wheel), path=wheel.filename) for wheel in wheels)
        return Bundle(record.digest, extra, interpreter.tag, interpreter.platform, records, built)

    def _record(self, wheel: OfferedWheel) -> FileRecord:
        known = self.known.get(wheel.sha256)
        return known or self.content.describe(of_files([self.vendor.files[wheel]]))[0]


def vendor(
    store: ObjectStore,
    version: Version,
    promotions: Promotions,
    options: VendorOptions,
    *,
    by: str,
    progress: Progress | None = None,
    stop: Callable[[], bool] | None = None,
    clock: Clock | None = None,
) -> VendorResult:
    """Add the bundles of this box's platform that a version lacks, and write that into the model's history.

    Raises:
        InterpreterMissing, EnvironmentFailed, Corrupt, Unreachable, Stopped, NoSpace
    """
    record = version.manifest.environment
    python = None if options.python is None else named_interpreter(options.python)
    interpreter = interpreter_for(record, python)
    uv = Uv(options.index or IndexSettings.from_environment(), cache=(options.cache or default_cache()) / "uv")
    there = BundledWheels(store, version, progress=progress, stop=stop)
    known = {bundle.document()[0] for bundle in there.bundles(options.extra, interpreter)}
    with tempfile.TemporaryDirectory(prefix="modelrepo-vendor-") as work:
        gathering = Vendor(uv, record, interpreter, Path(work), there, progress, stop)
        maker = BundleMaker(gathering, Content(), there.records())
        with full_disk_told(Path(work), f"the wheels of {version}"):
            bundles = {bundle.document()[0]: bundle for bundle in maker.make(options.extra)}
        added = {key: bundle for key, bundle in bundles.items() if key not in known}
        new_bytes = 0
        if added:
            new_bytes = deliver(
                store,
                model=version.model,
                by=by,
                objects={digest: size for bundle in added.values() for digest, size in bundle.objects().items()},
                origins=maker.content.origins,
                documents={key: bundle.document()[1] for key, bundle in added.items()},
                publish=lambda: promotions.vendored(version.model, version.version, _reason(added)),
                clock=clock,
                progress=progress,
                stop=stop,
            ).new_bytes
    told = tuple(described(key, bundle, key in added) for key, bundle in bundles.items())
    return VendorResult(version.model, version.version, told, new_bytes, tuple(maker.notes))


def described(key: str, bundle: Bundle, added: bool) -> VendoredBundle:
    names = tuple(record.path for record in bundle.wheels)
    return VendoredBundle(
        key, bundle.extra, bundle.python, bundle.platform, names, tuple(sorted(bundle.built_from)), added
    )


def _reason(added: Mapping[str, Bundle]) -> str:
    return "; ".join(
        f"{len(bundle.wheels)} wheels for {bundle.python}-{bundle.platform}, extra {bundle.extra or 'none'}, "
        f"{len(bundle.built_from)} of them built, in sha256:{key.rpartition('/')[2].removesuffix('.json')}"
        for key, bundle in added.items()
    )


def _extras(record: EnvironmentRecord) -> list[str | None]:
    return [None if name == NO_EXTRA else name for name in record.requirements]


def _named(record: EnvironmentRecord) -> str:
    return ", ".join("no extra" if name == NO_EXTRA else name for name in record.requirements)
