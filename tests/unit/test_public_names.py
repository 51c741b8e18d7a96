from __future__ import annotations

import subprocess
import sys

import modelrepo

PROMISED = [
    "ActiveState",
    "CheckRequest",
    "CopyOptions",
    "CopyReport",
    "EnvironmentCache",
    "HistoryEntry",
    "IndexSettings",
    "LocalVersion",
    "Manifest",
    "ModelRepoError",
    "ModelSpec",
    "Promotions",
    "PushOptions",
    "PushPlan",
    "PushResult",
    "Reference",
    "Repository",
    "VendorOptions",
    "VendorResult",
    "Version",
    "VersionCache",
    "VersionDiff",
    "VersionSummary",
    "load_spec",
    "open_store",
    "parse_reference",
]
HEAVY = ("fsspec", "s3fs", "torch", "jsonschema", "uv", "yaml", "filelock", "pynvml", "click", "asyncio")


def test_the_public_names_are_the_promised_ones() -> None:
    assert sorted(modelrepo.__all__) == PROMISED


def test_every_public_name_is_there() -> None:
    for name in PROMISED:
        assert getattr(modelrepo, name) is not None
    assert set(PROMISED) <= set(dir(modelrepo))


def test_a_name_that_is_not_promised_is_an_attribute_error() -> None:
    assert not hasattr(modelrepo, "Latest")


def test_importing_modelrepo_imports_nothing_heavy() -> None:
    program = f"import sys, modelrepo; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_repository_brings_no_fsspec_backend_with_it() -> None:
    heavy = ("s3fs", "aiobotocore", "torch", "pynvml", "click")
    program = f"import sys, modelrepo.repository; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
