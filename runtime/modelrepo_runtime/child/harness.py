"""The child's main loop: import, load, warm up, then one job after the other."""

from __future__ import annotations

import inspect
import sys
import time
from typing import Any

from . import entrypoint, failures, process
from .context import Context
from .frames import Channel, Message
from .job import Job
from .memory_peak import MemoryPeak


def main(argv: list[str]) -> int:
    """Run as `<python> -I -B <this folder> <descriptor> <pid of the supervisor>`."""
    channel = process.open_channel(int(argv[1]))
    process.die_with_parent(channel, int(argv[2]))
    start = channel.receive()
    if start is None:
        return 1
    sys.argv[:] = [start["entrypoint"]]
    output = process.Output()
    channel.send({"t": "up", "n": start["n"]})
    if start["mode"] == "shell":
        from .debugging import open_shell

        return open_shell(start)
    if start["post_mortem"]:
        from . import debugging  # noqa: F401 - before the model's own modules are on the path
    return process.leave(Harness(channel, start, output).serve())


class Harness:
    """One model's object and the conversation about it."""

    def __init__(self, channel: Channel, start: Message, output: process.Output) -> None:
        self._channel = channel
        self._output = output
        self._start = start
        self._context = Context(start)
        self._scratch = self._context.scratch
        self._model: Any = None

    def serve(self) -> int:
        """Answer the supervisor until it says stop or goes away."""
        if not self._get_ready():
            return 1
        while True:
            message = self._channel.receive()
            if message is None:
                return 1
            if message["t"] == "stop":
                return 0
            if message["t"] == "run":
                self._run(message)
            elif message["t"] == "reload":
                self._reload(message)

    def _get_ready(self) -> bool:
        nonce = self._start["n"]
        phase = "import"
        try:
            began = time.perf_counter()
            name, stages = self._start["entrypoint"], self._start["stages"]
            found = entrypoint.find(name, self._start["code_roots"])
            entrypoint.check_unmade(found, name, stages)
            self._tell(nonce, "imported", time.perf_counter() - began)
            if self._start["mode"] == "inspect":
                return True
            phase, began = "load", time.perf_counter()
            self._model = entrypoint.make(found, name, stages)
            self._model.load(self._context)
            self._tell(nonce, "loaded", time.perf_counter() - began)
            phase, began = "warmup", time.perf_counter()
            if hasattr(self._model, "warmup"):
                self._model.warmup(self._context)
            self._tell(nonce, "ready", time.perf_counter() - began, reloads=hasattr(self._model, "reload"))
        except BaseException as error:  # noqa: BLE001 - whatever a model raises is its failure to start
            self._after(error)
            self._channel.send({"t": "unfit", "n": nonce, "phase": phase, **failures.describe(error)})
            return False
        return True

    def _reload(self, request: Message) -> None:
        """Give the model another `ctx`. Where it raises, the supervisor gives it the old one in the same way."""
        began = time.perf_counter()
        context = Context(request["start"])
        try:
            self._model.reload(context)
        except BaseException as error:  # noqa: BLE001 - whatever a model raises is its failure to reload
            self._after(error)
            self._output.settle()
            self._channel.send({"t": "unfit", "n": request["n"], "phase": "reload", **failures.describe(error)})
            return
        self._start, self._context = request["start"], context
        self._tell(request["n"], "reloaded", time.perf_counter() - began)

    def _tell(self, nonce: str, what: str, seconds: float, **more: Any) -> None:
        self._output.settle()
        self._channel.send({"t": what, "n": nonce, "seconds": seconds, **more})

    def _run(self, request: Message) -> None:
        jobs = [Job(self._channel, each) for each in request.get("jobs", [request])]
        for job in jobs:
            job._batch = jobs
        answer: Message
        peak = MemoryPeak()
        try:
            if request["scratch"]:
                self._context.scratch = type(self._scratch)(request["scratch"])
            answer = {"t": "done", "n": request["n"]}
            if "jobs" in request:
                answer["results"] = self._call_together(jobs, request["stage"])
            else:
                answer["result"] = self._call(jobs[0], request["stage"])
        except BaseException as error:  # noqa: BLE001 - the job fails, the child goes on
            self._after(error)
            answer = {"t": "failed", "n": request["n"], **failures.describe(error)}
        finally:
            self._context.scratch = self._scratch
        for job in jobs:
            job._end()
        if len(jobs) == 1:  # of several, nobody could tell whose memory it was
            answer["memory"] = peak.taken()
        self._output.settle()
        self._channel.send(answer)

    def _call_together(self, jobs: list[Job], stage: str) -> list[Any]:
        what = f"stage {stage}"
        results = getattr(self._model, stage)(jobs)
        if self._context.rank:
            return [None] * len(jobs)
        if not isinstance(results, (list, tuple)) or len(results) != len(jobs):
            raise failures.UnusableResult(f"{what} takes a list of jobs and must return a list of the same length")
        return [failures.checked_result(result, what) for result in results]

    def _call(self, job: Job, stage: str) -> Any:
        if self._start["max_batch"].get(stage, 1) > 1:
            return self._call_together([job], stage)[0]
        method = getattr(self._model, stage)
        what = f"stage {stage}"
        result = method(job)
        if inspect.isgenerator(result):
            result = self._drain(job, result, what)
        return self._checked(result, what)

    def _drain(self, job: Job, generator: Any, what: str) -> Any:
        """Send on what a generator yields; what it returns is the stage's result."""
        while True:
            try:
                value = next(generator)
            except StopIteration as end:
                return end.value
            job._partial(self._checked(value, what))
            job.check()

    def _checked(self, value: Any, what: str) -> Any:
        """Refuse what is no result; of a group of ranks only the first one's counts."""
        return None if self._context.rank else failures.checked_result(value, what)

    def _after(self, error: BaseException) -> None:
        failures.print_traceback(error)
        if self._start["post_mortem"]:
            from .debugging import post_mortem

            post_mortem(error)
        error.__context__ = None
