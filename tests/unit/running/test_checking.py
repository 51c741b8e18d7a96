import sys
from dataclasses import replace
from pathlib import Path

import pytest

from modelrepo.contract import inputs, load_spec, parse_spec
from modelrepo.environments.record import EnvironmentRecord
from modelrepo.errors import EntrypointFailed, InvalidCheckpoint, InvalidCode, InvalidSpec
from modelrepo.pushing.push_options import CheckRequest
from modelrepo.versions.manifest import CheckpointRecord, Manifest
from modelrepo_runtime.checking import check_folder, import_entrypoint, make_up_inputs

PYTHON = Path(sys.executable)
SPEC = """
contract: 1
name: demo
entrypoint: model:Demo
inputs:
  text: {type: string, minLength: 2}
  steps: {type: integer, minimum: 3, default: 5}
  image: {type: string, format: file}
size: steps * 2
"""
CODE = """
class Demo:
    def load(self, ctx): raise RuntimeError("check loads nothing")
    def run(self, job): return 1
"""


def a_folder(tmp_path: Path, spec: str = SPEC, code: str = CODE) -> Path:
    folder = tmp_path / "demo"
    folder.mkdir()
    (folder / "model.yaml").write_text(spec.strip() + "\n")
    (folder / "model.py").write_text(code)
    return folder


def test_a_good_folder_is_reported_good_without_being_loaded(tmp_path: Path) -> None:
    report = check_folder(a_folder(tmp_path), PYTHON)
    assert (report.model, report.entrypoint, report.stages) == ("demo", "model:Demo", ("run",))
    assert report.made_up_inputs == {"text": "xx", "steps": 5}
    assert report.size_class == "10"
    assert report.lines()[0] == "model.yaml is good: demo"


def test_a_check_leaves_nothing_in_the_folder(tmp_path: Path) -> None:
    folder = a_folder(tmp_path)
    check_folder(folder, PYTHON)
    assert sorted(path.name for path in folder.iterdir()) == ["model.py", "model.yaml"]


@pytest.mark.parametrize(
    ("code", "words", "log"),
    [
        ("import no_such_package\n" + CODE, "No module named 'no_such_package'", "import no_such_package"),
        ("class Other: pass", "model.py defines no 'Demo'", ""),
        ("class Demo:\n    def load(self): pass\n    run = load", "load(self) does not take exactly (ctx)", ""),
        ("class Demo:\n    def load(self, ctx): pass", "it has no method run(job)", ""),
        ("Demo = 3", "neither a class nor a function that makes one", ""),
        ("def Demo(: pass", "SyntaxError", "def Demo("),
        ("raise SystemExit(0)", "sys.exit(0)", ""),
    ],
)  # fmt: skip
def test_an_entrypoint_that_does_not_start_says_why_and_in_which_environment(
    tmp_path: Path, code: str, words: str, log: str
) -> None:
    folder = a_folder(tmp_path, code=code)
    with pytest.raises(EntrypointFailed) as caught:
        import_entrypoint(CheckRequest(folder, load_spec(folder), PYTHON))
    message = str(caught.value)
    assert words in message and str(PYTHON) in message and "\n" not in message
    assert message.startswith("entrypoint model:Demo of demo does not start")
    assert log in caught.value.log


def test_a_function_may_make_the_model(tmp_path: Path) -> None:
    folder = a_folder(tmp_path, SPEC.replace("model:Demo", "model:make"), CODE + "\ndef make(): return Demo()\n")
    assert check_folder(folder, PYTHON).entrypoint == "model:make"


def test_what_is_wrong_in_the_folder_is_found_before_anything_is_imported(tmp_path: Path) -> None:
    folder = a_folder(tmp_path, SPEC + "checkpoints: {w: weights.bin}\n")
    with pytest.raises(InvalidCheckpoint, match="checkpoint 'w' is missing"):
        check_folder(folder, PYTHON)
    (folder / "model.yaml").write_text(SPEC.strip() + "\nstages_: []\n")
    with pytest.raises(InvalidSpec):
        check_folder(folder, PYTHON)


def test_code_that_a_push_would_refuse_is_refused(tmp_path: Path) -> None:
    folder = a_folder(tmp_path, SPEC.strip() + "\ncode: [model.py]")
    with pytest.raises(InvalidCode, match=r"code root 'model\.py' is not a folder"):
        check_folder(folder, PYTHON)
    (folder / "model.yaml").write_text(SPEC)
    (folder / "up").symlink_to("/etc/hosts")
    with pytest.raises(InvalidCode, match="a symlink that leaves the model's folder"):
        check_folder(folder, PYTHON)


@pytest.mark.parametrize(
    "declared",
    [
        "{type: string, maxLength: 3}",
        "{type: string, enum: [low, high]}",
        "{type: integer, minimum: 7}",
        "{type: integer, exclusiveMinimum: 7}",
        "{type: number, maximum: -2}",
        "{type: boolean}",
        "{type: array, items: {type: integer}}",
        "{type: object}",
        "{const: 4}",
        "{type: string, pattern: 'a+b', examples: [aab]}",
        "{type: [integer, 'null']}",
    ],
)
def test_inputs_are_made_up_that_the_schema_accepts(declared: str) -> None:
    head = SPEC.split("inputs:")[0].strip()
    spec = parse_spec(f"{head}\ninputs:\n  x: {declared}\n")
    made_up = make_up_inputs(spec)
    assert "x" in made_up
    inputs.check(spec, made_up)


def test_checkpoints_that_a_push_would_reuse_need_not_be_here(tmp_path: Path) -> None:
    folder = a_folder(tmp_path, SPEC + "checkpoints: {w: weights}\n")
    record = EnvironmentRecord(python="3.11", requires_python="", digest="e" * 64, pyproject_sha256="f" * 64)
    spec = {"contract": 1, "name": "demo", "entrypoint": "model:Demo", "checkpoints": {"w": "weights"}}
    earlier = Manifest("demo", "v1", "2026-01-01T00:00:00Z", spec, record, (), {"w": CheckpointRecord(())})
    with pytest.raises(InvalidCheckpoint, match="weights"):
        check_folder(folder, PYTHON)
    assert check_folder(folder, PYTHON, reuse=earlier).checkpoints == ("w",)
    with pytest.raises(InvalidCheckpoint, match="demo@v1 has none; push without --reuse-checkpoints"):
        check_folder(folder, PYTHON, reuse=replace(earlier, checkpoints={}))
