"""Adapters of jobs on a box: fetched once, apart by owner, shown by name, and held while a job has them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modelrepo.errors import Corrupt, ObjectNotFound, Unreachable
from modelrepo_runtime.jobs import Adapter, Cause, Claim, Fence
from modelrepo_runtime.pool.shelf import Limits, Shelf
from modelrepo_runtime.timing import Timing
from modelrepo_runtime.worker.adapters import AdapterCache
from modelrepo_runtime.worker.attempt import Attempts
from modelrepo_runtime.worker.ends import Brought, Ended
from modelrepo_runtime.worker.handover import Handovers
from modelrepo_runtime.worker.holding import Held
from modelrepo_runtime.worker.journal import Journal


class Sources:
    """Files of jobs and what a repository publishes, in memory; counts what is asked for."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.asked: list[str] = []

    def pieces(self, key: str) -> Iterator[bytes]:
        self.asked.append(key)
        if key not in self.kept:
            raise ObjectNotFound(f"{key} is not there", key=key)
        yield self.kept[key]

    def read(self, reference: str, sha256: str, size_bytes: int) -> Iterator[bytes]:
        return self.pieces(reference)


@pytest.fixture
def sources() -> Sources:
    return Sources()


def an_adapter(sources: Sources, data: bytes, key: str, owner: str = "acme", weight: float = 1.0) -> Adapter:
    sources.kept[key] = data
    name = "style.safetensors"
    return Adapter(name, hashlib.sha256(data).hexdigest(), len(data), weight, owner, key=key)


def a_cache(folder: Path, sources: Sources, *limits: Limits) -> AdapterCache:
    shelves = [
        Shelf(folder / f"shelf-{number}", limit, lambda: 1 << 30)
        for number, limit in enumerate(limits or (Limits(1000, 10),))
    ]
    return AdapterCache(shelves, sources, sources, Journal(io.StringIO()))


def test_the_model_sees_the_name_and_two_jobs_share_the_bytes(tmp_path: Path, sources: Sources) -> None:
    cache = a_cache(tmp_path, sources)
    adapter = an_adapter(sources, b"weights", "jobs/1/style", weight=0.5)
    first = cache.bring(adapter, tmp_path / "1")
    second = cache.bring(replace(adapter, weight=2.0, key="jobs/2/style"), tmp_path / "2")
    assert first.shown.path == tmp_path / "1" / "style.safetensors"
    assert (first.shown.name, first.shown.weight, second.shown.weight) == ("style.safetensors", 0.5, 2.0)
    assert first.shown.path.read_bytes() == second.shown.path.read_bytes() == b"weights"
    assert first.shown.path.resolve() == second.shown.path.resolve() and sources.asked == ["jobs/1/style"]


def test_what_the_team_publishes_is_named_by_its_reference(tmp_path: Path, sources: Sources) -> None:
    sources.kept["style@v1"] = b"weights"
    adapter = Adapter("a.bin", hashlib.sha256(b"weights").hexdigest(), 7, ref="style@v1")
    shown = a_cache(tmp_path, sources).bring(adapter, tmp_path / "1").shown
    assert (shown.name, shown.path.name, shown.path.read_bytes()) == ("style@v1", "a.bin", b"weights")


def test_who_knows_a_digest_has_nothing_by_it(tmp_path: Path, sources: Sources) -> None:
    cache = a_cache(tmp_path, sources)
    secret = an_adapter(sources, b"weights", "uploads/acme")
    cache.bring(secret, tmp_path / "1")
    sources.kept["uploads/eve"] = b"nothing"
    with pytest.raises(Corrupt):
        cache.bring(replace(secret, owner="eve", key="uploads/eve"), tmp_path / "2")
    assert not list((tmp_path / "2").iterdir())
    assert sources.asked == ["uploads/acme", "uploads/eve"]


def test_an_adapter_that_is_gone_is_not_found(tmp_path: Path, sources: Sources) -> None:
    adapter = an_adapter(sources, b"weights", "uploads/acme")
    sources.kept.clear()
    with pytest.raises(ObjectNotFound):
        a_cache(tmp_path, sources).bring(adapter, tmp_path / "1")


def test_what_memory_has_no_room_for_lies_on_the_disk(tmp_path: Path, sources: Sources) -> None:
    cache = a_cache(tmp_path, sources, Limits(10, 10), Limits(100, 10))
    adapter = an_adapter(sources, b"x" * 50, "k")
    for number in range(2):
        kept = cache.bring(adapter, tmp_path / str(number))
        assert kept.shown.path.resolve().is_relative_to(tmp_path / "shelf-1") and kept.hold is not None
    assert sources.asked == ["k"]


@pytest.mark.parametrize("data", [b"y" * 50, b"x" * 49, b"x" * 51])
def test_what_no_shelf_has_room_for_is_the_attempts_own_and_is_verified_all_the_same(
    tmp_path: Path, sources: Sources, data: bytes
) -> None:
    cache = a_cache(tmp_path, sources, Limits(10, 10))
    adapter = an_adapter(sources, b"x" * 50, "k")
    kept = cache.bring(adapter, tmp_path / "1")
    assert kept.hold is None and kept.shown.path.read_bytes() == b"x" * 50 and not kept.shown.path.is_symlink()
    sources.kept["k"] = data
    with pytest.raises(Corrupt):
        cache.bring(adapter, tmp_path / "2")


def test_what_a_job_has_is_not_evicted_for_the_next(tmp_path: Path, sources: Sources) -> None:
    cache = a_cache(tmp_path, sources, Limits(1000, 1))
    first = cache.bring(an_adapter(sources, b"one", "1"), tmp_path / "1")
    second = cache.bring(an_adapter(sources, b"two", "2"), tmp_path / "2")
    assert second.hold is None and first.shown.path.read_bytes() == b"one"
    assert first.hold is not None
    first.hold.release()
    assert cache.bring(an_adapter(sources, b"three", "3"), tmp_path / "3").hold is not None
    assert not first.shown.path.exists()


def attempts_of(folder: Path, sources: Sources, cache: AdapterCache) -> Attempts:
    files: Any = sources
    journal = Journal(io.StringIO())
    handovers = Handovers(folder / "handovers", files)
    return Attempts(folder / "attempts", handovers, files, Timing.embedded(), journal, adapters=cache)


def a_held(*adapters: Adapter, job: str = "job_1") -> Held:
    claim = Claim(job, Fence(1, "a"), "m", "v1", "run", 0, True, 1, {}, None, "free", 0.0, 5.0, 0.0, adapters=adapters)
    return Held(claim, 0.0)


def test_a_job_that_is_staged_or_runs_keeps_its_adapters_and_lets_them_go(tmp_path: Path, sources: Sources) -> None:
    cache = a_cache(tmp_path, sources, Limits(1000, 2))
    attempts = attempts_of(tmp_path, sources, cache)
    held = a_held(an_adapter(sources, b"one", "1", weight=0.5), an_adapter(sources, b"two", "2"))
    brought = attempts.bring(held, slot="s0", digest="d")
    assert isinstance(brought, Brought)
    assert [(one.path.read_bytes(), one.weight) for one in brought.adapters] == [(b"one", 0.5), (b"two", 1.0)]
    other = a_held(an_adapter(sources, b"three", "3"), job="job_2")
    assert isinstance(attempts.bring(other, slot="s1", digest="d"), Brought)
    assert [one.path.read_bytes() for one in brought.adapters] == [b"one", b"two"]
    attempts.let_go(held)
    assert not any(one.path.exists() for one in brought.adapters)
    assert isinstance(attempts.bring(a_held(an_adapter(sources, b"4", "4")), slot="s0", digest="d"), Brought)
    assert len(list((tmp_path / "shelf-0" / "entries").iterdir())) == 2


def ended(sources: Sources, folder: Path, adapter: Adapter) -> Ended:
    attempts = attempts_of(folder, sources, a_cache(folder, sources))
    held = a_held(an_adapter(sources, b"good", "good"), adapter)
    found = attempts.bring(held, slot="s0", digest="d")
    attempts.let_go(held)
    assert isinstance(found, Ended)
    return found


def test_a_wrong_digest_and_an_absent_adapter_are_the_jobs_end(tmp_path: Path, sources: Sources) -> None:
    wrong = replace(an_adapter(sources, b"abc", "k"), sha256="f" * 64)
    gone = replace(an_adapter(sources, b"abc", "k"), key="uploads/gone")
    came = hashlib.sha256(b"abc").hexdigest()
    for adapter, code, said in (
        (
            wrong,
            "adapter_mismatch",
            f"its bytes are sha256:{came}, and 3 bytes of sha256:{'f' * 64} were named",
        ),
        (gone, "adapter_missing", "uploads/gone is not there"),
    ):
        found = ended(sources, tmp_path, adapter)
        assert found.cause is Cause.REJECTED and found.outcome is not None and found.outcome.error is not None
        error = found.outcome.error
        assert (error.code, error.message) == (code, f"adapter 1 (style.safetensors): {said}")


def test_a_store_that_is_away_is_not_held_against_the_job(
    tmp_path: Path, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = an_adapter(sources, b"abc", "k")

    def away(key: str) -> Iterator[bytes]:
        raise Unreachable("away")

    monkeypatch.setattr(sources, "pieces", away)
    assert ended(sources, tmp_path, adapter) == Ended(Cause.LOAD_FAILED)
