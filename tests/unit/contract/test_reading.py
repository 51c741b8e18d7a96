from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from modelrepo.contract import load_spec, parse_spec, spec_from_json
from modelrepo.contract.conditions import AcceleratorRule
from modelrepo.contract.spec import CheckpointSource, Entrypoint, HostNeeds, StageSpec
from modelrepo.errors import InvalidSpec, NewerFormat

from .specs import EVERY_KEY, SMALL, spec_with

GIB = 1024**3


def test_every_key_is_read() -> None:
    spec = parse_spec(EVERY_KEY)
    assert spec.name == "video-gen"
    assert spec.entrypoint == Entrypoint("model", "VideoGen")
    assert str(spec.entrypoint) == "model:VideoGen"
    assert spec.code == ("src", ".")
    assert spec.checkpoints["t5"] == CheckpointSource("hf://org/t5@abcdef", ("*.safetensors", "*.json"), ("*fp32*",))
    assert [source.kind for source in spec.checkpoints.values()] == ["local", "hf", "repository"]
    assert spec.stages == (
        StageSpec("prepare", on="cpu", gpus=0, checkpoints=("t5",), max_batch=2, batch_wait_s=1.0),
        StageSpec("generate", "gpu", 2, 60 * GIB, 80 * GIB, 4, 1200.0),
        StageSpec("finish", on="cpu", gpus=0),
    )
    assert spec.accelerators == (AcceleratorRule("cuda >= 12.8", "cu128"), AcceleratorRule("rocm >= 6.2", "rocm"))
    assert spec.host == HostNeeds({"ffmpeg": ">=6"}, ("libGL.so.1",), True, 80 * GIB)
    assert spec.config == {"safety_threshold": 0.8}
    assert (spec.size, spec.secrets, spec.swap) == ("steps", ("HF_TOKEN",), "drain")
    assert spec.stage("finish").on == "cpu"


def test_what_is_left_out_has_its_default() -> None:
    spec = parse_spec(SMALL)
    assert spec.stages == (StageSpec("run", on="gpu", gpus=1),)
    assert spec.stages[0].timeout_s == 3600.0
    assert spec.inputs is None
    assert (spec.code, spec.swap, spec.accelerators) == ((".",), "auto", ())


def test_no_inputs_is_not_the_same_as_any_inputs() -> None:
    assert spec_with("inputs: {}").inputs == {}


def test_a_spec_comes_back_whole_from_the_manifests_json() -> None:
    spec = parse_spec(EVERY_KEY)
    assert spec_from_json(spec.raw) == spec


def test_a_manifest_with_keys_of_the_future_is_read_but_not_when_they_are_required() -> None:
    raw = parse_spec(SMALL).raw
    assert spec_from_json({**raw, "colour": "green"}).name == "tiny"
    with pytest.raises(NewerFormat, match="requires colours, which this modelrepo does not know"):
        spec_from_json({**raw, "requires": ["colours"]})
    with pytest.raises(NewerFormat, match="contract 2"):
        spec_from_json({**raw, "contract": 2})


def test_a_damaged_manifest_is_an_invalid_spec() -> None:
    with pytest.raises(InvalidSpec, match="damaged"):
        spec_from_json({"contract": 1, "name": "x"})


def test_the_short_form_of_accelerators_keeps_its_order() -> None:
    spec = spec_with("accelerators: {rocm: rocm6, cuda: cu128, cpu: null}")
    assert spec.accelerators == (
        AcceleratorRule("rocm", "rocm6"),
        AcceleratorRule("cuda", "cu128"),
        AcceleratorRule("cpu", None),
    )


def test_on_is_a_key_and_no_is_no_boolean() -> None:
    assert spec_with("stages:\n  - {name: encode, on: cpu}").stages[0].on == "cpu"
    assert spec_with("config: {country: no}").config == {"country": "no"}


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("name: video-gen", "nmae: video-gen", 2, "unknown key 'nmae'; did you mean 'name'?"),
        ("name: video-gen\n", "", 1, "the key 'name' is missing; add it"),
        ("maxLength", "maxLenght", 10, "unknown key 'maxLenght'; did you mean 'maxLength'?"),
        ("timeout: 20min", "timeout: 20", 17, "stages.1.timeout: 20 is not a duration, as in 20min"),
        ("gpu_memory: 60GiB", "gpu_memory: lots", 17, 'gpu_memory: "lots" is not a size, as in 20MiB'),
        ("name: video-gen", "name: Video", 2, '"Video" is not a model name'),
        ("swap: drain", "swap: later", 26, '"later" is not one of auto, overlap, drain, inplace'),
        ("[t5]", "[t6]", 16, "'t6' is no key of checkpoints; known: pipeline, t5, vae"),
        ('size: "steps"', 'size: "stepz * 2"', 14, "size: 'stepz' is no input; did you mean 'steps'?"),
        ("cuda >= 12.8", "coda >= 12.8", 20, "'coda >= 12.8' is no condition"),
        ("cuda >= 12.8", "x- >= 12.8", 20, "'x- >= 12.8' is no condition"),
        ("cuda >= 12.8", "cuda >= twelve", 20, "holds no version comparison"),
        ("source: \"hf", "sorce: \"hf", 7, "unknown key 'sorce'; did you mean 'source'?"),
        ("hf://org/t5@abcdef", "hf://org/t5", 7, "is not a path inside the model's folder, hf://org/name@commit"),
        ("checkpoints/pipeline", "/srv/pipeline", 6, "is not a path inside the model's folder"),
        ("checkpoints/pipeline", "../pipeline", 6, "is not a path inside the model's folder"),
        ("checkpoints/pipeline", "ftp://host/x", 6, "is not a path inside the model's folder"),
        ("checkpoints/pipeline", "s3://key@bucket/x", 6, "is not a path inside the model's folder"),
        ("checkpoints/pipeline", "s3://bucket/x?a=b", 6, "is not a path inside the model's folder"),
        ("pipeline: checkpoints/pipeline", "pipeline: [a]", 6, "is not a path, or a mapping with source"),
        ("swap: drain", "name: again", 26, "'name' is given twice, first on line 2; keep one"),
        ("0.8", "2026-01-31", 24, "2026-01-31 reads as a date, which JSON cannot hold; quote it"),
        ("0.8", ".nan", 24, ".nan is no number that JSON can hold"),
        ("0.8", "9007199254740993", 24, "beyond 2^53"),
        ("0.8", "!!python/none x", 24, "the tag 'tag:yaml.org,2002:python/none' is not read"),
        ("0.8", "!!int many", 24, "the tag 'tag:yaml.org,2002:int' is not read"),
        ("0.8", "!!str 8", 24, "the tag 'tag:yaml.org,2002:str' is not read"),
        ("0.8", "!!set {a, b}", 24, "the tag 'tag:yaml.org,2002:set' is not read"),
        ("[src, .]", "!roots [src, .]", 4, "the tag '!roots' is not read"),
        ("0.8", "9" * 5000, 24, "is beyond 2^53, which JSON cannot hold; quote it"),
        ("0.8", r'"\ud800"', 24, "holds half a surrogate pair, which is no text"),
        ("name: video-gen", r'name: "video-gen\n"', 2, "is not a model name"),
        ("[HF_TOKEN]", r'["HF_TOKEN\n"]', 25, "is not a variable's name"),
        ("[HF_TOKEN]", "[PATH]", 25, "secrets.0: PATH is set by the worker for each process"),
        ('segments:True"', r'segments:\0"', 23, "env.PYTORCH_CUDA_ALLOC_CONF: holds a NUL byte"),
        ("timeout: 20min", "timeout: 400d", 17, "'400d' is longer than 365 days"),
        ("maxBytes: 20MiB", "maxBytes: 99999TiB", 11, "'99999TiB' is beyond 2^53 bytes"),
        ("gpu_memory: 60GiB", "gpu_memory: 99999TiB", 17, "'99999TiB' is beyond 2^53 bytes"),
        ("default: 40", "default: 400", 12, "the default breaks its own schema: 400 is not at most 100"),
        ("contract: 1", "contract: 2", 1, "contract 2 is newer than this modelrepo reads (1)"),
        ("contract: 1", 'contract: "1"', 1, 'contract: "1" is not'),
        ("[src, .]", "[../src]", 4, 'code.0: "../src" is not a path inside the model\'s folder'),
        ("[HF_TOKEN]", "[HF-TOKEN]", 25, 'secrets.0: "HF-TOKEN" is not a variable\'s name'),
        ("[HF_TOKEN]", "[A, A]", 25, "is not a list without repetition"),
        ("expandable_segments:True\"", "x\", RANK: \"1\"", 23, "env.RANK: RANK is set by the worker for each process"),
        ("\"expandable_segments:True\"", "1", 23, "is not text; put it in quotes"),
        ("compiler: true", "compiler: no", 22, '"no" is not true or false'),
        ("config: {safety_threshold: 0.8}", "config:", 24, "config: null is not a mapping"),
        ("type: string, maxLength", "type: strin, maxLength", 10, '"strin" is not one of string, number'),
        ("  - {name: finish, on: cpu}", "  - {on: cpu}", 18, "stages.2: the key 'name' is missing"),
        ("name: finish", "name: warmup", 18, "'warmup' is called by the worker itself"),
        ("name: finish", "name: prepare", 18, "the stage 'prepare' is there twice"),
        ("name: finish, on: cpu", "name: finish, on: cpu, gpus: 1", 18, "a stage on cpu has none"),
        ("swap: drain", "swap: [", 27, "no YAML: "),
        ("format: file, contentTypes", "contentTypes", 11, "contentTypes needs format: file beside it"),
        ("maxBytes: 20MiB", "default: x", 11, "a file has no default"),
        ('">=6"', '"six"', 22, "'six' is no version comparison"),
        ("type: integer", "items: {required: true}, type: integer", 12, "may stand at an input itself only"),
        ("type: string, maxLength", "pattern: '[', maxLength", 10, "is not a 'regex'"),
        ("model:VideoGen", "model.VideoGen", 3, "is not module:Attribute"),
    ],
)  # fmt: skip
def test_a_fault_is_told_with_its_line(old: str, new: str, line: int, message: str) -> None:
    assert old in EVERY_KEY
    with pytest.raises(InvalidSpec) as caught:
        parse_spec(EVERY_KEY.replace(old, new, 1), "x/model.yaml")
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"x/model.yaml:{line}: ")
    assert caught.value.line == line
    assert "\n" not in str(caught.value)


def test_of_several_faults_the_first_in_the_file_is_told() -> None:
    text = EVERY_KEY.replace("20min", "20").replace("[src, .]", "[]")
    with pytest.raises(InvalidSpec, match=r"code: \[\] is not a list of at least 1") as caught:
        parse_spec(text)
    assert caught.value.key == "code"


@pytest.mark.parametrize("text", ["", "[]", "just words", "null", "- a\n- b"])
def test_what_is_no_mapping_is_refused(text: str) -> None:
    with pytest.raises(InvalidSpec, match="no mapping"):
        parse_spec(text)


def test_a_date_as_text_and_a_large_number_as_text_pass() -> None:
    assert spec_with("config: {day: '2026-01-31', big: '9007199254740993'}").config["day"] == "2026-01-31"


def test_an_alias_is_read_and_one_that_holds_itself_is_refused() -> None:
    spec = spec_with(
        """
        inputs:
          width: &side {type: integer, maximum: 4096}
          height: *side
        """
    )
    assert spec.inputs is not None
    assert spec.inputs["height"] == {"type": "integer", "maximum": 4096}
    with pytest.raises(InvalidSpec, match="an alias may hold itself"):
        parse_spec(SMALL + "config: &a\n  again: *a\n")


def test_aliases_of_aliases_do_not_fill_the_memory() -> None:
    lines = ["config:", "  a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"  a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(InvalidSpec, match="too deep or too large"):
        parse_spec(SMALL + "\n".join(lines))


def test_a_merge_key_is_refused() -> None:
    with pytest.raises(InvalidSpec, match="merge keys"):
        parse_spec(SMALL + dedent("config:\n  <<: {a: 1}\n"))


def test_a_missing_file_says_how_to_begin(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match="no such file; `modelrepo new DIR` writes a first one"):
        load_spec(tmp_path)


def test_a_file_that_is_no_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_bytes(b"name: \xff\xfe")
    with pytest.raises(InvalidSpec, match="no UTF-8 text"):
        load_spec(tmp_path)


def test_a_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text(EVERY_KEY)
    assert load_spec(tmp_path) == parse_spec(EVERY_KEY)


def test_a_batch_may_wait_to_fill_where_there_are_batches() -> None:
    text = "contract: 1\nname: m\nentrypoint: model:Model\nstages: [{name: run, %s}]\n"
    assert parse_spec(text % "max_batch: 8, batch_wait: 50ms").stages[0].batch_wait_s == 0.05
    assert parse_spec(text % "max_batch: 8").stages[0].batch_wait_s == 0.0
    with pytest.raises(InvalidSpec, match="without batches"):
        parse_spec(text % "batch_wait: 50ms")
