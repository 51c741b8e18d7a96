"""Submissions: what is kept, what is refused, and keys that make a repeat harmless."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modelrepo.errors import Conflict, InvalidInput, JobNotFound
from modelrepo_runtime.jobs import Adapter, Status
from modelrepo_runtime.testing.queue_contract.bench import Bench, Rows


class SubmissionContract:
    def test_a_submitted_job_waits_in_the_default_tier(self, bench: Bench) -> None:
        job = bench.submit(metadata={"k": "v"}, inputs={"prompt": "ä"})
        assert (job.status, job.tier, job.position, job.slo_share) == (Status.QUEUED, "free", 0, 0.0)
        assert bench.queue.get(job.id) == job
        assert job.inputs == {"prompt": "ä"} and job.metadata == {"k": "v"} and job.stage == "run"
        assert bench.peek() == Rows(ready=1, delayed=0, leased=0, ended=0)

    def test_an_unknown_job_is_not_found(self, bench: Bench) -> None:
        for call in (bench.queue.get, bench.queue.cancel, bench.queue.delete, bench.queue.explain):
            with pytest.raises(JobNotFound, match="job_nope"):
                call("job_nope")
            with pytest.raises(JobNotFound):
                call("\udc80")

    def test_a_submission_that_cannot_be_kept_changes_nothing(self, bench: Bench) -> None:
        for facts in (
            {"tier": "gold"},
            {"stages": ()},
            {"inputs": {"x": float("nan")}},
            {"inputs": {"x": "a" * 2**20}},
            {"deadline": float("inf")},
            {"tenant": "\udc80"},
            {"idempotency_key": "\udc80"},
        ):
            with pytest.raises(InvalidInput):
                bench.submit(**facts)
        assert bench.peek() == Rows(0, 0, 0, 0)

    def test_the_same_key_gives_the_same_job(self, bench: Bench) -> None:
        first = bench.submit(idempotency_key="k")
        again = bench.submit(idempotency_key="k")
        other_tenant = bench.submit(idempotency_key="k", tenant="other")
        assert first.id == again.id != other_tenant.id
        assert bench.peek().ready == 2

    def test_a_key_that_comes_with_another_body_is_refused(self, bench: Bench) -> None:
        bench.submit(idempotency_key="k")
        with pytest.raises(InvalidInput, match="'k'"):
            bench.submit(idempotency_key="k", inputs={"n": 2})
        assert bench.peek().ready == 1

    def test_adapters_are_kept_and_claimed_with_their_job(self, bench: Bench) -> None:
        adapters = (
            Adapter("a.bin", "a" * 64, 7, 0.5, "acme", key="uploads/1/f/a.bin"),
            Adapter("style@v1", "b" * 64, 9, ref="style@v1"),
        )
        job = bench.submit(files={"image": "uploads/x"}, adapters=adapters)
        assert bench.queue.get(job.id).adapters == adapters and job.files == {"image": "uploads/x"}
        claim = bench.claim_one(bench.worker())
        assert (claim.adapters, claim.files) == (adapters, {"image": "uploads/x"})

    def test_other_adapters_are_another_body(self, bench: Bench) -> None:
        adapter = Adapter("a.bin", "a" * 64, 7, key="jobs/1/a.bin")
        first = bench.submit(idempotency_key="k", adapters=(adapter,))
        kept_again = replace(adapter, key="jobs/2/a.bin")
        assert bench.submit(idempotency_key="k", adapters=(kept_again,)).id == first.id
        for other in ((), (replace(adapter, weight=0.5),), (replace(adapter, sha256="b" * 64),)):
            with pytest.raises(InvalidInput, match="'k'"):
                bench.submit(idempotency_key="k", adapters=other)

    def test_more_adapters_than_a_job_may_have_are_refused(self, bench: Bench) -> None:
        with pytest.raises(InvalidInput, match="9 adapters; 8 at most"):
            bench.submit(adapters=(Adapter("a", "a" * 64, 1, key="k"),) * 9)

    def test_a_chosen_id_is_kept_and_cannot_be_used_twice(self, bench: Bench) -> None:
        assert bench.submit(job_id="job_mine").id == "job_mine"
        with pytest.raises(Conflict, match="job_mine"):
            bench.submit(job_id="job_mine")
