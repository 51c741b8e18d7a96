"""What the demo runs: with bare Python in seconds, or with PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

TIERS = ("api", "enterprise", "unlimited", "light", "free")


@dataclass(frozen=True, slots=True)
class Scenario:
    """A model and the jobs that it is given."""

    example: str
    why_v1: str
    why_v2: str
    short_job: Callable[[int], Mapping[str, Any]]
    """Inputs of the n-th job of the steady load."""
    between_jobs_s: Mapping[str, float]
    """How often a tier's user submits one."""
    long_job: Mapping[str, Any]
    """Inputs of the job whose worker is killed: some seconds of work, with progress on the way."""
    shown_job: Mapping[str, Any] | None
    """Inputs of the job whose picture is kept from both versions; None where the model draws nothing."""
    shown_output: str = ""


HELLO = Scenario(
    example="hello-model",
    why_v1="two words a greeting",
    why_v2="one word a greeting, more languages",
    short_job=lambda number: {"name": f"visitor {number}", "seconds": 0.04},
    between_jobs_s=dict(zip(TIERS, (0.5, 0.7, 0.9, 1.1, 1.3), strict=True)),
    long_job={"name": "someone patient", "seconds": 3.0},
    shown_job=None,
)

DIGITS = Scenario(
    example="digits-diffusion",
    why_v1="a first, short training",
    why_v2="trained to the end",
    short_job=lambda number: {"digits": str(number % 100), "seed": number, "steps": 30},
    between_jobs_s=dict(zip(TIERS, (1.0, 1.3, 1.7, 2.2, 3.0), strict=True)),
    long_job={"digits": "0123456789", "seed": 1, "steps": 5000, "format": "gif"},
    shown_job={"digits": "01234567890123456789", "seed": 3, "steps": 60},
    shown_output="sheet",
)
