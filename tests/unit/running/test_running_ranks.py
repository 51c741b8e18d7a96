"""`run` with several ranks."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from modelrepo.contract import parse_spec
from modelrepo.errors import HostNeedUnmet, InvalidInput
from modelrepo_runtime import local_model
from modelrepo_runtime.accelerators import FakeAccelerator
from modelrepo_runtime.local_model import Box, fit_to_run, folder_model
from modelrepo_runtime.running import LocalRun, RunOptions

SPEC = "contract: 1\nname: demo\nentrypoint: model:Demo\nstages: [{name: run, gpus: 2}]\n"
CODE = """
class Demo:
    def load(self, ctx):
        self.ctx = ctx
        print("loading", ctx.rank, "of", ctx.world_size)
    def run(self, job):
        print("ran", self.ctx.rank, end="")
        return [self.ctx.world_size, self.ctx.device]
"""


def a_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "demo"
    folder.mkdir()
    (folder / "model.yaml").write_text(SPEC)
    (folder / "model.py").write_text(CODE)
    return folder


@pytest.mark.parametrize(("asked", "ranks"), [(None, 2), (3, 3), (1, 1)])
def test_as_many_ranks_run_as_a_stage_takes_or_as_are_asked_for(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], asked: int | None, ranks: int
) -> None:
    box = Box(python=Path(sys.executable), ranks=asked)
    with folder_model(a_folder(tmp_path), box) as model, LocalRun(model) as run:
        assert run.run({}).result == [ranks, "cpu"]
    lines = sorted(capfd.readouterr().err.splitlines())
    if ranks > 1:
        expected = [line for rank in range(ranks) for line in (f"loading {rank} of {ranks}", f"ran {rank}")]
        assert lines == sorted(f"[rank {line.split()[1]}] {line}" for line in expected)
    else:
        assert lines == ["loading 0 of 1", "ran 0"]


def test_the_debugger_is_refused_with_several_ranks(tmp_path: Path) -> None:
    box = Box(python=Path(sys.executable))
    with (
        folder_model(a_folder(tmp_path), box) as model,
        pytest.raises(InvalidInput, match="cannot debug 2 ranks on one terminal; pass --ranks 1"),
    ):
        LocalRun(model, RunOptions(debug=True)).__enter__()


def test_ranks_take_a_device_each_and_say_so_where_there_are_too_few(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeAccelerator([1 << 30] * 3)
    monkeypatch.setattr(local_model, "probe", fake.probe)
    spec = parse_spec(SPEC)
    python = Path(sys.executable)
    assert [device.index for device in fit_to_run(spec, Box(python=python)).devices] == [0, 1]
    assert [device.index for device in fit_to_run(spec, Box(python=python, ranks=3)).devices] == [0, 1, 2]
    assert len(fit_to_run(spec, Box(python=python, ranks=1)).devices) == 2
    with pytest.raises(HostNeedUnmet, match=r"4 ranks take 4 devices, and this box shows 3; .* --ranks 3"):
        fit_to_run(spec, Box(python=python, ranks=4))
