"""Writes docs/reference/ from the commands themselves: `python -m modelrepo_cli.reference [FOLDER]`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from modelrepo_cli import exit_codes
from modelrepo_cli.main import SECTIONS, cli

WIDTH = 100
_MADE = "<!-- Written by `python -m modelrepo_cli.reference`; a test holds it in step. Do not edit. -->"

_ERRORS = """\
An error is one line on standard error, `error: what failed, on what, what was found; what to do`, and below it,
indented, the last lines of a log where there is one. With `--json`, standard output holds one object:
`{"error": {"code": .., "message": ..}}`, with the error's facts (`path`, `line`, `pointer`, `log` and the like) beside
the message. `code` is one of:"""


def pages() -> Mapping[str, str]:
    """Return every page of the reference by its file name."""
    return {"cli.md": _commands(), "exit-codes.md": _exit_codes()}


def write(folder: Path) -> None:
    """Write the pages into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


def _commands() -> str:
    root = _context("modelrepo", cli)
    parts = [
        _MADE,
        "",
        "# Commands",
        "",
        "What `--help` says of each. Exit codes are on [their own page](exit-codes.md).",
        "",
    ]
    for title, section in SECTIONS.items():
        parts += [f"## {title}", ""]
        for listed in section:
            command = cli.get_command(root, listed.name)
            assert command is not None
            for path, found in _walk(f"modelrepo {listed.name}", command):
                level = "###" if path.count(" ") == 1 else "####"
                parts += [f"{level} {path}", "", "```text", _help(path, found), "```", ""]
    return "\n".join(parts)


def _walk(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name, found in command.commands.items():
            yield f"{path} {name}", found


def _help(path: str, command: click.Command) -> str:
    text = _context(path, command).get_help()
    return text.partition("\nExit codes:")[0].rstrip()


def _context(path: str, command: click.Command) -> click.Context:
    return click.Context(
        command, info_name=path, terminal_width=WIDTH, max_content_width=WIDTH, help_option_names=["-h", "--help"]
    )


def _exit_codes() -> str:
    rows = [f"| {code} | {meaning} |" for code, meaning in exit_codes.MEANINGS.items()]
    return "\n".join(
        [
            _MADE,
            "",
            "# Exit codes",
            "",
            "| code | meaning |",
            "|---|---|",
            *rows,
            "",
            _ERRORS,
            "",
            *[f"- `{name}`: exit {code}. {meaning}" for name, code, meaning in _kinds()],
            "",
        ]
    )


def _kinds() -> Iterator[tuple[str, int, str]]:
    from modelrepo import errors
    from modelrepo_cli.failures import JobUnsuccessful, kind

    yield "usage", exit_codes.INVALID, "The command line cannot be read."
    for value in [*vars(errors).values(), JobUnsuccessful]:
        if isinstance(value, type) and issubclass(value, errors.ModelRepoError) and value is not errors.ModelRepoError:
            yield kind(value), exit_codes.exit_code(value), (value.__doc__ or "").partition("\n")[0]
    yield "unusable_path", exit_codes.FAILED, "This box does not let a file or folder be used; the message names it."
    yield "unexpected", exit_codes.FAILED, "Nothing that modelrepo raises on purpose: a fault to report."


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=Path("docs/reference"))
def main(folder: Path) -> None:
    """Write the command reference into FOLDER."""
    write(folder)


if __name__ == "__main__":
    main()
