"""What `doctor` says of a store, and that it leaves nothing there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from modelrepo.clock import Clock
from modelrepo.diagnosis import Diagnosis, Finding, Standing, diagnose_store
from modelrepo.errors import Forbidden, InvalidInput, ModelRepoError, Unreachable
from modelrepo.stores.faults import Fault, FaultyStore
from modelrepo.stores.founding import found
from modelrepo.stores.memory import MemoryBucket, MemoryStore
from modelrepo.stores.port import ObjectStore, StoreIdentity

OK, WARN, FAIL = Standing.OK, Standing.WARN, Standing.FAIL


class Time:
    """A clock that only moves by the step of each look at it."""

    def __init__(self, step_s: float = 0.0, at: float = 1000.0) -> None:
        self.monotonic_s, self.step_s, self.at = 0.0, step_s, at

    def monotonic(self) -> float:
        self.monotonic_s += self.step_s
        return self.monotonic_s

    def clock(self) -> Clock:
        return Clock(now=lambda: self.at, monotonic=self.monotonic)


def bucket(ahead_s: float = 0.0) -> MemoryBucket:
    bucket = MemoryBucket(clock=lambda: 1000.0 + ahead_s)
    found(MemoryStore("r", bucket))
    return bucket


def diagnose(
    store: ObjectStore | Callable[[str], ObjectStore], *, probe_again: bool = False, time: Time | None = None
) -> Diagnosis:
    open_ = store if callable(store) else lambda _url: store
    clock = (time or Time()).clock()
    return Diagnosis(diagnose_store("memory://r", probe_again=probe_again, clock=clock, open_=open_))


def standings(diagnosis: Diagnosis) -> dict[str, Standing]:
    return {finding.about: finding.standing for finding in diagnosis.findings}


def finding(diagnosis: Diagnosis, about: str) -> Finding:
    return next(each for each in diagnosis.findings if each.about == about)


@pytest.mark.parametrize("probe_again", [False, True])
def test_a_store_in_order_is_said_to_be(probe_again: bool) -> None:
    here = bucket()
    diagnosis = diagnose(MemoryStore("r", here), probe_again=probe_again)
    assert diagnosis.ok
    assert standings(diagnosis) == dict.fromkeys(
        [
            *("repository", "store", "probe", "latency of stat", "latency of read", "latency of create"),
            *("throughput up", "throughput down", "clock"),
        ],
        OK,
    )
    assert set(here.held) == {"repository.json", "store.json"}
    assert ("just now" in finding(diagnosis, "probe").found) == probe_again


def test_no_repository_is_a_failure_that_says_what_to_do() -> None:
    diagnosis = diagnose(MemoryStore("r", MemoryBucket()))
    assert standings(diagnosis) == {"repository": FAIL}
    assert "modelrepo init" in diagnosis.findings[0].found
    assert not diagnosis.ok
    assert not diagnosis.unreachable


def test_a_store_that_does_not_answer_is_unreachable() -> None:
    diagnosis = diagnose(FaultyStore(MemoryStore("r", bucket()), Fault(1)))
    assert standings(diagnosis) == {"repository": FAIL}
    assert diagnosis.unreachable


def test_a_store_that_stops_answering_is_unreachable_and_left_clean() -> None:
    here = bucket()
    diagnosis = diagnose(FaultyStore(MemoryStore("r", here), Fault(30, verbs=frozenset({"create"}))))
    assert standings(diagnosis)["writing"] is FAIL
    assert standings(diagnosis)["latency of read"] is OK
    assert diagnosis.unreachable
    assert set(here.held) == {"repository.json", "store.json"}


def test_credentials_that_may_only_read_leave_the_rest_untested() -> None:
    class Readable(MemoryStore):
        def create(self, key: str, data: bytes) -> None:
            raise Forbidden("no")

        def delete(self, key: str) -> None:
            raise Forbidden("no")

    diagnosis = diagnose(Readable("r", bucket()))
    assert diagnosis.ok
    assert standings(diagnosis)["writing"] is WARN
    assert "not tested: these credentials may only read" in finding(diagnosis, "writing").found


def test_a_store_that_has_moved_is_read_only_and_not_written_to() -> None:
    here = bucket()
    store = MemoryStore("r", here)
    store.identity = StoreIdentity("elsewhere", "r")
    diagnosis = diagnose(store, probe_again=True)
    assert diagnosis.ok
    for about in ("store", "probe", "writing"):
        assert standings(diagnosis)[about] is WARN
    assert "--adopt" in finding(diagnosis, "store").found
    assert set(here.held) == {"repository.json", "store.json"}


class Overwriting(MemoryStore):
    def create(self, key: str, data: bytes) -> None:
        self.replace(key, data)


def test_a_single_writers_store_is_warned_of() -> None:
    here = MemoryBucket(clock=lambda: 1000.0)
    found(Overwriting("r", here), single_writer=True)
    for probe_again in (False, True):
        diagnosis = diagnose(Overwriting("r", here), probe_again=probe_again)
        assert diagnosis.ok
        assert standings(diagnosis)["probe"] is WARN
        assert "never let two write" in finding(diagnosis, "probe").advice


def test_a_store_that_no_longer_creates_if_absent_is_a_failure() -> None:
    store = Overwriting("r", bucket())
    assert diagnose(store).ok
    diagnosis = diagnose(store, probe_again=True)
    assert standings(diagnosis)["probe"] is FAIL
    assert finding(diagnosis, "probe").facts["winners"] == (8, 8, 8)


@pytest.mark.parametrize(
    ("ahead_s", "standing", "found"),
    [
        (0.0, OK, "the store and this box agree"),
        (-0.9, OK, "the store and this box agree"),  # a time that was cut to whole seconds
        (2.0, OK, "2.0 s ahead"),
        (100.0, WARN, "100.0 s ahead"),
        (-101.0, WARN, "100.0 s behind"),
    ],
)
def test_the_stores_clock_is_compared(ahead_s: float, standing: Standing, found: str) -> None:
    told = finding(diagnose(MemoryStore("r", bucket(ahead_s))), "clock")
    assert told.standing is standing
    assert found in told.found


def test_a_slow_store_is_found_out_without_waiting_for_it() -> None:
    store = FaultyStore(MemoryStore("r", bucket()))
    diagnosis = diagnose(store, time=Time(step_s=2.0))
    assert diagnosis.ok
    for about in ("latency of stat", "latency of create", "throughput up", "throughput down"):
        assert standings(diagnosis)[about] is WARN
    assert "p50 2000.0 ms" in finding(diagnosis, "latency of stat").found
    creates = [key for verb, key in store.operations if verb == "create"]
    assert len(creates) < 10


def test_where_the_credentials_come_from_is_said_where_the_store_knows() -> None:
    class Knowing(MemoryStore):
        def credentials(self) -> str:
            return "a profile"

    assert finding(diagnose(Knowing("r", bucket())), "credentials").found == "a profile"


def test_an_error_in_one_thing_does_not_hide_the_others() -> None:
    class Spoilt(MemoryStore):
        looks = 0

        def read(self, key: str) -> bytes:
            if key == "store.json":
                self.looks += 1
                if self.looks == 2:
                    raise Unreachable("gone for a moment")
            return super().read(key)

    diagnosis = diagnose(Spoilt("r", bucket()))
    assert standings(diagnosis)["probe"] is FAIL
    assert standings(diagnosis)["clock"] is OK


def test_a_url_that_cannot_be_read_is_an_error() -> None:
    with pytest.raises(InvalidInput):
        diagnose_store("s3://")


def test_findings_of_errors_know_the_unreachable() -> None:
    from modelrepo.diagnosis.finding import looked_at

    def broken(error: ModelRepoError) -> Sequence[Finding]:
        raise error

    assert looked_at("x", lambda: broken(Forbidden("no")))[0].unreachable
    assert not looked_at("x", lambda: broken(InvalidInput("no")))[0].unreachable


def test_local_repositories_are_diagnosed_too(tmp_path: Path) -> None:
    from modelrepo.stores.filesystem import FilesystemStore

    found(FilesystemStore(tmp_path))
    assert Diagnosis(diagnose_store(str(tmp_path))).ok
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"repository.json", "store.json"}


@pytest.mark.parametrize("winners", ["8", "null", "{}"])
def test_a_record_that_says_nothing_of_use_is_read_all_the_same(winners: str) -> None:
    here = bucket()
    store = MemoryStore("r", here)
    record = store.read("store.json").decode()
    store.replace("store.json", record.replace('"winners": [', f'"winners": {winners}, "before": [', 1).encode())
    assert "of 8 creators ? won" in finding(diagnose(store), "probe").found
