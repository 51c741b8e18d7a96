"""What lies in the store is damaged: every reader sees it, names what it is, and says what to do. Nothing torn is left.

Rows are (damage, reader) for objects, and (document, damage, what somebody does) for documents.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from modelrepo import Repository, VersionCache, layout
from modelrepo.errors import Corrupt, InvalidActiveFile, ModelRepoError, NewerFormat, StoreNotTrusted
from modelrepo.stores.memory import shared_bucket
from modelrepo.stores.port import ObjectStore
from modelrepo_cli.main import main
from tests.acceptance.tiny_model import OPTIONS, write_model
from tests.acceptance.wholeness import check_repository

TEMPLATE = "memory://damage-template"
MODEL_PY = "class M:\n    def load(self, ctx): pass\n    def run(self, job): return 'ran'\n"
_numbers = count()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder, of which TEMPLATE holds v1 and v2, each promoted in its turn."""
    folder = tmp_path_factory.mktemp("template") / "model"
    write_model(folder, weights={"other.bin": b"b" * 3000}, code=MODEL_PY, spec="stages: [{name: run, on: cpu}]\n")
    repository = Repository.init(TEMPLATE)
    for data in (b"one" * 1000, b"two" * 1000):
        (folder / "w" / "a.bin").write_bytes(data)
        repository.promotions.promote("tiny", repository.push(folder, OPTIONS).version)
    return folder


@pytest.fixture
def url(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A repository of one's own that holds what TEMPLATE holds, and a cache on this box that holds nothing."""
    monkeypatch.setenv("MODELREPO_CACHE", str(tmp_path / "cache"))
    name = f"damage-{next(_numbers)}"
    shared_bucket(name).held.update(shared_bucket("damage-template").held)
    Repository.init(f"memory://{name}", adopt=True)
    return f"memory://{name}"


# Objects.

Damage = Callable[[ObjectStore, str, str], None]


def flip(store: ObjectStore, key: str, other: str) -> None:
    data = store.read(key)
    store.replace(key, bytes([data[0] ^ 1]) + data[1:])


def cut(store: ObjectStore, key: str, other: str) -> None:
    store.replace(key, store.read(key)[:-1])


def empty(store: ObjectStore, key: str, other: str) -> None:
    store.replace(key, b"")


def grow(store: ObjectStore, key: str, other: str) -> None:
    store.replace(key, store.read(key) + b"\0")


def lose(store: ObjectStore, key: str, other: str) -> None:
    store.delete(key)


def swap(store: ObjectStore, key: str, other: str) -> None:
    """Of one size, so that no length betrays it."""
    mine, others = store.read(key), store.read(other)
    assert len(mine) == len(others)
    store.replace(key, others)
    store.replace(other, mine)


DAMAGES: list[tuple[Damage, str]] = [
    (flip, "other bytes"),
    (cut, "2999 bytes instead of 3000"),
    (empty, "0 bytes instead of 3000"),
    (grow, "3001 bytes instead of 3000"),
    (lose, "is missing"),
    (swap, "other bytes"),
]


def pull(url: str, tmp_path: Path) -> list[str]:
    return ["pull", "tiny@v1", str(tmp_path / "pulled"), "--repo", url]


def run(url: str, tmp_path: Path) -> list[str]:
    return ["run", "tiny@v1", "--repo", url, "--python", sys.executable, "--output", str(tmp_path / "outputs")]


@pytest.mark.parametrize(("damage", "found"), DAMAGES, ids=[damage.__name__ for damage, _ in DAMAGES])
def test_a_damaged_object_is_named_by_whoever_reads_it(
    url: str, tmp_path: Path, damage: Damage, found: str, capsys: pytest.CaptureFixture[str]
) -> None:
    repository = Repository.open(url)
    files = {file.path: file for file in repository.resolve("tiny@v1").manifest.checkpoints["w"].files}
    digest, other = files["a.bin"].sha256, files["other.bin"].sha256
    damage(repository.store, layout.object_(digest), layout.object_(other))
    damaged = {digest, other} if damage is swap else {digest}

    for command in (pull(url, tmp_path), run(url, tmp_path)):
        assert main(command) == 1
        check_named(capsys.readouterr().err, damaged, found, url)
    with pytest.raises(Corrupt) as caught:
        VersionCache(tmp_path / "cache", repository.store).fetch(repository.resolve("tiny@v1"))
    check_named(str(caught.value), damaged, found, url)
    assert caught.value.digest in damaged

    assert main(["verify", "tiny@v1", "--repo", url]) == 1
    told = capsys.readouterr().out
    for each in damaged:
        assert layout.object_(each) in told, told
    for file in ("a.bin", "other.bin") if damage is swap else ("a.bin",):
        assert re.search(rf"tiny@v1.*{re.escape(file)}", told), told

    assert not (tmp_path / "pulled").exists()
    assert VersionCache(tmp_path / "cache", repository.store).ready(repository.resolve("tiny@v1")) is None
    left = [path for path in (tmp_path / "cache" / "objects").rglob("*") if path.is_file()]
    assert not damaged.intersection(path.name for path in left), "damaged bytes are in the cache"


def check_named(message: str, digests: set[str], found: str, url: str) -> None:
    """The message names version, object, file and repository, what was found there, and what to do."""
    assert "tiny@v1" in message
    assert any(f"sha256:{digest}" in message for digest in digests), message
    assert re.search(r"\b(a|other)\.bin\b", message), message
    assert found in message, message
    assert url in message, message
    assert "push the version again" in message or "push again" in message, message


@pytest.mark.parametrize("damage", [cut, grow, empty], ids=lambda damage: str(damage.__name__))
def test_a_push_that_would_share_a_damaged_object_says_so(url: str, template: Path, damage: Damage) -> None:
    repository = Repository.open(url)
    key = layout.object_(repository.resolve("tiny@v2").manifest.checkpoints["w"].files[0].sha256)
    damage(repository.store, key, key)
    with pytest.raises(Corrupt, match=rf"bytes instead of 3000; delete {key} there and push again"):
        repository.push(template, OPTIONS)
    repository.store.delete(key)
    repository.push(template, OPTIONS)
    assert check_repository(Repository.open(url)).versions == ("v1", "v2", "v3")


def test_pushing_the_version_again_brings_back_what_is_missing(url: str, template: Path, tmp_path: Path) -> None:
    repository = Repository.open(url)
    for stat in list(repository.store.list(layout.OBJECTS)):
        repository.store.delete(stat.key)
    repository.push(template, OPTIONS)
    repository.pull("tiny@v2", tmp_path / "pulled")
    assert (tmp_path / "pulled" / "model.py").read_text() == MODEL_PY


def test_a_torn_manifest_is_shown_beside_the_others(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    store = Repository.open(url).store
    store.replace(layout.manifest("tiny", "v1"), b"{")
    assert main(["list", "tiny", "--repo", url]) == 1
    shown = capsys.readouterr().out
    assert re.search(r"v1\b.*corrupt", shown), shown
    assert "v2" in shown
    assert main(["verify", "--all", "--repo", url]) == 1
    assert layout.manifest("tiny", "v1") in capsys.readouterr().out


# Documents.


@dataclass(frozen=True, slots=True)
class Row:
    """A document, what becomes of it (None: it is gone), what somebody does, and the error that comes of it."""

    what: str
    key: str
    damage: Callable[[bytes], bytes | None]
    do: Callable[[str, Path], object]
    error: type[ModelRepoError]
    says: str

    def __str__(self) -> str:
        return self.what


def edited(**changes: object) -> Callable[[bytes], bytes]:
    return lambda data: json.dumps({**json.loads(data), **changes}).encode()


def text(data: bytes) -> Callable[[bytes], bytes]:
    return lambda _: data


def gone(_: bytes) -> None:
    return None


def halved(data: bytes) -> bytes:
    return data[: len(data) // 2]


def opened(url: str, _: Path) -> object:
    return Repository.open(url)


def resolved(url: str, _: Path) -> object:
    return Repository.open(url).resolve("tiny@v1")


def resolved_active(url: str, _: Path) -> object:
    return Repository.open(url).resolve("tiny")


def pushed(url: str, folder: Path) -> object:
    return Repository.open(url).push(folder, OPTIONS)


def promoted(url: str, _: Path) -> object:
    return Repository.open(url).promotions.promote("tiny", "v1")


def state_read(url: str, _: Path) -> object:
    return Repository.open(url).promotions.state("tiny")


def history_read(url: str, _: Path) -> object:
    return Repository.open(url).promotions.history("tiny")


MANIFEST, OTHER_MANIFEST = layout.manifest("tiny", "v1"), layout.manifest("tiny", "v2")
ENTRY, ACTIVE = layout.history_entry("tiny", 1), layout.active_file("tiny")
PRUNE = layout.prune("p1")

ROWS = [
    Row("repository.json is cut", layout.REPOSITORY, halved, opened, Corrupt, layout.REPOSITORY),
    Row("repository.json is no object", layout.REPOSITORY, text(b"[]"), opened, Corrupt, layout.REPOSITORY),
    Row("repository.json is newer", layout.REPOSITORY, edited(format=2), opened, NewerFormat, "format 2"),
    Row("store.json is cut", layout.STORE, halved, opened, Corrupt, layout.STORE),
    Row("store.json is newer", layout.STORE, edited(format=2), opened, NewerFormat, "format 2"),
    Row("store.json is gone", layout.STORE, gone, pushed, StoreNotTrusted, "init --adopt"),
    Row("a copied store.json", layout.STORE, edited(bucket="elsewhere"), promoted, StoreNotTrusted, "init --adopt"),
    Row("a manifest is cut", MANIFEST, halved, resolved, Corrupt, MANIFEST),
    Row("a manifest is empty", MANIFEST, text(b""), resolved, Corrupt, MANIFEST),
    Row("a manifest is newer", MANIFEST, edited(format=2), resolved, NewerFormat, "format 2"),
    Row("a manifest requires more", MANIFEST, edited(requires=["x-packs"]), resolved, NewerFormat, "x-packs"),
    Row("a manifest of another version", MANIFEST, edited(version="v7"), resolved, Corrupt, "tiny@v7"),
    Row("a promoted manifest is edited", OTHER_MANIFEST, edited(message="x"), resolved_active, Corrupt, "from a copy"),
    Row("active.yaml is cut", ACTIVE, text(b"version: [v1"), state_read, InvalidActiveFile, "tiny"),
    Row("active.yaml is no text", ACTIVE, text(b"\xff\xfe\x00"), state_read, InvalidActiveFile, "tiny"),
    Row("active.yaml is empty", ACTIVE, text(b""), promoted, InvalidActiveFile, "tiny"),
    Row("a history entry is cut", ENTRY, halved, history_read, Corrupt, ENTRY),
    Row("a history entry is no text", ENTRY, text(b"\xff\xfe"), promoted, Corrupt, ENTRY),
    Row("a history entry is gone", ENTRY, gone, history_read, Corrupt, ENTRY),
    Row("a history entry is another's", ENTRY, lambda data: data.replace(b"generation: 1", b"generation: 2"),
        history_read, Corrupt, ENTRY),
    Row("a history entry is of a newer kind", ENTRY, lambda data: data.replace(b"kind: promote", b"kind: blend"),
        history_read, NewerFormat, "blend"),
    Row("a prune's record is no JSON", PRUNE, text(b"{"), pushed, Corrupt, PRUNE),
    Row("a prune's record is newer", PRUNE, text(b'{"format": 2}'), pushed, NewerFormat, PRUNE),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_damaged_document_is_named_and_changes_nothing(url: str, template: Path, row: Row) -> None:
    store = Repository.open(url).store
    document = b"" if row.key == PRUNE else store.read(row.key)
    damaged = row.damage(document)
    assert damaged != document, "the damage changes nothing"
    if damaged is None:
        store.delete(row.key)
    else:
        store.replace(row.key, damaged)

    before = visible(store)
    with pytest.raises(row.error, match=re.escape(row.says)) as caught:
        row.do(url, template)
    assert re.search(TO_DO, str(caught.value)), f"nothing to do is said: {caught.value}"
    assert visible(store) == before

    if row.key == PRUNE:
        store.delete(row.key)
    else:
        store.replace(row.key, document)
    whole = check_repository(Repository.open(url))
    assert (sorted(whole.versions), whole.generations) == (["v1", "v2"], 2)


TO_DO = r"restore|push|remove|upgrade|init|edit|rollback|promote|copy|mend|correct"


def visible(store: ObjectStore) -> dict[str, bytes]:
    """Return everything but what a push may leave behind: objects that nobody names, and leases."""
    passing = (layout.OBJECTS, layout.PUSHES, layout.ENVIRONMENTS)
    return {stat.key: store.read(stat.key) for stat in store.list("") if not stat.key.startswith(passing)}
