import io
from pathlib import Path
from typing import Any

import click
import pytest

from modelrepo.errors import InvalidInput, InvalidJobInput
from modelrepo_cli import job_inputs, parameters, progress

SCHEMAS: dict[str, dict[str, Any]] = {
    "prompt": {"type": "string"},
    "steps": {"type": "integer"},
    "image": {"type": "string", "format": "file"},
}


@pytest.mark.parametrize(("text", "seconds"), [("500ms", 0.5), ("30", 30), ("30s", 30), ("5m", 300), ("2h", 7200)])
def test_durations_read_as_seconds(text: str, seconds: float) -> None:
    assert parameters.DURATION.convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "m", "-1s", "5 weeks", "video-gen@v2"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        parameters.DURATION.convert(text, None, None)


def test_shares_read_as_fractions() -> None:
    assert parameters.SHARE.convert("2%", None, None) == 0.02
    assert parameters.SHARE.convert("0.5", None, None) == 0.5
    with pytest.raises(click.BadParameter):
        parameters.SHARE.convert("200%", None, None)


@pytest.mark.parametrize("pair", ["x", "=1"])
def test_assignments_need_a_key_and_a_value(pair: str) -> None:
    with pytest.raises(InvalidInput, match="key=value"):
        parameters.assignments([pair], "-i")


def test_an_input_given_twice_is_refused() -> None:
    with pytest.raises(InvalidInput, match="twice"):
        parameters.assignments(["a=1", "a=2"], "-i")


@pytest.mark.parametrize("text", ['{"a": NaN}', '{"a": 1, "a": 2}', "[1]", "{", "3"])
def test_documents_are_strict_json_objects(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    with pytest.raises(InvalidJobInput, match="standard input"):
        parameters.document("-", "--input")


def test_inputs_are_read_by_the_models_schema(tmp_path: Path) -> None:
    picture = tmp_path / "in.png"
    picture.write_bytes(b"x")
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("a cat")
    given = ["prompt=123", "steps=4", f"image=@{picture}", "free=[1]", "word=cat"]
    assert job_inputs.read(given, None, SCHEMAS) == {
        "prompt": "123",
        "steps": 4,
        "image": picture,
        "free": [1],
        "word": "cat",
    }
    assert job_inputs.read([f"prompt=@{prompt}"], None, SCHEMAS) == {"prompt": "a cat"}


def test_a_single_input_outranks_the_document(tmp_path: Path) -> None:
    file = tmp_path / "f.json"
    file.write_text('{"steps": 1, "prompt": "x"}')
    assert job_inputs.read(["steps=2"], f"@{file}", SCHEMAS) == {"steps": 2, "prompt": "x"}


def test_what_the_schema_cannot_take_is_named_by_pointer() -> None:
    with pytest.raises(InvalidJobInput, match="integer") as caught:
        job_inputs.read(["steps=many"], None, SCHEMAS)
    assert caught.value.pointer == "/steps"


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is not there"):
        job_inputs.read([f"image=@{tmp_path}/none.png"], None, SCHEMAS)


def test_progress_waits_redraws_seldom_and_clears_itself() -> None:
    now = [0.0]
    stream = io.StringIO()
    bar = progress.Bar(stream, clock=lambda: now[0])
    bar("sending", 1, 100)
    assert stream.getvalue() == ""
    now[0] = 1.0
    bar("sending", 50, 100)
    bar("sending", 60, 100)
    assert stream.getvalue().count("sending") == 1
    assert "50%" in stream.getvalue()
    bar.clear()
    assert stream.getvalue().endswith("\r\x1b[K")
