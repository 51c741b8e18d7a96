"""What a gateway is made of; every route finds it as `request.app.state.parts`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, cast

from fastapi import Depends, Request

from modelrepo_runtime.client import Client
from modelrepo_runtime.gateway.addresses import AddressRules
from modelrepo_runtime.gateway.calls import Calls
from modelrepo_runtime.gateway.metrics import Metrics
from modelrepo_runtime.gateway.news import News
from modelrepo_runtime.gateway.room import Room
from modelrepo_runtime.gateway.settings import GatewaySettings
from modelrepo_runtime.gateway.signing import UrlSigner
from modelrepo_runtime.gateway.token_book import TokenBook
from modelrepo_runtime.gateway.uploads import Uploads
from modelrepo_runtime.jobstore import JobStore
from modelrepo_runtime.queue.port import JobQueue
from modelrepo_runtime.submissions import Submissions
from modelrepo_runtime.timing import Timing


@dataclass(frozen=True)
class Parts:
    """Made once, by `assemble`."""

    settings: GatewaySettings
    queue: JobQueue
    files: JobStore
    client: Client
    """Checks inputs and submits, over the same queue and files; fetches URLs by the gateway's rules."""
    rules: AddressRules
    signer: UrlSigner
    uploads: Uploads
    queue_calls: Calls
    """For calls of `queue`, and of nothing else."""
    store_calls: Calls
    """For calls of the repository and of job files, which may take as long as a bucket does."""
    tokens: TokenBook
    news: News
    metrics: Metrics
    timing: Timing = field(default_factory=Timing)
    at_stop: list[Callable[[], None]] = field(default_factory=list)
    """Called in the event loop when the gateway begins to stop: what waits long is to be answered then."""
    room: Room = field(default_factory=lambda: Room(_nobody_waits))

    @property
    def submissions(self) -> Submissions:
        """What checks inputs and keeps files, as the client does."""
        return self.client.submissions

    def base_url(self, request: Request) -> str:
        """Return where clients reach this gateway."""
        return self.settings.public_url or str(request.base_url).rstrip("/")


async def _nobody_waits(_tenant: str, _most: int) -> int:
    return 0


async def _parts(request: Request) -> Parts:  # no coroutine would be run in a thread
    return cast(Parts, request.app.state.parts)


PartsOf = Annotated[Parts, Depends(_parts)]
