"""A debugger after a failure and an interactive session, on the terminal that the process was given."""

from __future__ import annotations

import code
import pdb  # noqa: T100 - --pdb is for that
import sys

from . import entrypoint
from .context import Context
from .failures import models_traceback
from .frames import Message


def post_mortem(error: BaseException) -> None:
    """Open pdb where the exception was raised."""
    print(f"{type(error).__name__}: post-mortem; `q` leaves", file=sys.stderr)
    pdb.post_mortem(models_traceback(error))


def open_shell(start: Message) -> int:
    """Read lines from the terminal with `ctx` and the model's class at hand."""
    context = Context(start)
    found = entrypoint.find(start["entrypoint"], start["code_roots"])
    name = start["entrypoint"].rpartition(":")[2].rpartition(".")[2]
    names = {"ctx": context, name: found, "__name__": "__console__"}
    try:
        import readline
        import rlcompleter

        readline.set_completer(rlcompleter.Completer(names).complete)
        readline.parse_and_bind("tab: complete")
    except ImportError:
        pass
    version = sys.version.split()[0]
    banner = (
        f"{start['model']} ({context.version}), Python {version}: `ctx` and `{name}`; model = {name}(); model.load(ctx)"
    )
    code.interact(banner=banner, local=names, exitmsg="")
    return 0
