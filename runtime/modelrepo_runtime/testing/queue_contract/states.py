"""What running stages save: carried by the next claim, gone with the stage, and never from a stale holder."""

from __future__ import annotations

import pytest

from modelrepo.errors import InvalidInput, StaleFence
from modelrepo_runtime.jobs import Cause, Claim, KeptState, Outcome, StageNeed, Status
from modelrepo_runtime.queue.port import Session
from modelrepo_runtime.testing.queue_contract.bench import Bench

STAGES = (StageNeed("first", "gpu"), StageNeed("second", "gpu"))


def state_of(claim: Claim, number: int) -> KeptState:
    key = f"jobs/2026-01-01/{claim.job_id}/{claim.fence}/state-{number}"
    return KeptState(number, claim.fence.number, "d" * 64, key, 1000 + number, f"{number:064x}")


def save(bench: Bench, claim: Claim, *numbers: int) -> tuple[KeptState, ...]:
    states = tuple(state_of(claim, number) for number in numbers)
    for state in states:
        bench.queue.save_state(claim.job_id, claim.fence, state)
    return states


def running(bench: Bench) -> tuple[Session, Claim]:
    bench.submit()
    session = bench.worker()
    return session, bench.claim_one(session)


class StateContract:
    def test_the_next_attempt_gets_the_two_newest_states(self, bench: Bench) -> None:
        session, claim = running(bench)
        assert claim.states == ()
        one, two, three = save(bench, claim, 1, 2, 3)
        assert bench.queue.dropped_states() == (one.key,)
        bench.queue.hand_back(session, claim.job_id, claim.fence, Cause.PREEMPTED)
        again = bench.claim_one(session)
        assert again.states == (three, two)
        assert bench.queue.claim(session, bench.seq, ())[0].states == (three, two)
        (four,) = save(bench, again, 4)
        bench.fail(session, again, Cause.CRASH)
        bench.clock.advance(100)
        bench.queue.tend()
        assert bench.claim_one(bench.worker("other")).states == (four, three)

    def test_a_state_is_saved_twice_and_counts_once(self, bench: Bench) -> None:
        session, claim = running(bench)
        (one,) = save(bench, claim, 1)
        save(bench, claim, 1)
        bench.queue.hand_back(session, claim.job_id, claim.fence, Cause.PREEMPTED)
        save(bench, claim, 1)  # its first answer was lost, and the attempt is over: it still is what it was
        assert bench.queue.dropped_states() == ()
        assert bench.claim_one(session).states == (one,)

    def test_who_lost_the_lease_moves_nothing_and_leaves_nothing(self, bench: Bench) -> None:
        session, claim = running(bench)
        (one,) = save(bench, claim, 1)
        bench.queue.hand_back(session, claim.job_id, claim.fence, Cause.PREEMPTED)
        again = bench.claim_one(session)
        late = state_of(claim, 2)
        with pytest.raises(StaleFence):
            bench.queue.save_state(claim.job_id, claim.fence, late)
        assert bench.queue.dropped_states() == (late.key,)
        bench.queue.hand_back(session, again.job_id, again.fence, Cause.PREEMPTED)
        assert bench.claim_one(session).states == (one,)

    def test_states_go_with_their_stage(self, bench: Bench) -> None:
        bench.submit(stages=STAGES)
        session = bench.worker()
        first = bench.claim_one(session, stages=("first", "second"))
        save(bench, first, 1, 2)
        assert bench.finish(session, first, Outcome(Cause.SUCCEEDED, {})) is Status.QUEUED
        second = bench.claim_one(session, stages=("first", "second"))
        assert (second.stage, second.states) == ("second", ())
        assert bench.queue.get(second.job_id).progress is None
        assert set(bench.queue.dropped_states()) == {state_of(first, 1).key, state_of(first, 2).key}

    @pytest.mark.parametrize("cause", [Cause.SUCCEEDED, Cause.REJECTED, Cause.CANCELLED])
    def test_states_go_with_their_job(self, bench: Bench, cause: Cause) -> None:
        session, claim = running(bench)
        states = save(bench, claim, 1, 2)
        assert bench.queue.wanted_states([claim.job_id, "job_unknown"]) == (claim.job_id,)
        if cause is Cause.CANCELLED:
            bench.queue.cancel(claim.job_id)
        bench.finish(session, claim, Outcome(cause))
        assert bench.queue.wanted_states([claim.job_id]) == ()
        assert set(bench.queue.dropped_states()) == {state.key for state in states}
        assert len(bench.queue.dropped_states(1)) == 1
        bench.queue.forget_dropped_states([state.key for state in states])
        bench.queue.forget_dropped_states([states[0].key])
        assert bench.queue.dropped_states() == ()

    def test_states_of_a_waiting_job_go_when_it_is_cancelled_or_deleted(self, bench: Bench) -> None:
        for act in (bench.queue.cancel, bench.queue.delete):
            session, claim = running(bench)
            (state,) = save(bench, claim, 1)
            bench.queue.hand_back(session, claim.job_id, claim.fence, Cause.PREEMPTED)
            act(claim.job_id)
            assert bench.queue.dropped_states() == (state.key,)
            bench.queue.forget_dropped_states([state.key])

    def test_shown_progress_never_falls_once_a_state_is_saved(self, bench: Bench) -> None:
        session, claim = running(bench)
        bench.queue.progress(claim.job_id, claim.fence, 0.5, "half")
        save(bench, claim, 1)
        bench.queue.progress(claim.job_id, claim.fence, 0.6, "more")
        bench.queue.hand_back(session, claim.job_id, claim.fence, Cause.PREEMPTED)
        assert bench.queue.get(claim.job_id).progress == 0.6
        again = bench.claim_one(session)
        bench.queue.progress(again.job_id, again.fence, 0.5, "again")
        shown = bench.queue.get(claim.job_id)
        assert (shown.progress, shown.message) == (0.6, "again")
        bench.queue.progress(again.job_id, again.fence, 0.7, None)
        assert bench.queue.get(claim.job_id).progress == 0.7

    def test_an_attempt_without_a_state_begins_anew(self, bench: Bench) -> None:
        session, claim = running(bench)
        bench.queue.progress(claim.job_id, claim.fence, 0.5, "half")
        bench.queue.hand_back(session, claim.job_id, claim.fence, Cause.PREEMPTED)
        assert bench.queue.get(claim.job_id).progress is None

    def test_a_key_that_is_not_the_attempts_own_is_refused(self, bench: Bench) -> None:
        _, claim = running(bench)
        for key in ("jobs/2026-01-01/job_other/1-a/state-1", "uploads/x", f"jobs/d/{claim.job_id}/{claim.fence}/out"):
            state = KeptState(1, claim.fence.number, "d", key, 1, "s")
            with pytest.raises(InvalidInput):
                bench.queue.save_state(claim.job_id, claim.fence, state)
        assert bench.queue.dropped_states() == ()
