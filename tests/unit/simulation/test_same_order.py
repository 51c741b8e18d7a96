"""The lanes of a simulated day and those of a database let jobs go in the same order."""

from __future__ import annotations

import heapq

import pytest

from modelrepo_runtime.jobs import Cause, Claim, Outcome, Submission
from modelrepo_runtime.queue.memory import MemoryQueue
from modelrepo_runtime.queue.port import Offer, WorkerInfo
from modelrepo_runtime.queue.rank import Policy
from modelrepo_runtime.simulation.day import FIRST_VERSION, MODEL
from modelrepo_runtime.simulation.run import Run
from modelrepo_runtime.simulation.workload import draw
from modelrepo_runtime.timing import Timing

from . import days

SLOTS = 2
# The mean is what a queue that has learnt nothing takes a job to need.
ONE_STAGE = f"""\
seed: 11
arrivals: {{load: 1.3, hours: 0.04}}
tiers:
  api: {{share: 30%, slo: 4s, allowed_miss: 1%}}
  light: {{share: 30%, slo: 15s, allowed_miss: 10%}}
  free: {{share: 40%, slo: 40s, allowed_miss: 20%}}
tenants:
  few: {{share: 100%, number: 12}}
floods:
  - {{at: 20s, tenant: few-3, tier: light, jobs: 30, over: 5s}}
sizes:
  only: {{share: 100%, generate: 1s, spread: 40%}}
clusters:
  here:
    gpus: {{0h: {SLOTS}}}
    gpus_per_box: {SLOTS}
"""


@pytest.mark.parametrize("policy", Policy)
def test_jobs_go_in_the_order_of_the_queue(policy: Policy) -> None:
    day = days.day(ONE_STAGE)
    work = draw(day, day.seed)
    run = Run(day, work, policy)
    ledger = run.play()
    simulated = sorted(range(len(work.at_s)), key=lambda job: ledger.enqueued[job] + ledger.wait_s[job])
    assert any(run.tenancy.over) and len(simulated) > 200
    assert _order_of_the_queue(run, policy) == simulated


def _order_of_the_queue(run: Run, policy: Policy) -> list[int]:
    day, work = run.day, run.work
    now = [0.0]
    queue = MemoryQueue("memory://order", Timing(), lambda: now[0])
    queue.set_policy(policy)
    for tier in day.tiers:
        queue.set_tier(tier.name, slo_s=tier.slo_s, allowed_miss=tier.allowed_miss)
    session = queue.hello(WorkerInfo("here-0", "here-0", 1, "here"))
    offers = [Offer(f"gpu{n}", MODEL, FIRST_VERSION, (day.stages[0].name,), plan=day.stages) for n in range(SLOTS)]
    jobs: dict[str, int] = {}
    order: list[int] = []
    idle = list(reversed(offers))
    running: list[tuple[float, int, Offer, Claim]] = []
    calls = 0

    def poll(offer: Offer) -> None:
        nonlocal calls
        calls += 1
        claims = queue.claim(session, calls, [offer])
        if not claims:
            idle.append(offer)
            return
        job = jobs[claims[0].job_id]
        order.append(job)
        taken_s = day.sizes[0].stages_s[0] * work.factor[job]
        heapq.heappush(running, (now[0] + taken_s, calls, offer, claims[0]))

    coming = 0
    while coming < len(work.at_s) or running:
        if running and (coming == len(work.at_s) or running[0][0] <= work.at_s[coming]):
            now[0], _, offer, claim = heapq.heappop(running)
            queue.finish(session, claim.job_id, claim.fence, Outcome(Cause.SUCCEEDED))
            poll(offer)
            continue
        now[0] = work.at_s[coming]
        tenant = work.tenant_names[work.tenant[coming]]
        submission = Submission(MODEL, {}, day.stages, tier=day.tiers[work.tier[coming]].name, tenant=tenant)
        jobs[queue.submit(submission).id] = coming
        coming += 1
        if idle:
            poll(idle.pop())
    return order
