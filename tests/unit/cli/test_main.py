import json
import os
import subprocess
import sys
import types
from collections.abc import Callable, Iterator

import click
import pytest

from modelrepo import errors
from modelrepo_cli import exit_codes, main, output
from modelrepo_cli.verbs import Call, verb

HEAVY = ("torch", "fsspec", "s3fs", "uv", "jsonschema", "yaml", "numpy", "sqlite3", "pynvml", "psutil", "filelock")


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[BaseException], None]]:
    """Put a command in the place of `explain` that raises what it is given."""
    held: list[BaseException] = []

    @verb("queue")
    @click.argument("job")
    def command(_call: Call, job: str) -> None:
        raise held[0]

    module = types.ModuleType("modelrepo_cli.commands.explain")
    module.command = command  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "modelrepo_cli.commands.explain", module)
    yield held.append


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; from modelrepo_cli.main import main; main(['--help']);"
        f"print('loaded:', sorted(set(sys.modules) & set({HEAVY!r})), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == "loaded: []\n"
    assert "promote" in done.stdout


def test_the_help_of_every_verb_imports_nothing_heavy() -> None:
    program = (
        "import sys; from modelrepo_cli.main import main, SECTIONS;"
        "[main([v.name, '--help']) for s in SECTIONS.values() for v in s if v.name != 'demo'];"
        f"print('loaded:', sorted(set(sys.modules) & set({HEAVY!r})), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == "loaded: []\n"


def test_summaries_in_the_list_are_the_verbs_own() -> None:
    context = click.Context(main.cli)
    for section in main.SECTIONS.values():
        for listed in section:
            command = main.cli.get_command(context, listed.name)
            assert command is not None
            assert (command.help or "").splitlines()[0] == listed.summary, listed.name


def test_every_verb_has_json_and_shows_its_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    context = click.Context(main.cli)
    for section in main.SECTIONS.values():
        for listed in section:
            assert main.main([listed.name, "--help"]) == 0
            shown = capsys.readouterr().out
            assert "Exit codes:" in shown, listed.name
            command = main.cli.get_command(context, listed.name)
            subs = list(command.commands.values()) if isinstance(command, click.Group) else [command]
            for sub in subs:
                assert sub is not None
                assert "--json" in [option for parameter in sub.params for option in parameter.opts], listed.name


def test_version_is_the_distributions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("modelrepo 0.")


def test_no_arguments_show_help_on_standard_error_and_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main([]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("Usage: modelrepo ")
    assert "  promote   Make a version the active one.\n" in shown.err


def test_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["psh"]) == 2
    assert capsys.readouterr().err == "error: no such command 'psh', did you mean push?; see 'modelrepo --help'\n"


def test_usage_errors_are_one_line_and_json_where_asked(
    capsys: pytest.CaptureFixture[str], failing: Callable[[BaseException], None]
) -> None:
    assert main.main(["explain", "--json"]) == 2
    shown = capsys.readouterr()
    assert shown.err == "error: missing argument 'JOB'; see 'modelrepo explain --help'\n"
    assert json.loads(shown.out)["error"]["code"] == "usage"
    assert main.main(["explain", "--wrong", "x"]) == 2
    shown = capsys.readouterr()
    assert shown.err.count("\n") == 1
    assert "'--wrong'" in shown.err
    assert shown.out == ""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidInput("a"), 2),
        (errors.SecretMissing("a"), 2),
        (errors.ModelNotFound("a"), 3),
        (errors.VersionExists("a"), 4),
        (errors.AlreadyServed("a"), 4),
        (errors.Unreachable("a"), 5),
        (errors.Forbidden("a"), 5),
        (errors.NotConverged("a"), 6),
        (errors.NoSpace("a"), 1),
        (errors.EntrypointFailed("a"), 1),
        (errors.NewerFormat("a"), 1),
        (KeyboardInterrupt(), 130),
        (RuntimeError("a"), 1),
    ],
)
def test_each_class_has_its_exit_code(
    error: BaseException, code: int, failing: Callable[[BaseException], None], capsys: pytest.CaptureFixture[str]
) -> None:
    failing(error)
    assert main.main(["explain", "j"]) == code
    assert capsys.readouterr().out == ""


def test_errors_are_one_line_and_one_json_object_with_their_facts(
    failing: Callable[[BaseException], None], capsys: pytest.CaptureFixture[str]
) -> None:
    failing(errors.InvalidSpec("unknown key 'nmae'\nnearest is 'name'", line=3, key="nmae"))
    assert main.main(["explain", "j", "--json"]) == 2
    shown = capsys.readouterr()
    assert shown.err == "error: model.yaml:3: unknown key 'nmae'; nearest is 'name'\n"
    assert json.loads(shown.out) == {
        "error": {
            "code": "invalid_spec",
            "message": "model.yaml:3: unknown key 'nmae'; nearest is 'name'",
            "path": "model.yaml",
            "line": 3,
            "key": "nmae",
            "problem": "unknown key 'nmae'\nnearest is 'name'",
        }
    }


def test_logs_stand_below_the_line(
    failing: Callable[[BaseException], None], capsys: pytest.CaptureFixture[str]
) -> None:
    failing(errors.EntrypointFailed("cannot import model:M", log="Traceback\nImportError: x"))
    assert main.main(["explain", "j"]) == 1
    assert capsys.readouterr().err == "error: cannot import model:M\n  | Traceback\n  | ImportError: x\n"


def test_unexpected_errors_show_their_traceback_only_when_asked(
    failing: Callable[[BaseException], None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELREPO_DEBUG", "0")
    failing(RuntimeError("bad"))
    assert main.main(["explain", "j"]) == 1
    assert capsys.readouterr().err.startswith("error: unexpected RuntimeError: bad; run it again with --debug")
    assert main.main(["explain", "j", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_full_disk_is_named(failing: Callable[[BaseException], None], capsys: pytest.CaptureFixture[str]) -> None:
    failing(OSError(28, "No space left on device", "/cache/x"))
    assert main.main(["explain", "j", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "no_space"


def test_a_folder_that_may_not_be_written_is_named(
    failing: Callable[[BaseException], None], capsys: pytest.CaptureFixture[str]
) -> None:
    failing(OSError(30, "Read-only file system", "/home/.cache"))
    assert main.main(["explain", "j", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)["error"]
    assert told["code"] == "unusable_path"
    assert told["message"] == "cannot use /home/.cache: Read-only file system; change its rights or name another folder"


def test_a_closed_reader_is_met_in_silence() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "modelrepo_cli", "--help"], stdout=writing, stderr=subprocess.PIPE, check=False
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (exit_codes.OUTPUT_CLOSED, b"")


def test_tables_and_facts_line_up() -> None:
    assert output.table(("A", "LONG"), [("xyz", 1), ("", None)]) == "A    LONG\nxyz  1\n"
    assert output.facts({"a": 1, "long": "x", "none": None}) == "a     1\nlong  x"
    assert output.size(512) == "512 B"
    assert output.size(3 * 2**30) == "3.0 GiB"
    assert [output.span(given) for given in (0.44, 5, 60, 75, 7200, 90000)] == [
        "0.4 s",
        "5 s",
        "1 min",
        "1 min 15 s",
        "2 h",
        "1 d 1 h",
    ]
