"""A manifest may come from anybody: whatever names it holds, nothing is written or read outside of where it belongs."""

from __future__ import annotations

import json
import os
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelrepo import Repository, VersionCache, layout
from modelrepo.canonical import dumps, sha256
from modelrepo.errors import Corrupt, InvalidInput, ModelRepoError
from modelrepo.stores.faults import Verb, faulty
from modelrepo.stores.founding import Founded
from modelrepo.stores.memory import MemoryBucket, MemoryStore
from modelrepo.stores.opening import open_store
from modelrepo.stores.port import ObjectStore

CODE, WEIGHTS = b"class Model: pass\n", b"w" * 100

REFUSED = [
    "..", ".", "", "/", "../x", "a/../../x", "a/..", "a/./b", "a//b", "a/", "/etc/passwd", "//x", "\\x", "a\\..\\x",
    "C:\\x", "a\0b", "a\nb", "a\rb", "\x1b[2J", "\x7f", "n" * 256, "é" * 128, "d/" * 2000 + "x", ".git/config",
    "a/.GIT/hooks/x", "\ud800", "a/\udcff",
]  # fmt: skip
"""What leaves its folder, or is no name that a file could have."""

ODD = [
    "...", "..x", "x..", "a b", " a", "a ", "a.", "~", "~root/x", "$HOME", "`id`", "-rf", "*", "?", "a:b", "con",
    "NUL.txt", "aux/com1", "\u202egnp.exe", "a\u200bb", "\ufeffa", "\u2028", "\uff0e\uff0e/x", "\u2025/x", "a\u2215b",
    "a\u29f8b", "%2e%2e/x", "READY", "model.py.part", ".modelrepo/checkpoints/w/x", "\U0001f4a5", "n" * 255,
    "a/" * 200 + "x",
]  # fmt: skip
"""What only looks as if it did: each is a name as good as any."""

hostile = st.lists(
    st.sampled_from(
        ["..", ".", "", "a", "/", "\\", "\0", "\uff0e\uff0e", "\u202e", "é", "e\u0301", "~", " ", "con", "\ud800"]
    )
    | st.text(max_size=3),
    max_size=6,
).map("/".join) | st.text(max_size=12)


def put(store: ObjectStore, data: bytes) -> str:
    store.create(layout.object_(sha256(data)), data)
    return sha256(data)


def record(store: ObjectStore, path: str, data: bytes) -> dict[str, Any]:
    digest = put(store, data)
    chunks = [{"sha256": digest, "size_bytes": len(data)}]
    return {"path": path, "mode": "0644", "size_bytes": len(data), "sha256": digest, "chunks": chunks}


def publish_raw(store: ObjectStore, where: str, name: str) -> None:
    """Create a manifest without a look at it, with `name` at one place in it."""
    label, source = (name if where == "checkpoint" else "w"), (name if where == "source" else "weights")
    inner, code = (name if where == "file" else "w.bin"), [record(store, "model.py", CODE)]
    if where == "code":
        code.append(record(store, name, WEIGHTS))
    wheel = {"filename": name if where == "wheel" else "one-1-py3-none-any.whl", "sha256": put(store, WEIGHTS)}
    environment = {
        "python": "3.11", "requires_python": "", "digest": "e" * 64, "pyproject_sha256": "f" * 64, "extras": [],
        "requirements": {}, "carried": [{**wheel, "size_bytes": len(WEIGHTS)}], "members": [],
    }  # fmt: skip
    checkpoint = {"files": [record(store, inner, WEIGHTS)], "single": where == "file", "source": {"source": source}}
    tree = {
        "format": 1, "model": "tiny", "version": "v1", "created_at": "2026-01-01T00:00:00Z",
        "spec": {"contract": 1, "name": "tiny", "entrypoint": "model:Model", "checkpoints": {label: source}},
        "environment": environment, "code": code, "checkpoints": {label: checkpoint},
    }  # fmt: skip
    store.create(layout.manifest("tiny", "v1"), json.dumps(tree).encode())


PLACES = ["code", "file", "checkpoint", "source", "wheel"]


def opened(store: ObjectStore) -> Repository:
    return Repository(Founded("r", store))


def pulled(repository: Repository, cage: Path) -> None:
    repository.pull("tiny@v1", cage / "pulled")


def fetched(repository: Repository, cage: Path) -> None:
    VersionCache(cage / "cache", repository.store).fetch(repository.resolve("tiny@v1"))


def copied(repository: Repository, cage: Path) -> None:
    """Into a folder on this disk, whose keys are paths."""
    report = repository.copy_to(opened(open_store(str(cage / "copy"))), "tiny")
    for error in report.errors():
        raise error


ACTS = [pulled, fetched, copied]


def tree(folder: Path) -> set[str]:
    """Return what is there, links not followed."""
    return {os.path.join(at, name) for at, folders, files in os.walk(folder) for name in (*folders, *files)}  # noqa: PTH118


def check_cage(act: Callable[[Repository, Path], None], store: ObjectStore, box: Path) -> ModelRepoError | None:
    """Let somebody use the version below `box`/cage; nothing may come to be beside it."""
    cage = box / "cage"
    cage.mkdir(parents=True)
    (box / "cagex").mkdir()
    before = tree(box)
    problem: ModelRepoError | None = None
    try:
        act(opened(store), cage)
    except ModelRepoError as error:
        problem = error
    assert {path for path in tree(box) - before if not path.startswith(f"{cage}{os.sep}")} == set()
    return problem


@pytest.mark.parametrize("name", REFUSED, ids=ascii)
def test_a_name_that_leaves_its_folder_is_refused_by_all_who_write(tmp_path: Path, name: str) -> None:
    for where in ("code", "file", "checkpoint"):
        store = MemoryStore("hostile", MemoryBucket())
        publish_raw(store, where, name)
        for act in ACTS:
            box = tmp_path / where / act.__name__
            problem = check_cage(act, store, box)
            assert isinstance(problem, Corrupt)
            assert "tiny" in str(problem)
            assert not (box / "cage" / "pulled").exists()


@pytest.mark.parametrize("name", ODD, ids=ascii)
def test_a_name_that_only_looks_odd_is_one_like_any_other(tmp_path: Path, name: str) -> None:
    store = MemoryStore("hostile", MemoryBucket())
    publish_raw(store, "code", name)
    for number, act in enumerate(ACTS):
        assert check_cage(act, store, tmp_path / f"box{number}") is None
    assert (tmp_path / "box0" / "cage" / "pulled" / name).read_bytes() == WEIGHTS
    (local,) = (tmp_path / "box1" / "cage" / "cache" / "versions").iterdir()
    assert (local / "code" / name).read_bytes() == WEIGHTS


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
@given(name=hostile, where=st.sampled_from(PLACES), act=st.sampled_from(ACTS))
def test_no_name_at_any_place_leads_out(
    tmp_path_factory: pytest.TempPathFactory, name: str, where: str, act: Callable[[Repository, Path], None]
) -> None:
    store = MemoryStore("hostile", MemoryBucket())
    publish_raw(store, where, name)
    check_cage(act, store, tmp_path_factory.mktemp("property") / "box")


@pytest.mark.parametrize("source", ["/abs", "../up", "a/../../up", "~/x", "\\x", ".git/x", "."])
def test_a_source_that_leads_out_puts_its_checkpoint_where_others_go(tmp_path: Path, source: str) -> None:
    store = MemoryStore("hostile", MemoryBucket())
    publish_raw(store, "source", source)
    problem = check_cage(pulled, store, tmp_path / "box")
    if problem is None:
        found = [path.relative_to(tmp_path / "box" / "cage" / "pulled") for path in (tmp_path / "box").rglob("w.bin")]
        assert [path.parts[0] for path in found] in ([".modelrepo"], ["~"])


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é")),
        ("Readme", "README"),
        ("ß", "ss"),
        ("a", "a\u200b"),
        ("ﬁ", "fi"),
    ],
    ids=["NFC and NFD", "case", "sharp s", "zero width", "ligature"],
)
def test_names_that_look_alike_never_overwrite_each_other(tmp_path: Path, one: str, two: str) -> None:
    """Where a disk takes them for one, the second is an error; where it does not, both are there."""
    store = MemoryStore("hostile", MemoryBucket())
    publish_raw(store, "code", one)
    document = json.loads(store.read(layout.manifest("tiny", "v1")))
    document["code"].append(record(store, two, b"other bytes"))
    store.replace(layout.manifest("tiny", "v1"), dumps(document))
    try:
        pulled(opened(store), tmp_path)
    except (ModelRepoError, OSError):
        assert not (tmp_path / "pulled").exists()
        return
    assert (tmp_path / "pulled" / one).read_bytes() == WEIGHTS
    assert (tmp_path / "pulled" / two).read_bytes() == b"other bytes"


# Links that somebody plants while we work.


def planting(store: ObjectStore, plant: Callable[[], None]) -> ObjectStore:
    """Plant before the first object is read: the target was looked at, and nothing has been written."""
    planted: list[str] = []

    def before(verb: Verb, key: str) -> None:
        if key.startswith(layout.OBJECTS) and not planted:
            planted.append(key)
            plant()

    return faulty(store, before=before)


@pytest.mark.parametrize("is_full", [False, True])
def test_a_link_that_takes_the_targets_place_is_not_followed(tmp_path: Path, is_full: bool) -> None:
    store = MemoryStore("hostile", MemoryBucket())
    publish_raw(store, "code", "x")
    elsewhere, target = tmp_path / "elsewhere", tmp_path / "cage" / "pulled"
    elsewhere.mkdir()
    target.parent.mkdir()
    if is_full:
        (elsewhere / "mine").write_text("mine")
    with pytest.raises(InvalidInput, match="something else has taken its place"):
        pulled(opened(planting(store, lambda: target.symlink_to(elsewhere))), target.parent)
    assert [path.name for path in elsewhere.iterdir()] == (["mine"] if is_full else [])
    assert [path.name for path in target.parent.iterdir()] == ["pulled"]
    assert target.is_symlink()


def test_a_target_that_is_a_link_already_is_said_to_be_one(tmp_path: Path) -> None:
    store = MemoryStore("hostile", MemoryBucket())
    publish_raw(store, "code", "x")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "pulled").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidInput, match="link"):
        pulled(opened(store), tmp_path)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_folder_of_arriving_files_that_is_a_link_is_neither_used_nor_emptied(tmp_path: Path) -> None:
    store = MemoryStore("hostile", MemoryBucket())
    publish_raw(store, "code", "x")
    (tmp_path / "elsewhere" / "mine").mkdir(parents=True)
    (tmp_path / ".pulled.incoming").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidInput, match=r"\.pulled\.incoming is a link or somebody else's; remove it"):
        pulled(opened(store), tmp_path)
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["mine"]


def test_what_an_earlier_try_has_left_comes_along_only_where_it_is_wanted(tmp_path: Path) -> None:
    store = MemoryStore("hostile", MemoryBucket())
    publish_raw(store, "code", "sub/x")
    victim = tmp_path / "victim"
    victim.mkdir()
    version = opened(store).resolve("tiny@v1")
    files = tmp_path / ".pulled.incoming" / version.digest / "files"
    (files / "weights").mkdir(parents=True)
    (files / "weights" / "w.bin").write_bytes(b"half")
    (files / "sitecustomize.py").write_text("raise SystemExit")
    (files / "sub").symlink_to(victim)
    opened(store).pull("tiny@v1", tmp_path / "pulled", checkpoints=[])
    assert {str(path.relative_to(tmp_path / "pulled")) for path in (tmp_path / "pulled").rglob("*")} == {
        "model.py", "sub", "sub/x",
    }  # fmt: skip
    assert not (tmp_path / "pulled" / "sub").is_symlink()
    assert list(victim.iterdir()) == []


def test_links_below_what_is_being_fetched_are_not_followed(tmp_path: Path) -> None:
    """Each name that a fetch is about to write is a link outwards by then."""
    store = MemoryStore("hostile", MemoryBucket())
    publish_raw(store, "code", "x")
    victim = tmp_path / "victim"
    victim.write_text("mine")
    cache = tmp_path / "cage" / "cache"

    def plant() -> None:
        for folder in [path for path in (cache / "incoming").rglob("*") if path.is_dir()]:
            for name in ("x", "model.py", sha256(WEIGHTS), sha256(CODE)):
                if not (folder / name).exists():
                    (folder / name).symlink_to(victim)

    with pytest.raises(OSError, match="links"):
        fetched(opened(planting(store, plant)), tmp_path / "cage")
    assert victim.read_text() == "mine"
    shutil.rmtree(cache / "incoming")
    version = opened(store).resolve("tiny@v1")
    local = VersionCache(cache, store).fetch(version)
    assert (local.code / "x").read_bytes() == WEIGHTS
    assert not (local.code / "x").is_symlink()
    assert not local.checkpoints["w"].joinpath("w.bin").is_symlink()
