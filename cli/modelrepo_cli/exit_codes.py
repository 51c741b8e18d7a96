"""Which class of error ends the command with which exit code."""

from __future__ import annotations

from modelrepo import errors

DONE = 0
FAILED = 1
INVALID = 2
NOT_FOUND = 3
CONFLICT = 4
UNREACHABLE = 5
NOT_CONVERGED = 6
INTERRUPTED = 130
OUTPUT_CLOSED = 141

MEANINGS: dict[int, str] = {
    DONE: "done",
    FAILED: "failed",
    INVALID: "usage or invalid input; nothing was changed",
    NOT_FOUND: "not found",
    CONFLICT: "conflict, or blocked",
    UNREACHABLE: "store, queue or server unreachable or forbidden",
    NOT_CONVERGED: "written, but not yet converged",
    INTERRUPTED: "interrupted (Ctrl-C)",
    OUTPUT_CLOSED: "the reader of the output went away",
}

_BY_CLASS: tuple[tuple[type[errors.ModelRepoError], int], ...] = (
    (errors.InvalidInput, INVALID),
    (errors.NotFound, NOT_FOUND),
    (errors.Conflict, CONFLICT),
    (errors.Unreachable, UNREACHABLE),
    (errors.NotConverged, NOT_CONVERGED),
)


def exit_code(kind: type[BaseException]) -> int:
    """Return the code that an error of this class ends the process with."""
    for parent, code in _BY_CLASS:
        if issubclass(kind, parent):
            return code
    return FAILED
