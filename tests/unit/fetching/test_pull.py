from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from modelrepo import layout
from modelrepo.errors import Corrupt, InvalidInput
from modelrepo.fetching.pull import pull_version
from modelrepo.publication.publish import Publication, Published, publish
from modelrepo.stores.memory import MemoryStore
from modelrepo.versions.manifest import CheckpointRecord
from modelrepo.versions.version import Version

MakeFolder = Callable[..., Path]
MakeDraft = Callable[..., Publication]
VersionOf = Callable[[Published], Version]


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def version(store: MemoryStore, make_folder: MakeFolder, make_draft: MakeDraft, version_of: VersionOf) -> Version:
    folder = make_folder(
        spec="checkpoints: {w: ./weights/w/, one: one.bin}\n",
        files={"weights/w/sub/a.bin": "aaa", "one.bin": "b", "pkg/x.py": "x"},
    )
    return version_of(publish(store, make_draft(folder)))


def test_what_was_pushed_comes_back_and_can_be_pushed_again(
    store: MemoryStore, version: Version, make_draft: MakeDraft, tmp_path: Path
) -> None:
    target = pull_version(store, version, tmp_path / "deep" / "copy")
    assert tree(target) == tree(tmp_path / "model")
    (target / "pkg/x.py").write_text("edited")
    again = publish(store, make_draft(target))
    assert again.new_bytes == len("edited")
    assert [path.name for path in target.parent.iterdir()] == ["copy"]


def test_only_the_wanted_checkpoints_are_pulled(store: MemoryStore, version: Version, tmp_path: Path) -> None:
    target = pull_version(store, version, tmp_path / "copy", checkpoints=["one"])
    assert "one.bin" in tree(target)
    assert "weights/w/sub/a.bin" not in tree(target)


def test_a_folder_that_holds_something_is_left_alone(store: MemoryStore, version: Version, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    pull_version(store, version, tmp_path / "copy", checkpoints=[])
    before = tree(tmp_path / "copy")
    with pytest.raises(InvalidInput, match="not an empty folder"):
        pull_version(store, version, tmp_path / "copy")
    with pytest.raises(InvalidInput, match="not an empty folder"):
        pull_version(store, version, tmp_path / "copy" / "model.py")
    assert tree(tmp_path / "copy") == before


def test_a_pull_that_fails_leaves_nothing(store: MemoryStore, version: Version, tmp_path: Path) -> None:
    store.delete(layout.object_(version.manifest.code[0].sha256))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(Corrupt, match="missing"):
        pull_version(store, version, tmp_path / "copy")
    assert sorted(tmp_path.iterdir()) == before


def test_a_checkpoint_from_another_version_goes_where_a_push_does_not_see_it(
    store: MemoryStore,
    version: Version,
    make_folder: MakeFolder,
    make_draft: MakeDraft,
    version_of: VersionOf,
    tmp_path: Path,
) -> None:
    folder = make_folder("other", at="other", spec='checkpoints: {vae: "modelrepo:tiny@v1/one"}\n')
    other = version_of(publish(store, make_draft(folder, lookup=lambda reference: version.manifest)))
    target = pull_version(store, other, tmp_path / "copy")
    assert (target / ".modelrepo/checkpoints/vae/one.bin").read_bytes() == b"b"
    again = make_draft(target, lookup=lambda reference: version.manifest)
    assert again.manifest.content_digest() == other.manifest.content_digest()


def test_files_that_would_overwrite_each_other_are_refused(
    store: MemoryStore, version: Version, tmp_path: Path
) -> None:
    evil = replace(version.manifest.checkpoints["one"].files[0], path="one.bin")
    code = (*version.manifest.code, replace(version.manifest.code[0], path="one.bin"))
    checkpoints = {**version.manifest.checkpoints, "one": CheckpointRecord((evil,), single=True)}
    manifest = replace(version.manifest, code=code, checkpoints=checkpoints)
    with pytest.raises(Corrupt, match=r"one\.bin"):
        pull_version(store, replace(version, manifest=manifest), tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
