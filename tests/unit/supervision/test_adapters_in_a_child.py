"""What a model sees of the adapters that come with its job."""

from __future__ import annotations

from pathlib import Path

from modelrepo_runtime.jobs import Cause
from modelrepo_runtime.supervision.spec import AdapterPath
from modelrepo_runtime.testing.children import a_request, a_spec, started, started_group

CODE = """
def run(self, job):
    return [[one.name, one.weight, one.sha256, one.path.read_text(), type(one.path).__name__] for one in job.adapters]
"""


def test_they_come_in_order_and_only_with_their_own_job(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text(f"weights of {name}")
    adapters = (AdapterPath("two@v1", tmp_path / "two", "b" * 64, 0.5), AdapterPath("one", tmp_path / "one", "a" * 64))
    child = started(a_spec(tmp_path, CODE))
    with_some = child.run(a_request(tmp_path, adapters=adapters), timeout_s=30)
    with_none = child.run(a_request(tmp_path), timeout_s=30)
    child.stop()
    assert with_some.cause is with_none.cause is Cause.SUCCEEDED
    assert with_some.result == [
        ["two@v1", 0.5, "b" * 64, "weights of two", "PosixPath"],
        ["one", 1.0, "a" * 64, "weights of one", "PosixPath"],
    ]
    assert with_none.result == []


def test_each_job_of_a_batch_has_its_own(tmp_path: Path) -> None:
    code = "def run(self, jobs): return [[one.weight for one in job.adapters] for job in jobs]"
    child = started(a_spec(tmp_path, code, max_batch={"run": 2}))
    (tmp_path / "one").write_text("weights")
    requests = [
        a_request(tmp_path, adapters=(AdapterPath("one", tmp_path / "one", "a" * 64, each),)) for each in (1, 2)
    ]
    outcomes = child.run_batch(requests, timeout_s=30)
    child.stop()
    assert [outcome.result for outcome in outcomes] == [[1], [2]]


def test_every_rank_sees_them(tmp_path: Path) -> None:
    code = """
    def run(self, job):
        import os
        (job.adapters[0].path.parent / ("rank-" + os.environ["RANK"])).write_text(job.adapters[0].path.read_text())
    """
    group = started_group(a_spec(tmp_path, code, ranks=2))
    (tmp_path / "one").write_text("weights")
    adapters = (AdapterPath("one", tmp_path / "one", "a" * 64),)
    assert group.run(a_request(tmp_path, adapters=adapters), timeout_s=30).cause is Cause.SUCCEEDED
    group.stop()
    assert [(tmp_path / f"rank-{rank}").read_text() for rank in (0, 1)] == ["weights", "weights"]
