from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest

from modelrepo.errors import InvalidInput, NoSpace, NotFound, ObjectNotFound, Unreachable
from modelrepo_runtime import jobstore
from modelrepo_runtime.jobs import Fence
from modelrepo_runtime.jobstore import PIECE_BYTES, JobStore

AT = 1_700_000_000.0
FENCE = Fence(7, "ab")
_numbers = itertools.count()


@pytest.fixture(params=["folder", "memory"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> JobStore:
    name = f"memory://jobstore-{next(_numbers)}" if request.param == "memory" else str(tmp_path / "files")
    return JobStore(name)


def keys(files: JobStore) -> list[str]:
    return [found.key for found in files._store.list("")]


def written(folder: Path, name: str, data: bytes = b"data") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def test_every_file_has_its_place(files: JobStore, tmp_path: Path) -> None:
    path = written(tmp_path, "a.png")
    assert files.put_input("job_1", AT, "image", path) == "jobs/2023-11-14/job_1/input/image.png"
    output = files.put_output("job_1", AT, FENCE, "picture", path)
    assert (output.name, output.key) == ("picture", "jobs/2023-11-14/job_1/7-ab/picture.png")
    assert (output.size_bytes, output.content_type) == (4, "image/png")
    assert files.put_log("job_1", AT, FENCE, path) == "jobs/2023-11-14/job_1/7-ab.log"
    assert len(keys(files)) == 3


def test_a_content_type_that_is_declared_holds(files: JobStore, tmp_path: Path) -> None:
    output = files.put_output("job_1", AT, FENCE, "x", written(tmp_path, "x"), "video/mp4")
    assert (output.content_type, output.key.rpartition("/")[2]) == ("video/mp4", "x")
    assert files.put_output("job_1", AT, FENCE, "y", written(tmp_path, "y")).content_type == "application/octet-stream"


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 2 * PIECE_BYTES])
def test_a_file_comes_back_as_it_was(files: JobStore, tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    key = files.put_input("job_1", AT, "x", written(tmp_path, "x.bin", data))
    target = tmp_path / "deep" / "er" / "back"
    assert files.fetch(key, target).read_bytes() == data
    assert [path.name for path in target.parent.iterdir()] == ["back"]


def test_what_is_not_there_is_not_fetched(files: JobStore, tmp_path: Path) -> None:
    with pytest.raises(ObjectNotFound):
        files.fetch("jobs/none", tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_an_upload_is_found_by_its_id(files: JobStore, tmp_path: Path) -> None:
    file_id = files.put_upload(written(tmp_path, "cat.png"))
    assert files.find_upload(file_id).endswith(f"{file_id}/cat.png")
    for unknown in ("file_nope", "../../etc", file_id[:-1] + ("y" if file_id[-1] == "z" else "z"), ""):
        with pytest.raises(NotFound):
            files.find_upload(unknown)


def test_an_output_above_the_limit_is_refused_before_a_byte_is_kept(tmp_path: Path) -> None:
    files = JobStore(str(tmp_path / "files"), largest_file_bytes=10)
    with pytest.raises(InvalidInput, match=r"output too large: big\.bin has 11 bytes, the limit is 10"):
        files.put_output("job_1", AT, FENCE, "big", written(tmp_path, "big.bin", b"x" * 11))
    assert keys(files) == []


def test_names_cannot_leave_their_folder(files: JobStore, tmp_path: Path) -> None:
    for name in ("../x", "/etc/x", "a/../../x", ""):
        with pytest.raises(InvalidInput):
            files.put_output("job_1", AT, FENCE, name, written(tmp_path, "x"))


def test_deleting_a_job_takes_all_of_it_and_nothing_else(files: JobStore, tmp_path: Path) -> None:
    path = written(tmp_path, "x.txt")
    for job in ("job_1", "job_2"):
        files.put_input(job, AT, "x", path)
        files.put_output(job, AT, FENCE, "y", path)
    files.delete_job("job_1", AT)
    files.delete_job("job_1", AT)
    assert all("/job_2/" in key for key in keys(files)) and len(keys(files)) == 2


def test_old_files_are_swept(files: JobStore, tmp_path: Path) -> None:
    files.put_upload(written(tmp_path, "x"))
    files.put_input("job_1", AT, "x", written(tmp_path, "x"))
    assert files.sweep(0.0) == 0
    assert files.sweep(9e9) == 2
    assert keys(files) == []


def test_a_local_file_has_a_url_of_its_own(tmp_path: Path) -> None:
    files = JobStore(str(tmp_path / "fi les"))
    key = files.put_input("job_1", AT, "x", written(tmp_path, "x", b"bytes"))
    url, expires_at = files.place(key)
    assert url is not None and expires_at is None
    assert Path(url2pathname(urlsplit(url).path)).read_bytes() == b"bytes"
    assert JobStore("memory://nowhere").place("k") == (None, None)


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    files = JobStore(str(tmp_path / "files"))
    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(NoSpace, match="disk is full"):
        files.put_output("job_1", AT, FENCE, "x", written(tmp_path, "x.bin"))
    assert keys(files) == []


def test_a_file_that_vanished_is_said(files: JobStore, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="No such file"):
        files.put_output("job_1", AT, FENCE, "x", tmp_path / "gone")


def test_a_folder_that_refuses_is_unreachable(tmp_path: Path) -> None:
    (tmp_path / "files").write_text("a file, no folder")
    with pytest.raises(Unreachable):
        JobStore(str(tmp_path / "files")).put_input("job_1", AT, "x", written(tmp_path, "x"))


def test_large_files_go_in_parts_where_the_store_takes_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = JobStore("memory://parts")
    handed: list[tuple[str, Path]] = []
    monkeypatch.setattr(type(files._store), "put_file", lambda _, *call: handed.append(call), raising=False)
    monkeypatch.setattr(jobstore, "WHOLE_BYTES", 10)
    small, large = written(tmp_path, "s", b"x" * 10), written(tmp_path, "l", b"x" * 11)
    files.put_input("job_1", AT, "s", small)
    files.put_input("job_1", AT, "l", large)
    assert handed == [("jobs/2023-11-14/job_1/input/l", large)]
