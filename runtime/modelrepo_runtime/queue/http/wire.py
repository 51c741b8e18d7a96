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
from typing import Any, TypeAlias, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from modelrepo.errors import InvalidInput, ModelRepoError
from modelrepo_runtime.jobs import Json
from modelrepo_runtime.remote.failures import tell, told

T = TypeVar("T")
Place: TypeAlias = "str | tuple[Place, str]"
"""Where in a message a value is: the place around it and what is added to that; written out only for errors."""
_WORDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
_FORMS: frozenset[type] = frozenset({str, int, float, bool, type(None), list, dict})
"""What JSON is read as."""


@dataclass(frozen=True, slots=True)
class Codec:
    """How values of one type are written and read; `read` is given the place that it reads, for errors."""

    write: Callable[[Any], Json]
    read: Callable[[Json, Place], Any]
    is_one: Callable[[Any], bool]
    forms: frozenset[type]
    """What of JSON may be one; anything else is refused."""


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
        return Codec(lambda value: value, lambda value, _: value, lambda _: True, _FORMS)
    if kind is None or kind is type(None):
        return Codec(lambda _: None, _read_none, lambda value: value is None, frozenset({type(None)}))
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


def _read_none(value: Json, place: Place) -> None:
    if value is not None:
        raise _refused(place, "nothing", value)


def _plain(kind: type) -> Codec:
    accepted = (int, float) if kind is float else (kind,)
    forms = frozenset(accepted)

    def read_plain(value: Json, place: Place) -> Any:
        if value.__class__ not in forms and (not isinstance(value, accepted) or isinstance(value, bool)):
            raise _refused(place, _WORDS[kind], value)
        return value

    return Codec(lambda value: value, read_plain, lambda value: isinstance(value, accepted), forms)


def _union(members: list[Codec]) -> Codec:
    of_form: dict[type, Codec] = {}
    for form in _FORMS:
        possible = [member for member in members if form in member.forms]
        if len(possible) == 1:
            of_form[form] = possible[0]

    def write_one(value: Any) -> Json:
        return next(member for member in members if member.is_one(value)).write(value)

    def read_one(value: Json, place: Place) -> Any:
        only = of_form.get(value.__class__)
        if only is not None:
            return only.read(value, place)
        refused: list[Misread] = []
        for member in members:
            try:
                return member.read(value, place)
            except Misread as error:
                refused.append(error)
        # The one that came farthest says best what is wrong.
        raise max(refused, key=lambda error: str(error).partition(":")[0].count(".") + str(error).count("["))

    forms = frozenset[type]().union(*(member.forms for member in members))
    return Codec(write_one, read_one, lambda value: any(member.is_one(value) for member in members), forms)


def _record(members: list[Codec]) -> Codec:
    def read_record(value: Json, place: Place) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(value) != len(members):
            raise _refused(place, f"a list of {len(members)}", value)
        return tuple(
            member.read(each, (place, f"[{at}]")) for at, (member, each) in enumerate(zip(members, value, strict=True))
        )

    return Codec(
        lambda value: [member.write(each) for member, each in zip(members, value, strict=True)],
        read_record,
        lambda value: isinstance(value, tuple),
        frozenset({list}),
    )


def _many(member: Codec, make: Callable[[Any], Any]) -> Codec:
    def read_many(value: Json, place: Place) -> Any:
        if not isinstance(value, list):
            raise _refused(place, "a list", value)
        return make([member.read(each, (place, f"[{at}]")) for at, each in enumerate(value)])

    return Codec(
        lambda value: [member.write(each) for each in value],
        read_many,
        lambda value: isinstance(value, (tuple, list, frozenset, set)),
        frozenset({list}),
    )


def _mapping(key: Codec, member: Codec) -> Codec:
    def read_mapping(value: Json, place: Place) -> Any:
        if not isinstance(value, dict):
            raise _refused(place, "an object", value)
        return {key.read(name, place): member.read(each, (place, f".{name}")) for name, each in value.items()}

    return Codec(
        lambda value: {key.write(name): member.write(each) for name, each in value.items()},
        read_mapping,
        lambda value: isinstance(value, Mapping),
        frozenset({dict}),
    )


def _enumeration(kind: type[Enum]) -> Codec:
    def read_enumeration(value: Json, place: Place) -> Any:
        try:
            return kind(value)
        except ValueError:
            known = ", ".join(str(each.value) for each in kind)
            raise _refused(place, f"one of {known}", value) from None

    return Codec(lambda value: value.value, read_enumeration, lambda value: isinstance(value, kind), _FORMS)


def _error(kind: type[ModelRepoError]) -> Codec:
    def read_error(value: Json, place: Place) -> Any:
        error = told(value.get("error")) if isinstance(value, dict) else None
        if not isinstance(error, kind):
            raise _refused(place, f"an error of kind {kind.__name__}", value)
        return error

    return Codec(
        lambda value: {"error": tell(value)}, read_error, lambda value: isinstance(value, kind), frozenset({dict})
    )


def _dataclass(kind: type) -> Codec:
    hints = get_type_hints(kind)
    codecs: list[tuple[str, str, Codec, bool]] = []

    def members() -> list[tuple[str, str, Codec, bool]]:
        if not codecs:  # late, since a dataclass may hold another of its kind
            codecs.extend(
                (
                    each.name,
                    f".{each.name}",
                    codec(hints[each.name]),
                    each.default is MISSING and each.default_factory is MISSING,
                )
                for each in fields(kind)
            )
        return codecs

    def write_dataclass(value: Any) -> Json:
        return {name: member.write(getattr(value, name)) for name, _, member, _ in members()}

    def read_dataclass(value: Json, place: Place) -> Any:
        if not isinstance(value, dict):
            raise _refused(place, f"an object ({kind.__name__})", value)
        found: dict[str, Any] = {}
        for name, step, member, is_needed in codecs or members():
            if name in value:
                found[name] = member.read(value[name], (place, step))
            elif is_needed:
                raise _refused(place, f"{name!r} of {kind.__name__}", value)
        return kind(**found)

    return Codec(write_dataclass, read_dataclass, lambda value: isinstance(value, kind), frozenset({dict}))


def _refused(place: Place, wanted: str, value: Json) -> Misread:
    found = repr(value)
    return Misread(
        f"cannot read {_written(place)}: {wanted} is wanted, found {found[:80]}{'..' if len(found) > 80 else ''}"
    )


def _written(place: Place) -> str:
    steps: list[str] = []
    while not isinstance(place, str):
        place, step = place
        steps.append(step)
    return "".join([place, *reversed(steps)])
