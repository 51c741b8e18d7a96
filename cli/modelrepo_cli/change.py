"""What the verbs that change what is live have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from modelrepo.errors import InvalidActiveFile, InvalidInput, InvalidReference
from modelrepo_cli import convergence, parameters

if TYPE_CHECKING:
    from modelrepo.promotion import HistoryEntry
    from modelrepo.repository import Repository
    from modelrepo_cli.verbs import Call

DEFAULT_WAIT = "30m"

WAIT = click.option(
    "--wait",
    "wait_s",
    type=parameters.DURATION,
    is_flag=False,
    flag_value=DEFAULT_WAIT,
    metavar="[TIME]",
    help=f"Wait until every slot runs it, {DEFAULT_WAIT} unless said; exit 6 when the time is over.",
)


def named_version(reference: str) -> tuple[str, str]:
    """Split MODEL@VERSION.

    Raises:
        InvalidReference: it names no version.
    """
    from modelrepo.names import parse_reference

    parsed = parse_reference(reference)
    if parsed.version is None:
        raise InvalidReference(f"cannot read {reference!r}: it names no version; write MODEL@VERSION")
    return parsed.model, parsed.version


def checked_config(
    repository: Repository,
    reference: str,
    settings: Sequence[str] = (),
    unset: Sequence[str] = (),
    *,
    force: bool = False,
) -> dict[str, Any]:
    """Read `--set`, and see that the version takes it together with what stays overridden after `--unset`.

    Raises:
        InvalidInput: a key that the version does not declare, or a value of another type than its default; a key to
            be unset that is not overridden, or set at once.
    """
    from modelrepo.contract import effective_config, parse_settings

    spec = repository.resolve(reference).spec
    parameters.assignments(settings, "--set")
    told = parse_settings(spec, settings)
    try:
        kept = repository.promotions.state(spec.name).config
    except InvalidActiveFile:
        if force:
            return told
        raise
    for key in unset:
        if key in told or key not in kept:
            found = "--set gives it a value" if key in told else f"overridden are: {', '.join(kept) or 'none'}"
            raise InvalidInput(f"cannot unset config key {key!r} of {spec.name}: {found}")
    try:
        effective_config(spec, {key: value for key, value in {**kept, **told}.items() if key not in unset})
    except InvalidInput as error:
        raise InvalidInput(
            f"{error}; active.yaml overrides it for the version before: promote with `--unset KEY`"
        ) from None
    return told


def describe(model: str, entry: HistoryEntry, *, unchanged: bool = False) -> str:
    """Return a change as one line; `unchanged`: the entry was there before, and no other was made."""
    if unchanged:
        return f"{model}@{entry.version} is active already (generation {entry.generation})"
    done = {
        "promote": "is active",
        "config": "is active with changed config",
        "rollback": "is active again",
        "hand-edit": "is active as edited by hand",
        "block": "is blocked",
        "unblock": "is allowed again",
    }
    return f"{model}@{entry.version} {done.get(entry.kind, entry.kind)} (generation {entry.generation})"


def finish(
    call: Call, model: str, entry: HistoryEntry, text: str, wait_s: float | None, *, unchanged: bool = False
) -> None:
    """Wait for the fleet where asked to, and print the change."""
    if wait_s is not None:
        call.output.note(text)
        target = convergence.Target(model, entry.version, entry.digest, entry.generation)
        with call.job_queue() as queue:
            slots = convergence.wait(
                queue.fleet,
                target,
                wait_s,
                changed=lambda late: call.output.note("waiting: " + "; ".join(str(slot) for slot in late)),
            )
        text = f"every live slot of {model} runs {entry.version}" if slots else f"no live slot serves {model} yet"
    converged = True if wait_s is not None else None
    call.output.show({"model": model, **entry.to_json(), "unchanged": unchanged, "converged": converged}, text)
