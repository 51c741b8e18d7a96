"""The pool's folder: on tmpfs, our own, and what lies where in it.

<pool>/lock                 flock: reservations and evictions, one at a time on the box
<pool>/entries/<content>    whole and verified, 0444; its time of change is a seal, its time of access the last use
<pool>/incoming/<content>   being filled by who holds its flock; its size is what it was promised
<pool>/leaving/<name>       damaged, or in the way, and still mapped by somebody
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from modelrepo.errors import Unsuitable

SHARED_MEMORY = Path("/dev/shm")
_KINDS = frozenset({"tmpfs", "ramfs"})


def default_folder() -> Path:
    """Return the user's own pool on this box."""
    return SHARED_MEMORY / f"modelrepo-{os.getuid()}"


@dataclass(frozen=True, slots=True)
class Place:
    """The paths below a pool's folder."""

    root: Path

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def entries(self) -> Path:
        return self.root / "entries"

    @property
    def incoming(self) -> Path:
        return self.root / "incoming"

    @property
    def leaving(self) -> Path:
        return self.root / "leaving"

    def make(self) -> None:
        """Make the folders.

        Raises: Unsuitable, where they would not lie on tmpfs, or belong to somebody else.
        """
        if not self.root.exists():
            _require_memory(self.root.parent, self.root)
        try:
            self.root.mkdir(mode=0o700, exist_ok=True)
            found = self.root.lstat()
        except OSError as error:
            raise Unsuitable(f"cannot make the pool {self.root}: {error.strerror}") from None
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
            raise Unsuitable(f"cannot use {self.root} as the pool: it must be a folder that we alone may write to")
        _require_memory(self.root, self.root)
        for folder in (self.entries, self.incoming, self.leaving):
            folder.mkdir(mode=0o700, exist_ok=True)


def filesystem_of(folder: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """Return the type of the filesystem that holds a folder; empty where nobody can tell."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
        place = str(folder.resolve())
    except OSError:
        return ""
    best, kind = -1, ""
    for line in lines:
        fields, _, rest = line.partition(" - ")
        point = fields.split(" ")[4].encode().decode("unicode_escape")
        inside = place == point or place.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= best:
            best, kind = len(point), rest.split(" ")[0]
    return kind


def _require_memory(folder: Path, root: Path) -> None:
    kind = filesystem_of(folder)
    if not folder.is_dir():
        raise Unsuitable(f"cannot make the pool {root}: there is no {folder}")
    if kind not in _KINDS:
        raise Unsuitable(f"cannot use {root} as the pool: it lies on {kind or 'an unknown filesystem'}, not on tmpfs")
