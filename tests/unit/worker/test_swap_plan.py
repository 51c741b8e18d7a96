from pathlib import Path

import pytest

from modelrepo.contract.spec import StageSpec
from modelrepo_runtime.worker.footprint import Footprint, Learnt, declared, expected, unpooled
from modelrepo_runtime.worker.swap_plan import GIB, MIB, Room, SwapFacts, plan

BIG = Room(100 * GIB, 128 * GIB)


def facts(
    wish: str = "auto",
    host: int | None = GIB,
    device: int | None = 30 * GIB,
    free: int | None = 40 * GIB,
    total: int = 80 * GIB,
    inplace: tuple[str, ...] = ("nothing serves",),
) -> SwapFacts:
    return SwapFacts(wish, Footprint(host, device, "declared"), Footprint(), BIG, Room(free, total), inplace)


@pytest.mark.parametrize(
    ("given", "mode", "reason"),
    [
        (facts(), "overlap", "device needs 31.5 GiB"),
        (facts(free=31 * GIB), "drain", "31.0 GiB are free beside the old version"),
        (facts("overlap", free=31 * GIB), "drain", "model.yaml asks for overlap, which does not fit"),
        (facts("overlap"), "overlap", "declared"),
        (facts("drain"), "drain", "model.yaml asks for drain"),
        (facts("inplace"), "overlap", "inplace is not possible: nothing serves"),
        (facts(device=90 * GIB), "refuse", "more than the 80.0 GiB that this slot has"),
        (facts("drain", host=200 * GIB), "refuse", "more than the 128.0 GiB"),
        (facts(device=None), "drain", "not known, so the old makes room first"),
        (facts(free=None), "drain", "cannot be measured"),
        (facts(host=None), "overlap", "is taken to fit"),
        (facts("inplace", inplace=()), "inplace", "model.yaml asks for inplace; environment, code and tensor layout"),
        (facts("inplace", inplace=(), device=90 * GIB), "refuse", "more than the 80.0 GiB"),
        (
            facts("inplace", inplace=("its code is another",), free=0),
            "drain",
            "not possible: its code is another; host",
        ),
        (facts(inplace=()), "overlap", "device needs 31.5 GiB"),
        (facts(inplace=(), free=31 * GIB), "inplace", "31.0 GiB are free beside the old version; environment, code"),
        (facts("overlap", inplace=(), free=31 * GIB), "drain", "model.yaml asks for overlap, which does not fit"),
        (facts("drain", inplace=()), "drain", "model.yaml asks for drain"),
    ],
)
def test_a_swap_is_planned_from_measured_memory(given: SwapFacts, mode: str, reason: str) -> None:
    chosen = plan(given)
    assert chosen.mode == mode
    assert reason in str(chosen)


def test_a_slot_on_the_cpu_looks_at_host_memory_alone() -> None:
    here = SwapFacts("auto", Footprint(300 * MIB), Footprint(), Room(500 * MIB, GIB), None)
    assert plan(here).mode == "drain"
    assert plan(SwapFacts("auto", Footprint(100 * MIB), Footprint(), Room(500 * MIB, GIB), None)).mode == "overlap"


def test_one_child_runs_all_stages_so_the_largest_need_counts() -> None:
    stages = [StageSpec("a", host_memory_bytes=5), StageSpec("b", host_memory_bytes=9, gpu_memory_bytes=7)]
    assert declared(stages) == Footprint(9, 7, "declared in model.yaml")
    assert declared([StageSpec("run")]) == Footprint()


def test_what_was_seen_corrects_what_was_declared_upwards_only() -> None:
    promised = Footprint(10, 20, "declared in model.yaml")
    assert expected(promised, None, None) == promised
    assert expected(promised, Footprint(12, 15, "x"), None) == Footprint(12, 20, "learnt on this box")
    assert expected(promised, Footprint(2, 5, "x"), None) == promised


def test_what_lies_in_the_pool_is_not_counted_twice() -> None:
    promised = Footprint(100, 20, "declared in model.yaml")
    assert unpooled(promised, 0) == promised and unpooled(Footprint(), 9) == Footprint()
    assert unpooled(promised, 60) == Footprint(40, 20, "declared in model.yaml, without what lies in the pool")
    assert unpooled(promised, 300).host_bytes == 0


def test_a_version_never_seen_is_taken_for_its_neighbour() -> None:
    assert expected(Footprint(), None, Footprint(5, 6, "x")) == Footprint(5, 6, "taken from the version that serves")
    assert expected(Footprint(None, 9, "declared"), None, Footprint(5, 6, "x")) == Footprint(5, 9, "declared")
    assert expected(Footprint(), None, None) == Footprint()


def test_the_largest_footprint_of_a_digest_is_remembered() -> None:
    learnt = Learnt()
    learnt.see("a", 5, None)
    learnt.see("a", 3, 9)
    assert learnt.of("a") == Footprint(5, 9, "learnt on this box")
    assert learnt.of("b") is None
    assert list(learnt.all()) == ["a"]


def test_what_was_learnt_outlives_the_worker(tmp_path: Path) -> None:
    kept = tmp_path / "worker" / "footprints.json"
    Learnt(kept).see("a", 5, None)
    later = Learnt(kept)
    assert later.of("a") == Footprint(5, None, "learnt on this box")
    later.see("a", 3, 9)
    assert Learnt(kept).of("a") == Footprint(5, 9, "learnt on this box")


def test_workers_of_one_box_learn_from_each_other(tmp_path: Path) -> None:
    kept = tmp_path / "footprints.json"
    one, other = Learnt(kept), Learnt(kept)
    one.see("a", 5, None)
    other.see("b", 7, None)
    assert other.of("a") == Footprint(5, None, "learnt on this box")
    assert list(Learnt(kept).all()) == ["a", "b"]


def test_a_little_growth_is_not_written_down(tmp_path: Path) -> None:
    kept = tmp_path / "footprints.json"
    learnt = Learnt(kept)
    learnt.see("a", 1000, None)
    learnt.see("a", 1005, None)
    assert learnt.of("a") == Footprint(1005, None, "learnt on this box")
    assert Learnt(kept).of("a") == Footprint(1000, None, "learnt on this box")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"footprints": {"a": {"host_bytes": -1, "device_bytes": null}}}'])
def test_a_file_that_is_damaged_is_learnt_anew(tmp_path: Path, text: str) -> None:
    kept = tmp_path / "footprints.json"
    kept.write_text(text)
    learnt = Learnt(kept)
    assert learnt.all() == {}
    learnt.see("a", 5, None)
    assert Learnt(kept).of("a") == Footprint(5, None, "learnt on this box")


def test_a_box_remembers_so_many_versions_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelrepo_runtime.worker.footprint.MOST_KEPT", 2)
    learnt = Learnt(tmp_path / "footprints.json")
    for digest in ("a", "b", "a", "c"):
        learnt.see(digest, 100 + 100 * len(learnt.all()), None)
    assert list(Learnt(tmp_path / "footprints.json").all()) == ["a", "c"]


def test_where_nothing_can_be_written_a_worker_learns_for_itself(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    learnt = Learnt(tmp_path / "file" / "footprints.json")
    learnt.see("a", 5, None)
    assert learnt.of("a") == Footprint(5, None, "learnt on this box")
