"""URLs that the gateway signs to itself, for stores that cannot sign: who has one may do that one thing for a while."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from modelrepo.errors import ObjectExists, ObjectNotFound
from modelrepo.stores.port import ObjectStore

SECRET_KEY = "gateway/url-secret"
"""In the JobStore, so that every gateway before it signs alike; whoever reads it there could read the files as well."""
CONTENT_PATH = "/v1/content/"


@dataclass(frozen=True)
class UrlSigner:
    """Signs and checks (verb, key, expiry). May be shared by threads."""

    secret: bytes
    clock: Callable[[], float] = time.time

    def url(self, base_url: str, verb: str, key: str, life_s: float) -> tuple[str, float]:
        """Return a URL by which anybody may `GET` or `PUT` one key, and when it runs out, epoch seconds."""
        expires = int(self.clock() + life_s)
        query = urlencode({"verb": verb, "expires": expires, "signature": self._signature(verb, key, expires)})
        return f"{base_url.rstrip('/')}{CONTENT_PATH}{quote(key)}?{query}", float(expires)

    def holds(self, verb: str, key: str, expires: int, signature: str) -> bool:
        """Say whether a signature is ours and has not run out."""
        expected = self._signature(verb, key, expires)
        return hmac.compare_digest(expected.encode(), signature.encode("utf-8", "replace")) and expires > self.clock()

    def _signature(self, verb: str, key: str, expires: int) -> str:
        told = f"{verb}\n{expires}\n{key}".encode("utf-8", "surrogatepass")
        return hmac.new(self.secret, told, hashlib.sha256).hexdigest()


def shared_secret(store: ObjectStore) -> bytes:
    """Return the secret that every gateway before this store signs with; the first makes it. Raises: Unreachable."""
    with suppress(ObjectNotFound):
        return store.read(SECRET_KEY)
    with suppress(ObjectExists):
        store.create(SECRET_KEY, secrets.token_hex(32).encode())
    return store.read(SECRET_KEY)
