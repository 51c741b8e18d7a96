"""Bytes by signed URLs: read whole, in ranges and in pieces, and written; past the gateway, straight to the store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelrepo.errors import Forbidden, NoSpace, ObjectNotFound, Unreachable
from modelrepo_runtime.remote.connection import Answer, Connections, now, put_file

LEAST_LEFT_S = 60.0
"""A URL that runs out sooner is asked for again: what it opens takes a while."""
SILENCE_S = 30.0
SLOWEST_BYTES_PER_S = 1 << 20
"""A PUT is answered only when all of it has arrived: what a server may take for that."""


@dataclass(frozen=True, slots=True)
class Signed:
    """A URL that opens one key for a while, with the headers that go with it."""

    url: str
    expires_at: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_fresh(self) -> bool:
        """Tell whether it will still be good in a while."""
        return self.expires_at is None or self.expires_at - now() > LEAST_LEFT_S

    @classmethod
    def of(cls, told: Any) -> Signed | None:
        """Read what a gateway signed; None where it would rather pass the bytes on itself. Raises: Unreachable."""
        try:
            return None if told["url"] is None else cls(str(told["url"]), told.get("expires_at"))
        except (KeyError, TypeError, AttributeError) as error:
            raise Unreachable(f"the gateway signed {told!r}, which is no URL; is it older than this box?") from error


Sign = Callable[[bool], Signed]
"""Return a URL, a fresh one where the argument is True."""


class SignedBytes:
    """Reads and writes by signed URLs. One that is refused is asked for once more: it may have run out."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def pieces(self, key: str, sign: Sign, start: int = 0) -> Iterator[memoryview]:
        """Yield the bytes from `start` to the end, each piece valid until the next is asked for."""
        headers = {"Range": f"bytes={start}-"} if start else {}
        for fresh in (False, True):
            signed = sign(fresh)
            sent = {**signed.headers, **headers}
            answer, pieces = self._connections.stream(signed.url, headers=sent, timeout_s=SILENCE_S)
            if answer.status in (200, 206):
                yield from _from(pieces, start if answer.status == 200 else 0)
                return
            if answer.status == 416:
                return
            if answer.status not in (401, 403) or fresh:
                raise _fault("read", key, answer)

    def read_range(self, key: str, sign: Sign, start: int, length: int) -> bytes:
        """Return up to `length` bytes, fewer where the object ends."""
        headers = {"Range": f"bytes={start}-{start + length - 1}"}
        answer = self._ask("GET", key, sign, headers)
        if answer.status == 416:
            return b""
        return answer.body if answer.status == 206 else answer.body[start : start + length]

    def read(self, key: str, sign: Sign) -> bytes:
        """Return the bytes."""
        return self._ask("GET", key, sign, {}).body

    def write(self, key: str, sign: Sign, data: bytes | Path) -> None:
        """Write the object whole."""
        for fresh in (False, True):
            signed = sign(fresh)
            size = len(data) if isinstance(data, bytes) else data.stat().st_size
            timeout_s = SILENCE_S + size / SLOWEST_BYTES_PER_S
            if isinstance(data, bytes):
                answer = self._connections.request(
                    "PUT", signed.url, body=data, headers=signed.headers, timeout_s=timeout_s, repeatable=True
                )
            else:
                answer = put_file(self._connections, signed.url, data, signed.headers, timeout_s)
            if 200 <= answer.status < 300:
                return
            if answer.status not in (401, 403) or fresh:
                raise _fault("write", key, answer)

    def _ask(self, method: str, key: str, sign: Sign, headers: Mapping[str, str]) -> Answer:
        for fresh in (False, True):
            signed = sign(fresh)
            sent = {**signed.headers, **headers}
            answer = self._connections.request(method, signed.url, headers=sent, timeout_s=SILENCE_S, repeatable=True)
            if answer.status in (200, 206, 416):
                return answer
            if answer.status not in (401, 403) or fresh:
                raise _fault("read", key, answer)
        raise AssertionError("the second answer returns or raises")


def _from(pieces: Iterator[memoryview], start: int) -> Iterator[memoryview]:
    """Drop what comes before `start`, from a server that does not know ranges."""
    for piece in pieces:
        if start < len(piece):
            yield piece[start:]
        start = max(0, start - len(piece))


def _fault(verb: str, key: str, answer: Answer) -> Exception:
    said = " ".join(answer.body[:200].decode("utf-8", "replace").split())
    if answer.status == 404:
        return ObjectNotFound(f"cannot {verb} {key}: it is not there", key=key)
    if answer.status in (401, 403):
        return Forbidden(f"cannot {verb} {key}: the signed URL is refused: {said}; compare the clocks of both boxes")
    if answer.status == 507:
        return NoSpace(f"cannot {verb} {key}: the store is full: {said}")
    transient = answer.status >= 500 or answer.status in (408, 429)
    return Unreachable(
        f"cannot {verb} {key}: status {answer.status}: {said}", transient=transient, status=answer.status
    )
