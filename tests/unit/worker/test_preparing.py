"""What a slot may run is decided before a byte is fetched."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from modelrepo.contract import AcceleratorFacts, KnownHost, parse_spec
from modelrepo.errors import HostNeedUnmet, InvalidInput, NoExtraFits, SecretMissing
from modelrepo.holds import take
from modelrepo.versions.version import LocalVersion, Version
from modelrepo_runtime.accelerators import FakeAccelerator, SlotLayout, facts
from modelrepo_runtime.worker.preparing import Prepared, SlotBox, checkpoints_of, child_spec, choose
from modelrepo_runtime.worker.target import Target

HOST = KnownHost({"ffmpeg": "6.1"}, gpu_memory=80 << 30)
CUDA = FakeAccelerator([80 << 30, 80 << 30])
GPU_SLOT = SlotLayout("cuda0", CUDA.probe()[1:])
CPU_SLOT = SlotLayout("cpu0", ())


def a_version(yaml: str = "") -> Version:
    manifest: Any = SimpleNamespace(environment=None, checkpoints={})
    spec = parse_spec("contract: 1\nname: m\nentrypoint: model:Model\n" + yaml)
    return Version("m", "v1", "d" * 64, manifest, spec)


def a_box(layout: SlotLayout = CPU_SLOT, *, accelerators: bool = False, **environ: str) -> SlotBox:
    offered = facts(layout.devices, CUDA.versions()) if layout.devices else AcceleratorFacts("cpu")
    return SlotBox(layout, offered, accelerators, None, environ)


def a_target(**config: Any) -> Target:
    return Target("m", "v1", None, 1, config)


def test_the_first_extra_that_the_slot_satisfies_is_taken() -> None:
    version = a_version(
        'accelerators: [{when: "cuda >= 13", extra: new}, {when: cuda, extra: old}, {when: cpu, extra: cpu}]\n'
    )
    assert choose(version, a_target(), a_box(GPU_SLOT, accelerators=True), HOST).extra == "old"
    assert choose(version, a_target(), a_box(), HOST).extra == "cpu"


def test_a_slot_that_offers_what_no_entry_admits_is_refused() -> None:
    with pytest.raises(NoExtraFits, match="it offers cpu"):
        choose(a_version("accelerators: {cuda: cu128}\n"), a_target(), a_box(), HOST)


def test_a_slot_for_one_kind_of_stages_takes_these_alone() -> None:
    yaml = "accelerators: {cuda: cu128}\nstages: [{name: prepare, on: cpu}, {name: generate, on: gpu}]\n"
    on_cpu = replace(a_box(), only="cpu")
    chosen = choose(a_version(yaml), a_target(), on_cpu, HOST)
    assert ([stage.name for stage in chosen.stages], chosen.extra) == (["prepare"], None)
    assert (on_cpu.on, on_cpu.kind) == (("cpu",), None)
    on_gpu = replace(a_box(GPU_SLOT, accelerators=True), only="gpu")
    chosen = choose(a_version(yaml), a_target(), on_gpu, HOST)
    assert ([stage.name for stage in chosen.stages], chosen.extra) == (["generate"], "cu128")
    assert (on_gpu.on, on_gpu.kind) == (("gpu",), "Fake 1")
    with pytest.raises(HostNeedUnmet, match="all its stages are on: cpu; leave them to the slots on the CPU"):
        choose(a_version("stages: [{name: prepare, on: cpu}]\n"), a_target(), on_gpu, HOST)


def test_a_slot_on_the_cpu_beside_accelerators_takes_cpu_stages_only() -> None:
    yaml = "stages: [{name: prepare, on: cpu}, {name: generate, on: gpu}, {name: finish, on: cpu}]\n"
    beside = choose(a_version(yaml), a_target(), a_box(accelerators=True), HOST)
    assert [stage.name for stage in beside.stages] == ["prepare", "finish"]
    assert [stage.name for stage in beside.plan] == ["prepare", "generate", "finish"]
    alone = choose(a_version(yaml), a_target(), a_box(), HOST)
    assert [stage.name for stage in alone.stages] == ["prepare", "generate", "finish"]
    with pytest.raises(HostNeedUnmet, match="all its stages are on: gpu"):
        choose(a_version(), a_target(), a_box(accelerators=True), HOST)


def test_a_stage_of_several_devices_runs_in_as_many_ranks_where_the_slot_has_them() -> None:
    version = a_version("stages: [{name: prepare, on: cpu}, {name: generate, gpus: 2}]\n")
    both = SlotLayout("cuda0", CUDA.probe())
    assert choose(version, a_target(), a_box(both, accelerators=True), HOST).ranks == 2
    assert choose(version, a_target(), a_box(), HOST).ranks == 2
    assert choose(version, a_target(), replace(a_box(), only="cpu"), HOST).ranks == 1
    with pytest.raises(HostNeedUnmet, match=r"slot cuda0 has 1 of the 2 devices .* --slots 1x2"):
        choose(version, a_target(), a_box(GPU_SLOT, accelerators=True), HOST)


def test_needs_secrets_and_settings_are_looked_at_first() -> None:
    with pytest.raises(HostNeedUnmet, match="sox"):
        choose(a_version("host: {commands: {sox: '*'}}\n"), a_target(), a_box(), HOST)
    with pytest.raises(SecretMissing, match="TOKEN"):
        choose(a_version("secrets: [TOKEN]\n"), a_target(), a_box(), HOST)
    with pytest.raises(InvalidInput, match="'speed' is not declared"):
        choose(a_version(), a_target(speed=1), a_box(), HOST)
    chosen = choose(
        a_version("secrets: [TOKEN]\nconfig: {a: 1}\n"), a_target(a=2), a_box(MODELREPO_SECRET_TOKEN="x"), HOST
    )
    assert (chosen.secrets, chosen.config) == ({"TOKEN": "x"}, {"a": 2})


def test_only_the_checkpoints_of_its_stages_come_to_a_slot() -> None:
    yaml = """\
checkpoints: {t5: a, unet: b}
stages: [{name: prepare, on: cpu, checkpoints: [t5]}, {name: generate, on: gpu, checkpoints: [unet]}]
"""
    beside = choose(a_version(yaml), a_target(), a_box(accelerators=True), HOST)
    assert checkpoints_of(beside) == frozenset({"t5"})
    assert checkpoints_of(choose(a_version(yaml), a_target(), a_box(), HOST)) == frozenset({"t5", "unet"})
    assert checkpoints_of(choose(a_version(), a_target(), a_box(), HOST)) is None


def test_a_child_is_told_its_devices_paths_and_limits() -> None:
    yaml = "code: [src, .]\nstages: [{name: run, host_memory: 10GiB, max_batch: 4}]\nenv: {A: b}\n"
    version = a_version(yaml)
    chosen = choose(version, a_target(), a_box(GPU_SLOT, accelerators=True), HOST)
    local = LocalVersion(version, Path("/v"), Path("/v/code"), {"t5": Path("/v/t5")})
    spec = child_spec(Prepared(chosen, local, Path("/env/bin/python")), GPU_SLOT, Path("/slot/child"), (7,))
    assert spec.code_roots == (Path("/v/code/src"), Path("/v/code"))
    assert (spec.device, spec.devices) == ("cuda:0", ("cuda:0",))
    assert spec.device_env == {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert spec.memory_limit_bytes == 11 << 30
    assert (spec.keep_open_fds, spec.max_batch, spec.env) == ((7,), {"run": 4}, {"A": "b"})


def test_a_child_holds_the_version_that_it_runs_in_the_cache(tmp_path: Path) -> None:
    version = a_version()
    hold = take(tmp_path / "hold", shared=True)
    local = LocalVersion(version, Path("/v"), Path("/v/code"), {}, (hold,))
    prepared = Prepared(choose(version, a_target(), a_box(), HOST), local, Path("/env/bin/python"))
    spec = child_spec(prepared, GPU_SLOT, Path("/slot/child"), (7,))
    assert spec.keep_open_fds == (7, hold.fileno())


def test_what_runs_is_known_by_digest_and_effective_configuration() -> None:
    version = a_version("config: {a: 1, b: 2}\n")
    default, same, other = (choose(version, a_target(**config), a_box(), HOST) for config in ({}, {"b": 2}, {"b": 3}))
    assert default.runs_as == same.runs_as
    assert default.runs_as != other.runs_as
