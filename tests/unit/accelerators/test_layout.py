import pytest

from modelrepo.errors import InvalidInput
from modelrepo_runtime.accelerators.layout import lay_out
from modelrepo_runtime.accelerators.port import Device

GPUS = tuple(Device("cuda", index, "GPU", 80 << 30, f"GPU-{index}") for index in range(8))
CPU = (Device("cpu", 0, "x86_64", 1 << 30),)


def shape(slots: str, cpu_slots: int = 0, devices: tuple[Device, ...] = GPUS) -> list[tuple[str, list[int]]]:
    return [(slot.name, [device.index for device in slot.devices]) for slot in lay_out(slots, cpu_slots, devices)]


def test_auto_is_a_slot_a_device() -> None:
    assert shape("auto") == [(f"cuda{index}", [index]) for index in range(8)]


def test_auto_without_an_accelerator_is_one_slot_on_the_cpu() -> None:
    assert shape("auto", devices=CPU) == [("cpu0", [])]
    assert shape("auto", 3, CPU) == [("cpu0", []), ("cpu1", []), ("cpu2", [])]


def test_slots_of_several_devices() -> None:
    assert shape("2x4") == [("cuda0", [0, 1, 2, 3]), ("cuda4", [4, 5, 6, 7])]
    assert shape("0") == [("cuda0", [0])]
    assert shape("0,1,2,3;4,5", 1) == [("cuda0", [0, 1, 2, 3]), ("cuda4", [4, 5]), ("cpu0", [])]


def test_a_slot_is_labelled_by_its_devices() -> None:
    assert [slot.label for slot in lay_out("0,1;5", 1, GPUS)] == ["cuda:0,1", "cuda:5", "cpu"]


def test_numbers_count_the_parts_of_a_mig_device() -> None:
    parts = tuple(Device("cuda", 0, "GPU", 1, f"MIG-{name}", mig=True) for name in "abc")
    assert [slot.devices[0].uuid for slot in lay_out("2;0", 0, parts)] == ["MIG-c", "MIG-a"]


@pytest.mark.parametrize(
    ("slots", "cpu_slots", "message"),
    [
        ("4x4", 0, "it takes 16 devices, this box has cuda:0, cuda:1"),
        ("0x4", 0, "it takes 0 devices"),
        ("0;9", 0, "there is no device 9"),
        ("0;0", 0, "device 0 is in it twice"),
        ("both", 0, "cannot read --slots 'both'"),
        ("none", 0, "without slots"),
        ("auto", -1, "from 0 to 1024"),
    ],
)
def test_a_layout_that_cannot_be_is_refused_in_words(slots: str, cpu_slots: int, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        lay_out(slots, cpu_slots, GPUS)
