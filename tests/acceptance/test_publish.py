"""Pushes and promotions by processes that are killed, or that all come at once, over a repository of local files."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modelrepo import IndexSettings, PushOptions, Repository, layout
from modelrepo.canonical import sha256
from modelrepo.promotion import Kind
from modelrepo.versions.publish import missing_objects

OPTIONS = PushOptions(lock=True, check="none", index=IndexSettings(no_index=True))
PUSHERS, PUSHES_EACH, EDITS = 8, 5, 12
PATIENCE_S = 120.0

KILLED = """
import dataclasses, os, signal, sys
from pathlib import Path
from modelrepo import IndexSettings, PushOptions, Repository
from modelrepo.stores.faults import WRITES, Fault, faulty
from modelrepo.stores.founding import open_founded
from modelrepo.stores.opening import open_store

url, folder, at, moment = sys.argv[1:]
founded = open_founded(open_store(url))
store = faulty(
    founded.store,
    Fault(int(at), moment, how="kill", verbs=WRITES),
    on_kill=lambda: os.kill(os.getpid(), signal.SIGKILL),
)
repository = Repository(dataclasses.replace(founded, store=store))
options = PushOptions(lock=True, check="none", index=IndexSettings(no_index=True))
pushed = repository.push(Path(folder), options)
repository.promotions.promote("tiny", pushed.version)
"""

PUSHING = """
import json, sys
from pathlib import Path
from modelrepo import IndexSettings, PushOptions, Repository

url, folder, who, times = sys.argv[1:]
repository = Repository.open(url, by=who)
options = PushOptions(lock=True, check="none", index=IndexSettings(no_index=True))
sys.stdin.readline()
for number in range(int(times)):
    (Path(folder) / "w" / "a.bin").write_text(f"{who} {number} " * 1000)
    pushed = repository.push(Path(folder), options)
    entry = repository.promotions.promote("tiny", pushed.version)
    print(json.dumps([pushed.version, pushed.digest, entry.generation, entry.change]), flush=True)
"""


def make_folder(folder: Path) -> Path:
    (folder / "w").mkdir(parents=True)
    (folder / "model.yaml").write_text("contract: 1\nname: tiny\nentrypoint: model:M\ncheckpoints: {w: w}\n")
    (folder / "model.py").write_text("class M: pass\n")
    (folder / "pyproject.toml").write_text('[project]\nname = "tiny"\nversion = "0"\nrequires-python = ">=3.11"\n')
    (folder / "w" / "a.bin").write_bytes(b"a" * 3000)
    (folder / "w" / "b.bin").write_bytes(b"b" * 5000)
    return folder


def check_versions(repository: Repository) -> list[str]:
    """Every version that is visible can be read whole."""
    if "tiny" not in repository.models():
        return []
    found = [one.version for one in repository.versions("tiny")]
    for version in found:
        assert not missing_objects(repository.store, repository.resolve(f"tiny@{version}").manifest.objects())
    return found


def check_history(repository: Repository) -> None:
    entries = repository.promotions.history("tiny")
    assert [entry.generation for entry in entries] == list(range(1, len(entries) + 1))


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_push_that_is_killed_at_any_write_is_seen_whole_or_not_at_all_and_the_next_resumes(
    tmp_path: Path, moment: str
) -> None:
    at, killed, seen = 0, True, set()
    while killed:
        at += 1
        assert at < 100
        url, folder = str(tmp_path / f"repository-{at}"), make_folder(tmp_path / f"model-{at}")
        Repository.init(url)
        done = subprocess.run(
            [sys.executable, "-c", KILLED, url, str(folder), str(at), moment],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        killed = done.returncode == -signal.SIGKILL
        assert killed or done.returncode == 0, done.stderr
        repository = Repository.open(url)
        visible = check_versions(repository)
        active = repository.promotions.state("tiny").version
        assert active in (None, *visible)
        seen.add((bool(visible), active is not None))

        sent = sum(stat.size_bytes for stat in repository.store.list(layout.OBJECTS))
        again = repository.push(folder, OPTIONS)
        assert again.reused_bytes == sent
        repository.promotions.promote("tiny", again.version)
        assert check_versions(repository) == [*visible, again.version]
        assert repository.promotions.state("tiny").version == again.version
        assert not repository.promotions.state("tiny").stale_file
        check_history(repository)
    assert seen == {(False, False), (True, False), (True, True)}


def test_eight_processes_push_and_promote_at_once_while_somebody_edits_by_hand(tmp_path: Path) -> None:
    url = str(tmp_path / "repository")
    repository = Repository.init(url, by="editor")
    first = repository.push(make_folder(tmp_path / "first"), OPTIONS)
    repository.promotions.promote("tiny", first.version)
    commands = [
        [
            sys.executable,
            "-c",
            PUSHING,
            url,
            str(make_folder(tmp_path / f"model-{number}")),
            f"p{number}",
            str(PUSHES_EACH),
        ]
        for number in range(PUSHERS)
    ]
    pushers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for command in commands
    ]
    try:
        for pusher in pushers:
            assert pusher.stdin is not None
            pusher.stdin.write("\n")
            pusher.stdin.flush()
        edits = list(edit_by_hand(tmp_path / "repository" / layout.active_file("tiny"), repository, pushers))
        results: list[list[Any]] = []
        for pusher in pushers:
            out, err = pusher.communicate(timeout=PATIENCE_S)
            assert pusher.returncode == 0, err
            results += [json.loads(line) for line in out.splitlines()]
    finally:
        for pusher in pushers:
            pusher.kill()
            pusher.wait()

    fresh = Repository.open(url)
    assert len(results) == PUSHERS * PUSHES_EACH
    assert len({version for version, *_ in results}) == len(results)
    assert sorted(check_versions(fresh)) == sorted(["v1", *(version for version, *_ in results)])
    for version, digest, _, _ in results:
        assert fresh.resolve(f"tiny@{version}").digest == digest

    last = fresh.promotions.promote("tiny", "v1")
    check_history(fresh)
    history = {entry.generation: entry for entry in fresh.promotions.history("tiny")}
    for version, digest, generation, change in results:
        entry = history[generation]
        assert (entry.kind, entry.version, entry.digest, entry.change) == (Kind.PROMOTE, version, digest, change)
    recorded = [entry for entry in history.values() if entry.kind is Kind.HAND_EDIT]
    assert len(history) == 1 + len(results) + len(recorded) + 1
    assert {entry.active_sha256 for entry in recorded} <= set(edits)
    kept = {key.rpartition(".lost-")[2] for key in keys(fresh) if ".lost-" in key}
    for edit in edits:
        in_history = any(edit in (entry.active_sha256, entry.base_sha256) for entry in history.values())
        assert in_history or edit in kept, "an edit vanished without a trace"
    assert recorded
    assert fresh.promotions.state("tiny").version == last.version == "v1"


def edit_by_hand(path: Path, repository: Repository, pushers: list[subprocess.Popen[str]]) -> Iterator[str]:
    """Save the file as an editor does, again and again while the others work; yields the sha256 of each save."""
    for number in range(EDITS):
        if all(pusher.poll() is not None for pusher in pushers):
            return
        version = repository.versions("tiny")[-1].version
        saved = f"version: {version}\nconfig: {{}}\n# edit {number}\n".encode()
        draft = path.with_name(f".{path.name}.swp")
        draft.write_bytes(saved)
        draft.replace(path)
        yield sha256(saved)
        until = time.monotonic() + PATIENCE_S
        while path.read_bytes() == saved and any(pusher.poll() is None for pusher in pushers):
            assert time.monotonic() < until
            time.sleep(0.01)


def keys(repository: Repository) -> list[str]:
    return [stat.key for stat in repository.store.list(layout.MODELS)]
