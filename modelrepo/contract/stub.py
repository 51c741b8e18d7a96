"""What a model's author is promised on ctx and job, by name; modelrepo_contract.pyi says the rest to editors."""

from __future__ import annotations

from importlib.resources import files

STUB_FILE = "modelrepo_contract.pyi"
CTX_MEMBERS = (
    "stages", "device", "devices", "rank", "local_rank", "world_size", "checkpoint", "load_safetensors",
    "config", "secrets", "scratch", "version",
)  # fmt: skip
JOB_MEMBERS = (
    "id", "attempt", "inputs", "file", "output", "progress", "check", "cancelled", "reject", "retry",
    "previous", "handover", "save_state", "state", "adapters",
)  # fmt: skip


def type_stub() -> str:
    """Return the text of the stub that `modelrepo new` lays beside a model."""
    return files("modelrepo.contract").joinpath(STUB_FILE).read_text("utf-8")
