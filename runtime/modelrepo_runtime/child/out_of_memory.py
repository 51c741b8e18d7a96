"""Whether an exception says that memory ran out, and which.

Classes are told by their names and words: this process may never have imported torch.
"""

from __future__ import annotations

import errno
import re
import sys
from typing import Any

HOST, ACCELERATOR = "host", "accelerator"

_CLASSES = {"MemoryError": HOST, "OutOfMemoryError": ACCELERATOR}
"""Of torch, on every kind of device, and of cupy; MemoryError is Python's and numpy's."""

_ACCELERATOR_WORDS = re.compile(
    r"\b(cuda|hip|xpu|npu|mps backend)( runtime)?( error:?)? ?:? out of memory"
    r"|cudaerrormemoryallocation|cuda_error_out_of_memory|hiperroroutofmemory"
    r"|(cublas|cusolver|cusparse|cudnn|cufft|hipblas|hipsolver|hipsparse)_(status_)?alloc(ation)?_failed"
    r"|rocblas_status_memory_error|miopenstatusallocfailed|resource_exhausted: (cuda )?out of memory"
)
_HOST_WORDS = re.compile(
    r"defaultcpuallocator: (can't allocate|not enough) memory|std::bad_alloc|cannot allocate memory"
)
"""What libraries under Python raise as a RuntimeError: torch for old drivers and for libraries that it calls."""

_SIZE = re.compile(r"\d ?[KMGT]i?B\b")
_LONGEST_CHAIN = 16


def lacked(error: BaseException) -> str | None:
    """Return which memory ran out, HOST or ACCELERATOR; None where it is another failure.

    What a model raises `from` such an exception counts as that, and what it raises after it has caught one does not.
    """
    known: BaseException | None = error
    for _ in range(_LONGEST_CHAIN):
        if known is None:
            return None
        found = _lacked(known)
        if found is not None:
            return found
        known = known.__cause__
    return None


def device_figures(text: str) -> str:
    """Return the figures of torch's current device where `text` has none; empty where nobody can tell."""
    if _SIZE.search(text):
        return ""
    try:
        cuda = getattr(sys.modules.get("torch"), "cuda", None)
        if cuda is None or not cuda.is_initialized():
            return ""
        free, total = cuda.mem_get_info()
        ours = cuda.memory_allocated()
        return f"{_mib(free)} of {_mib(total)} are free on the device, {_mib(ours)} are this process's"
    except Exception:  # noqa: BLE001 - a device that has failed answers nothing, and the failure is told anyway
        return ""


def _lacked(error: BaseException) -> str | None:
    for cls in type(error).__mro__:
        if cls.__name__ in _CLASSES:
            return _CLASSES[cls.__name__]
    if isinstance(error, OSError):
        return HOST if error.errno == errno.ENOMEM else None
    if not isinstance(error, RuntimeError):
        return None
    text = _text(error).lower()
    if _ACCELERATOR_WORDS.search(text):
        return ACCELERATOR
    return HOST if _HOST_WORDS.search(text) else None


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - a model's exception may fail to print itself
        return ""


def _mib(size_bytes: Any) -> str:
    return f"{int(size_bytes) >> 20} MiB"
