from pathlib import Path
from typing import Any

import pytest
import yaml

from modelrepo.errors import InvalidInput
from modelrepo_runtime.accelerators import FakeAccelerator, SlotLayout
from modelrepo_runtime.worker.preparing import only_kind
from modelrepo_runtime.worker.settings import OPTIONS, load_settings, print_config


def test_a_flag_beats_a_variable_beats_the_file(tmp_path: Path) -> None:
    file = tmp_path / "worker.yaml"
    file.write_text("slots: 2x1\ncpu_slots: 4\nname: from-file\nmodels: [a, b]\n")
    settings, sources = load_settings({"slots": "auto"}, {"MODELREPO_SLOTS": "8x1", "MODELREPO_CPU_SLOTS": "2"}, file)
    assert (settings.slots, settings.cpu_slots, settings.name, settings.models) == ("auto", 2, "from-file", ("a", "b"))
    origins = {source.name: source.origin for source in sources}
    assert (origins["slots"], origins["cpu_slots"], origins["name"]) == ("--slots", "MODELREPO_CPU_SLOTS", str(file))
    assert origins["grace"] == "default"


def test_flags_not_given_leave_the_choice_to_others(tmp_path: Path) -> None:
    environ = {"MODELREPO_MODELS": "a, b,", "MODELREPO_CACHE": str(tmp_path), "MODELREPO_ALLOW_BUILDS": "yes"}
    settings, _ = load_settings({"slots": None, "models": ()}, environ)
    assert settings.models == ("a", "b")
    assert settings.cache == tmp_path
    assert settings.allow_builds
    assert settings.slots == "auto"
    assert settings.cache_size is None
    assert load_settings({}, {"MODELREPO_CACHE_SIZE": "500GB"})[0].cache_size == 500 * 10**9


def test_the_printed_configuration_is_a_configuration(tmp_path: Path) -> None:
    file = tmp_path / "worker.yaml"
    settings, sources = load_settings({"grace": "10s", "models": ["m"]}, {}, None)
    file.write_text(print_config(sources))
    assert set(yaml.safe_load(file.read_text())) == {option.name for option in OPTIONS}
    assert "grace: 10.0  # --grace" in file.read_text()
    assert load_settings({}, {}, file)[0] == settings


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slot: auto", "there is no such setting; did you mean 'slots'"),
        ("- slots", "it is no mapping"),
        ("slots: [", "cannot read the worker's settings"),
        ("cpu_slots: many", "cannot read cpu_slots 'many' from .*: give a number, 0 or more"),
        ("grace: soon", "a number of seconds"),
        ("cache_size: much", "cannot read cache_size 'much' from .*: give a size, such as 500GB"),
        ("allow_builds: perhaps", "true or false"),
        ("models: 7", "names with commas"),
    ],
)
def test_a_file_that_cannot_be_read_says_where(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "worker.yaml"
    file.write_text(text)
    with pytest.raises(InvalidInput, match=message):
        load_settings({}, {}, file)


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="does not exist"):
        load_settings({}, {}, tmp_path / "absent.yaml")


def test_a_variable_that_cannot_be_read_is_named() -> None:
    with pytest.raises(InvalidInput, match="from MODELREPO_CPU_SLOTS"):
        load_settings({}, {"MODELREPO_CPU_SLOTS": "-3"})


def test_mirrors_may_be_several(tmp_path: Path) -> None:
    file = tmp_path / "worker.yaml"
    file.write_text("object_mirror: [/from/file, s3://bucket/x]\n")
    assert load_settings({}, {}, file)[0].object_mirror == ("/from/file", "s3://bucket/x")
    environ = {"MODELREPO_OBJECT_MIRROR": "/a,/b"}
    assert load_settings({}, environ, file)[0].object_mirror == ("/a", "/b")
    assert load_settings({"object_mirror": ("/c",)}, environ, file)[0].object_mirror == ("/c",)


@pytest.mark.parametrize(
    ("flags", "on_cpu", "on_accelerator"),
    [
        ({}, None, None),
        ({"cpu_slots": 4}, None, "gpu"),
        ({"slots": "none", "cpu_slots": 4}, "cpu", None),
        ({"stages": "gpu"}, "gpu", "gpu"),
        ({"stages": "cpu", "cpu_slots": 2}, "cpu", "cpu"),
    ],
)
def test_which_stages_a_slot_leaves_to_others(flags: dict[str, Any], on_cpu: str | None, on_accelerator: str) -> None:
    settings, _ = load_settings(flags, {})
    accelerator = SlotLayout("cuda0", FakeAccelerator([1 << 30]).probe())
    assert only_kind(settings, SlotLayout("cpu0", ())) == on_cpu
    if flags.get("slots") != "none":
        assert only_kind(settings, accelerator) == on_accelerator


def test_stages_are_named_by_kind() -> None:
    with pytest.raises(InvalidInput, match="auto, cpu or gpu"):
        load_settings({"stages": "tpu"}, {})
