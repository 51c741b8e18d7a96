"""A change that is decided but has no number yet, and the history entry that it becomes."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from modelrepo.promotion.history import HistoryEntry, Kind
from modelrepo.promotion.looking import View
from modelrepo.promotion.state import Live


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wants to change. `live`: what is in force afterwards; the rest is as in HistoryEntry."""

    kind: Kind
    version: str
    digest: str | None
    live: Live
    reason: str | None
    from_generation: int | None = None
    blocks: bool = True


@dataclass(frozen=True, slots=True)
class Author:
    """Who the history says it was, and the time that it gets."""

    by: str
    clock: Callable[[], datetime]

    def entry(self, view: View, wish: Wish, active_sha256: str) -> HistoryEntry:
        """Return the entry that makes a wish the generation after `view`."""
        return HistoryEntry(
            generation=view.state.generation + 1,
            kind=wish.kind,
            version=wish.version,
            digest=wish.digest,
            config=wish.live.config,
            rollout=wish.live.rollout,
            by=encodable(self.by),
            at=self.clock().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            change=secrets.token_hex(16),
            base_sha256=view.file.digest,
            active_sha256=active_sha256,
            from_generation=wish.from_generation,
            reason=None if wish.reason is None else encodable(wish.reason),
            blocks=wish.blocks,
        )

    def edit_entry(self, view: View) -> HistoryEntry:
        """Return the entry that records the hand edit which `view` found."""
        state = view.state
        assert state.version is not None
        assert view.file.digest is not None
        live = Live(state.version, state.digest, state.config, state.rollout)
        wish = Wish(Kind.HAND_EDIT, state.version, state.digest, live, "edited by hand")
        return self.entry(view, wish, view.file.digest)

    def with_edit(self, view: View) -> tuple[HistoryEntry, ...]:
        """Return the history as it is once a hand edit in `view` is recorded."""
        return (*view.entries, self.edit_entry(view)) if view.state.edited_by_hand else view.entries


def encodable(text: str) -> str:
    """Return `text` with what is no text spelt out.

    What comes from a command line may hold such bytes; a history that cannot be written helps nobody.
    """
    return text.encode("utf-8", "backslashreplace").decode()
