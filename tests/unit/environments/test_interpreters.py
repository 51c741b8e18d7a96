from __future__ import annotations

import sys
from pathlib import Path

import pytest

from modelrepo.environments.interpreters import (
    choose_interpreter,
    inspect,
    interpreters,
    named_interpreter,
    version_specifier,
)
from modelrepo.errors import InterpreterMissing, InvalidInput

OWN = ".".join(map(str, sys.version_info[:3]))


def fake_python(path: Path, version: str, implementation: str = "cpython") -> Path:
    """Write a program that answers as a Python of this version would."""
    path.parent.mkdir(parents=True, exist_ok=True)
    answer = (
        f'{{"version": "{version}", "implementation": "{implementation}", "final": true, '
        f'"base": "{path}", "platform": "linux_x86_64"}}'
    )
    path.write_text(f"#!/bin/sh\necho '{answer}'\n")
    path.chmod(0o755)
    return path


def test_the_running_python_is_preferred() -> None:
    found = choose_interpreter(version_specifier(">=3.8")).path
    assert found.is_absolute()
    assert not found.is_symlink()
    own = inspect(Path(sys.executable))
    assert own is not None
    assert (found, own.version) == (own.path, OWN)


def test_otherwise_the_newest_that_fits(tmp_path: Path) -> None:
    fake_python(tmp_path / "bin" / "python3.90", "3.90.4")
    newest = fake_python(tmp_path / ".pyenv" / "versions" / "3.91.2" / "bin" / "python3", "3.91.2")
    fake_python(tmp_path / ".pyenv" / "versions" / "3.92.0" / "bin" / "python3", "3.92.0", "pypy")
    environ = {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path)}
    assert choose_interpreter(version_specifier(">=3.90"), environ).path == newest
    assert choose_interpreter(version_specifier("3.90"), environ).tag == "cp390"


def test_a_shim_is_never_taken_for_a_python(tmp_path: Path) -> None:
    fake_python(tmp_path / "shims" / "python3", "3.90.1")
    assert "3.90.1" not in {
        one.version for one in interpreters({"PATH": str(tmp_path / "shims"), "HOME": str(tmp_path)})
    }


def test_a_missing_python_lists_what_the_box_has(tmp_path: Path) -> None:
    fake_python(tmp_path / "bin" / "python3.90", "3.90.4")
    with pytest.raises(InterpreterMissing, match=rf"no Python ==3.89.\* on this box: it has {OWN}, 3.90.4"):
        choose_interpreter(version_specifier("3.89"), {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path)})


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("3.11", "3.11.9", "3.12.0"),
        ("3.11.7", "3.11.7", "3.11.8"),
        (">=3.11,<3.13", "3.12.1", "3.13.0"),
        ("cpython-3.12", "3.12.0", "3.11.0"),
    ],
)
def test_versions_are_written_in_several_ways(text: str, inside: str, outside: str) -> None:
    assert version_specifier(text).contains(inside)
    assert not version_specifier(text).contains(outside)


def test_what_is_no_version_is_refused() -> None:
    with pytest.raises(InvalidInput, match="is no Python version"):
        version_specifier("three")


def test_a_python_may_be_named_by_path_or_as_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = fake_python(tmp_path / "bin" / "python3.90", "3.90.4")
    monkeypatch.setenv("PATH", str(there.parent))
    assert named_interpreter(there) == named_interpreter(Path("python3.90")) == there
    link = tmp_path / "venv-python"
    link.symlink_to(there)
    assert named_interpreter(link) == link
    for named in ("gone", tmp_path / "gone"):
        with pytest.raises(InterpreterMissing, match="gone is no CPython that runs"):
            named_interpreter(Path(named))


def test_a_python_on_which_no_model_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InterpreterMissing, match=r"is Python 3\.8\.18, models run on 3\.9 and later"):
        named_interpreter(fake_python(tmp_path / "python3.8", "3.8.18"))


def test_what_does_not_run_is_no_python(tmp_path: Path) -> None:
    assert inspect(tmp_path / "gone") is None
    (tmp_path / "python3").write_text("no program")
    assert inspect(tmp_path / "python3") is None
