"""Pushes and promotions that are killed, that lose the store's answers, or that all come at once.

MODELREPO_ACCEPTANCE=full kills at every operation on disk too, and adds S3; otherwise a sample is enough.
"""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from modelrepo import Repository, layout
from modelrepo.canonical import sha256
from modelrepo.errors import Unreachable
from modelrepo.promotion import Kind
from modelrepo.publication.delivery import missing_objects
from modelrepo.stores.faults import Fault, FaultyStore, KillNow, faulty
from modelrepo.stores.founding import open_founded
from modelrepo.stores.opening import open_store
from tests.acceptance.tiny_model import OPTIONS, write_model

FULL = os.environ.get("MODELREPO_ACCEPTANCE") == "full"
STORES = ["memory", "file", "s3"] if FULL else ["memory", "file"]
PUSHERS, PUSHES_EACH = 8, 20 if FULL else 4
EDIT_AT_EACH = 3  # results
PATIENCE_S = 180.0
MOST_OPERATIONS = 100

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
print(json.dumps("ready"), flush=True)
sys.stdin.readline()
for number in range(int(times)):
    (Path(folder) / "w" / "a.bin").write_text(f"{who} {number} " * 1000)
    pushed = repository.push(Path(folder), options)
    entry = repository.promotions.promote("tiny", pushed.version)
    print(json.dumps([pushed.version, pushed.digest, entry.generation, entry.change]), flush=True)
"""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder with its lock, which a first push made."""
    weights = {"a.bin": b"a" * 3000, "b.bin": b"b" * 5000}
    folder = write_model(tmp_path_factory.mktemp("template") / "model", weights=weights)
    Repository.init("memory://publish-template").push(folder, OPTIONS)
    return folder


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    import boto3  # type: ignore[import-untyped]
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        boto3.client("s3").create_bucket(Bucket="models")
        yield "s3://models"
    server.stop()


@pytest.fixture(params=STORES)
def urls(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URLs of stores in which nothing is yet."""
    root = {"memory": f"memory://{tmp_path}", "file": str(tmp_path)}.get(request.param)
    if root is None:
        root = f"{request.getfixturevalue('bucket')}/{tmp_path.name}"
    return (f"{root}/repository-{number}" for number in range(MOST_OPERATIONS + 2))


def over(url: str, *faults: Fault) -> tuple[Repository, FaultyStore]:
    """Open a repository over a store with these faults."""
    founded = open_founded(open_store(url))
    store = faulty(founded.store, *faults)
    return Repository(dataclasses.replace(founded, store=store)), store


def sampled(store: FaultyStore) -> list[int]:
    """Return which operations to fail at, the last among them: some, and at full counts each that costs no request."""
    scheme = store.url.partition(":")[0]
    step = {"memory": 1 if FULL else 2, "file": 1 if FULL else 3, "s3": 6}[scheme]
    return list(reversed(range(len(store.operations), 0, -step)))


def push_and_promote(repository: Repository, folder: Path) -> str:
    version = repository.push(folder, OPTIONS).version
    repository.promotions.promote("tiny", version)
    return version


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


def check_next_push(url: str, folder: Path) -> tuple[bool, bool]:
    """What is visible is whole, and the next push takes up what the last one left; returns what was visible."""
    repository = Repository.open(url)
    visible = check_versions(repository)
    active = repository.promotions.state("tiny").version
    assert active in (None, *visible)
    sent = sum(stat.size_bytes for stat in repository.store.list(layout.OBJECTS))
    again = repository.push(folder, OPTIONS)
    assert again.reused_bytes == sent
    repository.promotions.promote("tiny", again.version)
    assert check_versions(repository) == [*visible, again.version]
    state = repository.promotions.state("tiny")
    assert (state.version, state.stale_file, state.edited_by_hand) == (again.version, False, False)
    check_history(repository)
    return bool(visible), active is not None


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_push_killed_at_any_operation_is_seen_whole_or_not_at_all_and_the_next_resumes(
    urls: Iterator[str], template: Path, moment: Literal["before", "after"]
) -> None:
    url = next(urls)
    Repository.init(url)
    repository, store = over(url)
    push_and_promote(repository, template)
    seen = []
    for at in sampled(store):
        url = next(urls)
        Repository.init(url)
        repository, _ = over(url, Fault(at, moment, how="kill"))
        with pytest.raises(KillNow):
            push_and_promote(repository, template)
        seen.append(check_next_push(url, template))
    assert seen == sorted(seen), "what was visible after an early kill must be so after a later one"
    assert set(seen) == {(False, False), (True, False), (True, True)}


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_push_that_loses_any_answer_succeeds_or_says_so(
    urls: Iterator[str], template: Path, moment: Literal["before", "after"]
) -> None:
    url = next(urls)
    Repository.init(url)
    repository, store = over(url)
    push_and_promote(repository, template)
    for at in sampled(store) if FULL else sampled(store)[::4]:
        url = next(urls)
        Repository.init(url)
        repository, _ = over(url, Fault(at, moment))
        try:
            version = push_and_promote(repository, template)
        except Unreachable:
            check_next_push(url, template)
        else:
            fresh = Repository.open(url)
            assert check_versions(fresh) == [version]
            assert fresh.promotions.state("tiny").version == version
            check_history(fresh)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_pushing_process_killed_at_a_write_leaves_nothing_torn(tmp_path: Path, template: Path, moment: str) -> None:
    at, killed, seen = 1, True, set()
    while killed:
        assert at < MOST_OPERATIONS
        url = str(tmp_path / f"repository-{at}")
        Repository.init(url)
        done = subprocess.run(
            [sys.executable, "-c", KILLED, url, str(template), str(at), moment],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        killed = done.returncode == -signal.SIGKILL
        assert killed or done.returncode == 0, done.stderr
        seen.add(check_next_push(url, template))
        at += 1 if FULL else 5
    assert {(False, False), (True, True)} <= seen


def test_eight_processes_push_and_promote_at_once_while_somebody_edits_by_hand(tmp_path: Path, template: Path) -> None:
    url = str(tmp_path / "repository")
    repository = Repository.init(url, by="editor")
    push_and_promote(repository, template)
    pushers = [start_pusher(url, tmp_path / f"p{number}", template) for number in range(PUSHERS)]
    said: queue.Queue[Any] = queue.Queue()
    readers = [threading.Thread(target=read, args=(pusher, said)) for pusher in pushers]
    editor = Editor(tmp_path / "repository" / layout.active_file("tiny"))
    results: list[list[Any]] = []
    try:
        for reader in readers:
            reader.start()
        assert [said.get(timeout=PATIENCE_S) for _ in pushers] == ["ready"] * PUSHERS
        for pusher in pushers:
            assert pusher.stdin is not None
            pusher.stdin.write("\n")
            pusher.stdin.flush()
        while len(results) < PUSHERS * PUSHES_EACH:
            result = said.get(timeout=PATIENCE_S)
            assert isinstance(result, list), result
            results.append(result)
            if len(results) % EDIT_AT_EACH == 0:
                editor.save(results[-1][0])
        assert [pusher.wait(PATIENCE_S) for pusher in pushers] == [0] * PUSHERS
    finally:
        for pusher in pushers:
            pusher.kill()
            pusher.wait()
        for pusher, reader in zip(pushers, readers, strict=True):
            reader.join(PATIENCE_S)
            for pipe in (pusher.stdin, pusher.stdout):
                if pipe is not None:
                    pipe.close()
    check_race(Repository.open(url), results, editor)


def check_race(repository: Repository, results: list[list[Any]], editor: Editor) -> None:
    """Distinct versions, one history without gaps, every promotion and every edit in it."""
    assert len({version for version, *_ in results}) == len(results)
    assert sorted(check_versions(repository)) == sorted(["v1", *(version for version, *_ in results)])
    for version, digest, _, _ in results:
        assert repository.resolve(f"tiny@{version}").digest == digest

    last = repository.promotions.promote("tiny", "v1")
    check_history(repository)
    history = {entry.generation: entry for entry in repository.promotions.history("tiny")}
    for version, digest, generation, change in results:
        entry = history[generation]
        assert (entry.kind, entry.version, entry.digest, entry.change) == (Kind.PROMOTE, version, digest, change)
    recorded = [entry for entry in history.values() if entry.kind is Kind.HAND_EDIT]
    assert len(history) == 1 + len(results) + len(recorded) + 1
    assert {entry.active_sha256 for entry in recorded} <= set(editor.saves)
    assert recorded
    keys = [stat.key for stat in repository.store.list(layout.MODELS)]
    kept = {key.rpartition(".lost-")[2] for key in keys if ".lost-" in key}
    for save in editor.saves:
        in_history = any(save in (entry.active_sha256, entry.base_sha256) for entry in history.values())
        # A save in place that was cut in two by a change is kept as what it was then: nothing.
        assert in_history or save in kept or sha256(b"") in kept, "an edit vanished without a trace"
    assert repository.promotions.state("tiny").version == last.version == "v1"


class Editor:
    """Saves active.yaml as editors do: by turns with a rename, and in place."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last = b""
        self.saves: list[str] = []

    def save(self, version: str) -> None:
        """Save, unless the last save is still what is there: people look before they type."""
        if self._path.read_bytes() == self._last:
            return
        self._last = f"version: {version}\nconfig: {{}}\n# edit {len(self.saves)}\n".encode()
        self.saves.append(sha256(self._last))
        if len(self.saves) % 2:
            draft = self._path.with_name(f".{self._path.name}.swp")
            draft.write_bytes(self._last)
            draft.replace(self._path)
        else:
            self._path.write_bytes(self._last)


def start_pusher(url: str, folder: Path, template: Path) -> subprocess.Popen[str]:
    shutil.copytree(template, folder)
    command = [sys.executable, "-c", PUSHING, url, str(folder), folder.name, str(PUSHES_EACH)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def read(pusher: subprocess.Popen[str], said: queue.Queue[Any]) -> None:
    assert pusher.stdout is not None
    for line in pusher.stdout:
        try:
            said.put(json.loads(line))
        except ValueError:
            said.put(line + pusher.stdout.read())
