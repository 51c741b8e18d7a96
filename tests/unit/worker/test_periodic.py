import io
import threading

from modelrepo.errors import Unreachable
from modelrepo_runtime.worker.journal import Journal
from modelrepo_runtime.worker.periodic import Periodic


def test_whatever_goes_wrong_it_is_done_again() -> None:
    log, done = io.StringIO(), threading.Event()
    faults = [Unreachable("away"), ZeroDivisionError("ours")]

    def act() -> None:
        if faults:
            raise faults.pop(0)
        done.set()

    periodic = Periodic("upkeep", act, 0.001, Journal(log))
    periodic.start()
    assert done.wait(20)
    periodic.stop()
    periodic.stop()
    assert "queue-unreachable error=away" in log.getvalue()
    assert "fault where=upkeep" in log.getvalue()
