"""Tokens: who may ask a gateway for what. The queue keeps them, hashed; only their holders know them whole.

A token reads `mr_<id>_<secret>`. The id finds the record; the secret, 256 random bits, is compared in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol, runtime_checkable

from modelrepo.errors import Conflict, InvalidInput, NotFound
from modelrepo.names import check_model_name
from modelrepo_runtime.queue.port import JobQueue

PREFIX = "mr"
LONGEST_NAME = 100
LONGEST_TOKEN = 200


class Role(StrEnum):
    """What a token is for."""

    SUBMIT = "submit"
    """A product's backend: jobs and files of its tenant."""
    WORKER = "worker"
    """A box that serves models."""
    OPERATE = "operate"
    """An operator: everything, of every tenant."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token allows."""

    role: Role
    tenant: str | None = None
    """None: any tenant."""
    tiers: tuple[str, ...] = ()
    """Empty: any tier."""
    models: tuple[str, ...] = ()
    """Empty: any model."""
    cluster: str | None = None
    """The cluster that a worker's sessions belong to; None: whichever it says."""
    max_queued: int | None = None
    """Jobs of the tenant that may wait at once; None: no limit."""


@dataclass(frozen=True, slots=True)
class Token:
    """A token as it is kept; times are epoch seconds of the queue's clock."""

    id: str
    name: str
    digest: str
    """SHA-256 of the secret, in hex. A secret of 256 random bits needs no slow hash."""
    grant: Grant
    created_at: float = 0.0
    expires_at: float | None = None
    revoked_at: float | None = None

    def live(self, now: float) -> bool:
        """Say whether it still opens anything."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class TokenStore(Protocol):
    """Keeps tokens. Every call is atomic, and durable when it returns. Raises Unreachable where nothing answers."""

    def create(self, name: str, grant: Grant, *, life_s: float | None = None) -> tuple[Token, str]:
        """Make a token; return its record and the token itself, which nobody can read again.

        Raises: Conflict where a live token has this name; InvalidInput.
        """

    def find(self, token_id: str) -> Token | None:
        """Return a live token by its id, None where there is none."""

    def live(self, token_ids: Sequence[str]) -> Mapping[str, Token]:
        """Return those of these tokens that are live, by id."""

    def all(self) -> tuple[Token, ...]:
        """Return every token, also those that ended, the oldest first."""

    def revoke(self, name: str) -> Token:
        """End the live token of this name. Raises: NotFound."""

    def waiting(self, tenant: str, most: int) -> int:
        """Return how many jobs of a tenant wait in the queue, counted to `most`."""


@runtime_checkable
class KeepsTokens(Protocol):
    """A queue that keeps tokens."""

    @property
    def tokens(self) -> TokenStore: ...


def token_store(queue: JobQueue) -> TokenStore:
    """Return where a queue keeps its tokens. Raises: InvalidInput where it keeps none."""
    if isinstance(queue, KeepsTokens):
        return queue.tokens
    raise InvalidInput(f"{queue.url} keeps no tokens; name the database itself with --queue")


def issue(name: str, grant: Grant, now: float, life_s: float | None) -> tuple[Token, str]:
    """Make a token and its record. Raises: InvalidInput."""
    check_grant(name, grant, life_s)
    token_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
    expires_at = None if life_s is None else now + life_s
    token = Token(token_id, name, digest_of(secret), grant, now, expires_at)
    return token, f"{PREFIX}_{token_id}_{secret}"


def read_token(text: str) -> tuple[str, str] | None:
    """Return the id and the secret of what may be a token; None where it is none."""
    prefix, _, rest = text.partition("_")
    token_id, _, secret = rest.partition("_")
    if prefix != PREFIX or not token_id.isalnum() or not secret or len(text) > LONGEST_TOKEN or not text.isascii():
        return None
    return token_id, secret


def opens(token: Token | None, secret: str) -> bool:
    """Say whether a secret is this token's, in the same time whether or not there is one."""
    expected = token.digest if token is not None else digest_of("nobody's")
    return hmac.compare_digest(expected, digest_of(secret)) and token is not None


def digest_of(secret: str) -> str:
    """Return the form in which a secret is kept."""
    return hashlib.sha256(secret.encode()).hexdigest()


def check_grant(name: str, grant: Grant, life_s: float | None) -> None:
    """Refuse a token that could not mean anything. Raises: InvalidInput."""
    for what, text in (("name", name), ("tenant", grant.tenant), ("cluster", grant.cluster)):
        if text is not None and not (0 < len(text) <= LONGEST_NAME and text.isprintable()):
            raise InvalidInput(f"cannot make a token: its {what} {text!a} is not 1 to {LONGEST_NAME} printable letters")
    for model in grant.models:
        check_model_name(model)
    if grant.max_queued is not None and grant.max_queued < 1:
        raise InvalidInput(f"cannot make token {name}: --max-queued {grant.max_queued} would refuse every job")
    if life_s is not None and life_s <= 0:
        raise InvalidInput(f"cannot make token {name}: it would have expired already; give a longer time")
    if grant.role is not Role.WORKER and grant.cluster is not None:
        raise InvalidInput(f"cannot make token {name}: a cluster is for the role worker, this one is {grant.role}")
    if grant.role is not Role.SUBMIT and (grant.tenant or grant.tiers or grant.max_queued):
        raise InvalidInput(f"cannot make token {name}: tenant, tiers and --max-queued are for the role submit")


class MemoryTokens:
    """A TokenStore of this process alone."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._tokens: dict[str, Token] = {}

    def create(self, name: str, grant: Grant, *, life_s: float | None = None) -> tuple[Token, str]:
        """See TokenStore."""
        with self._lock:
            token, text = issue(name, grant, self._clock(), life_s)
            if any(known.name == name and known.live(self._clock()) for known in self._tokens.values()):
                raise name_taken(name)
            self._tokens[token.id] = token
            return token, text

    def find(self, token_id: str) -> Token | None:
        """See TokenStore."""
        with self._lock:
            token = self._tokens.get(token_id)
            return token if token is not None and token.live(self._clock()) else None

    def live(self, token_ids: Sequence[str]) -> Mapping[str, Token]:
        """See TokenStore."""
        found = (self.find(token_id) for token_id in token_ids)
        return {token.id: token for token in found if token is not None}

    def all(self) -> tuple[Token, ...]:
        """See TokenStore."""
        with self._lock:
            return tuple(self._tokens.values())

    def revoke(self, name: str) -> Token:
        """See TokenStore."""
        with self._lock:
            now = self._clock()
            for token in self._tokens.values():
                if token.name == name and token.live(now):
                    self._tokens[token.id] = replace(token, revoked_at=now)
                    return self._tokens[token.id]
        raise no_such(name)

    def waiting(self, tenant: str, most: int) -> int:  # noqa: ARG002
        """See TokenStore. There is no queue here."""
        return 0


def name_taken(name: str) -> Conflict:
    """Return the error for a second live token of one name."""
    return Conflict(f"cannot make token {name}: a live one has this name; revoke it, or choose another name")


def no_such(name: str) -> NotFound:
    """Return the error for a token that is not there, or has ended."""
    return NotFound(f"no live token is named {name}; see `modelrepo token list`")
