"""Open the queue's file: refuse what cannot be trusted, and bring its schema up to date inside the turnstile."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

from modelrepo.errors import Corrupt, InvalidInput, ModelRepoError, NewerFormat, NoSpace, Unreachable
from modelrepo_runtime.queue.sqlite.filesystems import network_type
from modelrepo_runtime.queue.sqlite.turnstile import Turnstile
from modelrepo_runtime.queue.tiers import SHIPPED_TIERS

APPLICATION_ID = 0x6D727131
"""`mrq1`, written into the file's header."""
CHECKPOINT_PAGES = 1000
"""Length of the write-ahead log (4 MiB) from which a commit, and so the turnstile, copies it into the database."""


def connect(path: Path, checkpoint_pages: int = 0) -> sqlite3.Connection:
    """Return a connection that starts and ends its transactions by hand; one that only reads never checkpoints."""
    connection = sqlite3.connect(
        path, timeout=5.0, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    connection.row_factory = sqlite3.Row
    connection.execute("pragma synchronous = full")
    connection.execute(f"pragma wal_autocheckpoint = {checkpoint_pages}")
    connection.execute(f"pragma journal_size_limit = {16 * 4096 * CHECKPOINT_PAGES}")
    connection.execute("pragma temp_store = memory")
    return connection


def prepare(path: Path, turnstile: Turnstile) -> sqlite3.Connection:
    """Open the database for writing, making or migrating it first.

    Raises: NewerFormat; InvalidInput for a file that is no queue; Corrupt; Unreachable.
    """
    with turnstile.turn(), translated(path):
        connection = connect(path, CHECKPOINT_PAGES)
        try:
            _check_kind(connection, path)
            if connection.execute("pragma journal_mode = wal").fetchone()[0] != "wal":
                raise InvalidInput(f"cannot open queue {path}: its filesystem does not allow a write-ahead log")
            _migrate(connection, path)
        except BaseException:
            connection.close()
            raise
        return connection


def identity(path: Path) -> tuple[int, int] | None:
    """Say which file lies at `path`: one that was deleted or replaced while it is open is no longer everybody's."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def refuse_network(path: Path) -> None:
    """Raises: InvalidInput where `path` is on a network filesystem."""
    kind = network_type(path.parent)
    if kind is not None:
        raise InvalidInput(
            f"cannot open queue {path}: it is on a network filesystem ({kind}), where file locks cannot be trusted;"
            " choose a local folder with --queue or MODELREPO_QUEUE"
        )


def migrations() -> list[tuple[str, str]]:
    """Return (name, SQL) of every migration, in order; the n-th brings the schema to number n."""
    folder = files(__package__) / "migrations"
    found = sorted(
        (entry.name, entry.read_text(encoding="utf-8")) for entry in folder.iterdir() if entry.name[:4].isdigit()
    )
    for number, (name, _) in enumerate(found, start=1):
        if int(name[:4]) != number:
            raise ValueError(f"migration {name} stands where number {number} should")
    return found


def apply_script(connection: sqlite3.Connection, script: str) -> None:
    """Run each statement of a script in the transaction that is open."""
    pending = ""
    for line in script.splitlines():
        pending += line + "\n"
        if sqlite3.complete_statement(pending):
            connection.execute(pending)
            pending = ""


def _check_kind(connection: sqlite3.Connection, path: Path) -> None:
    kind = connection.execute("pragma application_id").fetchone()[0]
    tables = connection.execute("select count(*) from sqlite_master").fetchone()[0]
    if tables and kind != APPLICATION_ID:
        raise InvalidInput(
            f"cannot open queue {path}: it is an SQLite database of another program; choose another file"
        )


def make(connection: sqlite3.Connection) -> None:
    """Give an empty database all that a queue has."""
    connection.row_factory = sqlite3.Row
    for _, script in migrations():
        apply_script(connection, script)
    _first_tiers(connection)


def _first_tiers(connection: sqlite3.Connection) -> None:
    rows = [(tier.name, tier.slo_s, tier.allowed_miss, int(tier.default)) for tier in SHIPPED_TIERS]
    connection.executemany("insert into tier (name, slo_s, allowed_miss, is_default) values (?, ?, ?, ?)", rows)


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    known = migrations()
    number = connection.execute("pragma user_version").fetchone()[0]
    if number > len(known):
        raise NewerFormat(
            f"cannot open queue {path}: its schema has number {number}, this modelrepo knows {len(known)};"
            " upgrade modelrepo"
        )
    if number == len(known):
        return
    connection.execute("begin immediate")
    try:
        for _, script in known[number:]:
            apply_script(connection, script)
        connection.execute(f"pragma user_version = {len(known)}")
        connection.execute(f"pragma application_id = {APPLICATION_ID}")
        if number == 0:
            _first_tiers(connection)
        connection.execute("commit")
    except BaseException:
        connection.execute("rollback")
        raise


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn the errors of SQLite and of the files beside it into ours, at this one seam."""
    try:
        yield
    except ModelRepoError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_space(path) from error
        raise Unreachable(f"cannot open queue {path}: {error.strerror}; check the folder's rights") from error
    except sqlite3.Error as error:
        raise _translate(error, path) from error


def _no_space(path: Path) -> NoSpace:
    return NoSpace(f"cannot write to queue {path}: the disk is full; free space and try again")


def _translate(error: sqlite3.Error, path: Path) -> Exception:
    code = getattr(error, "sqlite_errorcode", None)
    primary = code & 0xFF if isinstance(code, int) else None
    if primary == sqlite3.SQLITE_FULL:
        return _no_space(path)
    if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return Corrupt(
            f"cannot read queue {path}: {error}; move the file away and start with an empty queue", path=str(path)
        )
    return Unreachable(f"queue {path} did not answer: {error}; check the folder's rights and its disk")
