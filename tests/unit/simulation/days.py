"""Small days for tests."""

from __future__ import annotations

from modelrepo_runtime.queue.rank import Policy
from modelrepo_runtime.simulation.day import Day
from modelrepo_runtime.simulation.ledger import Ledger
from modelrepo_runtime.simulation.reading import parse_day
from modelrepo_runtime.simulation.run import Run
from modelrepo_runtime.simulation.workload import draw

BUSY = """\
name: busy
seed: 3
arrivals: {per_hour: [1500, 700, 200]}
tiers:
  api: {share: 10%}
  enterprise: {share: 10%}
  unlimited: {share: 20%}
  light: {share: 20%}
  free: {share: 40%}
tenants:
  many: {share: 100%, number: 300}
sizes:
  short: {share: 60%, prepare: 4s, generate: 40s, finish: 2s, spread: 20%}
  long: {share: 40%, prepare: 8s, generate: 110s, finish: 4s, spread: 30%}
clusters:
  one:
    gpus: {0h: 16, 1h: 40}
    cpus: {0h: 4, 1h: 8}
    warm_up: 2min
  two:
    gpus: {1h30min: 16, 2h30min: 4}
    cpus: {1h30min: 4}
    warm_up: 1min
"""

TROUBLED = (
    BUSY.replace("name: busy", "name: troubled")
    + """\
failures:
  exception: 3%
  crash: 3%
  out_of_memory: 2%
  poison: 1%
  boxes_lost_per_hour: 60%
  box_away: 10min
rollouts:
  - {at: 20min, version: v2, max_unavailable: 25%, swap: 30s}
"""
)

BAD_VERSION = (
    BUSY.replace("name: busy", "name: bad version")
    + """\
rollouts:
  - {at: 30min, version: v2, max_unavailable: 25%, swap: 20s, failing: 100%, rollback_after: 10min}
"""
)


def day(text: str) -> Day:
    return parse_day(text, "day.yaml")


def play(text: str, policy: Policy = Policy.SLO_SHARE) -> tuple[Run, Ledger]:
    found = day(text)
    run = Run(found, draw(found, found.seed), policy)
    return run, run.play()


def longest_wait_s(run: Run, ledger: Ledger, tier: str) -> float:
    number = [known.name for known in run.day.tiers].index(tier)
    return max(wait_s for wait_s, of in zip(ledger.wait_s, run.work.tier, strict=True) if of == number)
