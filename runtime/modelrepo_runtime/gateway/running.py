"""`modelrepo gateway`, as one call."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from modelrepo.errors import InvalidInput
from modelrepo.repository import Repository
from modelrepo_runtime.gateway.app import assemble, create_app
from modelrepo_runtime.gateway.logs import write_json_lines
from modelrepo_runtime.gateway.serving import GatewayServer, Place, check_open, listen, raise_descriptors
from modelrepo_runtime.gateway.settings import GatewaySettings
from modelrepo_runtime.jobstore import JobStore
from modelrepo_runtime.queue.opening import default_files_url
from modelrepo_runtime.queue.port import JobQueue
from modelrepo_runtime.queue.tokens import token_store
from modelrepo_runtime.timing import Timing

GARBAGE_AFTER = 20_000
"""Objects between two looks for cycles: thousands of open requests are no garbage, and looking at them takes time."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What an operator asks of a gateway."""

    host: str = "127.0.0.1"
    port: int = 8080
    public_url: str | None = None
    certificate: Path | None = None
    key: Path | None = None
    allow_url_hosts: frozenset[str] = frozenset()
    most_requests: int = 12_000
    stop_grace_s: float = 30.0
    send_webhooks: bool = True


def run_gateway(
    wish: Wish,
    repository: Repository,
    queue: JobQueue,
    files: str | None,
    tell: Callable[[str], object],
    timing: Timing | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT; `tell` gets the address once requests are answered.

    Raises: InvalidInput, Conflict, Unreachable.
    """
    place = Place(wish.host, wish.port, wish.certificate, wish.key)
    raise_descriptors(wish.most_requests)
    is_open = check_open(place, bool(token_store(queue).all()))
    store = JobStore(_files_url(queue, files))
    with closing(listen(place)) as bound:
        settings = GatewaySettings(
            public_url=wish.public_url or (place.url(bound) if place.is_local else None),
            open_to_all=is_open,
            allow_url_hosts=wish.allow_url_hosts,
            most_requests=wish.most_requests,
            stop_grace_s=wish.stop_grace_s,
        )
        app = create_app(assemble(settings, queue, repository, store, timing=timing))
        server = GatewayServer(app, place, bound)
        write_json_lines()
        gc.freeze()
        gc.set_threshold(GARBAGE_AFTER, 20, 20)
        server.run(lambda: tell(server.url))


def _files_url(queue: JobQueue, files: str | None) -> str:
    try:
        return default_files_url(queue.url, files)
    except InvalidInput as error:
        told = "cannot tell where the files of jobs lie: pass --files URL, the same to every gateway"
        raise InvalidInput(told) from error
