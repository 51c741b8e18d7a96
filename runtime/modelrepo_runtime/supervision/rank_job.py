"""What each rank is given of a job: rank 0 the job itself, the others the same with folders that nobody keeps."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from modelrepo_runtime.child import ballot
from modelrepo_runtime.child.job import FILE_NAME

from .spec import JobRequest

_JOBS = "jobs"


@contextlib.contextmanager
def divided(folder: Path, ranks: int, requests: Sequence[JobRequest]) -> Iterator[list[list[JobRequest]]]:
    """Give each rank its requests, and remove what was made for them in `folder` afterwards.

    Handed-over files are shown to the further ranks as they were before; what a further rank writes is lost.
    """
    own = folder / _JOBS / secrets.token_hex(8)
    try:
        own.mkdir(parents=True)
        places = [own / str(number) for number in range(len(requests))]
        yield [
            [_for_rank(place, rank, ranks, one) for place, one in zip(places, requests, strict=True)]
            for rank in range(ranks)
        ]
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _for_rank(own: Path, rank: int, ranks: int, request: JobRequest) -> JobRequest:
    agreed = own / "ballot"
    if rank == 0:
        own.mkdir()
        ballot.make(agreed, ranks)
        return replace(request, ballot=agreed, rank=0)
    shown = own / f"handover-{rank}"
    _show(request.handover_dir, shown)
    state = request.state and replace(request.state, told=None)
    return replace(
        request,
        ballot=agreed,
        rank=rank,
        output_dir=own / f"outputs-{rank}",
        handover_dir=shown,
        scratch=None,
        state=state,
    )


def _show(folder: Path, view: Path) -> None:
    """Link what is in a folder into another one."""
    view.mkdir()
    with contextlib.suppress(FileNotFoundError):
        for entry in folder.iterdir():
            if FILE_NAME.fullmatch(entry.name):
                _link(entry, view / entry.name)


def _link(entry: Path, name: Path) -> None:
    try:
        os.link(entry, name)
    except OSError:  # another filesystem, or a folder
        name.symlink_to(entry.absolute())
