"""The process that keeps saved states beyond the box: `python -m modelrepo_runtime.worker.flushing`.

It is neither the worker, whose threads and end it does not share, nor the child. What it was told before the worker
ended, it finishes: the lease is held until somebody takes it back, and until then the pointer may be moved.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from modelrepo.errors import InvalidInput, ModelRepoError, NoSpace, StaleFence, Unreachable
from modelrepo.stores.retrying import retrying
from modelrepo_runtime.child.state_file import TornState, read_about
from modelrepo_runtime.jobs import KeptState
from modelrepo_runtime.jobstore import JobStore
from modelrepo_runtime.queue.opening import is_gateway, open_queue
from modelrepo_runtime.queue.port import JobQueue
from modelrepo_runtime.worker.flush_messages import (
    Address,
    Became,
    FlushOrder,
    FlushReport,
    read_address,
    read_order,
    write_report,
)

THREADS = 4
"""States of different attempts that are under way at once."""
AGAIN_S = (0.1, 2.0)
"""The first pause before a store or queue that did not answer is asked again, and the longest."""
AFTER_THE_WORKER_S = 60.0
"""How long it goes on once the worker is gone; then leases have been taken back."""


class Superseded(Exception):
    """A newer state of the same attempt has come, or the file is written over already."""


class Flushing:
    """Takes orders, the newest of each attempt, and reports what became of them."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._reached: tuple[JobQueue, JobStore] | None = None
        self._reaching = threading.Lock()
        self._changed = threading.Condition()
        self._waiting: dict[tuple[str, int], FlushOrder] = {}
        self._busy: set[tuple[str, int]] = set()
        self._until: float | None = None
        self._writing = threading.Lock()
        for number in range(THREADS):
            threading.Thread(target=self._run, name=f"flush {number}", daemon=True).start()

    def take(self, order: FlushOrder) -> None:
        """Flush a state, once those under way leave a thread free; an older one that waits is not flushed any more."""
        with self._changed:
            old = self._waiting.get(order.attempt)
            self._waiting[order.attempt] = order
            self._changed.notify_all()
        if old is not None:
            self._report(old, Became.SUPERSEDED)

    def drain(self) -> None:
        """Finish what was taken, within the time that leases last."""
        with self._changed:
            self._until = time.monotonic() + AFTER_THE_WORKER_S
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._waiting and not self._busy, AFTER_THE_WORKER_S)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: any(one not in self._busy for one in self._waiting))
                attempt = next(one for one in self._waiting if one not in self._busy)
                order = self._waiting.pop(attempt)
                self._busy.add(attempt)
            try:
                self._flush(order)
            finally:
                with self._changed:
                    self._busy.discard(attempt)
                    self._changed.notify_all()

    def _flush(self, order: FlushOrder) -> None:
        began = time.monotonic()
        try:
            with _held(order) as path:
                self._keep(order, path)
        except Superseded:
            self._report(order, Became.SUPERSEDED)
        except StaleFence as error:
            self._report(order, Became.STALE, str(error))
        except (ModelRepoError, OSError) as error:
            self._report(order, Became.FAILED, str(error))
        except Exception as error:  # noqa: BLE001 - one state's fault must not keep the others from being flushed
            self._report(order, Became.FAILED, repr(error))
        else:
            self._report(order, Became.FLUSHED, took_s=time.monotonic() - began)

    def _keep(self, order: FlushOrder, path: Path) -> None:
        """Put the file into the store, then move the pointer; ask again as long as it takes."""
        # The job may end, and its files here go, at any moment: what is asked of them is asked before the copy.
        size, sha256 = path.stat().st_size, _sha256(path)
        kept: KeptState | None = None
        pause_s = AGAIN_S[0]
        while True:
            try:
                queue, files = self._reach()
                if kept is None:
                    key = files.put_state(order.job_id, order.created_at, order.fence, order.number, path)
                    kept = KeptState(order.number, order.fence.number, order.digest, key, size, sha256)
                queue.save_state(order.job_id, order.fence, kept)
                return
            except (Unreachable, NoSpace) as error:
                self._report(order, Became.TROUBLE, str(error))
                self._wait(order, pause_s)
                pause_s = min(2 * pause_s, AGAIN_S[1])
            except StaleFence:
                if kept is not None:
                    with suppress(ModelRepoError, OSError):  # the queue has it deleted where we may not
                        self._reach()[1].delete(kept.key)
                raise

    def _wait(self, order: FlushOrder, pause_s: float) -> None:
        with self._changed:
            if self._changed.wait_for(lambda: order.attempt in self._waiting, pause_s):
                raise Superseded
            if self._until is not None and time.monotonic() >= self._until:
                raise Superseded

    def _reach(self) -> tuple[JobQueue, JobStore]:
        with self._reaching:
            if self._reached is None:
                self._reached = reach(self._address)
            return self._reached

    def _report(self, order: FlushOrder, became: Became, why: str = "", took_s: float = 0.0) -> None:
        report = FlushReport(*order.attempt, order.number, became, " ".join(why.split()), took_s)
        with self._writing, suppress(OSError, ValueError):  # the worker may be gone
            sys.stdout.buffer.write(write_report(report))
            sys.stdout.buffer.flush()


def reach(address: Address) -> tuple[JobQueue, JobStore]:
    """Open the queue and the job store. Raises: Unreachable."""
    if is_gateway(address.queue):
        from modelrepo_runtime.queue.http.queue import HttpQueue
        from modelrepo_runtime.remote.file_store import FileStore
        from modelrepo_runtime.remote.talk import Talk

        talk = Talk(address.queue, address.token)
        files = JobStore(address.files) if address.files else JobStore(address.queue, store=retrying(FileStore(talk)))
        return HttpQueue(talk).as_queue, files
    if address.files is None:
        raise InvalidInput(f"no place is named for the files of jobs of {address.queue}")
    return open_queue(address.queue), JobStore(address.files)


@contextmanager
def _held(order: FlushOrder) -> Iterator[Path]:
    """Hold a state under a name of our own: the child may rename its file, but not write it over while we read.

    Raises: Superseded where it has done so.
    """
    own = order.path.with_name(f".{order.number}.flushed-{os.getpid()}")
    try:
        own.unlink(missing_ok=True)
        os.link(order.path, own)
    except OSError:
        raise Superseded from None
    try:
        with own.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                about = read_about(own)
            except (OSError, TornState):
                raise Superseded from None
            if about.get("number") != order.number:
                raise Superseded
            yield own
    finally:
        own.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> int:
    """Read the address, then orders, until the worker is gone."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # they tell the worker to leave; we leave with it, or a little later
    first = sys.stdin.buffer.readline()
    if not first:
        return 1
    flushing = Flushing(read_address(first))
    for line in iter(sys.stdin.buffer.readline, b""):
        flushing.take(read_order(line))
    flushing.drain()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
