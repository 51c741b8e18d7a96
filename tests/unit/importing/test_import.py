from __future__ import annotations

import ast
import json
import struct
import sys
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from modelrepo.contract import load_spec
from modelrepo.errors import (
    Conflict,
    Forbidden,
    InvalidCheckpoint,
    InvalidInput,
    InvalidName,
    MissingExtra,
    NotFound,
    Unreachable,
)
from modelrepo.importing.model_import import Imported, import_model
from modelrepo.pushing.checkpoints import SourceCheckpoint, find_checkpoints

COMMIT = "3db67ab1af984cf10548a73467f0e5bca2aaaeb2"
HEADER = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
TENSORS = struct.pack("<Q", len(HEADER)) + HEADER + bytes(8)
PIPELINE = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2D"], "text": ["transformers", "CLIP"]}

MakeSource = Callable[[Mapping[str, Any]], Path]

LLAMA = {
    "config.json": {"model_type": "llama", "architectures": ["LlamaForCausalLM"]},
    "tokenizer.json": {},
    "model.safetensors": TENSORS,
    "README.md": b"# The model's card\n",
    "LICENSE": b"do good\n",
}


@pytest.fixture
def make_source(tmp_path: Path) -> MakeSource:
    def make(files: Mapping[str, Any]) -> Path:
        folder = tmp_path / "source"
        for path, data in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
        return folder

    return make


def checkpoint_files(imported: Imported) -> set[str]:
    """Return what a push would pack as the checkpoint."""

    def nowhere(reference: str) -> Any:
        raise AssertionError(reference)

    found = find_checkpoints(imported.folder, load_spec(imported.folder), nowhere)["weights"]
    assert isinstance(found, SourceCheckpoint)
    return {file.path for file in found.files}


def dependencies(folder: Path) -> set[str]:
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    return {each.partition(">=")[0] for each in project["dependencies"]}


@pytest.mark.parametrize(
    ("files", "kind", "packages"),
    [
        (LLAMA, "generate", {"accelerate", "safetensors", "torch", "transformers"}),
        (
            {**LLAMA, "config.json": {"architectures": ["BertForSequenceClassification"]}},
            "classify",
            {"accelerate", "safetensors", "torch", "transformers"},
        ),
        (
            {**LLAMA, "config.json": {"architectures": ["BertModel"]}},
            "embed",
            {"accelerate", "safetensors", "torch", "transformers"},
        ),
        (
            {**LLAMA, "config.json": {"architectures": ["WhisperForConditionalGeneration"]}},
            "transformers",
            {"accelerate", "safetensors", "torch", "transformers"},
        ),
        (
            {"model_index.json": PIPELINE, "unet/w.safetensors": TENSORS},
            "image",
            {"accelerate", "diffusers", "pillow", "safetensors", "torch", "transformers"},
        ),
        (
            {"model_index.json": {"_class_name": "WanPipeline"}, "transformer/w.safetensors": TENSORS},
            "video",
            {"accelerate", "diffusers", "imageio", "imageio-ffmpeg", "numpy", "pillow", "safetensors", "torch"},
        ),
        (
            {"model_index.json": {"_class_name": "StableAudioPipeline"}, "transformer/w.safetensors": TENSORS},
            "diffusers",
            {"accelerate", "diffusers", "pillow", "safetensors", "torch"},
        ),
        ({"deep/w.safetensors": TENSORS}, "tensors", {"numpy", "torch"}),
        ({"config.json": {"hidden": 1}, "w.safetensors": TENSORS}, "tensors", {"numpy", "torch"}),
    ],
)
def test_what_is_recognised_becomes_a_folder_that_can_be_pushed(
    make_source: MakeSource, tmp_path: Path, files: Mapping[str, Any], kind: str, packages: set[str]
) -> None:
    source = make_source(files)
    before = sorted(source.rglob("*"))
    imported = import_model(str(source), tmp_path / "mine")
    assert (imported.kind, imported.model, imported.commit) == (kind, "mine", None)
    assert {path.name for path in imported.folder.iterdir()} >= set(imported.files)
    spec = load_spec(imported.folder)
    assert (spec.name, str(spec.entrypoint)) == ("mine", "model:Model")
    assert dependencies(imported.folder) == packages
    code = ast.parse((imported.folder / "model.py").read_text(), feature_version=(3, 9))
    (model,) = (each for each in code.body if isinstance(each, ast.ClassDef))
    assert {each.name for each in model.body if isinstance(each, ast.FunctionDef)} >= {"load", "run"}
    assert checkpoint_files(imported) == {path for path in files if path not in ("README.md", "LICENSE")}
    assert bool(imported.notes) == (kind in ("transformers", "diffusers"))
    assert sorted(source.rglob("*")) == before


def test_the_card_and_the_licence_travel_with_the_code(make_source: MakeSource, tmp_path: Path) -> None:
    imported = import_model(str(make_source(LLAMA)), tmp_path / "mine")
    assert (imported.folder / "README.md").read_bytes() == LLAMA["README.md"]
    assert (imported.folder / "LICENSE").read_bytes() == LLAMA["LICENSE"]


def test_weights_that_are_there_twice_are_taken_once(make_source: MakeSource, tmp_path: Path) -> None:
    source = make_source(
        {
            "model_index.json": PIPELINE,
            "unet/w.safetensors": TENSORS,
            "unet/w.bin": b"pickle",
            "unet/w.fp16.safetensors": TENSORS,
            "vae/only.fp16.bin": b"pickle",
            "all_in_one.safetensors": TENSORS,
            "all_in_one.ckpt": b"pickle",
            "unet/config.json": {},
            ".cache/huggingface/x": b"",
            ".gitattributes": b"",
        }
    )
    linked = import_model(str(source), tmp_path / "linked")
    copied = import_model(str(source), tmp_path / "copied", copy=True)
    kept = {"model_index.json", "unet/config.json", "unet/w.safetensors"}
    weights = copied.folder / "checkpoints" / "weights"
    assert {path.relative_to(weights).as_posix() for path in weights.rglob("*") if path.is_file()} == kept
    assert checkpoint_files(copied) == kept
    assert {path for path in checkpoint_files(linked) if not path.startswith(".")} == kept


def test_a_local_source_is_linked_to_or_copied(make_source: MakeSource, tmp_path: Path) -> None:
    source = make_source(LLAMA)
    linked = import_model(str(source), tmp_path / "linked").folder / "checkpoints" / "weights"
    copied = import_model(str(source), tmp_path / "copied", copy=True).folder / "checkpoints" / "weights"
    assert linked.is_symlink() and linked.resolve() == source
    (source / "model.safetensors").write_bytes(b"changed")
    assert (linked / "model.safetensors").read_bytes() == b"changed"
    assert (copied / "model.safetensors").read_bytes() == TENSORS


@pytest.mark.parametrize("copy", [False, True])
def test_a_single_file_is_a_checkpoint_of_one_file(make_source: MakeSource, tmp_path: Path, copy: bool) -> None:
    source = make_source({"net.safetensors": TENSORS}) / "net.safetensors"
    imported = import_model(str(source), tmp_path / "mine", name="net", copy=copy)
    assert (imported.model, imported.kind) == ("net", "tensors")
    assert checkpoint_files(imported) == {"weights.safetensors"}


def test_pickles_and_foreign_code_are_said(make_source: MakeSource, tmp_path: Path) -> None:
    config = {"architectures": ["OwnForCausalLM"], "auto_map": {"AutoModel": "own.Own"}}
    source = make_source({"config.json": config, "tokenizer.json": {}, "pytorch_model.bin": b"pickle", "own.py": b""})
    imported = import_model(str(source), tmp_path / "mine")
    assert imported.kind == "generate"
    assert "auto_map" in imported.notes[0]
    assert "pickles" in imported.notes[1]


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"model.gguf": b"x"}, "but model.gguf; write the model by hand"),
        ({"notes": b"x"}, "neither model_index.json"),
        ({"model_index.json": b"{"}, "model_index.json is not JSON"),
        ({"config.json": [1], "model.safetensors": TENSORS}, "no JSON object"),
        ({"model_index.json": {"_class_name": 'X"""\nimport os'}}, "names the class"),
        ({"config.json": {"architectures": ["a\nb"]}, "model.safetensors": TENSORS}, "names the class"),
    ],
)
def test_what_is_no_model_is_refused(
    make_source: MakeSource, tmp_path: Path, files: Mapping[str, Any], says: str
) -> None:
    with pytest.raises(InvalidInput, match="cannot import") as caught:
        import_model(str(make_source(files)), tmp_path / "mine")
    assert says in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_pointer_in_the_place_of_weights_is_found_and_nothing_is_left(
    make_source: MakeSource, tmp_path: Path
) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    source = make_source({**LLAMA, "model.safetensors": pointer})
    with pytest.raises(InvalidCheckpoint, match="Git-LFS"):
        import_model(str(source), tmp_path / "mine")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_nothing_is_overwritten(make_source: MakeSource, tmp_path: Path) -> None:
    source = make_source(LLAMA)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "model.py").write_text("mine\n")
    with pytest.raises(Conflict, match="exists already"):
        import_model(str(source), tmp_path / "mine")
    assert (tmp_path / "mine" / "model.py").read_text() == "mine\n"
    with pytest.raises(InvalidInput, match="lies inside"):
        import_model(str(source), source / "mine")
    with pytest.raises(InvalidName):
        import_model(str(source), tmp_path / "No Name")


def test_a_path_in_a_comment_stays_on_its_line(make_source: MakeSource, tmp_path: Path) -> None:
    source = make_source(LLAMA).rename(tmp_path / "a\nname: evil")
    imported = import_model(str(source), tmp_path / "mine", copy=True)
    assert load_spec(imported.folder).name == "mine"


class FakeHub(ModuleType):
    """What import asks of `huggingface_hub`."""

    def __init__(self, folder: Path, commit: str = COMMIT) -> None:
        super().__init__("huggingface_hub")
        self.folder, self.commit = folder, commit
        self.asked: list[tuple[str, str | None]] = []
        self.error: Exception | None = None

    def HfApi(self) -> FakeHub:  # noqa: N802 - as it is there
        return self

    def model_info(self, name: str, revision: str | None = None) -> Any:
        self.asked.append((name, revision))
        if self.error is not None:
            raise self.error
        files = sorted(path for path in self.folder.rglob("*") if path.is_file())
        siblings = [SimpleNamespace(rfilename=path.relative_to(self.folder).as_posix()) for path in files]
        return SimpleNamespace(sha=self.commit, siblings=siblings)

    def hf_hub_download(self, name: str, path: str, revision: str) -> str:
        assert revision == self.commit
        return str(self.folder / path)

    def snapshot_download(self, name: str, revision: str, local_dir: str, allow_patterns: list[str]) -> str:
        assert revision == self.commit
        for path in allow_patterns:
            target = Path(local_dir) / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((self.folder / path).read_bytes())
        (Path(local_dir) / ".cache").mkdir()
        return local_dir


@pytest.fixture
def hub(make_source: MakeSource, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake = FakeHub(make_source({**LLAMA, "pytorch_model.bin": b"pickle"}))
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    return fake


@pytest.mark.parametrize(("url", "revision"), [("hf://org/llama", None), ("hf://org/llama@main", "main")])
def test_a_revision_of_the_hub_is_written_down_as_its_commit(
    hub: FakeHub, tmp_path: Path, url: str, revision: str | None
) -> None:
    imported = import_model(url, tmp_path / "mine")
    assert hub.asked == [("org/llama", revision)]
    assert (imported.commit, imported.source) == (COMMIT, f"hf://org/llama@{COMMIT}")
    source = load_spec(imported.folder).checkpoints["weights"]
    assert source.source == f"hf://org/llama@{COMMIT}"
    assert source.exclude == ("*.bin", "README.md", "LICENSE")
    assert (imported.folder / "README.md").read_bytes() == LLAMA["README.md"]
    assert not (imported.folder / "checkpoints").exists()


def test_weights_of_the_hub_are_fetched_at_once_where_it_is_asked_for(hub: FakeHub, tmp_path: Path) -> None:
    imported = import_model("hf://org/llama", tmp_path / "mine", download=True)
    assert checkpoint_files(imported) == {"config.json", "model.safetensors", "tokenizer.json"}
    assert COMMIT in (imported.folder / "model.yaml").read_text()


@pytest.mark.parametrize("path", ["../x.json", "/etc/x.json", "a/../../x.json", "a\\x.json", "a\0.json", ".git/config"])
def test_a_name_on_the_hub_that_leads_out_is_refused(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    listed = SimpleNamespace(sha=COMMIT, siblings=[SimpleNamespace(rfilename=name) for name in ("config.json", path)])
    monkeypatch.setattr(hub, "model_info", lambda name, revision=None: listed)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InvalidInput, match="cannot import hf://org/llama: it lists the path"):
        import_model("hf://org/llama", tmp_path / "mine", download=True)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (("RepositoryNotFoundError", "HfHubHTTPError"), NotFound),
        (("RevisionNotFoundError",), NotFound),
        (("GatedRepoError", "RepositoryNotFoundError"), Forbidden),
        (("ConnectTimeout",), Unreachable),
    ],
)
def test_what_the_hub_answers_is_told_apart(
    hub: FakeHub, tmp_path: Path, names: tuple[str, ...], kind: type[Exception]
) -> None:
    error: type[Exception] = Exception
    for name in reversed(names):
        error = type(name, (error,), {})
    hub.error = error("so it\nsays")
    with pytest.raises(kind, match=r"hf://org/llama.*so it says"):
        import_model("hf://org/llama", tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize("url", ["hf://llama", "hf://a/b/c", "hf://a/b@", "hf://a/", "s3://bucket/x", "/nothing/here"])
def test_sources_that_are_none_are_refused(hub: FakeHub, tmp_path: Path, url: str) -> None:
    with pytest.raises((InvalidInput, NotFound), match="cannot import"):
        import_model(url, tmp_path / "mine")


def test_the_name_of_a_model_on_the_hub_is_met_with_its_url(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"hf://org/llama@main$"):
        import_model("org/llama", tmp_path / "mine")


def test_the_extra_is_named_where_the_hubs_client_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtra, match=r"modelrepo-toolkit\[hf\]"):
        import_model("hf://org/llama", tmp_path / "mine")


def test_copy_is_for_folders_and_download_for_the_hub(hub: FakeHub, make_source: MakeSource, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="--download"):
        import_model("hf://org/llama", tmp_path / "mine", copy=True)
    with pytest.raises(InvalidInput, match="--copy"):
        import_model(str(make_source(LLAMA)), tmp_path / "mine", download=True)
