"""The times by which queue, worker and reaper agree; one frozen value, handed to all of them."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds throughout. The defaults are a fleet's; `embedded` is for one box, `scaled` for tests."""

    beat_s: float = 5.0
    lease_s: float = 30.0
    retry_delays_s: tuple[float, ...] = (1.0, 10.0, 60.0)
    """Wait before the second, third, fourth try; the last one serves all further tries."""
    queue_poll_s: float = 0.25
    """The net under lost wake-ups: nobody waits longer than this to look at the queue."""
    active_poll_local_s: float = 0.25
    active_poll_bucket_s: float = 2.0
    cancel_grace_s: float = 30.0
    stop_grace_s: float = 30.0
    turn_s: float = 30.0
    """How long a turn to swap is held without being renewed."""
    cordon_first_s: float = 60.0
    cordon_longest_s: float = 1800.0
    sweep_every_s: float = 30.0
    """How often queues are swept of empty lanes and rows past their retention."""

    @classmethod
    def embedded(cls) -> Timing:
        """Return the times of one box: beats of 1 s, leases of 6 s."""
        return cls(beat_s=1.0, lease_s=6.0, turn_s=6.0)

    def scaled(self, factor: float) -> Timing:
        """Return the same times multiplied by `factor`."""
        shorter: dict[str, float | tuple[float, ...]] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            shorter[field.name] = tuple(v * factor for v in value) if isinstance(value, tuple) else value * factor
        return replace(self, **shorter)  # type: ignore[arg-type]

    @property
    def unanswered_claim_s(self) -> float:
        """Age from which a lease that two beats leave out is taken for a claim whose answer was lost."""
        return 3 * self.beat_s

    @property
    def reaper_gap_s(self) -> float:
        """The longest pause in a reaper's own loop after which it still trusts what it saw."""
        return self.beat_s

    @property
    def longest_delay_s(self) -> float:
        """A retry that is due later than this from now was written before the wall clock went back."""
        return max(self.retry_delays_s)

    def retry_delay_s(self, tries: int) -> float:
        """Return the wait after the `tries`-th try (1 for the first)."""
        return self.retry_delays_s[min(max(tries, 1), len(self.retry_delays_s)) - 1]
