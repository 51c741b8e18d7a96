import os
from pathlib import Path

import pytest

from modelrepo_runtime.supervision import ChildSpec
from modelrepo_runtime.supervision.environment import INHERITED_PREFIXES, allowed, child_environment
from modelrepo_runtime.testing.children import a_request, a_spec, started

SECRETS = {
    "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "k", "GOOGLE_APPLICATION_CREDENTIALS": "k",
    "AZURE_STORAGE_KEY": "k",
    "HF_TOKEN": "k", "UV_INDEX_URL": "k", "PIP_INDEX_URL": "k", "MODELREPO_TOKEN": "k", "MODELREPO_SECRET_OTHER": "k",
    "PYTHONPATH": "k", "VIRTUAL_ENV": "k", "LD_PRELOAD": "k", "DATABASE_URL": "k",
}  # fmt: skip
KEPT = {
    "PATH": "/bin",
    "HOME": "/h",
    "LANG": "C",
    "LC_ALL": "C",
    "HTTPS_PROXY": "p",
    "NCCL_DEBUG": "1",
    "TORCH_HOME": "t",
}


def test_only_what_is_on_the_list_is_inherited() -> None:
    assert allowed(SECRETS | KEPT) == KEPT


def test_the_slots_devices_win_over_the_model_and_the_model_over_the_worker() -> None:
    spec = ChildSpec(
        python=Path("python"),
        code_roots=(),
        entrypoint="a:b",
        model="m",
        version="v",
        stages=(),
        folder=Path("/x"),
        env={"TORCH_HOME": "model", "CUDA_VISIBLE_DEVICES": "7"},
        secrets={"HF_TOKEN": "given"},
        device_env={"CUDA_VISIBLE_DEVICES": "0"},
    )
    made = child_environment(spec, SECRETS | KEPT, "token")
    assert (made["TORCH_HOME"], made["CUDA_VISIBLE_DEVICES"], made["HF_TOKEN"]) == ("model", "0", "given")
    assert (made["RANK"], made["WORLD_SIZE"], made["MASTER_ADDR"]) == ("0", "1", "127.0.0.1")
    assert not made.keys() & (SECRETS.keys() - {"HF_TOKEN"})


def test_a_real_child_sees_none_of_the_workers_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value) if name not in ("LD_PRELOAD", "PYTHONPATH") else None
    child = started(a_spec(tmp_path, "def run(self, job):\n    import os\n    return dict(os.environ)"))
    seen = child.run(a_request(tmp_path), timeout_s=10).result
    child.stop()
    assert seen["PATH"] == os.environ["PATH"]
    assert not seen.keys() & SECRETS.keys()


def test_the_page_names_every_prefix_that_is_inherited() -> None:
    page = (Path(__file__).parents[3] / "docs" / "contract.md").read_text("utf-8").split("## The process")[1]
    assert [prefix for prefix in INHERITED_PREFIXES if f"`{prefix}" not in page] == []
