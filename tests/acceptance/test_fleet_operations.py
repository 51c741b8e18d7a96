"""Orders to a real worker with real children: cordons that outlast it, assignments, restarts by turns, its lines."""

from __future__ import annotations

from pathlib import Path

from modelrepo_runtime.queue.orders import GivenOrder, OrderDraft, Verb
from modelrepo_runtime.queue.port import SlotReport
from modelrepo_runtime.testing.live import LiveBox

ON_CPU = "stages: [{name: run, on: cpu}]\n"
PLAIN = """
class Model:
    def load(self, ctx):
        self.ctx = ctx

    def run(self, job):
        return {"version": self.ctx.version}
"""


def slots(box: LiveBox) -> dict[str, SlotReport]:
    return {slot.slot: slot for _, slot in box.slots("w")}


def order(box: LiveBox, verb: Verb, slot: str | None = None, argument: str | None = None) -> GivenOrder:
    """Give an order and wait until the worker has carried it out, or refused."""
    (given,) = box.queue.give_orders([OrderDraft("w", verb, slot, argument)])

    def now() -> GivenOrder:
        return next(each for each in box.queue.orders("w") if each.order.id == given.order.id)

    box.until(lambda: now().confirmed_at is not None, f"{verb} {slot} is carried out")
    return now()


def test_a_worker_does_as_it_is_told_and_remembers_it_when_it_starts_again(tmp_path: Path) -> None:
    with LiveBox(tmp_path) as box:
        old = box.push(PLAIN, yaml=ON_CPU)
        box.promote(old)
        other = box.push(PLAIN, yaml=ON_CPU, model="other")
        box.promote(other, model="other")
        worker = box.worker("w", slots="none", cpu_slots=2, models="live,other")
        served = ["live", "other"]
        box.until(lambda: sorted(s.model or "" for s in slots(box).values() if s.version) == served, "both are served")
        place = next(name for name, slot in slots(box).items() if slot.model == "live")
        second = next(name for name in slots(box) if name != place)

        order(box, Verb.ASSIGN, second, "live")
        box.until(lambda: [s.version for s in slots(box).values()] == [old, old], "both slots serve one model")
        before = {name: slot.extra["pid"] for name, slot in slots(box).items()}
        order(box, Verb.RESTART, None, "1")
        box.until(lambda: all(slot.extra["pid"] != before[name] for name, slot in slots(box).items()), "new children")

        new = box.push(PLAIN + "# changed\n", yaml=ON_CPU)
        order(box, Verb.ASSIGN, second, f"live@{new}")
        order(box, Verb.CORDON, place)
        assert (slots(box)[second].version, slots(box)[second].extra["pinned"]) == (new, new)
        jobs = [box.client.submit("live", {})["id"] for _ in range(3)]
        assert {box.client.wait(job, 60)["version"] for job in jobs} == {new}

        assert worker.stop() == 0
        box.again(worker)
        box.until(
            lambda: (
                {name: (slot.state, slot.version) for name, slot in slots(box).items()}
                == {place: ("cordoned", old), second: ("open", new)}
            ),
            "the worker has what it had",
        )
        order(box, Verb.UNCORDON)
        order(box, Verb.ASSIGN, second, "live")
        box.serves(old, slots=2)
        refused = order(box, Verb.ASSIGN, second, "nowhere")
        assert refused.refused and "serves only live, other" in (refused.answer or "")
        missing = order(box, Verb.ASSIGN, second, "live@v99")
        assert missing.refused and "v99" in (missing.answer or "")
        assert "ordered" in (order(box, Verb.LOGS).answer or "")
