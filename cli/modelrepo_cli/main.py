"""The `modelrepo` command: finds the verb, runs it, and turns what goes wrong into one line and an exit code."""

from __future__ import annotations

import importlib
import os
import sys
import threading
import traceback
from collections.abc import Sequence
from dataclasses import dataclass

import click

from modelrepo_cli import exit_codes, failures, output
from modelrepo_cli.output import OutputClosedError
from modelrepo_cli.verbs import write_exit_codes


@dataclass(frozen=True, slots=True)
class Listed:
    """A verb as `--help` shows it, without importing it. A test holds `summary` to the verb's own first line."""

    name: str
    summary: str


SECTIONS: dict[str, tuple[Listed, ...]] = {
    "Write a model": (
        Listed("new", "Make a working model folder to start from."),
        Listed("import", "Make a model folder from one that others have published."),
        Listed("check", "Check a model folder without an accelerator."),
        Listed("run", "Run a model folder or a version here, once, without a queue."),
        Listed("shell", "Open an interactive Python in a model's environment."),
    ),
    "Keep it in the repository": (
        Listed("init", "Make a repository and probe what its store can do."),
        Listed("push", "Publish a model folder as an immutable version."),
        Listed("list", "List models, or the versions of one."),
        Listed("show", "Show what a version is made of."),
        Listed("diff", "Show what differs between two versions."),
        Listed("pull", "Fetch a version as a folder that you can edit."),
        Listed("copy", "Copy versions from one repository into another."),
        Listed("adapter", "Publish and list adapters, such as LoRAs, that jobs name."),
        Listed("vendor", "Put the wheels of a version's environment beside it, for the platform of this box."),
    ),
    "Say what is live": (
        Listed("promote", "Make a version the active one."),
        Listed("edit", "Edit a model's active.yaml and record the change."),
        Listed("rollback", "Go back to the version before, and block the one that is left."),
        Listed("block", "Refuse a version for promotion."),
        Listed("unblock", "Allow a blocked version again."),
        Listed("history", "List every change of what is live, newest first."),
    ),
    "Keep it in order": (
        Listed("delete", "Delete a version; prune frees its bytes."),
        Listed("verify", "Read all that a version needs, and say what is not what it should be."),
        Listed("prune", "Free what nothing names any more, in two steps a day apart."),
    ),
    "Serve it": (
        Listed("worker", "Serve models on this box."),
        Listed("gateway", "Serve the API to clients, workers and operators."),
        Listed("token", "Make, list and revoke the tokens of a gateway."),
        Listed("doctor", "Say what this box can reach, how fast, and what it can serve."),
        Listed("status", "Show what every worker serves, and why."),
        Listed("workers", "Rule workers: look at them, drain, cordon, restart and assign their slots."),
        Listed("top", "Watch lanes, slots and jobs."),
        Listed("events", "Tell what happened to the fleet: workers, slots, breakers, promotions, policies, orders."),
        Listed("submit", "Send a job."),
        Listed("jobs", "List, show, cancel, retry and delete jobs."),
        Listed("tiers", "Show and set tiers and their longest acceptable waits."),
        Listed("tenants", "Show and set the shares that tenants have of a tier."),
        Listed("queue", "Look after the queue."),
        Listed("explain", "Say why a job is where it is, or what a worker could take."),
        Listed("simulate", "Play a day of jobs by the queue's own rules: the launch day, or yours."),
        Listed("demo", "See the whole story on this box: push, serve, swap, roll back."),
    ),
}


class Verbs(click.Group):
    """The top-level group: knows every verb by name, imports the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return every verb's name, in the order of `--help`."""
        return [listed.name for section in SECTIONS.values() for listed in section]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of `cmd_name` and return its command."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = importlib.import_module(f"modelrepo_cli.commands.{cmd_name}").command
        command.name = cmd_name
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb, and name the nearest one where there is none."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            import difflib

            near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            ctx.fail(f"no such command {args[0]!r}" + (f", did you mean {near[0]}?" if near else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the verbs by section, from the table alone."""
        for title, section in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(listed.name, listed.summary) for listed in section], col_max=12)
        write_exit_codes(formatter)


def _version(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        from importlib.metadata import version

        click.echo(f"modelrepo {version('modelrepo-toolkit')}")
        ctx.exit()


@click.command(
    cls=Verbs,
    no_args_is_help=False,  # click makes an error of it, and an error is one line here
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print it and end.")
def cli() -> None:
    """Keep models in a bucket, ship them as immutable versions, serve them and swap them in place."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in args
    try:
        code = _run(args, as_json)
        sys.stdout.flush()
        if code == exit_codes.INTERRUPTED and argv is None:
            _end_now()
        return code
    except (OutputClosedError, BrokenPipeError):  # a broken pipe here is that of the flush above
        # The interpreter flushes standard output once more at exit and would complain there.
        if argv is None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exit_codes.OUTPUT_CLOSED


def _end_now() -> None:
    """End though a thread waits for a server that is silent; whatever it does may break off at any moment."""
    if threading.active_count() > 1:
        sys.stderr.flush()
        os._exit(exit_codes.INTERRUPTED)


def _run(args: list[str], as_json: bool) -> int:
    try:
        # Not through cli.main(), which ends the process by itself on any broken pipe.
        with cli.make_context("modelrepo", args) as context:
            if not args:
                print(context.get_help(), file=sys.stderr)
                return exit_codes.INVALID
            cli.invoke(context)
        return exit_codes.DONE
    except click.exceptions.Exit as end:
        return end.exit_code
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else exit_codes.DONE if end.code is None else exit_codes.FAILED
    except OutputClosedError:
        raise
    except BrokenPipeError as error:
        if output.reader_is_gone():
            raise OutputClosedError from error
        return failures.report(error, as_json=as_json)
    except (KeyboardInterrupt, click.Abort):
        print("interrupted", file=sys.stderr)
        return exit_codes.INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the one place where anything unexpected becomes a line and a code
        if os.environ.get("MODELREPO_DEBUG") == "1" and not isinstance(error, click.ClickException):
            traceback.print_exception(error)
        return failures.report(error, as_json=as_json)


if __name__ == "__main__":
    sys.exit(main())
