"""What the demo says: its lines, its tables, its picture, its signals."""

from __future__ import annotations

import io
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from modelrepo_cli.demo import contrast, downloads, interrupts, png, report, telling
from modelrepo_cli.demo.accounts import Accounts, TierWaits
from modelrepo_cli.demo.story import Ending, Recovery
from modelrepo_runtime.jobs import Job, Status


def ending() -> Ending:
    job = Job("job_1", "m", "api", "default", Status.SUCCEEDED, created_at=0.0, enqueued=0.0, version="v1")
    accounts = Accounts(
        jobs=12,
        lost=0,
        duplicates_accepted=0,
        stale_refused=1,
        retried=1,
        swaps=2,
        swap_gap_s=0.0123,
        by_version={"v1": 8, "v2": 4},
        waits=(TierWaits("api", 60.0, 5, 0.1, 3.0),),
    )
    return Ending(accounts, True, Recovery(job, 9.5, "worker-2/0"), Path("/x/digits.png"), Path("/x"), 41.26)


def test_the_json_object_has_exactly_the_promised_keys() -> None:
    assert report.document(ending()) == {
        "jobs": 12,
        "lost": 0,
        "duplicates_accepted": 0,
        "swaps": 2,
        "rolled_back": True,
        "picture": "/x/digits.png",
        "seconds": 41.3,
    }
    assert report.document(replace(ending(), picture=None))["picture"] is None


def test_the_tables_name_every_sum() -> None:
    text = report.text(ending())
    for part in ("12 (8 by v1, 4 by v2)", "12 ms", "9.5 s after the kill", "5.0%", "/x/digits.png"):
        assert part in text


def test_lines_carry_the_time_since_the_beginning() -> None:
    times = iter((100.0, 101.5))
    out = io.StringIO()
    telling.narrator(out, lambda: next(times))("pushed")
    assert out.getvalue() == "   1.5 s  pushed\n"


def test_two_pictures_are_put_side_by_side_under_their_names() -> None:
    made = png.decode(
        contrast.side_by_side({"v1": png.encode(png.blank(40, 10, 0)), "v2": png.encode(png.blank(40, 10, 90))})
    )
    assert made.width > 80
    assert any(0 in row and 90 in row for row in made.rows)
    assert any(60 in row for row in made.rows[:40])


def needs(*packages: downloads.Package, to_fetch: int) -> downloads.Needs:
    return downloads.Needs(packages, to_fetch)


def test_bare_python_fetches_nothing() -> None:
    assert downloads.describe(needs(to_fetch=0)) == ("the environment is bare Python: nothing is fetched",)


def test_a_cpu_wheel_of_this_box_is_told() -> None:
    torch = downloads.Package("torch", "2.13.0+cpu", 190 << 20, on_this_box=True)
    first, second = downloads.describe(needs(torch, to_fetch=0))
    assert "torch 2.13.0+cpu: the CPU build, 190.0 MiB, from a folder of wheels on this box" in first
    assert "nothing has to be fetched" in second


def test_a_cuda_build_is_told_with_its_whole_size_and_the_way_round_it() -> None:
    torch = downloads.Package("torch", "2.13.0", 900 << 20, on_this_box=False)
    nvidia = downloads.Package("nvidia-cublas", "13.0", 2 << 30, on_this_box=False)
    first, second = downloads.describe(needs(torch, nvidia, to_fetch=2))
    assert "the CUDA build, 2.9 GiB with all that it brings" in first
    assert "UV_FIND_LINKS" in first
    assert second == "2 packages are fetched from the index now, at most 2.9 GiB, and kept"


def test_sigterm_is_taken_as_ctrl_c_only_inside_the_block() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), interrupts.sigterm_as_ctrl_c():
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(30)
    assert signal.getsignal(signal.SIGTERM) is before


def test_another_thread_leaves_signals_alone() -> None:
    seen: list[object] = []

    def run() -> None:
        with interrupts.sigterm_as_ctrl_c():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]
