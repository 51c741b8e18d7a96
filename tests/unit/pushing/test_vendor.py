"""Vendoring from a folder of wheels, killed and failed at every operation of the store."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from modelrepo import canonical, layout
from modelrepo.contract import parse_spec, spec_from_json
from modelrepo.environments.index_settings import IndexSettings
from modelrepo.environments.record import EnvironmentRecord, Requirement
from modelrepo.errors import EnvironmentFailed, InvalidInput, ModelRepoError, Unreachable
from modelrepo.promotion import Promotions
from modelrepo.promotion.history import Kind
from modelrepo.pushing.vendor import VendorOptions, VendorResult, vendor
from modelrepo.stores.faults import Fault, FaultyStore, KillNow
from modelrepo.stores.memory import MemoryBucket, MemoryStore
from modelrepo.stores.port import ObjectStore
from modelrepo.versions.bundles import Bundle, parse_bundle
from modelrepo.versions.catalogue import Catalogue
from modelrepo.versions.manifest import Manifest
from modelrepo.versions.version import Version

MINOR = f"{sys.version_info[0]}.{sys.version_info[1]}"
SPEC = parse_spec("contract: 1\nname: hello\nentrypoint: model:Hello\n")


def wheel(folder: Path, name: str) -> Requirement:
    """Write what stands for a wheel, of which only the name and the bytes matter here; returns its pin."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    path.write_bytes(name.encode() * 10)
    return Requirement(name, "1.0", (f"sha256:{canonical.sha256(path.read_bytes())}",))


@pytest.fixture
def environment(tmp_path: Path) -> EnvironmentRecord:
    both, extra = wheel(tmp_path, "both"), wheel(tmp_path, "extra")
    missing = Requirement("missing", "1.0", ("sha256:" + "0" * 64,))
    return EnvironmentRecord(
        MINOR, "", "e" * 64, "f" * 64, ("cpu", "rocm"), {"_": (both,), "cpu": (both, extra), "rocm": (both, missing)}
    )


def publish(store: ObjectStore, environment: EnvironmentRecord) -> Version:
    manifest = Manifest("hello", "v1", "2026-01-01T00:00:00Z", SPEC.raw, environment, ())
    store.create(layout.manifest("hello", "v1"), manifest.to_bytes())
    return Version("hello", "v1", manifest.digest, manifest, spec_from_json(manifest.spec))


def vendored(store: ObjectStore, version: Version, folder: Path, extra: str | None = None) -> VendorResult:
    index = IndexSettings(find_links=(str(folder),), no_index=True)
    options = VendorOptions(extra, index=index, cache=folder / "cache")
    return vendor(store, version, Promotions(store, Catalogue(store), by="me"), options, by="me")


def bundles(store: ObjectStore) -> Iterator[Bundle]:
    for stat in store.list(layout.ENVIRONMENTS):
        yield parse_bundle(stat.key, store.read(stat.key))


def new_store() -> MemoryStore:
    return MemoryStore("vendor", MemoryBucket())


def test_each_extra_that_can_be_had_is_vendored_and_the_others_are_told(
    environment: EnvironmentRecord, tmp_path: Path
) -> None:
    store = new_store()
    version = publish(store, environment)
    done = vendored(store, version, tmp_path)
    assert [(one.extra, len(one.wheels), one.added) for one in done.bundles] == [(None, 1, True), ("cpu", 2, True)]
    (note,) = done.notes
    assert "nothing was vendored for the extra rocm: missing==1.0 has neither a wheel for" in note
    assert "--extra-index-url" in note
    objects = {stat.key for stat in store.list(layout.OBJECTS)}
    assert len(objects) == 2  # what two extras install is kept once
    with pytest.raises(EnvironmentFailed, match=r"missing==1\.0"):
        vendored(store, version, tmp_path, "rocm")
    with pytest.raises(InvalidInput, match="no extra 'tpu': its environment is for no extra, cpu, rocm"):
        vendored(store, version, tmp_path, "tpu")
    again = vendored(store, version, tmp_path)
    assert [one.added for one in again.bundles] == [False, False]
    assert [entry.kind for entry in Promotions(store, Catalogue(store)).history("hello")] == [Kind.VENDOR]


def test_an_environment_without_packages_needs_no_bundle(environment: EnvironmentRecord, tmp_path: Path) -> None:
    store = new_store()
    version = publish(store, replace(environment, extras=(), requirements={"_": ()}))
    assert vendored(store, version, tmp_path) == VendorResult("hello", "v1", (), 0)
    assert list(store.list(layout.ENVIRONMENTS)) == []


@pytest.mark.parametrize("how", ["kill", "fail"])
def test_vendoring_that_ends_anywhere_leaves_whole_bundles_and_is_done_again(
    environment: EnvironmentRecord, tmp_path: Path, how: str
) -> None:
    counted = FaultyStore(new_store())
    vendored(counted, publish(counted, environment), tmp_path)
    total = len(counted.operations)
    assert total > 10
    for at in range(2, total + 1):  # the first publishes the version
        for moment in ("before", "after"):
            store = new_store()
            version = publish(store, environment)
            fault = Fault(at - 1, moment, how)  # type: ignore[arg-type]
            try:
                vendored(FaultyStore(store, fault), version, tmp_path)
            except (KillNow, Unreachable):
                pass
            except ModelRepoError as error:
                raise AssertionError(f"{fault}: {error}") from error
            for bundle in bundles(store):
                for digest, size in bundle.objects().items():
                    assert store.stat(layout.object_(digest)).size_bytes == size, fault
            vendored(store, version, tmp_path)
            assert sorted(len(bundle.wheels) for bundle in bundles(store)) == [1, 2], fault
            assert json.loads(store.read(layout.manifest("hello", "v1")))["model"] == "hello"
