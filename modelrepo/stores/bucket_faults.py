"""What an object store's client raises, turned into errors of ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from modelrepo.errors import (
    Forbidden,
    ModelRepoError,
    ObjectExists,
    ObjectNotFound,
    RepositoryNotFound,
    Unreachable,
)
from modelrepo.stores.port import ObjectStore

_REFUSED_CLASSES = frozenset(
    {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ClientAuthenticationError"}
    | {"UnauthenticatedError", "PermissionDeniedError"}
)
_TAKEN_CLASSES = frozenset({"ResourceExistsError", "AlreadyExistsError", "PreconditionError"})
_TRANSIENT_STATUSES = frozenset({0, 408, 425, 429})  # 0: no answer at all
_TRANSIENT_CODES = frozenset(
    {"BadDigest", "IncompleteBody", "RequestTimeout", "SlowDown", "Throttling", "ThrottlingException"}
    | {"RequestLimitExceeded", "RequestThrottled", "XAmzContentSHA256Mismatch"}
)
"""Some come with 400, by which the request itself is wrong otherwise. What a network has spoilt is sent again."""

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_MESSAGE = re.compile(r"<Message>([^<]+)</Message>")
_DURATION = re.compile(r" in [\d.]+[nµm]?s(?= - )")
_REASON = re.compile(r'(?:message|error): "([^"]+)"')
"""obstore tells the server's answer only in its text."""


class Taken(ModelRepoError):
    """A condition of a write did not hold; never leaves the adapter."""


def create_or_compare(store: ObjectStore, key: str, data: bytes, put: Callable[[], None]) -> None:
    """Create by `put`, which raises Taken; an object that is there with the same bytes counts as created.

    Raises:
        ObjectExists: it is there with other bytes.
        Unreachable: another request for the key was under way, which says nothing about who won; to be asked again.
    """
    try:
        return put()
    except Taken as taken:
        try:
            there = store.read(key)
        except ObjectNotFound:
            raise Unreachable(
                f"cannot create {key} in {store.url}: it is refused as taken and yet absent; run it again",
                transient=True,
                status=409,
            ) from taken
        if there != data:
            raise ObjectExists(f"cannot create {key} in {store.url}: it is there with other bytes", key=key) from taken


def translate(error: Exception, *, verb: str, key: str, url: str, credentials: Callable[[], str]) -> ModelRepoError:
    """Return our error for `error`; `credentials` says where ours came from.

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
    said = _said(error)
    found = f"{code or type(error).__name__}: {said}" if said else code or type(error).__name__
    if "ProfileNotFound" in names:
        return Forbidden(f"{what}: {said}; correct the URL or AWS_PROFILE, or write the profile into ~/.aws/config")
    if "NoCredentialsError" in said or "NoCredentialsError" in names:
        return Forbidden(
            f"{what}: there are no credentials, neither in the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), "
            "nor in ~/.aws, nor on the machine; set them, or name a profile: AWS_PROFILE, or s3://PROFILE@BUCKET/FOLDER"
        )
    if status in (401, 403) or isinstance(error, PermissionError) or names & _REFUSED_CLASSES:
        return Forbidden(
            f"{what}: refused ({found}); credentials tried: {credentials()}; grant them access or set others"
        )
    if "InvalidPathError" in names:
        return Unreachable(
            f"{what}: a key there has an empty segment, which is none of ours ({found}); remove it", transient=False
        )
    transient = status in _TRANSIENT_STATUSES or (status >= 500 and status != 501) or code in _TRANSIENT_CODES
    return Unreachable(
        f"{what}: no answer that can be used ({found}); check the address and the network, then run it again",
        transient=transient,
        status=status or None,
    )


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
        if (found := _STATUS.search(str(each))) is not None:
            named = _CODE.search(str(each))
            return named[1] if named else "", int(found[1])
    return "", 0


def _said(error: Exception) -> str:
    """Return what a person may want of an error's text: obstore's ends in pages of its own state."""
    text, _, inside = str(error).partition("\n\nDebug source:")
    if (message := _MESSAGE.search(text)) is not None:
        return message[1]
    text = _DURATION.sub("", text)
    reasons = _REASON.findall(inside)
    return f"{text} ({reasons[-1]})" if reasons else text
