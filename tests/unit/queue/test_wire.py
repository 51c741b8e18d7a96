from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any

import pytest

from modelrepo.errors import InvalidInput, JobNotFound, ModelRepoError, StaleFence, Unreachable
from modelrepo_runtime.jobs import Cause, Claim, Fence, Json, Outcome, OutputFile, Status
from modelrepo_runtime.queue.http.calls import LOCAL_CALLS, calls, read_arguments, to_bytes, write_arguments
from modelrepo_runtime.queue.http.queue import HttpQueue
from modelrepo_runtime.queue.http.wire import Misread, read, write
from modelrepo_runtime.queue.port import BeatReply, FinishReply, JobFilter, JobQueue
from modelrepo_runtime.remote.failures import tell, told

CLAIM = Claim(
    "job_1",
    Fence(7, "ab"),
    "m",
    "v1",
    "run",
    0,
    True,
    1,
    {"n": [1, None]},
    None,
    "free",
    1.5,
    60.0,
    1.0,
    {"image": "k"},
)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Claim, CLAIM),
        (tuple[Claim, ...], (CLAIM, CLAIM)),
        (Outcome, Outcome(Cause.SUCCEEDED, {"a": 1}, (OutputFile("o", "k", 3, "text/plain"),))),
        (BeatReply, BeatReply(frozenset({"job_1"}), frozenset({("job_2", Fence(1, "x"))}), versions={"m": ("v1",)})),
        (FinishReply, FinishReply(Status.QUEUED, CLAIM)),
        (JobFilter | tuple[str, ...], JobFilter(status=Status.FAILED)),
        (JobFilter | tuple[str, ...], ("job_1",)),
        (str | None, None),
        (float, 1),
    ],
)
def test_what_is_written_is_read_again(kind: Any, value: Any) -> None:
    assert read(kind, write(kind, value), "it") == value


def test_errors_travel_as_what_they_are() -> None:
    kind = tuple[FinishReply | StaleFence, ...]
    (done, refused) = read(kind, write(kind, (FinishReply(Status.SUCCEEDED), StaleFence("gone"))), "ends")
    assert done == FinishReply(Status.SUCCEEDED)
    assert isinstance(refused, StaleFence) and str(refused) == "gone"


@dataclass
class Newer:
    name: str
    colour: str = "red"
    more: Json = field(default_factory=dict)


def test_a_newer_peer_may_say_more_and_an_older_one_less() -> None:
    assert read(Newer, {"name": "n", "size": 3}, "it") == Newer("n")


@pytest.mark.parametrize(
    ("kind", "value", "place"),
    [
        (Newer, {"colour": "red"}, "it: 'name' of Newer"),
        (tuple[Newer, ...], [{"name": 1}], r"it\[0\].name: a text"),
        (FinishReply, {"status": "melted"}, "it.status: one of queued"),
        (dict[str, int], {"a": True}, "it.a: a whole number"),
        (tuple[str, int], ["a"], "it: a list of 2"),
        (JobFilter | tuple[str, ...], {"limit": "x"}, "it.limit"),
        (frozenset[str], "abc", "it: a list"),
    ],
)
def test_another_shape_is_refused_with_its_place(kind: Any, value: Any, place: str) -> None:
    with pytest.raises(Misread, match=place):
        read(kind, value, "it")


def test_what_json_cannot_say_is_refused_before_it_is_sent() -> None:
    outcome = write_arguments(calls()["finish"], {"outcome": Outcome(Cause.SUCCEEDED, {1, 2})})
    for document in (outcome, {"x": float("inf")}):
        with pytest.raises(InvalidInput, match="no JSON"):
            to_bytes(document, "it")


def test_an_error_of_a_newer_peer_is_taken_for_what_stands_above_it() -> None:
    document = {**tell(JobNotFound("no job 1")), "code": "job_melted"}
    error = told({**document, "kinds": ["job_melted", "not_found", "model_repo_error"]})
    assert type(error).__name__ == "NotFound" and str(error) == "no job 1"
    assert told({"code": "x", "message": "m"}) is None
    away = told(tell(Unreachable("away")), 503)
    assert isinstance(away, Unreachable) and (away.transient, away.status) == (True, 503)


def test_every_error_of_ours_survives_the_way() -> None:
    def tree(kind: type[ModelRepoError]) -> list[type[ModelRepoError]]:
        return [kind, *(child for each in kind.__subclasses__() for child in tree(each))]

    for kind in tree(ModelRepoError):
        if kind.__module__ == "modelrepo.errors":
            error = kind.__new__(kind)
            Exception.__init__(error, "why")
            assert type(told(tell(error))) is kind


def test_the_queue_over_http_has_every_method_of_the_port() -> None:
    port = {name for name, _ in inspect.getmembers(JobQueue, inspect.isfunction) if not name.startswith("_")}
    assert set(calls()) | LOCAL_CALLS == port
    assert all(hasattr(HttpQueue, name) or name in calls() for name in port)
    arguments = read_arguments(calls()["renew_turn"], {"model": "m", "slot_key": "w/0", "ttl_s": 5, "new": 1})
    assert arguments == {"model": "m", "slot_key": "w/0", "ttl_s": 5}
