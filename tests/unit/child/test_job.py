"""The `job` object where threads of a model outlive their stage."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, cast

from modelrepo_runtime.child.frames import Channel, Message
from modelrepo_runtime.child.job import Job

LIMIT_S = 10


class SlowChannel:
    """A channel on which somebody reads for as long as the test wants."""

    ended = False

    def __init__(self) -> None:
        self.reading, self.go_on = threading.Event(), threading.Event()
        self.given_back: list[Message] = []

    def arrived(self) -> list[Message]:
        self.reading.set()
        assert self.go_on.wait(LIMIT_S)
        return [{"t": "run", "n": "next"}]

    def give_back(self, message: Message) -> None:
        self.given_back.append(message)


def test_a_thread_that_is_reading_has_given_back_the_next_job_before_its_own_is_over(tmp_path: Path) -> None:
    channel = SlowChannel()
    request: dict[str, Any] = {
        "n": "own",
        "job_id": "j",
        "attempt": 1,
        "inputs": {},
        "previous": None,
        "files": {},
        "adapters": [],
    }
    folders = {key: str(tmp_path) for key in ("output_dir", "handover_dir", "state_dir")}
    job = Job(cast(Channel, channel), {**request, **folders})
    left_behind = threading.Thread(target=lambda: job.cancelled)
    left_behind.start()
    assert channel.reading.wait(LIMIT_S)
    seen: list[list[Message]] = []

    def end() -> None:
        job._end()
        seen.append(list(channel.given_back))

    ending = threading.Thread(target=end)
    ending.start()
    channel.go_on.set()
    ending.join(LIMIT_S)
    left_behind.join(LIMIT_S)
    assert seen == [[{"t": "run", "n": "next"}]]
