"""The demo's last words: one JSON object, or a table."""

from __future__ import annotations

from modelrepo_cli.demo.story import Ending
from modelrepo_cli.output import facts, span, table
from modelrepo_runtime.jobs import Json


def document(ending: Ending) -> dict[str, Json]:
    """Return what `--json` prints."""
    return {
        "jobs": ending.accounts.jobs,
        "lost": ending.accounts.lost,
        "duplicates_accepted": ending.accounts.duplicates_accepted,
        "swaps": ending.accounts.swaps,
        "rolled_back": ending.rolled_back,
        "picture": None if ending.picture is None else str(ending.picture),
        "seconds": round(ending.seconds, 1),
    }


def text(ending: Ending) -> str:
    """Return the tables that people read."""
    accounts, recovery = ending.accounts, ending.recovery
    by_version = ", ".join(f"{jobs} by {version}" for version, jobs in sorted(accounts.by_version.items()))
    gap = (
        "" if accounts.swap_gap_s is None else f", at most {accounts.swap_gap_s * 1000:.0f} ms of a waiting job's time"
    )
    sums = {
        "jobs": f"{accounts.jobs} ({by_version})",
        "lost": str(accounts.lost),
        "duplicates accepted": f"{accounts.duplicates_accepted} (results refused as stale: {accounts.stale_refused})",
        "attempts repeated": str(accounts.retried),
        "swaps": f"{accounts.swaps}{gap}",
        "rolled back": "yes" if ending.rolled_back else "no",
        "killed worker's job": f"{recovery.job.status} on {recovery.slot} {span(recovery.after_s)} after the kill",
        "took": span(ending.seconds),
        "picture": "" if ending.picture is None else str(ending.picture),
        "folder": str(ending.folder),
    }
    rows = [
        (
            waits.tier,
            span(waits.slo_s),
            waits.jobs,
            f"{waits.median_s:.2f} s",
            f"{waits.worst_s:.2f} s",
            f"{waits.worst_share:.1%}",
        )
        for waits in accounts.waits
    ]
    waited = table(("TIER", "SLO", "JOBS", "MEDIAN WAIT", "WORST WAIT", "OF SLO"), rows)
    return f"\n{waited}\n\n{facts(sums)}"
