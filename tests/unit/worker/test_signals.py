import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from modelrepo_runtime.worker.signals import serve_until_signalled


class Obedient:
    """A worker that sends itself signals, and writes down what it hears."""

    def __init__(self, *numbers: signal.Signals) -> None:
        self.numbers, self.heard = numbers, list[str]()
        self.hurried = threading.Event()

    def start(self) -> None:
        for number in self.numbers:
            signal.raise_signal(number)

    def stop(self, *, reason: str) -> None:
        self.heard.append(f"stop {reason}")
        if len(self.numbers) > 1:
            assert self.hurried.wait(20)

    def hurry(self) -> None:
        self.hurried.set()

    def dump_stacks(self) -> None:
        self.heard.append("stacks")


def waits_for_signals() -> bool:
    """Tell whether the main thread sleeps in the call under test."""
    main = threading.main_thread()
    frame = sys._current_frames().get(main.ident or 0)
    if frame is None or frame.f_code.co_name != "serve_until_signalled":
        return False
    return Path(f"/proc/self/task/{main.native_id}/stat").read_text().rpartition(")")[2].split()[0] == "S"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_that_comes_while_a_worker_starts_ends_it(number: signal.Signals) -> None:
    worker, before = Obedient(number), signal.getsignal(number)
    serve_until_signalled(worker)
    assert worker.heard == [f"stop {number.name}"]
    assert signal.getsignal(number) == before


def test_a_signal_that_another_thread_is_given_ends_it_too() -> None:
    class Busy(Obedient):
        def start(self) -> None:
            threading.Thread(target=self.work).start()

        def work(self) -> None:
            end = time.monotonic() + 20
            while not waits_for_signals() and time.monotonic() < end:
                pass
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    worker = Busy()
    serve_until_signalled(worker)
    assert worker.heard == ["stop SIGTERM"]


def test_a_second_signal_hurries() -> None:
    worker = Obedient(signal.SIGUSR2, signal.SIGTERM, signal.SIGTERM)
    serve_until_signalled(worker)
    assert worker.hurried.is_set()
    assert worker.heard == ["stacks", "stop SIGTERM"]


def test_a_worker_that_cannot_stop_says_why() -> None:
    class Stuck(Obedient):
        def stop(self, *, reason: str) -> None:
            raise RuntimeError(f"stuck at {reason}")

    with pytest.raises(RuntimeError, match="stuck at SIGTERM"):
        serve_until_signalled(Stuck(signal.SIGTERM))
