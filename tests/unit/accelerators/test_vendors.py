import json
import sys
from pathlib import Path

import pytest

from modelrepo_runtime.accelerators import FakeAccelerator, facts, find_box
from modelrepo_runtime.accelerators.amd import Amd
from modelrepo_runtime.accelerators.cpu import Apple, Cpu
from modelrepo_runtime.accelerators.nvidia import Nvidia
from modelrepo_runtime.accelerators.port import Accelerator, DriverVersions
from modelrepo_runtime.accelerators.tools import json_of, output_of


class Tools:
    """A folder of stub command-line tools, the only ones on the PATH that it gives."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.environ = {"PATH": str(folder)}

    def add(self, name: str, answers: dict[str, str], status: int = 0) -> None:
        """Make `name` print the answer whose key is among its arguments."""
        path = self._folder / name
        code = (
            f"#!{sys.executable} -S\nimport sys\nasked = ' '.join(sys.argv[1:])\n"
            f"answers = {answers!r}\n"
            f"print(next((text for key, text in answers.items() if key in asked), ''))\nsys.exit({status})\n"
        )
        path.write_text(code)
        path.chmod(0o755)


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    folder = tmp_path / "bin"
    folder.mkdir()
    return Tools(folder)


NVIDIA_ROWS = """\
0, GPU-aaa, NVIDIA H100 80GB HBM3, 81559, 80000, 570.86.15
1, GPU-bbb, NVIDIA H100 80GB HBM3, 81559, 4, 570.86.15
garbage"""


def test_nvidia_smi_stands_in_for_the_library(tools: Tools) -> None:
    tools.add("nvidia-smi", {"--query-gpu": NVIDIA_ROWS, "": "| NVIDIA-SMI 570  Driver 570.86  CUDA Version: 12.8 |"})
    nvidia = Nvidia(tools.environ, library=False)
    first, second = nvidia.probe()
    assert (first.label, first.name, first.memory_total_bytes) == ("cuda:0", "NVIDIA H100 80GB HBM3", 81559 << 20)
    assert nvidia.free_bytes(second) == 4 << 20
    assert nvidia.versions() == DriverVersions("570.86.15", "12.8")


def test_nvidia_respects_the_variable_of_the_worker(tools: Tools) -> None:
    tools.add("nvidia-smi", {"--query-gpu": NVIDIA_ROWS})
    nvidia = Nvidia({**tools.environ, "CUDA_VISIBLE_DEVICES": "1"}, library=False)
    assert [device.index for device in nvidia.probe()] == [1]


def test_a_tool_that_fails_shows_no_device(tools: Tools) -> None:
    tools.add("nvidia-smi", {"--query-gpu": NVIDIA_ROWS}, status=9)
    nvidia = Nvidia(tools.environ, library=False)
    assert nvidia.probe() == ()
    assert nvidia.versions() == DriverVersions(None, None)


AMD_STATIC = [
    {
        "gpu": index,
        "asic": {"market_name": "AMD Instinct MI300X", "asic_serial": f"0x{index:X}F"},
        "vram": {"type": "HBM", "size": {"value": 196592, "unit": "MB"}},
    }
    for index in range(2)
]
AMD_MEMORY = [
    {
        "gpu": index,
        "mem_usage": {"total_vram": {"value": 196592, "unit": "MB"}, "used_vram": {"value": 592, "unit": "MB"}},
    }
    for index in range(2)
]
AMD_VERSION = [{"tool": "AMDSMI Tool", "version": "24.6.2", "rocm_version": "6.2.1"}]


@pytest.mark.parametrize("wrap", [lambda rows: rows, lambda rows: {"gpu_data": rows}], ids=["bare", "gpu_data"])
def test_amd_smi_is_read_in_both_its_forms(tools: Tools, wrap: object, tmp_path: Path) -> None:
    assert callable(wrap)
    answers = {"static": json.dumps(wrap(AMD_STATIC)), "metric": "WARNING: slow\n" + json.dumps(wrap(AMD_MEMORY))}
    tools.add("amd-smi", {**answers, "version": json.dumps(AMD_VERSION)})
    amd = Amd(tools.environ, tmp_path)
    first, second = amd.probe()
    assert (second.label, second.name, second.uuid) == ("rocm:1", "AMD Instinct MI300X", "GPU-000000000000001f")
    assert first.memory_total_bytes == 196592 << 20
    assert amd.free_bytes(first) == 196000 << 20
    assert amd.versions().runtime == "6.2.1"


ROCM_SMI = {
    "card1": {"Card Series": "AMD Radeon", "Unique ID": "0xabc", "VRAM Total Memory (B)": "1000"},
    "card0": {
        "Card Series": "AMD Radeon",
        "Unique ID": "0xdef",
        "VRAM Total Memory (B)": "1000",
        "VRAM Total Used Memory (B)": "400",
    },
    "system": {"Driver version": "6.7.0"},
}


def test_rocm_smi_is_next(tools: Tools, tmp_path: Path) -> None:
    tools.add("rocm-smi", {"--showmeminfo": json.dumps(ROCM_SMI)})
    (tmp_path / "opt/rocm/.info").mkdir(parents=True)
    (tmp_path / "opt/rocm/.info/version").write_text("6.2.4-120\n")
    amd = Amd({**tools.environ, "ROCR_VISIBLE_DEVICES": "1,0"}, tmp_path)
    devices = amd.probe()
    assert [device.index for device in devices] == [1, 0]
    assert [amd.free_bytes(device) for device in devices] == [None, 600]
    assert amd.versions().runtime == "6.2.4"


def add_render_node(root: Path, minor: int, **facts: object) -> None:
    device = root / f"sys/devices/pci/0000:{minor - 100}:00.0"
    device.mkdir(parents=True)
    render = root / f"sys/class/drm/renderD{minor}"
    render.mkdir(parents=True)
    (render / "device").symlink_to(device)
    for name, value in {"vendor": "0x1002", **facts}.items():
        (device / name).write_text(f"{value}\n")


def add_kfd_node(root: Path, node: int, **facts: object) -> None:
    folder = root / f"sys/class/kfd/kfd/topology/nodes/{node}"
    folder.mkdir(parents=True)
    (folder / "properties").write_text("".join(f"{name} {value}\n" for name, value in facts.items()))


def test_the_kernel_is_asked_where_no_tool_is(tools: Tools, tmp_path: Path) -> None:
    add_render_node(tmp_path, 128, mem_info_vram_total=1000, mem_info_vram_used=100, unique_id="a1")
    add_render_node(tmp_path, 129, mem_info_vram_total=2000, mem_info_vram_used=100)
    add_render_node(tmp_path, 130, vendor="0x10de", mem_info_vram_total=3000)
    amd = Amd(tools.environ, tmp_path)
    assert [(device.index, device.memory_total_bytes) for device in amd.probe()] == [(0, 1000), (1, 2000)]
    assert [amd.free_bytes(device) for device in amd.probe()] == [900, 1900]


def test_devices_are_numbered_as_the_compute_driver_does(tools: Tools, tmp_path: Path) -> None:
    add_render_node(tmp_path, 128, mem_info_vram_total=1000)
    add_render_node(tmp_path, 129, mem_info_vram_total=2000)
    add_kfd_node(tmp_path, 0, cpu_cores_count=64, simd_count=0, drm_render_minor=0)
    add_kfd_node(tmp_path, 2, simd_count=304, drm_render_minor=128)
    add_kfd_node(tmp_path, 1, simd_count=304, drm_render_minor=129)
    assert [device.memory_total_bytes for device in Amd(tools.environ, tmp_path).probe()] == [2000, 1000]


def test_a_box_without_any_accelerator_computes_on_its_cpu() -> None:
    box = find_box({"PATH": "", "CUDA_VISIBLE_DEVICES": "", "ROCR_VISIBLE_DEVICES": ""})
    if sys.platform != "darwin":
        assert [device.label for device in box.devices] == ["cpu"]
    assert (box.free_bytes(box.devices) or 0) > 0


@pytest.mark.parametrize(
    "accelerator", [FakeAccelerator([8, 8]), Cpu(), Apple(), Nvidia({"PATH": ""}, library=False), Amd({})]
)
def test_every_adapter_answers_the_whole_port(accelerator: Accelerator) -> None:
    for device in accelerator.probe():
        assert device.kind == accelerator.kind
        assert 0 < (accelerator.free_bytes(device) or 1) <= device.memory_total_bytes
    assert isinstance(accelerator.versions(), DriverVersions)


def test_facts_are_those_of_the_smallest_device() -> None:
    fake = FakeAccelerator([80, 40], runtime="12.8")
    found = facts(fake.probe(), fake.versions())
    assert (found.kind, found.version, found.count, found.memory_bytes) == ("cuda", "12.8", 2, 40)
    assert facts(()).kind == "cpu"


def test_a_fake_device_remembers_what_is_taken() -> None:
    fake = FakeAccelerator([80])
    fake.take(0, 30)
    assert fake.free_bytes(fake.probe()[0]) == 50


def test_tools_that_are_missing_or_print_no_json_say_nothing(tools: Tools) -> None:
    tools.add("chatty", {"": "no json here"})
    tools.add("torn", {"": '{"gpu": '})
    assert output_of(["absent"], tools.environ) is None
    assert json_of(["chatty"], tools.environ) is None
    assert json_of(["torn"], tools.environ) is None
