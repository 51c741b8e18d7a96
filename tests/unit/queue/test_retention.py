from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from modelrepo.errors import JobNotFound
from modelrepo_runtime.jobs import Cause, Fence, KeptState, Outcome, StageNeed, Submission
from modelrepo_runtime.jobstore import JobStore
from modelrepo_runtime.queue.memory import MemoryQueue
from modelrepo_runtime.queue.port import Offer, WorkerInfo
from modelrepo_runtime.retention import DAY_S, Retention, Swept, delete_dropped, sweep, sweep_handovers
from modelrepo_runtime.testing.clock import FakeClock
from modelrepo_runtime.worker.journal import Journal
from modelrepo_runtime.worker.upkeep import let_go


class Shop:
    """A queue and its files, on one clock."""

    def __init__(self, folder: Path) -> None:
        self.clock = FakeClock()
        self.queue = MemoryQueue(clock=self.clock)
        self.files = JobStore(str(folder / "files"))
        self.folder = folder

    def job(self, *, ended: bool, tier: str | None = None) -> str:
        job = self.queue.submit(Submission("m", {}, (StageNeed("run"),), tier))
        path = self.folder / "x"
        path.write_text("data")
        output = self.files.put_output(job.id, job.created_at, Fence(1, "a"), "out", path)
        os.utime(self.folder / "files" / output.key, (self.clock(), self.clock()))
        if ended:
            self.queue.cancel(job.id)
        return job.id

    def sweep(self) -> Swept:
        return sweep(self.queue, self.files, Retention(), self.clock)

    def kept(self) -> int:
        return len(self.keys())

    def keys(self) -> set[str]:
        return {found.key for found in self.files._store.list("")}


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def test_files_go_before_their_jobs(shop: Shop) -> None:
    job_id = shop.job(ended=True)
    assert shop.sweep() == Swept(0, 0)
    shop.clock.advance(8 * DAY_S)
    assert shop.sweep() == Swept(0, 1)
    assert shop.queue.get(job_id).id == job_id
    shop.clock.advance(23 * DAY_S)
    assert shop.sweep() == Swept(1, 0)
    with pytest.raises(JobNotFound):
        shop.queue.get(job_id)


def test_a_job_that_still_waits_keeps_everything(shop: Shop) -> None:
    job_id = shop.job(ended=False)
    shop.clock.advance(100 * DAY_S)
    assert shop.sweep() == Swept(0, 0)
    assert shop.kept() == 1 and shop.queue.get(job_id).id == job_id


def test_a_tier_may_keep_its_files_and_jobs_for_a_time_of_its_own(shop: Shop) -> None:
    shop.queue.set_tier("api", keep_files_s=DAY_S, keep_jobs_s=2 * DAY_S)
    shop.queue.set_tier("enterprise", keep_files_s=60 * DAY_S, keep_jobs_s=90 * DAY_S)
    _, _, long = (shop.job(ended=True, tier=tier) for tier in ("api", "free", "enterprise"))
    path = shop.folder / "upload"
    path.write_text("data")
    upload = shop.files.find_upload(shop.files.put_upload(path))
    os.utime(shop.folder / "files" / upload, (shop.clock(), shop.clock()))
    shop.clock.advance(1.5 * DAY_S)
    assert shop.sweep() == Swept(0, 1)
    shop.clock.advance(DAY_S)
    assert shop.sweep() == Swept(1, 0)
    shop.clock.advance(5 * DAY_S)
    assert shop.sweep() == Swept(0, 2)
    shop.clock.advance(30 * DAY_S)
    assert shop.sweep() == Swept(1, 0)
    assert [job.id for job in shop.queue.list()] == [long] and shop.kept() == 1


def test_orphans_of_unknown_jobs_go_by_age(shop: Shop) -> None:
    job_id = shop.job(ended=True)
    shop.queue.delete(job_id)
    shop.clock.advance(8 * DAY_S)
    assert shop.sweep() == Swept(0, 1)
    assert shop.kept() == 0


def test_a_worker_says_what_it_let_go(shop: Shop) -> None:
    log = io.StringIO()
    shop.job(ended=True)
    shop.clock.now -= 40 * DAY_S
    shop.job(ended=True)
    shop.clock.now += 40 * DAY_S
    let_go(shop.queue, shop.files, Journal(log))
    let_go(shop.queue, shop.files, Journal(log))
    assert log.getvalue().count("swept") == 1
    assert "swept jobs=1 files=0" in log.getvalue()


def test_what_lies_in_a_clusters_storage_goes_by_age_alone(tmp_path: Path) -> None:
    clock, files = FakeClock(), JobStore(str(tmp_path / "cluster"))
    for name, age_s in (("old", 31 * DAY_S), ("young", 29 * DAY_S)):
        path = tmp_path / name
        path.write_text("latents")
        kept = files.put_output(f"job_{name}", clock(), Fence(1, "a"), "latents", path)
        os.utime(tmp_path / "cluster" / kept.key, (clock() - age_s, clock() - age_s))
    assert [sweep_handovers(files, Retention(), clock) for _ in range(2)] == [1, 0]


def test_states_that_a_lost_box_left_behind_go_when_the_job_has_ended(shop: Shop) -> None:
    job = shop.queue.submit(Submission("m", {}, (StageNeed("run"),)))
    session = shop.queue.hello(WorkerInfo("w", "box", 1))
    (claim,) = shop.queue.claim(session, 1, [Offer("0", "m", "v1", ("run",))])
    path = shop.folder / "x"
    path.write_text("data")
    lost = shop.files.put_state(job.id, job.created_at, Fence(claim.fence.number - 1, "lost"), 7, path)
    saved = []
    for number in (1, 2, 3):
        key = shop.files.put_state(job.id, job.created_at, claim.fence, number, path)
        shop.queue.save_state(job.id, claim.fence, KeptState(number, claim.fence.number, "", key, 4, "0" * 64))
        saved.append(key)
    output = shop.files.put_output(job.id, job.created_at, claim.fence, "state-1", path)
    delete_dropped(shop.queue, shop.files)
    assert shop.keys() == {lost, *saved[1:], output.key}
    shop.queue.finish(session, job.id, claim.fence, Outcome(Cause.SUCCEEDED, {}))
    delete_dropped(shop.queue, shop.files)
    assert shop.keys() == {output.key}
