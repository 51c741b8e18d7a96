"""From a file to a device through a few pinned buffers, on several streams at once.

Each lane is a thread with a stream and two buffers: while one is on its way to the device the other is filled. Where
there is no CUDA (or ROCm, which goes by the same name in torch) a lane copies through plain memory.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from typing import Any, Callable

BUFFER_BYTES = 16 << 20
LANES = max(1, min(4, os.cpu_count() or 1))
"""Four threads copy some 40 GB/s out of memory, which is what a bus of today takes; they pin 128 MiB."""

Fill = Callable[[Any], None]
"""Fills a buffer, a tensor of bytes of the length that is wanted."""
Piece = tuple[Fill, Any]
"""How a buffer is filled, and the bytes on the device that it is for."""


class Ring:
    """Moves pieces to one device; each is at most BUFFER_BYTES long."""

    def __init__(self, device: str, lanes: int = LANES, buffer_bytes: int = BUFFER_BYTES) -> None:
        import torch  # type: ignore[import-not-found,unused-ignore]

        self._device = torch.device(device)
        self._lanes, self.buffer_bytes = lanes, buffer_bytes
        self._make = _CudaLane if self._device.type == "cuda" else _PlainLane
        self._guard = threading.Lock()
        self._failure: BaseException | None = None

    def move(self, pieces: Iterator[Piece]) -> None:
        """Move all of them; when this returns, they are on the device. Raises what filling or copying raised."""
        threads = [
            threading.Thread(target=self._run, args=(self._make(self._device, self.buffer_bytes), pieces), daemon=True)
            for _ in range(self._lanes)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._failure is not None:
            raise self._failure

    def _run(self, lane: Any, pieces: Iterator[Piece]) -> None:
        try:
            while (piece := self._next(pieces)) is not None:
                lane.send(*piece)
            lane.finish()
        except BaseException as error:  # noqa: BLE001 - raised again where `move` was called
            self._failure = error

    def _next(self, pieces: Iterator[Piece]) -> Piece | None:
        with self._guard:
            return None if self._failure is not None else next(pieces, None)


def bytes_of(buffer: Any) -> memoryview:
    """Return the memory of a tensor of bytes on the host."""
    return memoryview((ctypes.c_ubyte * buffer.numel()).from_address(buffer.data_ptr())).cast("B")


class _CudaLane:
    def __init__(self, device: Any, buffer_bytes: int) -> None:
        import torch

        self._torch = torch
        self._stream = torch.cuda.Stream(device)
        # What was freed before on the caller's stream may still be in use there.
        self._stream.wait_stream(torch.cuda.current_stream(device))
        self._buffers = [torch.empty(buffer_bytes, dtype=torch.uint8, pin_memory=True) for _ in range(2)]
        self._sent: list[Any] = [None, None]
        self._turn = 0

    def send(self, fill: Fill, target: Any) -> None:
        turn, self._turn = self._turn, 1 - self._turn
        if self._sent[turn] is not None:
            self._sent[turn].synchronize()
        buffer = self._buffers[turn][: target.numel()]
        fill(buffer)
        with self._torch.cuda.stream(self._stream):
            target.copy_(buffer, non_blocking=True)
            self._sent[turn] = self._torch.cuda.Event()
            self._sent[turn].record(self._stream)

    def finish(self) -> None:
        self._stream.synchronize()


class _PlainLane:
    def __init__(self, device: Any, buffer_bytes: int) -> None:  # noqa: ARG002 - as a _CudaLane's
        import torch

        self._buffer = torch.empty(buffer_bytes, dtype=torch.uint8)

    def send(self, fill: Fill, target: Any) -> None:
        buffer = self._buffer[: target.numel()]
        fill(buffer)
        target.copy_(buffer)

    def finish(self) -> None:
        pass
