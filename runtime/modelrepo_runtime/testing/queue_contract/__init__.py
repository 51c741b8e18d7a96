"""What every JobQueue must do; an adapter's tests subclass this and say how to make one.

Tests look behind the adapter's back with `Peek`: rows of jobs that wait, are leased or have ended, by other means than
the port's own.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from modelrepo_runtime.queue.port import JobQueue
from modelrepo_runtime.testing.clock import FakeClock
from modelrepo_runtime.testing.queue_contract.attempts import AttemptContract
from modelrepo_runtime.testing.queue_contract.bench import Bench, Peek, Rows
from modelrepo_runtime.testing.queue_contract.breakers import BreakerContract
from modelrepo_runtime.testing.queue_contract.claims import ClaimContract
from modelrepo_runtime.testing.queue_contract.credits import CreditContract
from modelrepo_runtime.testing.queue_contract.endings import EndingContract
from modelrepo_runtime.testing.queue_contract.explanations import ExplanationContract
from modelrepo_runtime.testing.queue_contract.fleet_events import FleetEventContract
from modelrepo_runtime.testing.queue_contract.learning import LearningContract
from modelrepo_runtime.testing.queue_contract.listing import ListingContract
from modelrepo_runtime.testing.queue_contract.memory import MemoryContract
from modelrepo_runtime.testing.queue_contract.operating import OperatingContract
from modelrepo_runtime.testing.queue_contract.order import OrderContract
from modelrepo_runtime.testing.queue_contract.orders import WorkerOrderContract
from modelrepo_runtime.testing.queue_contract.outbox import OutboxContract
from modelrepo_runtime.testing.queue_contract.sessions import SessionContract
from modelrepo_runtime.testing.queue_contract.stages import StageContract
from modelrepo_runtime.testing.queue_contract.staging import StagingContract
from modelrepo_runtime.testing.queue_contract.states import StateContract
from modelrepo_runtime.testing.queue_contract.submission import SubmissionContract
from modelrepo_runtime.testing.queue_contract.swaps import SwapContract
from modelrepo_runtime.testing.queue_contract.tenants import TenantContract
from modelrepo_runtime.testing.queue_contract.waiters import WaiterContract
from modelrepo_runtime.timing import Timing

__all__ = ["Bench", "JobQueueContract", "Peek", "Rows"]


class JobQueueContract(
    SubmissionContract,
    ClaimContract,
    StageContract,
    CreditContract,
    StagingContract,
    StateContract,
    OrderContract,
    AttemptContract,
    EndingContract,
    SessionContract,
    OperatingContract,
    ListingContract,
    TenantContract,
    WaiterContract,
    OutboxContract,
    WorkerOrderContract,
    FleetEventContract,
    BreakerContract,
    LearningContract,
    MemoryContract,
    ExplanationContract,
    SwapContract,
):
    """Subclass it and give it a fixture `opened`: a queue on this clock and timing, and how to look behind it."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    def timing(self) -> Timing:
        return Timing.embedded()

    @pytest.fixture
    def opened(self, clock: FakeClock, timing: Timing) -> Iterator[tuple[JobQueue, Peek]]:
        raise NotImplementedError("an adapter's test gives this fixture")

    @pytest.fixture
    def bench(self, opened: tuple[JobQueue, Peek], clock: FakeClock, timing: Timing) -> Bench:
        return Bench(opened[0], clock, opened[1], timing)
