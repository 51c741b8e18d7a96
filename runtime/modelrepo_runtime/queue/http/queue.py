"""HttpQueue: the JobQueue port over a gateway."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

from modelrepo.errors import StaleSession, Unreachable
from modelrepo_runtime.jobs import Claim, Fence, Json, stored_keys
from modelrepo_runtime.queue.demand import LaneDemand
from modelrepo_runtime.queue.desired import Look
from modelrepo_runtime.queue.http.calls import (
    ModelStanding,
    Welcome,
    calls,
    to_bytes,
    write_arguments,
)
from modelrepo_runtime.queue.http.listening import HttpWaiter
from modelrepo_runtime.queue.http.wire import Misread, read
from modelrepo_runtime.queue.port import (
    LONGEST_POLL_S,
    BeatCall,
    BeatReply,
    ClaimCall,
    JobQueue,
    Offer,
    Session,
    SlotReport,
    Waiter,
)
from modelrepo_runtime.remote.connection import ANSWER_TIMEOUT_S, Interrupt
from modelrepo_runtime.remote.talk import Talk

_REPEATABLE = frozenset(
    {
        "finish", "finish_all", "hand_back", "start", "renew_turn", "take_turn", "end_turn", "goodbye", "cancel",
        "get", "list", "beats", "fleet", "tiers", "explain", "history", "pinned_waiting", "active_seen",
        "explain_worker", "queue_report", "slots_serving", "failing_versions", "refuse_swap", "accept_swap", "halt_of",
        "save_state", "wanted_states", "dropped_states", "forget_dropped_states",
    }
)  # fmt: skip
"""The same again has the same effect, and gets the same answer: sent again where a kept connection was closed."""


_KEPT_KEYS = 10_000


class HttpQueue:
    """A queue behind a gateway; may be shared by threads. See JobQueue for what each method guarantees.

    It has every method of the port, most of them by the port's own signature: to type checkers, `as_queue` is one.
    """

    def __init__(self, talk: Talk) -> None:
        self.talk = talk
        self.url = talk.url
        self._job_of: OrderedDict[str, str] = OrderedDict()
        self._answer_s = ANSWER_TIMEOUT_S
        self._looks: dict[str, Look] = {}
        self._watched: frozenset[str] = frozenset()
        self._on_targets: Callable[[], None] = lambda: None

    @property
    def as_queue(self) -> JobQueue:
        """This queue, as what it is by its methods."""
        return cast(JobQueue, self)

    # What a worker asks beyond the port.

    def welcome(self) -> Welcome:
        """Return what the gateway has to tell this box. Raises: Unreachable, Forbidden, NewerFormat."""
        found = cast(Welcome, self._read(Welcome, self.talk.get("/v1/worker/welcome"), "welcome"))
        # A call that a lost box will never answer must not cost the lease.
        self._answer_s = min(ANSWER_TIMEOUT_S, max(2.0, found.timing.lease_s / 3))
        return found

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

    def active_models(self) -> tuple[str, ...]:
        """Name the models that our token may serve and that have an active version."""
        answer = self.talk.post(
            "/v1/worker/targets", to_bytes({"models": [], "active": True}, "targets"), repeatable=True
        )
        names = answer.get("models") if isinstance(answer, dict) else None
        return cast("tuple[str, ...]", self._read(tuple[str, ...], names, "targets"))

    def job_of(self, key: str) -> str | None:
        """Return the job whose input a file is, of those that were claimed here."""
        return self._job_of.get(key)

    def standing(self, models: Sequence[str]) -> Mapping[str, ModelStanding]:
        """Say how many jobs wait for each model, and how many live slots of the fleet serve it."""
        body = to_bytes({"models": list(models)}, "standing")
        answer = self.talk.post("/v1/worker/standing", body, repeatable=True)
        return cast("Mapping[str, ModelStanding]", self._read(dict[str, ModelStanding], answer, "standing"))

    def demand(self, models: Sequence[str]) -> Mapping[str, tuple[LaneDemand, ...]]:
        """Say what waits for each model, lane by lane; what the gateway does not know is left out."""
        answer = self.talk.post("/v1/worker/demand", to_bytes({"models": list(models)}, "demand"), repeatable=True)
        return cast(
            "Mapping[str, tuple[LaneDemand, ...]]", self._read(dict[str, tuple[LaneDemand, ...]], answer, "demand")
        )

    # The port: what is not here is sent as it is, see `__getattr__`.

    def claim(self, session: Session, seq: int, offers: Sequence[Offer]) -> tuple[Claim, ...]:
        """See JobQueue."""
        return self._claim(session, seq, offers, 0.0, None)

    def claim_all(self, calls: Sequence[ClaimCall]) -> tuple[tuple[Claim, ...] | StaleSession, ...]:
        """See JobQueue, but in one transaction each."""
        return tuple(_settled(partial(self.claim, call.session, call.seq, call.offers)) for call in calls)

    def beat(self, session: Session, held: Sequence[tuple[str, Fence]], slots: Sequence[SlotReport]) -> BeatReply:
        """See JobQueue."""
        known = {"known": self._known(self._watched)}
        reply = self._call("beat", {"session": session, "held": held, "slots": slots}, more=known)
        return cast(BeatReply, reply)

    def beat_all(self, calls: Sequence[BeatCall]) -> tuple[BeatReply | StaleSession, ...]:
        """See JobQueue, but in one transaction each."""
        return tuple(_settled(partial(self.beat, call.session, call.held, call.slots)) for call in calls)

    def progress(self, job_id: str, fence: Fence, fraction: float | None, message: str | None) -> None:
        """See JobQueue. What is no number is not sent: nobody could be shown it."""
        shown = fraction if fraction is not None and math.isfinite(fraction) else None
        self._call("progress", {"job_id": job_id, "fence": fence, "fraction": shown, "message": message})

    def waiter(self, models: Sequence[str] = (), *, jobs: Sequence[str] = ()) -> Waiter:
        """See JobQueue."""
        return HttpWaiter(self.talk, models, jobs)

    def close(self) -> None:
        """See JobQueue."""
        self.talk.connections.close()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Return the port's method of this name: its arguments are sent, and what comes back is its answer."""
        if name not in calls():
            raise AttributeError(f"{type(self).__name__} has no {name!r}")
        return partial(self._invoke, name)

    # How they are sent.

    def _claim(
        self, session: Session, seq: int, offers: Sequence[Offer], wait_s: float, interrupt: Interrupt | None
    ) -> tuple[Claim, ...]:
        arguments = {"session": session, "seq": seq, "offers": offers}
        more = {"wait_s": wait_s, "known": self._known(self._watched)}
        timeout_s = wait_s + self._answer_s
        answer = self._call("claim", arguments, more=more, timeout_s=timeout_s, interrupt=interrupt)
        claims = cast("tuple[Claim, ...]", answer)
        for claim in claims:
            for key in stored_keys(claim.files, claim.adapters):
                self._job_of[key] = claim.job_id
        while len(self._job_of) > _KEPT_KEYS:
            self._job_of.popitem(last=False)
        return claims

    def _invoke(self, name: str, *positional: Any, **named: Any) -> Any:
        arguments = calls()[name].signature.bind(*positional, **named).arguments
        is_repeatable = name in _REPEATABLE or (name == "submit" and arguments.get("idempotency_key") is not None)
        return self._call(name, arguments, repeatable=is_repeatable)

    def _call(
        self,
        name: str,
        arguments: Mapping[str, Any],
        *,
        more: Mapping[str, Json] | None = None,
        repeatable: bool = True,
        timeout_s: float | None = None,
        interrupt: Interrupt | None = None,
    ) -> Any:
        call = calls()[name]
        body = to_bytes({**write_arguments(call, arguments), **(more or {})}, f"the arguments of {name}")
        limit_s = self._answer_s if timeout_s is None else timeout_s
        answer = self.talk.post(call.path, body, timeout_s=limit_s, repeatable=repeatable, interrupt=interrupt)
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
