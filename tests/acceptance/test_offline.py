"""A box with an empty cache and no index, years later: what was vendored restores and serves, and nothing else does."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from modelrepo import IndexSettings, PushOptions, VendorOptions, layout
from modelrepo_runtime.testing.live import LiveBox

from .packages import make_index, make_sdist, make_wheel, served
from .test_environments import BACKEND, member, project

CODE = """
import fetched, found, lib

class Model:
    def load(self, ctx):
        pass

    def run(self, job):
        return [fetched.VERSION, found.VERSION, lib.VALUE]
"""


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "UV_INDEX", "UV_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:1/simple")  # where nobody listens


def vendored(box: LiveBox, folder: Path) -> str:
    """Publish a model with a wheel from an index, one from a folder and one that was built; then lose them all."""
    sources = folder / "sources"
    (sources / "backend").mkdir(parents=True)
    (sources / "backend" / "tinybackend.py").write_text(BACKEND)
    member(sources / "lib", "lib", "built")
    make_wheel(folder / "wheels", "found", "3.0")
    sdist = make_sdist(sources / "made", "lib", "0.1", tree=sources / "lib")
    make_index(folder / "index", [make_wheel(sources / "made", "fetched", "2.0"), sdist])
    model = project(folder / "model", "fetched", "found", "lib")
    (model / "model.yaml").write_text("contract: 1\nname: live\nentrypoint: model:Model\n")
    (model / "model.py").write_text(CODE)
    with served(folder / "index") as address:
        index = IndexSettings(default_index=address, find_links=(str(folder / "wheels"),))
        options = PushOptions(lock=True, check="none", index=index, cache=folder / "pusher")
        version = box.repository.push(model, options).version
        box.repository.vendor(f"live@{version}", VendorOptions(index=index, cache=folder / "pusher"))
    for gone in ("wheels", "index", "sources", "pusher", "model"):
        shutil.rmtree(folder / gone)
    return version


def test_a_box_without_an_index_restores_and_serves(tmp_path: Path) -> None:
    with LiveBox(tmp_path / "box") as box:
        version = vendored(box, tmp_path)
        box.promote(version)
        box.worker()
        box.serves(version, slots=1)
        done = box.client.wait(box.client.submit("live")["id"], 60)
        assert (done["status"], done["result"]) == ("succeeded", ["2.0", "3.0", "built"])


@pytest.mark.parametrize("name", ["fetched-2.0-py3-none-any.whl", "lib-0.1-py3-none-any.whl"])
def test_a_flipped_byte_in_a_wheel_is_refused_by_name_and_digest(tmp_path: Path, name: str) -> None:
    with LiveBox(tmp_path / "box") as box:
        version = vendored(box, tmp_path)
        source = box.repository.wheels(box.repository.resolve(f"live@{version}"))
        (digest,) = [digest for digest, record in source.records().items() if record.path == name]
        path = tmp_path / "box" / "repo" / layout.object_(digest)
        good = path.read_bytes()
        flipped = bytearray(good)
        flipped[len(flipped) // 2] ^= 1
        path.chmod(0o644)
        path.write_bytes(flipped)
        box.promote(version)
        worker = box.worker()
        box.until(lambda: [slot.state for _, slot in box.slots()] == ["refused"], "the slot refuses", limit_s=60)
        ((_, slot),) = box.slots()
        assert name in str(slot.reason)
        assert digest in str(slot.reason)
        assert not list((worker.cache / "environments").glob("*/*/*/READY"))
        path.write_bytes(good)
        box.promote(version, retry=True)
        box.serves(version, slots=1)
