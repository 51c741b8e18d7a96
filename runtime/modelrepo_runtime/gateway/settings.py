"""How a gateway behaves; one frozen value, handed to all of its parts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Bytes, seconds and counts. The defaults suit a fleet of 9,000 workers on one process."""

    public_url: str | None = None
    """Where clients reach it, for the URLs that it signs; None: as each request says."""
    open_to_all: bool = False
    """True: until there is a token nobody needs one. Only for a gateway that other boxes cannot reach."""
    allow_url_hosts: frozenset[str] = frozenset()
    """Hosts that tenants' URLs may name wherever they lead."""
    most_requests: int = 12_000
    """Under way at once, long waits among them; one more is answered 503."""
    body_bytes: int = 1 << 20
    machine_body_bytes: int = 64 << 20
    """Of a worker or operator: what a box says of all that it holds, many results at once."""
    file_bytes: int = 5 << 30
    header_bytes: int = 32 << 10
    header_s: float = 10.0
    """From a request's first byte to its last header."""
    silence_s: float = 30.0
    """The longest that a client may send nothing of a body."""
    longest_wait_s: float = 50.0
    """What `Prefer: wait` is held to: below the usual time-out of proxies."""
    keep_alive_s: float = 15.0
    """Between two comments on an idle event stream."""
    queue_threads: int = 14
    """Calls of the queue at once; with those for waiting and operating, below 20 connections to a database."""
    store_threads: int = 16
    """Calls of repository and job files at once, downloads of inputs among them."""
    most_calls_waiting: int = 4_000
    """Calls that wait for a thread; one more is answered 503."""
    token_cache_s: float = 2.5
    """How long a revoked token may still be taken for live; who waits on one is sent away after twice that."""
    stop_grace_s: float = 30.0
    """From SIGTERM, the time in which requests under way may end."""
    url_life_s: float = 3600.0
    send_webhooks: bool = True
    """False: other gateways empty the outbox, this one reaches no tenant's receiver."""
