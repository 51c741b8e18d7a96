"""`modelrepo adapter`, `submit --adapter` and `run --adapter`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from modelrepo.errors import InvalidInput
from modelrepo.pushing.push_options import PushOptions
from modelrepo.repository import Repository
from modelrepo_cli import job_adapters
from modelrepo_cli.main import main
from modelrepo_runtime.client import Client

PROJECT = '[project]\nname = "demo"\nversion = "0"\nrequires-python = ">=3.9"\ndependencies = []\n'
PROJECT += "[tool.uv]\npackage = false\n"
CODE = """
class Demo:
    def load(self, ctx): pass
    def run(self, job): return [[one.name, one.weight, one.path.read_text()] for one in job.adapters]
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with the model `demo`, a queue, and a file of weights in the folder that is at hand."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODELREPO_REPO", (tmp_path / "repo").as_uri())
    monkeypatch.setenv("MODELREPO_QUEUE", str(tmp_path / "queue.db"))
    monkeypatch.setenv("MODELREPO_FILES", (tmp_path / "files").as_uri())
    folder = tmp_path / "demo"
    folder.mkdir()
    yaml = "contract: 1\nname: demo\nentrypoint: model:Demo\n"
    for name, text in (("pyproject.toml", PROJECT), ("model.yaml", yaml), ("model.py", CODE)):
        (folder / name).write_text(text)
    repository = Repository.init((tmp_path / "repo").as_uri(), by="tests")
    version = repository.push(folder, PushOptions(check="none", lock=True)).version
    repository.promotions.promote("demo", version)
    (tmp_path / "style.safetensors").write_text("weights")
    return tmp_path


def ran(capsys: pytest.CaptureFixture[str], *args: str, code: int = 0) -> Any:
    assert main([*args, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_an_adapter_is_published_listed_and_named_by_a_job(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = ran(capsys, "adapter", "push", "style", "style.safetensors", "-m", "first")
    assert (done["name"], done["version"], done["message"]) == ("style", "v1", "first")
    assert ran(capsys, "adapter")["adapters"] == ran(capsys, "adapter", "list", "style")["adapters"] == [done]
    (place / "other.bin").write_text("other")
    given = ("ref:style@v1=0.5", "style.safetensors", "other.bin=-2")
    job = ran(capsys, "submit", "demo", *(part for one in given for part in ("--adapter", one)))
    with Client() as client:
        adapters = client.queue.get(job["id"]).adapters
        keys = [one.key for one in adapters]
        assert [(one.name, one.weight) for one in adapters] == [
            ("style.safetensors", 0.5), ("style.safetensors", 1.0), ("other.bin", -2.0)]  # fmt: skip
        assert keys[0] is None and client.files.read(str(keys[2])) == b"other"


def test_a_run_hands_files_of_this_box_over(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ("run", "demo", "--python", sys.executable)
    found = ran(capsys, *args, "--adapter", "style.safetensors=0.8")
    assert found["result"] == [["style.safetensors", 0.8, "weights"]]
    assert ran(capsys, *args)["result"] == []
    many = [part for _ in range(9) for part in ("--adapter", "style.safetensors")]
    assert "9 adapters are too many" in ran(capsys, *args, *many, code=2)["error"]["message"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("ref:style@v1", {"ref": "style@v1", "weight": 1.0}),
        ("file:file_1=2", {"file": "file_1", "weight": 2.0}),
        ("https://a/x?b=1#sha256=ab", {"url": "https://a/x?b=1", "sha256": "ab", "weight": 1.0}),
        ("https://a/x#sha256=ab&weight=.5", {"url": "https://a/x", "sha256": "ab", "weight": 0.5}),
    ],
)
def test_each_source_has_a_form(text: str, told: dict[str, object]) -> None:
    assert job_adapters.read([text]) == [told]


def test_a_file_whose_name_ends_like_a_weight_is_taken_for_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a=1").write_text("")
    assert job_adapters.read_local(["a=1", "a=1=2"]) == [(Path("a=1"), 1.0), (Path("a=1"), 2.0)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nothing.bin", "nothing.bin is not there"),
        (".", "a folder"),
        ("ref:style@v1=much", "'much' is no weight"),
        ("ref:style@v1=nan", "'nan' is no weight"),
        ("https://a/x", "#sha256=HEX"),
        ("https://a/x#sha256=a&scale=1", "'scale'"),
    ],
)
def test_what_cannot_be_read_is_said(text: str, said: str) -> None:
    with pytest.raises(InvalidInput, match="--adapter") as refused:
        job_adapters.read([text])
    assert said in str(refused.value)
