"""From a URL to a store."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from modelrepo.errors import InvalidInput
from modelrepo.stores.filesystem import FilesystemStore
from modelrepo.stores.memory import MemoryStore
from modelrepo.stores.port import ObjectStore
from modelrepo.stores.retrying import PATIENT, Patience, retrying

SCHEMES = ("file", "memory", "s3", "gs", "az")


def open_store(url: str, *, patience: Patience = PATIENT) -> ObjectStore:
    """Open `file://`, `memory://`, `s3://`, `gs://`, `az://`, or a plain path; nothing is looked up yet.

    `s3://PROFILE@BUCKET/FOLDER` takes endpoint and credentials from a profile of `~/.aws`: one process can reach
    several servers. A bucket that does not answer is asked again, as `patience` says; a disk or memory never is.

    Raises:
        InvalidInput: the URL cannot be read.
        MissingExtra: the scheme needs a package that is not installed.
    """
    if "://" not in url:
        if not url:
            raise InvalidInput("a store's URL is empty; name a folder or a bucket, such as s3://bucket/models")
        scheme, colon, rest = url.partition(":")
        if colon and scheme.lower() in ("s3", "gs", "az"):
            raise InvalidInput(f"URL {url!r} lacks a slash; write {scheme.lower()}://{rest.lstrip('/')}")
        return FilesystemStore(Path(url).expanduser())
    parts = urlsplit(url)
    profile, at, host = parts.netloc.rpartition("@")
    if at and (parts.scheme != "s3" or not profile or ":" in profile):
        raise InvalidInput(
            f"the URL of a store in {host} holds credentials, which would end up in logs; "
            "put them into the environment or ~/.aws, and name a profile of it: s3://PROFILE@BUCKET/FOLDER"
        )
    if "?" in url or "#" in url:
        raise InvalidInput(f"URL {url!r} is not allowed: a store's URL has no query and no fragment")
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise InvalidInput(f"URL {url!r} names the host {parts.netloc!r}; write file:///{parts.netloc}{parts.path}")
        return FilesystemStore(Path(os.fsdecode(unquote(parts.path))))
    if parts.scheme == "memory":
        name = (parts.netloc + parts.path).strip("/")
        if not name:
            raise InvalidInput(f"URL {url!r} names no store; write memory://NAME")
        return MemoryStore(name)
    if parts.scheme in SCHEMES:
        if not host:
            raise InvalidInput(f"URL {url!r} names no bucket; write {parts.scheme}://BUCKET/FOLDER")
        return retrying(_bucket(parts.scheme, host, parts.path.strip("/"), profile or None), patience)
    raise InvalidInput(f"URL {url!r} has the scheme {parts.scheme!r}; known are {', '.join(SCHEMES)} and plain paths")


def _bucket(scheme: str, bucket: str, folder: str, profile: str | None) -> ObjectStore:
    if scheme == "s3":
        try:
            from modelrepo.stores.s3 import S3Store
        except ImportError:
            pass  # there is no build of obstore for every system; s3fs is slower and runs everywhere
        else:
            return S3Store(bucket, folder, profile=profile)
    from modelrepo.stores.bucket import open_bucket

    return open_bucket(scheme, bucket, folder, profile=profile)
