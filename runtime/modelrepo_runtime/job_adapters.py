"""The adapters of a submission: what is asked for, checked and kept, so that a box can fetch it by its digest."""

from __future__ import annotations

import hashlib
import math
import os
import re
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from modelrepo.errors import InvalidAdapter, InvalidInput, NotFound
from modelrepo_runtime.jobs import MOST_ADAPTERS, Adapter
from modelrepo_runtime.jobstore import JobStore

if TYPE_CHECKING:
    from modelrepo.adapters.published import Adapters
    from modelrepo_runtime.submissions import Fetch

SOURCES = ("url", "file", "ref")
_KEYS = (*SOURCES, "sha256", "weight")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SAFE = frozenset(string.ascii_letters + string.digits + "._-")
_PIECE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class WantedAdapter:
    """One adapter as a submission names it, its form checked. `source` says what `named` is: a URL, an upload or a ref.

    A `file` may be a path of this box as well.
    """

    source: str
    named: str | os.PathLike[str]
    sha256: str | None
    weight: float


@dataclass(frozen=True, slots=True)
class Whose:
    """For which job and tenant adapters are kept, and which uploads may be named."""

    job_id: str
    created_at: float
    tenant: str
    may_name: Callable[[str], bool]


def read_wanted(given: Sequence[Mapping[str, Any]]) -> tuple[WantedAdapter, ...]:
    """Read `[{url | file | ref, sha256, weight}]`. Raises: InvalidAdapter, which says where."""
    if len(given) > MOST_ADAPTERS:
        raise InvalidAdapter(f"{len(given)} adapters are too many: a job may have {MOST_ADAPTERS}")
    return tuple(_read_one(one, f"/adapters/{place}") for place, one in enumerate(given))


def _read_one(given: object, at: str) -> WantedAdapter:
    if not isinstance(given, Mapping):
        raise InvalidAdapter(f"{at} is no object with one of url, file and ref", pointer=at)
    if unknown := sorted(str(key) for key in given if key not in _KEYS):
        raise InvalidAdapter(f"{at} has an unknown key {unknown[0]!r}; known are {', '.join(_KEYS)}", pointer=at)
    named = [key for key in SOURCES if given.get(key) is not None]
    if len(named) != 1:
        found = " and ".join(named) or "none of them"
        raise InvalidAdapter(f"{at} must have exactly one of url, file and ref; it has {found}", pointer=at)
    (source,) = named
    value, sha256 = given[source], given.get("sha256")
    is_path = source == "file" and isinstance(value, os.PathLike)
    if not is_path and (not isinstance(value, str) or not value):
        raise InvalidAdapter(f"{at}/{source} is no text", pointer=f"{at}/{source}")
    if sha256 is not None and (not isinstance(sha256, str) or not _DIGEST.fullmatch(sha256)):
        raise InvalidAdapter(f"{at}/sha256 is no digest: 64 of 0-9a-f are wanted", pointer=f"{at}/sha256")
    if source == "url" and sha256 is None:
        raise InvalidAdapter(f"{at} has a url and no sha256; say which bytes are meant", pointer=f"{at}/sha256")
    return WantedAdapter(source, value, sha256, _weight(given.get("weight"), f"{at}/weight"))


def _weight(given: object, at: str) -> float:
    if given is None:
        return 1.0
    if isinstance(given, bool) or not isinstance(given, (int, float)) or abs(given) > 1e9 or not math.isfinite(given):
        raise InvalidAdapter(f"{at} is no number from -1e9 to 1e9", pointer=at)
    return float(given)


class AdapterKeeper:
    """Keeps the adapters of submissions in the JobStore, or finds where they lie. May be shared by threads."""

    def __init__(self, files: Callable[[], JobStore], published: Callable[[], Adapters], fetch: Fetch) -> None:
        self._files, self._published, self._fetch = files, published, fetch

    def keep(self, wanted: Iterable[WantedAdapter], whose: Whose) -> tuple[Adapter, ...]:
        """Find every adapter, its digest and its size. What it keeps goes with the job's folder.

        Raises: InvalidAdapter; NoSpace, Unreachable.
        """
        return tuple(self._one(one, whose, place) for place, one in enumerate(wanted))

    def _one(self, wanted: WantedAdapter, whose: Whose, place: int) -> Adapter:
        at = f"/adapters/{place}"
        try:
            if wanted.source == "ref":
                found = self._publication(wanted)
            elif wanted.source == "url":
                found = self._fetched(wanted, whose, place)
            elif isinstance(wanted.named, str):
                found = self._uploaded(wanted, whose)
            else:
                found = self._local(wanted, whose, place, Path(wanted.named))
        except (InvalidInput, NotFound) as error:
            raise InvalidAdapter(f"{at}: {error}", pointer=f"{at}/{wanted.source}") from error
        if wanted.sha256 not in (None, found.sha256):
            told = f"{at}: its bytes are sha256:{found.sha256}, not sha256:{wanted.sha256}; name the right ones"
            raise InvalidAdapter(told, pointer=f"{at}/sha256")
        if not found.size_bytes:
            raise InvalidAdapter(f"{at}: it is empty", pointer=at)
        return found

    def _publication(self, wanted: WantedAdapter) -> Adapter:
        record = self._published().find(str(wanted.named))
        name = safe_name(record.file)
        return Adapter(name, record.sha256, record.size_bytes, wanted.weight, ref=record.ref)

    def _uploaded(self, wanted: WantedAdapter, whose: Whose) -> Adapter:
        file_id = str(wanted.named)
        if not whose.may_name(file_id):  # in the words that it would be answered with if there were none
            raise NotFound(f"no uploaded file {file_id}; upload it again")
        files = self._files()
        found = files.stat_upload(file_id)
        # A box compares what is told here; what is not told must be read.
        sha256 = wanted.sha256 or _digest(files.pieces(found.key))
        name = safe_name(PurePosixPath(found.key).name)
        return Adapter(name, sha256, found.size_bytes, wanted.weight, whose.tenant, key=found.key)

    def _fetched(self, wanted: WantedAdapter, whose: Whose, place: int) -> Adapter:
        with TemporaryDirectory(prefix="modelrepo-adapter-") as folder:
            return self._local(wanted, whose, place, self._fetch(str(wanted.named), Path(folder)).path)

    def _local(self, wanted: WantedAdapter, whose: Whose, place: int, path: Path) -> Adapter:
        sha256, size = file_digest(path)
        if wanted.sha256 not in (None, sha256) or not size:
            return Adapter(path.name, sha256, size)  # refused by who asked; not worth a copy
        key = self._files().put_adapter(whose.job_id, whose.created_at, place, path)
        return Adapter(safe_name(path.name), sha256, size, wanted.weight, whose.tenant, key=key)


def file_digest(path: Path) -> tuple[str, int]:
    """Return sha256 and size in bytes of a file. Raises: InvalidInput where it cannot be read."""
    try:
        with path.open("rb") as file:
            digest = _digest(iter(lambda: file.read(_PIECE_BYTES), b""))
            return digest, file.tell()
    except OSError as error:
        raise InvalidInput(f"cannot read adapter {path}: {error.strerror or error}") from error


def safe_name(name: str) -> str:
    """Return a file's name as any folder may hold it; its suffix stays, loaders go by it."""
    kept = "".join(letter if letter in _SAFE else "_" for letter in name)
    return kept.lstrip(".")[-100:] or "adapter"


def _digest(pieces: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()
