"""`modelrepo simulate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelrepo.errors import InvalidInput
from modelrepo_cli.output import counted, span, table
from modelrepo_cli.verbs import Call, verb

if TYPE_CHECKING:
    from modelrepo_runtime.simulation.report import PolicyResult

POLICIES = ("slo-share", "lwdf-late", "strict", "fifo")
"""A test holds them to the queue's."""


@verb()
@click.argument("day", metavar="[DAY.yaml]", required=False, type=click.Path(path_type=Path))
@click.option("--policy", "policies", multiple=True, type=click.Choice(POLICIES), help="Repeatable; all of them.")
@click.option("--seed", type=click.IntRange(min=0), help="Of the random generator; wins over the day's.")
@click.option(
    "--overload",
    type=click.FloatRange(0, 100, min_open=True),
    metavar="LOAD",
    help="A day of overload, say 1.15.",
)
@click.option("--plot", "folder", type=click.Path(path_type=Path), metavar="FOLDER", help="Write PNG and SVG there.")
@click.option("--exact-seconds", is_flag=True, help="Tell `seconds` to the millisecond, not up to the next minute.")
@click.option("--show-day", is_flag=True, help="Print the day's YAML, to change it, and end.")
def command(
    call: Call,
    day: Path | None,
    policies: tuple[str, ...],
    seed: int | None,
    overload: float | None,
    folder: Path | None,
    exact_seconds: bool,
    show_day: bool,
) -> None:
    """Play a day of jobs by the queue's own rules: the launch day, or yours."""
    from modelrepo_runtime.queue.rank import Policy
    from modelrepo_runtime.simulation import reading
    from modelrepo_runtime.simulation.report import simulate

    if day is not None and overload is not None:
        raise InvalidInput("cannot simulate both a day of yours and --overload: leave one out")
    name = reading.LAUNCH if overload is None else reading.OVERLOAD
    if show_day:
        text = reading.shipped(name) if day is None else reading.read_text(day)
        call.output.show({"day": text}, text.rstrip("\n"))
        return
    found = reading.read_day(day) if day is not None else reading.shipped_day(name, load=overload)
    chosen = [Policy(policy) for policy in dict.fromkeys(policies or POLICIES)]
    if folder is not None:
        from modelrepo_runtime.simulation.plot import plot, require_plots

        require_plots()  # before the minutes of work
    report = simulate(found, chosen, seed, call.output.note)
    if folder is not None:
        for path in plot(report, folder):
            call.output.note(f"wrote {path}")
    heading = f"{found.name}: {counted(report.jobs, 'job')}, seed {report.seed}"
    texts = [_text(result) for result in report.results]
    call.output.show(report.to_json(exact_seconds=exact_seconds), "\n\n".join([heading, *texts]))


def _text(result: PolicyResult) -> str:
    rows = [
        (name, f"{t.jobs:,}", f"{t.slo_met:.1%}", span(t.wait_p50_s), span(t.wait_p99_s), span(t.wait_max_s))
        for name, t in result.tiers.items()
    ]
    ends = ", ".join(f"{count:,} {status}" for status, count in sorted(result.ends.items(), key=lambda end: -end[1]))
    unended = f", {result.unended:,} without an end" if result.unended else ""
    facts = [
        f"{result.policy.value}: {ends}{unended}; at most {counted(result.most_waiting, 'job')} waiting;"
        f" the last ended after {span(result.last_end_s)}",
        table(("TIER", "JOBS", "WITHIN SLO", "WAIT P50", "P99", "LONGEST"), rows),
    ]
    if result.events:
        facts.append("on the way: " + ", ".join(f"{count:,} {what}" for what, count in sorted(result.events.items())))
    facts.append(f"simulated in {result.seconds:.1f} s")
    return "\n".join(facts)
