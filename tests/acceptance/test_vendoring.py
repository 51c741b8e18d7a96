"""Bundles with the real uv: fetched by hash from an index over HTTP, built once, restored where there is no index."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from modelrepo import EnvironmentCache, IndexSettings, PushOptions, Repository, VendorOptions, canonical, layout
from modelrepo.errors import Corrupt, EnvironmentFailed, Forbidden, InvalidInput
from modelrepo.promotion.history import Kind
from modelrepo.stores.filesystem import FilesystemStore

from .packages import make_index, make_sdist, make_wheel, served
from .test_environments import BACKEND, member, project, value_in

MINOR = f"{sys.version_info[0]}.{sys.version_info[1]}"
NOWHERE = IndexSettings(default_index="http://127.0.0.1:1/simple")


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.fixture
def index(box: Path) -> Iterator[IndexSettings]:
    with served(box / "index") as address:
        yield IndexSettings(default_index=address)


def publish(box: Path, index: IndexSettings, *dependencies: str, spec: str = "", rest: str = "") -> Repository:
    """Push a model that needs `dependencies` as hello@v1, without its wheels."""
    folder = project(box / "hello", *dependencies, rest=rest)
    (folder / "model.yaml").write_text(f"contract: 1\nname: hello\nentrypoint: model:Hello\n{spec}")
    (folder / "model.py").write_text("class Hello: pass\n")
    repository = Repository.init(str(box / "repository"))
    repository.push(folder, PushOptions(lock=True, check="none", index=index, cache=box / "pusher"))
    return repository


def restore(box: Path, repository: Repository, index: IndexSettings = NOWHERE) -> Path:
    """Build hello@v1's environment on a box with an empty cache, by default one that reaches no index."""
    version = repository.resolve("hello@v1")
    cache = EnvironmentCache(box / "worker", index=index)
    return cache.ensure(version.manifest.environment, extra=None, wheels=repository.wheels(version))


def options(box: Path, index: IndexSettings, extra: str | None = None) -> VendorOptions:
    return VendorOptions(extra=extra, index=index, cache=box / "vendorer")


def with_source_only(box: Path) -> list[Path]:
    """Make `lib`, which has no wheel anywhere; building it counts in box/built."""
    (box / "backend").mkdir()
    counting = BACKEND.replace("    text =", f"    open({str(box / 'built')!r}, 'a').write('x')\n    text =", 1)
    (box / "backend" / "tinybackend.py").write_text(counting)
    member(box / "lib", "lib", "built once")
    return [make_sdist(box / "made", "lib", "0.1", tree=box / "lib")]


def test_a_vendored_version_is_restored_where_no_index_is(box: Path) -> None:
    files = [make_wheel(box / "made", "tiny", "1.5", requires=["more"]), make_wheel(box / "made", "more")]
    with served(make_index(box / "index", files + with_source_only(box))) as address:
        index = IndexSettings(default_index=address)
        repository = publish(box, index, "tiny", "lib")
        with pytest.raises(EnvironmentFailed, match=r"lib has no wheel for .*`modelrepo vendor hello@v1` on a box"):
            EnvironmentCache(box / "worker", index=index).ensure(
                repository.resolve("hello@v1").manifest.environment,
                extra=None,
                wheels=repository.wheels(repository.resolve("hello@v1")),
            )
        (box / "built").unlink(missing_ok=True)
        done = repository.vendor("hello@v1", options(box, index))
        (bundle,) = done.bundles
        assert bundle.added
        assert (len(bundle.wheels), bundle.built) == (3, ("lib-0.1-py3-none-any.whl",))
        assert done.new_bytes > 0
        entry = repository.promotions.history("hello")[0]
        assert (entry.kind, entry.version) == (Kind.VENDOR, "v1")
        assert bundle.key.rpartition("/")[2].removesuffix(".json") in (entry.reason or "")
        assert (box / "built").read_text() == "x"
        again = repository.vendor("hello@v1", options(box, index))
        assert [(one.key, one.added) for one in again.bundles] == [(bundle.key, False)]
        assert (again.new_bytes, len(repository.promotions.history("hello"))) == (0, 1)
    shutil.rmtree(box / "index")
    venv = restore(box, repository)
    assert value_in(venv, "tiny.VERSION") == "1.5"
    assert value_in(venv, "lib.VALUE", "lib") == "built once"
    assert (box / "built").read_text() == "x"


def test_what_the_lock_does_not_know_is_refused(box: Path) -> None:
    good = make_wheel(box / "made", "tiny", "2.0")
    with served(make_index(box / "index", [good])) as address:
        repository = publish(box, IndexSettings(default_index=address), "tiny")
    evil = make_wheel(box / "evil", "tiny", "2.0", files={"tiny.py": "VERSION = 'evil'\n"})
    with served(make_index(box / "honest", [evil])) as address:
        with pytest.raises(EnvironmentFailed, match=r"tiny==2\.0 has neither a wheel .* with a hash of the lock"):
            repository.vendor("hello@v1", options(box, IndexSettings(default_index=address)))
    lying = make_index(box / "lying", [good])
    shutil.copyfile(evil, lying / "files" / evil.name)
    with served(lying) as address:
        with pytest.raises(Corrupt, match=r"tiny-2\.0-py3-none-any\.whl is not what the lock names"):
            repository.vendor("hello@v1", options(box, IndexSettings(default_index=address)))
    with pytest.raises(Corrupt, match=r"tiny-2\.0-py3-none-any\.whl is not what the lock names"):
        repository.vendor("hello@v1", options(box, IndexSettings(find_links=(str(box / "evil"),), no_index=True)))
    folder = IndexSettings(find_links=(str(box / "made"),), no_index=True)
    assert repository.vendor("hello@v1", options(box, folder)).bundles[0].added


def test_a_flipped_byte_in_a_bundled_wheel_refuses_and_names_it(box: Path) -> None:
    with served(make_index(box / "index", [make_wheel(box / "made", "tiny")])) as address:
        index = IndexSettings(default_index=address)
        repository = publish(box, index, "tiny")
        repository.vendor("hello@v1", options(box, index))
    version = repository.resolve("hello@v1")
    (pinned,) = version.manifest.environment.for_extra(None)
    digest = pinned.hashes[0].removeprefix("sha256:")
    path = box / "repository" / layout.object_(digest)
    flipped = bytearray(path.read_bytes())
    flipped[len(flipped) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(flipped)
    with pytest.raises(Corrupt, match=r"tiny-1\.0-py3-none-any\.whl") as caught:
        restore(box, repository)
    assert digest in str(caught.value)


def test_vendoring_again_brings_back_what_the_repository_lost(box: Path) -> None:
    with served(make_index(box / "index", [make_wheel(box / "made", "tiny")])) as address:
        index = IndexSettings(default_index=address)
        repository = publish(box, index, "tiny")
        (bundle,) = repository.vendor("hello@v1", options(box, index)).bundles
        (pinned,) = repository.resolve("hello@v1").manifest.environment.for_extra(None)
        lost = box / "repository" / layout.object_(pinned.hashes[0].removeprefix("sha256:"))
        lost.unlink()
        (again,) = repository.vendor("hello@v1", options(box, index)).bundles
        assert (again.key, again.added) == (bundle.key, True)
        assert lost.is_file()
    assert restore(box, repository)


def test_what_is_not_bundled_comes_from_the_index(box: Path) -> None:
    files = [make_wheel(box / "made", "tiny"), make_wheel(box / "made", "more")]
    with served(make_index(box / "index", files)) as address:
        index = IndexSettings(default_index=address)
        repository = publish(box, index, "tiny", "more")
        version = repository.resolve("hello@v1")
        with pytest.raises(EnvironmentFailed, match=r"in no bundle: more==1\.0, tiny==1\.0; run `modelrepo vendor"):
            restore(box, repository, index=IndexSettings(no_index=True))
        repository.vendor("hello@v1", options(box, index))
        bundles = list((box / "repository" / "environments").rglob("*.json"))
        assert len(bundles) == 1
        tree = json.loads(bundles[0].read_bytes())
        # A bundle that lists one of two: what another writer, or an older one, may have left.
        tree["wheels"] = [one for one in tree["wheels"] if one["path"].startswith("tiny")]
        bundles[0].unlink()
        smaller = json.dumps(tree, sort_keys=True, separators=(",", ":")).encode()
        FilesystemStore(box / "repository").create(bundle_key(tree, smaller), smaller)
        cache = EnvironmentCache(box / "indexed", index=index)
        venv = cache.ensure(version.manifest.environment, extra=None, wheels=repository.wheels(version))
        assert value_in(venv, "more.VERSION", "more") == "1.0"
        assert len(list((box / "indexed" / "wheels").glob("*/tiny*.whl"))) == 1
        assert not list((box / "indexed" / "wheels").glob("*/more*.whl"))
        second = repository.vendor("hello@v1", options(box, index))
        assert [one.added for one in second.bundles] == [True]
    assert restore(box, repository)


def test_a_push_can_bring_its_wheels_along(box: Path) -> None:
    folder = project(box / "hello", "tiny", "lib")
    (folder / "model.yaml").write_text("contract: 1\nname: hello\nentrypoint: model:Hello\n")
    (folder / "model.py").write_text("import lib, tiny\n\n\nclass Hello:\n    def run(self, job):\n        pass\n")
    repository = Repository.init(str(box / "repository"))
    checked: list[str] = []
    with served(make_index(box / "index", [make_wheel(box / "made", "tiny"), *with_source_only(box)])) as address:
        index = IndexSettings(default_index=address)
        plain = PushOptions(lock=True, index=index, cache=box / "pusher")
        with pytest.raises(EnvironmentFailed, match=r"lib has no wheel for .*; push with --vendor from a box with"):
            repository.push(folder, plain, check=lambda request: checked.append(request.spec.name))
        (box / "built").unlink(missing_ok=True)
        how = replace(plain, vendor=True)
        done = repository.push(folder, how, check=lambda request: checked.append(request.spec.name))
        assert (done.version, done.notes, checked) == ("v1", (), ["hello"])
        assert (box / "built").read_text() == "x"
        again = repository.push(folder, replace(how, if_changed=True))
        assert (again.version, again.unchanged) == ("v1", True)
        assert repository.promotions.history("hello") == ()
        (folder / "model.py").write_text("class Hello:\n    def run(self, job):\n        pass\n")
        assert repository.push(folder, replace(how, cache=box / "other")).version == "v2"
        assert (box / "built").read_text() == "x"
        assert len(list((box / "repository" / "environments").rglob("*.json"))) == 1
    venv = restore(box, repository)
    assert value_in(venv, "lib.VALUE", "lib") == "built once"


def test_an_unchanged_push_still_brings_the_wheels(box: Path) -> None:
    with served(make_index(box / "index", [make_wheel(box / "made", "tiny")])) as address:
        index = IndexSettings(default_index=address)
        repository = publish(box, index, "tiny")
        how = PushOptions(check="none", index=index, cache=box / "pusher", if_changed=True, vendor=True)
        assert repository.push(box / "hello", how).unchanged
        assert [entry.kind for entry in repository.promotions.history("hello")] == [Kind.VENDOR]
    assert restore(box, repository)


def test_an_extra_that_the_version_lacks_is_told(box: Path, index: IndexSettings) -> None:
    make_index(box / "index", [make_wheel(box / "made", "tiny")])
    repository = publish(box, index, "tiny")
    with pytest.raises(InvalidInput, match=r"has no extra 'rocm': its environment is for no extra"):
        repository.vendor("hello@v1", options(box, index, "rocm"))


def test_an_index_that_wants_a_password_gets_it_and_nobody_else_does(box: Path) -> None:
    wheel = make_wheel(box / "made", "tiny")
    make_index(box / "files", [wheel])
    seen: list[str | None] = []
    with served(make_index(box / "index", [wheel])) as address:
        repository = publish(box, IndexSettings(default_index=address), "tiny")
    with served(box / "files", seen=seen) as files, served(box / "index", password="ann:s e%cret") as address:
        page = box / "index" / "simple" / "tiny" / "index.html"
        page.write_text(page.read_text().replace("../../files/", files.removesuffix("simple") + "files/"))
        with pytest.raises(Forbidden, match="the package index refused http://127") as caught:
            repository.vendor("hello@v1", options(box, IndexSettings(default_index=address)))
        assert "s e%cret" not in str(caught.value)
        inside = address.replace("//", "//ann:s%20e%25cret@")
        named = IndexSettings(
            default_index=f"inner={address}",
            credentials=(("UV_INDEX_INNER_USERNAME", "ann"), ("UV_INDEX_INNER_PASSWORD", "s e%cret")),
        )
        assert repository.vendor("hello@v1", options(box, IndexSettings(default_index=inside))).bundles[0].added
        assert not repository.vendor("hello@v1", options(box, named)).bundles[0].added
    assert seen == [None]


def bundle_key(tree: dict[str, str], data: bytes) -> str:
    return layout.bundle(tree["environment"], tree["extra"], tree["python"], tree["platform"], canonical.sha256(data))
