from modelrepo_runtime.queue.drain import Drain, Rivals

NOW = 1000.0


def rivals(depth: int, *, weight: float = 0.01, mean_s: float | None = 10.0, over: bool = False) -> Rivals:
    return Rivals(weight, over, depth, NOW - 100, NOW - 50, mean_s)


def test_jobs_of_one_weight_go_one_after_the_other() -> None:
    drain = Drain([rivals(3)], [0.0], NOW)
    assert [drain.start(came, 0.01) for came in (NOW - 100, NOW - 75, NOW - 50, NOW)] == [
        NOW,
        NOW + 10,
        NOW + 20,
        NOW + 30,
    ]


def test_a_slot_goes_on_when_it_is_free() -> None:
    drain = Drain([rivals(2)], [4.0, 7.0], NOW)
    assert [drain.start(came, 0.01) for came in (NOW - 100, NOW - 50, NOW)] == [NOW + 4, NOW + 7, NOW + 14]


def test_those_who_stand_back_go_last() -> None:
    drain = Drain([rivals(2, over=True), rivals(2)], [0.0], NOW)
    assert drain.start(NOW, 0.01) == NOW + 20
    assert drain.start(NOW - 100, 0.01, over=True) == NOW + 20
    assert drain.start(NOW, 0.01, over=True) == NOW + 40


def test_what_comes_after_unknown_work_is_unknown() -> None:
    drain = Drain([rivals(2, mean_s=None)], [0.0], NOW)
    assert drain.start(NOW - 100, 0.01) == NOW
    assert drain.start(NOW, 0.01) is None
    assert Drain([rivals(2)], [], NOW).start(NOW - 100, 0.01) is None


def test_a_million_cost_little_more_than_a_thousand() -> None:
    few, many = Drain([rivals(1_000)], [0.0], NOW), Drain([rivals(1_000_000)], [0.0], NOW)
    assert many.start(NOW, 0.01) == NOW + 10_000_000
    assert len(many._picks) < 4 * len(few._picks)
