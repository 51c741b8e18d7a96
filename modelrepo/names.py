"""Names of models and versions, and references to them, as the format allows them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from modelrepo.errors import InvalidName, InvalidReference

_MODEL = re.compile(r"[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?")
_VERSION = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._+-]{0,62}[A-Za-z0-9])?")
_COMMIT = re.compile(r"[0-9a-f]{7,64}")  # seven as Git abbreviates
_NUMBERED = re.compile(r"v([1-9][0-9]{0,17})")

RESERVED_VERSIONS = frozenset({"active", "previous", "latest", "git"})


@dataclass(frozen=True, slots=True)
class Reference:
    """A model, and perhaps which version of it.

    `version` is an id, `active`, `previous`, `git:<commit>`, or None where only the model was named.
    """

    model: str
    version: str | None = None

    @property
    def commit(self) -> str | None:
        """The commit of a `git:` reference."""
        return self.version[4:] if self.version is not None and self.version.startswith("git:") else None

    def __str__(self) -> str:
        return self.model if self.version is None else f"{self.model}@{self.version}"


def check_model_name(name: str) -> str:
    """Return `name`.

    Raises:
        InvalidName: the format does not allow it.
    """
    if _MODEL.fullmatch(name):
        return name
    if name.count("/") == 1 and all(_MODEL.fullmatch(part) for part in name.split("/")):
        raise InvalidName(f"model name {name!r} is not allowed: names with a '/' are reserved; use '-' instead")
    raise InvalidName(
        f"model name {name!r} is not allowed: use 1 to 64 of a-z, 0-9, '.', '_' and '-', "
        "a letter or digit first and last"
    )


def check_version_id(version: str) -> str:
    """Return `version`.

    Raises:
        InvalidName: the format does not allow it as a version's id.
    """
    if version in RESERVED_VERSIONS:
        raise InvalidName(f"version id {version!r} is not allowed: it has a meaning of its own; choose another")
    if not _VERSION.fullmatch(version):
        raise InvalidName(
            f"version id {version!r} is not allowed: use 1 to 64 of A-Z, a-z, 0-9, '.', '_', '+' and '-', "
            "a letter or digit first and last"
        )
    return version


def parse_reference(text: str) -> Reference:
    """Read `model`, `model@version`, `model@active`, `model@previous` or `model@git:<commit>`.

    Raises:
        InvalidName, InvalidReference
    """
    model, at, version = text.partition("@")
    check_model_name(model)
    if not at:
        return Reference(model)
    if version in ("active", "previous"):
        return Reference(model, version)
    if version.startswith("git:"):
        if not _COMMIT.fullmatch(version[4:]):
            raise InvalidReference(f"reference {text!r} is not allowed: after 'git:' comes a commit, 7 to 64 of 0-9a-f")
        return Reference(model, version)
    if version == "latest":
        raise InvalidReference(
            f"reference {text!r} is not allowed: there is no 'latest'; use '{model}@active' or a version's id"
        )
    if not version:
        raise InvalidReference(f"reference {text!r} names no version after '@'; leave the '@' out or name one")
    check_version_id(version)
    return Reference(model, version)


def near_names(name: str, known: Iterable[str]) -> list[str]:
    """Return up to three of `known` that `name` may have been meant to be, nearest first."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    return [by_lower[match] for match in difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.6)]


def next_version(taken: Iterable[str]) -> str:
    """Return the first `vN` above every one in `taken`."""
    numbers = [int(match[1]) for version in taken if (match := _NUMBERED.fullmatch(version))]
    return f"v{max(numbers, default=0) + 1}"


def sort_key(version: str) -> tuple[tuple[int, int, str], ...]:
    """Order versions as people do: v9 before v10."""
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.findall(r"\d+|\D+", version))
