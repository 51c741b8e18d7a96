import pytest

from modelrepo_runtime.accelerators.port import Device
from modelrepo_runtime.accelerators.visible import child_environment, torch_devices, visible


def cuda(index: int, uuid: str = "", mig: bool = False) -> Device:
    return Device("cuda", index, "GPU", 80 << 30, uuid or f"GPU-{index}abc", "nvidia", mig)


BOX = tuple(cuda(index) for index in range(4))


@pytest.mark.parametrize(
    ("value", "left"),
    [
        (None, [0, 1, 2, 3]),
        ("", []),
        ("-1", []),
        ("2,0", [2, 0]),
        ("1,9,2", [1]),
        ("0,-1,1", [0]),
        ("GPU-3abc, 1", [3, 1]),
        ("gpu-2", [2]),
        ("1,1,2", [1]),
        ("GPU-", []),
        ("NoDevFiles", []),
    ],
)
def test_a_worker_sees_what_its_own_variable_leaves(value: str | None, left: list[int]) -> None:
    assert [device.index for device in visible(BOX, value)] == left


def test_a_number_names_no_part_of_a_mig_device() -> None:
    parts = (cuda(0, "MIG-a", mig=True), cuda(0, "MIG-b", mig=True))
    assert visible(parts, "0") == ()
    assert visible(parts, "MIG-b") == (parts[1],)


def test_nvidia_children_get_integers_in_pci_order() -> None:
    environment = child_environment([cuda(3), cuda(1)])
    assert environment == {"CUDA_VISIBLE_DEVICES": "3,1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def test_mig_children_get_uuids() -> None:
    assert child_environment([cuda(0, "MIG-a", mig=True)])["CUDA_VISIBLE_DEVICES"] == "MIG-a"


def test_amd_children_get_rocr_alone() -> None:
    assert child_environment([Device("rocm", 5, "MI300X", 1)]) == {"ROCR_VISIBLE_DEVICES": "5"}


def test_children_on_the_cpu_see_no_accelerator() -> None:
    assert child_environment([]) == {"CUDA_VISIBLE_DEVICES": "-1", "ROCR_VISIBLE_DEVICES": "-1"}


def test_frameworks_count_within_the_slot() -> None:
    assert torch_devices([cuda(6), cuda(7)]) == ("cuda:0", "cuda:1")
    assert torch_devices([Device("rocm", 5, "MI300X", 1)]) == ("cuda:0",)
    assert torch_devices([]) == ("cpu",)
    assert torch_devices([Device("mps", 0, "Apple", 1)]) == ("mps",)
