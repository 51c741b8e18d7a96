"""Hold a repository's store against what was promised of it: is it there, is it the same, does it keep its word, how
fast is it. Nothing stays behind in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from modelrepo import layout
from modelrepo.clock import Clock
from modelrepo.diagnosis.finding import Finding, fail, looked_at, ok, warn
from modelrepo.diagnosis.speed import Answers, Latency, Throughput, measure_throughput, time_reads, time_writes
from modelrepo.errors import Forbidden
from modelrepo.stores.founding import Founded, open_founded, read_record
from modelrepo.stores.opening import open_store
from modelrepo.stores.port import ObjectStore
from modelrepo.stores.probe import probe

SLOW_ANSWER_S = 1.0  # a push looks at every object, and a worker asks every two seconds
SLOW_BYTES_PER_S = 2 * 2**20  # 10 GB of weights take an hour and a half
CLOCK_OFFSET_S = 5.0
"""Nothing in a repository compares two boxes' clocks; but S3 refuses requests that are a quarter of an hour off."""


@runtime_checkable
class NamesCredentials(Protocol):
    """A store that can say where its credentials come from."""

    def credentials(self) -> str: ...


@dataclass(frozen=True, slots=True)
class _Look:
    """One look at one repository. `client` opens a further client of its store."""

    store: ObjectStore
    founded: Founded
    clock: Clock
    client: Callable[[], ObjectStore]


def diagnose_store(
    url: str,
    *,
    probe_again: bool = False,
    clock: Clock | None = None,
    open_: Callable[[str], ObjectStore] = open_store,
) -> tuple[Finding, ...]:
    """Look at the repository at `url`. With `probe_again` the race for create-if-absent is run once more.

    Raises:
        InvalidInput: the URL cannot be read.
    """
    store = open_(url)
    opened: list[Founded] = []

    def reach() -> Finding:
        opened.append(open_founded(store))
        return ok("repository", f"{store.url} (id {opened[0].id[:12]})", url=store.url, id=opened[0].id)

    found = looked_at("repository", reach)
    if not opened:
        return (*found, *_credentials(store))
    look = _Look(store, opened[0], clock or Clock(), lambda: open_(url))
    return (
        *found,
        *looked_at("store", lambda: _identity(look)),
        *looked_at("probe", lambda: _probe_again(look) if probe_again else _probe_on_record(look)),
        *_credentials(store),
        *_speed(look),
    )


def _identity(look: _Look) -> Finding:
    identity = look.store.identity
    here = f"bucket {identity.bucket!r} at {identity.endpoint!r}" if identity.bucket else f"kind {identity.endpoint!r}"
    if look.founded.distrust is not None:
        return warn("store", look.founded.distrust)
    return ok("store", f"{here}, as {layout.STORE} says", endpoint=identity.endpoint, bucket=identity.bucket)


def _probe_on_record(look: _Look) -> Finding:
    record = read_record(look.store)
    if record is None:
        return warn("probe", "none on record", "run: modelrepo init --adopt")
    told = record.get("probe") if isinstance(record.get("probe"), dict) else {}
    assert isinstance(told, dict)
    winners, creators, at = told.get("winners", ()), told.get("creators", "?"), record.get("at", "?")
    winners = winners if isinstance(winners, list) else []
    facts = {"creates_if_absent": record.get("creates_if_absent"), "winners": winners, "at": at}
    said = f"of {creators} creators {', '.join(map(str, winners)) or '?'} won, on record since {at}"
    if record.get("creates_if_absent"):
        return ok("probe", f"creates if absent: {said}", **facts)
    if record.get("single_writer"):
        return warn("probe", f"does not create if absent: {said}", "never let two write to it at once", **facts)
    return fail("probe", f"does not create if absent: {said}", "use another store", **facts)


def _probe_again(look: _Look) -> Finding:
    if look.founded.distrust is not None:
        return warn("probe", "not run: the repository is read-only for us")
    result = probe(look.store, client=look.client)
    facts = {"creates_if_absent": result.trusted, "winners": result.winners}
    said = f"of {result.creators} creators {', '.join(map(str, result.winners))} won, just now"
    if result.trusted:
        return ok("probe", f"creates if absent: {said}", **facts)
    if look.founded.single_writer:
        return warn("probe", f"does not create if absent: {said}", "never let two write to it at once", **facts)
    return fail(
        "probe",
        f"does not create if absent, although {layout.STORE} says so: {said}",
        "let nobody write to it; find out what has changed on the server",
        **facts,
    )


def _credentials(store: ObjectStore) -> tuple[Finding, ...]:
    if not isinstance(store, NamesCredentials):
        return ()
    source = store.credentials()
    return (ok("credentials", source, source=source),)


def _speed(look: _Look) -> Iterator[Finding]:
    answers = Answers()

    def read() -> list[Finding]:
        answers.taken_s |= time_reads(look.store, layout.REPOSITORY, look.clock).taken_s
        return [_latency(verb, latency) for verb, latency in answers.latencies.items()]

    def write() -> list[Finding]:
        untested = "create, throughput and clock are not tested"
        if look.founded.distrust is not None:
            return [warn("writing", f"{untested}: the repository is read-only for us")]
        try:
            time_writes(look.store, answers, look.clock)
        except Forbidden:
            return [warn("writing", f"{untested}: these credentials may only read", "workers need no more")]
        throughput = measure_throughput(look.store, look.clock)
        return [_latency("create", answers.latencies["create"]), *_throughput(throughput), _clock(answers)]

    yield from looked_at("latency", read)
    yield from looked_at("writing", write)


def _latency(verb: str, latency: Latency) -> Finding:
    facts = {"p50_s": round(latency.p50_s, 6), "p95_s": round(latency.p95_s, 6)}
    found = f"p50 {latency.p50_s * 1000:.1f} ms, p95 {latency.p95_s * 1000:.1f} ms"
    if latency.p95_s > SLOW_ANSWER_S:
        return warn(f"latency of {verb}", found, "use a bucket nearer to this box, or look at the network", **facts)
    return ok(f"latency of {verb}", found, **facts)


def _throughput(measured: Throughput) -> Iterator[Finding]:
    for way, rate in (("up", measured.up), ("down", measured.down)):
        found, facts = f"{rate / 1e6:.1f} MB/s", {"bytes_per_s": round(rate)}
        if rate < SLOW_BYTES_PER_S:
            yield warn(f"throughput {way}", found, "use a bucket nearer to this box, or look at the network", **facts)
        else:
            yield ok(f"throughput {way}", found, **facts)


def _clock(answers: Answers) -> Finding:
    ahead_s = answers.ahead_s or 0.0
    found = f"the store's clock is {abs(ahead_s):.1f} s {'ahead of' if ahead_s > 0 else 'behind'} this box's"
    if abs(ahead_s) > CLOCK_OFFSET_S:
        return warn(
            "clock",
            found,
            "set this box's clock by NTP: S3 refuses requests once it is 15 min off",
            ahead_s=round(ahead_s, 3),
        )
    return ok("clock", found if ahead_s else "the store and this box agree", ahead_s=round(ahead_s, 3))
