"""Checkpoints that an earlier version has are taken from it, where that is asked for or known to be the same."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import pytest

from modelrepo import layout
from modelrepo.contract import load_spec
from modelrepo.environments.record import EnvironmentRecord
from modelrepo.errors import InvalidCheckpoint
from modelrepo.publication.publish import Publication, publish
from modelrepo.pushing.account import account
from modelrepo.pushing.drafting import draft, look, pack
from modelrepo.stores.faults import faulty
from modelrepo.stores.memory import MemoryStore
from modelrepo.testing.tensor_files import tensor_bytes
from modelrepo.versions.manifest import Manifest

MakeFolder = Callable[..., Path]
MakeDraft = Callable[..., Publication]
SPEC = 'checkpoints: {w: {source: weights, include: ["*.bin"]}}\n'
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def published(store: MemoryStore, make_folder: MakeFolder, make_draft: MakeDraft) -> Manifest:
    folder = make_folder(spec=SPEC, files={"weights/a.bin": b"a" * 900, "weights/b.bin": b"b" * 800})
    return publish(store, make_draft(folder)).manifest


def nowhere(reference: str) -> Manifest:
    raise AssertionError(f"nobody should look for {reference}")


def test_checkpoints_are_reused_where_none_is_on_this_box(
    store: MemoryStore, make_folder: MakeFolder, environment: EnvironmentRecord, published: Manifest
) -> None:
    folder = make_folder(at="ci", spec=SPEC, files={"model.py": "class Model: ...\n"})
    packed = pack(look(folder, load_spec(folder), nowhere, reuse=published))
    assert packed.checkpoints == published.checkpoints
    seen = faulty(store)
    done = publish(seen, draft(folder, packed, environment, at="now"))
    assert done.new_bytes == len("class Model: ...\n")
    sent = [key for verb, key in seen.operations if verb == "create" and key.startswith(layout.OBJECTS)]
    assert len(sent) == 1
    by_file = account(done.manifest.code, done.manifest.checkpoints, done.sent)
    told = {(each.checkpoint, each.path): (each.new_bytes, each.reused_bytes) for each in by_file}
    assert told == {
        (None, "model.py"): (17, 0),
        (None, "model.yaml"): (0, (folder / "model.yaml").stat().st_size),
        ("w", "a.bin"): (0, 900),
        ("w", "b.bin"): (0, 800),
    }


def test_files_on_this_box_are_not_looked_at_when_checkpoints_are_reused(
    make_folder: MakeFolder, published: Manifest
) -> None:
    folder = make_folder(at="ci", spec=SPEC, files={"weights/a.bin": b"other", "weights/c.bin": b""})
    assert look(folder, load_spec(folder), nowhere, reuse=published).checkpoints == published.checkpoints


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("checkpoints: {x: weights}\n", "'x' cannot be reused: tiny@v1 has w; push without"),
        ("checkpoints: {w: other}\n", "its source is 'other' here and 'weights' in tiny@v1"),
        ("checkpoints: {w: weights}\n", r"its include is \[\] here and \['\*.bin'\] in tiny@v1"),
        (
            'checkpoints: {w: {source: weights, include: ["*.bin"], exclude: ["b*"]}}\n',
            r"its exclude is \['b\*'\] here and \[\] in tiny@v1",
        ),
    ],
)
def test_what_cannot_be_reused_is_said(make_folder: MakeFolder, published: Manifest, spec: str, message: str) -> None:
    folder = make_folder(at="ci", spec=spec)
    with pytest.raises(InvalidCheckpoint, match=message):
        look(folder, load_spec(folder), nowhere, reuse=published)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stand in for huggingface_hub; returns the repositories that were asked for."""
    asked: list[str] = []
    snapshot = tmp_path / "hub" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").write_bytes(tensor_bytes({"t": b"weights"}))

    def download(repository: str, **options: object) -> str:
        asked.append(repository)
        return str(snapshot)

    module = ModuleType("huggingface_hub")
    module.snapshot_download = download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return asked


def hub_spec(**checkpoint: object) -> str:
    source: Mapping[str, object] = {"source": f'"hf://org/t5@{COMMIT}"', **checkpoint}
    return "checkpoints: {w: {" + ", ".join(f"{key}: {value}" for key, value in source.items()) + "}}\n"


@pytest.mark.parametrize(
    ("spec", "asks"),
    [
        (hub_spec(), False),
        (hub_spec(include='["*.safetensors"]'), True),
        (hub_spec(source='"hf://org/t5@main"'), True),
        (hub_spec(source=f'"hf://org/other@{COMMIT}"'), True),
    ],
)
def test_a_commit_of_the_hub_that_is_known_is_not_asked_for_again(
    store: MemoryStore, make_folder: MakeFolder, make_draft: MakeDraft, hub: list[str], spec: str, asks: bool
) -> None:
    first = publish(store, make_draft(make_folder(spec=hub_spec()))).manifest
    assert hub == ["org/t5"]
    hub.clear()
    folder = make_folder(at="again", spec=spec)
    found = look(folder, load_spec(folder), nowhere, earlier=lambda: [first]).checkpoints["w"]
    assert bool(hub) == asks
    assert (found == first.checkpoints["w"]) == (not asks)


def test_earlier_versions_are_only_asked_for_where_a_source_is_remote(make_folder: MakeFolder) -> None:
    folder = make_folder(spec=SPEC, files={"weights/a.bin": b"a"})

    def nobody() -> list[Manifest]:
        raise AssertionError("nobody should look for earlier versions")

    look(folder, load_spec(folder), nowhere, earlier=nobody)
