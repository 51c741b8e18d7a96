"""Pictures of a simulated day: who waits, and how much of their SLO the oldest have used."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from modelrepo.errors import InvalidInput, MissingExtra
from modelrepo_runtime.simulation.report import PolicyResult, Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HOUR_S = 3600.0
COLOURS = ("#b3001b", "#e07a1f", "#c9a227", "#3a86a8", "#5b5f97")
_HEIGHT_IN, _WIDTH_IN, _DPI = 2.6, 11.0, 110
_LEAST_SHARE = 0.01
"""Shown in place of 0 on the logarithmic axis."""


def require_plots() -> None:
    """Raises: MissingExtra."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingExtra("a plot of a simulated day", "plots") from error


def plot(report: Report, folder: Path) -> tuple[Path, Path]:
    """Write `<day>.png` and `<day>.svg` into a folder. Raises: MissingExtra, InvalidInput."""
    require_plots()
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = len(report.results)
    with matplotlib.rc_context({"svg.hashsalt": report.day.name, "font.size": 8, "path.simplify_threshold": 0.5}):
        figure = Figure(figsize=(_WIDTH_IN, _HEIGHT_IN * rows + 0.6), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(rows, 2, sharex=True, sharey="col", squeeze=False)
        for result, (left, right) in zip(report.results, axes, strict=True):
            _backlog(left, result, report)
            _shares(right, result, report)
        for axis in axes[-1]:
            axis.set_xlabel("hours")
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", report.day.name)
        paths = folder / f"{stem}.png", folder / f"{stem}.svg"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            figure.savefig(paths[0], dpi=_DPI, metadata={"Software": None})
            figure.savefig(paths[1], metadata={"Date": None})
        except OSError as error:
            raise InvalidInput(f"cannot write the plot to {folder}: {error.strerror}; name a folder of yours") from None
    return paths


def _backlog(axis: Axes, result: PolicyResult, report: Report) -> None:
    hours = _hours(result)
    columns = [[sample.backlog[n] for sample in result.samples] for n in range(len(report.day.tiers))]
    names = [tier.name for tier in report.day.tiers]
    axis.stackplot(hours, *columns, labels=names, colors=_colours(len(names)), alpha=0.85)
    axis.set_ylabel("jobs that wait")
    axis.set_title(f"{result.policy.value}: backlog", loc="left", fontweight="bold")
    axis.set_xlim(0, hours[-1])
    slots = axis.twinx()
    slots.plot(hours, [sample.gpus for sample in result.samples], color="black", linewidth=0.8, linestyle=":")
    slots.set_ylabel("GPUs (dotted)")
    slots.set_ylim(bottom=0)


def _shares(axis: Axes, result: PolicyResult, report: Report) -> None:
    hours = _hours(result)
    for n, (tier, colour) in enumerate(zip(report.day.tiers, _colours(len(report.day.tiers)), strict=True)):
        shares = [max(_LEAST_SHARE, sample.shares[n]) for sample in result.samples]
        axis.plot(hours, shares, color=colour, linewidth=1.2, label=tier.name)
    axis.axhline(1.0, color="black", linewidth=0.8)
    axis.set_yscale("log")
    axis.set_ylim(_LEAST_SHARE, None)
    axis.set_ylabel("oldest wait / SLO")
    worst = max(result.tiers.items(), key=lambda item: item[1].wait_max_s)
    longest = f"{worst[1].wait_max_s / HOUR_S:.1f} h ({worst[0]})"
    axis.set_title(f"{result.policy.value}: share of SLO; longest wait {longest}", loc="left", fontweight="bold")


def _hours(result: PolicyResult) -> Sequence[float]:
    return [sample.at_s / HOUR_S for sample in result.samples]


def _colours(count: int) -> list[str]:
    return [COLOURS[n % len(COLOURS)] for n in range(count)]
