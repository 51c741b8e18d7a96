"""A model's history: entries that are created once, numbered without gaps."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from modelrepo import layout
from modelrepo.canonical import Json
from modelrepo.errors import Corrupt, InvalidInput, NewerFormat, ObjectNotFound
from modelrepo.formats import check_format
from modelrepo.names import check_version_id
from modelrepo.promotion import yaml_text
from modelrepo.promotion.active_file import Rollout
from modelrepo.stores.port import ObjectStore


class Kind(StrEnum):
    """What a change was."""

    PROMOTE = "promote"
    ROLLBACK = "rollback"
    HAND_EDIT = "hand-edit"
    CONFIG = "config"
    BLOCK = "block"
    UNBLOCK = "unblock"
    DELETE = "delete"
    VENDOR = "vendor"


SIDE_BY_SIDE = 32
"""From so many entries on, reading them one after the other would be felt: a request each."""

AT_ONCE = 512
THREADS = 16

ACTIVATING = frozenset({Kind.PROMOTE, Kind.ROLLBACK, Kind.HAND_EDIT, Kind.CONFIG})
"""The kinds whose `version` is live afterwards; the others speak of a version and leave what is live alone."""


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One change. Digests are 64 hex digits.

    `version`, `digest`: what is live afterwards, or (block, unblock, delete, vendor) what the change is about.
    `config`, `rollout`: what is in force afterwards.
    `from_generation`: for a rollback, the entry that it goes back to; written as `from`.
    `blocks`: for a rollback, whether it blocks the version that it leaves.
    `base_sha256`: of the `active.yaml` that its author had read; None where there was none.
    `active_sha256`: of the `active.yaml` that belongs to this change.
    """

    generation: int
    kind: Kind
    version: str
    digest: str | None
    config: Mapping[str, Json]
    rollout: Rollout
    by: str
    at: str
    change: str
    base_sha256: str | None
    active_sha256: str
    from_generation: int | None = None
    reason: str | None = None
    blocks: bool = field(default=True)

    def to_json(self) -> dict[str, Json]:
        """Return the entry as it is written."""
        document: dict[str, Json] = {
            "generation": self.generation,
            "kind": self.kind.value,
            "version": self.version,
            "digest": None if self.digest is None else f"sha256:{self.digest}",
            "config": self.config,
            "rollout": self.rollout.to_json(),
            "from": self.from_generation,
            "by": self.by,
            "at": self.at,
            "reason": self.reason,
            "change": self.change,
            "base_sha256": self.base_sha256,
            "active_sha256": self.active_sha256,
        }
        if self.kind is Kind.ROLLBACK and not self.blocks:
            document["block"] = False
        return document

    def to_bytes(self) -> bytes:
        return yaml_text.dump(self.to_json()).encode()

    @classmethod
    def from_bytes(cls, data: bytes, name: str) -> HistoryEntry:
        """Read an entry.

        Raises:
            Corrupt, NewerFormat
        """
        try:
            document = yaml_text.load(data)
            check_format(document, name)
            return _entry(document, name)
        except (InvalidInput, KeyError, ValueError, TypeError, AttributeError) as error:
            what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise Corrupt(f"cannot read {name}: {what}; restore it from a copy of the repository", path=name) from error


def _entry(document: Mapping[str, Any], name: str) -> HistoryEntry:
    return HistoryEntry(
        generation=_number(document["generation"]),
        kind=_kind(document["kind"], name),
        version=_version(document["version"]),
        digest=_hex(document.get("digest")),
        config=dict(document.get("config") or {}),
        rollout=Rollout.from_json(document.get("rollout") or {}),
        by=str(document.get("by", "")),
        at=str(document.get("at", "")),
        change=str(document.get("change", "")),
        base_sha256=_hex(document.get("base_sha256")),
        active_sha256=_hex(document["active_sha256"]) or "",
        from_generation=None if document.get("from") is None else _number(document["from"]),
        reason=None if document.get("reason") is None else str(document["reason"]),
        blocks=document.get("block", True) is not False,
    )


def _kind(value: Any, name: str) -> Kind:
    try:
        return Kind(value)
    except ValueError as error:
        raise NewerFormat(f"{name} is a change of the kind {value!r}, unknown to this modelrepo: upgrade it") from error


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{value!r} is no generation")
    return value


def _version(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"version is {value!r}")
    return check_version_id(value)


def _hex(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not re.fullmatch(r"(sha256:)?[0-9a-f]{64}", value):
        raise ValueError(f"{value!r} is no sha256")
    return value.removeprefix("sha256:")


class HistoryReader:
    """Reads one model's history and keeps what it read: an entry never changes. Not for several threads at once."""

    def __init__(self, store: ObjectStore, model: str) -> None:
        self._store, self._model = store, model
        self._entries: dict[int, HistoryEntry] = {}
        self._whole = False
        """Whether all of it was wanted once, and so may be again."""

    def since(self, generation: int) -> tuple[HistoryEntry, ...]:
        """Return the entries from `generation` on, () where that one does not exist; found by probing upward."""
        if generation < 1 or self._get(generation) is None:
            return ()
        last = generation
        while self._get(last + 1) is not None:
            last += 1
        return tuple(self._entries[number] for number in range(generation, last + 1))

    def all(self) -> tuple[HistoryEntry, ...]:
        """Return every entry; the head is found by listing, then by probing upward, since a listing may be behind.

        Raises:
            Corrupt: an entry is missing between two others.
        """
        self._whole = True
        if 1 in self._entries and set(range(1, len(self._entries) + 1)) == self._entries.keys():
            return self.since(1)
        listed = (layout.generation_of(stat.key) for stat in self._store.list(layout.history_folder(self._model)))
        after = max((number for number in listed if number), default=0) + 1
        for start in range(1, after, AT_ONCE):
            unread = [each for each in range(start, min(start + AT_ONCE, after)) if each not in self._entries]
            for number, entry in zip(unread, self._read_all(unread), strict=True):
                if entry is None:
                    key = layout.history_entry(self._model, number)
                    raise Corrupt(f"{key} is missing, and later ones are there; restore it from a copy", path=key)
                self._entries[number] = entry
        return self.since(1)

    def forget_before(self, generation: int) -> None:
        """Let go of what somebody who follows the newest change alone will not ask for again."""
        if not self._whole:
            for number in [each for each in self._entries if each < generation]:
                del self._entries[number]

    def _read_all(self, numbers: Sequence[int]) -> Sequence[HistoryEntry | None]:
        if len(numbers) < SIDE_BY_SIDE:
            return [self._read(number) for number in numbers]
        with ThreadPoolExecutor(THREADS, thread_name_prefix="modelrepo-history") as pool:
            return list(pool.map(self._read, numbers))

    def _get(self, generation: int) -> HistoryEntry | None:
        entry = self._entries.get(generation)
        if entry is None and (entry := self._read(generation)) is not None:
            self._entries[generation] = entry
        return entry

    def _read(self, generation: int) -> HistoryEntry | None:
        key = layout.history_entry(self._model, generation)
        try:
            data = self._store.read(key)
        except ObjectNotFound:
            return None
        entry = HistoryEntry.from_bytes(data, key)
        if entry.generation != generation:
            raise Corrupt(f"{key} says generation {entry.generation}; restore it from a copy", path=key)
        return entry
