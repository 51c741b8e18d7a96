"""What a folder of weights is, told by the files that its maker's tools write."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

from modelrepo.errors import InvalidInput
from modelrepo.importing.sources import ImportSource

Kind = Literal["generate", "classify", "embed", "transformers", "image", "video", "diffusers", "tensors"]

SAFE = "*.safetensors"
OTHER_FORMATS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.onnx", "*.onnx_data", "*.gguf", "*.tflite")
"""Weights a second time, for other programs: with safetensors beside them, they would only cost room."""

PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
FOR_PEOPLE = ("README.md", "LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE")
_VIDEO = ("Video", "Wan", "LTX", "Mochi", "AnimateDiff", "Allegro", "Latte", "SkyReels")
_NO_PICTURES = (
    *("Audio", "Music", "3D", "ShapE", "UnCLIP", "Prior", "Depth", "Normals"),
    *("Inpaint", "Img2Img", "Image2Image", "ControlNet", "Upscale"),
)


@dataclass(frozen=True, slots=True)
class Recognised:
    """A model as it was recognised. `what` names it for people; `exclude` are files that it does not need.

    `libraries` are those that its components come from; `notes` are what its importer has to know.
    """

    kind: Kind
    what: str
    files: tuple[str, ...]
    exclude: tuple[str, ...]
    libraries: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()


def recognise(source: ImportSource) -> Recognised:
    """Say what the source holds.

    Raises:
        InvalidInput: nothing in it is known; or a file that describes it cannot be read.
    """
    files = tuple(source.files())
    if "model_index.json" in files:
        return _pipeline(source, files)
    if "config.json" in files and (config := _json(source, "config.json")).keys() & {"model_type", "architectures"}:
        return _transformer(source, files, config)
    if any(fnmatchcase(path, SAFE) for path in files):
        exclude = _present(files, (*OTHER_FORMATS, *FOR_PEOPLE))
        return Recognised("tensors", "safetensors", _kept(files, exclude), exclude)
    shown = ", ".join(files[:5]) + (", ..." if len(files) > 5 else "")
    raise InvalidInput(
        f"cannot import {source.said}: it holds neither model_index.json, nor a config.json of transformers, nor a "
        f"safetensors file, but {shown or 'nothing'}; write the model by hand: modelrepo new"
    )


def _pipeline(source: ImportSource, files: tuple[str, ...]) -> Recognised:
    index = _json(source, "model_index.json")
    name = _class_name(source, "model_index.json", index.get("_class_name", "DiffusionPipeline"))
    components = [value[0] for value in index.values() if isinstance(value, list) and value]
    libraries = frozenset(each for each in components if isinstance(each, str))
    notes: list[str] = []
    kind: Kind = "image"
    if any(part in name for part in _VIDEO):
        kind = "video"
    elif any(part in name for part in _NO_PICTURES):
        kind = "diffusers"
        notes.append(f"what {name} takes and gives is not known here: write `run` in model.py, and inputs and outputs")
    if foreign := sorted(libraries - {"diffusers", "transformers"}):
        notes.append(
            f"components come from {', '.join(foreign)} too: see that pyproject.toml has it, or the code of it"
        )
    at_root = tuple(path for path in files if "/" not in path and fnmatchcase(path, SAFE))  # all in one file, again
    has_safe = any(fnmatchcase(path, "*/" + SAFE) for path in files)
    exclude = _present(files, (*(OTHER_FORMATS if has_safe else ()), *FOR_PEOPLE)) + (at_root if has_safe else ())
    halves = tuple(path for path in files if ".fp16." in path and path.replace(".fp16.", ".") in files)
    exclude += _present(halves, ("*.fp16.*",))
    return _finished(kind, f"the {name} of diffusers", files, exclude, libraries | {"diffusers"}, notes)


def _transformer(source: ImportSource, files: tuple[str, ...], config: Mapping[str, Any]) -> Recognised:
    architectures = config.get("architectures") or []
    told = architectures[0] if isinstance(architectures, list) and architectures else config.get("model_type")
    name = _class_name(source, "config.json", told if isinstance(told, str) else "AutoModel")
    has_tokenizer = any(path.startswith(("tokenizer", "vocab", "spiece", "merges")) for path in files)
    notes: list[str] = []
    kind: Kind = "transformers"
    if name.endswith(("ForCausalLM", "LMHeadModel")) and has_tokenizer:
        kind = "generate"
    elif name.endswith("ForSequenceClassification") and has_tokenizer:
        kind = "classify"
    elif name.endswith(("Model", "ForMaskedLM")) and has_tokenizer:
        kind = "embed"
    else:
        notes.append(f"what {name} takes and gives is not known here: write `run` in model.py, and inputs and outputs")
    if config.get("auto_map"):
        notes.append(
            "it brings code of its own (auto_map in config.json), which is not run: read it, copy it beside model.py "
            "and import it there, or use a release of transformers that knows the architecture"
        )
    has_safe = any(fnmatchcase(path, SAFE) for path in files)
    exclude = _present(files, (*(OTHER_FORMATS if has_safe else ()), *FOR_PEOPLE))
    return _finished(kind, f"{name} of transformers", files, exclude, frozenset({"transformers"}), notes)


def _finished(
    kind: Kind,
    what: str,
    files: tuple[str, ...],
    exclude: tuple[str, ...],
    libraries: frozenset[str],
    notes: list[str],
) -> Recognised:
    kept = _kept(files, exclude)
    if not any(fnmatchcase(path, SAFE) for path in kept):
        if any(fnmatchcase(path, pattern) for path in kept for pattern in PICKLED):
            notes.append("its weights are pickles, which may run code as they are loaded: convert them to safetensors")
        else:
            notes.append("no weights were found in it: only what describes them")
    return Recognised(kind, what, kept, exclude, libraries, tuple(notes))


def _class_name(source: ImportSource, path: str, name: object) -> str:
    """Return a class's name, which goes into code and comments."""
    if isinstance(name, str) and name.replace("-", "_").isidentifier() and len(name) <= 200:
        return name
    raise InvalidInput(f"cannot import {source.said}: {path} names the class {str(name)[:80]!r}, which is none")


def _present(files: Sequence[str], patterns: Sequence[str]) -> tuple[str, ...]:
    return tuple(pattern for pattern in patterns if any(fnmatchcase(path, pattern) for path in files))


def _kept(files: Sequence[str], exclude: Sequence[str]) -> tuple[str, ...]:
    return tuple(path for path in files if not any(fnmatchcase(path, pattern) for pattern in exclude))


def _json(source: ImportSource, path: str) -> Mapping[str, Any]:
    try:
        found = json.loads(source.read(path))
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"cannot import {source.said}: {path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise InvalidInput(f"cannot import {source.said}: {path} is no JSON object")
    return found
