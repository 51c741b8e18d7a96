"""What stages hand over, between boxes and attempts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from modelrepo.errors import ObjectNotFound
from modelrepo_runtime.jobs import Claim, Fence, OutputFile
from modelrepo_runtime.jobstore import JobStore
from modelrepo_runtime.worker.handover import Handovers

CLAIM = Claim("job_1", Fence(3, "ab"), "m", "v1", "prepare", 0, False, 1, {}, None, "free", 0.0, 5.0, 0.0)


class Boxes:
    """Two boxes that share a JobStore."""

    def __init__(self, folder: Path, cluster: str | None = None) -> None:
        self.store = JobStore((folder / "files").as_uri())
        shared = JobStore((folder / cluster).as_uri()) if cluster else None
        self.here = Handovers(folder / "here", self.store, shared)
        self.there = Handovers(folder / "there", self.store, shared)


@pytest.fixture
def boxes(tmp_path: Path) -> Boxes:
    return Boxes(tmp_path)


def wrote(box: Handovers, **files: str) -> None:
    folder = box.folder_of("job_1")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


def then(files: tuple[OutputFile, ...], number: int) -> Claim:
    return replace(CLAIM, fence=Fence(number, "cd"), stage_index=1, handover=files)


def found(box: Handovers) -> dict[str, str]:
    folder = box.folder_of("job_1")
    return {path.name: path.read_text() for path in folder.iterdir() if path.name[0] != "."} if folder.exists() else {}


def test_the_next_stage_finds_the_files_on_another_box(boxes: Boxes) -> None:
    boxes.here.bring(CLAIM)
    wrote(boxes.here, latents="7", mask="x")
    kept = boxes.here.keep(CLAIM)
    assert [(file.name, file.size_bytes) for file in kept] == [("latents", 1), ("mask", 1)]
    boxes.there.bring(then(kept, 4))
    assert found(boxes.there) == {"latents": "7", "mask": "x"}


def test_what_did_not_change_is_not_sent_again(boxes: Boxes) -> None:
    wrote(boxes.here, latents="7", mask="x")
    first = boxes.here.keep(CLAIM)
    claim = then(first, 4)
    boxes.there.bring(claim)
    wrote(boxes.there, mask="changed", frames="new")
    second = {file.name: file.key for file in boxes.there.keep(claim)}
    assert second["latents"] == first[0].key
    assert "4-cd" in second["mask"] and "4-cd" in second["frames"]


def test_a_retry_finds_the_files_as_the_stage_before_left_them(boxes: Boxes) -> None:
    wrote(boxes.here, latents="7")
    kept = boxes.here.keep(CLAIM)
    wrote(boxes.here, latents="spoilt by an attempt", half="written")
    boxes.here.bring(then(kept, 5))
    assert found(boxes.here) == {"latents": "7"}


def test_the_first_stage_finds_nothing_of_an_earlier_attempt_but_saved_state(boxes: Boxes) -> None:
    wrote(boxes.here, half="written")
    states = boxes.here.folder_of("job_1") / ".states"
    states.mkdir()
    boxes.here.bring(CLAIM)
    assert found(boxes.here) == {} and states.exists()
    assert boxes.here.keep(CLAIM) == ()


def test_files_are_gone_with_the_job(boxes: Boxes) -> None:
    wrote(boxes.here, latents="7")
    kept = boxes.here.keep(CLAIM)
    boxes.here.forget("job_1", kept)
    assert found(boxes.here) == {}
    with pytest.raises(ObjectNotFound):
        boxes.there.bring(then(kept, 4))


def test_a_clusters_own_storage_keeps_them_to_itself(tmp_path: Path) -> None:
    boxes = Boxes(tmp_path, cluster="shared")
    assert boxes.here.cluster_bound
    wrote(boxes.here, latents="7")
    kept = boxes.here.keep(CLAIM)
    boxes.there.bring(then(kept, 4))
    assert found(boxes.there) == {"latents": "7"}
    assert not list((tmp_path / "files").rglob("latents"))
