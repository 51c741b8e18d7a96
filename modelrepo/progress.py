"""How long work says how far it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int | None], None]
"""Told of long work: the phase, bytes done, and bytes in all where they are known. Called from one thread at a time."""
