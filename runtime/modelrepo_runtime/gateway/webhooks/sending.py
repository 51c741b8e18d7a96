"""One try at posting an event: to an address that was judged, no further than there, and not for ever."""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from modelrepo.errors import InvalidInput, Unreachable
from modelrepo_runtime.gateway.addresses import AddressRules, Target
from modelrepo_runtime.gateway.webhooks.signing import Places, body_of, headers_of
from modelrepo_runtime.queue.outbox import Delivery

TOTAL_S = 20.0
"""From the look-up of the name to the last header of the answer; what Standard Webhooks advises."""
CONNECT_S = 10.0
HEAD_BYTES = 16 * 1024
"""The longest head of an answer; its body is of no interest, and read only so that the receiver may end in peace."""
BODY_BYTES, BODY_S = 16 * 1024, 1.0
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5]\d\d)(?: |\r|$)")


@dataclass(frozen=True, slots=True)
class Sent:
    """What came of a try."""

    status: int | None = None
    """HTTP status of the answer; None: there was none."""
    error: str | None = None
    """None: delivered."""
    asked_s: float | None = None
    """How long the receiver asks to be left alone."""
    answered: bool = True
    """False: the receiver was not reached, or hung."""

    @property
    def outcome(self) -> str:
        """One word for counting: delivered, refused or unanswered."""
        return "delivered" if self.error is None else "refused" if self.answered else "unanswered"

    @property
    def gone(self) -> bool:
        """The receiver wants no more events of this kind, ever."""
        return self.status == 410


class Sender:
    """Posts events; may be shared by tasks."""

    def __init__(
        self,
        rules: AddressRules | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        total_s: float = TOTAL_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._rules, self._total_s, self._clock = rules or AddressRules(), total_s, clock
        self._tls = tls or ssl.create_default_context()

    async def send(self, delivery: Delivery, places: Places | None = None) -> Sent:
        """Post an event once. Whatever stands in the way is in the answer, in words."""
        try:
            body = body_of(delivery, places)
            headers = headers_of(delivery, body, self._clock())
            async with asyncio.timeout(self._total_s):
                target = await asyncio.to_thread(self._rules.target, delivery.webhook.url)
                status, asked_s = await self._post(target, headers, body)
        except TimeoutError:
            return Sent(error=f"no answer within {self._total_s:g} s", answered=False)
        except InvalidInput as error:
            return Sent(error=str(error))
        except (OSError, EOFError, Unreachable) as error:
            return Sent(error=str(error) or type(error).__name__, answered=False)
        except asyncio.LimitOverrunError:
            return Sent(error=f"its answer begins with more than {HEAD_BYTES} bytes of headers")
        except ValueError as error:
            return Sent(error=f"its answer is no HTTP: {error}")
        if 200 <= status < 300:
            return Sent(status)
        redirected = "; redirects are not followed, name the last URL" if 300 <= status < 400 else ""
        return Sent(status, f"answered {status}{redirected}", asked_s)

    async def _post(self, target: Target, headers: dict[str, str], body: bytes) -> tuple[int, float | None]:
        reader, writer = await self._connect(target)
        try:
            writer.write(_request(target, headers, body))
            await writer.drain()
            status, asked_s = await _answer(reader)
            with suppress(TimeoutError, OSError):
                async with asyncio.timeout(BODY_S):
                    await _read_on(reader)
            return status, asked_s
        finally:
            writer.close()
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(BODY_S):
                    await writer.wait_closed()

    async def _connect(self, target: Target) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        failed: Exception | None = None
        tls, name = (self._tls, target.host) if target.scheme == "https" else (None, None)
        for address in target.addresses:
            try:
                async with asyncio.timeout(CONNECT_S):
                    return await asyncio.open_connection(
                        address, target.port, limit=HEAD_BYTES, ssl=tls, server_hostname=name
                    )
            except (OSError, TimeoutError) as error:
                failed = error
        raise OSError(f"cannot connect to {target.host}:{target.port}: {failed or 'it has no address'}")


def _request(target: Target, headers: dict[str, str], body: bytes) -> bytes:
    host = f"[{target.host}]" if ":" in target.host else target.host
    default = 443 if target.scheme == "https" else 80
    lines = [
        f"POST {target.path} HTTP/1.1",
        f"host: {host}" if target.port == default else f"host: {host}:{target.port}",
        "user-agent: modelrepo",
        "connection: close",
        f"content-length: {len(body)}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join(lines).encode("ascii") + b"\r\n\r\n" + body


async def _answer(reader: asyncio.StreamReader) -> tuple[int, float | None]:
    """Return the final status and what Retry-After asks for. Raises: ValueError where it is no HTTP."""
    for _ in range(10):
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            found = f"the first bytes are {error.partial[:40]!r}" if error.partial else "it closed without a word"
            raise ValueError(found) from None
        match = _STATUS.match(head)
        if match is None:
            raise ValueError(f"the first bytes are {head[:40]!r}")
        if match[1][:1] != b"1":
            return int(match[1]), _asked_s(head)
    raise ValueError("it never comes to a final status")


def _asked_s(head: bytes) -> float | None:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"retry-after":
            text = value.strip().decode("latin-1")
            if text.isdigit():
                return float(text[:9])
            with suppress(ValueError, TypeError):
                return max(0.0, (parsedate_to_datetime(text).astimezone(UTC) - datetime.now(UTC)).total_seconds())
    return None


async def _read_on(reader: asyncio.StreamReader) -> None:
    left = BODY_BYTES
    while left > 0 and (piece := await reader.read(left)):
        left -= len(piece)
