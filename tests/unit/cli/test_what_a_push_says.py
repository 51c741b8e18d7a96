"""A person reads which files had something new, and a screen of them at most."""

from __future__ import annotations

from modelrepo.pushing.account import FileAccount
from modelrepo.pushing.push import PushResult
from modelrepo.versions.tensor_diff import TensorChange, TensorFacts
from modelrepo_cli.commands.diff import MOST_TENSORS, _tensors
from modelrepo_cli.commands.push import MOST_LINES, _text

KIB = 1 << 10


def pushed(*files: FileAccount) -> PushResult:
    new, reused = sum(file.new_bytes for file in files), sum(file.reused_bytes for file in files)
    return PushResult("tiny", "v2", "d" * 64, new, reused, len(files), by_file=files)


def account(path: str, new: int, reused: int, checkpoint: str | None = "w") -> FileAccount:
    return FileAccount(path, checkpoint, new + reused, "e" * 64, new, reused)


def test_files_with_something_new_are_named_the_most_first() -> None:
    text = _text(
        pushed(account("a", 1 * KIB, 7), account("b", 2 * KIB, 0), account("c", 0, 9), account("m", 3, 0, None))
    )
    assert text.splitlines()[1:] == [
        "  w: b: 2.0 KiB new, 0 B reused",
        "  w: a: 1.0 KiB new, 7 B reused",
        "  m: 3 B new, 0 B reused",
    ]


def test_a_first_push_names_no_file() -> None:
    assert len(_text(pushed(account("a", 5, 0), account("b", 5, 0))).splitlines()) == 1


def test_of_many_files_a_screen_is_named() -> None:
    lines = _text(pushed(*(account(f"{number}", KIB, 1) for number in range(100)))).splitlines()
    assert len(lines) == 1 + MOST_LINES + 1
    assert lines[-1] == "  and 80 more files: 80.0 KiB new"


def test_of_many_tensors_a_screen_is_named() -> None:
    facts, other = TensorFacts("F32", (2, 2), 16), TensorFacts("BF16", (2, 2), 8)
    lines = list(_tensors([TensorChange("w", f"t{n}", "changed", facts, other) for n in range(MOST_TENSORS + 5)]))
    assert lines[0] == "tensor       changed  w: t0 F32[2, 2] -> BF16[2, 2]"
    assert lines[-1] == "tensor       and 5 more"
