"""A gateway as a process of its own, on times of a test's choice. Run as a script with one argument, a JSON object."""

from __future__ import annotations

import json
import signal
import sys
import threading
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class GatewayPlan:
    """What a light gateway is told."""

    queue: str
    folder: str
    """For a repository and job files, both empty."""
    port: int
    time_scale: float = 1.0

    def text(self) -> str:
        return json.dumps(asdict(self))


def main(plan: GatewayPlan) -> None:
    from modelrepo.repository import Repository
    from modelrepo_runtime.jobstore import JobStore
    from modelrepo_runtime.queue.opening import open_queue
    from modelrepo_runtime.testing.http_gateway import Serving
    from modelrepo_runtime.timing import Timing

    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    timing = Timing().scaled(plan.time_scale)
    repository = Repository.open(f"file://{plan.folder}/repository")
    files = JobStore(f"file://{plan.folder}/files")
    with Serving(open_queue(plan.queue, timing), repository, files, timing, port=plan.port):
        print("serving", flush=True)
        stop.wait()


if __name__ == "__main__":
    main(GatewayPlan(**json.loads(sys.argv[1])))
