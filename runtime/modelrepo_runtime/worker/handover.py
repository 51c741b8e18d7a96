"""What the stages of a job hand to each other, on this box and between boxes."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Protocol, runtime_checkable

from modelrepo.errors import ModelRepoError
from modelrepo_runtime.jobs import Claim, Fence, OutputFile

NOTE = ".handover.json"
"""Which files of a folder are as another stage left them; no such name can be handed over."""
KEPT_IN_FOLDER = "handover"


class Keeps(Protocol):
    """Where files of jobs are kept beyond this box."""

    def fetch(self, key: str, target: Path) -> object: ...

    def put_output(
        self, job_id: str, created_at: float, fence: Fence, name: str, path: Path, content_type: str | None = None
    ) -> OutputFile: ...


@runtime_checkable
class Deletes(Protocol):
    """A store that lets go of a file."""

    def delete(self, key: str) -> None: ...


class Handovers:
    """A folder a job, as the stage sees it, and the files of accepted stages in a store.

    Files are kept under the fence of the attempt that wrote them: what a lost attempt still writes reaches nobody.
    """

    def __init__(self, folder: Path, files: Keeps, cluster: Keeps | None = None) -> None:
        """`cluster`: storage that only the boxes of this cluster reach; without it the jobs' files, which all reach."""
        self._folder, self._store = folder, cluster or files
        self.cluster_bound = cluster is not None

    def folder_of(self, job_id: str) -> Path:
        """Return where a job's stages hand over on this box."""
        return self._folder / job_id

    def bring(self, claim: Claim) -> None:
        """Make the job's folder hold exactly what the stages before have handed over.

        Raises: NotFound where a file is gone; Unreachable, OSError.
        """
        folder = self.folder_of(claim.job_id)
        known = _read_note(folder)
        wanted = {file.name: file for file in claim.handover}
        for name, path in _files(folder).items():
            if name not in wanted or known.get(name) != _mark(wanted[name].key, path):
                path.unlink() if not path.is_dir() or path.is_symlink() else shutil.rmtree(path)
        if wanted:
            folder.mkdir(parents=True, exist_ok=True)
        for name, file in wanted.items():
            if not (folder / name).exists():
                self._store.fetch(file.key, folder / name)
        if wanted:
            _write_note(folder, claim.handover)

    def keep(self, claim: Claim) -> tuple[OutputFile, ...]:
        """Keep what this stage has handed over, and name it with what the ones before have.

        Raises: InvalidInput for a file that is too large; Unreachable, OSError.
        """
        folder = self.folder_of(claim.job_id)
        known, before = _read_note(folder), {file.name: file for file in claim.handover}
        kept: list[OutputFile] = []
        for name, path in sorted(_files(folder).items()):
            if not path.is_file() or path.is_symlink():
                continue
            if name in before and known.get(name) == _mark(before[name].key, path):
                kept.append(before[name])
                continue
            stored = self._store.put_output(
                claim.job_id,
                claim.created_at,
                claim.fence,
                f"{KEPT_IN_FOLDER}/{name}",
                path,
                "application/octet-stream",
            )
            kept.append(OutputFile(name, stored.key, stored.size_bytes, stored.content_type))
        if kept:
            _write_note(folder, tuple(kept))
        return tuple(kept)

    def forget(self, job_id: str, handed: tuple[OutputFile, ...] = ()) -> None:
        """The job has ended: nobody needs these files any more."""
        shutil.rmtree(self.folder_of(job_id), ignore_errors=True)
        store: object = self._store
        if isinstance(store, Deletes):
            for file in handed:
                with suppress(ModelRepoError, OSError):  # retention takes what stays
                    store.delete(file.key)


def _files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        return {}
    return {path.name: path for path in folder.iterdir() if not path.name.startswith(".")}


def _mark(key: str, path: Path) -> list[object]:
    facts = path.lstat()
    return [key, facts.st_size, facts.st_mtime_ns]


def _read_note(folder: Path) -> dict[str, list[object]]:
    try:
        known = json.loads((folder / NOTE).read_text())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _write_note(folder: Path, files: tuple[OutputFile, ...]) -> None:
    marks = {file.name: _mark(file.key, folder / file.name) for file in files}
    (folder / NOTE).write_text(json.dumps(marks))
