"""The answers of a group of ranks: the same for the n-th question, whoever asks first."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from modelrepo_runtime.child import ballot
from modelrepo_runtime.child.ballot import Ballot


def placed(folder: Path, ranks: int) -> list[Ballot]:
    ballot.make(folder / "ballot", ranks)
    return [Ballot(str(folder / "ballot"), rank) for rank in range(ranks)]


@pytest.mark.parametrize("ranks", [2, 4])
def test_the_nth_answer_is_the_same_on_every_rank_in_whatever_order_they_ask(tmp_path: Path, ranks: int) -> None:
    for seed in range(200):
        rng = random.Random(seed)
        folder = tmp_path / str(seed)
        folder.mkdir()
        places = placed(folder, ranks)
        answers: list[list[bool]] = [[] for _ in places]
        cancelled_after = rng.randrange(60)
        for step in range(150):
            rank = rng.randrange(ranks)
            answers[rank].append(places[rank].ask(rank == 0 and step >= cancelled_after))
        for place in places:
            place.close()
        first = [one.index(True) for one in answers if True in one]
        assert True in answers[0] and len(set(first)) == 1, (seed, answers)
        for one in answers:
            assert one == sorted(one)  # once yes, always yes
            assert len(one) <= first[0] or one[first[0]], (seed, answers)


def test_rank_0_that_asks_first_is_answered_at_once(tmp_path: Path) -> None:
    zero, one = placed(tmp_path, 2)
    assert not zero.ask(False) and zero.ask(True)
    assert [one.ask(False), one.ask(False)] == [False, True]


def test_a_rank_that_has_asked_more_often_puts_it_off(tmp_path: Path) -> None:
    zero, one = placed(tmp_path, 2)
    assert [one.ask(False) for _ in range(3)] == [False] * 3
    assert [zero.ask(True) for _ in range(4)] == [False, False, False, True]
    assert one.ask(False)


def test_no_other_rank_decides(tmp_path: Path) -> None:
    zero, one = placed(tmp_path, 2)
    assert [one.ask(True), zero.ask(False), one.ask(True)] == [False] * 3


def test_a_rank_that_was_killed_while_it_asked_keeps_nobody_waiting(tmp_path: Path) -> None:
    zero, _ = placed(tmp_path, 2)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from ballot import Ballot; one = Ballot(sys.argv[2], 1); "
        "one._hold(); print('held', flush=True); sys.stdin.read()"
    )
    folder = Path(ballot.__file__).parent
    command = [sys.executable, "-c", code, str(folder), str(tmp_path / "ballot")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        os.kill(holder.pid, signal.SIGKILL)
        assert zero.ask(True)


def test_a_signal_handler_may_ask_in_the_midst_of_a_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zero, one = placed(tmp_path, 2)
    inner: list[bool] = []
    read = one._read

    def interrupted() -> list[int]:
        if not inner:
            inner.append(False)
            inner.append(one.ask(False))
        return read()

    monkeypatch.setattr(one, "_read", interrupted)
    assert not one.ask(False)
    assert inner == [False, False]
    assert [zero.ask(True) for _ in range(3)] == [False, False, True]  # the other one has asked twice
