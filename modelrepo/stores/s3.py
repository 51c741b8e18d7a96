"""S3 and what speaks like it, through obstore's own API: a Rust client, which lets go of Python while bytes move.

An object is always one PUT: only that can be conditional everywhere, and only that is there whole or not at all.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import obstore
from obstore.store import S3Store as Client

from modelrepo.errors import ModelRepoError, ObjectChanged, ObjectNotFound
from modelrepo.stores import single_put
from modelrepo.stores.bucket_faults import Taken, create_or_compare, translate
from modelrepo.stores.port import ObjectStat, ObjectStore, StoreAbility, StoreIdentity, check_key, check_prefix
from modelrepo.stores.s3_settings import S3Settings
from modelrepo.stores.taking_over import copied

SINGLE_PUT_LIMIT_BYTES = 5 << 30
PART_BYTES = 16 << 20
PIECE_BYTES = 256 << 10
"""What one step of a stream holds: it stays in the processor's cache until it is hashed and written."""

_LONGEST_READ_S = 24 * 3600  # of any length, as long as it moves
_SMALL_WRITE_BYTES = 64 << 10


class S3Store:
    """Keys are objects below `<bucket>/<folder>`."""

    ability = StoreAbility(
        conditional_create=True,
        conditional_replace=True,
        single_put_limit_bytes=SINGLE_PUT_LIMIT_BYTES,
        local=False,
    )

    def __init__(self, bucket: str, folder: str, *, profile: str | None = None) -> None:
        self.url = f"s3://{profile + '@' if profile else ''}{bucket}/{folder}".rstrip("/")
        self._bucket, self._folder = bucket, f"{folder}/" if folder else ""
        self._settings = S3Settings(bucket, profile)
        self._clients: dict[int, Client] = {}
        self._guard = threading.Lock()

    @cached_property
    def identity(self) -> StoreIdentity:
        with self._mapped("reach", ""):
            return StoreIdentity(endpoint=self._settings.endpoint, bucket=self._bucket)

    def read(self, key: str) -> bytes:
        with self._mapped("read", key):
            return obstore.get(self._reader(), self._path(key)).bytes().to_bytes()

    def read_range(self, key: str, start: int, length: int) -> bytes:
        if length <= 0:
            self.stat(key)
            return b""
        with self._mapped("read", key):
            try:
                return obstore.get_range(self._reader(), self._path(key), start=start, length=length).to_bytes()
            except obstore.exceptions.GenericError as error:
                if _is_past_the_end(error):
                    return b""
                raise

    def read_pieces(self, key: str, start: int = 0) -> Iterator[memoryview]:
        with self._mapped("read", key):
            try:
                found = obstore.get(
                    self._reader(), self._path(key), options={"range": {"offset": start}} if start else {}
                )
            except obstore.exceptions.GenericError as error:
                if _is_past_the_end(error):
                    return
                raise
            for piece in found.stream(min_chunk_size=PIECE_BYTES):
                yield memoryview(piece)

    def create(self, key: str, data: bytes) -> None:
        single_put.check_size(self, key, data)

        def put() -> None:
            with self._mapped("create", key):
                obstore.put(self._writer(data), self._path(key), data, mode="create", use_multipart=False)

        create_or_compare(self, key, data, put)

    def replace(self, key: str, data: bytes, *, if_etag: str | None = None) -> None:
        single_put.check_size(self, key, data)
        mode: Any = "overwrite" if if_etag is None else {"e_tag": if_etag}
        try:
            with self._mapped("replace", key):
                obstore.put(self._writer(data), self._path(key), data, mode=mode, use_multipart=False)
        except (Taken, ObjectNotFound) as error:
            changed = f"cannot replace {key} in {self.url}: it was changed in between; read it again"
            raise ObjectChanged(changed) from error

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        check_prefix(prefix)
        with self._mapped("list", prefix):
            pages = obstore.list(self._reader(), (self._folder + prefix).rstrip("/") or None, chunk_size=1000)
            found = [self._stat(facts) for page in pages for facts in page]
        return iter(sorted((each for each in found if each.key.startswith(prefix)), key=lambda each: each.key))

    def delete(self, key: str) -> None:
        try:
            with self._mapped("delete", key):
                obstore.delete(self._reader(), self._path(key))
        except ObjectNotFound:
            pass

    def stat(self, key: str) -> ObjectStat:
        with self._mapped("look at", key):
            return self._stat(obstore.head(self._reader(), self._path(key)))

    def reaches(self, source: ObjectStore) -> bool:
        return source.url.startswith("s3://") and source.identity.endpoint == self.identity.endpoint

    def take_over(self, source: ObjectStore, key: str, etag: str) -> bool:
        def copy_object(**request: Any) -> Mapping[str, Any]:
            return self._settings.client.copy_object(**request)  # type: ignore[no-any-return]

        return copied(copy_object, self._bucket, self._path(key), source, key, etag)

    def put_file(self, key: str, path: Path) -> None:
        """Write a file of any size, in parts where it is large; without any condition."""
        with self._mapped("write", key):
            client = self._client(PART_BYTES)
            obstore.put(client, self._path(key), path, chunk_size=PART_BYTES, max_concurrency=4)

    def signed_url(self, key: str, life_s: int) -> str:
        """Return a URL by which anybody may read the object for `life_s` seconds."""
        with self._mapped("sign", key):
            return obstore.sign(self._reader(), "GET", self._path(key), timedelta(seconds=life_s))

    def signed_put_url(self, key: str, life_s: int) -> str:
        """Return a URL by which anybody may write the object for `life_s` seconds."""
        with self._mapped("sign", key):
            return obstore.sign(self._reader(), "PUT", self._path(key), timedelta(seconds=life_s))

    def credentials(self) -> str:
        """Say where the credentials come from."""
        return self._settings.credential_source()

    def _stat(self, facts: Mapping[str, Any]) -> ObjectStat:
        key = str(facts["path"]).removeprefix(self._folder)
        return ObjectStat(key, int(facts["size"]), str(facts["e_tag"] or ""), facts["last_modified"].timestamp())

    def _path(self, key: str) -> str:
        return self._folder + check_key(key)

    def _reader(self) -> Client:
        return self._client(0)

    def _writer(self, data: bytes) -> Client:
        size = _SMALL_WRITE_BYTES
        while size < len(data):
            size *= 16
        return self._client(size)

    def _client(self, written_bytes: int) -> Client:
        """Return the client for requests that carry up to so many bytes.

        Its time-out is part of a client, and that for the silence of a server begins before a body is sent: on a
        half-open connection one that suits a large body would hold up a small one for long.
        """
        with self._guard:
            if written_bytes not in self._clients:
                options: Any = self._settings.client_options()
                if written_bytes:
                    options["timeout"] = timedelta(seconds=single_put.longest_write_s(written_bytes))
                else:
                    options["timeout"] = timedelta(seconds=_LONGEST_READ_S)
                    options["read_timeout"] = timedelta(seconds=single_put.ANSWER_TIMEOUT_S)
                self._clients[written_bytes] = Client(
                    self._bucket,
                    client_options=options,
                    retry_config={"max_retries": 0},  # they would multiply: RetryingStore asks again
                    **self._settings.store_options(),
                )
            return self._clients[written_bytes]

    @contextmanager
    def _mapped(self, verb: str, key: str) -> Iterator[None]:
        try:
            yield
        except ModelRepoError:
            raise
        except Exception as error:
            raise translate(error, verb=verb, key=key, url=self.url, credentials=self.credentials) from error


def _is_past_the_end(error: Exception) -> bool:
    return "status code: 416" in str(error)
