"""One conversation with a gateway: who we are, which protocol we speak, and what counts as an answer."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from modelrepo.errors import Conflict, Forbidden, InvalidInput, ModelRepoError, Unreachable
from modelrepo_runtime.jobs import Json
from modelrepo_runtime.remote.connection import ANSWER_TIMEOUT_S, Answer, Connections, Interrupt
from modelrepo_runtime.remote.failures import PROTOCOL, PROTOCOL_HEADER, told

_BY_STATUS: Mapping[int, type[ModelRepoError]] = {
    400: InvalidInput,
    409: Conflict,
    413: InvalidInput,
    422: InvalidInput,
}
"""What an answer stands for that names no error of ours; a gateway's own refusals are such."""


class Talk:
    """Asks one gateway; may be shared by threads."""

    def __init__(self, url: str, token: str | None = None, connections: Connections | None = None) -> None:
        self.url = url.rstrip("/")
        self.connections = connections or Connections()
        self._headers = {PROTOCOL_HEADER: str(PROTOCOL)}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"

    @property
    def headers(self) -> Mapping[str, str]:
        """What every request to the gateway carries."""
        return self._headers

    def post(
        self,
        path: str,
        body: bytes,
        *,
        timeout_s: float = ANSWER_TIMEOUT_S,
        repeatable: bool = False,
        interrupt: Interrupt | None = None,
    ) -> Json:
        """Send JSON, and return the answer's. Raises: what the gateway raised; Unreachable for what is no answer."""
        headers = {**self._headers, "Content-Type": "application/json"}
        answer = self.connections.request(
            "POST", self.url + path, body=body, headers=headers, timeout_s=timeout_s, repeatable=repeatable,
            interrupt=interrupt,
        )  # fmt: skip
        return self._json(path, answer)

    def get(self, path: str) -> Json:
        """Return the JSON at a path; raises as `post` does."""
        answer = self.connections.request("GET", self.url + path, headers=self._headers, repeatable=True)
        return self._json(path, answer)

    def put(self, path: str, body: bytes | IO[bytes], headers: Mapping[str, str], timeout_s: float) -> None:
        """Send bytes; raises as `post` does."""
        sent = {**self._headers, **headers}
        answer = self.connections.request(
            "PUT", self.url + path, body=body, headers=sent, timeout_s=timeout_s, repeatable=True
        )
        self.check(path, answer)

    def _json(self, path: str, answer: Answer) -> Json:
        self.check(path, answer)
        return self._parsed(path, answer)

    def check(self, path: str, answer: Answer) -> None:
        """Raise what an answer that is not 2xx stands for."""
        if 200 <= answer.status < 300:
            return
        document: Any = None
        try:
            document = json.loads(answer.body)
        except ValueError:
            pass
        said_error = document.get("error") if isinstance(document, dict) else None
        error = told(said_error, answer.status) if isinstance(said_error, dict) and "kinds" in said_error else None
        if error is not None:
            raise error
        if isinstance(document, dict) and answer.status in _BY_STATUS:
            raise _BY_STATUS[answer.status](str((document.get("error") or document).get("message") or document))
        said = " ".join(answer.body[:200].decode("utf-8", "replace").split())
        if answer.status in (401, 403):
            raise Forbidden(
                f"gateway {self.url} refuses the token for {path}: {said or answer.status}; "
                "give a valid one by --token-file or MODELREPO_TOKEN"
            )
        hint = "; is it a gateway, and no older than this box?" if answer.status in (404, 405) else ""
        raise Unreachable(
            f"gateway {self.url} answers {path} with status {answer.status}: {said or 'nothing'}{hint}",
            transient=answer.status >= 500 or answer.status == 429,
            status=answer.status,
        )

    def _parsed(self, path: str, answer: Answer) -> Json:
        try:
            return json.loads(answer.body)
        except ValueError as error:
            raise Unreachable(
                f"{self.url} answers {path} with what is no JSON ({error}); is it a gateway?", status=answer.status
            ) from error


def find_token(file: Path | None = None) -> str | None:
    """Return the token in a file, else MODELREPO_TOKEN, else that in MODELREPO_TOKEN_FILE. Raises: InvalidInput."""
    named = file
    if named is None:
        if token := os.environ.get("MODELREPO_TOKEN", "").strip():
            return token
        if not (from_environment := os.environ.get("MODELREPO_TOKEN_FILE")):
            return None
        named = Path(from_environment)
    try:
        token = named.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise InvalidInput(f"cannot read the token file {named}: {why}; write the token into it") from error
    if not token or not token.isascii() or any(letter <= " " for letter in token):
        raise InvalidInput(f"the token file {named} holds no token; write what `modelrepo token create` printed")
    return token
