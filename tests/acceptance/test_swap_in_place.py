"""A real worker whose child takes other weights up between two jobs, and its old ones again where that fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from modelrepo_runtime.jobs import Status
from modelrepo_runtime.testing.live import LiveBox

CODE = """
import os

class Model:
    def load(self, ctx):
        self.reloads = 0
        self.weight = ctx.checkpoint("weights").read_bytes()[-1]

    def reload(self, ctx):
        self.reloads += 1
        self.weight = ctx.checkpoint("weights").read_bytes()[-1]
        if ctx.config["broken"]:
            raise ValueError("no such layer")

    def run(self, job):
        return {"weight": self.weight, "reloads": self.reloads, "pid": os.getpid()}
"""
YAML = "swap: inplace\ncheckpoints: {weights: weights.safetensors}\nconfig: {broken: false}\n"


def push(box: LiveBox, weight: int, count: int = 1) -> str:
    source = box.folder / f"source-{box.model}"
    source.mkdir(exist_ok=True)
    header = json.dumps({"w": {"dtype": "U8", "shape": [count], "data_offsets": [0, count]}}).encode()
    (source / "weights.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes([weight]) * count)
    return box.push(CODE, yaml=YAML)


def run(box: LiveBox) -> dict[str, Any]:
    job = box.client.submit(box.model)["id"]
    box.until(lambda: box.queue.get(job).status.ended, "the job ends")
    found = box.queue.get(job)
    assert found.status is Status.SUCCEEDED, found
    assert isinstance(found.result, dict)
    return found.result


def test_a_worker_swaps_in_place_and_back_and_loads_anew_what_differs(tmp_path: Path) -> None:
    with LiveBox(tmp_path) as box:
        first, second, wider = push(box, 1), push(box, 2), push(box, 3, count=2)
        box.promote(first)
        worker = box.worker(cpu_slots=1)
        box.serves(first, slots=1)
        served = run(box)
        assert (served["weight"], served["reloads"]) == (1, 0)

        box.serves(second, slots=1, generation=box.promote(second))
        assert run(box) == {"weight": 2, "reloads": 1, "pid": served["pid"]}

        box.promote(first, config_set={"broken": True})
        box.until(lambda: [slot.state for _, slot in box.slots()] == ["refused"], "the slot refuses it")
        ((_, slot),) = box.slots()
        assert slot.version == second
        assert "did not reload: ValueError: no such layer" in str(slot.reason) and "serves on" in str(slot.reason)
        assert run(box) == {"weight": 2, "reloads": 3, "pid": served["pid"]}

        box.serves(wider, slots=1, generation=box.promote(wider, config_unset=["broken"]))
        loaded = run(box)
        assert (loaded["weight"], loaded["reloads"]) == (3, 0) and loaded["pid"] != served["pid"]
        assert "mode=overlap" in worker.text() and "mode=inplace" in worker.text()
        worker.stop()
