"""Where in the machine the pool's memory lies: one NUMA node, such as far or CXL memory, chosen by its number."""

from __future__ import annotations

import ctypes
import os
import platform
from dataclasses import dataclass
from pathlib import Path

from modelrepo.errors import InvalidInput

NODES = Path("/sys/devices/system/node")
_BIND, _DEFAULT = 2, 0  # linux/mempolicy.h
# glibc has no name for the call; libnuma, which has, is seldom there.
_SET_MEMPOLICY = {"x86_64": 238, "aarch64": 237, "ppc64le": 261, "riscv64": 237}.get(platform.machine())
_MASK_BITS = 1024


@dataclass(frozen=True, slots=True)
class MemoryNode:
    """One node that is online."""

    number: int
    folder: Path

    def bind(self) -> None:
        """Have memory that this thread asks for from now on come from the node, tmpfs pages included.

        Raises: InvalidInput, where the kernel or a container's filter does not allow it.
        """
        _set_policy(_BIND, self.number)

    def free_bytes(self) -> int:
        """Return what the node can give without taking memory from anybody: beyond it the kernel ends processes."""
        sizes = {}
        for line in (self.folder / "meminfo").read_text().splitlines():
            words = line.split()  # Node 0 MemFree: 123 kB
            sizes[words[2].rstrip(":")] = int(words[3]) * 1024
        return sizes["MemFree"] + sizes.get("Inactive(file)", 0)


def find_node(number: int, nodes: Path = NODES) -> MemoryNode:
    """Return a node, tried out. Raises: InvalidInput for one that is not online, or that we may not choose."""
    online = _numbers((nodes / "online").read_text()) if (nodes / "online").exists() else ()
    if number not in online:
        known = ", ".join(map(str, online)) or "none, for this kernel knows no nodes"
        raise InvalidInput(f"cannot put the pool on memory node {number}: online are {known}; see `lscpu`")
    node = MemoryNode(number, nodes / f"node{number}")
    node.bind()
    _set_policy(_DEFAULT, None)
    return node


def _numbers(text: str) -> tuple[int, ...]:
    """Read a list of the kernel's, such as `0-1,4`."""
    found: list[int] = []
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first:
            found += range(int(first), int(last or first) + 1)
    return tuple(found)


def _set_policy(mode: int, node: int | None) -> None:
    if _SET_MEMPOLICY is None:
        raise InvalidInput(f"cannot choose a memory node: not known how on {platform.machine()}; leave it out")
    mask = (ctypes.c_ulong * (_MASK_BITS // (8 * ctypes.sizeof(ctypes.c_ulong))))()
    if node is not None:
        bits = 8 * ctypes.sizeof(ctypes.c_ulong)
        mask[node // bits] |= 1 << (node % bits)
    libc = ctypes.CDLL(None, use_errno=True)
    told = mask if node is not None else None  # an empty mask is refused
    if libc.syscall(ctypes.c_long(_SET_MEMPOLICY), ctypes.c_int(mode), told, ctypes.c_ulong(_MASK_BITS)) != 0:
        number = ctypes.get_errno()
        raise InvalidInput(
            f"cannot choose memory node {node}: {os.strerror(number)}; "
            "a container needs CAP_SYS_NICE for it, or leave --pool-numa-node out"
        )
