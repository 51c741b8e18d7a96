"""What a proxy can do to a request or a connection, and the rules by which it is due."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer without passing the request on; `code` is that of S3's error document."""

    status: int = 503
    code: str = "SlowDown"


@dataclass(frozen=True, slots=True)
class Swallow:
    """Pass the request on, wait for the whole answer, and close instead of giving it: the acknowledgement is lost."""


@dataclass(frozen=True, slots=True)
class CutRequest:
    """Pass on the head and at most so many bytes of the body, then close both ends."""

    after_bytes: int = 0


@dataclass(frozen=True, slots=True)
class CutAnswer:
    """Give the head of the answer and at most so many bytes of its body, then close both ends."""

    after_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Slow:
    """Pass everything on: the request after `latency_s`, then each byte at `bytes_per_s`."""

    latency_s: float = 0.0
    bytes_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class Hang:
    """Take what comes and never answer: half-open. It ends when the client gives up, or with the proxy."""


@dataclass(frozen=True, slots=True)
class Reset:
    """Close with a reset, with nothing passed on."""


Act = Answer | Swallow | CutRequest | CutAnswer | Slow | Hang | Reset
ConnectionAct = Hang | Reset


@dataclass(frozen=True, slots=True)
class Seen:
    """A request that came: on which connection (1 the first), and what was done with it; None: simply passed on."""

    connection: int
    method: str
    target: str
    act: Act | None


@dataclass(slots=True)
class Rule:
    """What is done with some of the requests that match. `struck` counts how often it was done, `begun` awaits it."""

    act: Act
    method: re.Pattern[str]
    target: re.Pattern[str]
    first: int
    times: int | None
    matched: int = field(default=0, init=False)
    struck: int = field(default=0, init=False)
    begun: threading.Event = field(default_factory=threading.Event, init=False)

    def matches(self, method: str, target: str) -> bool:
        """Count a request, and say whether this rule is due for it."""
        if not self.method.fullmatch(method) or not self.target.search(target):
            return False
        self.matched += 1
        return self.matched >= self.first and (self.times is None or self.struck < self.times)


def first_due(rules: list[Rule], method: str = "", target: str = "") -> Act | None:
    """Let every rule count a request; the oldest that is due strikes."""
    due = [rule for rule in rules if rule.matches(method, target)]
    if not due:
        return None
    due[0].struck += 1
    due[0].begun.set()
    return due[0].act
