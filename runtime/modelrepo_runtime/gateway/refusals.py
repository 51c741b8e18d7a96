"""What a gateway refuses of its own accord, each with its HTTP status."""

from __future__ import annotations

from modelrepo.errors import Conflict, Forbidden, InvalidInput, ModelRepoError


class Refusal(ModelRepoError):
    """A request that was not carried out. `retry_after_s` says when another try may do better."""

    http_status = 400
    retry_after_s: float | None = None

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Unauthenticated(Refusal, Forbidden):
    """No token, or none that is live."""

    http_status = 401


class NotAllowed(Refusal, Forbidden):
    """The token is not for this."""

    http_status = 403


class TooLarge(Refusal, InvalidInput):
    """The body, or the file, is larger than the gateway takes."""

    http_status = 413


class TooSlow(Refusal):
    """The client sent nothing for too long."""

    http_status = 408


class TooManyQueued(Refusal, Conflict):
    """As many jobs of the tenant wait as its token allows."""

    http_status = 429


class Overloaded(Refusal):
    """The gateway has all that it can carry, or is about to stop."""

    http_status = 503
