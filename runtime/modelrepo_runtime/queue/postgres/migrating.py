"""The schema, in steps of two halves: `pre` before code that needs it starts, `post` after the last that does not.

Between the halves of a step the code before it and the code of it work side by side. Who opens a queue never changes
its schema; `modelrepo queue migrate` does.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

import psycopg

from modelrepo.errors import InvalidInput, NewerFormat
from modelrepo_runtime.queue.postgres import partitions
from modelrepo_runtime.queue.postgres.connecting import connect, shown
from modelrepo_runtime.queue.postgres.translating import translated
from modelrepo_runtime.queue.tiers import SHIPPED_TIERS

HALVES = ("pre", "post")
_TABLE = """
create table if not exists migration (
  number integer not null,
  half text not null,
  name text not null,
  at double precision not null default extract(epoch from clock_timestamp()),
  primary key (number, half)
)
"""


@dataclass(frozen=True, slots=True)
class Half:
    """One file of `migrations/`."""

    number: int
    half: str
    name: str
    text: str

    @property
    def key(self) -> tuple[int, str]:
        return self.number, self.half


def halves(folder: Traversable | None = None) -> tuple[Half, ...]:
    """Return all that this modelrepo knows, in order. Raises: ValueError for a file that stands out of line."""
    found: list[Half] = []
    for entry in (folder or files(__package__) / "migrations").iterdir():
        name, _, rest = entry.name.partition(".")
        if rest not in ("pre.sql", "post.sql"):
            continue
        found.append(Half(int(name[:4]), rest.removesuffix(".sql"), name[5:], entry.read_text(encoding="utf-8")))
    ordered = tuple(sorted(found, key=lambda half: (half.number, HALVES.index(half.half))))
    numbers = [half.number for half in ordered if half.half == "pre"]
    if numbers != list(range(1, len(numbers) + 1)) or any(half.number not in numbers for half in ordered):
        raise ValueError(f"migrations must be numbered from 0001 on, each with a pre half: {numbers}")
    return ordered


def migrate(url: str, *, post: bool = False, known: Sequence[Half] | None = None) -> tuple[str, ...]:
    """Bring a queue's schema up to date; return what ran, such as `0002_fleet.pre`.

    Without `post` the last step stays at its `pre` half, so that gateways of the version before go on; a queue that did
    not exist gets all halves. Steps that have run are left alone; two that migrate at once wait for each other.

    Raises:
        InvalidInput: a step's `pre` half wants the `post` half of an earlier one first.
        NewerFormat
        Unreachable
    """
    wanted = tuple(known or halves())
    with translated(shown(url)), connect(url, {"lock_timeout": "30s"}) as connection, connection.transaction():
        connection.execute("select pg_advisory_xact_lock(hashtext('modelrepo migrate'))")
        connection.execute(_TABLE)
        ran = _ran(connection)
        _refuse_newer(ran, wanted, shown(url))
        todo = _todo(ran, wanted, post=post, url=shown(url))
        for half in todo:
            connection.execute(half.text.encode(), prepare=False)
            row = (half.number, half.half, half.name)
            connection.execute("insert into migration (number, half, name) values ($1, $2, $3)", row)
        if not ran:
            _fill(connection)
        return tuple(f"{half.number:04}_{half.name}.{half.half}" for half in todo)


def check(connection: psycopg.Connection[Any], url: str, known: Sequence[Half] | None = None) -> None:
    """Refuse a queue whose schema this modelrepo does not go with. Raises: InvalidInput, NewerFormat."""
    wanted = tuple(known or halves())
    found = connection.execute("select to_regclass('migration') is not null").fetchone()
    ran = _ran(connection) if found is not None and found[0] else set()
    if not ran:
        raise InvalidInput(
            f"{url} holds no queue yet; make one with `modelrepo queue migrate --queue {shlex.quote(url)}`"
        )
    missing = [half for half in wanted if half.half == "pre" and half.key not in ran]
    if missing:
        raise InvalidInput(
            f"queue {url} has the schema of an older modelrepo, without {missing[0].number:04}_{missing[0].name};"
            f" bring it up to date with `modelrepo queue migrate --queue {shlex.quote(url)}`"
        )
    _refuse_newer(ran, wanted, url)


def _ran(connection: psycopg.Connection[Any]) -> set[tuple[int, str]]:
    return set(connection.execute("select number, half from migration").fetchall())


def _refuse_newer(ran: set[tuple[int, str]], known: Sequence[Half], url: str) -> None:
    """Code of step N goes with the schema of N, and with the `pre` half of N + 1, while newer gateways are started."""
    newest = max(half.number for half in known)
    beyond = [key for key in sorted(ran) if key > (newest + 1, "pre") or (key[0] > newest and key[1] == "post")]
    if beyond:
        raise NewerFormat(
            f"cannot open queue {url}: its schema has {beyond[-1][1]} of step {beyond[-1][0]}, this modelrepo knows"
            f" {newest}; upgrade modelrepo"
        )


def _todo(ran: set[tuple[int, str]], known: Sequence[Half], *, post: bool, url: str) -> list[Half]:
    todo = [half for half in known if half.key not in ran]
    if not ran or post:
        return todo
    before = [half for half in todo if half.half == "pre"]
    waiting = [half for half in todo if half.half == "post"]
    if before and waiting and waiting[0].number < before[-1].number:
        raise InvalidInput(
            f"cannot migrate {url} to step {before[-1].number}: the post half of step {waiting[0].number} has not run;"
            " once no gateway or worker of the version before it is left, run `modelrepo queue migrate --post`"
        )
    return before


def _fill(connection: psycopg.Connection[Any]) -> None:
    for tier in SHIPPED_TIERS:
        row = (tier.name, tier.slo_s, tier.allowed_miss, int(tier.default))
        connection.execute("insert into tier (name, slo_s, allowed_miss, is_default) values ($1, $2, $3, $4)", row)
    now = connection.execute("select extract(epoch from clock_timestamp())::double precision").fetchone()
    assert now is not None
    partitions.make(connection, partitions.missing_days(connection, now[0]))
