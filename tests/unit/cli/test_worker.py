import json
from pathlib import Path

import pytest

from modelrepo_cli.commands import worker
from modelrepo_cli.main import main
from modelrepo_runtime.worker.settings import OPTIONS


def test_the_command_has_a_flag_for_every_setting_of_the_worker() -> None:
    shared = ("repo", "queue", "files")
    assert [*shared, *(name for name, _ in worker.FLAGS)] == [option.name for option in OPTIONS]
    flags = {flag for parameter in worker.command.params for flag in parameter.opts}
    assert {option.flag for option in OPTIONS} <= flags


def test_print_config_says_what_is_set_and_by_whom(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "worker.yaml"
    file.write_text("slots: 2x4\nname: box\n")
    monkeypatch.setenv("MODELREPO_CPU_SLOTS", "3")
    args = ["worker", "--config", str(file), "--name", "mine", "--print-config"]
    assert main(args) == 0
    text = capsys.readouterr().out
    assert f"slots: 2x4  # {file}" in text
    assert main([*args, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["name"] == {"value": "mine", "from": "--name"}
    assert shown["cpu_slots"] == {"value": 3, "from": "MODELREPO_CPU_SLOTS"}
    assert shown["allow_builds"] == {"value": False, "from": "default"}


def test_print_config_says_where_repository_and_queue_come_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MODELREPO_REPO", "MODELREPO_QUEUE", "MODELREPO_FILES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "worker.yaml").write_text("")
    (tmp_path / "modelrepo.toml").write_text('repo = "repository"\nqueue = "queue.db"\n')
    assert main(["worker", "--config", "worker.yaml", "--print-config", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    said = str(tmp_path / "modelrepo.toml")
    assert shown["repo"] == {"value": str(tmp_path / "repository"), "from": said}
    assert shown["queue"]["from"] == said and str(tmp_path / "queue.db") in shown["queue"]["value"]
    assert shown["files"] == {"value": None, "from": "default"}


@pytest.mark.parametrize("text", ["slotz: 1\n", "- a\n", "cpu_slots: many\n"])
def test_a_worker_yaml_that_cannot_be_used_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    file = tmp_path / "worker.yaml"
    file.write_text(text)
    assert main(["worker", "--config", str(file), "--print-config"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert str(file) in shown.err
    assert shown.err.count("\n") == 1
