"""Buckets, through fsspec: S3 and what speaks like it; Google's and Azure's where their package is installed.

An object is always one PUT: only that can be conditional everywhere, and only that is there whole or not at all.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from modelrepo.errors import MissingExtra, ModelRepoError, ObjectChanged, ObjectNotFound
from modelrepo.stores import single_put
from modelrepo.stores.bucket_faults import Taken, create_or_compare, translate
from modelrepo.stores.port import ObjectStat, ObjectStore, StoreAbility, StoreIdentity, check_key, check_prefix
from modelrepo.stores.taking_over import copied

_SINGLE_PUT_LIMIT_BYTES = 100 * 2**20 - 1
"""From 100 MiB on s3fs cuts an object into parts, and then drops `IfMatch` without a word."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one kind of bucket is opened and what it calls things."""

    package: str
    filesystem: str
    extra: str | None
    options: Mapping[str, Any] = field(default_factory=dict)
    replace_condition: str | None = None


DIALECTS: Mapping[str, Dialect] = {
    "s3": Dialect(
        package="s3fs",
        filesystem="S3FileSystem",
        extra="s3",
        # More than one read at once makes s3fs ask for the size first, one request more for each object.
        options={
            "max_concurrency": 1,
            "config_kwargs": {
                "connect_timeout": 10,
                "read_timeout": single_put.ANSWER_TIMEOUT_S,
                "max_pool_connections": 64,
                "retries": {"mode": "standard", "total_max_attempts": 1},
            },
        },
        replace_condition="IfMatch",
    ),
    "gs": Dialect(package="gcsfs", filesystem="GCSFileSystem", extra=None),
    "az": Dialect(package="adlfs", filesystem="AzureBlobFileSystem", extra=None),
}


def open_bucket(scheme: str, bucket: str, folder: str, *, profile: str | None = None, **options: Any) -> BucketStore:
    """Open `<scheme>://<bucket>/<folder>`; `options` go to the fsspec file system, `profile` is one of AWS's.

    Raises:
        MissingExtra: the package for this scheme is not installed.
    """
    dialect = DIALECTS[scheme]
    try:
        package = importlib.import_module(dialect.package)
    except ImportError as error:
        raise MissingExtra(f"{scheme}://", dialect.extra, package=dialect.package) from error
    if profile is not None:
        options["profile"] = profile
    filesystem = getattr(package, dialect.filesystem)(
        **{"use_listings_cache": False, "skip_instance_cache": True, **dialect.options, **options}
    )
    if scheme == "s3":
        filesystem.retries = 1  # like botocore's, they would multiply: RetryingStore asks again
    store = BucketStore(scheme, bucket, folder, filesystem)
    if profile is not None:
        store.url = store.url.replace("://", f"://{profile}@", 1)
    return store


class BucketStore:
    """Keys are objects below `<bucket>/<folder>`."""

    def __init__(self, scheme: str, bucket: str, folder: str, filesystem: Any) -> None:
        self.url = f"{scheme}://{bucket}/{folder}".rstrip("/")
        self._scheme, self._bucket, self._filesystem = scheme, bucket, filesystem
        self._root = f"{bucket}/{folder}/" if folder else f"{bucket}/"
        self._condition = DIALECTS[scheme].replace_condition
        self.ability = StoreAbility(
            conditional_create=True,
            conditional_replace=self._condition is not None,
            single_put_limit_bytes=_SINGLE_PUT_LIMIT_BYTES,
            local=False,
        )

    @cached_property
    def identity(self) -> StoreIdentity:
        if self._scheme != "s3":
            return StoreIdentity(endpoint=self._scheme, bucket=self._bucket)
        with self._mapped("reach", ""):
            self._filesystem.connect()
        host = urlsplit(self._filesystem._s3.meta.endpoint_url).netloc
        # A region in the address is a box's own setting, and bucket names are AWS-wide.
        is_aws = host.endswith((".amazonaws.com", ".amazonaws.com.cn"))
        return StoreIdentity(endpoint="aws" if is_aws else host, bucket=self._bucket)

    def read(self, key: str) -> bytes:
        with self._mapped("read", key):
            data: bytes = self._filesystem.cat_file(self._path(key))
            return data

    def read_range(self, key: str, start: int, length: int) -> bytes:
        if length <= 0:
            self.stat(key)
            return b""
        with self._mapped("read", key):
            try:
                data: bytes = self._filesystem.cat_file(self._path(key), start=start, end=start + length)
            except OSError as error:
                if getattr(error.__cause__, "response", {}).get("Error", {}).get("Code") in ("InvalidRange", "416"):
                    return b""
                raise
            return data

    def create(self, key: str, data: bytes) -> None:
        single_put.check_size(self, key, data)

        def put() -> None:
            with self._mapped("create", key):
                self._filesystem.pipe_file(
                    self._path(key), data, mode="create", timeout=single_put.longest_write_s(len(data))
                )

        create_or_compare(self, key, data, put)

    def replace(self, key: str, data: bytes, *, if_etag: str | None = None) -> None:
        condition: dict[str, Any] = {}
        if if_etag is not None:
            single_put.check_size(self, key, data)
            if self._condition is not None:
                condition[self._condition] = if_etag
        changed = f"cannot replace {key} in {self.url}: it was changed in between; read it again"
        try:
            if if_etag is not None and not condition and self.stat(key).etag != if_etag:
                raise ObjectChanged(changed)
            with self._mapped("replace", key):
                self._filesystem.pipe_file(
                    self._path(key), data, timeout=single_put.longest_write_s(len(data)), **condition
                )
        except (Taken, ObjectNotFound) as error:
            raise ObjectChanged(changed) from error

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        check_prefix(prefix)
        with self._mapped("list", prefix):
            found = self._filesystem.find(self._root + prefix, detail=True)
            if not found and not self._filesystem.exists(self._bucket):
                raise FileNotFoundError(self._bucket)
        start = len(self._root)
        below = (self._stat(name[start:], facts) for name, facts in found.items() if facts.get("type") == "file")
        return iter(sorted((stat for stat in below if stat.key.startswith(prefix)), key=lambda stat: stat.key))

    def delete(self, key: str) -> None:
        try:
            with self._mapped("delete", key):
                self._filesystem.rm_file(self._path(key))
        except ObjectNotFound:
            pass

    def stat(self, key: str) -> ObjectStat:
        with self._mapped("look at", key):
            facts = self._filesystem.info(self._path(key))
            if facts.get("type") != "file":
                raise FileNotFoundError(key)
            return self._stat(key, facts)

    def reaches(self, source: ObjectStore) -> bool:
        return (
            self._scheme == "s3"
            and source.url.startswith("s3://")
            and source.identity.endpoint == self.identity.endpoint
        )

    def take_over(self, source: ObjectStore, key: str, etag: str) -> bool:
        copy_object = partial(self._filesystem.call_s3, "copy_object")
        return copied(copy_object, self._bucket, self._path(key).removeprefix(f"{self._bucket}/"), source, key, etag)

    def put_file(self, key: str, path: Path) -> None:
        """Write a file of any size, in parts where it is large; without any condition."""
        with self._mapped("write", key):
            self._filesystem.put_file(str(path), self._path(key))

    def signed_url(self, key: str, life_s: int) -> str:
        """Return a URL by which anybody may read the object for `life_s` seconds."""
        with self._mapped("sign", key):
            return str(self._filesystem.sign(self._path(key), expiration=life_s))

    def credentials(self) -> str:
        """Say where the credentials come from; known once the store has been asked for something."""
        if self._scheme != "s3":
            return f"those that {DIALECTS[self._scheme].package} found"
        from modelrepo.stores.s3_settings import method_in_words

        session = getattr(self._filesystem, "session", None)
        return method_in_words(session)

    def _stat(self, key: str, facts: Mapping[str, Any]) -> ObjectStat:
        etag = next((facts[name] for name in ("ETag", "etag", "generation") if facts.get(name)), "")
        written = next(facts[name] for name in ("LastModified", "last_modified", "mtime", "updated") if facts.get(name))
        if isinstance(written, str):
            written = datetime.fromisoformat(written)
        modified = written.timestamp() if isinstance(written, datetime) else float(written)
        return ObjectStat(key, int(facts["size"]), str(etag), modified)

    def _path(self, key: str) -> str:
        return self._root + check_key(key)

    @contextmanager
    def _mapped(self, verb: str, key: str) -> Iterator[None]:
        try:
            yield
        except ModelRepoError:
            raise
        except Exception as error:
            raise translate(error, verb=verb, key=key, url=self.url, credentials=self.credentials) from error
