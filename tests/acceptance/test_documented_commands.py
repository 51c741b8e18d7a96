"""Every command that README.md and docs/ show is run here, document by document.

How to write one:

- Commands stand in a fenced block that says ```console. A line `$ command` is run; a line `> more` continues it; every
  other line is output that it should print.
- Output is compared loosely: standard output and standard error together, blank lines and trailing blanks aside, and
  `...` stands for anything, inside a line or, alone on a line, for any number of lines. A command that shows no output
  may print what it likes.
- A command must end with 0, except where the output that is shown has a line beginning with `error: `: then it must
  not.
- The commands of one document run in one shell, in order, in an empty folder of their own, with a home of their own and
  no MODELREPO_* variables. What they start in the background is ended with the shell.
- `<!-- setup: command -->` on a line of its own runs a command that the reader does not see, such as making what an
  earlier page made. `$TESTS` is this folder. `$HELLO` holds a model `hello`, a `repository` in which its v1 is live and
  a `modelrepo.toml` that names it and `queue.db`: made once, for `cp -r $HELLO/. .`.
- `<!-- not run: reason -->` on the line above a block leaves that block out. Such blocks are listed and counted.
- Shell commands in blocks of other kinds (```sh, ```bash, ```shell) are refused, so that none escapes.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
LIMIT_S = 240  # for one document

CONFIGURED = r"printf 'repo = \"repository\"\nqueue = \"queue.db\"\n' > modelrepo.toml"

SETUP = re.compile(r"<!-- setup: (.+) -->")
NOT_RUN = re.compile(r"<!-- not run: (.+) -->")


@dataclass(frozen=True)
class Command:
    line: int
    text: str
    output: tuple[str, ...] = ()

    @property
    def fails(self) -> bool:
        return any(line.startswith("error: ") for line in self.output)


@dataclass(frozen=True)
class Skipped:
    line: int
    reason: str
    commands: tuple[str, ...]


@dataclass(frozen=True)
class Blocks:
    commands: tuple[Command, ...]
    skipped: tuple[Skipped, ...]
    refused: tuple[int, ...]


def read(text: str) -> Blocks:
    """Find the commands of one document."""
    commands: list[Command] = []
    skipped: list[Skipped] = []
    refused: list[int] = []
    lines = text.splitlines()
    at = 0
    reason: str | None = None
    while at < len(lines):
        line = lines[at].strip()
        at += 1
        if setup := SETUP.fullmatch(line):
            commands.append(Command(at, setup[1]))
        elif marked := NOT_RUN.fullmatch(line):
            reason = marked[1]
        elif line.startswith("```") and line != "```":
            begun, block = at, []
            while at < len(lines) and lines[at].strip() != "```":
                block.append(lines[at])
                at += 1
            at += 1
            kind = line.removeprefix("```").strip()
            if kind == "console":
                found = list(_commands(begun + 1, block))
                if reason is None:
                    commands += found
                else:
                    skipped.append(Skipped(begun, reason, tuple(command.text for command in found)))
            elif kind in ("sh", "bash", "shell", "zsh") and reason is None:
                refused.append(begun)
            reason = None
        elif line:
            reason = None
    return Blocks(tuple(commands), tuple(skipped), tuple(refused))


def _commands(first: int, block: list[str]) -> Iterator[Command]:
    text: str | None = None
    output: list[str] = []
    begun = first
    for number, line in enumerate(block, first):
        if line.startswith("$ "):
            if text is not None:
                yield Command(begun, text, tuple(output))
            begun, text, output = number, line[2:], []
        elif (line == ">" or line.startswith("> ")) and text is not None and not output:
            text += "\n" + line[2:]
        elif line.strip():
            output.append(line.rstrip())
    if text is not None:
        yield Command(begun, text, tuple(output))


def matches(shown: tuple[str, ...], printed: str) -> bool:
    """Say whether what was printed is what is shown, `...` standing for anything."""
    if not shown:
        return True
    pattern = ""
    for line in shown:
        if line.strip() == "...":
            pattern += r"(?:[^\n]*\n)*"
        else:
            pattern += r"[^\n]*".join(re.escape(part.strip()) for part in line.split("...")) + r"\n"
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in lines)) is not None


def run(commands: tuple[Command, ...], folder: Path, hello: Path | None = None) -> list[str]:
    """Run commands in one shell, and return what was not as shown."""
    home = folder / "home"
    home.mkdir()
    (folder / "work").mkdir()
    marker = "-- documented command ended with"
    script = "".join(f"{{\n{command.text}\n}} 2>&1; printf '\\n%s %s\\n' '{marker}' $?\n" for command in commands)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MODELREPO_", "XDG_", "CI"))}
    environment |= {
        "HOME": str(home),
        "TESTS": str(Path(__file__).parent),
        "HELLO": str(hello),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PIP_CONFIG_FILE": os.environ.get("PIP_CONFIG_FILE", str(Path.home() / ".config" / "pip" / "pip.conf")),
        "UV_CACHE_DIR": os.environ.get("UV_CACHE_DIR", str(Path.home() / ".cache" / "uv")),
    }
    output = folder / "output"
    with output.open("wb") as written:
        shell = subprocess.Popen(
            ["bash", "--norc", "--noprofile", "-c", script],
            cwd=folder / "work",
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            shell.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            pass
        finally:
            try:
                os.killpg(shell.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            shell.wait()
    printed = re.split(rf"\n{marker} (\d+)\n", output.read_text(errors="replace"))
    return list(_differences(commands, printed))


def _differences(commands: tuple[Command, ...], printed: list[str]) -> Iterator[str]:
    for number, command in enumerate(commands):
        if 2 * number + 1 >= len(printed):
            yield f"line {command.line}: $ {command.text}\ndid not end within {LIMIT_S} s; so far:\n{printed[-1]}"
            return
        text, code = printed[2 * number], int(printed[2 * number + 1])
        if (code != 0) != command.fails:
            yield f"line {command.line}: $ {command.text}\nended with {code}:\n{text}"
        elif not matches(command.output, text):
            shown = "\n".join(command.output)
            yield f"line {command.line}: $ {command.text}\nshown:\n{shown}\nprinted:\n{text}"


@pytest.fixture(scope="module")
def hello(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hello")
    lines = (
        "modelrepo new hello",
        "modelrepo init --repo repository",
        CONFIGURED,
        "modelrepo push hello --lock --promote",
    )
    assert run(tuple(Command(number, line) for number, line in enumerate(lines)), folder) == []
    return folder / "work"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_of_the_document_do_what_it_shows(document: Path, tmp_path: Path, hello: Path) -> None:
    blocks = read(document.read_text(encoding="utf-8"))
    assert not blocks.refused, f"write these blocks as ```console: lines {blocks.refused}"
    if blocks.commands:
        differences = run(blocks.commands, tmp_path, hello)
        assert not differences, "\n\n".join(differences)


def test_blocks_that_are_not_run_are_listed_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    found = [
        f"  {document.relative_to(ROOT)}:{block.line}: {block.reason}: {'; '.join(block.commands)}"
        for document in DOCUMENTS
        for block in read(document.read_text(encoding="utf-8")).skipped
    ]
    with capsys.disabled():
        print("\n" + "\n".join([f"documented blocks that are not run: {len(found)}", *found]))


EXAMPLE = """
<!-- setup: echo made > file -->
```console
$ cat file
made
$ printf 'a\\nb\\nc\\n'
a
...
$ echo "one" \\
> "two 17 three"
one two ... three
$ echo 'error: bad'; false
error: bad
```
<!-- not run: needs a GPU -->
```console
$ modelrepo worker
```
```sh
ls
```
"""


def test_a_document_is_read_as_its_rules_say(tmp_path: Path) -> None:
    blocks = read(EXAMPLE)
    assert blocks.commands[0].text == "echo made > file"
    assert len(blocks.commands) == 5
    assert blocks.skipped == (Skipped(16, "needs a GPU", ("modelrepo worker",)),)
    assert blocks.refused == (19,)
    assert run(blocks.commands, tmp_path) == []


def test_what_differs_is_said(tmp_path: Path) -> None:
    blocks = read("```console\n$ echo a\nb\n$ false\n```")
    differences = run(blocks.commands, tmp_path)
    assert "line 2: $ echo a" in differences[0]
    assert "ended with 1" in differences[1]
