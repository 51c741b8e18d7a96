"""Whether a child that serves one version may take up another in place: only where nothing but numbers differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from modelrepo.versions.tensors import is_tensor_file, read_header
from modelrepo.versions.version import LocalVersion
from modelrepo_runtime.worker.preparing import Prepared

Layout = Mapping[str, tuple[str, tuple[int, ...]]]
"""Name -> type and shape of each tensor of a checkpoint."""

# The contract itself: what of it matters to a child is compared by its meaning.
_CONTRACT = frozenset({"model.yaml", "pyproject.toml", "uv.lock"})


def hindrances(old: Prepared, new: Prepared, *, reloads: bool) -> tuple[str, ...]:
    """Say why not, in words; empty where the child that runs `old` may take up `new`.

    Both are on this box and verified; of checkpoints only headers are read.
    """
    found: list[str] = []
    if not reloads:
        found.append("the model has no method reload")
    was, now = old.chosen, new.chosen
    environments = was.version.manifest.environment.digest, now.version.manifest.environment.digest
    if environments[0] != environments[1] or was.extra != now.extra or old.python != new.python:
        found.append("its environment is another")
    if _code(old) != _code(new):
        found.append("its code is another")
    if _terms(old) != _terms(new):
        found.append("its entrypoint, stages or env are others")
    if not found:
        found += _checkpoints(old.local, new.local)
    return tuple(found)


def _code(prepared: Prepared) -> Mapping[str, object]:
    files = prepared.version.manifest.code
    return {file.path: (file.sha256, file.mode) for file in files if file.path not in _CONTRACT}


def _terms(prepared: Prepared) -> Sequence[object]:
    spec = prepared.version.spec
    stages = [(stage.name, stage.max_batch) for stage in prepared.chosen.stages]
    return spec.entrypoint, tuple(spec.code), stages, dict(spec.env), dict(prepared.chosen.secrets)


def _checkpoints(old: LocalVersion, new: LocalVersion) -> list[str]:
    if set(old.checkpoints) != set(new.checkpoints):
        return ["it has checkpoints of other names"]
    found: list[str] = []
    for name in sorted(new.checkpoints):
        if _others(old, name) != _others(new, name):
            found.append(f"checkpoint {name} differs in files that hold no tensors")
        elif _layout(old, name) != _layout(new, name):
            found.append(f"checkpoint {name} has other tensors, types or shapes")
    return found


def _others(local: LocalVersion, name: str) -> Mapping[str, object]:
    record = local.version.manifest.checkpoints[name]
    return {file.path: file.sha256 for file in record.files if not is_tensor_file(file.path)}


def _layout(local: LocalVersion, name: str) -> Layout:
    """Read all headers of a checkpoint. Raises: OSError."""
    root, layout = local.checkpoints[name], dict[str, tuple[str, tuple[int, ...]]]()
    record = local.version.manifest.checkpoints[name]
    for file in record.files:
        if not is_tensor_file(file.path):
            continue
        path = root if record.single else root / file.path
        with path.open("rb") as stream:

            def read(start: int, length: int) -> bytes:
                stream.seek(start)
                return stream.read(length)

            header = read_header(file.size_bytes, read)
        if header is None:
            # Mere bytes, whatever its name says: nobody knows what a model makes of others.
            layout[f"{file.path}: {file.sha256}"] = ("bytes", (file.size_bytes,))
            continue
        layout.update({tensor.name: (tensor.dtype, tensor.shape) for tensor in header.tensors})
    return layout
