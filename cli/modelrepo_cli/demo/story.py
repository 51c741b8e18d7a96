"""The demo's acts, in order: publish, serve under load, swap, roll back, kill, count."""

from __future__ import annotations

import shutil
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from modelrepo.errors import ModelRepoError
from modelrepo.pushing.push_options import PushOptions
from modelrepo_cli.demo import contrast, downloads, kept_lock
from modelrepo_cli.demo.accounts import SUCCEEDED, Accounts, count
from modelrepo_cli.demo.examples import assemble
from modelrepo_cli.demo.load import Load
from modelrepo_cli.demo.scenario import Scenario
from modelrepo_cli.demo.stage import Stage, set_up
from modelrepo_cli.demo.telling import Tell
from modelrepo_cli.demo.watching import Watch
from modelrepo_cli.demo.worker_process import WorkerProcess
from modelrepo_cli.output import size, span
from modelrepo_runtime.checking import import_entrypoint
from modelrepo_runtime.jobs import Job, Status

REPORT_S = 60.0
BUILD_S = 1800.0  # for the first environment of a box, over a slow line
SWAP_S = 180.0
JOB_S = 180.0
JOBS_BETWEEN = 8  # of each version before the next act, so that it is seen at work
KILLED_FROM, KILLED_TO = 0.1, 0.7  # progress of the long job at which its worker is killed
TRIES_TO_KILL = 3


@dataclass(frozen=True, slots=True)
class Killed:
    """A job whose worker was killed, and when (on the monotonic clock)."""

    job_id: str
    at: float


@dataclass(frozen=True, slots=True)
class Recovery:
    """How that job ended, how long after the kill, and on which slot."""

    job: Job
    after_s: float
    slot: str


@dataclass(frozen=True, slots=True)
class Ending:
    """What the demo can say at its end."""

    accounts: Accounts
    rolled_back: bool
    recovery: Recovery
    picture: Path | None
    folder: Path
    seconds: float


def play(scenario: Scenario, folder: Path, cache: Path, tell: Tell) -> Ending:
    """Run the whole demo in a new folder below `folder`; whatever it starts has ended when this returns or raises."""
    began = time.monotonic()
    with ExitStack() as stack:
        stage = stack.enter_context(set_up(scenario, folder, cache, tell))
        publish(stage)
        worker = stack.enter_context(start_worker(stage, "worker-1", BUILD_S))
        load = stack.enter_context(start_load(stage))
        watch = watching(stage, worker, load)
        first = act(stage, watch, "v1")
        change(stage, watch, worker)
        second = act(stage, watch, "v2")
        rolled_back = roll_back(stage, watch, worker)
        watch.succeeded_by("v1", JOBS_BETWEEN, JOB_S)
        killed = kill(stage, watch, worker)
        heir = stack.enter_context(start_worker(stage, "worker-2", SWAP_S))
        watch = watching(stage, heir, load)
        recovery = recover(stage, watch, killed)
        load.stop()
        tell(f"no more jobs are submitted; the last of {len(stage.submitted)} are awaited")
        watch.all_ended(stage.submitted, JOB_S)
        picture = draw(stage, first, second)
        accounts = take_stock(stage)
        heir.stop()
    return Ending(accounts, rolled_back, recovery, picture, stage.folder, time.monotonic() - began)


def publish(stage: Stage) -> None:
    """Push both versions and promote the first."""
    scenario, tell = stage.scenario, stage.tell
    tell(f"a new repository in {stage.folder / 'repository'}")
    folders = {
        version: assemble(scenario.example, stage.folder / f"{stage.model}-{version}", earlier=version == "v1")
        for version in ("v1", "v2")
    }
    kept_lock.restore(folders["v1"], stage.kept_locks, stage.index)
    needed = downloads.needs(folders["v1"], stage.index, stage.place.cache)
    kept_lock.keep(folders["v1"], stage.kept_locks, stage.index)
    for line in downloads.describe(needed):
        tell(line)
    if needed.packages:
        tell("the first push builds the environment, where this box has none, and imports the model in it")
    # One lock for both: they differ in their checkpoints alone.
    shutil.copyfile(folders["v1"] / "uv.lock", folders["v2"] / "uv.lock")
    for version, why in (("v1", scenario.why_v1), ("v2", scenario.why_v2)):
        options = PushOptions(version=version, message=why, lock=True, index=stage.index, cache=stage.place.cache)
        pushed = stage.repository.push(folders[version], options, check=import_entrypoint)
        tell(
            f"pushed {stage.model}@{version} ({why}): {pushed.files} files, "
            f"{size(pushed.new_bytes)} sent, {size(pushed.reused_bytes)} were there already"
        )
    stage.repository.promotions.promote(stage.model, "v1", reason="the first version")
    tell(f"promoted {stage.model}@v1")


def start_worker(stage: Stage, name: str, timeout_s: float) -> WorkerProcess:
    """Start a worker and wait until it serves v1."""
    worker = WorkerProcess(name, stage.place)
    try:
        stage.tell(f"started {name}, process {worker.pid}")
        watch = Watch(stage.queue, stage.model, stage.tell, worker.check)
        watch.until(lambda: watch.slots(name) or None, f"{name} to report to the queue", REPORT_S)
        watch.serving(name, "v1", timeout_s)
    except BaseException:
        worker.stop()
        raise
    return worker


def start_load(stage: Stage) -> Load:
    """Let a user of each tier submit jobs at its own pace."""

    def submit(tier: str, number: int) -> None:
        stage.submit(stage.scenario.short_job(number), tier)

    paces = ", ".join(f"{tier} every {pause_s:g} s" for tier, pause_s in stage.scenario.between_jobs_s.items())
    stage.tell(f"five users submit jobs: {paces}")
    return Load(submit, stage.scenario.between_jobs_s)


def watching(stage: Stage, worker: WorkerProcess, load: Load) -> Watch:
    """Watch the queue as long as the worker and the users are well."""

    def alive() -> None:
        worker.check()
        load.check()

    return Watch(stage.queue, stage.model, stage.tell, alive)


def act(stage: Stage, watch: Watch, version: str) -> Job | None:
    """See a version at work, and have it draw where it can."""
    shown = None
    if stage.scenario.shown_job is not None:
        shown = stage.submit(stage.scenario.shown_job, "enterprise")
    watch.succeeded_by(version, JOBS_BETWEEN, JOB_S)
    stage.tell(f"{version} has done {watch.versions()[version]} jobs")
    return None if shown is None else watch.ended(shown, JOB_S)


def change(stage: Stage, watch: Watch, worker: WorkerProcess) -> None:
    """Promote v2 while jobs run, and watch the worker swap."""
    stage.repository.promotions.promote(stage.model, "v2", reason=stage.scenario.why_v2)
    promoted = time.monotonic()
    stage.tell("promoted v2; jobs keep coming")
    watch.serving(worker.name, "v2", SWAP_S)
    stage.tell(f"v2 serves {span(time.monotonic() - promoted)} after its promotion, in the same worker process")


def roll_back(stage: Stage, watch: Watch, worker: WorkerProcess) -> bool:
    """Roll back to v1; say whether it is what the repository and the worker have then."""
    entry = stage.repository.promotions.rollback(stage.model, reason="to show how")
    began = time.monotonic()
    stage.tell(f"rolled back to {entry.version}; v2 is blocked")
    watch.serving(worker.name, "v1", SWAP_S)
    stage.tell(f"v1 serves again {span(time.monotonic() - began)} later")
    return stage.repository.promotions.state(stage.model).version == entry.version == "v1"


def kill(stage: Stage, watch: Watch, worker: WorkerProcess) -> Killed:
    """SIGKILL the worker in the middle of a long job."""
    for _ in range(TRIES_TO_KILL):
        victim = stage.submit(stage.scenario.long_job, "api")
        stage.tell(f"submitted a long job, {victim}")

        def far_enough(job_id: str = victim) -> Job | None:
            job = stage.queue.get(job_id)
            return job if job.status.ended or (job.progress or 0.0) >= KILLED_FROM else None

        seen = watch.until(far_enough, f"{victim} to get under way", JOB_S)
        progress = seen.progress or 0.0
        if seen.status is Status.RUNNING and progress <= KILLED_TO:
            worker.kill()
            stage.tell(f"killed {worker.name} (SIGKILL) with the long job at {progress:.0%}")
            if not stage.queue.get(victim).status.ended:
                return Killed(victim, time.monotonic())
            raise ModelRepoError(f"job {victim} ended in the moment of the kill; run the demo again")
        watch.ended(victim, JOB_S)
    raise ModelRepoError(
        f"the long job was done too fast to kill its worker, {TRIES_TO_KILL} times; run the demo again"
    )


def recover(stage: Stage, watch: Watch, killed: Killed) -> Recovery:
    """See the killed worker's job end on another one."""
    ended = watch.ended(killed.job_id, JOB_S)
    after_s = time.monotonic() - killed.at
    rows = stage.queue.history(killed.job_id)
    slot = next((row.slot for row in reversed(rows) if row.cause == SUCCEEDED and row.slot), "-")
    stage.tell(f"the long job {ended.status} on {slot}, {span(after_s)} after the kill")
    return Recovery(ended, after_s, slot)


def draw(stage: Stage, first: Job | None, second: Job | None) -> Path | None:
    """Put the pictures that both versions made side by side."""
    if first is None or second is None:
        return None
    name = stage.scenario.shown_output
    pictures = {str(job.version): stage.output(job, name) for job in (first, second)}
    path = stage.folder / f"{stage.model}-v1-v2.png"
    path.write_bytes(contrast.side_by_side(pictures))
    return path


def take_stock(stage: Stage) -> Accounts:
    """Count from the queue's own records what became of every job."""
    jobs = {job_id: stage.queue.get(job_id) for job_id in stage.submitted}
    stages = [one.name for one in stage.spec.stages]
    waited_for = next((one.name for one in stage.spec.stages if one.on == "gpu"), stages[0])
    return count(stage.submitted, jobs, stage.queue.history(), stage.queue.tiers(), stages, waited_for)
