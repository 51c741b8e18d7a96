"""An HTTPS server on loopback that answers as a test says, and a context that trusts it."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from modelrepo_runtime.testing.certificates import certificate


@contextmanager
def serving(folder: Path, answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[tuple[int, ssl.SSLContext]]:
    """Serve until the context ends; yields the port and a context for clients."""
    chain, private = certificate(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, private)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1], ssl.create_default_context(cafile=str(chain))
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
