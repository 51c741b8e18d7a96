"""Peak memory of a push and of a fetch does not hang on the size of files. Each runs in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PEAK_MIB = 300
FILE_MIB = 640

PROGRAM = """
import os, resource, sys
from pathlib import Path
from modelrepo.contract import load_spec
from modelrepo.environments.record import EnvironmentRecord
from modelrepo.stores.memory import MemoryBucket, MemoryStore
from modelrepo.box_cache.version_cache import VersionCache
from modelrepo.clock import Clock
from modelrepo.pushing.content import Content
from modelrepo.publication.delivery import Delivery
from modelrepo.fetching.disk import Disk
from modelrepo.pushing.drafting import draft, look, pack
from modelrepo.publication.publish import finish
from modelrepo.versions.version import Version

folder = Path(sys.argv[1])
spec = load_spec(folder)

class Elsewhere(MemoryStore):
    "Keeps small objects; of large ones it only remembers how to make them again."
    def __init__(self):
        super().__init__("elsewhere", MemoryBucket())
        self.large = {}
    def create(self, key, data):
        if len(data) > 1 << 20:
            self.large[key] = (data[:1], len(data))
            assert data.count(0) == len(data) - 1
        else:
            super().create(key, data)
    def read(self, key):
        if key in self.large:
            first, size = self.large[key]
            return first.ljust(size, bytes(1))
        return super().read(key)

class Nowhere(Disk):
    "Writes nothing: the page cache is not what is measured here."
    def write(self, fd, data, start):
        pass

store = Elsewhere()
environment = EnvironmentRecord(python="3.11", requires_python="", digest="e" * 64, pyproject_sha256="f" * 64)
with Delivery(store, model="tiny", by="") as delivery:
    packed = pack(look(folder, spec, lambda reference: None), Content(delivery=delivery))
    publication = draft(folder, packed, environment, at="now")
    done = finish(delivery, store, publication, version=None, clock=Clock())
assert done.new_bytes >= int(sys.argv[2]) << 20
version = Version("tiny", "v1", done.digest, done.manifest, spec)
VersionCache(folder.parent / "cache", store, disk=Nowhere()).fetch(version)
if sys.platform == "darwin":
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 20)
else:  # ru_maxrss would count the process that started this one
    status = Path("/proc/self/status").read_text()
    print(int(status.partition("VmHWM:")[2].split()[0]) >> 10)
"""


def test_memory_stays_bounded_whatever_the_size_of_a_file(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.yaml").write_text("contract: 1\nname: tiny\nentrypoint: model:M\ncheckpoints: {w: w.bin}\n")
    with (folder / "w.bin").open("wb") as stream:  # a sparse file whose pieces all differ
        for piece in range(FILE_MIB // 16):
            stream.seek(piece << 24)
            stream.write(bytes([piece + 1]))
        stream.truncate(FILE_MIB << 20)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), str(FILE_MIB)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) <= PEAK_MIB, done.stdout
