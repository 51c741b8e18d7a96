"""What saving a state costs the job, how soon it is beyond the box, and how soon a later attempt has it back.

A real child with torch saves states of one size through `job.save_state`; between two saves it copies the same bytes
within its memory, and saves them by torch's own `async_save`. `blocked` is what the model waits for. Files that are
written for the first time take memory page by page, so the first saves are told apart.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from modelrepo_runtime.jobs import Cause, Claim, StageNeed, Submission
from modelrepo_runtime.jobstore import JobStore
from modelrepo_runtime.local_model import Box, LocalModel, folder_model
from modelrepo_runtime.queue.address import sqlite_url
from modelrepo_runtime.queue.opening import open_queue
from modelrepo_runtime.queue.port import JobQueue, Offer, Session, WorkerInfo
from modelrepo_runtime.supervision.child import Child
from modelrepo_runtime.supervision.spawner import shared_spawner
from modelrepo_runtime.supervision.spec import JobRequest, SavedState
from modelrepo_runtime.worker.flush_messages import Address
from modelrepo_runtime.worker.flusher import Flusher
from modelrepo_runtime.worker.holding import Held
from modelrepo_runtime.worker.journal import Journal
from modelrepo_runtime.worker.state_folders import StateFolders
from modelrepo_runtime.worker.states import States

LIMIT_S = 900.0
FIRST = 4
"""So many files take turns: the two newest states, one that is on its way out, and the one that is written over."""
DIGEST = "0" * 64

SPEC = "contract: 1\nname: states\nentrypoint: model:States\nstages: [{name: run, on: cpu}]\n"
PROJECT = """\
[project]
name = "states"
version = "0"
requires-python = ">=3.11"
dependencies = ["torch==2.13.0", "numpy"]
"""
CODE = """
import time, torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp

TENSORS = 8

class States:
    def load(self, ctx):
        torch.set_num_threads(1)
        self.ctx = ctx

    def run(self, job):
        began = time.perf_counter()
        found = job.state
        if job.inputs["do"] == "resume":
            seconds = time.perf_counter() - began
            return {"read_s": seconds, "sum": float(sum(found[name].sum() for name in found))}
        count = job.inputs["bytes"] // 4 // TENSORS
        made = torch.Generator().manual_seed(1)
        state = {f"t{n}": torch.randn(count, generator=made) for n in range(TENSORS)}
        other = {name: tensor.clone() for name, tensor in state.items()}
        if job.inputs["dcp"]:
            meet = f"file://{self.ctx.scratch}/meet"
            dist.init_process_group("gloo", init_method=meet, rank=0, world_size=1)
        copies, saves, asyncs = [], [], []
        for number in range(job.inputs["rounds"]):
            began = time.perf_counter()
            for name, tensor in state.items():
                other[name].copy_(tensor)
            copies.append(time.perf_counter() - began)
            began = time.perf_counter()
            job.save_state(state)
            saves.append(time.perf_counter() - began)
            if job.inputs["dcp"]:
                began = time.perf_counter()
                pending = dcp.async_save(state, checkpoint_id=str(self.ctx.scratch / f"dcp-{number}"))
                asyncs.append(time.perf_counter() - began)
                pending.result()
        if job.inputs["dcp"]:
            dist.destroy_process_group()
        return {"copies": copies, "saves": saves, "asyncs": asyncs, "sum": float(sum(t.sum() for t in state.values()))}
"""


class Bench:
    """A queue, a store, a flusher and a child, as a worker has them."""

    def __init__(self, folder: Path, model: LocalModel, queue: JobQueue) -> None:
        self.folder, self.queue = folder, queue
        files = (folder / "files").as_uri()
        journal = Journal(io.StringIO())
        self.flusher = Flusher(Address(queue.url, files), journal)
        self.folders = StateFolders.open(folder / "cache")
        self.states = States(self.folders, JobStore(files), journal, self.flusher)
        self.session: Session = queue.hello(WorkerInfo("bench", "box", 1, slots=("0",)))
        queue.submit(Submission("states", {}, (StageNeed("run"),)))
        self.seq = 0
        self.child = Child.start(model.child_spec(folder / "child"), shared_spawner())
        self.child.load(LIMIT_S)

    def claim(self) -> Claim:
        self.seq += 1
        (claim,) = self.queue.claim(self.session, self.seq, [Offer("0", "states", "v1", ("run",))])
        return claim

    def attempt(self, inputs: dict[str, Any]) -> tuple[Held, dict[str, Any], float, list[tuple[SavedState, float]]]:
        """Run one attempt: what it returns, how long it took to bring its state, and when states were saved."""
        held = Held(self.claim(), 0.0)
        began = time.perf_counter()
        request = self.states.request(held, DIGEST, self.states.bring(held, DIGEST))
        brought_s = time.perf_counter() - began
        saved: list[tuple[SavedState, float]] = []
        flush = request.told
        assert flush is not None

        def told(state: SavedState) -> None:
            saved.append((state, time.monotonic()))
            flush(state)

        object.__setattr__(request, "told", told)
        folder = self.folder / f"attempt-{self.seq}"
        job = JobRequest(
            held.claim.job_id, self.seq, "run", inputs, folder / "h", folder / "o", folder / "log", state=request
        )
        outcome = self.child.run(job, timeout_s=LIMIT_S)
        if outcome.cause is not Cause.SUCCEEDED:
            raise SystemExit(f"{outcome.error}\n{(folder / 'log').read_text()}")
        return held, outcome.result, brought_s, saved

    def over(self, held: Held) -> None:
        """End the attempt as a preemption does."""
        self.states.let_go(held)
        self.queue.hand_back(self.session, held.claim.job_id, held.claim.fence, Cause.PREEMPTED)

    def close(self) -> None:
        self.child.stop()
        for job in self.folders.disk.iterdir():
            self.states.forget(job.name)
        self.states.close()


def measure(folder: Path, model: LocalModel, size: int, rounds: int, *, dcp: bool) -> dict[str, Any]:
    """Save `rounds` states, then resume from shared memory and from the store."""
    with closing(open_queue(sqlite_url(folder / "queue.db"))) as queue, closing(Bench(folder, model, queue)) as bench:
        held, made, _, saved = bench.attempt({"do": "save", "bytes": size, "rounds": rounds, "dcp": dcp})
        last, at = saved[-1]
        flushed = bench.flusher.wait((held.claim.job_id, held.claim.fence.number), time.monotonic() + LIMIT_S)
        durable_s = time.monotonic() - at
        if not flushed or not last.in_memory:
            raise SystemExit(f"state {last.number} was not flushed from shared memory: {last}")
        bench.over(held)
        held, pool, pool_s, _ = bench.attempt({"do": "resume"})
        bench.over(held)
        bench.states.forget(held.claim.job_id)  # the box is lost
        held, storage, storage_s, _ = bench.attempt({"do": "resume"})
        bench.over(held)
    if not made["sum"] == pool["sum"] == storage["sum"]:
        raise SystemExit("what was read is not what was saved")
    settled = made["saves"][FIRST:]
    ratios = [save / copy for save, copy in zip(made["saves"], made["copies"], strict=True)][FIRST:]
    return {
        "bytes": last.size_bytes,
        "blocked_over_memcpy": rounded(statistics.median(ratios)),
        "blocked_ms": milliseconds(settled),
        "first_blocked_ms": milliseconds(made["saves"][:FIRST]),
        "memcpy_ms": milliseconds(made["copies"]),
        "dcp_blocked_ms": milliseconds(made["asyncs"]) if dcp else None,
        "durable_s": rounded(durable_s),
        "resume_pool_s": rounded(pool_s + pool["read_s"]),
        "resume_storage_s": rounded(storage_s + storage["read_s"]),
        "notes": [
            f"medians of {rounds} rounds; of saves without the first {FIRST}, whose files take memory page by page",
            "durable: from the return of save_state until the pointer is moved, store and queue on the local disk;"
            " an older state may be under way then",
            "resume: from the claim until the model has its tensors; sha256 verified where they come from the store",
        ],
    }


def milliseconds(seconds: Sequence[float]) -> float:
    return round(statistics.median(seconds) * 1e3, 2)


def rounded(value: float) -> float:
    return round(value, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=256, help="the size of a state")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--quick", action="store_true", help="small states, few rounds")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output, and nothing else")
    options = parser.parse_args()
    size, rounds = (8, 6) if options.quick else (options.mib, options.rounds)
    with tempfile.TemporaryDirectory(prefix="modelrepo-bench-") as name:
        folder = Path(name)
        source = folder / "model"
        source.mkdir()
        for file, text in (("model.yaml", SPEC), ("pyproject.toml", PROJECT), ("model.py", CODE)):
            (source / file).write_text(text)
        with folder_model(source, Box(cache=folder / "cache", lock=True)) as model:
            found = measure(folder, model, size << 20, rounds, dcp=True)
    if options.json:
        print(json.dumps(found))
        return
    for key, value in found.items():
        print(f"{key}: {value}")


if __name__ == "__main__":
    main()
