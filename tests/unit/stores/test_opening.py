"""URLs name stores."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from modelrepo.errors import InvalidInput, MissingExtra
from modelrepo.stores.filesystem import FilesystemStore
from modelrepo.stores.memory import MemoryStore
from modelrepo.stores.opening import open_store


def test_paths_and_file_urls_are_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for url in ("some folder", f"{tmp_path}/some folder", f"file://{tmp_path}/some%20folder"):
        store = open_store(url)
        assert isinstance(store, FilesystemStore)
        assert store.root == tmp_path / "some folder"
        assert store.url == f"file://{tmp_path}/some%20folder"
    assert not (tmp_path / "some folder").exists()


def test_memory_urls_share_by_name() -> None:
    one, other, third = open_store("memory://opening"), open_store("memory://opening/"), open_store("memory://opening2")
    assert isinstance(one, MemoryStore)
    one.create("a", b"1")
    assert other.read("a") == b"1"
    assert list(third.list("")) == []


@pytest.mark.parametrize(
    "url",
    [
        "",
        "memory://",
        "s3://",
        "ftp://host/x",
        "file://elsewhere/x",
        "s3://key:secret@bucket/x",
        "s3://:secret@bucket/x",
        "s3://@bucket/x",
        "s3://profile@/x",
        "gs://secret@bucket/x",
        "s3://bucket/x?y",
        "s3://b/#",
    ],
)
def test_urls_without_a_meaning_are_refused(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        open_store(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["s3:/bucket/models", "S3:bucket/models"])
def test_a_bucket_with_a_slash_too_few_is_no_folder(url: str) -> None:
    with pytest.raises(InvalidInput, match=r"write s3://bucket/models$"):
        open_store(url)


@pytest.mark.parametrize(
    ("url", "package", "says"),
    [
        ("s3://bucket/x", "s3fs", "s3:// needs the 's3' extra: pip install 'modelrepo-toolkit[s3]'"),
        ("gs://bucket/x", "gcsfs", "gs:// needs the package 'gcsfs': pip install gcsfs"),
        ("az://bucket/x", "adlfs", "az:// needs the package 'adlfs': pip install adlfs"),
    ],
)
def test_a_missing_package_is_named_with_its_pip_line(
    monkeypatch: pytest.MonkeyPatch, url: str, package: str, says: str
) -> None:
    for one in (package, "modelrepo.stores.s3"):
        monkeypatch.setitem(sys.modules, one, None)
    with pytest.raises(MissingExtra) as caught:
        open_store(url)
    assert str(caught.value) == says
    assert caught.value.package == package


def test_opening_a_folder_loads_no_client_of_a_bucket() -> None:
    program = (
        "import sys; from modelrepo.stores.opening import open_store; open_store('/x'); open_store('memory://x'); "
        "print(sorted({'fsspec', 's3fs', 'obstore', 'botocore', 'aiohttp', 'yaml'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
