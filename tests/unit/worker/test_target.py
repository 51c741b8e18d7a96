import io
import threading
from dataclasses import dataclass, field

from modelrepo.errors import ModelRepoError, Unreachable, VersionNotFound
from modelrepo_runtime.worker.journal import Journal
from modelrepo_runtime.worker.target import Look, Target, TargetWatcher


@dataclass
class Watched:
    """A repository of one model, and everything that its watcher told."""

    now: Look | ModelRepoError
    told: list[Target] = field(default_factory=list)
    news: threading.Event = field(default_factory=threading.Event)
    log: io.StringIO = field(default_factory=io.StringIO)

    def look(self, model: str) -> Look:
        if isinstance(self.now, ModelRepoError):
            raise self.now
        return self.now

    def tell(self, target: Target) -> None:
        self.told.append(target)
        self.news.set()

    def watcher(self) -> TargetWatcher:
        return TargetWatcher(self.look, self.tell, Journal(self.log), poll_s=0.005)


V1, V2 = Target("m", "v1", "a" * 64, 1), Target("m", "v2", "b" * 64, 2)


def test_a_change_is_told_once() -> None:
    watched = Watched(Look("1", V1))
    watcher = watched.watcher()
    watcher.start()
    watcher.watch(["m"])
    assert watched.news.wait(20)
    watched.news.clear()
    watched.now = Look("2", V2)
    assert watched.news.wait(20)
    watcher.stop()
    assert watched.told == [V1, V2]
    assert watcher.known("m") == V2


def test_what_cannot_be_read_changes_nothing_and_is_said_once() -> None:
    watched = Watched(Unreachable("away"))
    watcher = watched.watcher()
    watcher.look_again("m")
    watcher.look_again("m")
    assert watched.log.getvalue().count("target-unreadable") == 1
    watched.now = VersionNotFound("no such version")
    watcher.look_again("m")
    watched.now = Look("1", None)
    watcher.look_again("m")
    assert watched.told == []
    assert "target-none" in watched.log.getvalue()


def test_a_look_at_a_store_that_does_not_answer_keeps_no_worker_from_leaving() -> None:
    looking, answers = threading.Event(), threading.Event()

    def look(model: str) -> Look:
        looking.set()
        assert answers.wait(20)
        return Look("1", None)

    watcher = TargetWatcher(look, lambda target: None, Journal(io.StringIO()), poll_s=0.005)
    watcher.start()
    watcher.watch(["m"])
    assert looking.wait(20)
    watcher.stop()
    assert not answers.is_set()
    answers.set()


def test_a_key_is_what_would_run_and_not_which_change_said_so() -> None:
    assert V1.key == Target("m", "v1", "a" * 64, 9, max_unavailable="2").key
    assert V1.key != V2.key
    assert V1.key != Target("m", "v1", "a" * 64, 1, {"threshold": 1}).key
    assert str(V1) == "m@v1"


def test_a_journal_line_can_be_read_by_people_and_programs() -> None:
    stream = io.StringIO()
    journal = Journal(stream, clock=lambda: 1.5)
    journal.say("event", plain="a", spaced="a b", none=None, number=0.25)
    assert stream.getvalue() == '1970-01-01T00:00:01.500Z event plain=a spaced="a b" number=0.250\n'
    stream.close()
    journal.say("to a closed stream")


def test_an_older_look_of_a_second_gateway_changes_nothing() -> None:
    watched = Watched(Look("new", V2, 2))
    watcher = watched.watcher()
    for look in (watched.now, Look("old", V1, 1), Look("new", V2, 2), Look("newer", V1, 3)):
        watched.now = look
        watcher.look_again("m")
    assert watched.told == [V2, V1]
