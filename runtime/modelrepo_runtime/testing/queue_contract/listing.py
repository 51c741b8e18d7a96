"""Jobs are listed by what they have in common, page by page, or by their ids."""

from __future__ import annotations

import pytest

from modelrepo.errors import InvalidInput
from modelrepo_runtime.queue.port import JobFilter
from modelrepo_runtime.testing.queue_contract.bench import Bench


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
