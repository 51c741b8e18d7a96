"""A rollout while CPU workers prepare for accelerator workers: neither side idles.

At full size 20 accelerator workers and 4 CPU workers, else 4 and 1. Every accelerator slot goes away for as long as the
new version loads (`swap: drain`), a tenth of them at once.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from modelrepo_runtime.jobs import Status
from modelrepo_runtime.queue.port import JobFilter
from modelrepo_runtime.testing.live import LiveBox
from modelrepo_runtime.timing import Timing

FULL = os.environ.get("MODELREPO_ACCEPTANCE") == "full"
GPU_WORKERS, CPU_WORKERS = (20, 4) if FULL else (4, 1)
GENERATE_S, LOAD_S = (2.0, 1.0) if FULL else (0.5, 0.1)
BEFORE_S = 20.0 if FULL else 3.0
JOBS = 1500 if FULL else 150
# Of 20 slots 2 are away at once; of 4, one.
LEAST = 0.85 if FULL else 0.5
TIMING = Timing(beat_s=1.0, lease_s=20.0, turn_s=20.0, queue_poll_s=0.5, active_poll_local_s=0.5)

YAML = """\
swap: drain
stages:
  - {name: prepare, on: cpu}
  - {name: generate, on: gpu}
  - {name: finish, on: cpu}
"""
CODE = f"""\
import time

class Model:
    def load(self, ctx):
        self.version = ctx.version
        if "generate" in ctx.stages:
            time.sleep({LOAD_S})
    def prepare(self, job):
        assert self.version
        time.sleep(0.05)
        job.handover("prepared").write_text(self.version)
        return self.version
    def generate(self, job):
        time.sleep({GENERATE_S})
        prepared = job.handover("prepared").read_text()
        job.handover("generated").write_text(prepared + "+" + self.version)
        return [job.previous, self.version]
    def finish(self, job):
        return [*job.previous, self.version, job.handover("generated").read_text()]
# VARIANT
"""


def ended(box: LiveBox) -> int:
    return len(box.queue.list(JobFilter(status=Status.SUCCEEDED, limit=JOBS)))


def rate_over(box: LiveBox, seconds: float) -> float:
    began, before = time.monotonic(), ended(box)
    box.until(lambda: time.monotonic() >= began + seconds, "the time is over")
    return (ended(box) - before) / (time.monotonic() - began)


def test_a_rollout_costs_no_more_than_the_slots_that_are_away(tmp_path: Path) -> None:
    with LiveBox(tmp_path, timing=TIMING) as box:
        first = box.push(CODE, yaml=YAML)
        box.promote(first)
        for number in range(GPU_WORKERS):
            box.worker(f"gpu{number}", stages="gpu")
        for number in range(CPU_WORKERS):
            box.worker(f"cpu{number}", slots="none", cpu_slots=2)
        second = box.push(CODE.replace("# VARIANT", "VARIANT = 2"), yaml=YAML)
        slots = GPU_WORKERS + 2 * CPU_WORKERS
        box.serves(first, slots=slots)
        jobs = [box.client.submit(box.model, {})["id"] for _ in range(JOBS)]
        box.until(lambda: ended(box) >= 2 * GPU_WORKERS, "the pipeline is filled")
        before = rate_over(box, BEFORE_S)

        began, done = time.monotonic(), ended(box)
        box.promote(second)
        box.serves(second, slots=slots)
        seconds = time.monotonic() - began
        during = (ended(box) - done) / seconds
        print(f"before {before:.2f}/s, during {during:.2f}/s ({during / before:.0%}) of a rollout of {seconds:.1f} s")
        assert ended(box) < JOBS, "the queue ran dry: the rates say nothing"
        assert during >= LEAST * before

        # Some went through by the old version, some by the new, none by both.
        box.until(lambda: ended(box) >= done + during * seconds + GPU_WORKERS, "jobs of the new version ended")
        results = [job.result for job in map(box.queue.get, jobs) if job.status is Status.SUCCEEDED]
        assert all(len({*result[:3], *result[3].split("+")}) == 1 for result in results)
        assert {result[0] for result in results} == {first, second}
        assert all(job.attempt <= 1 for job in map(box.queue.get, jobs) if job.status is Status.SUCCEEDED)
