import os
import pty
import select
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from modelrepo import IndexSettings, PushOptions, Repository
from modelrepo.contract import parse_spec
from modelrepo.errors import (
    EntrypointFailed,
    HostNeedUnmet,
    InvalidInput,
    InvalidJobInput,
    NoExtraFits,
    SecretMissing,
)
from modelrepo_runtime import local_model
from modelrepo_runtime.accelerators.cpu import Cpu
from modelrepo_runtime.jobs import Cause
from modelrepo_runtime.local_model import Box, fit_to_check, fit_to_run, folder_model, version_model
from modelrepo_runtime.running import LocalRun, RunOptions, run_model

SPEC = """
contract: 1
name: demo
entrypoint: model:Demo
inputs:
  text: {type: string, required: true}
  image: {type: string, format: file}
outputs: {picture: {format: file, contentType: image/png}}
stages: [{name: prepare, on: cpu}, {name: run, on: cpu}]
config: {mark: "!"}
"""
PROJECT = '[project]\nname = "demo"\nversion = "0"\nrequires-python = ">=3.11"\ndependencies = []\n'
CODE = """
class Demo:
    def load(self, ctx):
        self.ctx, self.jobs = ctx, 0
    def prepare(self, job):
        job.handover("x").write_text(job.file("image").read_text() if "image" in job.inputs else "")
        return job.inputs["text"].upper()
    def run(self, job):
        self.jobs += 1
        job.progress(0.5, "half")
        if job.inputs["text"] == "fail":
            secret_of_the_model = 42
            raise ValueError("asked to fail")
        if job.inputs["text"] == "crash":
            import os
            os.abort()
        job.output("picture").write_text("png")
        text = f"{job.previous}{self.ctx.config['mark']}"
        return {"text": text, "read": job.handover("x").read_text(), "jobs": self.jobs}
"""


def a_folder(tmp_path: Path, more: str = "") -> Path:
    folder = tmp_path / "demo"
    folder.mkdir()
    (folder / "model.yaml").write_text(SPEC.strip() + "\n" + more)
    (folder / "model.py").write_text(CODE)
    return folder


BOX = Box(python=Path(sys.executable))


def test_jobs_run_through_all_stages_of_a_model_that_is_loaded_once(tmp_path: Path) -> None:
    image = tmp_path / "in.txt"
    image.write_text("pixels")
    told: list[tuple[str, float, str | None]] = []
    options = RunOptions(outputs=tmp_path / "out", on_progress=lambda *one: told.append(one))
    with folder_model(a_folder(tmp_path), BOX) as model:
        jobs: list[dict[str, str | Path]] = [{"text": "image", "image": image}, {"text": "b"}]
        results = list(run_model(model, jobs, options))
    assert [result.result for result in results] == [
        {"text": "IMAGE!", "read": "pixels", "jobs": 1},
        {"text": "B!", "read": "", "jobs": 2},
    ]
    assert results[0].outputs == {"picture": tmp_path / "out" / "picture.png"}
    assert results[1].outputs == {"picture": tmp_path / "out" / "2" / "picture.png"}
    assert results[0].seconds.keys() == {"prepare", "run"}
    assert told == [("run", 0.5, "half")] * 2


def test_a_failure_is_a_result_and_a_crash_costs_one_job(tmp_path: Path) -> None:
    with folder_model(a_folder(tmp_path), BOX) as model, LocalRun(model, RunOptions(outputs=tmp_path / "out")) as run:
        causes = [run.run({"text": text}).cause for text in ("fail", "crash", "fine")]
    assert causes == [Cause.EXCEPTION, Cause.CRASH, Cause.SUCCEEDED]


def test_one_stage_can_be_run_alone(tmp_path: Path) -> None:
    folder = a_folder(tmp_path)
    with folder_model(folder, BOX, stage="prepare") as model:
        (result,) = run_model(model, [{"text": "a"}])
        assert result.result == "A"
    with pytest.raises(InvalidInput, match="has no stage 'prepair'; did you mean prepare"):
        folder_model(folder, BOX, stage="prepair").__enter__()


def test_bad_inputs_are_refused_with_a_pointer(tmp_path: Path) -> None:
    with folder_model(a_folder(tmp_path), BOX) as model, LocalRun(model) as run:
        with pytest.raises(InvalidJobInput, match="/text"):
            run.run({})
        with pytest.raises(InvalidJobInput, match="/image"):
            run.run({"text": "a", "image": {"file": "id"}})


@pytest.mark.parametrize(
    ("more", "error", "words"),
    [
        ("secrets: [DEMO_KEY]\n", SecretMissing, "DEMO_KEY"),
        ("host: {commands: {no-such-command: '*'}}\n", HostNeedUnmet, "no-such-command"),
        ("accelerators: [{when: cuda >= 99}]\n", NoExtraFits, "cuda >= 99"),
    ],
)
def test_what_this_box_lacks_is_said_before_anything_is_locked_fetched_or_built(
    tmp_path: Path, more: str, error: type[Exception], words: str
) -> None:
    folder = a_folder(tmp_path, more + "checkpoints: {w: missing.bin}\n")
    with pytest.raises(error, match=words):
        folder_model(folder, Box(cache=tmp_path / "cache")).__enter__()
    repository = Repository.init(str(tmp_path / "repository"))
    (folder / "missing.bin").write_bytes(b"weights")
    (folder / "pyproject.toml").write_text(PROJECT)
    repository.push(
        folder, PushOptions(check="none", lock=True, index=IndexSettings(no_index=True), cache=tmp_path / "pusher")
    )
    with pytest.raises(error, match=words):
        version_model(repository, "demo@v1", Box(cache=tmp_path / "cache"))
    assert not (tmp_path / "cache").exists()


def test_the_active_version_runs_with_the_config_that_is_live(tmp_path: Path) -> None:
    folder = a_folder(tmp_path)
    (folder / "pyproject.toml").write_text(PROJECT)
    repository = Repository.init(str(tmp_path / "repository"))
    offline = IndexSettings(no_index=True)
    repository.push(folder, PushOptions(check="none", lock=True, index=offline, cache=tmp_path / "cache"))
    repository.promotions.promote("demo", "v1", config_set={"mark": "?"})
    box = Box(python=Path(sys.executable), cache=tmp_path / "cache")
    marks = {
        reference: version_model(repository, reference, box).child_spec(tmp_path).config["mark"]
        for reference in ("demo", "demo@active", "demo@v1")
    }
    assert marks == {"demo": "?", "demo@active": "?", "demo@v1": "!"}


def test_a_stage_on_the_cpu_asks_for_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_model, "probe", lambda: Cpu().probe())
    spec = SPEC.replace("{name: run, on: cpu}", "{name: run, on: gpu}") + "host: {gpu: {memory: 10GiB}}\n"
    with pytest.raises(HostNeedUnmet, match="no GPU"):
        fit_to_run(parse_spec(spec), BOX)
    assert fit_to_run(parse_spec(spec), BOX, "prepare").devices == ()
    assert fit_to_check(parse_spec(spec), BOX).secrets == {}


def test_secrets_come_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "DEMO_KEY").write_text("hidden\n")
    box = replace(BOX, secrets_dir=tmp_path / "secrets")
    with folder_model(a_folder(tmp_path, "secrets: [DEMO_KEY]\n"), box) as model:
        assert model.child_spec(tmp_path / "child").secrets == {"DEMO_KEY": "hidden"}


def test_a_model_that_does_not_load_says_so(tmp_path: Path) -> None:
    folder = a_folder(tmp_path)
    (folder / "model.py").write_text(CODE.replace("self.ctx, self.jobs = ctx, 0", "1 / 0"))
    with folder_model(folder, BOX) as model, pytest.raises(EntrypointFailed, match="load failed: ZeroDivisionError"):
        list(run_model(model, [{"text": "a"}]))


def on_a_terminal(tmp_path: Path, script: str, answers: list[tuple[str, str]]) -> str:
    """Run a script on a terminal of its own, answering each prompt once; returns all that was shown."""
    near, far = pty.openpty()
    head = f"""
        import sys
        from pathlib import Path
        from modelrepo_runtime.local_model import Box, folder_model
        from modelrepo_runtime.running import RunOptions, open_shell, run_model
        folder = Path({str(tmp_path / "demo")!r})
    """
    text = textwrap.dedent(head) + textwrap.dedent(script)
    process = subprocess.Popen(
        [sys.executable, "-c", text],
        stdin=far,
        stdout=far,
        stderr=far,
        start_new_session=True,
        env={**os.environ, "TERM": "dumb"},
    )
    os.close(far)
    shown, seen = "", 0
    while select.select([near], [], [], 60)[0]:
        try:
            piece = os.read(near, 4096).decode()
        except OSError:
            break
        shown += piece
        while answers and answers[0][0] in shown[seen:]:
            seen = len(shown)
            os.write(near, answers.pop(0)[1].encode())
    os.close(near)
    assert process.wait(60) == 0, shown
    assert not answers, shown
    return shown


def test_the_debugger_opens_where_the_model_failed(tmp_path: Path) -> None:
    a_folder(tmp_path)
    script = """
        with folder_model(folder, Box(python=Path(sys.executable))) as model:
            (result,) = run_model(model, [{"text": "fail"}], RunOptions(debug=True))
        print("ended", result.cause)
    """
    shown = on_a_terminal(tmp_path, script, [("(Pdb) ", "p secret_of_the_model + 1\n"), ("(Pdb) ", "q\n")])
    assert "ValueError: asked to fail" in shown and "\n43" in shown.replace("\r", "")
    assert "ended exception" in shown


def test_the_shell_has_ctx_and_the_models_class(tmp_path: Path) -> None:
    a_folder(tmp_path)
    script = """
        with folder_model(folder, Box(python=Path(sys.executable))) as model:
            print("code", open_shell(model))
    """
    answers = [(">>> ", "print('mark is', ctx.config['mark'], Demo.__name__)\n"), (">>> ", "raise SystemExit(7)\n")]
    shown = on_a_terminal(tmp_path, script, answers)
    assert "mark is ! Demo" in shown and "code 7" in shown
