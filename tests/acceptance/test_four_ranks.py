"""A model on several ranks that meet over gloo: cancelled at any moment, and any rank killed, it never hangs.

Real torch, in an environment of the project's own making. MODELREPO_ACCEPTANCE=full cancels 200 jobs on two ranks and
200 on four, and kills every rank once; otherwise it is a few jobs and one rank of two.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
import pytest

from modelrepo_runtime.jobs import Cause, Job, Status
from modelrepo_runtime.local_model import Box, LocalModel, folder_model
from modelrepo_runtime.supervision import ChildOutcome, ChildState, RankGroup, descendants, shared_spawner
from modelrepo_runtime.testing.children import a_request
from modelrepo_runtime.testing.live import LiveBox, LiveWorker
from modelrepo_runtime.timing import Timing

FULL = os.environ.get("MODELREPO_ACCEPTANCE") == "full"
CANCELS = 200 if FULL else 5
RANKS = [2, pytest.param(4, marks=pytest.mark.full_counts)]
LONGEST_S = 120.0
"""Of one job or one start; the machine may be busy."""
MANY = 10**9
"""Steps of a job that does not end by itself."""
GRACE_S = 60.0
"""None of these models ignores a cancel, so one that is over is a rank which did not hear of it."""

PLAIN = """
import os, time

class Model:
    def load(self, ctx):
        self.ctx, self.at = ctx, 0
        self.folder = os.path.dirname(os.environ["MODELREPO_RENDEZVOUS"][len("file://"):])
        self.meet()

    def meet(self):
        self.at += 1
        open(f"{self.folder}/met-{self.at}-{self.ctx.rank}", "w").close()
        while not all(os.path.exists(f"{self.folder}/met-{self.at}-{rank}") for rank in range(self.ctx.world_size)):
            time.sleep(0.001)

    def run(self, job):
        job.progress(0.5)
        while job.attempt <= job.inputs["killed"]:
            self.meet()
            job.check()
        self.meet()
        return {"attempt": job.attempt, "ranks": self.ctx.world_size}
"""
"""Without torch: its ranks meet in files."""

SPEC = """
contract: 1
name: summing
entrypoint: model:Summing
stages: [{name: run, gpus: 4}]
accelerators: {cpu: null}
"""
PROJECT = """
[project]
name = "summing"
version = "0"
requires-python = ">=3.11"
dependencies = ["torch==2.13.0", "numpy"]
"""
CODE = """
import os
import torch
import torch.distributed as dist

class Summing:
    def load(self, ctx):
        torch.set_num_threads(1)
        where = os.environ["MODELREPO_RENDEZVOUS"]
        dist.init_process_group("gloo", init_method=where, rank=ctx.rank, world_size=ctx.world_size)
        self.ctx = ctx
        self.total()

    def total(self):
        tensor = torch.tensor([self.ctx.rank + 1.0])
        dist.all_reduce(tensor)
        return tensor.item()

    def run(self, job):
        steps = 0
        while steps < job.inputs["steps"]:
            total = self.total()
            steps += 1
            if self.ctx.rank % 2 and steps % 3 == 0:
                sum(range(2000))
            job.progress(steps / job.inputs["steps"])
        job.output("total.txt").write_text(str(total))
        return {"total": total, "ranks": self.ctx.world_size}
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, torch_cache: Path) -> Iterator[LocalModel]:
    folder = tmp_path_factory.mktemp("summing")
    (folder / "model.yaml").write_text(SPEC.strip() + "\n")
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "model.py").write_text(CODE)
    with folder_model(folder, Box(cache=torch_cache, lock=True)) as found:
        yield found


def started(model: LocalModel, folder: Path, ranks: int) -> RankGroup:
    group = RankGroup.start(replace(model.child_spec(folder), ranks=ranks), shared_spawner())
    group.load(LONGEST_S)
    return group


def run(
    group: RankGroup, folder: Path, steps: int, at: int = 0, act: Callable[[], object] = lambda: None
) -> ChildOutcome:
    """Run a job, and do something once it has told of its progress `at` times."""
    told = itertools.count(1)

    def tell(*_: object) -> None:
        if next(told) == at:
            act()

    request = a_request(folder, {"steps": steps})
    return group.run(request, timeout_s=LONGEST_S, on_progress=tell, cancel_grace_s=GRACE_S)


def works(group: RankGroup, folder: Path) -> None:
    ranks = len(group.pids)
    outcome = run(group, folder, 3)
    assert outcome.cause is Cause.SUCCEEDED, outcome
    assert outcome.result == {"total": ranks * (ranks + 1) / 2, "ranks": ranks}
    assert [file.path.read_text() for file in outcome.outputs] == [str(outcome.result["total"])]


@pytest.mark.parametrize("ranks", RANKS)
def test_ranks_are_cancelled_at_any_moment_and_a_killed_one_costs_its_group_alone(
    model: LocalModel, tmp_path: Path, ranks: int
) -> None:
    rng = random.Random(ranks)
    group = started(model, tmp_path / "child", ranks)
    for number in range(CANCELS):
        cancel_anywhere(group, tmp_path, rng, between=number % 2 == 0)
    works(group, tmp_path)
    for victim in range(ranks) if FULL else [1]:
        pid = group.pids[victim]
        outcome = run(group, tmp_path, MANY, rng.randrange(1, 40), partial(os.kill, pid, signal.SIGKILL))
        assert outcome.cause is Cause.CRASH and outcome.error is not None, outcome
        assert outcome.error.message.startswith(f"rank {victim}: "), outcome
        living = [descendants.read_process(pid) for pid in group.pids]
        assert not group.alive and all(process is None or process.zombie for process in living)
        group = started(model, tmp_path / f"after-{victim}", ranks)
        works(group, tmp_path)
    assert group.stop(LONGEST_S).step == "drained"


def cancel_anywhere(group: RankGroup, folder: Path, rng: random.Random, *, between: bool) -> None:
    """Cancel a job of the group: with a word of its progress, or at some moment between two."""
    timer = threading.Timer(rng.random() / 20, group.cancel)
    if between:
        timer.start()
    outcome = run(group, folder, MANY, rng.randrange(1, 40), group.cancel)
    timer.cancel()
    assert outcome.cause is Cause.CANCELLED, outcome
    assert group.state is ChildState.READY and group.alive


def test_a_worker_brings_the_group_back_and_the_job_is_tried_again(tmp_path: Path) -> None:
    ranks = 4 if FULL else 2
    timing = replace(Timing.embedded().scaled(0.2), cordon_first_s=0.1, cordon_longest_s=0.2)
    yaml = f"stages: [{{name: run, gpus: {ranks}, timeout: 60s}}]\naccelerators: {{cpu: null}}\n"
    with LiveBox(tmp_path / "box", timing) as box:
        box.promote(box.push(PLAIN, yaml=yaml))
        worker = box.worker()
        for victim in range(ranks) if FULL else [1]:
            done = killed_once(box, worker, victim, ranks)
            assert (done.status, done.result) == (Status.SUCCEEDED, {"attempt": 2, "ranks": ranks}), worker.text()
            assert f"rank {victim}: it ended without an answer" in worker.text()


def killed_once(box: LiveBox, worker: LiveWorker, victim: int, ranks: int) -> Job:
    """Submit a job, kill a rank while it runs, and return what became of the job."""
    job = box.client.submit("live", {"killed": 1})["id"]
    box.until(lambda: (box.queue.get(job).progress or 0) > 0, "the job runs")
    ((_, slot),) = box.slots()
    assert slot.extra["ranks"] == ranks
    os.kill(rank_of(worker, victim), signal.SIGKILL)
    box.until(lambda: box.queue.get(job).status.ended, "the job has ended")
    return box.queue.get(job)


def rank_of(worker: LiveWorker, rank: int) -> int:
    """Return the pid of one rank of the worker's only group."""
    found = []
    for pid in worker.children():
        with contextlib.suppress(psutil.Error):
            if psutil.Process(pid).environ().get("RANK") == str(rank):
                found.append(pid)
    (pid,) = found
    return pid
