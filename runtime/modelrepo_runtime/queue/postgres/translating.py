"""The one seam at which errors of the server and its driver become ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import errors

from modelrepo.errors import InvalidInput, ModelRepoError, NoSpace, Unreachable

COLLISIONS = (
    errors.SerializationFailure,
    errors.DeadlockDetected,
    errors.UniqueViolation,
    errors.LockNotAvailable,
    errors.IdleInTransactionSessionTimeout,
)
"""Two calls met, or this process stood still in the middle of one; the same call again finds what others left."""


class Collision(Exception):
    """A transaction was undone because it met another one; it may be run again."""


class Dropped(Exception):
    """A connection ended before it was told to commit: whatever was asked of it has not happened."""


class NoPartition(Exception):
    """The tables have no partition yet for the day of a new job."""


@contextmanager
def translated(shown_url: str) -> Iterator[None]:
    """Turn the driver's errors into ours. Raises: Collision, NoPartition; Unreachable, NoSpace, InvalidInput."""
    try:
        yield
    except ModelRepoError:
        raise
    except psycopg.Error as error:
        raise _translate(error, shown_url) from error
    except UnicodeEncodeError as error:
        raise InvalidInput(f"queue {shown_url} cannot hold {error.object!a}: it is no valid Unicode") from error


def _translate(error: psycopg.Error, url: str) -> Exception:
    what = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if isinstance(error, COLLISIONS):
        return Collision(what)
    if isinstance(error, errors.CheckViolation) and "no partition of relation" in what:
        return NoPartition(what)
    if isinstance(error, errors.UndefinedTable | errors.UndefinedColumn):
        return InvalidInput(
            f"queue {url} has another schema: {what}; bring it up to date with `modelrepo queue migrate`"
        )
    if isinstance(error, errors.DiskFull):
        return NoSpace(f"cannot write to queue {url}: its disk is full; free space and try again")
    if isinstance(error, psycopg.DataError):
        return InvalidInput(f"queue {url} cannot hold what it was given: {what}")
    if isinstance(error, psycopg.ProgrammingError) and not isinstance(error, errors.InsufficientPrivilege):
        return error  # a mistake of ours, not of the server
    if isinstance(error, errors.InsufficientPrivilege):
        return Unreachable(f"queue {url} refuses: {what}; grant its user the rights of the tables' owner")
    return Unreachable(f"queue {url} did not answer: {what}; check that the server runs and the address is right")
