"""Which devices a `*_VISIBLE_DEVICES` variable leaves, and what a child must be given to see only its own."""

from __future__ import annotations

from collections.abc import Sequence

from modelrepo_runtime.accelerators.port import Device


def visible(devices: Sequence[Device], value: str | None) -> tuple[Device, ...]:
    """Keep what `value` (of CUDA_ or ROCR_VISIBLE_DEVICES) names, in its order.

    As in both vendors' runtimes, an entry that names nothing hides all that follow it, and an empty value hides
    everything. UUIDs may be shortened to a unique prefix.
    """
    if value is None:
        return tuple(devices)
    chosen: list[Device] = []
    for entry in (part.strip() for part in value.split(",")):
        found = _named(devices, entry)
        if found is None or found in chosen:
            break
        chosen.append(found)
    return tuple(chosen)


def _named(devices: Sequence[Device], entry: str) -> Device | None:
    if entry.isdigit():
        return next((device for device in devices if device.index == int(entry) and not device.mig), None)
    if not entry or entry.startswith("-"):
        return None
    matches = [device for device in devices if device.uuid.lower().startswith(entry.lower())]
    return matches[0] if len(matches) == 1 else None


def child_environment(devices: Sequence[Device]) -> dict[str, str]:
    """Say which variables make a child see exactly `devices` of one slot.

    Integers in PCI order; UUIDs for MIG only, which has no integers. AMD gets ROCR_VISIBLE_DEVICES alone: the HIP
    variables count within what ROCR left and would be applied twice. A slot on the CPU sees no accelerator at all.
    """
    kinds = {device.kind for device in devices}
    environment = {"CUDA_VISIBLE_DEVICES": "-1", "ROCR_VISIBLE_DEVICES": "-1"}
    if "cuda" in kinds:
        names = [device.uuid if device.mig else str(device.index) for device in devices]
        environment = {"CUDA_VISIBLE_DEVICES": ",".join(names), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    elif "rocm" in kinds:
        environment = {"ROCR_VISIBLE_DEVICES": ",".join(str(device.index) for device in devices)}
    elif devices and devices[0].visible_in:
        environment[devices[0].visible_in] = ",".join(str(device.index) for device in devices)
    return environment


def torch_devices(devices: Sequence[Device]) -> tuple[str, ...]:
    """Name `devices` as the child's framework sees them: ROCm builds say `cuda` too."""
    if any(device.kind in ("cuda", "rocm") for device in devices):
        return tuple(f"cuda:{place}" for place in range(len(devices)))
    if devices and devices[0].torch:
        return tuple(f"{device.torch}:{place}" for place, device in enumerate(devices))
    return tuple(device.kind for device in devices) or ("cpu",)
