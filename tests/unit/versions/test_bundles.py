from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from modelrepo import canonical, layout
from modelrepo.environments.interpreters import Interpreter
from modelrepo.environments.record import CarriedWheel, EnvironmentRecord
from modelrepo.errors import Corrupt, NewerFormat
from modelrepo.stores.memory import MemoryStore
from modelrepo.versions.bundles import bundle_carried, find_carried, read_bundle
from modelrepo.versions.content import Content

PYTHON = Interpreter(Path("/usr/bin/python3"), "3.11.2", "linux_x86_64")
WHEEL = "greeting-1.0-py3-none-any.whl"


@pytest.fixture
def carrying(environment: EnvironmentRecord) -> EnvironmentRecord:
    return replace(environment, carried=(CarriedWheel(WHEEL, canonical.sha256(b"wheel"), 5),))


@pytest.fixture
def bundle(tmp_path: Path, carrying: EnvironmentRecord) -> tuple[str, bytes]:
    (tmp_path / WHEEL).write_bytes(b"wheel")
    made = bundle_carried(carrying, [tmp_path / WHEEL], PYTHON, Content())
    assert made.objects == {canonical.sha256(b"wheel"): 5}
    ((key, data),) = made.documents.items()
    return key, data


def test_a_bundle_lies_by_environment_extra_python_and_platform(
    bundle: tuple[str, bytes], carrying: EnvironmentRecord
) -> None:
    key, data = bundle
    assert key == layout.bundle(carrying.digest, None, "cp311", "linux_x86_64", canonical.sha256(data))
    assert [record.path for record in read_bundle(key, data)] == [WHEEL]


def test_no_carried_wheel_needs_no_bundle(environment: EnvironmentRecord, store: MemoryStore) -> None:
    assert bundle_carried(environment, [], PYTHON, Content()).documents == {}
    assert find_carried(store, environment) == ()


def test_a_carried_wheel_is_found_by_its_bytes_whatever_the_bundle_calls_it(
    store: MemoryStore, bundle: tuple[str, bytes], carrying: EnvironmentRecord
) -> None:
    store.create(*bundle)
    renamed = replace(carrying, carried=(replace(carrying.carried[0], filename="greeting-1.0-1-py3-none-any.whl"),))
    assert [record.path for record in find_carried(store, renamed)] == ["greeting-1.0-1-py3-none-any.whl"]


def test_a_wheel_in_no_bundle_is_named(
    store: MemoryStore, bundle: tuple[str, bytes], carrying: EnvironmentRecord
) -> None:
    store.create(*bundle)
    other = replace(carrying, carried=(CarriedWheel("other-1.0-py3-none-any.whl", "0" * 64, 5),))
    with pytest.raises(Corrupt, match=r"other-1\.0"):
        find_carried(store, other)


def test_a_bundle_that_is_not_what_its_name_says_is_refused(bundle: tuple[str, bytes]) -> None:
    key, data = bundle
    with pytest.raises(Corrupt, match="other bytes"):
        read_bundle(key, data.replace(b"linux", b"macos"))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda tree: {**tree, "format": 2}, NewerFormat),
        (lambda tree: {**tree, "wheels": [{**tree["wheels"][0], "path": "a/b.whl"}]}, Corrupt),
        (lambda tree: {**tree, "wheels": [{**tree["wheels"][0], "path": "../b.whl"}]}, Corrupt),
        (lambda tree: {**tree, "wheels": [{}]}, Corrupt),
        (lambda tree: {**tree, "wheels": 3}, Corrupt),
        (lambda tree: 3, Corrupt),
    ],
)
def test_a_hostile_bundle_is_refused(
    bundle: tuple[str, bytes], change: Callable[[dict[str, object]], object], error: type[Exception]
) -> None:
    data = json.dumps(change(json.loads(bundle[1]))).encode()
    with pytest.raises(error):
        read_bundle(f"environments/x/{canonical.sha256(data)}.json", data)


def test_a_bundle_that_cannot_be_read_is_passed_over_where_another_has_the_wheels(
    store: MemoryStore, bundle: tuple[str, bytes], carrying: EnvironmentRecord
) -> None:
    newer = json.dumps({"format": 2}).encode()
    store.create(layout.bundle(carrying.digest, None, "cp399", "moon", canonical.sha256(newer)), newer)
    with pytest.raises(NewerFormat, match="format 2"):
        find_carried(store, carrying)
    store.create(*bundle)
    assert [record.path for record in find_carried(store, carrying)] == [WHEEL]
