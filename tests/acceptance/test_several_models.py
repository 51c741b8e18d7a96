"""More models than slots: a real worker lets its slots go round, with real children and a real queue."""

from __future__ import annotations

import re
from pathlib import Path

from modelrepo_runtime.queue.port import SlotReport
from modelrepo_runtime.testing.live import LiveBox

NAMES_ITSELF = """
class Model:
    def load(self, ctx):
        self.name = "{name}"

    def run(self, job):
        return self.name
"""

HOLDS = """
import os, time

class Model:
    def load(self, ctx):
        pass

    def run(self, job):
        job.progress(0.1, "began")
        while not os.path.exists(job.inputs["until"]):
            job.check()
            time.sleep(0.01)
        return "live"
"""


def slot_of(box: LiveBox) -> SlotReport:
    ((_, slot),) = box.slots()
    return slot


def two_models(box: LiveBox, code: str = NAMES_ITSELF.format(name="live")) -> None:
    box.promote(box.push(code))
    box.promote(box.push(NAMES_ITSELF.format(name="other"), model="other"), model="other")


def test_one_slot_serves_two_models_as_their_jobs_come(tmp_path: Path) -> None:
    with LiveBox(tmp_path) as box:
        two_models(box)
        worker = box.worker(cpu_slots=1)
        for name in ("live", "other", "live", "other"):
            job = box.client.submit(name)["id"]
            assert box.client.wait(job, 120)["result"] == name
            assert slot_of(box).model == name
        assert worker.text().count("slot-moves slot=cpu0") >= 3
        assert worker.stop() == 0


def test_a_model_without_a_slot_waits_no_longer_than_its_tier_allows(tmp_path: Path) -> None:
    with LiveBox(tmp_path) as box:
        box.queue.set_tier("fast", slo_s=0.5)
        two_models(box, HOLDS)
        worker = box.worker(cpu_slots=1)
        gate = tmp_path / "go"
        flood = [box.client.submit("live", {"until": str(gate)})["id"] for _ in range(5)]
        box.until(lambda: box.queue.get(flood[0]).message == "began", "the first of them runs")
        urgent = box.client.submit("other", tier="fast")["id"]
        box.until(lambda: "to=other" in worker.text(), "the slot is to leave a model that has work")
        gate.touch()
        assert box.client.wait(urgent, 120)["result"] == "other"
        first, *rest = [box.queue.get(job) for job in flood]
        assert first.status.ended and first.attempt == 1, "the job that ran was not ended for it"
        assert [box.client.wait(job.id, 120)["result"] for job in rest] == ["live"] * 4
        assert worker.stop() == 0


def test_slots_that_are_not_shared_keep_their_model(tmp_path: Path) -> None:
    with LiveBox(tmp_path) as box:
        two_models(box)
        worker = box.worker(cpu_slots=1, share_slots="false")
        box.until(lambda: "model-without-slot" in worker.text(), "the model that is left out is named")
        assert "--share-slots true" in worker.text()
        found = re.search(r"model-without-slot model=(live|other)", worker.text())
        assert found is not None
        waits = box.client.submit(found[1])["id"]
        runs = box.client.submit({"live": "other", "other": "live"}[found[1]])["id"]
        box.client.wait(runs, 120)
        assert not box.queue.get(waits).status.ended
        assert "slot-moves" not in worker.text()
        assert worker.stop() == 0
