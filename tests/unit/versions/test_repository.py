from __future__ import annotations

import itertools
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from modelrepo import PushOptions, Repository, layout
from modelrepo.errors import (
    Corrupt,
    InvalidCheckpoint,
    InvalidReference,
    ModelNotFound,
    RepositoryNotFound,
    StoreNotTrusted,
    VersionDeleted,
    VersionExists,
    VersionNotFound,
)
from modelrepo.publication.publish import Publication, publish

MakeFolder = Callable[..., Path]
MakeDraft = Callable[..., Publication]
_numbers = itertools.count()


@pytest.fixture
def repository() -> Iterator[Repository]:
    yield Repository.init(f"memory://repository-{next(_numbers)}", by="tester")


@pytest.fixture
def push(repository: Repository, make_folder: MakeFolder, make_draft: MakeDraft) -> Callable[..., str]:
    """Publish a folder without its environment; returns the version's id."""

    def make(name: str = "tiny", *, version: str | None = None, commit: str | None = None, **folder: object) -> str:
        made = make_draft(make_folder(name, **folder))
        made = replace(made, manifest=replace(made.manifest, git_commit=commit))
        return publish(repository.store, made, version=version).manifest.version

    return make


def test_a_url_without_a_repository_says_how_to_make_one() -> None:
    with pytest.raises(RepositoryNotFound, match="modelrepo init"):
        Repository.open("memory://nowhere-at-all")


def test_init_twice_is_one_repository() -> None:
    url = f"memory://repository-{next(_numbers)}"
    assert Repository.init(url).id == Repository.init(url).id == Repository.open(url).id


def test_every_kind_of_reference_finds_its_version(repository: Repository, push: Callable[..., str]) -> None:
    commits = ["0123456789" * 4, "0123456aaa" * 4, "fedcba9876" * 4]
    for commit in commits:
        push(commit=commit)
    push(commit=commits[2])
    repository.promotions.promote("tiny", "v1")
    repository.promotions.promote("tiny", "v2")
    for reference, version in {
        "tiny": "v2",
        "tiny@active": "v2",
        "tiny@previous": "v1",
        "tiny@v3": "v3",
        "tiny@git:01234567": "v1",
        "tiny@git:0123456a": "v2",
        "tiny@git:fedcba9": "v4",
        f"tiny@git:{commits[2]}": "v4",
    }.items():
        found = repository.resolve(reference)
        assert (found.model, found.version, str(found)) == ("tiny", version, f"tiny@{version}")
        assert found.digest == found.manifest.digest
        assert found.spec.name == "tiny"


@pytest.mark.parametrize(
    ("reference", "error", "says"),
    [
        ("tini", ModelNotFound, "did you mean 'tiny'"),
        ("tini@v1", ModelNotFound, "did you mean 'tiny'"),
        ("tini@previous", ModelNotFound, "did you mean 'tiny'"),
        ("tini@git:0123456", ModelNotFound, "did you mean 'tiny'"),
        ("tiny@v12", VersionNotFound, "did you mean 'v2'"),
        ("tiny@zzz", VersionNotFound, "there are v1, v2"),
        ("tiny", VersionNotFound, "promote one or name one"),
        ("tiny@active", VersionNotFound, "tiny@v2"),
        ("tiny@previous", VersionNotFound, "no previous version"),
        ("tiny@git:0123", InvalidReference, "7 to 64"),
        ("tiny@git:0123456", InvalidReference, "not unique"),
        ("tiny@git:99999999", VersionNotFound, "no version of commit"),
    ],
)
def test_a_reference_to_nothing_says_what_is_near(
    repository: Repository, push: Callable[..., str], reference: str, error: type[Exception], says: str
) -> None:
    push(commit="0123456789" * 4)
    push(commit="0123456aaa" * 4)
    with pytest.raises(error, match=says):
        repository.resolve(reference)


def test_an_active_version_whose_manifest_was_swapped_is_refused(
    repository: Repository, push: Callable[..., str]
) -> None:
    push()
    repository.promotions.promote("tiny", "v1")
    key = layout.manifest("tiny", "v1")
    repository.store.replace(key, repository.store.read(key).replace(b'"author":"tester"', b'"author":"mallory"'))
    fresh = Repository.open(repository.url)
    with pytest.raises(Corrupt, match="which was promoted"):
        fresh.resolve("tiny")


def test_a_repository_whose_store_is_not_trusted_refuses_a_push_at_once(
    repository: Repository, make_folder: MakeFolder
) -> None:
    repository.store.delete(layout.STORE)
    with pytest.raises(StoreNotTrusted, match="cannot push"):
        Repository.open(repository.url).push(make_folder())


def test_a_deleted_version_cannot_be_resolved_but_is_listed(repository: Repository, push: Callable[..., str]) -> None:
    push()
    push()
    repository.store.create(layout.tombstone("tiny", "v1"), b"{}")
    with pytest.raises(VersionDeleted, match="tiny@v1"):
        repository.resolve("tiny@v1")
    assert [(one.version, one.deleted) for one in repository.versions("tiny")] == [("v1", True), ("v2", False)]


def test_the_list_shows_what_is_active_previous_and_blocked(repository: Repository, push: Callable[..., str]) -> None:
    for _ in range(3):
        push()
    push("other")
    for version in ("v1", "v2", "v3"):
        repository.promotions.promote("tiny", version)
    repository.promotions.rollback("tiny")
    assert repository.models() == ["other", "tiny"]
    marks = {one.version: (one.active, one.previous, one.blocked) for one in repository.versions("tiny")}
    assert marks == {"v1": (False, True, False), "v2": (True, False, False), "v3": (False, False, True)}
    assert all(one.author == "tester" and one.size_bytes > 0 for one in repository.versions("tiny"))
    with pytest.raises(ModelNotFound):
        repository.versions("nobody")


def test_a_broken_hand_edit_does_not_hide_the_versions(repository: Repository, push: Callable[..., str]) -> None:
    push()
    repository.store.replace(layout.active_file("tiny"), b"version: [")
    assert [one.version for one in repository.versions("tiny")] == ["v1"]


def test_a_diff_names_what_changed(repository: Repository, push: Callable[..., str]) -> None:
    spec = "checkpoints: {w: w}\nconfig: {steps: 4, old: 1}\nsize: '1'\n"
    push(spec=spec, files={"a.py": "a", "gone.py": "x", "w/a.bin": "same", "w/b.bin": "one"})
    spec = "checkpoints: {w: w}\nconfig: {steps: 5}\nsize: '2'\n"
    push(at="other", spec=spec, files={"a.py": "aa", "new.py": "x", "w/a.bin": "same", "w/b.bin": "two2"})
    found = repository.diff("tiny@v1", "tiny@v2")
    code = {change.path: (change.kind, change.new_bytes) for change in found.code if change.path != "model.yaml"}
    assert code == {"a.py": ("changed", 2), "gone.py": ("removed", 0), "new.py": ("added", 0)}
    assert [(change.path, change.kind, change.new_bytes) for change in found.checkpoints] == [("w/b.bin", "changed", 4)]
    assert [(change.pointer, change.before, change.after) for change in found.spec] == [("/size", "1", "2")]
    assert {change.pointer for change in found.config} == {"/config/steps", "/config/old"}
    assert found.requirements == ()
    assert not found.empty
    assert repository.diff("tiny@v1", "tiny@v1").empty


def test_a_plan_lists_every_file_and_writes_nothing(
    repository: Repository, push: Callable[..., str], make_folder: MakeFolder
) -> None:
    push(spec="checkpoints: {w: w}\n", files={"w/a.bin": "weights"})
    folder = make_folder(spec="checkpoints: {w: w}\n", files={"w/a.bin": "weights", "more.py": "123"})
    before = [stat.key for stat in repository.store.list("")]
    plan = repository.plan_push(folder)
    assert (plan.model, plan.version, plan.new_bytes) == ("tiny", "v2", 3)
    assert {(file.checkpoint, file.path, file.new_bytes) for file in plan.files} == {
        (None, "model.py", 0),
        (None, "model.yaml", 0),
        (None, "more.py", 3),
        ("w", "a.bin", 0),
    }
    assert [stat.key for stat in repository.store.list("")] == before
    with pytest.raises(VersionExists):
        repository.plan_push(folder, PushOptions(version="v1"))


def test_a_checkpoint_of_another_version_is_reused_without_its_bytes(
    repository: Repository, push: Callable[..., str], make_folder: MakeFolder
) -> None:
    push(spec="checkpoints: {w: w}\n", files={"w/a.bin": "weights"})
    folder = make_folder("other", at="other", spec='checkpoints: {x: "modelrepo:tiny@v1/w"}\n')
    plan = repository.plan_push(folder)
    assert next(file for file in plan.files if file.checkpoint == "x").new_bytes == 0
    shutil.rmtree(folder)
    folder = make_folder("other", at="other", spec='checkpoints: {x: "modelrepo:tiny@v1/y"}\n')
    with pytest.raises(InvalidCheckpoint, match="it has w"):
        repository.plan_push(folder)


def test_the_commit_and_whether_the_tree_was_dirty_are_recorded(make_folder: MakeFolder, make_draft: MakeDraft) -> None:
    folder = make_folder()
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    clean = make_draft(folder).manifest
    assert clean.git_commit is not None
    assert (len(clean.git_commit), clean.git_dirty) == (40, False)
    (folder / "model.py").write_text("changed")
    dirty = make_draft(folder).manifest
    assert (dirty.git_commit, dirty.git_dirty) == (clean.git_commit, True)


def test_copies_for_people_are_as_they_were(repository: Repository, push: Callable[..., str]) -> None:
    push()
    text = repository.store.read(layout.copy_for_people("tiny", "v1", "model.yaml")).decode()
    assert text.startswith("contract: 1\nname: tiny\n")
    manifest = json.loads(repository.store.read(layout.manifest("tiny", "v1")))
    assert manifest["spec"]["name"] == "tiny"


def test_strangers_among_the_models_and_versions_are_passed_over(
    repository: Repository, push: Callable[..., str]
) -> None:
    push()
    store = repository.store
    for key in (
        "models/readme.txt",
        "models/team/other/active.yaml",
        "models/tiny/versions/v1 (copy)/manifest.json",
        "models/tiny/channels/beta/active.yaml",
    ):
        store.create(key, b"x")
    assert repository.models() == ["tiny"]
    assert [each.version for each in repository.versions("tiny")] == ["v1"]


@pytest.mark.parametrize(
    "text", [b"version: ../../x\n", b"version: v2\n", b"version: v1\ndigest: " + b"a" * 64 + b"\n"]
)
def test_an_edit_to_what_cannot_be_used_stands_in_nobodys_way(
    repository: Repository, push: Callable[..., str], text: bytes
) -> None:
    for _ in range(3):
        push()
    repository.promotions.promote("tiny", "v1")
    repository.store.replace("models/tiny/versions/v2/manifest.json", b"{")
    repository.store.replace("models/tiny/active.yaml", text)
    assert repository.promotions.active_bytes("tiny") == text
    assert repository.promotions.promote("tiny", "v3", force=True).version == "v3"
    assert repository.promotions.state("tiny").version == "v3"
