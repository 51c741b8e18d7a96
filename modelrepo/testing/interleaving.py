"""Actors of which one moves at a time, in virtual time: what a seed decides happens again with the same seed."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

from modelrepo.clock import Clock

SECOND, MINUTE, HOUR, DAY = 1.0, 60.0, 3600.0, 86400.0
_RANKED_ANEW = 0.15  # how often, at a move
_STUCK_S = 60.0  # real time: an actor that does not move is a fault of the test


class Actor:
    """One client: a thread that waits for its turn before everything that others can see."""

    def __init__(self, interleaving: Interleaving, name: str, skew_s: float) -> None:
        self.name, self._all = name, interleaving
        self.turn = threading.Semaphore(0)
        self.waits_since = self.wakes_at = interleaving.now
        self._skew_s = skew_s

    def wait_for_turn(self, *, until: float | None = None) -> float:
        """Let others move; returns how long it took, in virtual seconds."""
        began = self._all.now
        self.waits_since, self.wakes_at = began, began if until is None else until
        self._all.pass_on(self)
        return self._all.now - began

    def sleep(self, seconds: float) -> None:
        """Sleep in virtual time."""
        self.wait_for_turn(until=self._all.now + seconds)

    def clock(self) -> Clock:
        """Return the clock of this client's box, whose wall time is wrong."""
        return Clock(lambda: self._all.now + self._skew_s, lambda: self._all.now - 1000.0, self.sleep)

    def step_wall_clock(self, seconds: float) -> None:
        """Set the wall clock forward, or back."""
        self._skew_s += seconds


class Interleaving:
    """Runs actors; `longest_wait_s`: no actor that could move waits longer than this."""

    def __init__(self, seed: int, *, start: float = 1_700_000_000.0, longest_wait_s: float = 6 * HOUR) -> None:
        self.random = random.Random(seed)
        self.now = start
        self.moves = 0
        self._longest_wait_s = longest_wait_s
        self._alive: list[Actor] = []
        self._threads: list[threading.Thread] = []
        self._over = threading.Event()
        self._errors: list[BaseException] = []
        self._ranks: dict[Actor, float] = {}

    def spawn(self, name: str, work: Callable[[Actor], None]) -> None:
        """Add an actor; it begins with `run`."""
        actor = Actor(self, name, self.random.uniform(-3 * DAY, 3 * DAY))
        self._alive.append(actor)
        self._threads.append(threading.Thread(target=self._work, args=(actor, work), name=name, daemon=True))

    def run(self) -> None:
        """Let all actors come to their ends; raises the first error of one."""
        for thread in self._threads:
            thread.start()
        self._pick().turn.release()
        assert self._over.wait(_STUCK_S), "an actor did not give up its turn"
        for thread in self._threads:
            thread.join(_STUCK_S)
        if self._errors:
            raise self._errors[0]

    def pass_on(self, actor: Actor) -> None:
        """Let somebody move, perhaps `actor` again; returns when it is its turn."""
        chosen = self._pick()
        if chosen is not actor:
            chosen.turn.release()
            actor.turn.acquire()
        if self._errors:
            raise SystemExit

    def _work(self, actor: Actor, work: Callable[[Actor], None]) -> None:
        actor.turn.acquire()
        try:
            if not self._errors:
                work(actor)
        except SystemExit:
            pass
        except BaseException as error:  # noqa: BLE001 - it is raised by run
            self._errors.append(error)
        self._alive.remove(actor)
        if self._alive:
            self._pick().turn.release()
        else:
            self._over.set()

    def _pick(self) -> Actor:
        self.moves += 1
        self._let_time_pass()
        awake = [actor for actor in self._alive if actor.wakes_at <= self.now]
        if not awake:
            self.now = min(actor.wakes_at for actor in self._alive)
            awake = [actor for actor in self._alive if actor.wakes_at <= self.now]
        longest = min(awake, key=lambda actor: actor.waits_since)
        if self.now - max(longest.waits_since, longest.wakes_at) >= self._longest_wait_s:
            return longest
        # Ranks that seldom change: runs of one actor, cut at a few places, find more than an even mixture does.
        if self.random.random() < _RANKED_ANEW:
            self._ranks[self.random.choice(awake)] = self.random.random()
        return max(awake, key=lambda actor: self._ranks.get(actor, 0.5))

    def _let_time_pass(self) -> None:
        dice = self.random.random()
        if dice < 0.98:
            step_s = self.random.uniform(0, 2 * SECOND)
        elif dice < 0.998:
            step_s = self.random.uniform(0, 2 * MINUTE)
        else:
            step_s = self.random.uniform(0, 13 * HOUR)
        latest = min(max(actor.waits_since, actor.wakes_at) for actor in self._alive) + self._longest_wait_s
        self.now = max(self.now, min(self.now + step_s, latest))
