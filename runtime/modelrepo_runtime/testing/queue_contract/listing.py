"""Jobs are listed by what they have in common, page by page, or by their ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import pytest

from modelrepo.errors import InvalidInput
from modelrepo_runtime.queue.port import JobFilter
from modelrepo_runtime.testing.queue_contract.bench import Bench


@runtime_checkable
class TellsFaces(Protocol):
    def faces(self, job_ids: Sequence[str]) -> Mapping[str, tuple[object, ...]]: ...


class ListingContract:
    """What `list` must do."""

    def test_pages_follow_one_another_while_jobs_come_and_go(self, bench: Bench) -> None:
        ids = [bench.submit().id for _ in range(5)]
        first = bench.queue.list(JobFilter(limit=2))
        assert [job.id for job in first] == [ids[4], ids[3]]
        bench.submit()
        bench.queue.delete(ids[2])
        second = bench.queue.list(JobFilter(limit=2, before=first[-1].id))
        assert [job.id for job in second] == [ids[1], ids[0]]
        assert bench.queue.list(JobFilter(before=ids[0])) == ()
        with pytest.raises(InvalidInput, match="begin with the first page"):
            bench.queue.list(JobFilter(before=ids[2]))

    def test_jobs_are_found_by_their_ids(self, bench: Bench) -> None:
        ids = [bench.submit().id for _ in range(3)]
        found = bench.queue.list(JobFilter(ids=(ids[0], "job_none", ids[2])))
        assert [job.id for job in found] == [ids[2], ids[0]]
        assert bench.queue.list(JobFilter(ids=())) == ()

    def test_a_job_s_face_changes_with_what_its_user_sees(self, bench: Bench) -> None:
        if not isinstance(bench.queue, TellsFaces):
            return  # a gateway looks for its clients
        job, other = bench.submit(), bench.submit()
        queue: TellsFaces = bench.queue
        seen = [queue.faces([job.id, other.id, "job_none"])]
        assert set(seen[0]) == {job.id, other.id}

        def look() -> None:
            seen.append(queue.faces([job.id, other.id]))
            assert seen[-1][other.id] == seen[0][other.id]

        session = bench.worker()
        claim = bench.claim_one(session)
        look()
        bench.queue.progress(job.id, claim.fence, 0.5, "half")
        look()
        bench.queue.cancel(job.id)
        look()
        bench.finish(session, claim)
        look()
        assert len({each[job.id] for each in seen}) == 5
        bench.queue.delete(job.id)
        assert queue.faces([job.id]) == {}
