"""Which exceptions mean that memory ran out."""

from __future__ import annotations

import errno
import sys
from types import SimpleNamespace

import pytest

from modelrepo_runtime.child.failures import describe
from modelrepo_runtime.child.out_of_memory import ACCELERATOR, HOST, device_figures, lacked


class OutOfMemoryError(RuntimeError):
    """As torch's, on CUDA and on ROCm, and cupy's are called."""


class Derived(OutOfMemoryError):
    pass


class AcceleratorError(RuntimeError):
    """As torch's of drivers."""


class _ArrayMemoryError(MemoryError):
    """As numpy's."""


class Unprintable(RuntimeError):
    def __str__(self) -> str:
        raise ValueError("no")


CUDA = "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 15.89 GiB"
ALLOCATOR = "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to .."


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (OutOfMemoryError(CUDA), ACCELERATOR),
        (OutOfMemoryError("HIP out of memory. Tried to allocate 2.00 GiB"), ACCELERATOR),
        (Derived("anything"), ACCELERATOR),
        (RuntimeError(CUDA), ACCELERATOR),
        (RuntimeError("HIP out of memory. Tried to allocate 2.00 GiB"), ACCELERATOR),
        (AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be reported later"), ACCELERATOR),
        (RuntimeError("HIP error: out of memory"), ACCELERATOR),
        (RuntimeError("XPU out of memory. Tried to allocate 1 GiB"), ACCELERATOR),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), ACCELERATOR),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), ACCELERATOR),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), ACCELERATOR),
        (RuntimeError("hipErrorOutOfMemory"), ACCELERATOR),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8 bytes"), ACCELERATOR),
        (MemoryError(), HOST),
        (_ArrayMemoryError("Unable to allocate 8.00 EiB"), HOST),
        (RuntimeError(ALLOCATOR), HOST),
        (RuntimeError("std::bad_alloc"), HOST),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), HOST),
        (OSError(errno.ENOSPC, "No space left on device"), None),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), None),
        (ValueError("the prompt says: CUDA out of memory"), None),
        (KeyError("OutOfMemoryError"), None),
        (Unprintable(), None),
    ],
    ids=lambda value: repr(value)[:60] if isinstance(value, BaseException) and type(value) is not Unprintable else None,
)
def test_memory_that_ran_out_is_told_by_classes_and_words(error: BaseException, memory: str | None) -> None:
    assert lacked(error) == memory


def test_what_is_raised_from_it_counts_as_that_and_what_follows_it_does_not() -> None:
    wrapped = RuntimeError("step 3 failed")
    wrapped.__cause__ = ValueError("inner")
    wrapped.__cause__.__cause__ = OutOfMemoryError(CUDA)
    assert lacked(wrapped) == ACCELERATOR
    after = RuntimeError("the smaller batch is wrong as well")
    after.__context__ = OutOfMemoryError(CUDA)
    assert lacked(after) is None
    circle = RuntimeError("around")
    circle.__cause__ = circle
    assert lacked(circle) is None


def test_the_message_says_which_memory_and_nothing_else_does() -> None:
    assert describe(MemoryError("no"))["lacked"] == HOST
    assert (
        describe(OutOfMemoryError(CUDA)).items()
        >= {
            "kind": "out_of_memory",
            "code": "OutOfMemoryError",
            "message": CUDA,
            "lacked": ACCELERATOR,
        }.items()
    )
    assert "lacked" not in describe(ValueError("no"))


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    cuda = SimpleNamespace(
        is_initialized=lambda: True, mem_get_info=lambda: (3 << 20, 40 << 30), memory_allocated=lambda: 39 << 30
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    return cuda


def test_figures_of_the_device_are_added_where_the_message_has_none(torch: SimpleNamespace) -> None:
    figures = "3 MiB of 40960 MiB are free on the device, 39936 MiB are this process's"
    assert device_figures("CUDA error: out of memory") == figures
    assert device_figures(CUDA) == ""
    told = describe(AcceleratorError("CUDA error: out of memory"))["message"]
    assert told == f"CUDA error: out of memory; {figures}"


def test_a_device_that_has_failed_spoils_no_message(torch: SimpleNamespace) -> None:
    def failing() -> tuple[int, int]:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    torch.mem_get_info = failing
    assert describe(AcceleratorError("CUDA error: out of memory"))["message"] == "CUDA error: out of memory"
    torch.is_initialized = lambda: False
    assert device_figures("CUDA error: out of memory") == ""
