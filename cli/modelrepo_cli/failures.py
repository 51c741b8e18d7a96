"""How a command fails: one line for people, one JSON object for machines, an exit code."""

from __future__ import annotations

import errno
import json
import re
import sys
from collections.abc import Mapping
from typing import Any

import click

from modelrepo.errors import ModelRepoError
from modelrepo_cli import exit_codes, output

_FULL = {errno.ENOSPC, errno.EDQUOT}
_UNUSABLE = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG}


class JobUnsuccessful(ModelRepoError):
    """The job that was waited for ended without success."""

    def __init__(self, message: str, job: Mapping[str, Any]) -> None:
        self.job = dict(job)
        super().__init__(message)


def report(error: BaseException, *, as_json: bool, program: str = "modelrepo") -> int:
    """Print `error` and return the exit code that goes with it."""
    code, message, facts, exit_code = describe(error, program)
    print(f"error: {message}", file=sys.stderr)
    for line in str(facts.get("log", "")).splitlines():
        print(f"  | {line}", file=sys.stderr)
    if as_json:
        document = {"error": {"code": code, "message": message, **facts}}
        output.write(json.dumps(document, indent=2, ensure_ascii=False))
    return exit_code


def describe(error: BaseException, program: str) -> tuple[str, str, dict[str, Any], int]:
    """Return code, one-line message, facts and exit code of `error`."""
    if isinstance(error, click.UsageError):
        where = error.ctx.command_path if error.ctx is not None else program
        return "usage", f"{_sentence(error.format_message())}; see '{where} --help'", {}, exit_codes.INVALID
    if isinstance(error, click.ClickException):
        return "invalid_input", _sentence(error.format_message()), {}, exit_codes.INVALID
    if isinstance(error, ModelRepoError):
        code = kind(type(error))
        return code, _one_line(str(error)) or code, _facts(error), exit_codes.exit_code(type(error))
    if isinstance(error, OSError) and error.errno in _FULL:
        where = f" {error.filename}" if error.filename else ""
        return "no_space", f"cannot write{where}: {error.strerror}; free some space and run it again", {}, 1
    if isinstance(error, OSError) and error.errno in _UNUSABLE and error.filename:
        message = f"cannot use {error.filename}: {error.strerror}; change its rights or name another folder"
        return "unusable_path", message, {}, exit_codes.FAILED
    what = _one_line(str(error)) or "no message"
    message = f"unexpected {type(error).__name__}: {what}; run it again with --debug for the traceback and report it"
    return "unexpected", message, {"type": type(error).__name__}, exit_codes.FAILED


def kind(error: type[BaseException]) -> str:
    """Return a class's name as a code: VersionNotFound -> version_not_found."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", error.__name__).lower()


def _facts(error: ModelRepoError) -> dict[str, Any]:
    public = {name: value for name, value in vars(error).items() if not name.startswith("_")}
    return {name: output.plain(value) for name, value in public.items() if value not in (None, "", (), [], {})}


def _one_line(text: str) -> str:
    return "; ".join(part for line in text.splitlines() if (part := line.strip()))


def _sentence(text: str) -> str:
    line = _one_line(text).rstrip(".").replace(". Did you", ", did you")
    return line[:1].lower() + line[1:] if not line[:2].isupper() else line
