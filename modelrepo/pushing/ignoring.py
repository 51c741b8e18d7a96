"""Which files of a model's folder stay at home: `.gitignore`, `.modelrepoignore`, and what is never packed."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Self

from pathspec import GitIgnoreSpec

IGNORE_FILES = (".gitignore", ".modelrepoignore")  # the later one has the last word
NEVER_PACKED = (
    ".git", ".venv", "__pycache__", ".env*", "*.pem", ".netrc", ".aws", ".ssh",
    ".modelrepo",  # where `pull` puts checkpoints whose source is elsewhere
)  # fmt: skip


def never_packed(relative: str) -> str | None:
    """Return the component of a path that keeps it from ever being packed; None when there is none."""
    for part in relative.split("/"):
        if any(fnmatchcase(part, pattern) for pattern in NEVER_PACKED):
            return part
    return None


@dataclass(frozen=True, slots=True)
class _RuleFile:
    base: str  # the folder of the file, relative to where the rules start; "" or ending in "/"
    spec: GitIgnoreSpec

    def verdict(self, path: str) -> bool | None:
        return self.spec.check_file(path.removeprefix(self.base)).include if path.startswith(self.base) else None


@dataclass(frozen=True, slots=True)
class IgnoreRules:
    """The ignore files met on the way down to one folder. Paths are relative to the top, folders end in "/"."""

    above: str = ""  # from the top of the Git checkout to the model's folder
    files: tuple[_RuleFile, ...] = ()

    @classmethod
    def for_folder(cls, folder: Path) -> Self:
        """Read the rules of `folder` and of the Git checkout around it."""
        folder = folder.resolve()
        chain = [folder]
        for parent in (folder, *folder.parents):
            if parent != folder:
                chain.append(parent)
            if (parent / ".git").exists():
                break
        else:
            chain = [folder]
        top = chain[-1]
        above = "" if top == folder else folder.relative_to(top).as_posix() + "/"
        rules = cls(above)
        for parent in reversed(chain[1:]):
            rules = rules._with(parent, "" if parent == top else parent.relative_to(top).as_posix() + "/")
        # Rules that ignore the whole folder cannot be meant: the user has named it.
        return rules.naming("").below(folder, "")

    def below(self, folder: Path, relative: str) -> Self:
        """Add the ignore files of a subfolder; `relative` is "" or ends in "/"."""
        return self._with(folder, self.above + relative)

    def naming(self, relative: str) -> Self:
        """Drop the rules that would ignore a folder which was named explicitly."""
        path = self.above + relative
        if not path:
            return self
        return type(self)(self.above, tuple(file for file in self.files if not file.verdict(path)))

    def ignore(self, relative: str) -> bool:
        """Say whether the rules ignore a path; the innermost rule that speaks decides."""
        for file in reversed(self.files):
            verdict = file.verdict(self.above + relative)
            if verdict is not None:
                return verdict
        return False

    def _with(self, folder: Path, base: str) -> Self:
        found = []
        for name in IGNORE_FILES:
            file = folder / name
            if file.is_file():
                lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
                found.append(_RuleFile(base, GitIgnoreSpec.from_lines(lines)))
        return type(self)(self.above, (*self.files, *found)) if found else self
