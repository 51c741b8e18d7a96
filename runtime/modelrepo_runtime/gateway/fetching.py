"""Fetches what a tenant's URL names, held to the rules for addresses, to a size and to a time."""

from __future__ import annotations

import ssl
import string
import time
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

from modelrepo.errors import InvalidInput, Unreachable
from modelrepo_runtime.gateway.addresses import AddressRefused, AddressRules, Target, shown
from modelrepo_runtime.gateway.pinned import PinnedConnection
from modelrepo_runtime.submissions import Fetched

PIECE_BYTES = 1 << 20
_SAFE = frozenset(string.ascii_letters + string.digits + "._-")
REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """How much and how long a fetch may take."""

    size_bytes: int = 5 << 30
    silence_s: float = 20.0
    """The longest without a byte."""
    total_s: float = 600.0
    """From the first connection to the last byte, redirections and heads included."""
    redirects: int = 5
    """Each to the same host and port."""


@dataclass(frozen=True)
class Fetcher:
    """Fetches URLs of tenants; may be shared by threads."""

    rules: AddressRules = field(default_factory=AddressRules)
    limits: FetchLimits = FetchLimits()
    tls: ssl.SSLContext | None = None

    def fetch(self, url: str, folder: Path) -> Fetched:
        """Copy what a URL names to a file in `folder`, named as the URL ends.

        Raises: AddressRefused; InvalidInput where it is too large; Unreachable.
        """
        until = time.monotonic() + self.limits.total_s
        target = self.rules.target(url)
        for _ in range(self.limits.redirects + 1):
            connection = PinnedConnection(target, self.limits.silence_s, self.tls, until)
            try:
                connection.request("GET", target.path, headers={"Accept": "*/*", "Accept-Encoding": "identity"})
                answer = connection.getresponse()
                if answer.status not in REDIRECTS:
                    return self._keep(target, answer, folder / file_name(url))
                target = _redirected(target, answer.getheader("Location"))
            except (OSError, HTTPException) as error:
                if time.monotonic() >= until:
                    told = f"cannot fetch {shown(url)}: not whole after {self.limits.total_s:g} s; upload the file"
                    raise Unreachable(told) from error
                raise Unreachable(f"cannot fetch {shown(url)}: {error or type(error).__name__}; try again") from error
            finally:
                connection.close()
        raise InvalidInput(f"cannot fetch {shown(url)}: it redirects more than {self.limits.redirects} times")

    def _keep(self, target: Target, answer: HTTPResponse, path: Path) -> Fetched:
        url = shown(target.url)
        if answer.status != 200:
            raise InvalidInput(f"cannot fetch {url}: its server answers {answer.status}; check the URL")
        self._check_size(url, int(declared) if (declared := answer.getheader("Content-Length", "")).isdigit() else 0)
        size = 0
        with path.open("wb") as file:
            while piece := answer.read1(PIECE_BYTES):
                size += len(piece)
                self._check_size(url, size)
                file.write(piece)
        if answer.length:
            raise Unreachable(f"cannot fetch {url}: {answer.length} bytes are missing at its end; try again")
        kind = answer.headers.get_content_type() if answer.getheader("Content-Type") else None
        return Fetched(path, size, kind)

    def _check_size(self, url: str, size: int) -> None:
        if size > self.limits.size_bytes:
            raise InvalidInput(f"cannot fetch {url}: it is larger than {self.limits.size_bytes} bytes; make it smaller")


def file_name(url: str) -> str:
    """Return a name for what a URL names that is safe in any folder and in a key."""
    last = unquote(urlsplit(url).path).rpartition("/")[2]
    safe = "".join(letter if letter in _SAFE else "_" for letter in last)
    return safe.lstrip(".")[-100:] or "file"


def _redirected(target: Target, location: str | None) -> Target:
    """Follow a redirection to the same host and port, and so to addresses that were judged already."""
    url = urljoin(target.url, location or "")
    try:
        parts = urlsplit(url)
        there = (parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))
    except ValueError as error:
        raise AddressRefused(f"cannot fetch {shown(target.url)}: it redirects to no URL ({error})") from error
    if not location or not url.isascii() or there != (target.scheme, target.host, target.port) or "@" in parts.netloc:
        raise AddressRefused(
            f"cannot fetch {shown(target.url)}: it redirects to {shown(url)}; only the same host may be redirected to"
        )
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if any(letter <= " " or letter == "\x7f" for letter in path):
        raise AddressRefused(f"cannot fetch {shown(target.url)}: it redirects to a path with spaces in it")
    return Target(url, target.scheme, target.host, target.port, path, target.addresses)
