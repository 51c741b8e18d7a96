"""Dataclasses to JSON and back, by their type hints; the same on both sides of a gateway.

What a hint calls Json passes through as it is. A field that is missing takes its default, one that is not known is
ignored: a newer peer may say more than we understand. Any other shape is refused, with the place where it is.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from modelrepo.errors import InvalidInput, ModelRepoError
from modelrepo_runtime.jobs import Json
from modelrepo_runtime.remote.failures import tell, told

T = TypeVar("T")
_WORDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


@dataclass(frozen=True, slots=True)
class Codec:
    """How values of one type are written and read; `read` is given the place that it reads, for errors."""

    write: Callable[[Any], Json]
    read: Callable[[Json, str], Any]
    is_one: Callable[[Any], bool]


class Misread(InvalidInput):
    """A message has another shape than the call's."""


def write(kind: Any, value: object) -> Json:
    """Return `value`, which is of this type, as JSON."""
    return codec(kind).write(value)


def read(kind: type[T], value: Json, what: str) -> T:
    """Return the value of this type that JSON stands for; `what` names the message in errors. Raises: Misread."""
    return cast(T, codec(cast(Any, kind)).read(value, what))


@cache
def codec(kind: Any) -> Codec:
    """Return the codec of a type: plain, optional, a union, a collection, an enumeration, an error or a dataclass."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return Codec(lambda value: value, lambda value, _: value, lambda _: True)
    if kind is None or kind is type(None):
        return Codec(lambda _: None, _read_none, lambda value: value is None)
    if kind in _WORDS:
        return _plain(kind)
    if origin in (Union, types.UnionType):
        return _union([codec(member) for member in arguments])
    if origin is tuple and arguments[-1] is not Ellipsis:
        return _record([codec(member) for member in arguments])
    if origin in (tuple, frozenset, Sequence, list):
        make = {tuple: tuple, frozenset: frozenset}.get(origin, tuple)
        return _many(codec(arguments[0]), make)
    if origin is Mapping or origin is dict:
        return _mapping(codec(arguments[0]), codec(arguments[1]))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _enumeration(kind)
    if isinstance(kind, type) and issubclass(kind, ModelRepoError):
        return _error(kind)
    if isinstance(kind, type) and is_dataclass(kind):
        return _dataclass(kind)
    raise TypeError(f"no message can carry {kind!r}; use dataclasses, collections and plain values")


def _read_none(value: Json, place: str) -> None:
    if value is not None:
        raise _refused(place, "nothing", value)


def _plain(kind: type) -> Codec:
    accepted = (int, float) if kind is float else kind

    def read_plain(value: Json, place: str) -> Any:
        if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
            raise _refused(place, _WORDS[kind], value)
        return value

    return Codec(lambda value: value, read_plain, lambda value: isinstance(value, accepted))


def _union(members: list[Codec]) -> Codec:
    def write_one(value: Any) -> Json:
        return next(member for member in members if member.is_one(value)).write(value)

    def read_one(value: Json, place: str) -> Any:
        refused: list[Misread] = []
        for member in members:
            try:
                return member.read(value, place)
            except Misread as error:
                refused.append(error)
        # The one that came farthest says best what is wrong.
        raise max(refused, key=lambda error: str(error).partition(":")[0].count(".") + str(error).count("["))

    return Codec(write_one, read_one, lambda value: any(member.is_one(value) for member in members))


def _record(members: list[Codec]) -> Codec:
    def read_record(value: Json, place: str) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(value) != len(members):
            raise _refused(place, f"a list of {len(members)}", value)
        return tuple(
            member.read(each, f"{place}[{at}]") for at, (member, each) in enumerate(zip(members, value, strict=True))
        )

    return Codec(
        lambda value: [member.write(each) for member, each in zip(members, value, strict=True)],
        read_record,
        lambda value: isinstance(value, tuple),
    )


def _many(member: Codec, make: Callable[[Any], Any]) -> Codec:
    def read_many(value: Json, place: str) -> Any:
        if not isinstance(value, list):
            raise _refused(place, "a list", value)
        return make(member.read(each, f"{place}[{at}]") for at, each in enumerate(value))

    return Codec(
        lambda value: [member.write(each) for each in value],
        read_many,
        lambda value: isinstance(value, (tuple, list, frozenset, set)),
    )


def _mapping(key: Codec, member: Codec) -> Codec:
    def read_mapping(value: Json, place: str) -> Any:
        if not isinstance(value, dict):
            raise _refused(place, "an object", value)
        return {key.read(name, place): member.read(each, f"{place}.{name}") for name, each in value.items()}

    return Codec(
        lambda value: {key.write(name): member.write(each) for name, each in value.items()},
        read_mapping,
        lambda value: isinstance(value, Mapping),
    )


def _enumeration(kind: type[Enum]) -> Codec:
    def read_enumeration(value: Json, place: str) -> Any:
        try:
            return kind(value)
        except ValueError:
            known = ", ".join(str(each.value) for each in kind)
            raise _refused(place, f"one of {known}", value) from None

    return Codec(lambda value: value.value, read_enumeration, lambda value: isinstance(value, kind))


def _error(kind: type[ModelRepoError]) -> Codec:
    def read_error(value: Json, place: str) -> Any:
        error = told(value.get("error")) if isinstance(value, dict) else None
        if not isinstance(error, kind):
            raise _refused(place, f"an error of kind {kind.__name__}", value)
        return error

    return Codec(lambda value: {"error": tell(value)}, read_error, lambda value: isinstance(value, kind))


def _dataclass(kind: type) -> Codec:
    hints = get_type_hints(kind)
    codecs: list[tuple[str, Codec, bool]] = []

    def members() -> list[tuple[str, Codec, bool]]:
        if not codecs:  # late, since a dataclass may hold another of its kind
            codecs.extend(
                (each.name, codec(hints[each.name]), each.default is MISSING and each.default_factory is MISSING)
                for each in fields(kind)
            )
        return codecs

    def write_dataclass(value: Any) -> Json:
        return {name: member.write(getattr(value, name)) for name, member, _ in members()}

    def read_dataclass(value: Json, place: str) -> Any:
        if not isinstance(value, dict):
            raise _refused(place, f"an object ({kind.__name__})", value)
        found: dict[str, Any] = {}
        for name, member, is_needed in members():
            if name in value:
                found[name] = member.read(value[name], f"{place}.{name}")
            elif is_needed:
                raise _refused(place, f"{name!r} of {kind.__name__}", value)
        return kind(**found)

    return Codec(write_dataclass, read_dataclass, lambda value: isinstance(value, kind))


def _refused(place: str, wanted: str, value: Json) -> Misread:
    found = repr(value)
    return Misread(f"cannot read {place}: {wanted} is wanted, found {found[:80]}{'..' if len(found) > 80 else ''}")
