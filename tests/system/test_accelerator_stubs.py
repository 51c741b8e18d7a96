"""A driver library of a few C functions makes nvidia-ml-py report GPUs that this machine does not have."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from modelrepo_runtime.queue.orders import OrderDraft, Verb
from modelrepo_runtime.testing.live import LiveBox

pytestmark = pytest.mark.system

STUB = r"""
#include <string.h>
#include <stdio.h>
#include <stdlib.h>
typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { int index; } device_t;
static device_t devices[3] = {{0}, {1}, {2}};
static int mig(void *h) { device_t *d = h; return d->index >= 2; }
int nvmlInitWithFlags(unsigned f) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *n) { *n = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **h) { if (i > 1) return 2; *h = &devices[i]; return 0; }
int nvmlDeviceGetName(void *h, char *s, unsigned n) { snprintf(s, n, "Stub H100"); return 0; }
int nvmlDeviceGetUUID(void *h, char *s, unsigned n) {
  snprintf(s, n, mig(h) ? "MIG-%d" : "GPU-%d", ((device_t *)h)->index); return 0; }
int nvmlDeviceGetHandleByUUID(const char *s, void **h) {
  for (int i = 0; i < 3; i++) { char u[16]; nvmlDeviceGetUUID(&devices[i], u, 16);
    if (!strcmp(u, s)) { *h = &devices[i]; return 0; } }
  return 6; }
int nvmlDeviceGetMemoryInfo(void *h, memory_t *m) {
  m->total = 80ULL << 30; m->used = (((device_t *)h)->index + 1ULL) << 30; m->free = m->total - m->used; return 0; }
int nvmlDeviceGetMigMode(void *h, unsigned *now, unsigned *later) {
  *now = *later = ((device_t *)h)->index == 1; return 0; }
int nvmlDeviceGetMaxMigDeviceCount(void *h, unsigned *n) { *n = 7; return 0; }
int nvmlDeviceGetMigDeviceHandleByIndex(void *h, unsigned i, void **part) {
  if (i) return 6; *part = &devices[2]; return 0; }
int nvmlSystemGetDriverVersion(char *s, unsigned n) { snprintf(s, n, "570.86.15"); return 0; }
int nvmlSystemGetCudaDriverVersion_v2(int *v) { *v = 12080; return 0; }
typedef struct { void *device; unsigned long long type, data; unsigned gpu, compute; } event_t;
int nvmlEventSetCreate(void **set) { static int one; *set = &one; return 0; }
int nvmlDeviceRegisterEvents(void *h, unsigned long long kinds, void *set) { return 0; }
int nvmlEventSetWait_v2(void *set, event_t *event, unsigned timeout_ms) {
  int index; unsigned long long xid; char *name = getenv("STUB_XID"); FILE *file = name ? fopen(name, "r") : 0;
  if (!file) return 10;
  int read = fscanf(file, "%d %llu", &index, &xid);
  fclose(file); remove(name);
  if (read != 2) return 10;
  memset(event, 0, sizeof *event); event->device = &devices[index]; event->type = 8; event->data = xid;
  return 0; }
"""

PROBE = """
import json, dataclasses
from modelrepo_runtime.accelerators import find_box, facts
box = find_box()
print(json.dumps({
    "devices": [dataclasses.asdict(device) for device in box.devices],
    "free": [box.accelerator.free_bytes(device) for device in box.devices],
    "facts": {"version": facts(box.devices).version, "driver": facts(box.devices).driver},
}))
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    assert compiler, "this test builds a stub of the NVIDIA library: install gcc"
    folder = tmp_path_factory.mktemp("nvml")
    (folder / "stub.c").write_text(STUB)
    command = [compiler, "-shared", "-fPIC", "-o", str(folder / "libnvidia-ml.so.1"), str(folder / "stub.c")]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def ask(library: Path, **variables: str) -> dict[str, object]:
    environ = {key: value for key, value in os.environ.items() if not key.endswith("VISIBLE_DEVICES")}
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        env={**environ, "LD_LIBRARY_PATH": str(library), **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def test_the_driver_library_is_asked_for_devices_and_memory(library: Path) -> None:
    found = ask(library)
    devices = found["devices"]
    assert isinstance(devices, list)
    assert [(device["index"], device["uuid"], device["mig"]) for device in devices] == [
        (0, "GPU-0", False),
        (1, "MIG-2", True),
    ]
    assert {device["name"] for device in devices} == {"Stub H100"}
    assert found["free"] == [79 << 30, 77 << 30]
    assert found["facts"] == {"version": "12.8", "driver": "570.86.15"}


def test_the_worker_sees_only_what_its_variable_leaves(library: Path) -> None:
    devices = ask(library, CUDA_VISIBLE_DEVICES="MIG-2")["devices"]
    assert isinstance(devices, list)
    assert [device["uuid"] for device in devices] == ["MIG-2"]


# Each job waits for the other, so that both slots have one.
MODEL = """
import os, time

class Model:
    def load(self, ctx):
        self.ctx = ctx

    def run(self, job):
        open(os.path.join(job.inputs["meet"], job.id), "w").close()
        while len(os.listdir(job.inputs["meet"])) < 2:
            job.check()
            time.sleep(0.01)
        names = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "ROCR_VISIBLE_DEVICES")
        return {"device": self.ctx.device, "visible": [os.environ.get(name) for name in names]}
"""
YAML = """\
accelerators: [{when: "cuda >= 13"}, {when: "cuda >= 12.8"}]
host: {gpu: {memory: 60GiB}}
stages: [{name: run, gpu_memory: 20GiB}]
"""


def test_a_worker_gives_each_slot_its_device(library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(library))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "meet").mkdir()
    with LiveBox(tmp_path) as box:
        version = box.push(MODEL, yaml=YAML)
        box.promote(version)
        worker = box.worker()
        box.serves(version, slots=2)
        assert [(slot.slot, slot.device) for _, slot in box.slots()] == [
            ("cuda0", "cuda:0"),
            ("cudaMIG-2", "cuda:MIG-2"),
        ]
        jobs = [box.client.submit("live", {"meet": str(tmp_path / "meet")})["id"] for _ in range(2)]
        results = [box.client.wait(job, 60)["result"] for job in jobs]
        assert {result["device"] for result in results} == {"cuda:0"}
        seen = sorted(result["visible"] for result in results)
        assert seen == [["0", "PCI_BUS_ID", None], ["MIG-2", "PCI_BUS_ID", None]]
        box.promote(box.push(MODEL.replace("0.01", "0.02"), yaml=YAML))
        box.serves("v2", slots=2)
        assert "mode=overlap" in worker.text()


def test_a_box_that_satisfies_no_entry_says_what_it_has(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(library))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with LiveBox(tmp_path) as box:
        box.promote(box.push(MODEL, yaml="accelerators: [{when: rocm}]\n"))
        box.worker(slots="0")
        box.until(lambda: [slot.state for _, slot in box.slots()] == ["refused"], "the slot refuses")
        ((_, slot),) = box.slots()
        assert "it offers cuda 12.8" in str(slot.reason)


PATIENT = """
import pathlib, time

class Model:
    def load(self, ctx):
        pass

    def run(self, job):
        while not pathlib.Path(job.inputs["go"]).exists():
            job.check()
            time.sleep(0.01)
        return {"done": True}
"""


def test_a_device_that_the_driver_gives_up_loses_its_slot_and_no_job(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, go = tmp_path / "xid", tmp_path / "go"
    monkeypatch.setenv("LD_LIBRARY_PATH", str(library))
    monkeypatch.setenv("STUB_XID", str(told))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with LiveBox(tmp_path) as box:
        box.promote(box.push(PATIENT, yaml="accelerators: [{when: cuda}]\n"))
        worker = box.worker(slots="0")
        box.serves("v1", slots=1)
        job = box.client.submit("live", {"go": str(go)})["id"]
        box.until(lambda: box.client.get(job)["status"] == "running", "the job runs")
        (tmp_path / "part").write_text("0 79")
        (tmp_path / "part").rename(told)
        box.until(lambda: [slot.state for _, slot in box.slots()] == ["cordoned"], "the slot is cordoned")
        ((_, slot),) = box.slots()
        assert "cuda:0 is not well: the driver reported Xid 79 (it fell off the bus)" in str(slot.reason)
        box.until(lambda: box.client.get(job)["status"] == "queued", "the job is handed back")
        assert [row.counted for row in box.queue.history(job) if row.event == "attempt"] == [False]
        assert "device-sick" in worker.text()
        go.touch()
        box.queue.give_orders([OrderDraft("w", Verb.UNCORDON)])
        assert box.client.wait(job, 60)["status"] == "succeeded"
