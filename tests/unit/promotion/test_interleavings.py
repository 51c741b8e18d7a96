"""Two promoters and an editor, interleaved at every operation, some killed: one history, no change lost."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Literal

from hypothesis import given, settings
from hypothesis import strategies as st

from modelrepo.canonical import sha256
from modelrepo.errors import Conflict, NotFound
from modelrepo.promotion import HistoryEntry, Kind, Promotions
from modelrepo.promotion.active_file import parse
from modelrepo.promotion.state import owner_of
from modelrepo.stores.faults import KillNow, Verb, faulty
from modelrepo.stores.memory import MemoryBucket, MemoryStore
from modelrepo.testing.version_table import VersionTable

ACTIVE = "models/m/active.yaml"
VERSIONS = ["v1", "v2", "v3", "v4", "v5", "v6"]
WAIT_S = 30.0

Step = tuple[Literal["one", "two", "kill one", "kill two", "edit"], int, str]


@dataclass
class Recorded(MemoryBucket):
    """A bucket that remembers every text of active.yaml and who wrote it."""

    files: list[tuple[bytes, bool]] = field(default_factory=list)
    by_hand: bool = False

    def put(self, key: str, data: bytes) -> None:
        super().put(key, data)
        if key == ACTIVE:
            self.files.append((data, self.by_hand))

    def edit(self, version: str) -> None:
        with self.lock:
            held = self.held.get(ACTIVE)
            text = held.data if held else b"version: v0\n"
            old = parse(text).version or "null"
            self.by_hand = True
            self.put(ACTIVE, text.replace(f"version: {old}".encode(), f"version: {version}".encode()) + b"# mine\n")
            self.by_hand = False


class Actor:
    """A promoter in a thread that does one operation each time it is told to."""

    def __init__(self, bucket: MemoryBucket, name: str, versions: list[str]) -> None:
        self.done: list[HistoryEntry] = []
        self.promoted: list[tuple[HistoryEntry, str]] = []
        self.attempted = 0
        self._versions = versions
        self._go, self._waiting = threading.Semaphore(0), threading.Semaphore(0)
        self._killed = False
        self.over = False
        store = faulty(MemoryStore("m", bucket), before=self._wait_for_turn)
        self._promotions = Promotions(store, VersionTable({"m": VERSIONS}), by=name)
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()
        assert self._waiting.acquire(timeout=WAIT_S)

    def step(self, *, kill: bool = False) -> None:
        """Let it do its next operation, and wait until it stands before the one after."""
        if self.over:
            return
        self._killed = kill
        self._go.release()
        assert self._waiting.acquire(timeout=WAIT_S)

    def finish(self) -> None:
        for _ in range(1000):
            if self.over:
                break
            self.step()
        self._thread.join(WAIT_S)
        assert self.over

    def _work(self) -> None:
        try:
            for number, version in enumerate(self._versions):
                self.attempted += 1
                try:
                    if number % 3 == 2:
                        self.done.append(self._promotions.rollback("m"))
                    else:
                        self.done.append(self._promotions.promote("m", version))
                        self.promoted.append((self.done[-1], version))
                except (Conflict, NotFound):
                    pass
        except KillNow:
            pass
        finally:
            self.over = True
            self._waiting.release()

    def _wait_for_turn(self, verb: Verb, key: str) -> None:
        self._waiting.release()
        assert self._go.acquire(timeout=WAIT_S)
        if self._killed:
            raise KillNow(f"{verb} {key}")


moves = ["one"] * 4 + ["two"] * 4 + ["edit"] * 3 + ["kill one", "kill two"]
steps = st.lists(
    st.tuples(st.sampled_from(moves), st.integers(1, 9), st.sampled_from(VERSIONS)), min_size=8, max_size=30
)


@settings(max_examples=80, deadline=None)
@given(steps, st.permutations(VERSIONS), st.permutations(VERSIONS))
def test_any_order_keeps_one_history_and_every_change(schedule: list[Step], mine: list[str], yours: list[str]) -> None:
    bucket = Recorded()
    actors = {"one": Actor(bucket, "one", mine[:4]), "two": Actor(bucket, "two", yours[:4])}
    for what, operations, version in schedule:
        if what == "edit":
            bucket.edit(version)
        else:
            actor = actors[what.removeprefix("kill ")]
            for _ in range(operations):
                actor.step()
            if what.startswith("kill"):
                actor.step(kill=True)
    for actor in actors.values():
        actor.finish()
    check(bucket, actors)


def check(bucket: Recorded, actors: dict[str, Actor]) -> None:
    store = MemoryStore("m", bucket)
    promotions = Promotions(store, VersionTable({"m": VERSIONS}), by="after")
    history = promotions.history("m")
    assert [entry.generation for entry in history] == list(range(1, len(history) + 1))
    assert len({entry.change for entry in history}) == len(history)

    # What a promoter was told that it did, or found done, is there once; what was never told, at most once an attempt.
    told = [entry for actor in actors.values() for entry in actor.done]
    assert all(history.count(entry) == 1 for entry in told)
    for name, actor in actors.items():
        own = [entry for entry in history if entry.by == name and entry.kind is not Kind.HAND_EDIT]
        assert len({entry.change for entry in actor.done if entry in own}) <= len(own) <= actor.attempted
        assert all(entry.version == version for entry, version in actor.promoted)

    # An edit that a promoter wrote over was recorded first, and each promoter's file belongs to its entry.
    for (data, by_hand), (_, next_by_hand) in zip(bucket.files, bucket.files[1:], strict=False):
        if by_hand and not next_by_hand:
            record = owner_of(sha256(data), history)
            assert record is not None
            assert (record.kind, record.version) == (Kind.HAND_EDIT, parse(data).version)
    written = [owner_of(sha256(data), history) for data, by_hand in bucket.files if not by_hand]
    assert all(entry is not None for entry in written)

    # Entries that were told to their authors came in the order of their generations, and the file never went back.
    for actor in actors.values():
        assert [entry.generation for entry in actor.done] == sorted(entry.generation for entry in actor.done)
    generations = [entry.generation for entry in written if entry is not None]
    assert generations == sorted(generations)

    # What is live is the last edit, if nobody overrode it, else the last entry; and the next change puts all right.
    state = promotions.state("m")
    if bucket.files and bucket.files[-1][1] and owner_of(sha256(bucket.files[-1][0]), history) is None:
        assert (state.edited_by_hand, state.version) == (True, parse(bucket.files[-1][0]).version)
    elif history:
        assert (state.edited_by_hand, state.version, state.generation) == (False, history[-1].version, len(history))
    before = state
    last = promotions.promote("m", "v1", force=True)
    state = promotions.state("m")
    assert (state.version, state.generation) == ("v1", last.generation)
    assert not state.stale_file
    assert not state.edited_by_hand
    # The edit that nobody had recorded, and then the promotion, unless that is in force already.
    in_force = (before.version, before.config, before.rollout) == ("v1", last.config, last.rollout)
    assert last.generation == len(history) + before.edited_by_hand + (not in_force)
