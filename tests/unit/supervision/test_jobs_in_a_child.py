"""What a stage may do and return, through a real process."""

from dataclasses import replace
from pathlib import Path

import pytest

from modelrepo_runtime.jobs import Cause
from modelrepo_runtime.supervision import ChildState
from modelrepo_runtime.supervision.child import OnProgress
from modelrepo_runtime.supervision.spec import Lacked, SavedState, StateRequest
from modelrepo_runtime.testing.children import a_request, a_spec, started


def test_a_result_comes_back_and_the_child_is_ready_again(tmp_path: Path) -> None:
    child = started(a_spec(tmp_path, "def run(self, job): return {'sum': job.inputs['a'] + 1, 'attempt': job.attempt}"))
    try:
        for a in range(3):
            outcome = child.run(a_request(tmp_path, {"a": a}), timeout_s=10)
            assert outcome.cause is Cause.SUCCEEDED, outcome
            assert outcome.result == {"sum": a + 1, "attempt": 1}
            assert child.state is ChildState.READY
    finally:
        report = child.stop()
    assert (report.step, report.gone, report.orphans) == ("drained", True, ())
    assert child.state is ChildState.STOPPING and not child.alive


def test_a_time_out_of_a_year_is_one(tmp_path: Path) -> None:
    child = started(a_spec(tmp_path, "def run(self, job): return 1"))
    try:
        assert child.run(a_request(tmp_path), timeout_s=365 * 86400.0).result == 1
    finally:
        child.stop()


def test_outputs_handover_files_and_previous_reach_the_stage(tmp_path: Path) -> None:
    code = """
        def prepare(self, job):
            job.handover("latents.bin").write_bytes(job.file("image").read_bytes() * 2)
            return {"n": 2}
        def run(self, job):
            job.output("video.mp4").write_bytes(job.handover("latents.bin").read_bytes())
            return job.previous
    """
    image = tmp_path / "in.png"
    image.write_bytes(b"png")
    child = started(a_spec(tmp_path, code, stages=("prepare", "run")))
    try:
        first = a_request(tmp_path, stage="prepare", files={"image": image})
        prepared = child.run(first, timeout_s=10)
        assert prepared.result == {"n": 2}, prepared
        second = a_request(tmp_path, previous=prepared.result, handover_dir=first.handover_dir)
        outcome = child.run(second, timeout_s=10)
    finally:
        child.stop()
    assert outcome.result == {"n": 2}
    assert [(file.name, file.path.read_bytes(), file.content_type) for file in outcome.outputs] == [
        ("video.mp4", b"pngpng", "video/mp4")
    ]


def test_ctx_shows_what_the_spec_says(tmp_path: Path) -> None:
    code = """
        def load(self, ctx):
            self.seen = [list(ctx.stages), ctx.device, list(ctx.devices), ctx.rank, ctx.local_rank, ctx.world_size,
                ctx.checkpoint("w").read_text(), ctx.config, ctx.secrets, ctx.version, ctx.scratch.is_dir()]
            self.ctx = ctx
        def run(self, job):
            before = [entry.name for entry in self.ctx.scratch.iterdir()]
            (self.ctx.scratch / "left").mkdir()
            return [self.seen, before, job.adapters]
    """
    weights = tmp_path / "w.txt"
    weights.write_text("weights")
    spec = a_spec(
        tmp_path,
        code,
        checkpoints={"w": weights},
        config={"k": 0.5},
        secrets={"TOKEN": "s"},
        device="cuda:0",
        devices=("cuda:0",),
    )
    child = started(spec)
    try:
        for _ in range(2):
            outcome = child.run(a_request(tmp_path), timeout_s=10)
            assert outcome.result == [
                [["run"], "cuda:0", ["cuda:0"], 0, 0, 1, "weights", {"k": 0.5}, {"TOKEN": "s"}, "v1", True], [], []
            ]  # fmt: skip
    finally:
        child.stop()


@pytest.mark.parametrize(
    ("body", "cause", "code", "words"),
    [
        ("raise ValueError('no such style')", Cause.EXCEPTION, "exception", "ValueError: no such style"),
        ("job.reject('nsfw', 'not this one')", Cause.REJECTED, "nsfw", "not this one"),
        ("job.retry('cache was cold')", Cause.RETRY, "retry", "cache was cold"),
        ("raise MemoryError()", Cause.OUT_OF_MEMORY, "out_of_memory", "MemoryError"),
        ("raise type('OutOfMemoryError', (RuntimeError,), {})('CUDA')", Cause.OUT_OF_MEMORY, "out_of_memory", "CUDA"),
        ("import sys; sys.exit(3)", Cause.EXCEPTION, "exception", "sys.exit(3)"),
        ("return object()", Cause.EXCEPTION, "exception", "stage run returned object, which is not JSON"),
        ("return float('nan')", Cause.EXCEPTION, "exception", "not JSON"),
        ("return 'x' * 300000", Cause.EXCEPTION, "exception", "300002 bytes of JSON, above 262144"),
        ("job.file('image')", Cause.EXCEPTION, "exception", "no file input 'image'"),
        ("job.output('../up')", Cause.EXCEPTION, "exception", "no plain file name"),
        ("job.output('..')", Cause.EXCEPTION, "exception", "no plain file name"),
        ("job.handover('a/../../up')", Cause.EXCEPTION, "exception", "no plain file name"),
    ],
)
def test_a_failure_has_its_cause_and_costs_no_child(
    tmp_path: Path, body: str, cause: Cause, code: str, words: str
) -> None:
    child = started(a_spec(tmp_path, f"def run(self, job):\n    if job.inputs: return 'fine'\n    {body}"))
    try:
        request = a_request(tmp_path)
        outcome = child.run(request, timeout_s=10)
        assert outcome.cause is cause
        assert outcome.error is not None and outcome.error.code == code
        assert words in outcome.error.message
        assert outcome.error.retryable == (cause is not Cause.REJECTED)
        assert "Traceback" in request.log_path.read_text()
        assert child.run(a_request(tmp_path, {"again": True}), timeout_s=10).result == "fine"
    finally:
        child.stop()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("job.output('frames').mkdir()", "output 'frames' is a folder; pack it into one file"),
        ("job.output('l').symlink_to('/etc/hosts')", "output 'l' is a link"),
    ],
)
def test_an_output_that_is_no_file_fails_the_stage_instead_of_being_lost(tmp_path: Path, body: str, words: str) -> None:
    child = started(a_spec(tmp_path, f"def run(self, job):\n    {body}"))
    try:
        outcome = child.run(a_request(tmp_path), timeout_s=10)
        assert outcome.cause is Cause.EXCEPTION and outcome.error is not None
        assert words in outcome.error.message
    finally:
        child.stop()


def test_what_no_output_can_be_named_is_left_out(tmp_path: Path) -> None:
    code = """
        def run(self, job):
            job.output("a.txt").write_text("a")
            job.output("a.txt").with_name(".a.txt.part").write_text("b")
            job.output("a.txt").with_name("two words").mkdir()
    """
    child = started(a_spec(tmp_path, code))
    try:
        assert [file.name for file in child.run(a_request(tmp_path), timeout_s=10).outputs] == ["a.txt"]
    finally:
        child.stop()


def test_the_traceback_begins_in_the_models_code(tmp_path: Path) -> None:
    child = started(a_spec(tmp_path, "def run(self, job): raise ValueError('here')"))
    request = a_request(tmp_path)
    child.run(request, timeout_s=10)
    child.stop()
    lines = request.log_path.read_text().splitlines()
    assert lines[0].startswith("Traceback") and "model.py" in lines[1] and lines[-1] == "ValueError: here"


def test_a_generator_yields_partial_results_and_returns_the_last_word(tmp_path: Path) -> None:
    code = """
        def run(self, job):
            for token in ["a", "b"]:
                yield {"token": token}
            return "ab"
    """
    child = started(a_spec(tmp_path, code))
    partials: list[object] = []
    outcome = child.run(a_request(tmp_path), timeout_s=10, on_partial=partials.append)
    child.stop()
    assert partials == [{"token": "a"}, {"token": "b"}] and outcome.result == "ab"


def test_a_stage_with_a_batch_takes_and_returns_lists(tmp_path: Path) -> None:
    child = started(
        a_spec(tmp_path, "def run(self, jobs): return [job.inputs['a'] for job in jobs]", max_batch={"run": 4})
    )
    outcome = child.run(a_request(tmp_path, {"a": 7}), timeout_s=10)
    child.stop()
    assert outcome.result == 7


def test_every_progress_call_is_told_in_order_and_in_bounds(tmp_path: Path) -> None:
    code = """
        def run(self, job):
            job.progress(-1)
            job.progress(0.25, "denoising")
            job.progress(float("nan"))
            job.progress(9)
    """
    child = started(a_spec(tmp_path, code))
    told: list[tuple[float, str | None]] = []
    child.run(a_request(tmp_path), timeout_s=10, on_progress=lambda fraction, message: told.append((fraction, message)))
    child.stop()
    assert told == [(0.0, None), (0.25, "denoising"), (0.0, None), (1.0, None)]


def test_state_survives_the_attempt_and_its_process(tmp_path: Path) -> None:
    code = """
        def run(self, job):
            found = job.state
            for step in range(4):
                job.progress(step / 4, "at " + str(step))
                job.save_state({"step": step, "attempt": job.attempt, "raw": b"x", "pair": (1, [None, 0.5])})
            if job.attempt == 1:
                import os; os.abort()
            job.progress(0.0)
            return found and [found["step"], found["attempt"], found["raw"] == b"x", found["pair"] == (1, [None, 0.5])]
    """
    saved: list[SavedState] = []
    first = StateRequest(tmp_path / "memory", tmp_path / "disk", {"job": "j"}, told=saved.append)
    child = started(a_spec(tmp_path, code))
    assert child.run(a_request(tmp_path, state=first), timeout_s=10).cause is Cause.CRASH
    assert [(state.number, state.in_memory, state.why) for state in saved] == [(n, True, "") for n in (1, 2, 3, 4)]
    assert sorted(path.name for path in (tmp_path / "memory").glob("*.state")) == ["3.state", "4.state"]
    told: list[tuple[float, str | None]] = []
    second = replace(first, first=5, found=saved[-1].path)
    child = started(a_spec(tmp_path, code))
    try:
        request = a_request(tmp_path, attempt=2, state=second)
        outcome = child.run(request, timeout_s=10, on_progress=lambda *progress: told.append(progress))
    finally:
        child.stop()
    assert outcome.result == [3, 1, True, True], outcome
    assert saved[-1].number == 8
    assert told[0] == (0.75, "at 3") and all(fraction == 0.75 for fraction, _ in told), "progress went backwards"


def test_what_no_state_can_hold_is_an_error_that_names_its_key(tmp_path: Path) -> None:
    code = """
        def run(self, job):
            job.save_state({"deep": [{"it": object()}]})
    """
    child = started(a_spec(tmp_path, code))
    error = child.run(a_request(tmp_path), timeout_s=10).error
    child.stop()
    assert error is not None and "state['deep'][0]['it']: it is a object;" in error.message


def test_each_job_has_its_own_output_in_its_own_log(tmp_path: Path) -> None:
    code = """
        def load(self, ctx): print("loading")
        def run(self, job):
            import os, sys
            print("out", job.inputs["a"], end="")
            print("err", job.inputs["a"], file=sys.stderr, end="")
            os.write(1, b"raw %d" % job.inputs["a"])
    """
    child = started(a_spec(tmp_path, code))
    requests = [a_request(tmp_path, {"a": a}) for a in range(5)]
    for request in requests:
        child.run(request, timeout_s=10)
    child.stop()
    for a, request in enumerate(requests):
        text = request.log_path.read_text()
        assert sorted(text.replace("out", " out").replace("err", " err").replace("raw", " raw").split()) == sorted(
            f"out {a} err {a} raw {a}".split()
        )
    assert child.log_path.read_text() == "loading\n"


def test_a_scratch_that_became_a_link_is_not_followed(tmp_path: Path) -> None:
    code = """
        def load(self, ctx): self.ctx = ctx
        def run(self, job):
            self.ctx.scratch.rmdir()
            self.ctx.scratch.symlink_to(job.inputs["to"])
    """
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").touch()
    child = started(a_spec(tmp_path, code))
    for _ in range(2):
        assert child.run(a_request(tmp_path, {"to": str(precious)}), timeout_s=10).cause is Cause.SUCCEEDED
    child.stop()
    assert (precious / "file").exists()


def test_a_folder_is_made_when_it_is_asked_for_and_not_before(tmp_path: Path) -> None:
    body = """
        if job.inputs["ask"]:
            job.output("x").write_text("y")
        return 1
    """
    child = started(a_spec(tmp_path, f"def run(self, job):{body}"))
    try:
        (tmp_path / "file").touch()
        unmakeable = tmp_path / "file" / "x"
        assert child.run(a_request(tmp_path, {"ask": False}, output_dir=unmakeable), timeout_s=10).result == 1
        assert not list(tmp_path.glob("job-*"))
        asked = child.run(a_request(tmp_path, {"ask": True}, output_dir=unmakeable), timeout_s=10)
        assert asked.cause is Cause.EXCEPTION
        assert asked.error is not None and "file" in asked.error.message
        kept = child.run(a_request(tmp_path, {"ask": True}), timeout_s=10)
        assert [output.name for output in kept.outputs] == ["x"]
    finally:
        child.stop()


BATCHED = """
def run(self, jobs):
    for job in jobs:
        print("ran", job.id)
        job.output("card").write_text(job.id)
        job.progress(0.5, job.id)
    if any(job.inputs.get("bad") for job in jobs):
        raise ValueError("a bad one")
    return [job.inputs["a"] for job in jobs]
"""


def test_a_batch_is_one_call_and_each_job_has_its_own_result_outputs_and_progress(tmp_path: Path) -> None:
    child = started(a_spec(tmp_path, BATCHED, max_batch={"run": 4}))
    requests = [a_request(tmp_path, {"a": number}) for number in range(3)]
    told: list[str | None] = []
    tells: list[OnProgress | None] = [lambda _, message: told.append(message)] * 3
    outcomes = child.run_batch(requests, timeout_s=20, on_progress=tells)
    assert [one.result for one in outcomes] == [0, 1, 2]
    assert [one.outputs[0].path.read_text() for one in outcomes] == [request.job_id for request in requests]
    assert told == [request.job_id for request in requests]
    assert all("ran" in request.log_path.read_text() for request in requests)
    child.stop()


def test_what_fails_a_batch_fails_each_of_its_jobs_and_the_child_lives_on(tmp_path: Path) -> None:
    child = started(a_spec(tmp_path, BATCHED, max_batch={"run": 4}))
    bad = [a_request(tmp_path, {"a": 1}), a_request(tmp_path, {"a": 2, "bad": True})]
    outcomes = child.run_batch(bad, timeout_s=20)
    assert [one.cause for one in outcomes] == [Cause.EXCEPTION] * 2
    assert child.run(a_request(tmp_path, {"a": 7}), timeout_s=20).result == 7
    child.stop()


def test_one_job_of_a_batch_is_cancelled_alone(tmp_path: Path) -> None:
    code = """
    def run(self, jobs):
        jobs[0].progress(0.1)
        while not jobs[1].cancelled:
            pass
        return [job.cancelled for job in jobs]
    """
    child = started(a_spec(tmp_path, code, max_batch={"run": 2}))
    requests = [a_request(tmp_path), a_request(tmp_path)]
    tells: list[OnProgress | None] = [lambda *_: child.cancel(requests[1].job_id), None]
    outcomes = child.run_batch(requests, timeout_s=20, on_progress=tells)
    assert [one.result for one in outcomes] == [False, True]
    child.stop()


MIB = 1 << 20
TORCH = """
import sys, types

class Cuda:
    held, most = [3000, 5000], [9000, 9000]
    def is_initialized(self): return True
    def device_count(self): return 2
    def reset_peak_memory_stats(self, device): self.most[device] = self.held[device]
    def max_memory_allocated(self, device): return self.most[device]
    def take(self, device, size): self.most[device] = max(self.most[device], self.held[device] + size)

sys.modules["torch"] = types.SimpleNamespace(cuda=Cuda())
"""


def test_what_a_job_takes_at_most_is_measured_anew_for_each(tmp_path: Path) -> None:
    body = f"def run(self, job):\n    taken = bytearray({200 * MIB}) if job.inputs else b''\n    return len(taken)"
    child = started(a_spec(tmp_path, body))
    try:
        small, large, after = (
            child.run(a_request(tmp_path, inputs), timeout_s=10).memory.host_bytes for inputs in ({}, {"n": 1}, {})
        )
    finally:
        child.stop()
    assert small is not None and large is not None and after is not None
    assert 190 * MIB <= large - small <= 220 * MIB
    assert after - small < 20 * MIB


def test_of_an_accelerator_the_fullest_device_counts(tmp_path: Path) -> None:
    take = "__import__('sys').modules['torch'].cuda.take(0, 4000)"
    load = f"def load(self, ctx):\n    exec({TORCH!r}, {{}})\n"
    body = f"{load}def run(self, job):\n    if job.inputs: {take}\n    return 1"
    child = started(a_spec(tmp_path, body))
    try:
        peaks = [child.run(a_request(tmp_path, inputs), timeout_s=10).memory for inputs in ({}, {"n": 1}, {})]
    finally:
        child.stop()
    assert [peak.accelerator_bytes for peak in peaks] == [5000, 7000, 5000]


@pytest.mark.parametrize(
    ("error", "lacked"),
    [("MemoryError", Lacked.HOST), ("type('OutOfMemoryError', (RuntimeError,), {})", Lacked.ACCELERATOR)],
)
def test_an_end_for_want_of_memory_says_which(tmp_path: Path, error: str, lacked: Lacked) -> None:
    child = started(a_spec(tmp_path, f"def run(self, job):\n    raise {error}()"))
    try:
        outcome = child.run(a_request(tmp_path), timeout_s=10)
        assert (outcome.cause, outcome.memory.lacked) == (Cause.OUT_OF_MEMORY, lacked)
    finally:
        child.stop()
