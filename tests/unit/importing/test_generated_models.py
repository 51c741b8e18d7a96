"""The code that an import writes does what its templates mean, as far as libraries of a few lines can tell."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from modelrepo.contract import inputs as declared
from modelrepo.contract import load_spec
from modelrepo.importing.model_import import import_model
from tests.unit.importing.test_import import LLAMA, TENSORS, MakeSource, make_source

__all__ = ["make_source"]


class Ids(list[int]):
    """One row of token ids, as much of a tensor as the code looks at."""

    @property
    def shape(self) -> tuple[int, int]:
        return (1, len(self))

    def __getitem__(self, where: Any) -> Any:  # only as `ids[0, begin:]`
        return Ids(list(self)[where[1]])


class Tokens(dict[str, Any]):
    def to(self, _device: str) -> Tokens:
        return self


class Loaded:
    """Whatever `from_pretrained` returns: keeps what it was called with."""

    chat_template = None
    device = "cpu"
    calls: list[dict[str, Any]]

    @classmethod
    def from_pretrained(cls, path: Path, **options: Any) -> Loaded:
        loaded = cls()
        loaded.path, loaded.options, loaded.calls = path, options, []
        return loaded

    path: Path
    options: dict[str, Any]

    def to(self, device: str) -> Loaded:
        self.device = device
        return self

    def eval(self) -> Loaded:
        return self

    def set_progress_bar_config(self, **_: Any) -> None:
        pass

    def generate(self, **options: Any) -> Ids:
        self.calls.append(options)
        ids = Ids(options["input_ids"])
        for new in range(options["max_new_tokens"]):
            ids.append(new)
            assert not any(each(ids, None) for each in options["stopping_criteria"])
        return ids


class Tokenizer(Loaded):
    def __call__(self, text: str, **_: Any) -> Tokens:
        return Tokens(input_ids=Ids(ord(letter) for letter in text))

    def apply_chat_template(self, said: list[dict[str, str]], **_: Any) -> str:
        return f"<{said[0]['content']}>"

    def decode(self, ids: Ids, **_: Any) -> str:
        return f"{len(ids)} tokens"


class Pipeline(Loaded):
    def __call__(self, **options: Any) -> Any:
        self.calls.append(options)
        for step in range(options["num_inference_steps"]):
            assert options["callback_on_step_end"](self, step, None, {"kept": 1}) == {"kept": 1}
        picture = SimpleNamespace(save=lambda path, **how: path.write_text(how["format"]))
        return SimpleNamespace(images=[picture], frames=[["frame"]])


class Job:
    def __init__(self, folder: Path, inputs: dict[str, Any]) -> None:
        self.folder, self.inputs, self.told = folder, inputs, list[float]()

    def progress(self, share: float) -> None:
        self.told.append(share)

    def output(self, name: str) -> Path:
        return self.folder / name


@contextmanager
def _inference_mode() -> Iterator[None]:
    yield


Run = Callable[..., tuple[Any, Job, Any]]


@pytest.fixture
def run(tmp_path: Path, make_source: MakeSource, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Import files, load the model that was written, and run one job."""
    torch, transformers, diffusers = ModuleType("torch"), ModuleType("transformers"), ModuleType("diffusers")
    generator = SimpleNamespace(manual_seed=lambda seed: f"seed {seed}")
    for name, value in {
        "inference_mode": _inference_mode,
        "float32": "float32",
        "bfloat16": "bfloat16",
        "Generator": lambda _device: generator,
    }.items():
        setattr(torch, name, value)
    for name, value in {
        "AutoModelForCausalLM": Loaded,
        "AutoTokenizer": Tokenizer,
        "StoppingCriteriaList": list,
    }.items():
        setattr(transformers, name, value)
    utils = ModuleType("diffusers.utils")
    written = {"export_to_video": lambda frames, path, fps: Path(path).write_text(f"{frames} {fps}")}
    for library, members in ((utils, written), (diffusers, {"DiffusionPipeline": Pipeline})):
        for name, member in members.items():
            setattr(library, name, member)
    for module in (torch, transformers, diffusers, utils):
        monkeypatch.setitem(sys.modules, module.__name__, module)

    def imported_and_run(files: dict[str, Any], inputs: dict[str, Any], device: str = "cpu") -> tuple[Any, Job, Any]:
        folder = import_model(str(make_source(files)), tmp_path / "mine").folder
        space: dict[str, Any] = {}
        exec(compile((folder / "model.py").read_text(), "model.py", "exec"), space)  # noqa: S102
        model = space["Model"]()
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        tensor = SimpleNamespace(numel=lambda: 2)
        model.load(
            SimpleNamespace(
                device=device,
                scratch=scratch,
                checkpoint=lambda name: folder / "checkpoints" / name,
                load_safetensors=lambda name: {name: tensor},
            )
        )
        job = Job(tmp_path, declared.check(load_spec(folder), inputs))
        return model.run(job), job, model

    return imported_and_run


def test_text_is_generated(run: Run) -> None:
    result, job, model = run(LLAMA, {"prompt": "abc", "max_new_tokens": 4})
    assert result == {"text": "4 tokens", "tokens": 4}
    assert job.told == [0.25, 0.5, 0.75, 1.0]
    assert model.model.options == {"dtype": "auto", "local_files_only": True}
    assert model.model.calls[0]["do_sample"] is False
    model.tokenizer.chat_template = "a template"
    model.run(Job(job.folder, {**job.inputs, "temperature": 0.7}))
    assert model.model.calls[1]["temperature"] == 0.7
    assert len(model.model.calls[1]["input_ids"]) == len("<abc>")


@pytest.mark.parametrize(("device", "dtype"), [("cpu", "float32"), ("cuda:0", "bfloat16")])
def test_a_picture_is_made(run: Run, device: str, dtype: str) -> None:
    files = {"model_index.json": {"_class_name": "FluxPipeline"}, "vae/w.safetensors": TENSORS}
    result, job, model = run(files, {"prompt": "a cat", "steps": 2, "seed": 7}, device)
    assert result == {"seed": 7}
    assert job.output("image").read_text() == "PNG"
    assert job.told == [0.5, 1.0]
    assert (model.pipeline.device, model.pipeline.options["torch_dtype"]) == (device, dtype)
    assert (model.pipeline.calls[0]["prompt"], model.pipeline.calls[0]["generator"]) == ("a cat", "seed 7")


def test_a_video_is_made(run: Run) -> None:
    files = {"model_index.json": {"_class_name": "WanPipeline"}, "vae/w.safetensors": TENSORS}
    _, job, _ = run(files, {"prompt": "a cat", "steps": 1})
    assert job.output("video").read_text() == "['frame'] 16"


def test_bare_tensors_are_loaded(run: Run) -> None:
    result, _, _ = run({"w.safetensors": TENSORS}, {})
    assert result == {"tensors": 1, "numbers": 2}
