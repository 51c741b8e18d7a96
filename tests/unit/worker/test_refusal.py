import errno

from modelrepo.errors import Corrupt, EntrypointFailed, HostNeedUnmet, Unreachable
from modelrepo_runtime.timing import Timing
from modelrepo_runtime.worker.breaker import Breaker
from modelrepo_runtime.worker.refusal import Refusal, refuse
from modelrepo_runtime.worker.slot_states import SLOT_TRANSITIONS, SlotState, slot_state
from modelrepo_runtime.worker.target import Target

TIMING = Timing.embedded()


def again(error: Exception, times: int) -> Refusal:
    refusal = None
    for _ in range(times):
        refusal = refuse(Target("m", "v2", None, 1), error, now=1000.0, before=refusal, timing=TIMING)
    assert refusal is not None
    return refusal


def test_a_refusal_says_why_until_when_and_what_to_do() -> None:
    refusal = again(HostNeedUnmet("cannot serve m@v2: ffmpeg is not there;\n install ffmpeg"), 1)
    assert refusal.reason == "cannot serve m@v2: ffmpeg is not there; install ffmpeg"
    assert refusal.retry_at == 1060.0
    assert refusal.next_action == (
        "install what is missing on this box; "
        "once that is mended, `modelrepo promote m@v2 --retry` has it tried at once"
    )


def test_a_full_disk_is_known_whoever_meets_it() -> None:
    assert again(OSError(errno.ENOSPC, "No space left on device"), 1).next_action.startswith("free space on the cache")


def test_what_only_another_version_mends_speaks_of_no_retry() -> None:
    assert "--retry" not in again(Corrupt("other bytes"), 1).next_action
    assert "--retry" not in again(Unreachable("away"), 1).next_action


def test_the_wait_doubles_to_half_an_hour() -> None:
    error = EntrypointFailed("no")
    assert [again(error, tries).retry_at - 1000 for tries in (1, 2, 3, 6, 50)] == [60, 120, 240, 1800, 1800]


def test_a_store_that_is_away_is_tried_sooner() -> None:
    assert [again(Unreachable("away"), tries).retry_at - 1000 for tries in (1, 2, 50)] == [1, 2, 30]


def test_another_target_starts_afresh() -> None:
    error = EntrypointFailed("no")
    assert refuse(Target("m", "v3", None, 1), error, now=0.0, before=again(error, 5), timing=TIMING).tries == 1


def test_an_error_of_no_kind_that_we_know_names_itself() -> None:
    assert again(KeyError("x"), 1).reason == "KeyError: 'x'"
    assert again(KeyError("x"), 1).next_action == "see the worker's log"


def test_a_cordon_hides_a_refusal() -> None:
    refusal, cordoned = again(EntrypointFailed("no"), 1), Breaker(cordoned_until=1.0)
    assert slot_state(Breaker(), None) is SlotState.OPEN
    assert slot_state(Breaker(), refusal) is SlotState.REFUSED
    assert slot_state(cordoned, refusal) is SlotState.CORDONED
    assert set(SLOT_TRANSITIONS) == set(SlotState)
