"""Workers of one box load checkpoints from one pool."""

from __future__ import annotations

import json
import shutil
import signal
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelrepo_runtime.pool.host_pool import HostPool
from modelrepo_runtime.pool.place import SHARED_MEMORY
from modelrepo_runtime.testing.live import LiveBox

CODE = """
import hashlib, sys

class Model:
    def load(self, ctx):
        path = ctx.checkpoint("weights")
        file = sys.modules["_modelrepo_child.shared_files"].SharedFile(path, ctx._pool.get(str(path)))
        self.view = file.map()
        self.said = {"in_pool": file.in_pool, "sha256": hashlib.sha256(self.view).hexdigest(), "number": NUMBER}

    def run(self, job):
        return self.said
"""
YAML = "checkpoints: {weights: weights.safetensors}\n"


@pytest.fixture
def memory() -> Iterator[Path]:
    above = Path(tempfile.mkdtemp(prefix="modelrepo-test-", dir=SHARED_MEMORY))
    yield above / "pool"
    shutil.rmtree(above)


def push(box: LiveBox, number: int, data: bytes) -> str:
    header = json.dumps({"a": {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}}).encode()
    source = box.folder / f"source-{box.model}"
    source.mkdir(exist_ok=True)
    (source / "weights.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + data)
    return box.push(CODE.replace("NUMBER", str(number)), yaml=YAML)


def answer(box: LiveBox) -> Any:
    return dict(box.client.wait(box.client.submit(box.model)["id"], 60))["result"]


def told_held(box: LiveBox) -> list[int | None]:
    """Return the bytes in use of the pool as each worker tells it with its first slot."""
    told: list[Any] = [slot.extra.get("box") or {} for _, slot in box.slots()]
    return [facts.get("pool", {}).get("held_bytes") for facts in told]


def test_two_workers_share_an_entry_that_outlives_them_and_a_damaged_one_is_brought_anew(
    tmp_path: Path, memory: Path
) -> None:
    with LiveBox(tmp_path) as box:
        first, second = push(box, 1, bytes(2 << 20)), push(box, 2, bytes(3 << 20))
        box.promote(first)
        workers = [box.worker(name, cpu_slots=1, pool=str(memory), pool_size="1GiB") for name in ("one", "two")]
        box.serves(first, slots=2)
        pool = HostPool(memory, 1 << 30, margin_bytes=0)
        one_copy = pool.report()
        assert one_copy.entries == 1
        assert one_copy.used_bytes == one_copy.held_bytes
        assert answer(box)["in_pool"] is True
        box.until(lambda: told_held(box) == [one_copy.held_bytes] * 2, "both workers tell what is in use")
        box.serves(second, slots=2, generation=box.promote(second))
        box.until(lambda: pool.report().held_bytes < pool.report().used_bytes, "the old version's entry is let go")
        assert pool.report().entries == 2
        workers[0].send(signal.SIGKILL)
        workers[0].wait()
        workers[1].stop()
        assert pool.report().entries == 2
        for entry in (memory / "entries").iterdir():
            entry.chmod(0o600)
            with entry.open("r+b") as file:
                file.write(b"x")
        box.again(workers[1])
        box.serves(second, slots=1)
        assert answer(box)["in_pool"] is True


def test_a_pool_that_cannot_hold_a_checkpoint_is_left_for_the_disk_and_the_status_says_so(
    tmp_path: Path, memory: Path
) -> None:
    with LiveBox(tmp_path) as box:
        version = push(box, 1, bytes(2 << 20))
        box.promote(version)
        box.worker(cpu_slots=1, pool=str(memory), pool_size="1MiB")
        box.serves(version, slots=1)
        assert answer(box)["in_pool"] is False
        ((_, slot),) = box.slots()
        (note,) = slot.extra["notes"]
        assert "1 of 1 checkpoint files are read from the disk: no room for 2.0 MiB in the pool" in note
        assert "it may hold 1.0 MiB and holds 0 B" in note
