"""The Client of a gateway: the same methods over HTTP, for those who reach neither queue nor repository."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import ssl
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, urlencode, urlsplit

from modelrepo.errors import (
    Conflict,
    Forbidden,
    InvalidAdapter,
    InvalidInput,
    InvalidJobInput,
    ModelRepoError,
    NotFound,
    Unreachable,
)
from modelrepo_runtime.client import LONGEST_WAIT_S, Client, JobObject
from modelrepo_runtime.job_adapters import file_digest
from modelrepo_runtime.jobs import Json
from modelrepo_runtime.queue.opening import default_queue_url, is_gateway
from modelrepo_runtime.queue.port import JobFilter
from modelrepo_runtime.remote.connection import ANSWER_TIMEOUT_S, Answer, Connections, put_file
from modelrepo_runtime.remote.failures import told
from modelrepo_runtime.remote.talk import find_token
from modelrepo_runtime.submissions import Wanted

ONE_WAIT_S = 45.0
UPLOAD_TIMEOUT_S = 120.0
STREAM_SILENCE_S = 60.0
OUTAGE_S = 60.0
"""How long a gateway may be away while somebody waits for a job: the time in which one is replaced."""
PAUSE_S = 1.0
_BY_STATUS: Mapping[int, type[ModelRepoError]] = {
    400: InvalidInput,
    401: Forbidden,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: InvalidInput,
    422: InvalidInput,
    429: Conflict,
}


class HttpClient(Client):
    """See Client. `Client("https://gw")` makes one; the token is given, or in MODELREPO_TOKEN."""

    def __init__(
        self, url: object = None, queue: str | None = None, *_: object, token: str | None = None, **__: object
    ):
        self.url = (url if isinstance(url, str) and is_gateway(url) else default_queue_url(queue)).rstrip("/")
        token = token or find_token()
        self._headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        self._connections = Connections()

    def _submit(self, model: str, inputs: Mapping[str, Any], wanted: Wanted, key: str | None) -> JobObject:
        """Upload files first; an answer that is lost is asked for again, for the same job."""
        sent = {name: self._sent(value) for name, value in inputs.items()}
        told: dict[str, Json] = {"model": model, "inputs": sent, "metadata": dict(wanted.metadata)}
        told |= {"tier": wanted.tier, "tenant": wanted.tenant, "version": wanted.version}
        if wanted.deadline is not None:
            told["deadline"] = datetime.fromtimestamp(wanted.deadline, UTC).isoformat()
        if wanted.webhook is not None:
            told["webhook"] = {"url": wanted.webhook.url, "secret": wanted.webhook.secret}
        if wanted.adapters:
            told["adapters"] = [self._sent_adapter(one) for one in wanted.adapters]
        body = {name: value for name, value in told.items() if value is not None}
        headers = {"Idempotency-Key": key if key is not None else secrets.token_hex(16)}
        return cast(JobObject, self._ask("POST", "/v1/jobs", body, headers))

    def get(self, job_id: str) -> JobObject:
        """See Client.get."""
        return cast(JobObject, self._ask("GET", _path(job_id)))

    def _list(self, where: JobFilter) -> tuple[JobObject, ...]:
        limit, status = where.limit, where.status.value if where.status is not None else None
        told: dict[str, Json] = {"status": status, "model": where.model, "tier": where.tier, "tenant": where.tenant}
        told["older_than_s"] = where.older_than_s
        query: dict[str, Any] = {name: value for name, value in told.items() if value is not None}
        found: list[JobObject] = []
        after: str | None = None
        while len(found) < limit:
            page = {**query, "limit": min(1000, limit - len(found)), **({"after": after} if after else {})}
            answer = self._ask("GET", f"/v1/jobs?{urlencode(page)}")
            found += answer["jobs"]
            after = answer["next"]
            if after is None:
                break
        return tuple(found)

    def wait(self, job_id: str, timeout_s: float = LONGEST_WAIT_S) -> JobObject:
        """See Client.wait. A gateway may be away meanwhile, for a minute."""
        until = time.monotonic() + timeout_s
        away_since: float | None = None
        while True:
            left = max(0.0, until - time.monotonic())
            wait_s = min(left, ONE_WAIT_S)
            try:
                job = self._ask("GET", _path(job_id), headers={"Prefer": f"wait={wait_s:.0f}"}, silence_s=wait_s)
                away_since = None
            except Unreachable as error:
                away_since = _still_patient(error, away_since, left)
                continue
            if job["status"] not in ("queued", "running") or left <= 0:
                return cast(JobObject, job)
            if wait_s < 1.0:
                time.sleep(min(left, 0.2))

    def events(self, job_id: str, timeout_s: float = LONGEST_WAIT_S) -> Iterator[JobObject]:
        """See Client.events. Where the stream breaks off it goes on behind the last event."""
        until = time.monotonic() + timeout_s
        last: str | None = None
        away_since: float | None = None
        while (left := until - time.monotonic()) > 0:
            try:
                for event_id, job in self._stream(job_id, last, until):
                    last, away_since = event_id, None
                    yield job
                    if job["status"] not in ("queued", "running"):
                        return
            except Unreachable as error:
                away_since = _still_patient(error, away_since, left)

    def cancel(self, job_id: str) -> JobObject:
        """See Client.cancel."""
        return cast(JobObject, self._ask("POST", f"{_path(job_id)}/cancel"))

    def delete(self, job_id: str) -> None:
        """See Client.delete."""
        self._ask("DELETE", _path(job_id))

    def upload(self, path: str | os.PathLike[str]) -> str:
        """See Client.upload."""
        file = Path(path)
        try:
            size = file.stat().st_size
        except OSError as error:
            raise InvalidInput(f"cannot upload {file}: {error.strerror}") from error
        place = self._ask("POST", "/v1/files", {"name": _safe_name(file.name)})
        headers = {"Content-Type": "application/octet-stream"}
        timeout_s = UPLOAD_TIMEOUT_S + size / 1e6
        _check(put_file(self._connections, place["upload_url"], file, headers, timeout_s), "the upload")
        return str(place["id"])

    def log(self, job_id: str) -> str:
        """See Client.log. For tokens of the role `operate` alone."""
        answer = self._request("GET", f"{_path(job_id)}/log")
        return answer.body.decode("utf-8", "replace")

    def models(self) -> tuple[dict[str, Json], ...]:
        """See Client.models."""
        return tuple(self._ask("GET", "/v1/models")["models"])

    def model(self, name: str, version: str | None = None) -> dict[str, Json]:
        """See Client.model."""
        query = f"?{urlencode({'version': version})}" if version is not None else ""
        return cast("dict[str, Json]", self._ask("GET", f"/v1/models/{quote(name, safe='')}{query}"))

    def schemas(self, model: str, version: str | None = None) -> dict[str, Mapping[str, Any]]:
        """See Client.schemas."""
        return dict(self.model(model, version)["inputs"] or {})

    def close(self) -> None:
        """Close the connections; closing twice is legal."""
        self._connections.close()

    def _sent(self, value: Any) -> Any:
        return {"file": self.upload(value)} if isinstance(value, os.PathLike) else value

    def _sent_adapter(self, given: Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(given, Mapping) or not isinstance(given.get("file"), os.PathLike):
            return given  # type: ignore[return-value]  # the gateway says what is wrong with it
        path = Path(given["file"])
        return {"sha256": file_digest(path)[0], **given, "file": self.upload(path)}

    def _ask(
        self,
        method: str,
        path: str,
        body: Json = None,
        headers: Mapping[str, str] | None = None,
        silence_s: float = 0.0,
    ) -> Any:
        answer = self._request(method, path, body, headers, silence_s)
        if not answer.body:
            return None
        try:
            return json.loads(answer.body)
        except ValueError as error:
            raise Unreachable(f"{self.url}{path} answers with what is no JSON ({error}); is it a gateway?") from error

    def _request(
        self,
        method: str,
        path: str,
        body: Json = None,
        headers: Mapping[str, str] | None = None,
        silence_s: float = 0.0,
    ) -> Answer:
        sent = {**self._headers, **(headers or {})}
        data = None
        if body is not None:
            sent["Content-Type"] = "application/json"
            try:
                data = json.dumps(body, allow_nan=False).encode()
            except (TypeError, ValueError) as error:
                raise InvalidJobInput(f"cannot send the inputs: they are not JSON ({error})") from error
        timeout_s = ANSWER_TIMEOUT_S + silence_s
        answer = self._connections.request(
            method, self.url + path, body=data, headers=sent, timeout_s=timeout_s, repeatable=True
        )
        _check(answer, f"{self.url}{path.partition('?')[0]}")
        return answer

    def _stream(self, job_id: str, last: str | None, until: float) -> Iterator[tuple[str, JobObject]]:
        """Yield (event id, job) of one connection until it ends. Raises: Unreachable."""
        parts = urlsplit(self.url)
        timeout_s = min(STREAM_SILENCE_S, max(1.0, until - time.monotonic()))
        connection: http.client.HTTPConnection
        if parts.scheme == "https":
            context = ssl.create_default_context()
            connection = http.client.HTTPSConnection(
                parts.hostname or "", parts.port, timeout=timeout_s, context=context
            )
        else:
            connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_s)
        headers = {**self._headers, "Accept": "text/event-stream", **({"Last-Event-ID": last} if last else {})}
        try:
            connection.request("GET", f"{parts.path}{_path(job_id)}/events", headers=headers)
            wire = connection.sock
            answer = connection.getresponse()
            if answer.status != 200:
                _check(Answer(answer.status, {}, answer.read(1 << 16)), f"{self.url}{_path(job_id)}/events")
            event_id = ""
            while (left := until - time.monotonic()) > 0:
                wire.settimeout(min(STREAM_SILENCE_S, left))  # a line that came must not begin the wait anew
                if not (line := answer.readline()):
                    return
                name, _, value = line.decode("utf-8").rstrip("\n").partition(": ")
                if name == "id":
                    event_id = value
                elif name == "data":
                    yield event_id, json.loads(value)
        except TimeoutError:
            return
        except (OSError, http.client.HTTPException, ValueError) as error:
            if isinstance(error, ModelRepoError):
                raise
            raise Unreachable(f"cannot follow {job_id} at {self.url}: {error or type(error).__name__}") from error
        finally:
            connection.close()


def _path(job_id: str) -> str:
    return f"/v1/jobs/{quote(job_id, safe='')}"


def _safe_name(name: str) -> str:
    kept = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "_" for letter in name)
    return kept.lstrip(".")[-100:] or "file"


def _still_patient(error: Unreachable, away_since: float | None, left_s: float) -> float:
    """Wait a moment for a gateway that is away. Raises: `error` where it is no outage, or one that is too long."""
    now = time.monotonic()
    since = now if away_since is None else away_since
    if not error.transient or now - since > OUTAGE_S or left_s <= 0:
        raise error
    time.sleep(min(PAUSE_S, left_s))
    return since


def _check(answer: Answer, what: str) -> None:
    """Raise what an answer that is no success stands for."""
    if 200 <= answer.status < 300:
        return
    try:
        document = json.loads(answer.body)
    except ValueError:
        document = None
    fault = document.get("error") if isinstance(document, dict) else None
    fault = fault if isinstance(fault, dict) else {}
    error = told(fault, answer.status)
    message = str(fault.get("message") or " ".join(answer.body[:200].decode("utf-8", "replace").split()))
    if error is None:
        kind = _BY_STATUS.get(answer.status)
        if kind is None:
            said = f"{what} answers with status {answer.status}: {message or 'nothing'}"
            raise Unreachable(said, transient=answer.status >= 500, status=answer.status)
        error = kind(message or f"{what} answers with status {answer.status}")
    if isinstance(error, InvalidJobInput):
        error.pointer = str(fault.get("pointer") or "").removeprefix("/inputs")
    if isinstance(error, InvalidAdapter):
        error.pointer = str(fault.get("pointer") or "")
    raise error
