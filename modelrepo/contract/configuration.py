"""What ctx.config holds: the version's defaults under what active.yaml overrides."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from modelrepo.contract.spec import ModelSpec
from modelrepo.contract.wording import describe, near
from modelrepo.errors import InvalidInput


def effective_config(spec: ModelSpec, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults with the overrides laid over them, key by key at the top.

    Raises: InvalidInput for a key that the version does not declare, or a value of another type than its default.
    """
    for key, value in overrides.items():
        _declared(spec, key)
        if not _fits(spec.config[key], value):
            default = spec.config[key]
            raise InvalidInput(
                f"config of {spec.name}: {key}: {describe(value)} has another type than its default {describe(default)}"
            )
    return {**spec.config, **overrides}


def parse_settings(spec: ModelSpec, settings: Sequence[str]) -> dict[str, Any]:
    """Read `--set key=value` by the type of each key's default. Raises: InvalidInput."""
    parsed: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise InvalidInput(f"{setting!r} is no setting; write it like --set key=value")
        _declared(spec, key)
        parsed[key] = _read(spec, key, text)
    effective_config(spec, parsed)
    return parsed


def _read(spec: ModelSpec, key: str, text: str) -> Any:
    default = spec.config[key]
    if isinstance(default, str):
        return text
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except ValueError:
        if default is None:
            return text
        raise InvalidInput(
            f"config of {spec.name}: {key}: {text!r} has another type than its default {describe(default)}"
        ) from None
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _declared(spec: ModelSpec, key: str) -> None:
    if key not in spec.config:
        known = near(key, spec.config) or "; it declares none"
        raise InvalidInput(f"config of {spec.name}: {key!r} is not declared in model.yaml{known}")


def _fits(default: object, value: object) -> bool:
    if default is None or value is None:
        return True
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    if isinstance(default, int | float):  # the manifest's JSON has one kind of number: a default of 1.0 comes back as 1
        return isinstance(value, int | float)
    if isinstance(default, list):
        return isinstance(value, list)
    if isinstance(default, Mapping):
        return isinstance(value, Mapping)
    return isinstance(value, type(default))
