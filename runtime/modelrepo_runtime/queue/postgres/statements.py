"""Statements as PostgreSQL wants them: numbered placeholders, and many rows at once as arrays."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

_TOKEN = re.compile(r"'(?:[^']|'')*'|--[^\n]*|\?(\d*)")
_INSERT = re.compile(r"insert into (\w+) \(([\w\s,]+)\)\s*values \(([?,\s]+)\)\s*(on conflict.*)?", re.DOTALL)
_DELETE = re.compile(r"delete from (\w+) where ((?:\w+ = \?)(?: and \w+ = \?)*)")
_NUMBERS, _TEXT = {int, float}, {str}
_BETWEEN = "\0"
"""No text that the server takes contains it."""
_TYPES: Mapping[type, str] = {int: "bigint", float: "double precision", str: "text"}
_COMMENT = re.compile(r"--[^\n]*\n?")


def numbered(text: str) -> str:
    """Return a statement with `$1` for `?1`, and for the first `?`."""
    count = 0

    def place(found: re.Match[str]) -> str:
        nonlocal count
        token = found[0]
        if token[0] != "?":
            return token
        count += 1
        return f"${found[1] or count}"

    return _TOKEN.sub(place, text)


def inserts(text: str) -> bool:
    """True for a plain insert, of which `over_arrays` can take some values as they are."""
    return _INSERT.fullmatch(_COMMENT.sub("", text).strip()) is not None


def over_arrays(text: str, types: Mapping[tuple[str, str], str], same: Collection[int] = ()) -> str | None:
    """Return the statement that does for arrays, one a column, what `text` does for a row; None where it is not plain.

    `types` has the type of every (table, column). Columns of an insert whose places are in `same` are no arrays: they
    are the same in all rows.
    """
    plain = _COMMENT.sub("", text).strip()
    insert = _INSERT.fullmatch(plain)
    if insert is not None:
        table, columns = insert[1], [column.strip() for column in insert[2].split(",")]
        if len(columns) != insert[3].count("?"):
            return None
        kinds = [types[table, column] for column in columns]
        chosen = [f"${n}::{kind}" if n - 1 in same else f"c{n}" for n, kind in enumerate(kinds, start=1)]
        places = [n for n in range(1, len(columns) + 1) if n - 1 not in same]
        given = ", ".join(f"${n}::{kinds[n - 1]}[]" for n in places)
        names = ", ".join(f"c{n}" for n in places)
        rows = f"select {', '.join(chosen)} from unnest({given}) as given ({names}) {insert[4] or ''}"
        return f"insert into {table} ({', '.join(columns)}) {rows}".strip()
    delete = _DELETE.fullmatch(plain)
    if delete is None:
        return None
    table, columns = delete[1], re.findall(r"(\w+) = ", delete[2])
    if len(columns) == 1:  # a join may read a whole index of rows that are dead, but still seen by somebody
        return f"delete from {table} where {columns[0]} = any($1::{types[table, columns[0]]}[])"
    given = _arrays(types[table, column] for column in columns)
    names = ", ".join(columns)
    condition = " and ".join(f"{table}.{column} = given.{column}" for column in columns)
    return f"delete from {table} using unnest({given}) as given ({names}) where {condition}"


def for_each(text: str, types: Sequence[type]) -> str:
    """Return the statement that does for arrays, one a value, what a query of `?1`, `?2`.. finds for one row of values.

    The last column is the number of the row of values, from 1.
    """
    query = re.sub(r"\?(\d+)", r"given.v\1", _COMMENT.sub("", text).strip())
    given = _arrays(_TYPES[each] for each in types)
    names = ", ".join(f"v{number}" for number in range(1, len(types) + 1))
    table = f"unnest({given}) with ordinality as given ({names}, n)"
    return f"select found.*, given.n from {table} cross join lateral ({query}) found"


def _arrays(types: Iterable[str]) -> str:
    return ", ".join(f"${number}::{kind}[]" for number, kind in enumerate(types, start=1))


def array(values: Sequence[object]) -> str:
    """Write a list as PostgreSQL reads an array."""
    kinds = set(map(type, values))
    if kinds <= _NUMBERS:
        return "{" + ",".join(map(repr, values)) + "}"
    if kinds == _TEXT:
        joined = _BETWEEN.join(values)  # type: ignore[arg-type]
        return '{"' + joined.replace("\\", "\\\\").replace('"', '\\"').replace(_BETWEEN, '","') + '"}'
    return "{" + ",".join([_element(value) for value in values]) + "}"


def _element(value: object) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return _number(value)


def dumped(value: object) -> bytes | None:
    """Write one value as text of no type; the statement says which it is."""
    if value is None:
        return None
    if isinstance(value, str):
        return value.encode()
    return _number(value).encode()


def _number(value: object) -> str:
    if value is True or value is False:
        return "1" if value else "0"  # flags are integers in every table
    if isinstance(value, int | float):
        return repr(value)
    raise TypeError(f"a statement takes text and numbers, not {type(value).__name__}")
