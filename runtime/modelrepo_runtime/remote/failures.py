"""Our errors as JSON and back, so that whoever asks through a gateway catches what the gateway caught."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from modelrepo.errors import (
    Conflict,
    Forbidden,
    InvalidInput,
    ModelRepoError,
    NewerFormat,
    NoSpace,
    NotFound,
    Unreachable,
)

PROTOCOL = 1
"""Of the calls between workers, operators and gateways. A gateway serves this one and the one before."""
PROTOCOL_HEADER = "Modelrepo-Protocol"

_STATUS: tuple[tuple[type[ModelRepoError], int], ...] = (
    (Forbidden, 403),
    (Unreachable, 503),
    (NotFound, 404),
    (Conflict, 409),
    (NewerFormat, 426),
    (NoSpace, 507),
    (InvalidInput, 422),
)
_PLAIN = (str, int, float, bool)


def code_of(kind: type[BaseException]) -> str:
    """Return a class's name as a code: StaleFence -> stale_fence."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


def status_of(error: ModelRepoError) -> int:
    """Return the HTTP status that an error is answered with."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def tell(error: ModelRepoError) -> dict[str, Any]:
    """Write an error down. `kinds` names its class and those above, for peers that do not know the newest."""
    kinds = [code_of(kind) for kind in type(error).__mro__ if issubclass(kind, ModelRepoError)]
    facts = {name: value for name, value in vars(error).items() if isinstance(value, _PLAIN) and name[0] != "_"}
    message = str(error).encode("utf-8", "backslashreplace").decode()  # of what no UTF-8 can say, too
    return {"code": kinds[0], "kinds": kinds, "message": message, "facts": facts}


def told(document: object, status: int | None = None) -> ModelRepoError | None:
    """Return the error that `tell` wrote; None where it is none of ours."""
    if not isinstance(document, Mapping) or not isinstance(document.get("message"), str):
        return None
    known = {code_of(kind): kind for kind in _tree(ModelRepoError)}
    kinds = [document.get("code"), *(document.get("kinds") or ())]
    kind = next((known[each] for each in kinds if each in known), None)
    if kind is None:
        return None
    # Not through its own constructor, which may want what the message was made of.
    error = kind.__new__(kind)
    Exception.__init__(error, document["message"])
    if isinstance(error, Unreachable):
        error.transient, error.status = not isinstance(error, Forbidden), status
    facts = document.get("facts")
    for name, value in facts.items() if isinstance(facts, Mapping) else ():
        if isinstance(name, str) and name.isidentifier() and isinstance(value, _PLAIN):
            setattr(error, name, value)
    return error


def _tree(kind: type[ModelRepoError]) -> Iterator[type[ModelRepoError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _tree(child)
