"""HTTP/1.1 as uvicorn speaks it, with limits on what comes before a request is one: slow or endless headers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from modelrepo_runtime.gateway.settings import GatewaySettings


class LimitedProtocol(HttpToolsProtocol):
    """Closes a connection whose next headers take too long or are too large."""

    settings = GatewaySettings()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to count."""
        super().connection_made(transport)
        self._head_bytes = 0
        self._in_head = True
        self._late = self.loop.call_later(self.settings.header_s, self._close)

    def data_received(self, data: bytes) -> None:
        """Count what is no body."""
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > self.settings.header_bytes:
                self._refuse()

    def on_message_begin(self) -> None:
        """Begin to count anew."""
        super().on_message_begin()
        self._late.cancel()
        self._head_bytes, self._in_head = 0, True
        self._late = self.loop.call_later(self.settings.header_s, self._close)

    def on_headers_complete(self) -> None:
        """Hand the request on; its body has limits of its own."""
        self._in_head = False
        self._late.cancel()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._late.cancel()
        super().connection_lost(exc)

    def _refuse(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\r\n")
            self.transport.close()

    def _close(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()


def limited(settings: GatewaySettings) -> type[asyncio.Protocol]:
    """Return a protocol class with these limits."""
    kind: Callable[..., Any] = type("GatewayProtocol", (LimitedProtocol,), {"settings": settings})
    return kind  # type: ignore[return-value]
