"""Keep-alive HTTP/1.1 on asyncio's streams: as little as a load of thousands of connections needs."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Self

from modelrepo_runtime.remote.failures import PROTOCOL, PROTOCOL_HEADER

TRIES = 60
PAUSE_S = 0.5


class Refused(Exception):
    """An answer that is no success."""


class Line:
    """One connection to a gateway."""

    def __init__(self, host: str, port: int, token: str) -> None:
        self._host, self._port = host, port
        self._head = (
            f"Host: {host}:{port}\r\nAuthorization: Bearer {token}\r\n{PROTOCOL_HEADER}: {PROTOCOL}\r\n"
            "Content-Type: application/json\r\n"
        )
        self.refused = 0
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def open(self) -> Self:
        """Connect."""
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port, limit=1 << 16)
        return self

    async def post(self, path: str, body: bytes) -> Any:
        """Ask, again where the gateway is too busy, and return the JSON of the answer. Raises: Refused."""
        for _ in range(TRIES):
            status, data = await self._ask(path, body)
            if status < 300:
                return json.loads(data)
            if status != 503:
                break
            self.refused += 1
            await asyncio.sleep(PAUSE_S)
        raise Refused(f"{path}: {status} {data[:500]!r}")

    async def _ask(self, path: str, body: bytes) -> tuple[int, bytes]:
        assert self._reader is not None and self._writer is not None
        head = f"POST {path} HTTP/1.1\r\n{self._head}Content-Length: {len(body)}\r\n\r\n"
        self._writer.write(head.encode() + body)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in answer.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        data = await self._reader.readexactly(length)
        return int(answer[9:12]), data

    def close(self) -> None:
        """Disconnect."""
        if self._writer is not None:
            self._writer.close()
