from __future__ import annotations

import time

import pytest

from modelrepo.errors import InvalidInput
from modelrepo_runtime.jobs import Fence, Job, JobError, OutputFile, Status, id_time, new_id, timestamp
from modelrepo_runtime.queue.turns import slots_allowed
from modelrepo_runtime.timing import Timing

API_KEYS = (
    *("id", "model", "version", "tier", "tenant", "status", "stage", "progress", "message", "created_at", "started_at"),
    *("finished_at", "eta", "queue", "result", "outputs", "error", "metadata"),
)


def job(**facts: object) -> Job:
    given: dict[str, object] = {"id": "job_1", "model": "m", "tier": "api", "tenant": "t", "status": Status.QUEUED}
    return Job(**{**given, "created_at": 0.0, "enqueued": 0.0, **facts})  # type: ignore[arg-type]


def test_the_job_object_has_exactly_the_keys_of_the_api() -> None:
    assert tuple(job().to_json()) == API_KEYS
    assert job(slo_share=0.3123456, position=12).to_json()["queue"] == {"position": 12, "slo_share": 0.3123}


def test_times_are_written_in_utc_with_a_z() -> None:
    shown = job(created_at=1_700_000_000.25).to_json()
    assert (shown["created_at"], shown["started_at"]) == ("2023-11-14T22:13:20.250Z", None)
    assert timestamp(0) == "1970-01-01T00:00:00.000Z"


def test_outputs_and_errors_are_shown_as_the_api_says() -> None:
    output = OutputFile("video", "jobs/k.mp4", 7, "video/mp4")
    shown = job(status=Status.SUCCEEDED, outputs=(output,), error=JobError("c", "m", True))
    body = shown.to_json({"jobs/k.mp4": ("https://x/k", 3600.0)})
    assert body["outputs"] == [
        {
            "name": "video",
            "url": "https://x/k",
            "expires_at": "1970-01-01T01:00:00.000Z",
            "bytes": 7,
            "content_type": "video/mp4",
        }
    ]
    assert body["error"] == {"code": "c", "message": "m", "retryable": True}
    assert body["queue"] is None


def test_ids_sort_by_time_and_tell_it() -> None:
    ids = [new_id("job", at) for at in (1.0, 1_700_000_000.0, 1_800_000_000.123)]
    assert ids == sorted(ids) and all(len(found) == len("job_") + 24 for found in ids)
    assert id_time(ids[2]) == 1_800_000_000.123
    assert abs(id_time(new_id("file")) - time.time()) < 60
    for wrong in ("job_", "job_1", "job_" + "u" * 24):
        with pytest.raises(ValueError):
            id_time(wrong)


def test_a_fence_reads_what_it_writes() -> None:
    assert Fence.parse(str(Fence(12, "ab"))) == Fence(12, "ab")


def test_timing_scales_every_time() -> None:
    fast = Timing.embedded().scaled(0.1)
    assert (fast.beat_s, fast.lease_s, *fast.retry_delays_s) == pytest.approx((0.1, 0.6, 0.1, 1.0, 6.0))
    assert fast.unanswered_claim_s == pytest.approx(0.3)
    assert [Timing().retry_delay_s(tries) for tries in (0, 1, 2, 3, 9)] == [1, 1, 10, 60, 60]


@pytest.mark.parametrize(
    ("said", "slots", "allowed"),
    [("10%", 5, 1), ("10%", 30, 3), ("25 %", 10, 2), ("100%", 4, 4), ("2", 100, 2), ("0", 100, 1), ("12.5%", 16, 2)],
)
def test_a_share_of_slots_is_floored_and_at_least_one(said: str, slots: int, allowed: int) -> None:
    assert slots_allowed(said, slots) == allowed


@pytest.mark.parametrize("said", ["", "ten", "-1", "1/2", "10%%"])
def test_a_share_that_cannot_be_read_is_refused(said: str) -> None:
    with pytest.raises(InvalidInput, match="max_unavailable"):
        slots_allowed(said, 10)
