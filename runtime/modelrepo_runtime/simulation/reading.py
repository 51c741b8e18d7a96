"""Reads a day from YAML: strictly, and with the line of what is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from modelrepo.contract.structure import check_structure
from modelrepo.contract.wording import near
from modelrepo.contract.yaml_lines import Document, parse_yaml
from modelrepo.errors import InvalidSpec
from modelrepo_runtime.jobs import StageNeed
from modelrepo_runtime.queue.port import Tier
from modelrepo_runtime.queue.tiers import SHIPPED_TIERS
from modelrepo_runtime.simulation.day import (
    FIRST_VERSION,
    Arrivals,
    Cluster,
    Customers,
    Day,
    Failures,
    Flood,
    Mix,
    Rollout,
    Size,
    Step,
)

LAUNCH, OVERLOAD = "launch.yaml", "overload.yaml"
_STAGES = (("prepare", "cpu"), ("generate", "gpu"), ("finish", "cpu"))
_UNITS_S = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|min|h)")
_MOST_JOBS = 5_000_000
_SUM_TOLERANCE = 0.001


@cache
def json_schema() -> Mapping[str, Any]:
    """Return the JSON Schema of a day."""
    return dict(json.loads(files("modelrepo_runtime.simulation").joinpath("day.schema.json").read_text("utf-8")))


def shipped(name: str) -> str:
    """Return the text of a day that comes with modelrepo: LAUNCH or OVERLOAD."""
    return files("modelrepo_runtime.simulation").joinpath("days", name).read_text("utf-8")


def shipped_day(name: str, *, load: float | None = None) -> Day:
    """Return a day that comes with modelrepo; `load` in place of the one that it says."""
    day = parse_day(shipped(name), name)
    if load is None:
        return day
    return replace(day, name=f"{day.name} {load:g}", arrivals=replace(day.arrivals, load=load))


def read_day(path: Path) -> Day:
    """Read the day in a file. Raises: InvalidSpec."""
    return parse_day(read_text(path), str(path))


def read_text(path: Path) -> str:
    """Return a day's file as text. Raises: InvalidSpec."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InvalidSpec(f"no UTF-8 text: {error.reason} at byte {error.start}", path=str(path)) from None
    except OSError as error:
        raise InvalidSpec(
            f"cannot be read: {error.strerror}; `modelrepo simulate --show-day` prints one to begin with",
            path=str(path),
        ) from None


def parse_day(text: str, path: str) -> Day:
    """Read a day from its text; `path` is for errors. Raises: InvalidSpec."""
    document = parse_yaml(text, path)
    if not isinstance(document.value, dict):
        raise InvalidSpec(
            "no mapping; a day has arrivals:, tiers:, sizes: and clusters:; `modelrepo simulate --show-day` prints one",
            path=path,
            line=1,
        )
    check_structure(document, path, json_schema())
    return _Reader(document, path).day()


class _Reader:
    """Turns a document that the schema has passed into a Day, and refuses what no schema can."""

    def __init__(self, document: Document, path: str) -> None:
        self.document, self.path = document, path
        self.top: dict[str, Any] = document.value

    def refuse(self, at: Sequence[str | int], message: str) -> InvalidSpec:
        key = ".".join(map(str, at))
        return InvalidSpec(f"{key}: {message}", path=self.path, line=self.document.line(tuple(at)), key=key)

    def day(self) -> Day:
        """Raises: InvalidSpec."""
        stages, sizes = self.sizes()
        clusters = self.clusters()
        tiers = tuple(self.tier(name, body) for name, body in self.top["tiers"].items())
        self.whole("tiers")
        day = Day(
            name=self.top.get("name", Path(self.path).stem),
            seed=self.top.get("seed", 0),
            arrivals=self.arrivals(),
            tiers=tuple(sorted(tiers, key=lambda tier: (tier.slo_s, tier.name))),
            tier_mix=tuple(Mix(name, _share(body["share"])) for name, body in self.top["tiers"].items()),
            stages=stages,
            sizes=sizes,
            clusters=clusters,
            tenants=self.tenants(),
            floods=tuple(self.flood(n, body) for n, body in enumerate(self.top.get("floods", []))),
            failures=self.failures(),
            rollouts=self.rollouts(),
        )
        self.check_amount(day)
        return day

    def whole(self, key: str) -> None:
        """Refuse shares that do not make a whole."""
        total = sum(_share(body["share"]) for body in self.top[key].values())
        if abs(total - 1) > _SUM_TOLERANCE:
            raise self.refuse((key,), f"the shares make {total * 100:.4g} % together; they must make 100 %")

    def arrivals(self) -> Arrivals:
        body = self.top["arrivals"]
        if ("per_hour" in body) == ("load" in body):
            raise self.refuse(("arrivals",), "say either per_hour: or load: with hours:")
        if "load" not in body:
            if "hours" in body:
                raise self.refuse(("arrivals", "hours"), "per_hour: says already for how long; leave hours: out")
            return Arrivals(per_hour=tuple(body["per_hour"]))
        if "hours" not in body:
            raise self.refuse(("arrivals",), "load: needs hours:, for how long it lasts")
        return Arrivals(load=float(body["load"]), hours=float(body["hours"]))

    def tier(self, name: str, body: Mapping[str, Any]) -> Tier:
        known = next((tier for tier in SHIPPED_TIERS if tier.name == name), None)
        if known is None and "slo" not in body:
            names = [tier.name for tier in SHIPPED_TIERS]
            raise self.refuse(("tiers", name), f"no new queue has this tier: add its slo:{near(name, names)}")
        slo_s = _span_s(body["slo"]) if "slo" in body else known.slo_s if known else 0.0
        if slo_s <= 0:
            raise self.refuse(("tiers", name, "slo"), "must be above 0 s")
        miss = _share(body["allowed_miss"]) if "allowed_miss" in body else known.allowed_miss if known else 0.05
        if miss >= 1:
            raise self.refuse(("tiers", name, "allowed_miss"), "must be below 100 %")
        return Tier(name, slo_s, miss)

    def tenants(self) -> tuple[Customers, ...]:
        if "tenants" not in self.top:
            return (Customers("default", 1.0),)
        self.whole("tenants")
        return tuple(
            Customers(name, _share(body["share"]), float(body.get("weight", 1.0)), body.get("number", 1))
            for name, body in self.top["tenants"].items()
        )

    def flood(self, n: int, body: Mapping[str, Any]) -> Flood:
        if body["tier"] not in self.top["tiers"]:
            raise self.refuse(("floods", n, "tier"), f"no tier {body['tier']!r}{near(body['tier'], self.top['tiers'])}")
        return Flood(_span_s(body["at"]), body["tenant"], body["tier"], body["jobs"], _span_s(body.get("over", "1min")))

    def sizes(self) -> tuple[tuple[StageNeed, ...], tuple[Size, ...]]:
        self.whole("sizes")
        bodies: Mapping[str, Mapping[str, Any]] = self.top["sizes"]
        first = next(iter(bodies))
        plan = [(name, on) for name, on in _STAGES if name in bodies[first]]
        for size, body in bodies.items():
            for name, _ in _STAGES:
                if (name in body) != (name in bodies[first]):
                    with_it, without = (size, first) if name in body else (first, size)
                    raise self.refuse(("sizes", size), f"{with_it} has {name}: and {without} has not; say it for all")
                if name in body and _span_s(body[name]) <= 0:
                    raise self.refuse(("sizes", size, name), "must be above 0 s")
        sizes = tuple(
            Size(
                size,
                _share(body["share"]),
                tuple(_span_s(body[name]) for name, _ in plan),
                _share(body.get("spread", 0)),
            )
            for size, body in bodies.items()
        )
        return tuple(StageNeed(name, on) for name, on in plan), sizes

    def clusters(self) -> tuple[Cluster, ...]:
        found = []
        with_cpus = any("prepare" in body or "finish" in body for body in self.top["sizes"].values())
        for name, body in self.top["clusters"].items():
            if with_cpus and not body.get("cpus"):
                raise self.refuse(("clusters", name), "jobs have stages on CPU; add cpus:")
            found.append(
                Cluster(
                    name,
                    _steps(body["gpus"]),
                    _steps(body.get("cpus", {})),
                    _span_s(body.get("warm_up", "0s")),
                    body.get("gpus_per_box", 8),
                    body.get("bound", False),
                )
            )
        for pool in ("gpus", *(["cpus"] if with_cpus else [])):
            if not any(steps and steps[-1].slots for steps in (getattr(cluster, pool) for cluster in found)):
                raise self.refuse(
                    ("clusters",), f"no cluster has {pool} at the end of the day: jobs would wait for ever"
                )
        if any(c.bound and not (c.gpus[-1].slots and (c.cpus or [Step(0, 1)])[-1].slots) for c in found):
            raise self.refuse(("clusters",), "a bound cluster needs gpus and cpus to the end of the day")
        return tuple(found)

    def failures(self) -> Failures:
        body = self.top.get("failures", {})
        shares = {key: _share(value) for key, value in body.items() if key != "box_away"}
        once = sum(shares.get(key, 0.0) for key in ("exception", "crash", "out_of_memory", "hang"))
        if once >= 1:
            raise self.refuse(("failures",), f"{once:.0%} of the attempts would fail; leave some to succeed")
        away = {"box_away_s": _span_s(body["box_away"])} if "box_away" in body else {}
        return Failures(**shares, **away)

    def rollouts(self) -> tuple[Rollout, ...]:
        found: list[Rollout] = []
        for n, body in enumerate(self.top.get("rollouts", [])):
            rollout = Rollout(
                _span_s(body["at"]),
                body["version"],
                str(body.get("max_unavailable", "10%")),
                _span_s(body.get("swap", "60s")),
                _share(body.get("failing", 0)),
                _span_s(body["rollback_after"]) if "rollback_after" in body else None,
            )
            if rollout.version in {FIRST_VERSION, *(earlier.version for earlier in found)}:
                raise self.refuse(("rollouts", n, "version"), f"{rollout.version!r} was live before; name a new one")
            if found and rollout.at_s <= found[-1].at_s + (found[-1].rollback_after_s or 0):
                raise self.refuse(("rollouts", n, "at"), "must be later than the rollout before, and its rollback")
            if rollout.failing and rollout.rollback_after_s is None:
                raise self.refuse(("rollouts", n), "a failing version needs rollback_after:, or its jobs never end")
            found.append(rollout)
        return tuple(found)

    def check_amount(self, day: Day) -> None:
        jobs = sum(day.arrivals_per_hour()) + sum(flood.jobs for flood in day.floods)
        if not 0 < jobs <= _MOST_JOBS:
            raise self.refuse(("arrivals",), f"{jobs:,} jobs; a day has 1 to {_MOST_JOBS:,}")


def _share(value: str | float) -> float:
    return float(value[:-1]) / 100 if isinstance(value, str) else float(value)


def _span_s(text: str) -> float:
    return sum(float(number) * _UNITS_S[unit] for number, unit in _PART.findall(text))


def _steps(body: Mapping[str, int]) -> tuple[Step, ...]:
    return tuple(sorted((Step(_span_s(at), slots) for at, slots in body.items()), key=lambda step: step.at_s))
