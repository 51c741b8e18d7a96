"""`modelrepo diff`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from modelrepo_cli.output import size
from modelrepo_cli.verbs import Call, verb

if TYPE_CHECKING:
    from modelrepo.versions.diff import FileChange, ValueChange, VersionDiff
    from modelrepo.versions.tensor_diff import TensorChange

MOST_TENSORS = 100  # for people; --json has them all


@verb("repo")
@click.argument("before", metavar="A")
@click.argument("after", metavar="B")
def command(call: Call, before: str, after: str) -> None:
    """Show what differs between two versions.

    Values of model.yaml, config, packages, code and checkpoints, each with how many bytes are new; and the tensors of
    .safetensors files that were added, removed or changed.
    """
    difference = call.repository().diff(before, after)
    text = "\n".join(_lines(difference)) or f"{difference.before} and {difference.after} hold the same"
    call.output.show(_document(difference), text)


def _document(difference: VersionDiff) -> dict[str, Any]:
    return {
        "before": {"version": str(difference.before), "digest": f"sha256:{difference.before.digest}"},
        "after": {"version": str(difference.after), "digest": f"sha256:{difference.after.digest}"},
        "same": difference.empty,
        "spec": difference.spec,
        "config": difference.config,
        "python": difference.python,
        "requirements": difference.requirements,
        "code": difference.code,
        "checkpoints": difference.checkpoints,
        "tensors": difference.tensors,
    }


def _lines(difference: VersionDiff) -> Iterator[str]:
    yield from _values("model.yaml", difference.spec)
    yield from _values("config", difference.config)
    if difference.python is not None:
        yield f"python       {difference.python[0]} -> {difference.python[1]}"
    for package in difference.requirements:
        yield f"package      {package.name} {package.before or 'none'} -> {package.after or 'none'}"
    yield from _files("code", difference.code)
    yield from _files("checkpoint", difference.checkpoints)
    yield from _tensors(difference.tensors)


def _values(what: str, changes: Sequence[ValueChange]) -> Iterator[str]:
    for change in changes:
        yield f"{what:<12} {change.pointer} {_short(change.before)} -> {_short(change.after)}"


def _files(what: str, changes: Sequence[FileChange]) -> Iterator[str]:
    for change in changes:
        sizes = " -> ".join(size(count) for count in (change.before_bytes, change.after_bytes) if count is not None)
        new = f", {size(change.new_bytes)} new" if change.kind == "changed" else ""
        yield f"{what:<12} {change.kind:<8} {change.path} ({sizes}{new})"


def _tensors(changes: Sequence[TensorChange]) -> Iterator[str]:
    for change in changes[:MOST_TENSORS]:
        sides = [f"{facts.dtype}{list(facts.shape)}" for facts in (change.before, change.after) if facts is not None]
        shown = " -> ".join(dict.fromkeys(sides))
        yield f"{'tensor':<12} {change.kind:<8} {change.checkpoint}: {change.name} {shown}"
    if len(changes) > MOST_TENSORS:
        yield f"{'tensor':<12} and {len(changes) - MOST_TENSORS} more"


def _short(value: Any) -> str:
    text = "none" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
