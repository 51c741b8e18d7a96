from modelrepo_runtime.worker.assignment import assign


def test_the_busiest_models_come_first_and_slots_go_round() -> None:
    found = assign(["s0", "s1", "s2"], {"a": 1, "b": 9})
    assert found.by_slot == {"s0": "b", "s1": "a", "s2": "b"}
    assert found.unserved == ()


def test_models_without_a_slot_are_named() -> None:
    found = assign(["s0"], {"a": 1, "b": 9, "c": 0})
    assert found.by_slot == {"s0": "b"}
    assert found.unserved == ("a", "c")


def test_slots_that_serve_keep_their_model() -> None:
    found = assign(["s0", "s1"], {"a": 0, "b": 9}, {"s0": "a", "gone": "b"})
    assert found.by_slot == {"s0": "a", "s1": "b"}


def test_without_models_slots_stay_free() -> None:
    assert assign(["s0"], {}).by_slot == {}


def test_a_slot_is_given_no_model_of_which_it_runs_no_stage() -> None:
    kinds = {"video": {"cpu", "gpu"}, "chat": {"gpu"}}
    only = {"cuda0": "gpu", "cpu0": "cpu", "cpu1": "cpu"}
    found = assign(list(only), {"video": 1, "chat": 5}, able=lambda slot, model: only[slot] in kinds[model])
    assert found.by_slot == {"cuda0": "chat", "cpu0": "video", "cpu1": "video"}
    found = assign(["cpu0"], {"chat": 5}, able=lambda slot, model: only[slot] in kinds[model])
    assert (found.by_slot, found.unserved) == ({}, ("chat",))
