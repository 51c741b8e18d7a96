"""What is live, derived from the bytes of `active.yaml` and the history: pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from modelrepo.canonical import Json, sha256
from modelrepo.errors import InvalidActiveFile
from modelrepo.promotion.active_file import ActiveFile, Rollout, parse
from modelrepo.promotion.history import ACTIVATING, HistoryEntry, Kind


@dataclass(frozen=True, slots=True)
class ActiveState:
    """What is live now.

    `digest`: 64 hex digits; None where nothing is live, or a hand edit names a version that does not exist.
    `edited_by_hand`: the file holds an edit that no entry records yet.
    `stale_file`: the file is behind the history, and the history counts.
    `seen`: equal to an earlier one exactly if nothing has changed since.
    """

    model: str
    version: str | None
    digest: str | None
    generation: int
    config: Mapping[str, Json]
    rollout: Rollout
    edited_by_hand: bool = False
    stale_file: bool = False
    notes: tuple[str, ...] = ()
    seen: str = ""


@dataclass(frozen=True, slots=True)
class Live:
    """What is in force after some entry."""

    version: str | None = None
    digest: str | None = None
    config: Mapping[str, Json] = field(default_factory=dict)
    rollout: Rollout = field(default_factory=Rollout)
    generation: int = 0

    def after(self, entries: Iterable[HistoryEntry]) -> Live:
        """Return what is in force when `entries`, in order, came after this."""
        live = self
        for entry in entries:
            if entry.kind in ACTIVATING:
                live = Live(entry.version, entry.digest, entry.config, entry.rollout, entry.generation)
            else:
                live = replace(live, generation=entry.generation)
        return live

    def file(self, generation: int) -> ActiveFile:
        """Return the `active.yaml` that says this."""
        return ActiveFile(self.version, self.digest, generation, self.config, self.rollout)


def derive(model: str, file: bytes | None, entries: Sequence[HistoryEntry]) -> ActiveState:
    """Apply the rules of the format to what was read.

    `entries`: the whole history, or its end from an entry on whose `active_sha256` the file has.

    Raises:
        InvalidActiveFile: the file is an edit that cannot be read.
    """
    head = entries[-1].generation if entries else 0
    digest = None if file is None else sha256(file)
    owner = owner_of(digest, entries)
    if file is None:
        gone = ("active.yaml is gone; the history counts, and the next change writes it again",) if entries else ()
        return _state(model, Live().after(entries), digest, entries, stale=bool(entries), notes=gone)
    if owner is not None:
        later = [entry for entry in entries if entry.generation > owner.generation]
        before = Live() if owner.kind in ACTIVATING else _live(parse(file, _where(model)))
        base = before.after([owner])
        behind = (
            f"active.yaml is that of generation {owner.generation}, and {head} is in force; the next change mends it"
        )
        return _state(model, base.after(later), digest, entries, stale=bool(later), notes=(behind,) if later else ())
    if any(entry.base_sha256 == digest for entry in entries):
        seen = f"active.yaml is an edit that a later change has overridden; generation {head} is in force"
        return _state(model, Live().after(entries), digest, entries, stale=True, notes=(seen,))
    return _edited(model, parse(file, _where(model)), digest, entries)


def owner_of(digest: str | None, entries: Sequence[HistoryEntry]) -> HistoryEntry | None:
    """Return the newest entry that a file of this digest belongs to."""
    return next((entry for entry in reversed(entries) if digest is not None and entry.active_sha256 == digest), None)


def with_digest(
    state: ActiveState, digest_of: Callable[[str], str | None], versions: Callable[[], Iterable[str]]
) -> ActiveState:
    """Complete a hand-edited state by what the repository holds.

    `digest_of`: the digest of a version, None where it does not exist or cannot be read. A digest of another version
    is ignored.
    """
    if not state.edited_by_hand or state.version is None:
        return state
    actual = digest_of(state.version)
    if actual is None:
        return _noted(replace(state, digest=None), f"it names {state.version}, which does not exist or cannot be read")
    if state.digest in (None, actual):
        return _noted(replace(state, digest=actual))
    if any(digest_of(version) == state.digest for version in versions()):
        return _noted(replace(state, digest=actual), "its digest is another version's and is ignored")
    return _noted(state, f"its digest is not that of {state.version}, and of no other version")


def _edited(model: str, file: ActiveFile, digest: str | None, entries: Sequence[HistoryEntry]) -> ActiveState:
    if file.version is None:
        raise InvalidActiveFile(
            f"{_where(model)} names no version; mend it with `modelrepo edit`, or promote with --force to replace it"
        )
    head = entries[-1].generation if entries else 0
    live = replace(_live(file), generation=head)
    notes = ["active.yaml was edited by hand; the next change records it"]
    owners = {entry.version for entry in entries if entry.digest == file.digest}
    if file.digest is not None and owners and file.version not in owners:
        live = replace(live, digest=None)
        notes.append(f"its digest is that of {sorted(owners)[0]} and is ignored")
    return _state(model, live, digest, entries, edited=True, notes=tuple(notes))


def _where(model: str) -> str:
    return f"active.yaml of {model}"


def _live(file: ActiveFile) -> Live:
    return Live(file.version, file.digest, file.config, file.rollout, file.generation or 0)


def _state(
    model: str,
    live: Live,
    file_digest: str | None,
    entries: Sequence[HistoryEntry],
    *,
    edited: bool = False,
    stale: bool = False,
    notes: tuple[str, ...] = (),
) -> ActiveState:
    change = entries[-1].change if entries else ""
    seen = sha256(f"{live.generation} {change} {file_digest}".encode())
    return ActiveState(
        model, live.version, live.digest, live.generation, live.config, live.rollout, edited, stale, notes, seen
    )


def _noted(state: ActiveState, *notes: str) -> ActiveState:
    seen = sha256(f"{state.seen} {state.digest}".encode())
    return replace(state, notes=(*state.notes, *notes), seen=seen)


def blocked(entries: Sequence[HistoryEntry]) -> dict[str, HistoryEntry]:
    """Return the versions that may not be promoted, each with the entry that says so."""
    found: dict[str, HistoryEntry] = {}
    live: str | None = None
    for entry in entries:
        if entry.kind is Kind.BLOCK:
            found[entry.version] = entry
        elif entry.kind is Kind.UNBLOCK:
            found.pop(entry.version, None)
        elif entry.kind is Kind.ROLLBACK and entry.blocks and live not in (None, entry.version):
            assert live is not None
            found[live] = entry
        if entry.kind in ACTIVATING:
            live = entry.version
    return found


def deleted(entries: Iterable[HistoryEntry]) -> frozenset[str]:
    """Return the versions whose deletion has begun: from its entry on, no change may make one live."""
    return frozenset(entry.version for entry in entries if entry.kind is Kind.DELETE)


def way_back(entries: Sequence[HistoryEntry], allowed: Callable[[str], bool]) -> HistoryEntry | None:
    """Return the entry that a rollback goes back to, None where there is none.

    From the entry that first made the current version active (earlier rollbacks are followed to what they brought
    back), backward to the nearest version that is `allowed`, not current, not blocked and not deleted.
    """
    by_generation = {entry.generation: entry for entry in entries}
    activations = [entry for entry in entries if entry.kind in ACTIVATING]
    if not activations:
        return None
    refused = blocked(entries).keys() | deleted(entries)
    current = activations[-1].version
    here: HistoryEntry | None = activations[-1]
    while here is not None:
        if here.version != current and here.version not in refused and allowed(here.version):
            return here
        origin = by_generation.get(here.from_generation or 0)
        if here.kind is Kind.ROLLBACK and origin is not None and origin.generation < here.generation:
            here = origin
        else:
            before = [entry for entry in activations if entry.generation < here.generation]
            here = before[-1] if before else None
    return None
