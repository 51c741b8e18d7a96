"""Long polls and beats in one process, without a server: what is asked of the queue for many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from modelrepo.errors import InvalidInput, StaleSession
from modelrepo_runtime.gateway.worker_api.beats import Beats
from modelrepo_runtime.gateway.worker_api.polls import FEWEST, Polls
from modelrepo_runtime.jobs import Claim, Fence
from modelrepo_runtime.queue.port import BeatCall, BeatReply, ClaimCall, Offer, Session

OFFER = Offer("0", "m", "v1", ("run",))


class Jobs:
    """Answers claims from a count of jobs, and remembers how many were asked for at once."""

    def __init__(self) -> None:
        self.ready = 0
        self.asked: list[int] = []
        self.held: asyncio.Event | None = None

    async def claim_all(self, calls: Sequence[ClaimCall]) -> tuple[tuple[Claim, ...] | StaleSession, ...]:
        self.asked.append(len(calls))
        if self.held is not None:
            await self.held.wait()
        return tuple(self._one(call) for call in calls)

    def _one(self, call: ClaimCall) -> tuple[Claim, ...] | StaleSession:
        if call.session.id == "ended":
            return StaleSession("ended")
        if not self.ready or not call.offers:
            return ()
        self.ready -= 1
        return (claim_of(call),)


def claim_of(call: ClaimCall) -> Claim:
    return Claim(call.session.id, Fence(1, "x"), "m", "v1", "run", 0, True, 1, {}, None, "free", 0.0, 1.0, 0.0)


def call_of(session: str, seq: int = 1, offers: tuple[Offer, ...] = (OFFER,)) -> ClaimCall:
    return ClaimCall(Session(session), seq, offers)


def play(scene: Callable[[Polls, Jobs], Awaitable[None]]) -> Jobs:
    jobs = Jobs()

    async def run() -> None:
        polls = Polls(jobs.claim_all)
        await scene(polls, jobs)
        await polls.close()

    asyncio.run(run())
    return jobs


async def settled(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_one_wake_up_asks_for_a_few_polls_and_a_flood_for_more_and_more() -> None:
    async def scene(polls: Polls, jobs: Jobs) -> None:
        waiting = [asyncio.create_task(polls.claim(call_of(f"s{number}"), 60)) for number in range(200)]
        await settled()
        assert len(polls) == 200 and not any(task.done() for task in waiting)
        jobs.asked.clear()
        jobs.ready = 1
        polls.wake("m")
        await settled()
        assert jobs.asked == [FEWEST] and sum(task.done() for task in waiting) == 1
        jobs.asked.clear()
        jobs.ready = 100
        polls.wake("m")
        await settled(100)
        assert sum(task.done() for task in waiting) == 101
        assert jobs.asked[:3] == [FEWEST, 2 * FEWEST, 4 * FEWEST]

    play(scene)


def test_a_poll_that_could_run_other_jobs_is_not_asked_for() -> None:
    async def scene(polls: Polls, jobs: Jobs) -> None:
        other = asyncio.create_task(polls.claim(call_of("other", offers=(Offer("0", "n", "v1", ("run",)),)), 60))
        await settled()
        jobs.asked.clear()
        polls.wake("m")
        await settled()
        assert jobs.asked == [] and not other.done()
        other.cancel()

    play(scene)


def test_a_poll_ends_without_jobs_when_its_time_is_over_or_its_client_is_gone() -> None:
    async def scene(polls: Polls, _: Jobs) -> None:
        assert await polls.claim(call_of("late"), 0.01) == ()
        gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(polls.claim(call_of("gone"), 60, gone=gone))
        await settled()
        gone.set_result(None)
        assert await task == () and len(polls) == 0

    play(scene)


def test_a_repeat_waits_for_the_call_that_may_be_claiming_under_its_number() -> None:
    async def scene(polls: Polls, jobs: Jobs) -> None:
        jobs.held, jobs.ready = asyncio.Event(), 1
        first = asyncio.create_task(polls.claim(call_of("s"), 60))
        await settled()
        again = asyncio.create_task(polls.claim(call_of("s", offers=()), 0))
        await settled()
        assert not again.done() and jobs.asked == [1]
        jobs.held.set()
        assert len(await first) == 1
        await again
        assert jobs.asked == [1, 1]

    play(scene)


def test_an_ended_session_is_told_so() -> None:
    async def scene(polls: Polls, _: Jobs) -> None:
        with pytest.raises(StaleSession):
            await polls.claim(call_of("ended"), 60)

    play(scene)


def test_nobody_waits_at_a_gateway_that_stops() -> None:
    async def scene(polls: Polls, _: Jobs) -> None:
        waiting = asyncio.create_task(polls.claim(call_of("s"), 60))
        await settled()
        polls.stop_waiting()
        assert await waiting == () and await polls.claim(call_of("t"), 60) == ()

    play(scene)


def test_beats_that_come_while_others_are_told_are_told_together() -> None:
    told: list[int] = []

    async def run() -> None:
        go = asyncio.Event()

        async def beat_all(calls: Sequence[BeatCall]) -> tuple[BeatReply | StaleSession, ...]:
            told.append(len(calls))
            await go.wait()
            if len(calls) > 1 and any(call.session.id == "bad" for call in calls):
                raise InvalidInput("one of them")
            if calls[0].session.id == "bad":
                raise InvalidInput("bad")
            return tuple(
                StaleSession("ended") if call.session.id == "ended" else BeatReply(frozenset(), frozenset())
                for call in calls
            )

        beats = Beats(beat_all)
        names = ["s0", "s1", "ended", "s2", "bad"]
        tasks = []
        for name in names:
            tasks.append(asyncio.create_task(beats.beat(BeatCall(Session(name), (), ()))))
            await settled(5)
        go.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(answer).__name__ for answer in answers] == [
            "BeatReply", "BeatReply", "StaleSession", "BeatReply", "InvalidInput",
        ]  # fmt: skip
        await beats.close()

    asyncio.run(run())
    assert told[:2] == [1, 4]
