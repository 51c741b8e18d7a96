"""Put the wheels of a version's environment beside it, for the platform of this box: docs/format.md, "bundles"."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from modelrepo.box_cache.cache_folder import default_cache
from modelrepo.clock import Clock
from modelrepo.environments import EnvironmentRecord, IndexSettings, PreparedEnvironment, named_interpreter
from modelrepo.environments.installing import interpreter_for
from modelrepo.environments.interpreters import Interpreter
from modelrepo.environments.offers import FolderWheels, JoinedWheels, OfferedWheel, WheelSource
from modelrepo.environments.processes import full_disk_told
from modelrepo.environments.record import NO_EXTRA
from modelrepo.environments.uv_tool import Uv
from modelrepo.environments.vendoring import Vendor
from modelrepo.errors import EnvironmentFailed, InvalidInput
from modelrepo.fetching.bundled_wheels import BundledWheels
from modelrepo.progress import Progress
from modelrepo.promotion import Promotions
from modelrepo.publication.delivery import Delivery
from modelrepo.pushing.content import Content, of_files
from modelrepo.pushing.push_options import PushOptions
from modelrepo.stores.port import ObjectStore
from modelrepo.versions.bundles import Bundle, Bundles
from modelrepo.versions.manifest import FileRecord
from modelrepo.versions.version import Version

_Chosen = dict[str | None, tuple[OfferedWheel, ...]]


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


def gather_extras(gathering: Vendor, extra: str | None) -> tuple[_Chosen, tuple[str, ...]]:
    """Gather the wheels of each extra, or of the given one, and say which were left out.

    Raises: InvalidInput (no such extra), EnvironmentFailed where not even one of them can be installed here.
    """
    record, notes, chosen = gathering.record, list[str](), _Chosen()
    failure: EnvironmentFailed | None = None
    for each in [extra] if extra is not None else _extras(record):
        if (each or NO_EXTRA) not in record.requirements:
            raise InvalidInput(f"the version has no extra {each!r}: its environment is for {_named(record)}")
        try:
            chosen[each] = gathering.gather(each)
        except EnvironmentFailed as error:
            failure = error
            notes.append(f"nothing was vendored for {f'the extra {each}' if each else 'no extra'}: {error}")
    if failure is not None and not chosen:
        raise failure
    return {each: wheels for each, wheels in chosen.items() if wheels}, tuple(notes)


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
    there = BundledWheels(store, record, str(version), progress=progress, stop=stop)
    there.leave_out_lost()
    known = {bundle.document()[0] for bundle in there.bundles(options.extra, interpreter)}
    with tempfile.TemporaryDirectory(prefix="modelrepo-vendor-") as work:
        gathering, content = Vendor(uv, record, interpreter, Path(work), there, progress, stop), Content()
        with full_disk_told(Path(work), f"the wheels of {version}"):
            chosen, notes = gather_extras(gathering, options.extra)
        found = _bundles(gathering, chosen, there.records(), content)
        bundles = {bundle.document()[0]: bundle for bundle in found}
        added = {key: bundle for key, bundle in bundles.items() if key not in known}
        new_bytes = 0
        if added:
            objects = {digest: size for bundle in added.values() for digest, size in bundle.objects().items()}
            documents = {key: bundle.document()[1] for key, bundle in added.items()}
            record_it = partial(promotions.vendored, version.model, version.version, _reason(added))
            with Delivery(store, model=version.model, by=by, clock=clock, progress=progress, stop=stop) as delivery:
                delivery.bring(objects, content.origins, environments=(record.digest,))
                new_bytes = delivery.finish(documents, record_it).new_bytes
    told = tuple(_told(key, bundle, key in added) for key, bundle in bundles.items())
    return VendorResult(version.model, version.version, told, new_bytes, notes)


@dataclass(frozen=True, slots=True)
class PushWheels:
    """The wheels of a push: the bundles to publish, where the environment is installed from, and what was left out."""

    bundles: Bundles
    source: WheelSource
    notes: tuple[str, ...] = ()


def gather_for_push(
    store: ObjectStore,
    prepared: PreparedEnvironment,
    interpreter: Interpreter,
    options: PushOptions,
    content: Content,
    work: Path,
    *,
    progress: Progress | None = None,
    stop: Callable[[], bool] | None = None,
) -> PushWheels:
    """Bundle what travels with a version, and with `options.vendor` all that this box installs; raises as `vendor`."""
    record, bundles, here = prepared.record, Bundles(), prepared.wheels()
    carried = bundle_carried(record, prepared.carried, interpreter, content)
    if carried is not None:
        bundles.add(carried)
    if not options.vendor:
        return PushWheels(bundles, here)
    uv = Uv(options.index_settings(), cache=(options.cache or default_cache()) / "uv")
    # What another push of this environment has vendored is neither fetched nor built again.
    there = BundledWheels(store, replace(record, carried=()), f"environment {record.digest[:12]}", stop=stop)
    there.leave_out_lost()
    gathering = Vendor(uv, record, interpreter, work, JoinedWheels(here, there), progress, stop)
    with full_disk_told(work.parent, f"the wheels of environment {record.digest[:12]}"):
        chosen, notes = gather_extras(gathering, None)
    known = there.records() | ({} if carried is None else {wheel.sha256: wheel for wheel in carried.wheels})
    for bundle in _bundles(gathering, chosen, known, content):
        bundles.add(bundle)
    return PushWheels(bundles, JoinedWheels(FolderWheels({**here.files, **gathering.files}), there), notes)


def bundle_carried(
    environment: EnvironmentRecord, wheels: Sequence[Path], interpreter: Interpreter, content: Content
) -> Bundle | None:
    """Describe the wheels that a push carries as one bundle for this box's platform; None where there are none."""
    if not wheels:
        return None
    records = content.describe(of_files(sorted(wheels, key=lambda wheel: wheel.name)))
    return Bundle(environment.digest, None, interpreter.tag, interpreter.platform, records)


def _told(key: str, bundle: Bundle, added: bool) -> VendoredBundle:
    names = tuple(record.path for record in bundle.wheels)
    return VendoredBundle(
        key, bundle.extra, bundle.python, bundle.platform, names, tuple(sorted(bundle.built_from)), added
    )


def _bundles(gathering: Vendor, chosen: _Chosen, known: Mapping[str, FileRecord], content: Content) -> Iterator[Bundle]:
    """Describe wheels as a bundle for each extra; `known` has by sha256 what is described already."""
    record, interpreter = gathering.record, gathering.interpreter
    for extra, wheels in chosen.items():
        fresh = content.describe(of_files(gathering.files[wheel] for wheel in wheels if wheel.sha256 not in known))
        by_digest = {**known, **{described.sha256: described for described in fresh}}
        records = tuple(replace(by_digest[wheel.sha256], path=wheel.filename) for wheel in wheels)
        built = {wheel.filename: wheel.built_from for wheel in wheels if wheel.built_from is not None}
        yield Bundle(record.digest, extra, interpreter.tag, interpreter.platform, records, built)


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
