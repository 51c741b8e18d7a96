"""A model that takes up another version's checkpoints in place, through a real process."""

from dataclasses import replace
from pathlib import Path

import pytest

from modelrepo.errors import EntrypointFailed
from modelrepo_runtime.supervision import ChildState
from modelrepo_runtime.supervision.child import ChildGone
from modelrepo_runtime.supervision.spec import ChildSpec
from modelrepo_runtime.testing.children import a_request, a_spec, started

MODEL = """
    def load(self, ctx):
        self.seen = [ctx.checkpoint("w").read_text()]
    def reload(self, ctx):
        text = ctx.checkpoint("w").read_text()
        if text in ctx.config.get("broken", []):
            raise ValueError("layer 3 is missing")
        if text == "hangs":
            while True:
                pass
        self.seen.append(text)
    def run(self, job): return self.seen
"""


def versions(folder: Path, *texts: str, **config: list[str]) -> list[ChildSpec]:
    specs = []
    for number, text in enumerate(texts):
        (folder / f"w{number}").write_text(text)
        spec = a_spec(folder, MODEL, checkpoints={"w": folder / f"w{number}"}, config=config)
        specs.append(replace(spec, version=f"v{number + 1}"))
    return specs


def test_a_model_reloads_between_two_jobs(tmp_path: Path) -> None:
    old, new = versions(tmp_path, "old", "new")
    child = started(old)
    try:
        assert child.reloads
        assert child.run(a_request(tmp_path), timeout_s=10).result == ["old"]
        assert child.reload(new, 10) >= 0
        assert (child.state, child.spec.version) == (ChildState.READY, "v2")
        assert child.run(a_request(tmp_path), timeout_s=10).result == ["old", "new"]
    finally:
        child.stop()


def test_a_reload_that_raises_is_taken_back(tmp_path: Path) -> None:
    old, new = versions(tmp_path, "old", "new", broken=["new"])
    child = started(old)
    try:
        with pytest.raises(EntrypointFailed, match=r"v2 did not reload: .*layer 3 is missing; .*v1 serves on"):
            child.reload(new, 10)
        assert (child.alive, child.state, child.spec.version) == (True, ChildState.READY, "v1")
        assert child.run(a_request(tmp_path), timeout_s=10).result == ["old", "old"]
    finally:
        child.stop()


@pytest.mark.parametrize(
    ("text", "broken", "limit_s", "said"),
    [
        ("new", ["new", "old"], 30, "v2 did not reload: .*; and .*v1 did not reload"),
        ("hangs", [], 0.2, "not reloaded after"),
    ],
)
def test_a_child_that_finds_no_way_back_is_ended(
    tmp_path: Path, text: str, broken: list[str], limit_s: float, said: str
) -> None:
    old, new = versions(tmp_path, "old", text, broken=broken)
    child = started(old)
    try:
        with pytest.raises(EntrypointFailed, match=said):
            child.reload(new, limit_s)
        assert (child.alive, child.state) == (False, ChildState.STOPPING)
        with pytest.raises(ChildGone):
            child.reload(new, limit_s)
    finally:
        child.stop()


def test_a_model_without_the_method_says_so(tmp_path: Path) -> None:
    child = started(a_spec(tmp_path, "def run(self, job): pass"))
    child.stop()
    assert not child.reloads
