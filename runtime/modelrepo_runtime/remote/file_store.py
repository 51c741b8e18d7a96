"""The files of jobs as a box sees them that reaches nothing but a gateway: each by a URL that it signs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from modelrepo.errors import Forbidden, Unreachable
from modelrepo.stores.port import ObjectStat, StoreAbility, StoreIdentity, check_key
from modelrepo_runtime.remote.signed import Sign, Signed, SignedBytes
from modelrepo_runtime.remote.talk import Talk

_JOB_KEY = re.compile(r"jobs/[^/]+/([^/]+)/.+")


class FileStore:
    """An ObjectStore of what jobs read and write. `job_of` tells whose input a key is that does not say so itself."""

    ability = StoreAbility(
        conditional_create=False, conditional_replace=False, single_put_limit_bytes=5 << 30, local=False
    )

    def __init__(self, talk: Talk, job_of: Callable[[str], str | None] = lambda _: None) -> None:
        self._talk, self._job_of = talk, job_of
        self.url = talk.url
        self._bytes = SignedBytes(talk.connections)

    @property
    def identity(self) -> StoreIdentity:
        return StoreIdentity(self._talk.url, "files")

    def read(self, key: str) -> bytes:
        return self._bytes.read(key, self._sign("GET", key))

    def read_range(self, key: str, start: int, length: int) -> bytes:
        return self._bytes.read_range(key, self._sign("GET", key), start, length)

    def read_pieces(self, key: str, start: int = 0) -> Iterator[memoryview]:
        yield from self._bytes.pieces(key, self._sign("GET", key), start)

    def replace(self, key: str, data: bytes, *, if_etag: str | None = None) -> None:
        if if_etag is not None:
            self._refuse("compare", key)
        self._bytes.write(key, self._sign("PUT", key), data)

    def put_file(self, key: str, path: Path) -> None:
        """Write a file of any size without holding it in memory."""
        self._bytes.write(key, self._sign("PUT", key), path)

    def stat(self, key: str) -> ObjectStat:
        size = sum(len(piece) for piece in self.read_pieces(key))
        return ObjectStat(key, size, "", 0.0)

    def signed_url(self, key: str, life_s: int) -> str:  # noqa: ARG002 - the gateway decides how long
        """Return a URL by which anybody may read a file for a while."""
        return self._sign("GET", key)(True).url

    def create(self, key: str, _data: bytes, /) -> None:
        self._refuse("create", key)

    def delete(self, key: str) -> None:
        self._refuse("delete", key)

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        self._refuse("list", prefix)

    def _refuse(self, verb: str, key: str) -> NoReturn:
        raise Forbidden(
            f"cannot {verb} {key}: through a gateway files of jobs are read and written by their names alone"
        )

    def _sign(self, verb: str, key: str) -> Sign:
        check_key(key)
        kept: list[Signed] = []

        def sign(fresh: bool) -> Signed:
            if not kept or fresh or not kept[0].is_fresh:
                kept[:] = [self._ask_for(verb, key)]
            return kept[0]

        return sign

    def _ask_for(self, verb: str, key: str) -> Signed:
        own = _JOB_KEY.fullmatch(key)
        job_id = own[1] if own else self._job_of(key)
        asked = {"verb": verb, "key": key, "job_id": job_id or ""}
        signed = Signed.of(self._talk.post("/v1/worker/files", json.dumps(asked).encode(), repeatable=True))
        if signed is None:
            raise Unreachable(f"the gateway signs no URL for {key}", transient=False)
        return signed
