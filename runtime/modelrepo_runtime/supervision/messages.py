"""What the supervisor tells a child: who it is, and what to run."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from modelrepo_runtime.child.frames import Message

from .spec import ChildSpec, JobRequest, StateRequest


def start_message(spec: ChildSpec, scratch: Path, nonce: str, *, mode: str = "serve") -> Message:
    """The first message: everything that `ctx` shows."""
    return {
        "t": "start",
        "n": nonce,
        "mode": mode,
        "model": spec.model,
        "version": spec.version,
        "entrypoint": spec.entrypoint,
        "code_roots": [str(root) for root in spec.code_roots],
        "stages": list(spec.stages),
        "max_batch": dict(spec.max_batch),
        "device": spec.device,
        "devices": list(spec.devices),
        "config": dict(spec.config),
        "secrets": dict(spec.secrets),
        "checkpoints": _texts(spec.checkpoints),
        "pool": {str(path): [str(entry), size, mtime_ns] for path, (entry, size, mtime_ns) in spec.pooled.items()},
        "scratch": str(scratch),
        "post_mortem": spec.post_mortem,
        "rank": spec.rank,
        "ranks": spec.ranks,
    }


def reload_message(spec: ChildSpec, scratch: Path, nonce: str) -> Message:
    """What `ctx` shows from now on, for a model that is to take it up in place."""
    return {"t": "reload", "n": nonce, "start": start_message(spec, scratch, nonce)}


def run_message(request: JobRequest, scratch: Path, nonce: str) -> Message:
    """One job, with its scratch empty; the child makes the job's other folders when they are first asked for."""
    empty(scratch)
    message = {
        "t": "run",
        "n": nonce,
        "job_id": request.job_id,
        "attempt": request.attempt,
        "stage": request.stage,
        "inputs": dict(request.inputs),
        "files": _texts(request.files),
        "adapters": [
            {"name": one.name, "path": str(one.path), "sha256": one.sha256, "weight": one.weight}
            for one in request.adapters
        ],
        "previous": request.previous,
        "output_dir": str(request.output_dir),
        "handover_dir": str(request.handover_dir),
        "state": None if request.state is None else _state(request.state),
        "scratch": str(scratch),
    }
    return message if request.ballot is None else {**message, "ballot": str(request.ballot), "rank": request.rank}


def batch_message(requests: Sequence[JobRequest], scratch: Path, nonce: str, nonces: Sequence[str]) -> Message:
    """Several jobs in one call, each with a nonce of its own."""
    jobs = [run_message(request, scratch, own) for request, own in zip(requests, nonces, strict=True)]
    return {"t": "run", "n": nonce, "stage": requests[0].stage, "scratch": str(scratch), "jobs": jobs}


def empty(folder: Path) -> None:
    """Leave a folder that is there and holds nothing; never follow what a model has put in its place."""
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def _state(state: StateRequest) -> Message:
    return {
        "folders": [None if state.memory is None else str(state.memory), str(state.disk)],
        "about": dict(state.about),
        "first": state.first,
        "found": None if state.found is None else str(state.found),
    }


def _texts(paths: Mapping[str, Path]) -> dict[str, str]:
    return {name: str(path) for name, path in paths.items()}
