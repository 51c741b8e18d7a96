"""Slots on the CPU alone: a child of every version that the cluster wants."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from modelrepo_runtime.jobs import StageNeed, Status, Submission
from modelrepo_runtime.queue.port import SlotReport, WorkerInfo
from modelrepo_runtime.worker.target import Target

if TYPE_CHECKING:
    from modelrepo_runtime.worker.slot import Slot
    from tests.unit.worker.conftest import Bench

YAML = "stages: [{name: prepare, on: cpu}, {name: generate, on: gpu}]\n"
PLAN = (StageNeed("prepare", "cpu"), StageNeed("generate", "gpu"))


def a_cpu_slot(bench: Bench) -> Slot:
    for version in ("v1", "v2", "v3"):
        bench.plant.yaml[version] = YAML
    return bench.slot(only="cpu")


def a_gpu_box(bench: Bench, version: str) -> Callable[[], None]:
    """Begin a session; the answer beats once."""
    session = bench.queue.hello(WorkerInfo(f"gpu {version}", "elsewhere", 2, slots=("0",)))
    report = SlotReport("0", "open", "m", version, on=("gpu",))

    def beat() -> None:
        bench.queue.beat(session, (), [report])

    return beat


def serves(slot: Slot, version: str) -> bool:
    return slot.serving is not None and slot.serving.prepared.version.version == version


def holds(slot: Slot) -> set[str]:
    own = {slot.serving.prepared.version.version} if slot.serving else set()
    return own | set(slot.companions)


def test_the_old_version_stays_while_it_is_wanted_and_the_new_one_comes_without_a_turn(bench: Bench) -> None:
    slot = a_cpu_slot(bench)
    bench.target("v1")
    bench.serves(slot, "v1")
    slot.want(["v1"])
    bench.target("v2")
    bench.until(slot, lambda slot: holds(slot) == {"v1", "v2"} and serves(slot, "v2"))
    assert slot.report().also == ("v1",) and slot.report().on == ("cpu",)
    slot.want(["v2"])
    bench.until(slot, lambda slot: holds(slot) == {"v2"})
    assert [child.spec.version for child in bench.plant.children if child.alive] == ["v2"]


def test_it_prepares_for_each_version_that_accelerators_serve(bench: Bench) -> None:
    slot = a_cpu_slot(bench)
    bench.heard = lambda reply: slot.want(reply.versions.get("m", ()))
    bench.target("v1")
    boxes = [a_gpu_box(bench, "v1"), a_gpu_box(bench, "v2")]

    def beat() -> bool:
        for box in boxes:
            box()
        return True

    bench.until(slot, lambda slot: beat() and holds(slot) == {"v1", "v2"})
    jobs = [bench.queue.submit(Submission("m", {}, PLAN)).id for _ in range(6)]
    waiter = bench.queue.waiter(jobs=jobs)
    while len(bench.plant.ran) < 4:
        beat()
        waiter.wait(0.02)
    waiter.close()
    versions = [version for _, version, stage in bench.plant.ran if stage == "prepare"]
    assert sorted(versions) == ["v1", "v1", "v2", "v2"], "one slot each: two credits each"
    bench.until(slot, lambda _: all(bench.queue.get(job).status is Status.QUEUED for job in jobs))


def test_a_version_that_does_not_start_is_told_and_tried_again_while_the_others_serve(bench: Bench) -> None:
    slot = a_cpu_slot(bench)
    bench.plant.unfit["v2"] = "it does not import"
    bench.target("v1")
    bench.serves(slot, "v1")
    slot.want(["v1", "v2"])
    bench.until(slot, lambda _: "version-not-held" in bench.log.getvalue())
    assert holds(slot) == {"v1"} and slot.report().state == "open"


def test_a_companion_becomes_the_one_that_serves(bench: Bench) -> None:
    slot = a_cpu_slot(bench)
    bench.target("v1")
    bench.serves(slot, "v1")
    slot.want(["v1", "v2"])
    bench.until(slot, lambda slot: holds(slot) == {"v1", "v2"})
    children = len(bench.plant.children)
    bench.target("v2")
    bench.until(slot, lambda slot: serves(slot, "v2"))
    assert len(bench.plant.children) == children and set(slot.companions) == {"v1"}


def test_a_companion_that_dies_is_started_again(bench: Bench) -> None:
    slot = a_cpu_slot(bench)
    bench.target("v1")
    slot.want(["v1", "v2"])
    bench.until(slot, lambda slot: holds(slot) == {"v1", "v2"})
    with slot.changed:
        first = slot.companions["v2"].child
    first.stop()
    bench.until(slot, lambda slot: "v2" in slot.companions and slot.companions["v2"].child.alive)


def test_the_configuration_of_a_known_version_is_kept(bench: Bench) -> None:
    slot = a_cpu_slot(bench)
    for version in ("v1", "v2"):
        bench.plant.yaml[version] = YAML + "config: {k: 1}\n"
    target: Target = bench.target("v1", k=7)
    bench.serves(slot, "v1")
    bench.target("v2")
    bench.until(slot, lambda slot: serves(slot, "v2") and holds(slot) == {"v2"})
    slot.want(["v1", "v2"])
    bench.until(slot, lambda slot: holds(slot) == {"v1", "v2"})
    assert slot.companions["v1"].prepared.chosen.config == {"k": 7} == dict(target.config)
