"""`active.yaml`: what people read, and may edit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from modelrepo import canonical
from modelrepo.canonical import Json
from modelrepo.errors import Corrupt, InvalidActiveFile, InvalidInput
from modelrepo.formats import check_format
from modelrepo.names import check_version_id
from modelrepo.promotion import yaml_text

HEADER = """\
# What is live. Every worker that serves this model follows this file; no restart is needed.
# Change it with `modelrepo promote`, `rollback` or `edit`. Or by hand: it is enough to change `version`, a save wins
# over what was there, and the next command records it. `digest` and `generation` need not be kept right.
"""

LARGEST_BYTES = 256 * 2**10
"""Every worker reads the file all the time; YAML of this size takes a second or two."""

MOST_FETCHING = 32
"""Boxes of one cluster that fetch a version at once, unless told otherwise. What they share is a link and a store, and
those do not grow with the fleet, so this is a number and no share: at 10 Gb/s each they fill 320 Gb/s."""

_DIGEST = re.compile(r"(?:sha256:)?([0-9a-f]{64})")
_SHARE = re.compile(r"([0-9]+) *(%?)")


@dataclass(frozen=True, slots=True)
class Rollout:
    """How a change spreads. `max_unavailable`: how many slots may be away at once, such as `10%` or `2`.

    `max_fetching`: how many boxes of a cluster may fetch what they lack of it at once. `now`: running attempts of the
    version that is left end at once, uncounted. It goes with one change and is not handed on to the next.
    """

    max_unavailable: str = "10%"
    now: bool = False
    max_fetching: int = MOST_FETCHING

    def __post_init__(self) -> None:
        match = _SHARE.fullmatch(self.max_unavailable.strip())
        if match is None or not 1 <= int(match[1]) <= (100 if match[2] else 10**9):
            raise InvalidInput(
                f"max_unavailable {self.max_unavailable!r} is not allowed: write a share such as 10%, or a number"
            )
        object.__setattr__(self, "max_unavailable", match[1] + match[2])
        if not 1 <= self.max_fetching <= 10**9:
            raise InvalidInput(f"max_fetching {self.max_fetching} is not allowed: write a number of boxes from 1 on")

    def to_json(self) -> dict[str, Json]:
        """Return it as the files hold it."""
        share = self.max_unavailable
        document: dict[str, Json] = {"max_unavailable": int(share) if share.isdigit() else share}
        if self.max_fetching != MOST_FETCHING:
            document["max_fetching"] = self.max_fetching
        if self.now:
            document["now"] = True
        return document

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Rollout:
        """Read what `to_json` wrote, or what people made of it; raises InvalidInput."""
        share = value.get("max_unavailable")
        boxes = value.get("max_fetching", MOST_FETCHING)
        if isinstance(boxes, bool) or not isinstance(boxes, int):
            raise InvalidInput(f"max_fetching {boxes!r} is not allowed: write a number of boxes from 1 on")
        return cls("10%" if share is None else str(share), now=value.get("now") is True, max_fetching=boxes)


@dataclass(frozen=True, slots=True)
class ActiveFile:
    """What an `active.yaml` says. `digest` is 64 hex digits; a file written by hand may lack it and `generation`."""

    version: str | None
    digest: str | None = None
    generation: int | None = None
    config: Mapping[str, Json] = field(default_factory=dict)
    rollout: Rollout = field(default_factory=Rollout)


def render(file: ActiveFile) -> bytes:
    """Return the one text of `file`; raises InvalidInput where nobody would read so much."""
    document = {
        "version": file.version,
        "digest": None if file.digest is None else f"sha256:{file.digest}",
        "generation": file.generation,
        "config": file.config,
        "rollout": file.rollout.to_json(),
    }
    data = (HEADER + yaml_text.dump(document)).encode()
    if len(data) > LARGEST_BYTES:
        raise InvalidInput(
            f"config makes an active.yaml of {len(data):,} bytes, and {LARGEST_BYTES:,} are the most; "
            "put what is large into the version"
        )
    return data


def parse(data: bytes, where: str = "active.yaml") -> ActiveFile:
    """Read what we wrote, or what people made of it.

    Raises:
        InvalidActiveFile: it is no YAML, or a value in it has no meaning.
        NewerFormat: it is of a newer format, or requires what this modelrepo does not know.
    """
    try:
        if len(data) > LARGEST_BYTES:
            raise InvalidInput(f"its {len(data):,} bytes are more than the {LARGEST_BYTES:,} that it may have")
        nodes = {key.value: value for key, value in yaml_text.compose(data).value if isinstance(key, yaml.ScalarNode)}
        check_format({key: yaml_text.value_of(nodes[key]) for key in ("format", "requires") if key in nodes}, where)
        if "version" not in nodes:
            raise InvalidInput("it has no key `version`")
        version = _text(nodes["version"], "version")
        return ActiveFile(
            version=None if version is None else check_version_id(version),
            digest=_digest(_text(nodes["digest"], "digest")) if "digest" in nodes else None,
            generation=_generation(nodes.get("generation")),
            config=_config(nodes.get("config")),
            rollout=_rollout(nodes.get("rollout")),
        )
    except (InvalidInput, Corrupt) as error:
        raise InvalidActiveFile(
            f"cannot read {where}: {error}; mend it with `modelrepo edit`, or promote with --force to replace it"
        ) from error


def _text(node: yaml.Node, key: str) -> str | None:
    # As it stands there: a version may be written 1.10 or 2024-01-01, which YAML would take for something else.
    if not isinstance(node, yaml.ScalarNode):
        raise InvalidInput(f"{key} is no single value")
    if node.tag == "tag:yaml.org,2002:null" and node.style is None:
        return None
    text: str = node.value
    return text


def _digest(text: str | None) -> str | None:
    if text is None:
        return None
    match = _DIGEST.fullmatch(text)
    if match is None:
        raise InvalidInput(f"digest {text!r} is none: write sha256: and 64 hex digits, or leave the key out")
    return match[1]


def _generation(node: yaml.Node | None) -> int | None:
    value = None if node is None else yaml_text.value_of(node)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _config(node: yaml.Node | None) -> Mapping[str, Json]:
    value = None if node is None else yaml_text.value_of(node)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidInput("config is no mapping of keys to values")
    try:
        canonical.dumps(value)
    except InvalidInput as error:
        raise InvalidInput(f"config {error}") from error
    return value


def _rollout(node: yaml.Node | None) -> Rollout:
    value: Any = None if node is None else yaml_text.value_of(node)
    if value is None:
        return Rollout()
    if not isinstance(value, dict):
        raise InvalidInput("rollout is no mapping of keys to values")
    return Rollout.from_json(value)
