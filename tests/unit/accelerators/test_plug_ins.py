"""Accelerators that other packages bring."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.metadata import EntryPoint
from types import SimpleNamespace

import pytest

from modelrepo.errors import InvalidInput
from modelrepo_runtime import accelerators
from modelrepo_runtime.accelerators import FakeAccelerator, child_environment, facts, find_box, torch_devices


def boards(environ: Mapping[str, str]) -> FakeAccelerator:
    return FakeAccelerator([64 << 30] * int(environ.get("BOARDS", "0")), kind="x-boards", runtime="2.1")


def installed(monkeypatch: pytest.MonkeyPatch, *values: str) -> None:
    found = [EntryPoint(f"p{place}", value, accelerators.PLUG_INS) for place, value in enumerate(values)]
    monkeypatch.setattr(accelerators, "entry_points", lambda *, group: found)


def test_a_plug_in_brings_devices_and_says_how_children_see_them(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "our_boards:boards")
    monkeypatch.setitem(sys.modules, "our_boards", SimpleNamespace(boards=boards))
    box = find_box({"BOARDS": "2", "PATH": ""})
    assert [device.label for device in box.devices] == ["x-boards:0", "x-boards:1"]
    assert child_environment(box.devices[1:]) == {
        "CUDA_VISIBLE_DEVICES": "-1",
        "ROCR_VISIBLE_DEVICES": "-1",
        "FAKE_VISIBLE_DEVICES": "1",
    }
    assert torch_devices(box.devices) == ("boards:0", "boards:1")
    offered = facts(box.devices, box.accelerator.versions())
    assert (offered.kind, offered.version, offered.count) == ("x-boards", "2.1", 2)


def test_one_that_finds_nothing_leaves_the_box_to_its_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "our_boards:boards")
    monkeypatch.setitem(sys.modules, "our_boards", SimpleNamespace(boards=boards))
    assert [device.kind for device in find_box({"PATH": ""}).devices] == ["cpu"]


def test_one_that_cannot_be_loaded_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, "no_such_module_here:Boards")
    with pytest.raises(InvalidInput, match=r"cannot load the accelerator plug-in p0 .*mend or uninstall it"):
        find_box({"PATH": ""})
