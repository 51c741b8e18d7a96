"""Several ranks of plain Python that their slot sees as one child."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from modelrepo.errors import EntrypointFailed
from modelrepo_runtime.jobs import Cause
from modelrepo_runtime.supervision import ChildGone, ChildState, RankGroup, end_recorded_group, shared_spawner
from modelrepo_runtime.supervision.child import OnProgress
from modelrepo_runtime.supervision.descendants import read_process, wait_gone
from modelrepo_runtime.testing.children import a_request, a_spec, started_group

LIMIT_S = 30

# As the collectives of a real one: `meet` returns once all ranks are there, and never where one is missing.
MEETING = """
def load(self, ctx):
    import os
    self.ctx, self.at = ctx, 0
    self.folder = os.path.dirname(os.environ["MODELREPO_RENDEZVOUS"][len("file://"):])

def meet(self):
    import os, time
    self.at += 1
    open(f"{self.folder}/met-{self.at}-{self.ctx.rank}", "w").close()
    while not all(os.path.exists(f"{self.folder}/met-{self.at}-{rank}") for rank in range(self.ctx.world_size)):
        time.sleep(0.001)

def spin(self, job):
    job.progress(0.1)
    while True:
        self.meet()
        job.check()
"""


def is_gone(pid: int) -> bool:
    process = read_process(pid)
    return process is None or process.zombie


def all_gone(group: RankGroup) -> bool:
    return all(is_gone(pid) for pid in group.pids)


def code(body: str) -> str:
    return MEETING + "def run(self, job):\n" + "".join(f"    {line}\n" for line in body.splitlines())


def test_each_rank_knows_its_place(tmp_path: Path) -> None:
    body = """
import os
names = ["RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT"]
with open(f"{self.folder}/seen-{self.ctx.rank}", "w") as file:
    print(self.ctx.rank, self.ctx.local_rank, self.ctx.world_size, self.ctx.device, *self.ctx.devices, file=file)
    print(*[os.environ[name] for name in names], os.environ["MODELREPO_RENDEZVOUS"], file=file)
self.meet()
return [open(f"{self.folder}/seen-{rank}").read().splitlines() for rank in range(2)]
"""
    spec = a_spec(tmp_path, code(body), ranks=2, device="cuda:0", devices=("cuda:0", "cuda:1"))
    group = started_group(spec)
    (zero, one) = group.run(a_request(tmp_path), timeout_s=LIMIT_S).result
    group.stop()
    assert (zero[0], one[0]) == ("0 0 2 cuda:0 cuda:0 cuda:1", "1 1 2 cuda:1 cuda:0 cuda:1")
    first, second = zero[1].split(), one[1].split()
    assert (first[:5], second[:5]) == (["0", "0", "2", "2", "0"], ["1", "1", "2", "2", "0"])
    assert first[5:] == second[5:] and first[5] == "127.0.0.1" and first[7].startswith("file:///")


def test_rank_0_alone_writes_and_answers(tmp_path: Path) -> None:
    body = """
rank = self.ctx.rank
job.output("video").write_text(str(rank))
if rank:
    job.output("folder").mkdir()
job.handover("latents").write_text(str(rank))
print("hello", "from", rank)
job.progress(rank / 10 + 0.5)
self.meet()
yield {"rank": rank}
return object() if rank else {"rank": rank}
"""
    group = started_group(a_spec(tmp_path, code(body), ranks=2))
    told: list[float] = []
    partials: list[object] = []
    request = a_request(tmp_path)
    outcome = group.run(
        request, timeout_s=LIMIT_S, on_progress=lambda fraction, _: told.append(fraction), on_partial=partials.append
    )
    group.stop()
    assert outcome.cause is Cause.SUCCEEDED, outcome
    assert (outcome.result, told, partials) == ({"rank": 0}, [0.5], [{"rank": 0}])
    assert [(file.name, file.path.read_text()) for file in outcome.outputs] == [("video", "0")]
    assert (request.handover_dir / "latents").read_text() == "0"
    assert sorted(request.log_path.read_text().splitlines()) == ["[rank 0] hello from 0", "[rank 1] hello from 1"]
    assert not list((tmp_path / group.spec.folder / "jobs").iterdir())


def test_what_a_stage_before_handed_over_is_there_for_all_ranks(tmp_path: Path) -> None:
    body = """
seen = job.handover("latents").read_text()
self.meet()
job.handover("latents").unlink()
job.handover("latents").write_text(f"{seen} by {self.ctx.rank}")
return seen
"""
    group = started_group(a_spec(tmp_path, code(body), ranks=2))
    request = a_request(tmp_path)
    request.handover_dir.mkdir(parents=True)
    (request.handover_dir / "latents").write_text("noise")
    outcome = group.run(request, timeout_s=LIMIT_S)
    group.stop()
    assert outcome.result == "noise"
    assert (request.handover_dir / "latents").read_text() == "noise by 0"


@pytest.mark.parametrize("ranks", [2, 4])
def test_a_cancel_reaches_all_ranks_at_the_same_question(tmp_path: Path, ranks: int) -> None:
    group = started_group(a_spec(tmp_path, code("self.spin(job)"), ranks=ranks))
    try:
        for _ in range(3):
            outcome = group.run(a_request(tmp_path), timeout_s=LIMIT_S, on_progress=lambda *_: group.cancel())
            assert outcome.cause is Cause.CANCELLED, outcome
            assert group.alive and group.state is ChildState.READY
    finally:
        group.stop()


def test_a_rank_that_asks_more_often_than_rank_0_keeps_nobody_waiting(tmp_path: Path) -> None:
    body = """
for _ in range(1000 if self.ctx.rank else 1):
    job.check()
self.meet()
return 1
"""
    group = started_group(a_spec(tmp_path, code(body), ranks=2))
    assert group.run(a_request(tmp_path), timeout_s=LIMIT_S).result == 1
    group.stop()


def test_a_rank_that_never_asks_is_ended_after_the_grace_with_all_stacks(tmp_path: Path) -> None:
    body = """
job.progress(0)
if self.ctx.rank == 0:
    self.spin(job)
self.meet()
self.meet()
import threading
threading.Event().wait()
"""
    group = started_group(a_spec(tmp_path, code(body), ranks=2))
    request = a_request(tmp_path)
    outcome = group.run(request, timeout_s=LIMIT_S, on_progress=lambda *_: group.cancel(), cancel_grace_s=0.3)
    assert outcome.cause is Cause.CANCELLED
    assert "[rank 1]" in request.log_path.read_text()
    assert not group.alive and all_gone(group)


def test_one_job_of_a_batch_is_cancelled_alone(tmp_path: Path) -> None:
    model = (
        MEETING
        + """
def run(self, jobs):
    jobs[0].progress(0.1)
    while True:
        self.meet()
        if jobs[1].cancelled:
            return [job.cancelled for job in jobs]
"""
    )
    group = started_group(a_spec(tmp_path, model, max_batch={"run": 2}, ranks=2))
    requests = [a_request(tmp_path), a_request(tmp_path)]
    tells: list[OnProgress | None] = [lambda *_: group.cancel(requests[1].job_id), None]
    outcomes = group.run_batch(requests, timeout_s=LIMIT_S, on_progress=tells)
    group.stop()
    assert [one.result for one in outcomes] == [False, True]


@pytest.mark.parametrize("victim", [0, 1, 2])
def test_the_first_death_ends_the_group_and_is_the_reason(tmp_path: Path, victim: int) -> None:
    group = started_group(a_spec(tmp_path, code("self.spin(job)"), ranks=3))
    pid = group.pids[victim]
    outcome = group.run(a_request(tmp_path), timeout_s=LIMIT_S, on_progress=lambda *_: os.kill(pid, signal.SIGKILL))
    assert outcome.cause is Cause.CRASH and outcome.error is not None
    assert outcome.error.message.startswith(f"rank {victim}: ") and "SIGKILL" in outcome.error.message
    assert not group.alive and all_gone(group) and group.state is ChildState.STOPPING
    with pytest.raises(ChildGone):
        group.run(a_request(tmp_path), timeout_s=1)


def test_a_survivors_exception_is_not_taken_for_the_reason(tmp_path: Path) -> None:
    body = """
import os, time
if self.ctx.rank == 1:
    open(f"{self.folder}/pid", "w").write(str(os.getpid()))
    self.meet()
    os.abort()
self.meet()
while open(f"/proc/{open(self.folder + '/pid').read()}/stat").read().split()[2] != "Z":
    time.sleep(0.001)
raise RuntimeError("connection closed by peer")
"""
    group = started_group(a_spec(tmp_path, code(body), ranks=2))
    outcome = group.run(a_request(tmp_path), timeout_s=LIMIT_S)
    assert outcome.cause is Cause.CRASH and outcome.error is not None
    assert outcome.error.message.startswith("rank 1: ") and "SIGABRT" in outcome.error.message
    assert all_gone(group)


def test_an_exception_of_one_rank_ends_those_that_wait_for_it(tmp_path: Path) -> None:
    group = started_group(
        a_spec(tmp_path, code("if self.ctx.rank == 1: raise ValueError('no such tile')\nself.meet()"), ranks=2)
    )
    outcome = group.run(a_request(tmp_path), timeout_s=LIMIT_S)
    assert outcome.cause is Cause.EXCEPTION and outcome.error is not None
    assert outcome.error.message == "rank 1: ValueError: no such tile"
    assert not group.alive and all_gone(group)


def test_ranks_that_all_fail_alike_go_on(tmp_path: Path) -> None:
    body = "if job.inputs: return 'fine'\nself.meet()\njob.reject('nsfw', f'seen by {self.ctx.rank}')"
    group = started_group(a_spec(tmp_path, code(body), ranks=2))
    outcome = group.run(a_request(tmp_path), timeout_s=LIMIT_S)
    assert outcome.cause is Cause.REJECTED and outcome.error is not None
    assert (outcome.error.code, outcome.error.message) == ("nsfw", "seen by 0")
    assert group.run(a_request(tmp_path, {"again": True}), timeout_s=LIMIT_S).result == "fine"
    group.stop()


def test_ranks_that_end_differently_are_out_of_step_and_not_used_again(tmp_path: Path) -> None:
    group = started_group(a_spec(tmp_path, code("if self.ctx.rank == 0: job.reject('nsfw', 'no')"), ranks=2))
    outcome = group.run(a_request(tmp_path), timeout_s=LIMIT_S)
    assert outcome.cause is Cause.REJECTED and outcome.error is not None
    assert outcome.error.code == "nsfw"
    assert not group.alive and all_gone(group)


def test_a_hang_shows_the_stacks_of_all_ranks(tmp_path: Path) -> None:
    group = started_group(
        a_spec(
            tmp_path, code("if self.ctx.rank == 0: self.meet()\nimport threading\nthreading.Event().wait()"), ranks=2
        )
    )
    request = a_request(tmp_path)
    outcome = group.run(request, timeout_s=0.3)
    assert outcome.cause is Cause.HANG
    text = request.log_path.read_text()
    for rank in range(2):
        assert any(line.startswith(f"[rank {rank}] ") and "model.py" in line for line in text.splitlines())
    assert all_gone(group)


def test_a_death_between_jobs_costs_no_job(tmp_path: Path) -> None:
    group = started_group(a_spec(tmp_path, code("return 1"), ranks=2))
    os.kill(group.pids[1], signal.SIGKILL)
    wait_gone([group.pids[1]], 10)
    assert not group.alive
    with pytest.raises(ChildGone):
        group.run(a_request(tmp_path), timeout_s=LIMIT_S)
    assert all_gone(group)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise ValueError('bad shard')", "rank 1: load failed: ValueError: bad shard"),
        ("os._exit(3)", r"rank 1: it ended without an answer \(its process exited with 3\)"),
    ],
)
def test_a_rank_that_cannot_load_is_named(tmp_path: Path, body: str, words: str) -> None:
    model = f"""
def load(self, ctx):
    import os, threading
    print("rank", ctx.rank, "loads", flush=True)
    if ctx.rank == 1:
        {body}
    threading.Event().wait()
def run(self, job): pass
"""
    group = RankGroup.start(a_spec(tmp_path, model, ranks=2), shared_spawner())
    with pytest.raises(EntrypointFailed, match=f"demo@v1 cannot start: {words}") as caught:
        group.load(LIMIT_S)
    assert "[rank 1] rank 1 loads" in caught.value.log
    assert group.failure is not None and all_gone(group)


def test_ranks_that_wait_for_each_other_in_load_become_ready_together(tmp_path: Path) -> None:
    model = MEETING.replace("def meet", "def warmup(self, ctx): self.meet()\ndef meet") + "def run(self, job): return 1"
    group = RankGroup.start(a_spec(tmp_path, model, ranks=4), shared_spawner())
    assert set(group.load(LIMIT_S)) == {"spawn_s", "import_s", "load_s", "warmup_s"}
    assert group.state is ChildState.READY and len(set(group.pids)) == 4
    footprint = group.footprint()
    assert footprint.rss_bytes > footprint.own_bytes > 0
    report = group.stop()
    assert (report.step, report.gone, report.orphans) == ("drained", True, ())


def test_stop_during_a_job_preempts_it_on_all_ranks(tmp_path: Path) -> None:
    group = started_group(a_spec(tmp_path, code("self.spin(job)"), ranks=2))
    stopping = threading.Thread(target=group.stop, args=(0.05,))
    outcome = group.run(a_request(tmp_path), timeout_s=LIMIT_S, on_progress=lambda *_: stopping.start())
    stopping.join()
    assert outcome.cause is Cause.PREEMPTED
    assert group.stop() == group.stop() and all_gone(group)


def test_what_a_callback_raises_ends_the_group_and_comes_out(tmp_path: Path) -> None:
    group = started_group(a_spec(tmp_path, code("self.spin(job)"), ranks=2))

    def fail(*_: object) -> None:
        raise KeyError("the slot's own fault")

    with pytest.raises(KeyError, match="own fault"):
        group.run(a_request(tmp_path), timeout_s=LIMIT_S, on_progress=fail)
    assert all_gone(group)


def test_a_model_is_reloaded_on_all_ranks_or_on_none(tmp_path: Path) -> None:
    model = (
        MEETING
        + """
def reload(self, ctx):
    if ctx.config["broken"] == ctx.rank:
        raise ValueError("layer 3 is missing")
    self.ctx = ctx
def run(self, job):
    self.meet()
    return self.ctx.config
"""
    )
    spec = a_spec(tmp_path, model, ranks=2, config={"broken": None})
    group = started_group(spec)
    try:
        assert group.reloads
        group.reload(replace(spec, version="v2", config={"broken": 7}), LIMIT_S)
        assert group.run(a_request(tmp_path), timeout_s=LIMIT_S).result == {"broken": 7}
        with pytest.raises(EntrypointFailed, match=r"rank 1: .*layer 3 is missing"):
            group.reload(replace(spec, version="v3", config={"broken": 1}), LIMIT_S)
        assert group.alive and group.spec.version == "v2"
        assert group.run(a_request(tmp_path), timeout_s=LIMIT_S).result == {"broken": 7}
    finally:
        group.stop()


def test_the_next_owner_of_a_slot_ends_every_rank(tmp_path: Path) -> None:
    group = started_group(a_spec(tmp_path, code("return 1"), ranks=2))
    ended = end_recorded_group(group.spec.folder)
    assert set(group.pids) <= set(ended)
    group.stop()
    assert end_recorded_group(group.spec.folder) == ()


def test_nothing_is_left_open_when_groups_come_and_go(tmp_path: Path) -> None:
    spec = a_spec(tmp_path, code("self.meet()"), ranks=2)

    def count_open() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    started_group(spec).stop()
    before = count_open(), threading.active_count()
    for _ in range(3):
        group = started_group(spec)
        for met in spec.folder.glob("met-*"):
            met.unlink()
        assert group.run(a_request(tmp_path), timeout_s=LIMIT_S).cause is Cause.SUCCEEDED
        group.stop()
    assert (count_open(), threading.active_count()) == before
