from __future__ import annotations

from collections import Counter

import pytest

from modelrepo_runtime.jobs import Status
from modelrepo_runtime.queue import credits as dispatch
from modelrepo_runtime.queue.rank import Policy
from modelrepo_runtime.simulation.ledger import NOT_STARTED
from modelrepo_runtime.simulation.workload import draw

from . import days


@pytest.mark.parametrize("policy", Policy)
@pytest.mark.parametrize("text", [days.BUSY, days.TROUBLED, days.BAD_VERSION], ids=["busy", "troubled", "bad version"])
def test_every_job_ends_once(text: str, policy: Policy) -> None:
    run, ledger = days.play(text, policy)
    assert ledger.unended == 0 and None not in ledger.status
    assert ledger.waiting == [0] * len(run.day.tiers)
    assert not run.credits.held  # every credit was given back
    started = [job for job, wait_s in enumerate(ledger.wait_s) if wait_s != NOT_STARTED]
    assert len(started) == len(ledger.status)
    assert min(ledger.wait_s) >= 0


def test_without_failures_all_succeed() -> None:
    _, ledger = days.play(days.BUSY)
    assert set(ledger.status) == {Status.SUCCEEDED}


def test_only_jobs_that_fail_too_often_are_failed() -> None:
    """An attempt lost with its box is counted by a rule of its own: three tries."""
    run, ledger = days.play(days.TROUBLED)
    failed = {job for job, status in enumerate(ledger.status) if status is Status.FAILED}
    poisoned = {job for job, troubles in run.work.trouble.items() if len(troubles) >= 3}
    assert poisoned and failed
    twice = {job for job, troubles in run.work.trouble.items() if len(troubles) >= 2}
    assert failed <= twice
    assert ledger.events["worker_lost"] > 0 and ledger.events["boxes lost"] > 0


def test_a_job_avoids_the_slots_that_failed_it() -> None:
    run, _ = days.play(days.TROUBLED)
    for attempts in run.courses.attempts.values():
        crashed = [attempt.slot for attempt in attempts if attempt.cause.value != "worker_lost"]
        assert len(crashed) == len(set(crashed))


@pytest.mark.parametrize("policy", [Policy.SLO_SHARE, Policy.LWDF_LATE])
def test_no_tier_starves(policy: Policy) -> None:
    run, ledger = days.play(days.BUSY, policy)
    strict_run, strict = days.play(days.BUSY, Policy.STRICT)
    assert days.longest_wait_s(run, ledger, "free") < days.longest_wait_s(strict_run, strict, "free")


def test_under_slo_share_all_tiers_use_the_same_share_of_their_slo() -> None:
    run, ledger = days.play(days.BUSY.replace("gpus: {0h: 16, 1h: 40}", "gpus: {0h: 14, 2h: 60}"))
    busy = [sample.shares for sample in ledger.samples if 4000 < sample.at_s < 7000]
    unlimited, light, free = (sum(shares[n] for shares in busy) / len(busy) for n in (2, 3, 4))
    assert light == pytest.approx(free, rel=0.2) and unlimited == pytest.approx(free, rel=0.3)
    assert run.fleet.busy == 0


def test_credits_bound_what_is_prepared() -> None:
    run, ledger = days.play(days.BUSY)
    ratio = dispatch.ratio(run.day.mean_s(0), run.day.mean_s(1))
    assert ledger.overshoot <= 0
    assert ledger.most_prepared["one"] <= dispatch.limit(40, ratio)
    assert ledger.most_prepared["one"] > 16


def test_the_waiting_jobs_of_a_bound_cluster_are_taken_up_nowhere_else() -> None:
    run, ledger = days.play(days.BUSY.replace("    warm_up: 1min\n", "    warm_up: 1min\n    bound: true\n"))
    assert ledger.unended == 0
    assert set(run.courses.bound.values()) == {1}


def test_a_rollout_keeps_its_turns_and_loses_no_job() -> None:
    _, ledger = days.play(days.TROUBLED)
    assert ledger.events["promotions"] == 1
    run, _ = days.play(days.BUSY + "rollouts:\n  - {at: 20min, version: v2, max_unavailable: 25%, swap: 30s}\n")
    assert {slot.version for slot in run.fleet.slots[0]} == {"v2"}
    # The slots of the second pool came later, as v2; of the first 16 each swapped once.
    assert run.fleet.swaps == 16 and run.fleet.most_swapping == 4


def test_a_bad_version_leaves_no_dead_letter() -> None:
    run, ledger = days.play(days.BAD_VERSION)
    assert set(ledger.status) == {Status.SUCCEEDED}
    assert ledger.events["breaker opened"] == 1
    assert ledger.events["exception"] < 100
    assert {slot.version for slot in run.fleet.slots[0]} == {"v1"}


def test_one_tenants_flood_does_not_delay_the_others() -> None:
    calm = days.BUSY.replace("gpus: {0h: 16, 1h: 40}", "gpus: {0h: 40}").replace(
        "cpus: {0h: 4, 1h: 8}", "cpus: {0h: 12}"
    )
    flood = calm + "floods:\n  - {at: 10min, tenant: loud, tier: light, jobs: 2000, over: 1min}\n"
    run, without = days.play(calm)
    flooded, ledger = days.play(flood)
    loud = flooded.work.tenant_names.index("loud")
    for tier in ("api", "enterprise", "unlimited", "light"):
        number = [known.name for known in run.day.tiers].index(tier)
        others = [
            wait_s
            for wait_s, of, tenant in zip(ledger.wait_s, flooded.work.tier, flooded.work.tenant, strict=True)
            if of == number and tenant != loud
        ]
        # A service time, and what is prepared already.
        assert max(others) < days.longest_wait_s(run, without, tier) + 2 * 110
    waits = [w for w, tenant in zip(ledger.wait_s, flooded.work.tenant, strict=True) if tenant == loud]
    assert max(waits) > 600


def test_the_same_seed_gives_the_same_jobs_and_another_one_others() -> None:
    found = days.day(days.TROUBLED)
    assert draw(found, 5) == draw(found, 5)
    assert draw(found, 5) != draw(found, 6)


def test_a_runs_end_depends_on_nothing_but_day_seed_and_policy() -> None:
    _, one = days.play(days.TROUBLED)
    _, two = days.play(days.TROUBLED)
    assert (one.wait_s, one.status, one.samples, one.events) == (two.wait_s, two.status, two.samples, two.events)


def test_the_mix_is_that_of_the_day() -> None:
    found = days.day(days.BUSY)
    work = draw(found, 1)
    tiers = Counter(work.tier)
    for mix in found.tier_mix:
        number = [tier.name for tier in found.tiers].index(mix.name)
        assert tiers[number] / len(work.at_s) == pytest.approx(mix.share, abs=0.04)
    assert work.at_s == sorted(work.at_s)
    assert sum(work.factor) / len(work.factor) == pytest.approx(1.0, abs=0.02)
