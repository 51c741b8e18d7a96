"""The repository as a box sees it that reaches nothing but a gateway: an ObjectStore that only reads.

Small files come through the gateway. Objects come by URLs that it signs, a thousand at a time, for the digests that a
manifest or a bundle names: the box has read that before it reads any of them.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from typing import Any, NoReturn
from urllib.parse import quote

from modelrepo import layout
from modelrepo.errors import ObjectNotFound, StoreNotTrusted, Unreachable
from modelrepo.stores.port import ObjectStat, StoreAbility, StoreIdentity, check_key, check_prefix
from modelrepo_runtime.remote.signed import Sign, Signed, SignedBytes
from modelrepo_runtime.remote.talk import Talk

MOST_DIGESTS = 1000
_PATH = "/v1/worker/repository/"
_DIGEST = re.compile(r"[0-9a-f]{64}")


class RepositoryStore:
    """See ObjectStore; `url` is the gateway's."""

    ability = StoreAbility(conditional_create=False, conditional_replace=False, single_put_limit_bytes=0, local=False)

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self.url = f"{talk.url}/v1/worker/repository"
        self._bytes = SignedBytes(talk.connections)
        self._lock = threading.Lock()
        self._documents: dict[str, str] = {}
        """Digest -> the document that names it."""
        self._named: dict[str, tuple[str, ...]] = {}
        self._signed: dict[str, Signed] = {}

    @property
    def identity(self) -> StoreIdentity:
        return StoreIdentity(self._talk.url, "")

    def read(self, key: str) -> bytes:
        if (digest := layout.digest_of(key)) is not None:
            return self._bytes.read(key, self._sign(digest))
        path = _PATH + quote(check_key(key))
        answer = self._talk.connections.request(
            "GET", self._talk.url + path, headers=self._talk.headers, repeatable=True
        )
        self._talk.check(path, answer)
        self._note(key, answer.body)
        return answer.body

    def read_range(self, key: str, start: int, length: int) -> bytes:
        if length <= 0:
            self.stat(key)
            return b""
        if (digest := layout.digest_of(key)) is not None:
            return self._bytes.read_range(key, self._sign(digest), start, length)
        return self.read(key)[start : start + length]

    def read_pieces(self, key: str, start: int = 0) -> Iterator[memoryview]:
        if (digest := layout.digest_of(key)) is not None:
            yield from self._bytes.pieces(key, self._sign(digest), start)
        else:
            yield memoryview(self.read(key))[start:]

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        found = self._ask("list", {"prefix": check_prefix(prefix)})
        try:
            return iter([ObjectStat(each["key"], each["size_bytes"], each["etag"], each["modified"]) for each in found])
        except (KeyError, TypeError) as error:
            raise _unreadable("list", error) from error

    def stat(self, key: str) -> ObjectStat:
        digest = layout.digest_of(check_key(key))
        asked = {"key": key} if digest is None else {"key": key, "document": self._document(digest)}
        found = self._ask("look", asked)
        try:
            return ObjectStat(found["key"], found["size_bytes"], found["etag"], found["modified"])
        except (KeyError, TypeError) as error:
            raise _unreadable("look", error) from error

    def create(self, key: str, _data: bytes, /) -> None:
        self._refuse("create", key)

    def replace(self, key: str, _data: bytes, /, *, if_etag: str | None = None) -> None:  # noqa: ARG002
        self._refuse("replace", key)

    def delete(self, key: str) -> None:
        self._refuse("delete", key)

    def _refuse(self, verb: str, key: str) -> NoReturn:
        raise StoreNotTrusted(f"cannot {verb} {key}: through a gateway a repository is only read")

    def _ask(self, what: str, asked: Any) -> Any:
        return self._talk.post(_PATH + what, json.dumps(asked).encode(), repeatable=True)

    def _note(self, key: str, data: bytes) -> None:
        """Remember which digests a manifest or a bundle names: by it, their URLs are asked for."""
        if layout.version_of(key) is None and not key.startswith(layout.ENVIRONMENTS):
            return
        named = tuple(dict.fromkeys(_DIGEST.findall(data.decode("utf-8", "replace"))))
        with self._lock:
            self._named[key] = named
            self._documents.update((digest, key) for digest in named)

    def _document(self, digest: str) -> str:
        with self._lock:
            document = self._documents.get(digest)
        if document is None:
            key = layout.object_(digest)
            raise ObjectNotFound(f"cannot read {key}: no manifest that was read here names it", key=key)
        return document

    def _sign(self, digest: str) -> Sign:
        def sign(fresh: bool) -> Signed:
            with self._lock:
                known = self._signed.get(digest)
            if known is not None and known.is_fresh and not fresh:
                return known
            return self._ask_for(digest)

        return sign

    def _ask_for(self, digest: str) -> Signed:
        """Ask for the URL of one object, and with it for those of others that its document names."""
        document = self._document(digest)
        with self._lock:
            others = [each for each in self._named[document] if each != digest and not self._is_signed(each)]
        digests = [digest, *others][:MOST_DIGESTS]
        body = json.dumps({"document": document, "digests": digests}).encode()
        answer = self._talk.post("/v1/worker/objects", body, repeatable=True)
        if not isinstance(answer, list) or len(answer) != len(digests):
            raise _unreadable("objects", ValueError(f"{len(digests)} URLs were asked for"))
        with self._lock:
            for each, told in zip(digests, answer, strict=True):
                self._signed[each] = Signed.of(told) or self._through_the_gateway(each, document)
            return self._signed[digest]

    def _is_signed(self, digest: str) -> bool:
        signed = self._signed.get(digest)
        return signed is not None and signed.is_fresh

    def _through_the_gateway(self, digest: str, document: str) -> Signed:
        path = f"{_PATH}{layout.object_(digest)}?document={quote(document, safe='')}"
        return Signed(self._talk.url + path, None, self._talk.headers)


def _unreadable(what: str, error: Exception) -> Unreachable:
    return Unreachable(f"the gateway answers {what} with what we cannot read: {error!r}", transient=False)
