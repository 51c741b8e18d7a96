"""What every command shares: its common options, its exit codes in `--help`, what it was called with."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from modelrepo_cli import exit_codes
from modelrepo_cli.output import Output

if TYPE_CHECKING:
    from modelrepo.repository import Repository
    from modelrepo_cli.progress import Progress
    from modelrepo_runtime.client import Client
    from modelrepo_runtime.queue.port import JobQueue

T = TypeVar("T")
ASK_AGAIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Call:
    """The common options of one call, and what they open."""

    repo: str | None
    queue: str | None
    files: str | None
    output: Output
    token_file: Path | None = None

    def repository(self, *, mirrors: Sequence[str] = ()) -> Repository:
        """Open the repository: `--repo`, else MODELREPO_REPO, else the nearest modelrepo.toml.

        Objects are read from the repositories `mirrors` first.
        """
        from modelrepo.repository import Repository
        from modelrepo.settings import repository_url
        from modelrepo.stores.mirrored import open_mirrors

        return Repository.open(repository_url(self.repo), mirrors=open_mirrors(mirrors, self.output.note))

    @contextmanager
    def job_queue(self) -> Iterator[JobQueue]:
        """Open the queue: `--queue`, else MODELREPO_QUEUE, else modelrepo.toml, else the user's own."""
        from modelrepo_runtime.queue.opening import default_queue_url, open_queue

        queue = open_queue(default_queue_url(self.queue), token=self._token())
        try:
            yield queue
        finally:
            queue.close()

    @contextmanager
    def client(self) -> Iterator[Client]:
        """Open a client on repository, queue and files."""
        from modelrepo_runtime.client import Client

        client = Client(repo=self.repo, queue=self.queue, files=self.files, token=self._token())
        try:
            yield client
        finally:
            client.close()

    def watching(self, look: Callable[[], T]) -> T:
        """Look once more for who watches: a queue that is away for a while is waited for. Raises: Forbidden."""
        from modelrepo.errors import Forbidden, Unreachable

        away = False
        while True:
            try:
                return look()
            except Forbidden:
                raise
            except Unreachable as error:
                if not away:
                    self.output.note(f"{error}; asking again")
                away = True
                time.sleep(ASK_AGAIN_S)

    def _token(self) -> str | None:
        from modelrepo_runtime.remote.talk import find_token

        return find_token(self.token_file) if self.token_file is not None else None

    @contextmanager
    def progress(self) -> Iterator[Progress | None]:
        """Show progress while long work runs, where somebody watches."""
        from modelrepo_cli.progress import bar

        with bar(as_json=self.output.as_json) as shown:
            yield shown


_REPO = click.Option(["--repo"], metavar="URL", help="The repository [MODELREPO_REPO, or `repo` in modelrepo.toml].")
_QUEUE = click.Option(["--queue"], metavar="URL", help="The queue [MODELREPO_QUEUE, or `queue` in modelrepo.toml].")
_FILES = click.Option(["--files"], metavar="URL", help="Where inputs and outputs lie [beside the queue].")
_JSON = click.Option(["--json", "as_json"], is_flag=True, help="Print one JSON document, also for errors.")
_DEBUG = click.Option(["--debug"], is_flag=True, help="Show the traceback of an unexpected error [MODELREPO_DEBUG=1].")
_TOKEN = click.Option(
    ["--token-file"],
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Holds the token for a gateway [MODELREPO_TOKEN_FILE, or MODELREPO_TOKEN itself].",
)
_SHARED = {"repo": _REPO, "queue": _QUEUE, "files": _FILES, "token": _TOKEN}


class Verb(click.Command):
    """A command whose help ends with its exit codes."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the exit codes below the options."""
        super().format_epilog(ctx, formatter)
        write_exit_codes(formatter)


class VerbGroup(click.Group):
    """A command with sub-commands, of which one is meant where none is named."""

    command_class = Verb
    default_verb = "list"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read `modelrepo jobs --json` as `modelrepo jobs list --json`."""
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = [self.default_verb, *args]
        return super().parse_args(ctx, args)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the exit codes below the sub-commands."""
        super().format_epilog(ctx, formatter)
        write_exit_codes(formatter)


def write_exit_codes(formatter: click.HelpFormatter) -> None:
    """Write the table of exit codes as a section of a help text."""
    with formatter.section("Exit codes"):
        formatter.write_dl([(str(code), meaning) for code, meaning in exit_codes.MEANINGS.items()])


def verb(*shared: str, name: str | None = None, parameters: Sequence[click.Parameter] = ()) -> Callable[[Any], Verb]:
    """Make a function into a command that takes a `Call` first and then its own parameters.

    `shared` names the common options that it takes: repo, queue, files, token. `--json` and `--debug` are always there.
    """

    def decorate(function: Callable[..., None]) -> Verb:
        def run(
            *,
            as_json: bool,
            debug: bool,
            repo: str | None = None,
            queue: str | None = None,
            files: str | None = None,
            **values: Any,
        ) -> None:
            if debug:
                os.environ["MODELREPO_DEBUG"] = "1"
            token_file = values.pop("token_file", None) if "token" in shared else None
            function(Call(repo, queue, files, Output(as_json), token_file), **values)

        run.__doc__ = function.__doc__
        run.__click_params__ = list(getattr(function, "__click_params__", ()))  # type: ignore[attr-defined]
        command = click.command(name, cls=Verb)(run)
        command.params += [*parameters, *[_SHARED[option] for option in shared], _JSON, _DEBUG]
        return command

    return decorate
