"""`/v1/files`, and `/v1/content` for stores that sign no URLs: the bytes then pass through the gateway."""

from __future__ import annotations

import mimetypes
import tempfile
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse

from modelrepo.errors import InvalidInput
from modelrepo.stores.filesystem import FilesystemStore
from modelrepo.stores.port import ObjectStat, check_key
from modelrepo_runtime.gateway.access import Submitter
from modelrepo_runtime.gateway.parts import Parts, PartsOf
from modelrepo_runtime.gateway.refusals import NotAllowed
from modelrepo_runtime.gateway.schemas import FileBody, FilePlace, faults
from modelrepo_runtime.gateway.signing import SECRET_KEY
from modelrepo_runtime.jobs import timestamp

router = APIRouter(tags=["files"])

PIECE_BYTES = 1 << 20
_SAFE = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox", "Cache-Control": "private"}
"""What a tenant uploads is never a page of the gateway's own origin."""
Expires = Annotated[int, Query(ge=0, le=2**53)]
Signature = Annotated[str, Query(max_length=64)]


@router.post(
    "/v1/files",
    operation_id="createFile",
    status_code=201,
    response_model=FilePlace,
    responses=faults(),
    summary="Get a place for a file",
)
async def create_file(request: Request, caller: Submitter, parts: PartsOf, body: FileBody | None = None) -> Response:
    """Return an id and a URL to PUT the bytes to; the tenant's submissions then name the file as `{"file": id}`."""
    file_id, name = parts.uploads.name(caller.grant.tenant), body.name if body else "file"
    key = parts.files.upload_key(file_id, name)
    life_s = parts.settings.url_life_s
    url = await parts.store_calls.run(parts.files.put_url, key, int(life_s))
    signed, expires_at = parts.signer.url(parts.base_url(request), "PUT", key, life_s)
    place = {"id": file_id, "upload_url": url or signed, "expires_at": timestamp(expires_at)}
    return JSONResponse(place, 201)


@router.put(
    "/v1/content/{key:path}",
    operation_id="putContent",
    status_code=204,
    responses=faults(404),
    summary="Upload by a signed URL",
)
async def put_content(key: str, request: Request, parts: PartsOf, expires: Expires, signature: Signature) -> Response:
    """Keep the bytes, whole or not at all. The URL is its own permission."""
    _check(parts, "PUT", key, expires, signature)
    with tempfile.TemporaryDirectory(prefix="modelrepo-upload-") as folder:
        path = Path(folder) / "bytes"
        with path.open("wb") as file:
            await _receive(parts, request, file)
        await parts.store_calls.run(parts.files.put, key, path)
    return Response(status_code=204)


@router.get(
    "/v1/content/{key:path}",
    operation_id="getContent",
    response_class=Response,
    responses={**faults(404), 200: {"description": "The bytes.", "content": {"application/octet-stream": {}}}},
    summary="Fetch by a signed URL",
)
async def get_content(key: str, parts: PartsOf, expires: Expires, signature: Signature) -> Response:
    """Return the bytes. The URL is its own permission."""
    _check(parts, "GET", key, expires, signature)
    store = parts.files.store
    found = await parts.store_calls.run(store.stat, key)
    parts.metrics.file_bytes.labels("out").inc(found.size_bytes)
    kind = mimetypes.guess_type(key)[0] or "application/octet-stream"
    if isinstance(store, FilesystemStore):
        return FileResponse(store.root / key, media_type=kind, headers=_SAFE)
    headers = {**_SAFE, "Content-Length": str(found.size_bytes)}
    return StreamingResponse(_pieces(parts, found), media_type=kind, headers=headers)


def _check(parts: Parts, verb: str, key: str, expires: int, signature: str) -> None:
    if not parts.signer.holds(verb, key, expires, signature) or key == SECRET_KEY:
        raise NotAllowed("the URL is not one that this gateway signed, or it has run out; ask for a fresh one")
    check_key(key)


async def _receive(parts: Parts, request: Request, file: IO[bytes]) -> None:
    """Write a body to a file in pieces, in a thread: at most one piece is held."""
    held, size = bytearray(), 0
    async for piece in request.stream():
        held += piece
        size += len(piece)
        if len(held) >= PIECE_BYTES:
            await parts.store_calls.run(file.write, bytes(held))
            held.clear()
    await parts.store_calls.run(file.write, bytes(held))
    parts.metrics.file_bytes.labels("in").inc(size)
    length = request.headers.get("content-length")
    if length is not None and length.isdigit() and int(length) != size:
        raise InvalidInput(f"{size} bytes came of {length}; send the file again")


async def _pieces(parts: Parts, found: ObjectStat) -> AsyncIterator[bytes]:
    read = partial(parts.files.store.read_range, found.key)
    for start in _starts(found.size_bytes):
        yield await parts.store_calls.run(read, start, PIECE_BYTES)


def _starts(size_bytes: int) -> Iterator[int]:
    return iter(range(0, size_bytes, PIECE_BYTES))
