import json
from pathlib import Path

import pytest

from modelrepo.contract import load_spec
from modelrepo_cli.main import main


def test_new_writes_a_folder_that_reads_as_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "cat-maker"
    assert main(["new", str(folder), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["model"] == "cat-maker"
    assert sorted(answer["files"]) == sorted(str(path) for path in folder.iterdir())
    spec = load_spec(folder)
    assert spec.name == "cat-maker"
    modeline = (folder / "model.yaml").read_text().splitlines()[0]
    assert modeline == "# yaml-language-server: $schema=model.schema.json"
    json.loads((folder / "model.schema.json").read_text())


def test_new_leaves_a_folder_that_holds_something_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("x")
    assert main(["new", str(tmp_path / "mine")]) == 4
    assert "it exists already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "file"]


def test_new_fills_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert main(["new", str(tmp_path / "mine"), "--name", "other"]) == 0
    assert load_spec(tmp_path / "mine").name == "other"


def test_what_comes_next_can_be_typed_as_it_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "my models" / "first one"
    assert main(["new", str(folder), "--name", "first"]) == 0
    assert f"modelrepo check '{folder}'; modelrepo run '{folder}' -i text=hi\n" in capsys.readouterr().out


def test_new_refuses_a_name_that_is_not_allowed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", str(tmp_path / "Bad Name"), "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "invalid_name"
    assert not list(tmp_path.iterdir())
