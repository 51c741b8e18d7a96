"""Reads what a package index serves, with this box's certificates, proxies and passwords."""

from __future__ import annotations

import base64
import http.client
import netrc
import os
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from modelrepo.environments.index_settings import IndexSettings
from modelrepo.errors import Forbidden, Stopped, Unreachable

_Answer = TypeVar("_Answer")

TIMEOUT_S = 60.0
ASK_AGAIN_S = (0.5, 2.0)
_BLOCK_BYTES = 1 << 20
_LARGEST_PAGE_BYTES = 64 << 20  # the largest projects on PyPI have pages of a few MiB
_LOST = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError)


@dataclass(frozen=True, slots=True)
class Page:
    """What an address answered; `url` is where it was in the end."""

    url: str
    content_type: str
    text: str


class Web:
    """Credentials come from an index's own address, from UV_INDEX_<NAME>_USERNAME and _PASSWORD, or from .netrc."""

    def __init__(self, settings: IndexSettings, *, pause: Callable[[float], None] = time.sleep) -> None:
        self._context = ssl.create_default_context(cafile=settings.cert) if settings.cert else None
        self._passwords = dict(_known_passwords(settings))
        self._pause = pause

    def page(self, url: str, accept: str) -> Page | None:
        """Return a page, None where the index has none. Raises: Unreachable, Forbidden."""

        def read() -> Page:
            with self._opened(url, accept) as answer:
                body: bytes = answer.read(_LARGEST_PAGE_BYTES + 1)
                if len(body) > _LARGEST_PAGE_BYTES:
                    raise Unreachable(f"the package index does not end at {without_password(url)}; name another")
                return Page(answer.url, answer.headers.get_content_type(), body.decode("utf-8", "replace"))

        try:
            return self._asked_again(read, url)
        except _NotThere:
            return None

    def download(self, url: str, target: Path, stop: Callable[[], bool] | None = None) -> None:
        """Write a file. Raises: Unreachable, Forbidden, Stopped."""

        def fetch() -> None:
            with self._opened(url, "*/*") as answer, target.open("wb") as stream:
                while block := answer.read(_BLOCK_BYTES):
                    stream.write(block)
                    if stop is not None and stop():
                        raise Stopped(f"stopped on request while {without_password(url)} was fetched")
                promised = answer.headers.get("Content-Length")
                if promised is not None and promised.isdecimal() and stream.tell() != int(promised):
                    raise http.client.IncompleteRead(b"", int(promised) - stream.tell())

        try:
            self._asked_again(fetch, url)
        except _NotThere:
            raise Unreachable(f"the package index lists {without_password(url)} and has no such file") from None

    def _asked_again(self, call: Callable[[], _Answer], url: str) -> _Answer:
        for pause_s in (*ASK_AGAIN_S, None):
            try:
                return call()
            except Unreachable:
                raise  # an answer, and not one to be asked for again
            except _LOST as error:
                if pause_s is None:
                    raise Unreachable(f"the package index did not answer: {without_password(url)}: {error}") from error
                self._pause(pause_s)
        raise AssertionError("unreachable")

    @contextmanager
    def _opened(self, url: str, accept: str) -> Iterator[http.client.HTTPResponse]:
        plain = without_password(url)
        request = urllib.request.Request(plain, headers={"Accept": accept, "User-Agent": "modelrepo"})
        password = _password(urlsplit(url)) or self._passwords.get(_origin(url)) or _from_netrc(urlsplit(url).hostname)
        if password is not None:
            token = base64.b64encode(":".join(password).encode()).decode()
            request.add_unredirected_header("Authorization", f"Basic {token}")  # never for the place we are sent on to
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=self._context) as answer:
                yield answer
        except urllib.error.HTTPError as error:
            error.close()  # it has the connection
            if error.code in (404, 410):
                raise _NotThere from error
            if error.code in (401, 403, 407):
                raise Forbidden(
                    f"the package index refused {plain} ({error.code}); put user and password into its address, into "
                    "UV_INDEX_<NAME>_USERNAME and _PASSWORD, or into .netrc"
                ) from error
            if error.code < 500 and error.code != 429:
                raise Unreachable(f"the package index answered {error.code} for {plain}") from error
            raise


class _NotThere(Exception):
    """The index answered that it has no such page."""


def without_password(url: str) -> str:
    """Return an address as it may be shown."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _known_passwords(settings: IndexSettings) -> Iterator[tuple[str, tuple[str, str]]]:
    named = dict(settings.credentials)
    for index in settings.addresses():
        url, name = index.url, (index.name or "").upper().replace("-", "_")
        user = named.get(f"UV_INDEX_{name}_USERNAME")
        password = _password(urlsplit(url))
        if password is None and user is not None:
            password = (user, named.get(f"UV_INDEX_{name}_PASSWORD", ""))
        if password is not None and "://" in url:
            yield _origin(url), password


def _password(parts: SplitResult) -> tuple[str, str] | None:
    return None if parts.username is None else (unquote(parts.username), unquote(parts.password or ""))


def _from_netrc(host: str | None, environ: Mapping[str, str] | None = None) -> tuple[str, str] | None:
    env = os.environ if environ is None else environ
    path = Path(env.get("NETRC") or Path(env.get("HOME") or Path.home()) / ".netrc")
    try:
        found = netrc.netrc(str(path)).authenticators(host or "")
    except (OSError, netrc.NetrcParseError):
        return None
    return None if found is None else (found[0], found[2] or "")


def _origin(url: str) -> str:
    parts = urlsplit(without_password(url))
    return f"{parts.scheme}://{parts.netloc}"
