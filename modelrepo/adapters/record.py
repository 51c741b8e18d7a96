"""What a repository says of one published adapter, and references to it."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, fields
from typing import Any

from modelrepo import layout
from modelrepo.canonical import dumps
from modelrepo.errors import Corrupt, InvalidReference
from modelrepo.formats import FORMAT, check_format
from modelrepo.names import check_model_name, check_version_id

PIECE_BYTES = 16 << 20
"""A writer and a reader hold one piece at a time; the last may be smaller."""
_DIGEST = re.compile(r"[0-9a-f]{64}")
_TEXTS = ("name", "version", "file", "sha256", "created_at", "author")


@dataclass(frozen=True, slots=True)
class AdapterRecord:
    """One version of an adapter, as its document has it. `file` is the name that its file had."""

    name: str
    version: str
    file: str
    size_bytes: int
    sha256: str
    created_at: str
    author: str
    message: str | None = None

    @property
    def ref(self) -> str:
        """What jobs name it by."""
        return f"{self.name}@{self.version}"

    def to_bytes(self) -> bytes:
        """Return the document."""
        return dumps({"format": FORMAT, **{key: value for key, value in asdict(self).items() if value is not None}})

    @classmethod
    def from_bytes(cls, data: bytes, key: str) -> AdapterRecord:
        """Read what `to_bytes` wrote under a key. Raises: Corrupt, NewerFormat."""
        try:
            found = json.loads(data)
        except ValueError as error:
            raise Corrupt(f"{key} is no JSON ({error}); restore it from a copy", path=key) from error
        if not isinstance(found, dict):
            raise Corrupt(f"{key} is no JSON object; restore it from a copy", path=key)
        check_format(found, key)
        size = found.get("size_bytes")
        is_whole = all(isinstance(found.get(name), str) for name in _TEXTS) and isinstance(size, int) and size > 0
        if not is_whole or not _DIGEST.fullmatch(found["sha256"]):
            raise Corrupt(f"{key} does not say what an adapter's document says; restore it from a copy", path=key)
        if key != layout.adapter(found["name"], found["version"]):
            raise Corrupt(f"{key} is that of {found['name']}@{found['version']}; restore it from a copy", path=key)
        known: dict[str, Any] = {field.name: found.get(field.name) for field in fields(cls)}
        return cls(**known)


def parse_adapter_reference(text: str) -> tuple[str, str]:
    """Read `NAME@VERSION`. Raises: InvalidName, InvalidReference."""
    name, at, version = text.partition("@")
    check_model_name(name)
    if not at or not version:
        raise InvalidReference(
            f"reference {text!r} names no version of adapter {name}; write {name}@VERSION (`modelrepo adapter list`)"
        )
    return name, check_version_id(version)


def piece_count(size_bytes: int) -> int:
    """Return in how many pieces a file of this size lies in the repository."""
    return -(-size_bytes // PIECE_BYTES)
