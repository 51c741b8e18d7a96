from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from modelrepo.contract import load_spec
from modelrepo.errors import InvalidCheckpoint, InvalidCode, MissingExtra
from modelrepo.pushing.checkpoints import SourceCheckpoint, find_checkpoints
from modelrepo.pushing.packing import code_files
from modelrepo.testing.tensor_files import tensor_bytes
from modelrepo.versions.manifest import CheckpointRecord, Manifest

MakeFolder = Callable[..., Path]
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def packed(folder: Path) -> list[str]:
    return [file.path for file in code_files(folder, load_spec(folder))]


def checkpoint(folder: Path, name: str = "w") -> SourceCheckpoint:
    def nowhere(reference: str) -> Manifest:
        raise AssertionError(reference)

    found = find_checkpoints(folder, load_spec(folder), nowhere)[name]
    assert isinstance(found, SourceCheckpoint)
    return found


def test_ignore_files_secrets_and_checkpoints_stay_out_of_the_code(make_folder: MakeFolder) -> None:
    folder = make_folder(
        spec="checkpoints: {w: weights}\n",
        files={
            ".gitignore": "*.log\n/build/\nuv.lock\n!keep.log\n",
            ".modelrepoignore": "notes/\n",
            "a.log": "x",
            "keep.log": "x",
            "build/x.py": "x",
            "sub/build/x.py": "x",
            "notes/n.txt": "x",
            "sub/.gitignore": "*.tmp\n",
            "sub/a.tmp": "x",
            "a.tmp": "x",
            "uv.lock": "x",
            ".env": "x",
            ".env.local": "x",
            "key.pem": "x",
            ".netrc": "x",
            ".aws/credentials": "x",
            ".ssh/id": "x",
            ".venv/lib/x.py": "x",
            "sub/__pycache__/x.pyc": "x",
            ".git/config": "x",
            ".modelrepo/checkpoints/t5/a": "x",
            "weights/a.bin": "x",
        },
    )
    assert packed(folder) == [
        ".gitignore",
        ".modelrepoignore",
        "a.tmp",
        "keep.log",
        "model.py",
        "model.yaml",
        "sub/.gitignore",
        "sub/build/x.py",
        "uv.lock",
    ]


def test_the_ignore_files_of_the_checkout_around_count_too(make_folder: MakeFolder) -> None:
    folder = make_folder(at="checkout/models/tiny", files={"a.o": "x", "b.py": "x", "out/y.py": "x"})
    checkout = folder.parent.parent
    (checkout / ".git").mkdir()
    (checkout / ".gitignore").write_text("*.o\n/models/tiny/out/\n")
    assert packed(folder) == ["b.py", "model.py", "model.yaml"]


def test_a_checkout_that_ignores_the_whole_folder_cannot_mean_it(make_folder: MakeFolder) -> None:
    folder = make_folder(at="checkout/scratch/tiny")
    (folder.parent.parent / ".git").mkdir()
    (folder.parent.parent / ".gitignore").write_text("scratch/\n")
    assert packed(folder) == ["model.py", "model.yaml"]


def test_a_root_that_is_named_is_packed_though_it_is_ignored(make_folder: MakeFolder) -> None:
    folder = make_folder(spec="code: [build]\n", files={".gitignore": "build/\n", "build/a.py": "x", "other.py": "x"})
    assert packed(folder) == ["build/a.py", "model.yaml"]


def test_only_the_roots_and_what_describes_the_model_are_packed(make_folder: MakeFolder) -> None:
    folder = make_folder(
        spec="code: [src, lib/deep]\n",
        files={"src/p/a.py": "x", "lib/deep/b.py": "x", "lib/c.py": "x", "pyproject.toml": "x", "README": "x"},
    )
    assert packed(folder) == ["lib/deep/b.py", "model.yaml", "pyproject.toml", "src/p/a.py"]


@pytest.mark.parametrize("root", ["..", "../x", "/tmp", "missing", "model.py"])
def test_a_code_root_must_be_a_folder_inside(make_folder: MakeFolder, root: str) -> None:
    folder = make_folder()
    spec = load_spec(folder)
    with pytest.raises(InvalidCode, match="code root"):
        code_files(folder, type(spec)(spec.contract, spec.name, spec.entrypoint, spec.raw, code=(root,)))


def test_a_code_symlink_that_leaves_the_folder_is_refused(make_folder: MakeFolder, tmp_path: Path) -> None:
    (tmp_path / "secret.py").write_text("x")
    folder = make_folder()
    (folder / "link.py").symlink_to(tmp_path / "secret.py")
    with pytest.raises(InvalidCode, match=r"link\.py.*leaves"):
        packed(folder)
    (folder / ".modelrepoignore").write_text("link.py\n")
    assert "link.py" not in packed(folder)


def test_a_code_symlink_inside_is_packed_as_what_it_points_to(make_folder: MakeFolder) -> None:
    folder = make_folder(files={"pkg/a.py": "x"})
    (folder / "alias.py").symlink_to("pkg/a.py")
    (folder / "other").symlink_to("pkg")
    assert packed(folder) == ["alias.py", "model.py", "model.yaml", "other/a.py", "pkg/a.py"]


def test_a_symlink_to_a_secret_is_refused(make_folder: MakeFolder) -> None:
    folder = make_folder(files={".env": "TOKEN=1"})
    (folder / "settings").symlink_to(".env")
    with pytest.raises(InvalidCode, match="never packed"):
        packed(folder)


@pytest.mark.parametrize("target", ["missing", "."], ids=["broken", "circle"])
def test_symlinks_that_lead_nowhere_are_refused(make_folder: MakeFolder, target: str) -> None:
    folder = make_folder(files={"sub/a.py": "x"})
    (folder / "sub" / "link").symlink_to(target)
    with pytest.raises(InvalidCode, match="sub/link"):
        packed(folder)


def test_a_pipe_among_the_code_is_refused(make_folder: MakeFolder) -> None:
    folder = make_folder()
    os.mkfifo(folder / "pipe")
    with pytest.raises(InvalidCode, match="pipe"):
        packed(folder)


def test_a_name_that_is_no_text_is_refused(make_folder: MakeFolder) -> None:
    folder = make_folder()
    bad = Path(os.fsdecode(os.fsencode(folder) + b"/bad\xff.py"))
    if sys.platform == "darwin":
        with pytest.raises(OSError, match="Illegal byte sequence"):  # it refuses such names itself
            bad.write_bytes(b"x")
        return
    bad.write_bytes(b"x")
    with pytest.raises(InvalidCode, match="UTF-8"):
        packed(folder)


def test_only_the_executable_bit_is_kept(make_folder: MakeFolder) -> None:
    folder = make_folder(files={"run.sh": "x"})
    (folder / "run.sh").chmod(0o700)
    (folder / "model.py").chmod(0o600)
    modes = {file.path: file.mode for file in code_files(folder, load_spec(folder))}
    assert modes["run.sh"] == 0o755
    assert modes["model.py"] == 0o644


def test_ignore_rules_do_not_touch_checkpoints_and_symlinks_in_them_are_followed(
    make_folder: MakeFolder, tmp_path: Path
) -> None:
    blob = tmp_path / "blob"
    blob.write_bytes(tensor_bytes({"t": b"weights"}))
    folder = make_folder(
        spec="checkpoints: {w: checkpoints/w}\n",
        files={".gitignore": "*.bin\ncheckpoints/\n", "checkpoints/w/sub/a.bin": "x", "checkpoints/w/.git/x": "x"},
    )
    (folder / "checkpoints/w/model.safetensors").symlink_to(blob)
    found = checkpoint(folder)
    assert [file.path for file in found.files] == ["model.safetensors", "sub/a.bin"]
    assert found.files[0].size_bytes == blob.stat().st_size
    assert not found.single


def test_a_checkpoint_may_be_one_file(make_folder: MakeFolder) -> None:
    found = checkpoint(make_folder(spec="checkpoints: {w: w.bin}\n", files={"w.bin": "x"}))
    assert (found.single, [file.path for file in found.files]) == (True, ["w.bin"])


def test_include_and_exclude_choose_files_in_every_folder(make_folder: MakeFolder) -> None:
    folder = make_folder(
        spec='checkpoints: {w: {source: w, include: ["*.bin", "*.json"], exclude: ["*fp32*"]}}\n',
        files={"w/a.bin": "x", "w/sub/b.bin": "x", "w/a.fp32.bin": "x", "w/c.json": "x", "w/readme.md": "x"},
    )
    assert [file.path for file in checkpoint(folder).files] == ["a.bin", "c.json", "sub/b.bin"]


@pytest.mark.parametrize(
    ("source", "files", "problem"),
    [
        ("w", {}, "missing"),
        ("w", {"w": ""}, "empty"),
        ("w", {"w/a.txt": ""}, "empty"),
        ("w", {"w/a.safetensors": "", "w/b.json": "x"}, "empty"),
        ("w", {"w": POINTER}, "Git-LFS pointer"),
        ("w", {"w/a.bin": POINTER, "w/b": "x"}, "Git-LFS pointer"),
        (
            "w",
            {"w/a.safetensors": tensor_bytes({"t": b"12345678"})[:-1], "w/b": "x"},
            "72 bytes at least, and there are 71",
        ),
        ("w", {"w/a.safetensors": tensor_bytes({"t": b"12345678"})[:60]}, "cut short"),
        ("w", {"w/a.safetensors": "cut"}, "cut short"),
        ("w", {"w/a.safetensors": "<!DOCTYPE html><title>Not found</title>"}, "no safetensors file"),
        ("{source: w, include: ['*.bin']}", {"w/a.txt": "x"}, "leave none"),
        (".", {}, "own folder"),
        (".venv/w", {".venv/w": "x"}, "never packed"),
    ],
)
def test_a_checkpoint_that_cannot_be_packed_says_why(
    make_folder: MakeFolder, source: str, files: dict[str, bytes], problem: str
) -> None:
    folder = make_folder(spec=f"checkpoints: {{w: {source}}}\n", files=files)
    with pytest.raises(InvalidCheckpoint, match=problem):
        checkpoint(folder)


def test_an_empty_folder_is_an_empty_checkpoint(make_folder: MakeFolder) -> None:
    folder = make_folder(spec="checkpoints: {w: w}\n")
    (folder / "w").mkdir()
    with pytest.raises(InvalidCheckpoint, match="empty"):
        checkpoint(folder)


def test_broken_and_circular_symlinks_in_a_checkpoint_say_so(make_folder: MakeFolder) -> None:
    folder = make_folder(spec="checkpoints: {w: w}\n", files={"w/a": "x"})
    (folder / "w/link").symlink_to("nowhere")
    with pytest.raises(InvalidCheckpoint, match="broken symlink"):
        checkpoint(folder)
    (folder / "w/link").unlink()
    (folder / "w/link").symlink_to(".")
    with pytest.raises(InvalidCheckpoint, match="circle"):
        checkpoint(folder)


def test_the_hub_needs_an_extra(make_folder: MakeFolder) -> None:
    folder = make_folder(spec='checkpoints: {w: "hf://org/t5@0123abc"}\n')
    with pytest.raises(MissingExtra, match="modelrepo-toolkit\\[hf\\]"):
        checkpoint(folder)


def test_the_hub_is_asked_for_the_files_that_are_wanted(
    make_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, asked = "0123abc" * 5, []
    snapshot = tmp_path / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (tmp_path / "blob").write_bytes(tensor_bytes({"t": b"weights"}))
    (snapshot / "a.safetensors").symlink_to(tmp_path / "blob")

    def download(repository: str, **wanted: object) -> str:
        asked.append((repository, wanted))
        return str(snapshot)

    hub = ModuleType("huggingface_hub")
    hub.snapshot_download = download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    folder = make_folder(spec='checkpoints: {w: {source: "hf://org/t5@0123abc", include: ["*.safetensors"]}}\n')
    found = checkpoint(folder)
    assert [file.path for file in found.files] == ["a.safetensors"]
    assert found.source == {"source": "hf://org/t5@0123abc", "commit": commit}
    assert asked == [("org/t5", {"revision": "0123abc", "allow_patterns": ["*.safetensors"], "ignore_patterns": None})]


def test_a_checkpoint_of_another_version_is_taken_from_its_manifest(
    make_folder: MakeFolder, make_draft: Callable[..., object]
) -> None:
    from modelrepo.publication.publish import Publication

    older = make_draft(make_folder(at="old", spec="checkpoints: {vae: w}\n", files={"w/a.bin": "x", "w/b.txt": "y"}))
    assert isinstance(older, Publication)
    folder = make_folder(spec='checkpoints: {w: {source: "modelrepo:tiny@v1/vae", include: ["*.bin"]}}\n')
    asked = []

    def lookup(reference: str) -> Manifest:
        asked.append(reference)
        return older.manifest

    found = find_checkpoints(folder, load_spec(folder), lookup)["w"]
    assert isinstance(found, CheckpointRecord)
    assert [file.path for file in found.files] == ["a.bin"]
    assert asked == ["tiny@v1"]

    wrong = make_folder(at="wrong", spec='checkpoints: {w: "modelrepo:tiny@v1/other"}\n')
    with pytest.raises(InvalidCheckpoint, match="it has vae"):
        find_checkpoints(wrong, load_spec(wrong), lookup)
