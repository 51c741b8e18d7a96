"""A real worker, its real children and a real queue: what an operator and a user see of them."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modelrepo.errors import AlreadyServed, ModelNotFound
from modelrepo_runtime.queue.port import SlotReport
from modelrepo_runtime.testing.live import LiveBox, LiveWorker
from modelrepo_runtime.timing import Timing
from modelrepo_runtime.worker.daemon import Worker
from modelrepo_runtime.worker.settings import load_settings

PLAIN = """
class Model:
    def load(self, ctx):
        self.ctx = ctx

    def run(self, job):
        return {"version": self.ctx.version}
"""

SLOW = """
import time

class Model:
    def load(self, ctx):
        pass

    def run(self, job):
        job.progress(0.1, "began")
        while not (job.inputs.get("until") and __import__("os").path.exists(job.inputs["until"])):
            job.check()
            time.sleep(0.01)
        return "done"
"""


def only(box: LiveBox) -> SlotReport:
    ((_, slot),) = box.slots()
    return slot


def served(box: LiveBox, code: str = PLAIN, *, yaml: str = "", slots_served: int = 1, **options: Any) -> LiveWorker:
    """Push and promote a version, and wait until a worker serves it."""
    version = box.push(code, yaml=yaml)
    box.promote(version)
    worker = box.worker(**options)
    box.serves(version, slots=slots_served)
    return worker


def refuses(box: LiveBox) -> None:
    box.until(lambda: [slot.state for _, slot in box.slots()] == ["refused"], "the slot refuses")


def finished(box: LiveBox, job: str) -> dict[str, object]:
    return dict(box.client.wait(job, 60))


def began(box: LiveBox, job: str) -> None:
    box.until(lambda: box.queue.get(job).message == "began", "the job has begun")


FILES = """
class Model:
    def load(self, ctx):
        self.text = open(ctx.checkpoint("greeting")).read()

    def prepare(self, job):
        print("preparing", job.id)
        with open(job.handover("upper"), "w") as file:
            file.write(open(job.file("name")).read().upper())
        return {"length": 3}

    def greet(self, job):
        print("greeting", job.previous)
        name = open(job.handover("upper")).read()
        with open(job.output("card"), "w") as file:
            file.write(self.text + " " + name)
        return {"previous": job.previous, "attempt": job.attempt}
"""
FILES_YAML = """\
checkpoints: {greeting: greeting.txt}
inputs: {name: {type: string, format: file}}
outputs: {card: {format: file, contentType: text/x-card}}
stages: [{name: prepare, on: cpu}, {name: greet, on: gpu}]
"""


def test_files_go_through_all_stages_of_a_job(tmp_path: Path) -> None:
    with LiveBox(tmp_path) as box:
        (tmp_path / "source-live").mkdir()
        (tmp_path / "source-live" / "greeting.txt").write_text("hello")
        (tmp_path / "name.txt").write_text("ada")
        worker = served(box, FILES, yaml=FILES_YAML)
        job = box.client.submit("live", {"name": tmp_path / "name.txt"})["id"]
        done = finished(box, job)
        assert done["result"] == {"previous": {"length": 3}, "attempt": 1}
        (card,) = box.queue.get(job).outputs
        assert (card.name, card.content_type, card.size_bytes) == ("card", "text/x-card", 9)
        assert box.client.files.read(card.key) == b"hello ADA"
        assert "greeting {'length': 3}" in box.client.log(job)
        handed = worker.cache / "worker" / "handovers" / job
        box.until(lambda: not handed.exists(), "what was handed over is gone")
        assert not list((worker.cache / "worker" / "slots").rglob("job.log"))


RESUMING = """
import os

class Model:
    def load(self, ctx):
        pass

    def run(self, job):
        done = (job.state or {"steps": 0})["steps"]
        if done == 0:
            job.save_state({"steps": 7})
            os.abort()
        return {"resumed_at": done, "attempt": job.attempt}
"""


def test_a_later_attempt_goes_on_from_what_a_crashed_one_has_saved(tmp_path: Path) -> None:
    with LiveBox(tmp_path, replace(Timing.embedded(), retry_delays_s=(0.05,))) as box:
        served(box, RESUMING)
        job = box.client.submit("live")["id"]
        assert finished(box, job)["result"] == {"resumed_at": 7, "attempt": 2}
        kept = tmp_path / "cache-w" / "worker" / "handovers" / job
        box.until(lambda: not kept.exists(), "what was saved is gone with the job")


def test_a_rejection_reaches_the_user_and_nobody_else_is_blamed(tmp_path: Path) -> None:
    code = PLAIN.replace('return {"version": self.ctx.version}', 'job.reject("too_dark", "the picture is too dark")')
    with LiveBox(tmp_path) as box:
        served(box, code)
        done = finished(box, box.client.submit("live")["id"])
        assert done["status"] == "rejected"
        assert done["error"] == {"code": "too_dark", "message": "the picture is too dark", "retryable": False}
        assert only(box).state == "open"


def test_a_changed_setting_starts_another_child_of_the_same_version(tmp_path: Path) -> None:
    code = PLAIN.replace("self.ctx.version", 'self.ctx.config["mark"]')
    with LiveBox(tmp_path) as box:
        served(box, code, yaml="config: {mark: a}\n")
        assert finished(box, box.client.submit("live")["id"])["result"] == {"version": "a"}
        generation = box.promote("v1", config_set={"mark": "b"})
        box.serves("v1", slots=1, generation=generation)
        assert finished(box, box.client.submit("live")["id"])["result"] == {"version": "b"}


def test_what_a_box_lacks_is_refused_before_a_byte_is_fetched(tmp_path: Path) -> None:
    with LiveBox(tmp_path) as box:
        worker = served(box)
        box.promote(box.push(PLAIN, yaml="host: {commands: {no-such-command: '>=6'}}\n"))
        refuses(box)
        report = only(box)
        assert "no-such-command" in str(report.reason)
        assert str(report.next_action).startswith("install what is missing on this box; ")
        assert report.version == "v1"
        assert len(list((worker.cache / "versions").iterdir())) == 1
        assert finished(box, box.client.submit("live")["id"])["result"] == {"version": "v1"}


def test_a_secret_comes_from_the_box_and_shows_nowhere(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    code = PLAIN.replace("self.ctx.version", 'len(self.ctx.secrets["TOKEN"])')
    with LiveBox(tmp_path, replace(Timing.embedded(), cordon_first_s=0.5)) as box:
        version = box.push(code, yaml="secrets: [TOKEN]\n")
        box.promote(version)
        worker = box.worker(secrets_dir=str(secrets))
        refuses(box)
        assert "TOKEN" in str(only(box).reason)
        (secrets / "TOKEN").write_text("hunter2-hunter2\n")
        box.serves(version, slots=1)
        assert finished(box, box.client.submit("live")["id"])["result"] == {"version": 15}
        written = [path for path in tmp_path.rglob("*") if path.is_file() and path.parent != secrets]
        assert not [path for path in written if b"hunter2" in path.read_bytes()]
        assert "hunter2" not in worker.text()


def test_a_refused_version_that_is_promoted_again_is_tried_at_once(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    with LiveBox(tmp_path) as box:  # the worker's own next try is a minute away
        version = box.push(PLAIN, yaml="secrets: [TOKEN]\n")
        box.promote(version)
        box.worker(secrets_dir=str(secrets))
        refuses(box)
        assert str(only(box).next_action).endswith(
            f"once that is mended, `modelrepo promote live@{version} --retry` has it tried at once"
        )
        (secrets / "TOKEN").write_text("hunter2\n")
        box.promote(version, retry=True)
        box.serves(version, slots=1, generation=2)


def test_a_cache_that_is_removed_under_a_worker_is_filled_again(tmp_path: Path) -> None:
    with LiveBox(tmp_path) as box:
        worker = served(box)
        for folder in worker.cache.iterdir():
            if folder.name != "worker":
                shutil.rmtree(folder)
        (pid,) = worker.children()
        os.kill(pid, signal.SIGKILL)
        box.until(lambda: worker.children() not in ([], [pid]), "another child is there")
        assert finished(box, box.client.submit("live")["id"])["result"] == {"version": "v1"}


def test_a_version_that_does_not_load_says_why_and_the_old_serves_on(tmp_path: Path) -> None:
    broken = PLAIN.replace("self.ctx = ctx", 'raise ValueError("layer 7 has the wrong shape")')
    with LiveBox(tmp_path) as box:
        served(box)
        box.promote(box.push(broken))
        refuses(box)
        assert "layer 7 has the wrong shape" in str(only(box).reason)
        assert finished(box, box.client.submit("live")["id"])["result"] == {"version": "v1"}
        box.repository.promotions.rollback("live")
        box.until(lambda: only(box).state == "open", "the slot is open again")


def test_a_drain_that_fails_brings_the_old_back(tmp_path: Path) -> None:
    broken = PLAIN.replace("self.ctx = ctx", 'raise ValueError("no")')
    with LiveBox(tmp_path) as box:
        worker = served(box)
        box.promote(box.push(broken, yaml="swap: drain\n"))
        box.until(lambda: only(box).state == "refused" and only(box).version == "v1", "the old is back")
        assert finished(box, box.client.submit("live")["id"])["result"] == {"version": "v1"}
        assert "old-comes-back" in worker.text()


def test_a_hand_edit_to_a_version_that_does_not_exist_changes_nothing(tmp_path: Path) -> None:
    with LiveBox(tmp_path) as box:
        served(box)
        active = tmp_path / "repo" / "models" / "live" / "active.yaml"
        active.write_text("version: v9\n")
        refuses(box)
        assert "v9" in str(only(box).reason)
        assert only(box).version == "v1"
        active.write_text("version: [\n")
        assert finished(box, box.client.submit("live", version="v1")["id"])["result"] == {"version": "v1"}


@pytest.mark.parametrize("edit", ["version: v99\n", "{{{ no YAML"])
def test_a_worker_that_starts_beside_such_an_edit_serves_what_was_live_before(tmp_path: Path, edit: str) -> None:
    with LiveBox(tmp_path) as box:
        box.promote(box.push(PLAIN))
        (tmp_path / "repo" / "models" / "live" / "active.yaml").write_text(edit)
        box.worker()
        job = finished(box, box.client.submit("live", {})["id"])
        assert job["result"] == {"version": "v1"}
        if "v99" in edit:
            refuses(box)
            assert "v99" in str(only(box).reason)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1], ids=lambda number: number.name)
def test_a_worker_that_is_told_to_leave_finishes_what_runs(tmp_path: Path, number: signal.Signals) -> None:
    with LiveBox(tmp_path) as box:
        worker = served(box, SLOW)
        job = box.client.submit("live", {"until": str(tmp_path / "go")})["id"]
        began(box, job)
        other = box.client.submit("live")["id"]
        worker.send(number)
        box.until(lambda: "worker-leaves" in worker.text(), "the worker is leaving")
        (tmp_path / "go").touch()
        assert worker.wait() == 0
        assert box.client.get(job)["status"] == "succeeded"
        assert box.client.get(other)["status"] == "queued"
        assert not box.queue.fleet()


@pytest.mark.parametrize("impatience", ["grace", "second signal"])
def test_what_does_not_finish_in_the_grace_is_handed_back(tmp_path: Path, impatience: str) -> None:
    with LiveBox(tmp_path) as box:
        worker = served(box, SLOW, grace=0.3 if impatience == "grace" else 60)
        job = box.client.submit("live", {"until": str(tmp_path / "go")})["id"]
        began(box, job)
        children = worker.children()
        worker.send(signal.SIGTERM)
        if impatience == "second signal":
            box.until(lambda: "worker-leaves" in worker.text(), "the worker is leaving")
            worker.send(signal.SIGTERM)
        assert worker.wait() == 0
        assert box.client.get(job)["status"] == "queued"
        assert [(row.cause, row.counted) for row in box.queue.history(job) if row.event == "attempt"] == [
            ("preempted", False)
        ]
        assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]
        (tmp_path / "go").touch()
        box.again(worker)
        assert finished(box, job)["status"] == "succeeded"


def test_stacks_come_into_the_job_log_on_demand(tmp_path: Path) -> None:
    with LiveBox(tmp_path) as box:
        worker = served(box, SLOW)
        job = box.client.submit("live", {"until": str(tmp_path / "go")})["id"]
        began(box, job)
        worker.send(signal.SIGUSR2)

        def written() -> bool:
            logs = (worker.cache / "worker" / "slots").rglob("job.log")
            return any("in run" in log.read_text() for log in logs)

        box.until(written, "the stacks are in the log")
        (tmp_path / "go").touch()
        assert finished(box, job)["status"] == "succeeded"
        assert "in run" in box.client.log(job)


def test_a_running_job_can_be_cancelled(tmp_path: Path) -> None:
    with LiveBox(tmp_path) as box:
        served(box, SLOW)
        job = box.client.submit("live")["id"]
        began(box, job)
        box.client.cancel(job)
        assert finished(box, job)["status"] == "cancelled"
        assert only(box).state == "open"


def test_a_rollback_at_once_ends_what_runs_uncounted(tmp_path: Path) -> None:
    with LiveBox(tmp_path) as box:
        served(box)
        version = box.push(SLOW)
        box.serves(version, slots=1, generation=box.promote(version))
        job = box.client.submit("live")["id"]
        began(box, job)
        box.repository.promotions.rollback("live", now=True)
        done = finished(box, job)
        assert (done["status"], done["result"]) == ("succeeded", {"version": "v1"})
        causes = [(row.cause, row.counted) for row in box.queue.history(job) if row.event == "attempt"]
        assert causes == [("preempted", False), ("succeeded", True)]


def test_slots_are_shared_among_models_and_late_ones_get_what_is_left(tmp_path: Path) -> None:
    with LiveBox(tmp_path) as box:
        box.promote(box.push(PLAIN))
        worker = box.worker(cpu_slots=1)
        box.serves("v1", slots=1)
        box.promote(box.push(PLAIN, model="other"), model="other")
        assert worker.stop() == 0
        box.workers.clear()
        worker = box.worker("wide", cpu_slots=3, models="live")
        box.until(
            lambda: [slot.model for _, slot in box.slots("wide")] == ["live"] * 3, "all serve the one that is named"
        )
        worker.stop()
        narrow = box.worker("narrow", cpu_slots=1)
        box.until(lambda: "model-without-slot model=other" in narrow.text(), "the model that is left out is named")


def test_a_model_that_becomes_active_later_is_served(tmp_path: Path) -> None:
    with LiveBox(tmp_path) as box:
        worker = box.worker()
        box.until(lambda: "no-model" in worker.text(), "the worker says that there is nothing to serve")
        box.promote(box.push(PLAIN))
        box.serves("v1", slots=1)
        job = box.client.submit("live")["id"]
        assert finished(box, job)["result"] == {"version": "v1"}


def test_a_slot_is_served_by_one_worker_at_a_time(tmp_path: Path) -> None:
    with LiveBox(tmp_path) as box:
        worker = served(box)
        settings, _ = load_settings(
            {"repo": box.repository.url, "queue": box.queue.url, "cache": worker.cache, "name": "second"}, {}
        )
        with pytest.raises(AlreadyServed, match=f"served by pid {worker.pid}; stop that worker"):
            Worker(settings).start()
        with pytest.raises(ModelNotFound, match=r"'lvie'.*live"):
            Worker(replace(settings, models=("lvie",))).start()
        assert [report.info.name for report, _ in box.slots()] == ["w"]


def test_an_idle_worker_costs_next_to_nothing(tmp_path: Path) -> None:
    with LiveBox(tmp_path) as box:
        worker = served(box, cpu_slots=4, slots_served=4)
        after_beats(box, 2)
        used, began = cpu_seconds(worker.pid), time.monotonic()
        after_beats(box, 4)
        # A third of a hundredth where nothing else runs; the rest is for a machine that does other things.
        assert (cpu_seconds(worker.pid) - used) / (time.monotonic() - began) < 0.1


def after_beats(box: LiveBox, count: int) -> None:
    """Wait for so many beats of the one worker."""
    heard = threading.Event()
    for _ in range(count):
        age_s = box.slots()[0][0].last_beat_age_s
        while box.slots()[0][0].last_beat_age_s >= age_s:
            age_s = box.slots()[0][0].last_beat_age_s
            heard.wait(box.timing.beat_s / 5)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_files_of_the_cache_cannot_be_written_by_models(tmp_path: Path) -> None:
    with LiveBox(tmp_path) as box:
        worker = served(box)
        (code,) = (worker.cache / "versions").rglob("model.py")
        assert stat.S_IMODE(code.stat().st_mode) == 0o444


def test_the_settings_can_be_printed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "modelrepo_cli", "worker", "--print-config", "--slots", "2x4"],
        env={**os.environ, "MODELREPO_GRACE": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "slots: 2x4  # --slots" in done.stdout
    assert "grace: 7.0  # MODELREPO_GRACE" in done.stdout
