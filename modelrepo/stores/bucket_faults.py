"""What an object store's client raises, turned into errors of ours."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from modelrepo.errors import Forbidden, ModelRepoError, ObjectNotFound, RepositoryNotFound, Unreachable

_REFUSED_CLASSES = frozenset(
    {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ClientAuthenticationError"}
)
_TAKEN_CLASSES = frozenset({"ResourceExistsError"})
_TRANSIENT_STATUSES = frozenset({0, 408, 425, 429})  # 0: no answer at all
_TRANSIENT_CODES = frozenset(
    {"BadDigest", "IncompleteBody", "RequestTimeout", "SlowDown", "Throttling", "ThrottlingException"}
    | {"RequestLimitExceeded", "RequestThrottled", "XAmzContentSHA256Mismatch"}
)
"""Some come with 400, by which the request itself is wrong otherwise. What a network has spoilt is sent again."""


class Taken(ModelRepoError):
    """A condition of a write did not hold; never leaves the adapter."""


def translate(error: Exception, *, verb: str, key: str, url: str, filesystem: Any) -> ModelRepoError:
    """Return our error for `error`.

    The status of the answer is sought along the chain of causes: one and the same 412 comes as FileExistsError from one
    server and as OSError(EINVAL) from the next.
    """
    chain = list(_chain(error))
    code, status = _answer(chain)
    names = {type(each).__name__ for each in chain}
    what = f"cannot {verb} {key} in {url}" if key else f"cannot {verb} {url}"
    if code == "NoSuchBucket" or (not key and isinstance(error, FileNotFoundError)):
        return RepositoryNotFound(f"{what}: there is no such bucket; create it, or correct the URL")
    taken = status in (409, 412) or isinstance(error, FileExistsError) or names & _TAKEN_CLASSES
    if taken and verb in ("create", "replace"):
        return Taken(f"{what}: taken")
    if status == 404 or isinstance(error, FileNotFoundError):
        return ObjectNotFound(f"{key} is not in {url}", key=key)
    found = f"{code or type(error).__name__}: {error}" if str(error) else code or type(error).__name__
    if status in (401, 403) or isinstance(error, PermissionError) or names & _REFUSED_CLASSES:
        tried = credential_source(filesystem)
        return Forbidden(f"{what}: refused ({found}); credentials tried: {tried}; grant them access or set others")
    transient = status in _TRANSIENT_STATUSES or (status >= 500 and status != 501) or code in _TRANSIENT_CODES
    return Unreachable(
        f"{what}: no answer that can be used ({found}); check the address and the network, then run it again",
        transient=transient,
    )


def credential_source(filesystem: Any) -> str:
    """Say where the client of `filesystem` took its credentials from, without asking the network again."""
    if getattr(filesystem, "anon", False):
        return "none (anonymous access)"
    if getattr(filesystem, "key", None):
        return "options given in the program"
    method = getattr(getattr(getattr(filesystem, "session", None), "_credentials", None), "method", None)
    if method == "env":
        return "environment variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    if method:
        profile = os.environ.get("AWS_PROFILE") or os.environ.get("AWS_DEFAULT_PROFILE") or "default"
        return f"{method} (profile {profile})"
    return "none found in the environment, in ~/.aws or on the machine"


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        yield each
        each = each.__cause__ or each.__context__


def _answer(chain: list[BaseException]) -> tuple[str, int]:
    """Return error code and HTTP status of the first server's answer in the chain, ("", 0) where there is none."""
    for each in chain:
        response = getattr(each, "response", None)
        if isinstance(response, dict):
            code = str(response.get("Error", {}).get("Code", ""))
            status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) or 0)
            return code, status or (int(code) if code.isdigit() else 0)
    return "", 0
