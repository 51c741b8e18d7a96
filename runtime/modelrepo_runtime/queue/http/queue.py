"""HttpQueue: the JobQueue port over a gateway."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from modelrepo.errors import StaleFence, StaleSession, Unreachable
from modelrepo_runtime.jobs import Cause, Claim, Fence, Job, Json, Outcome, Status, Submission
from modelrepo_runtime.queue.desired import Look
from modelrepo_runtime.queue.http.calls import (
    LONGEST_POLL_S,
    ModelStanding,
    Welcome,
    calls,
    to_bytes,
    write_arguments,
)
from modelrepo_runtime.queue.http.listening import HttpWaiter
from modelrepo_runtime.queue.http.talk import Talk
from modelrepo_runtime.queue.http.wire import Misread, read
from modelrepo_runtime.queue.port import (
    BeatCall,
    BeatReply,
    ClaimCall,
    Deleted,
    Explanation,
    FinishReply,
    HistoryRow,
    JobFilter,
    Offer,
    Reaped,
    Session,
    SlotReport,
    Tier,
    Waiter,
    WorkerInfo,
    WorkerReport,
)
from modelrepo_runtime.remote.connection import ANSWER_TIMEOUT_S, Interrupt

_ALL = JobFilter()
_REPEATABLE = frozenset({"claim", "finish", "finish_all", "beat", "hand_back", "start", "renew_turn", "take_turn"})
"""Beside those that only read: the same again gets the same answer."""
_READS = frozenset({"get", "list", "beats", "fleet", "tiers", "explain", "history", "pinned_waiting"})
_ON_THE_WAY_S = 10.0


class HttpQueue:
    """A queue behind a gateway; may be shared by threads. See JobQueue for what each method guarantees."""

    def __init__(self, url: str, token: str | None = None, talk: Talk | None = None) -> None:
        self.talk = talk or Talk(url, token)
        self.url = self.talk.url
        self._looks: dict[str, Look] = {}
        self._watched: frozenset[str] = frozenset()
        self._on_targets: Callable[[], None] = lambda: None

    # What a worker asks beyond the port.

    def welcome(self) -> Welcome:
        """Return what the gateway has to tell this box. Raises: Unreachable, Forbidden, NewerFormat."""
        return cast(Welcome, self._read(Welcome, self.talk.get("/v1/worker/welcome"), "welcome"))

    def poll(
        self, session: Session, seq: int, offers: Sequence[Offer], timeout_s: float, interrupt: Interrupt
    ) -> tuple[Claim, ...]:
        """Claim, and wait for jobs where there are none, up to `timeout_s`; `interrupt` ends that at once.

        Answers early, without jobs, where a model that is watched got another target. An interrupted poll has either
        claimed, and returns that, or never will.
        """
        wait_s = min(timeout_s, LONGEST_POLL_S)
        try:
            return self._claim(session, seq, offers, wait_s, interrupt)
        except Unreachable:
            if not interrupt.is_set:
                raise
        return self.claim(session, seq, ())

    def watch(self, models: Sequence[str], on_change: Callable[[], None]) -> None:
        """Ask to be told of the targets of these models; `on_change` is called from the thread that heard of one."""
        self._watched, self._on_targets = frozenset(models), on_change

    def look(self, model: str) -> Look | None:
        """Return what was last heard of a model's target; None before that."""
        return self._looks.get(model)

    def look_now(self, models: Sequence[str]) -> None:
        """Ask for the targets of models."""
        body = to_bytes({"models": list(models), "known": self._known(models)}, "targets")
        self._hear(self.talk.post("/v1/worker/targets", body, repeatable=True))

    def standing(self, models: Sequence[str]) -> Mapping[str, ModelStanding]:
        """Say how many jobs wait for each model, and how many live slots of the fleet serve it."""
        body = to_bytes({"models": list(models)}, "standing")
        answer = self.talk.post("/v1/worker/standing", body, repeatable=True)
        return cast("Mapping[str, ModelStanding]", self._read(dict[str, ModelStanding], answer, "standing"))

    # The port.

    def submit(self, submission: Submission, *, idempotency_key: str | None = None) -> Job:
        return cast(
            Job,
            self._call(
                "submit", repeatable=idempotency_key is not None, submission=submission, idempotency_key=idempotency_key
            ),
        )

    def get(self, job_id: str) -> Job:
        return cast(Job, self._call("get", job_id=job_id))

    def list(self, where: JobFilter = _ALL) -> tuple[Job, ...]:
        return cast("tuple[Job, ...]", self._call("list", where=where))

    def cancel(self, job_id: str) -> Job:
        return cast(Job, self._call("cancel", job_id=job_id))

    def retry(self, which: Sequence[str] | JobFilter, *, force: bool = False, dry_run: bool = False) -> tuple[str, ...]:
        return cast("tuple[str, ...]", self._call("retry", which=which, force=force, dry_run=dry_run))

    def delete(self, job_id: str) -> Deleted:
        return cast(Deleted, self._call("delete", job_id=job_id))

    def hello(self, info: WorkerInfo) -> Session:
        return cast(Session, self._call("hello", info=info))

    def goodbye(self, session: Session) -> None:
        self._call("goodbye", session=session)

    def claim(self, session: Session, seq: int, offers: Sequence[Offer]) -> tuple[Claim, ...]:
        return self._claim(session, seq, offers, 0.0, None)

    def claim_all(self, calls: Sequence[ClaimCall]) -> tuple[tuple[Claim, ...] | StaleSession, ...]:
        return tuple(_settled(lambda c=call: self.claim(c.session, c.seq, c.offers)) for call in calls)  # type: ignore[misc]

    def finish(
        self, session: Session, job_id: str, fence: Fence, outcome: Outcome, *, then: Offer | None = None
    ) -> FinishReply:
        return cast(
            FinishReply,
            self._call("finish", session=session, job_id=job_id, fence=fence, outcome=outcome, then=then),
        )

    def finish_all(
        self, session: Session, ends: Sequence[tuple[str, Fence, Outcome]]
    ) -> tuple[FinishReply | StaleFence, ...]:
        return cast("tuple[FinishReply | StaleFence, ...]", self._call("finish_all", session=session, ends=ends))

    def hand_back(self, session: Session, job_id: str, fence: Fence, cause: Cause) -> Status:
        return cast(Status, self._call("hand_back", session=session, job_id=job_id, fence=fence, cause=cause))

    def progress(self, job_id: str, fence: Fence, fraction: float | None, message: str | None) -> None:
        self._call("progress", job_id=job_id, fence=fence, fraction=fraction, message=message)

    def beat(self, session: Session, held: Sequence[tuple[str, Fence]], slots: Sequence[SlotReport]) -> BeatReply:
        more = {"known": self._known(self._watched)}
        return cast(BeatReply, self._call("beat", more=more, session=session, held=held, slots=slots))

    def beat_all(self, calls: Sequence[BeatCall]) -> tuple[BeatReply | StaleSession, ...]:
        return tuple(_settled(lambda c=call: self.beat(c.session, c.held, c.slots)) for call in calls)  # type: ignore[misc]

    def beats(self) -> Mapping[str, int]:
        return cast("Mapping[str, int]", self._call("beats"))

    def expire_session(self, session_id: str, beat: int) -> tuple[Reaped, ...]:
        return cast("tuple[Reaped, ...]", self._call("expire_session", session_id=session_id, beat=beat))

    def tend(self) -> None:
        self._call("tend")

    def pinned_waiting(self) -> tuple[tuple[str, str], ...]:
        return cast("tuple[tuple[str, str], ...]", self._call("pinned_waiting"))

    def restart_pinned(self, model: str, version: str) -> int:
        return cast(int, self._call("restart_pinned", model=model, version=version))

    def fleet(self) -> tuple[WorkerReport, ...]:
        return cast("tuple[WorkerReport, ...]", self._call("fleet"))

    def take_turn(self, model: str, slot_key: str, slots_total: int, max_unavailable: str, ttl_s: float) -> bool:
        answer = self._call(
            "take_turn", model=model, slot_key=slot_key, slots_total=slots_total, max_unavailable=max_unavailable,
            ttl_s=ttl_s,
        )  # fmt: skip
        return cast(bool, answer)

    def renew_turn(self, model: str, slot_key: str, ttl_s: float) -> bool:
        return cast(bool, self._call("renew_turn", model=model, slot_key=slot_key, ttl_s=ttl_s))

    def end_turn(self, model: str, slot_key: str) -> None:
        self._call("end_turn", model=model, slot_key=slot_key)

    def tiers(self) -> tuple[Tier, ...]:
        return cast("tuple[Tier, ...]", self._call("tiers"))

    def set_tier(self, name: str, *, slo_s: float | None = None, allowed_miss: float | None = None) -> Tier:
        return cast(Tier, self._call("set_tier", name=name, slo_s=slo_s, allowed_miss=allowed_miss))

    def set_default_tier(self, name: str) -> None:
        self._call("set_default_tier", name=name)

    def explain(self, job_id: str) -> Explanation:
        return cast(Explanation, self._call("explain", job_id=job_id))

    def history(self, job_id: str | None = None) -> tuple[HistoryRow, ...]:
        return cast("tuple[HistoryRow, ...]", self._call("history", job_id=job_id))

    def waiter(self, models: Sequence[str] = (), *, jobs: Sequence[str] = ()) -> Waiter:
        return HttpWaiter(self.talk, models, jobs)

    def close(self) -> None:
        self.talk.connections.close()

    # How they are sent.

    def _claim(
        self, session: Session, seq: int, offers: Sequence[Offer], wait_s: float, interrupt: Interrupt | None
    ) -> tuple[Claim, ...]:
        more = {"wait_s": wait_s, "known": self._known(self._watched)}
        answer = self._call(
            "claim", more=more, interrupt=interrupt, timeout_s=wait_s + ANSWER_TIMEOUT_S,
            session=session, seq=seq, offers=offers,
        )  # fmt: skip
        return cast("tuple[Claim, ...]", answer)

    def _call(
        self,
        name: str,
        /,
        *,
        more: Mapping[str, Json] | None = None,
        repeatable: bool = False,
        timeout_s: float = ANSWER_TIMEOUT_S,
        interrupt: Interrupt | None = None,
        **arguments: Any,
    ) -> Any:
        call = calls()[name]
        body = to_bytes({**write_arguments(call, arguments), **(more or {})}, f"the arguments of {name}")
        again = repeatable or name in _REPEATABLE or name in _READS
        answer = self.talk.post(call.path, body, timeout_s=timeout_s, repeatable=again, interrupt=interrupt)
        self._hear(answer)
        return self._read(call.answer, answer.get("answer") if isinstance(answer, dict) else None, name)

    def _read(self, kind: Any, answer: Json, name: str) -> Any:
        try:
            return read(kind, answer, name)
        except Misread as error:
            raise Unreachable(
                f"gateway {self.url} answers with what we cannot read: {error}; is it older than this modelrepo?",
                transient=False,
            ) from error

    def _known(self, models: Sequence[str] | frozenset[str]) -> dict[str, int]:
        looks = self._looks
        return {model: looks[model].seq if model in looks else 0 for model in models}

    def _hear(self, answer: Json) -> None:
        """Take the targets that came with an answer; an older one than is known changes nothing."""
        targets = answer.get("targets") if isinstance(answer, dict) else None
        if not targets:
            return
        changed = False
        for look in self._read(tuple[Look, ...], targets, "targets"):
            known = self._looks.get(look.model)
            if known is None or look.seq > known.seq:
                self._looks = {**self._looks, look.model: look}
                changed = True
        if changed:
            self._on_targets()


def _settled(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except StaleSession as error:
        return error
