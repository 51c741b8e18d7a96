"""The calls of the JobQueue port as messages: paths, arguments and answers, read off the port itself."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, get_type_hints

from modelrepo.errors import InvalidInput
from modelrepo_runtime.jobs import Json
from modelrepo_runtime.queue.http.wire import Misread, read, write
from modelrepo_runtime.queue.port import JobQueue
from modelrepo_runtime.timing import Timing

WORKER_CALLS = frozenset(
    {
        "hello", "goodbye", "claim", "start", "finish", "finish_all", "hand_back", "progress", "beat",
        "take_turn", "renew_turn", "end_turn", "confirm_orders", "refuse_swap", "accept_swap", "halt_of",
        "save_state", "wanted_states",
    }
)  # fmt: skip
"""What a token of the role `worker` may call; the others want `operate`."""
_PATHS = {"save_state": "state"}
"""Calls that are named otherwise on the wire."""
LOCAL_CALLS = frozenset({"waiter", "close", "claim_all", "beat_all"})
"""Not sent as they are: a gateway does these for many at once, or they concern this process alone."""


@dataclass(frozen=True, slots=True)
class Call:
    """One method of the port."""

    name: str
    arguments: Mapping[str, Any]
    answer: Any
    signature: inspect.Signature
    """Without `self`."""

    @property
    def path(self) -> str:
        floor = "worker" if self.name in WORKER_CALLS else "fleet"
        return f"/v1/{floor}/{_PATHS.get(self.name, self.name.replace('_', '-'))}"


@dataclass(frozen=True, slots=True)
class Welcome:
    """What a gateway tells a box before its first session: all that it has to know."""

    cluster: str
    """The cluster of the box's token; `local` where it names none."""
    models: tuple[str, ...]
    """What the token may serve; empty: every model."""
    repository: str
    """The repository's URL behind the gateway, for people; the box reads through the gateway."""
    timing: Timing


@dataclass(frozen=True, slots=True)
class ModelStanding:
    """What a worker must know of a model's jobs and slots in the whole fleet."""

    waiting: int
    slots: int


@dataclass(frozen=True, slots=True)
class Listened:
    """Whether there is news for a listener, and under which name it is listened on."""

    listener: str
    news: bool


@dataclass(frozen=True, slots=True)
class SignedUrl:
    """A URL that opens one key for a while; `url` None: ask the gateway itself for the bytes."""

    url: str | None
    expires_at: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@cache
def calls() -> Mapping[str, Call]:
    """Return every call of the port that can be sent."""
    found: dict[str, Call] = {}
    for name, method in inspect.getmembers(JobQueue, inspect.isfunction):
        if name.startswith("_") or name in LOCAL_CALLS:
            continue
        hints = get_type_hints(method)
        answer = hints.pop("return")
        signature = inspect.signature(method)
        own = [each for each in signature.parameters.values() if each.name != "self"]
        found[name] = Call(name, hints, answer, signature.replace(parameters=own))
    return found


def write_arguments(call: Call, arguments: Mapping[str, Any]) -> dict[str, Json]:
    """Return the arguments as JSON. Raises: InvalidInput where one cannot be told."""
    return {name: write(call.arguments[name], value) for name, value in arguments.items()}


def read_arguments(call: Call, body: Json) -> dict[str, Any]:
    """Return the arguments of a call; what is missing takes the port's default. Raises: Misread."""
    if not isinstance(body, dict):
        raise Misread(f"cannot read the arguments of {call.name}: an object is wanted, found {type(body).__name__}")
    return {
        name: read(kind, body[name], f"{call.name}.{name}") for name, kind in call.arguments.items() if name in body
    }


def to_bytes(document: Json, what: str) -> bytes:
    """Return JSON as it is sent. Raises: InvalidInput for what JSON cannot say."""
    try:
        return json.dumps(document, allow_nan=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"cannot send {what}: it is no JSON: {error}") from error
