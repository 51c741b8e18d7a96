"""The repository's verbs, run as commands on a repository in a local folder."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from modelrepo_cli.main import main
from tests.acceptance.packages import make_wheel


@dataclass(frozen=True)
class Shell:
    root: Path
    capsys: pytest.CaptureFixture[str]

    def json(self, *args: str, code: int = 0) -> Any:
        assert main([*args, "--json"]) == code
        return json.loads(self.capsys.readouterr().out)

    def text(self, *args: str) -> str:
        assert main(list(args)) == 0, self.capsys.readouterr().err
        return self.capsys.readouterr().out


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    for name in list(os.environ):
        if name.startswith("MODELREPO_") or name == "CI":
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "modelrepo.toml").write_text('repo = "repo"\nqueue = "queue.db"\n')
    found = Shell(tmp_path, capsys)
    found.json("init")
    found.json("new", "cats")
    return found


def push(shell: Shell, *args: str, mark: str | None = None) -> Any:
    if mark is not None:
        file = shell.root / "cats" / "model.yaml"
        lines = file.read_text().splitlines(keepends=True)
        file.write_text(
            "".join(line for line in lines if not line.startswith("config:")) + f'config: {{mark: "{mark}"}}\n'
        )
    return shell.json("push", "cats", "--check", "none", *args)


def test_init_again_changes_nothing(shell: Shell) -> None:
    before = {path: path.read_bytes() for path in (shell.root / "repo").rglob("*") if path.is_file()}
    answer = shell.json("init")
    assert answer["url"].endswith("/repo")
    assert {path: path.read_bytes() for path in (shell.root / "repo").rglob("*") if path.is_file()} == before


def test_a_dry_run_lists_every_file_and_writes_nothing(shell: Shell) -> None:
    before = sorted(shell.root.rglob("*"))
    plan = push(shell, "--dry-run")
    assert {file["path"] for file in plan["files"]} >= {"model.yaml", "model.py", "pyproject.toml"}
    assert "modelrepo_contract.pyi" not in {file["path"] for file in plan["files"]}
    assert all(len(file["sha256"]) == 64 and file["size_bytes"] > 0 for file in plan["files"])
    assert plan["new_bytes"] == plan["size_bytes"] > 0
    assert sorted(shell.root.rglob("*")) == before


def test_a_version_goes_in_is_shown_and_comes_out(shell: Shell) -> None:
    pushed = push(shell, "--message", "the first", "--promote")
    assert (pushed["version"], pushed["promoted"]["generation"]) == ("v1", 1)
    shown = shell.json("show", "cats")
    assert shown["digest"] == pushed["digest"]
    assert shown["manifest"]["message"] == "the first"
    assert "run on cpu" in shell.text("show", "cats@v1", "--files")
    pulled = shell.json("pull", "cats@v1", "there")
    assert Path(pulled["path"]) == shell.root / "there"
    for name in ("model.yaml", "model.py", "uv.lock"):
        assert (shell.root / "there" / name).read_bytes() == (shell.root / "cats" / name).read_bytes()
    again = shell.json("push", "there", "--check", "none", "--if-changed")
    assert (again["unchanged"], again["version"]) == (True, "v1")


def test_a_new_model_passes_its_check_and_runs_at_once(shell: Shell) -> None:
    report = shell.json("check", "cats")
    assert (report["model"], report["stages"]) == ("cats", ["run"])
    assert report["made_up_inputs"] == {"text": "hello", "times": 1}
    assert shell.json("run", "cats", "-i", "text=hi", "-i", "times=2")["result"] == {"text": "hi! hi!"}
    pushed = push(shell, "--check", "import")
    assert pushed["version"] == "v1"


def test_wheels_and_secrets_are_found_where_the_options_say(shell: Shell) -> None:
    make_wheel(shell.root / "wheels", "greeting")
    project = shell.root / "cats" / "pyproject.toml"
    project.write_text(project.read_text().replace("dependencies = []", 'dependencies = ["greeting==1.0"]'))
    spec = shell.root / "cats" / "model.yaml"
    spec.write_text(spec.read_text() + "secrets: [TOKEN]\n")
    code = shell.root / "cats" / "model.py"
    token = 'self.mark = __import__("greeting").VERSION + ctx.secrets["TOKEN"] +'
    code.write_text(code.read_text().replace("self.mark =", token))
    (shell.root / "secrets").mkdir()
    (shell.root / "secrets" / "TOKEN").write_text("#\n")
    options = ("--index-url", (shell.root / "wheels").as_uri(), "--find-links", "wheels")
    assert shell.json("check", "cats", *options)["model"] == "cats"
    ran = shell.json("run", "cats", "-i", "text=hi", "--secrets-dir", "secrets", *options)
    assert ran["result"] == {"text": "hi1.0#!"}


def test_the_story_of_what_is_live(shell: Shell) -> None:
    push(shell, "--promote")
    push(shell, mark="?")
    assert shell.json("diff", "cats@v1", "cats@v2")["config"] == [
        {"pointer": "/config/mark", "before": "!", "after": "?"}
    ]
    assert '/config/mark "!" -> "?"' in shell.text("diff", "cats@v1", "cats@v2")
    assert shell.json("promote", "cats@v2", "--expect", "1", "--reason", "louder")["kind"] == "promote"
    assert shell.json("promote", "cats@v2", "--set", "mark=??", "--max-unavailable", "2")["config"] == {"mark": "??"}
    assert [entry["version"] for entry in shell.json("list", "cats")["versions"] if entry["active"]] == ["v2"]
    back = shell.json("rollback", "cats", "--reason", "too loud")
    assert (back["version"], back["kind"]) == ("v1", "rollback")
    assert shell.json("promote", "cats@v2", code=4)["error"]["code"] == "version_blocked"
    shell.json("unblock", "cats@v2")
    shell.json("block", "cats@v2", "--reason", "still too loud")
    assert shell.json("promote", "cats@v2", "--force")["generation"] == 7
    kinds = [entry["kind"] for entry in shell.json("history", "cats")["history"]]
    assert kinds == ["promote", "block", "unblock", "rollback", "config", "promote", "promote"]
    assert shell.json("list")["models"] == [
        {"model": "cats", "active": "v2", "generation": 7, "versions": 2, "problem": None}
    ]


def test_a_pipeline_may_promote_twice(shell: Shell) -> None:
    push(shell, "--promote")
    assert shell.text("promote", "cats@v1") == "cats@v1 is active already (generation 1)\n"
    again = shell.json("promote", "cats@v1", "--expect", "1")
    assert (again["unchanged"], again["generation"], again["kind"]) == (True, 1, "promote")
    assert shell.json("promote", "cats@v1", "--expect", "0", code=4)["error"]["code"] == "generation_changed"
    assert "is active already" in shell.text("push", "cats", "--check", "none", "--if-changed", "--promote")
    assert len(shell.json("history", "cats")["history"]) == 1
    other = shell.json("promote", "cats@v1", "--set", "mark=?")
    assert (other["unchanged"], other["generation"], other["kind"]) == (False, 2, "config")
    shell.json("block", "cats@v1")
    assert shell.json("promote", "cats@v1", code=4)["error"]["code"] == "version_blocked"


def test_a_push_imports_where_an_extra_fits_this_box(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    from modelrepo.contract import AcceleratorFacts
    from modelrepo_runtime import accelerators

    spec = shell.root / "cats" / "model.yaml"
    spec.write_text(spec.read_text() + "accelerators: [{when: cuda >= 12.8}]\n")
    monkeypatch.setattr(accelerators, "facts", lambda devices: AcceleratorFacts("cpu"))
    (note,) = shell.json("push", "cats")["notes"]
    assert "not imported, the environment was only resolved" in note and "it offers cpu" in note
    monkeypatch.setattr(accelerators, "facts", lambda devices: AcceleratorFacts("cuda", "12.9", 1, 80 << 30))
    assert shell.json("push", "cats")["notes"] == []
    (shell.root / "cats" / "model.py").write_text("import no_such_package\n")
    assert shell.json("push", "cats", code=1)["error"]["code"] == "entrypoint_failed"


def test_texts_name_what_matters(shell: Shell) -> None:
    assert shell.text("list").startswith("no model in ")
    push(shell, "--promote", "--message", "the first")
    assert "the first" in shell.text("list", "cats")
    assert "cats   v1" in shell.text("list")
    assert "promote" in shell.text("history", "cats")
    assert shell.text("diff", "cats@v1", "cats@v1") == "cats@v1 and cats@v1 hold the same\n"
    status = shell.text("status")
    assert "no live worker" in status
    assert "cats   v1" in status


@pytest.fixture
def editor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    def write(program: str) -> None:
        script = tmp_path / "editor.py"
        script.write_text(f"import pathlib, sys\npath = pathlib.Path(sys.argv[1])\n{program}\n")
        monkeypatch.setenv("VISUAL", f"{sys.executable} {script}")

    return write


def test_edit_records_what_the_editor_saved(shell: Shell, editor: Any) -> None:
    push(shell, "--promote")
    push(shell, mark="?")
    editor("path.write_text(path.read_text().replace('v1', 'v2'))")
    entry = shell.json("edit", "cats")
    assert (entry["kind"], entry["version"], entry["generation"]) == ("hand-edit", "v2", 2)


def test_edit_of_nothing_changes_nothing(shell: Shell, editor: Any) -> None:
    push(shell, "--promote")
    editor("pass")
    assert shell.json("edit", "cats") == {"model": "cats", "changed": False}
    editor("sys.exit(3)")
    assert shell.json("edit", "cats", code=2)["error"]["message"].endswith("ended with 3; nothing was changed")
    editor("path.write_text('version: [')")
    assert main(["edit", "cats"]) == 2
    kept, error = shell.capsys.readouterr().err.splitlines()
    assert Path(kept.removeprefix("your edit is kept in ")).read_text() == "version: ["
    assert error.startswith("error: cannot read active.yaml")
    assert len(shell.json("history", "cats")["history"]) == 1


def test_a_hand_edit_is_said_by_status(shell: Shell) -> None:
    push(shell, "--promote")
    push(shell, mark="?")
    active = shell.root / "repo/models/cats/active.yaml"
    active.write_text(active.read_text().replace("version: v1", "version: v2"))
    assert "edited by hand" in shell.text("status")
    state = shell.json("status", "cats")["models"][0]
    assert (state["version"], state["edited_by_hand"]) == ("v2", True)


def test_a_broken_active_file_hides_nothing_else(shell: Shell) -> None:
    push(shell, "--promote")
    (shell.root / "repo/models/cats/active.yaml").write_text("version: [")
    (model,) = shell.json("status")["models"]
    assert "cannot read" in model["problem"]
    assert "cats   ?" in shell.text("list")
    assert "cannot be read" in shell.text("status")
    assert [entry["version"] for entry in shell.json("list", "cats")["versions"]] == ["v1"]


def test_status_shows_the_slots_though_the_store_is_away(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }.items():
        monkeypatch.setenv(name, value)
    assert main(["status", "--repo", "s3://bucket/models"]) == 5
    shown = capsys.readouterr().err
    assert shown.startswith("no live worker")
    assert "error: " in shown


def test_promote_waits_for_the_slots_that_serve(shell: Shell) -> None:
    from modelrepo_runtime.queue.opening import open_queue
    from modelrepo_runtime.queue.port import SlotReport, WorkerInfo

    first = push(shell, "--promote")
    push(shell, mark="?")
    queue = open_queue(str(shell.root / "queue.db"))
    try:
        session = queue.hello(WorkerInfo("box", "box", 1, slots=("0",)))
        digest = first["digest"].removeprefix("sha256:")
        queue.beat(session, (), (SlotReport("0", "open", "cats", "v1", digest, 1, reason="it is busy"),))
        error = shell.json("promote", "cats@v2", "--wait", "0.3s", code=6)["error"]
        assert error["code"] == "not_converged"
        assert "box slot 0 runs v1 (it is busy)" in error["message"]
        assert shell.json("history", "cats")["history"][0]["version"] == "v2"
        back = shell.json("rollback", "cats", "--wait", "0.3s", code=6)["error"]
        assert "cats@v1 is active (generation 3)" in back["message"]
        again = shell.json("promote", "cats@v1", "--wait", "0.3s", code=6)["error"]
        assert "cats@v1 is active (generation 3)" in again["message"]
        queue.beat(session, (), (SlotReport("0", "open", "cats", "v1", digest, 3),))
        done = shell.json("promote", "cats@active", "--wait", "5s")
        assert (done["converged"], done["unchanged"], done["generation"]) == (True, True, 3)
    finally:
        queue.close()
