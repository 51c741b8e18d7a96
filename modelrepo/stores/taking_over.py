"""S3's own copy from bucket to bucket, whichever client asks for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from modelrepo.stores.port import ObjectStore


def copied(
    copy_object: Callable[..., Mapping[str, Any]], bucket: str, path: str, source: ObjectStore, key: str, etag: str
) -> bool:
    """Have the server copy `key` of `source`, as long as it has this etag, to `path` in `bucket` if nothing is there.

    True only where it is known that the bytes of that etag were copied.
    """
    place, _, folder = source.url.removeprefix("s3://").partition("/")
    try:
        answer = copy_object(
            Bucket=bucket,
            Key=path,
            CopySource={"Bucket": place.rpartition("@")[2], "Key": f"{folder}/{key}" if folder else key},
            CopySourceIfMatch=etag,
            IfNoneMatch="*",
        )
    except Exception:  # noqa: BLE001 - whatever the reason, the ordinary way says what is the matter
        return False
    # Of one PUT the etag is that of the bytes, so a server that ignores a condition is found out here.
    taken = str(answer.get("CopyObjectResult", {}).get("ETag", ""))
    return taken.strip('"') == etag.strip('"')
