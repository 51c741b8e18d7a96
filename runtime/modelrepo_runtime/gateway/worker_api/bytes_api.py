"""The repository and the files of jobs, for boxes without credentials of their own.

Small files pass through the gateway. Objects and the files of jobs are fetched and written by URLs signed for an hour,
past the gateway; where the store is a folder, which cannot sign, their bytes pass through as well.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import AsyncIterator
from functools import partial

from fastapi import Request
from fastapi.responses import Response, StreamingResponse

from modelrepo import layout
from modelrepo.errors import InvalidInput, ObjectNotFound
from modelrepo.repository import Repository
from modelrepo.stores.port import ObjectStat, ObjectStore, check_key, check_prefix
from modelrepo_runtime.gateway.access import Caller
from modelrepo_runtime.gateway.parts import Parts
from modelrepo_runtime.gateway.refusals import NotAllowed
from modelrepo_runtime.jobs import Json, stored_keys
from modelrepo_runtime.jobstore import SignsUrls
from modelrepo_runtime.queue.http.calls import SignedUrl
from modelrepo_runtime.queue.http.wire import read, write

MOST_DIGESTS = 1000
PIECE_BYTES = 1 << 20
_DIGEST = re.compile(r"[0-9a-f]{64}")
_JOB_KEY = re.compile(r"jobs/[^/]+/([^/]+)/.+")
_KEPT_DOCUMENTS = 200
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


class BytesApi:
    """What the routes do that carry bytes, or say where they are."""

    def __init__(self, parts: Parts, repository: Repository) -> None:
        self._parts, self._store = parts, repository.store
        self._environments: dict[str, frozenset[str]] = {}
        """Model -> the environments of its versions, by digest."""
        self._named: OrderedDict[str, frozenset[str]] = OrderedDict()
        """Document -> the digests that it names. What names them never changes."""

    async def look(self, _: Request, caller: Caller, body: dict[str, Json]) -> Json:
        """Return size, etag and time of one key."""
        key = await self._key(body.get("key"), caller)
        await self._check_object(caller, key, body.get("document"))
        return write(ObjectStat, await self._parts.store_calls.run(self._store.stat, key))

    async def list(self, _: Request, caller: Caller, body: dict[str, Json]) -> Json:
        """List what lies below a prefix, as far as the token may know of it."""
        prefix = check_prefix(read(str, body.get("prefix"), "list.prefix"))
        if not prefix.startswith((layout.MODELS, layout.ENVIRONMENTS)) or prefix == layout.ENVIRONMENTS:
            raise NotAllowed(f"cannot list {prefix!r}: boxes list models, and the bundles of one environment")
        if prefix.startswith(layout.ENVIRONMENTS):
            await self._key(f"{prefix}_", caller)
        found = await self._parts.store_calls.run(lambda: list(self._store.list(prefix)))
        return write(tuple[ObjectStat, ...], [each for each in found if _may_read(each.key, caller)])

    async def read(self, request: Request, name: str, caller: Caller) -> Response:
        """Return the bytes of one key, or a range of them."""
        key = await self._key(name, caller)
        await self._check_object(caller, key, request.query_params.get("document"))
        start, length = _range(request.headers.get("range"))
        run = self._parts.store_calls.run
        if start is None:
            if layout.digest_of(key) is None:
                return Response(await run(self._store.read, key), media_type="application/octet-stream")
            return await self._stream(key, 0)
        if length is None:
            return await self._stream(key, start)
        data = await run(self._store.read_range, key, start, length)
        return Response(data, 206, media_type="application/octet-stream")

    async def objects(self, _: Request, caller: Caller, body: dict[str, Json]) -> Json:
        """Return a signed URL for each digest that a document names; None where the gateway passes the bytes on."""
        document = await self._key(body.get("document"), caller)
        digests = read(tuple[str, ...], body.get("digests"), "objects.digests")
        if len(digests) > MOST_DIGESTS:
            raise InvalidInput(f"cannot sign {len(digests)} URLs at once: at most {MOST_DIGESTS}; ask again for more")
        named = await self._digests_of(document)
        if strangers := [digest for digest in digests if digest not in named]:
            raise NotAllowed(f"cannot sign a URL of object sha256:{strangers[0]}: {document} does not name it")
        life_s = self._parts.settings.url_life_s
        store = self._store
        if not isinstance(store, SignsUrls):
            return write(tuple[SignedUrl, ...], [SignedUrl(None)] * len(digests))
        expires_at = self._parts.signer.clock() + life_s
        sign = partial(_sign_all, store, [layout.object_(digest) for digest in digests], int(life_s))
        urls = await self._parts.store_calls.run(sign)
        return write(tuple[SignedUrl, ...], [SignedUrl(url, expires_at) for url in urls])

    async def files(self, request: Request, caller: Caller, body: dict[str, Json]) -> Json:
        """Return a URL by which one file of a job that the token may serve is read (`GET`) or written (`PUT`)."""
        verb, key = body.get("verb"), check_key(read(str, body.get("key"), "files.key"))
        job_id = read(str, body.get("job_id"), "files.job_id")
        if verb not in ("GET", "PUT"):
            raise InvalidInput(f"cannot sign a URL for {verb!r}: GET and PUT are signed")
        job = await self._parts.queue_calls.run(self._parts.queue.get, job_id)
        caller.check_model(job.model)
        own = _JOB_KEY.fullmatch(key)
        if not (own and own[1] == job.id) and not (verb == "GET" and key in stored_keys(job.files, job.adapters)):
            raise NotAllowed(f"cannot sign a URL of {key}: it is no file of job {job.id}")
        if verb == "PUT" and job.status.ended:
            raise NotAllowed(f"cannot sign a URL of {key}: job {job.id} has ended ({job.status})")
        files, life_s = self._parts.files, int(self._parts.settings.url_life_s)
        expires_at = self._parts.signer.clock() + life_s
        sign = files.put_url if verb == "PUT" else partial(_get_url, files.store)
        url = await self._parts.store_calls.run(sign, key, life_s)
        if url is None:
            url, expires_at = self._parts.signer.url(self._parts.base_url(request), str(verb), key, life_s)
        return write(SignedUrl, SignedUrl(url, expires_at))

    async def _key(self, value: Json, caller: Caller) -> str:
        """Return a key that the token may read. Raises: NotAllowed, InvalidInput."""
        key = check_key(read(str, value, "the key"))
        models = caller.grant.models
        if _may_read(key, caller) and not (key.startswith(layout.ENVIRONMENTS) and models):
            return key
        if key.startswith(layout.ENVIRONMENTS):
            digest = layout.environment_of(key)
            for model in models:
                if digest in self._environments.get(model, ()):
                    return key
                self._environments[model] = await self._parts.store_calls.run(self._environments_of, model)
                if digest in self._environments[model]:
                    return key
        raise NotAllowed(f"cannot read {key}: token {caller.name} is not for it")

    def _environments_of(self, model: str) -> frozenset[str]:
        manifests = (each.key for each in self._store.list(layout.versions_folder(model)))
        named = (self._store.read(key) for key in manifests if layout.version_of(key) is not None)
        return frozenset(digest for data in named for digest in _DIGEST.findall(data.decode("utf-8", "replace")))

    async def _check_object(self, caller: Caller, key: str, document: Json) -> None:
        digest = layout.digest_of(key)
        if digest is None:
            return
        named = await self._digests_of(await self._key(document, caller))
        if digest not in named:
            raise NotAllowed(f"cannot read {key}: {document} does not name it")

    async def _digests_of(self, document: str) -> frozenset[str]:
        known = self._named.get(document)
        if known is not None:
            self._named.move_to_end(document)
            return known
        if layout.version_of(document) is None and not document.startswith(layout.ENVIRONMENTS):
            raise NotAllowed(f"cannot take {document} for what names objects: name a manifest or a bundle")
        data = await self._parts.store_calls.run(self._store.read, document)
        self._named[document] = found = frozenset(_DIGEST.findall(data.decode("utf-8", "replace")))
        if len(self._named) > _KEPT_DOCUMENTS:
            self._named.popitem(last=False)
        return found

    async def _stream(self, key: str, start: int) -> Response:
        run, store = self._parts.store_calls.run, self._store
        size = (await run(store.stat, key)).size_bytes
        left = max(0, size - start)

        async def pieces() -> AsyncIterator[bytes]:
            at = start
            while at < size:
                piece = await run(store.read_range, key, at, min(PIECE_BYTES, size - at))
                if not piece:
                    raise ObjectNotFound(f"{key} became shorter while it was read", key=key)
                at += len(piece)
                yield piece

        headers = {"Content-Length": str(left)}
        status = 206 if start else 200
        return StreamingResponse(pieces(), status, headers, media_type="application/octet-stream")


def _sign_all(store: SignsUrls, keys: list[str], life_s: int) -> list[str]:
    return [store.signed_url(key, life_s) for key in keys]


def _get_url(store: ObjectStore, key: str, life_s: int) -> str | None:
    return store.signed_url(key, life_s) if isinstance(store, SignsUrls) else None


def _may_read(key: str, caller: Caller) -> bool:
    """Objects are judged by the document that names them, bundles by the versions of their environment."""
    if key.startswith(layout.MODELS):
        model = key.split("/")[1]
        return not caller.grant.models or model in caller.grant.models
    if key.startswith(layout.ADAPTERS):  # the team's own, for jobs of any model
        return True
    if key in (layout.REPOSITORY, layout.STORE) or layout.digest_of(key) is not None:
        return True
    return key.startswith(layout.ENVIRONMENTS)


def _range(header: str | None) -> tuple[int | None, int | None]:
    if header is None:
        return None, None
    match = _RANGE.fullmatch(header.strip())
    if match is None:
        raise InvalidInput(f"cannot read the range {header!r}: bytes=START-END is understood")
    start = int(match[1])
    return start, (int(match[2]) - start + 1 if match[2] else None)
