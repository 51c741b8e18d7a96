"""A server on this box that keeps what webhooks send it, and answers as a test tells it to."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes


Answer: TypeAlias = Callable[[Received, asyncio.StreamWriter], Awaitable[None]]


def says(answer: bytes) -> Answer:
    """Answer every request with these bytes."""

    async def reply(_request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)

    return reply


TAKES_ALL = says(b"HTTP/1.1 204 No Content\r\n\r\n")


@dataclass
class Receiver:
    """A server under `url`."""

    answer: Answer
    port: int = 0
    received: list[Received] = field(default_factory=list)
    _serving: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?of=a"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take one request and close."""
        task = asyncio.current_task()
        if task is not None:
            self._serving.add(task)
        try:
            self.received.append(request := await _read(reader))
            await self.answer(request, writer)
            await writer.drain()
        except (ConnectionError, EOFError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    def hang_up(self) -> None:
        """End what still serves."""
        for task in self._serving:
            task.cancel()


async def _read(reader: asyncio.StreamReader) -> Received:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
    headers = {name: value for name, _, value in (line.partition(": ") for line in lines)}
    return Received(first.split(" ")[1], headers, await reader.readexactly(int(headers["content-length"])))


@asynccontextmanager
async def receiving(answer: Answer = TAKES_ALL, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """Serve on a free port of 127.0.0.1."""
    receiver = Receiver(answer)
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0, ssl=tls)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        receiver.hang_up()
