"""Pure parts: records, digests, wheel names and tags, lines to install, torch's version file, what uv said."""

from __future__ import annotations

import errno
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from modelrepo.contract import AcceleratorFacts, parse_spec
from modelrepo.environments.cache import EnvironmentCache, assert_ours, is_ready
from modelrepo.environments.carried import for_python, parse_wheel, source_digest, supported_tags
from modelrepo.environments.index_settings import IndexSettings
from modelrepo.environments.installing import WantedEnvironment
from modelrepo.environments.interpreters import Interpreter
from modelrepo.environments.lock import Project, locked_packages, read_lock, read_project, without_machine_paths
from modelrepo.environments.offers import FolderWheels, OfferedWheel, choose_offer
from modelrepo.environments.preparing import environment_digest, prepare
from modelrepo.environments.processes import Finished, full_disk_told
from modelrepo.environments.record import CarriedWheel, EnvironmentRecord, Member, Requirement
from modelrepo.environments.torch_build import TorchBuild, check_torch_build, torch_build
from modelrepo.environments.uv_tool import failed
from modelrepo.environments.wheel_store import WheelStore
from modelrepo.errors import Corrupt, EnvironmentFailed, InvalidInput, LockOutOfDate, NewerFormat, NoSpace, Unreachable

HERE = Interpreter(Path("/opt/python3.11"), "3.11.7", "linux_x86_64")
LOCK = """\
version = 1
requires-python = ">=3.11"

[[package]]
name = "m"
version = "0"
source = { virtual = "." }

[[package]]
name = "torch"
version = "2.13.0+cpu"
source = { registry = "/home/ann/wheels" }
wheels = [{ path = "/home/ann/wheels/torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl" }]

[[package]]
name = "near"
version = "1"
source = { registry = "../wheels" }
wheels = [{ path = "near-1-py3-none-any.whl" }]

[[package]]
name = "lib"
source = { editable = "../lib" }

[[package]]
name = "far"
version = "2"
source = { registry = "https://index.example/simple" }
wheels = [{ url = "https://index.example/far-2-py3-none-any.whl", hash = "sha256:ff" }]
"""


def record(**changes: object) -> EnvironmentRecord:
    whole = EnvironmentRecord(
        python="3.11",
        requires_python=">=3.11",
        digest="ab" * 32,
        pyproject_sha256="cd" * 32,
        extras=("cu128",),
        requirements={
            "_": (Requirement("numpy", "2.0", ("sha256:aa", "sha256:bb")), Requirement("torch", "2.13.0+cpu")),
            "cu128": (Requirement("torch", "2.13.0", ("sha256:cc",), "sys_platform == 'win32'"),),
        },
        carried=(CarriedWheel("torch-2.13.0+cpu-cp311-cp311-manylinux_2_17_x86_64.whl", "ee" * 32, 9),),
        members=(Member("lib", "0.1", "ff" * 32),),
    )
    return replace(whole, **changes)  # type: ignore[arg-type]


def project(folder: Path) -> Project:
    return Project(folder, folder, "m", ">=3.11", (), b"")


def test_a_record_survives_json() -> None:
    text = json.dumps(record().to_json())
    assert EnvironmentRecord.from_json(json.loads(text)) == record()


def test_pins_are_one_version_text_for_each_name() -> None:
    assert record().pins() == {"numpy": "2.0", "torch": "2.13.0, 2.13.0+cpu"}


def test_the_digest_is_the_same_wherever_the_lock_was_made(tmp_path: Path) -> None:
    (tmp_path / "uv.lock").write_text(LOCK)
    other = tmp_path / "other"
    other.mkdir()
    (other / "uv.lock").write_text(LOCK.replace("/home/ann/wheels", "/srv/ci/wheels").replace("../lib", "/srv/ci/lib"))
    here, there = (without_machine_paths(read_lock(folder / "uv.lock")) for folder in (tmp_path, other))
    assert environment_digest(here, {}, ()) == environment_digest(there, {}, ())
    assert "/home" not in json.dumps(here)


def test_the_digest_changes_with_lock_wheel_and_member_source() -> None:
    digests = {
        environment_digest({"a": 1}, {}, ()),
        environment_digest({"a": 2}, {}, ()),
        environment_digest({"a": 1}, {"x.whl": "11"}, ()),
        environment_digest({"a": 1}, {"x.whl": "12"}, ()),
        environment_digest({"a": 1}, {}, (Member("lib", "1", "aa"),)),
        environment_digest({"a": 1}, {}, (Member("lib", "1", "bb"),)),
    }
    assert len(digests) == 6


def test_a_lock_says_what_lies_on_this_box(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "uv.lock").write_text(LOCK)
    packages = {one.name: one for one in locked_packages(read_lock(folder / "uv.lock"), project(folder))}
    assert packages["m"].itself
    assert [path.name for path in packages["torch"].wheels] == ["torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl"]
    assert packages["near"].wheels == (tmp_path.resolve() / "wheels" / "near-1-py3-none-any.whl",)
    assert packages["lib"].directory == tmp_path.resolve() / "lib"
    assert packages["far"].wheels == ()


def test_a_lock_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    path = tmp_path / "uv.lock"
    with pytest.raises(LockOutOfDate, match="run `uv lock`"):
        read_lock(path)
    path.write_text("version = 2")
    with pytest.raises(NewerFormat):
        read_lock(path)
    path.write_text("version = ")
    with pytest.raises(InvalidInput, match="is no TOML"):
        read_lock(path)


def test_a_project_is_read_and_its_lock_found_at_the_workspace_root(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"has no pyproject\.toml"):
        read_project(tmp_path)
    folder = tmp_path / "models" / "a"
    folder.mkdir(parents=True)
    (folder / "pyproject.toml").write_text('[project]\nname = "a"\n[project.optional-dependencies]\ncu128 = []\n')
    assert read_project(folder).root == folder
    assert read_project(folder).extras == ("cu128",)
    (tmp_path / "pyproject.toml").write_text('[tool.uv.workspace]\nmembers = ["models/*"]\n')
    assert read_project(folder).lock == tmp_path.resolve() / "uv.lock"
    (tmp_path / "pyproject.toml").write_text('[tool.uv.workspace]\nmembers = ["models/*"]\nexclude = ["models/a"]\n')
    assert read_project(folder).root == folder
    (folder / "pyproject.toml").write_text("[tool.x]\n")
    with pytest.raises(InvalidInput, match=r"has no \[project\] with a name"):
        read_project(folder)


@pytest.mark.parametrize(
    ("tag", "fits"),
    [
        ("py3-none-any", True),
        ("py2.py3-none-any", True),
        ("py2-none-any", False),
        ("cp311-cp311-win_amd64", True),
        ("cp312-cp312-linux_x86_64", False),
        ("cp38-abi3-macosx_11_0_arm64", True),
        ("cp312-abi3-linux_x86_64", False),
        ("py311-none-linux_x86_64", True),
        ("py312-none-any", False),
        ("pp311-pypy311_pp73-linux_x86_64", False),
    ],
)
def test_wheels_are_carried_for_every_platform_of_one_python(tag: str, fits: bool) -> None:
    assert for_python(parse_wheel(f"x-1-{tag}.whl"), "3.11") is fits


@pytest.mark.parametrize(
    "name",
    [
        "x-1.0-1/../../y-py3-none-any.whl",
        "x-1.0-py3-none-any./y.whl",
        "x-1.0-1\\y-py3-none-any.whl",
        "x-1.0-1\0-py3-none-any.whl",
    ],
)
def test_a_wheel_that_is_carried_under_a_path_is_none(name: str) -> None:
    with pytest.raises(EnvironmentFailed, match="not the name of a file"):
        parse_wheel(name)
    offered = OfferedWheel(name, "ee" * 32, 9)
    mine = record(requirements={"_": (Requirement("x", "1.0"),)}, carried=(CarriedWheel(name, "ee" * 32, 9),))
    assert choose_offer(mine.for_extra(None)[0], [offered], mine.carried, supported_tags(HERE)) is None


def test_the_best_wheel_for_this_box_is_chosen() -> None:
    tags = supported_tags(HERE)
    kinds = ("py3-none-any", "cp311-cp311-win_amd64", "cp311-none-any")
    wheels = [OfferedWheel(f"x-1-{tag}.whl", tag, 1) for tag in kinds]
    hashes = tuple(f"sha256:{tag}" for tag in kinds)
    assert choose_offer(Requirement("x", "1", hashes), wheels, (), tags) == wheels[2]
    assert choose_offer(Requirement("x", "2", hashes), wheels, (), tags) is None
    assert choose_offer(Requirement("x", "1", hashes), wheels[1:2], (), tags) is None


def test_a_wheel_is_trusted_by_the_locks_hash_by_its_own_or_by_its_source() -> None:
    tags = supported_tags(HERE)
    plain, built = OfferedWheel("x-1-py3-none-any.whl", "aa", 1), OfferedWheel("x-1-cp311-none-any.whl", "bb", 1, "cc")
    locked = Requirement("x", "1", ("sha256:aa", "sha256:cc"))
    assert choose_offer(locked, [built], (), tags) == built
    assert choose_offer(locked, [built, plain], (), tags) == plain
    other = Requirement("x", "1", ("sha256:dd",))
    assert choose_offer(other, [built, plain, OfferedWheel("no wheel", "dd", 1)], (), tags) is None
    assert choose_offer(Requirement("x", "1"), [plain], (), tags) is None
    assert choose_offer(Requirement("x", "1"), [plain], [CarriedWheel(plain.filename, "aa", 1)], tags) == plain


def test_lines_name_carried_files_and_pins(tmp_path: Path) -> None:
    name = "torch-2.13.0+cpu-py3-none-any.whl"
    (tmp_path / name).write_bytes(b"wheel")
    sha256 = "5c1cd3ea1ef5ef17d2a0bd3e2ac7e2b5f4f7d0d8f0f6d8a7bd2b5e1b0b0a0c0d"
    with pytest.raises(Corrupt, match="is not what is written down"):
        lines_of(record(carried=(CarriedWheel(name, sha256, 5),)), tmp_path)
    sha256 = hashlib.sha256(b"wheel").hexdigest()
    lines, needs_index = lines_of(record(carried=(CarriedWheel(name, sha256, 5),)), tmp_path)
    assert needs_index
    assert lines[0] == "numpy==2.0 --hash=sha256:aa --hash=sha256:bb"
    assert lines[1].startswith("torch @ file:///")
    assert lines[1].endswith(f"/torch-2.13.0%2Bcpu-py3-none-any.whl --hash=sha256:{sha256}")


def test_a_line_for_another_platform_is_left_out(tmp_path: Path) -> None:
    assert lines_of(record(), tmp_path, extra="cu128") == ([], False)


def test_a_carried_wheel_for_other_platforms_only_is_told(tmp_path: Path) -> None:
    other = record(carried=(CarriedWheel("torch-2.13.0+cpu-cp311-cp311-win_amd64.whl", "ee" * 32, 9),))
    with pytest.raises(EnvironmentFailed, match=r"travels with the version, but not for Python 3\.11 on linux_x86_64"):
        lines_of(other, tmp_path)


def test_a_carried_wheel_that_is_not_here_is_told(tmp_path: Path) -> None:
    missing = record(carried=(CarriedWheel("torch-2.13.0+cpu-py3-none-any.whl", "ee" * 32, 9),))
    with pytest.raises(Corrupt, match="was not brought along"):
        lines_of(missing, tmp_path)


def test_a_members_digest_follows_its_source_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "lib.py").write_text("x = 1\n")
    (tmp_path / ".gitignore").write_text("scratch/\n*.log\n")
    before = source_digest(tmp_path)
    for path in (
        "scratch/a.txt",
        "b.log",
        "__pycache__/lib.pyc",
        "dist/lib.whl",
        "examples/model.yaml",
        "examples/w.bin",
    ):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("x")
    assert source_digest(tmp_path) == before
    (tmp_path / "lib.py").write_text("x = 2\n")
    assert source_digest(tmp_path) != before


def torch_in(venv: Path, text: str) -> Path:
    path = venv / "lib" / "python3.11" / "site-packages" / "torch" / "version.py"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return venv


def test_torchs_build_is_read_without_importing_it(tmp_path: Path) -> None:
    assert torch_build(tmp_path) is None
    text = "__version__ = '2.13.0+cu128'\ndebug = False\ncuda: Optional[str] = '12.8'\nhip: Optional[str] = None\n"
    assert torch_build(torch_in(tmp_path, text)) == TorchBuild("2.13.0+cu128", "12.8", None)


@pytest.mark.parametrize(
    ("cuda", "hip", "facts", "refused"),
    [
        ("12.8", None, AcceleratorFacts("cuda", "12.9"), None),
        ("12.8", None, AcceleratorFacts("cuda", "13.0"), None),
        ("13.0", None, AcceleratorFacts("cuda", "12.8"), "too new for this box's driver"),
        (None, None, AcceleratorFacts("cuda", "12.8"), "(CPU only) cannot use this box's cuda 12.8"),
        (None, "6.2", AcceleratorFacts("cuda", "12.8"), "(ROCm 6.2) cannot use this box's cuda 12.8"),
        (None, "6.2", AcceleratorFacts("rocm", "6.4"), None),
        (None, None, AcceleratorFacts("cpu"), None),
    ],
)
def test_a_torch_for_another_accelerator_is_refused(
    tmp_path: Path, cuda: str | None, hip: str | None, facts: AcceleratorFacts, refused: str | None
) -> None:
    venv = torch_in(tmp_path, f"__version__ = '2.13.0'\ncuda = {cuda!r}\nhip = {hip!r}\n")
    if refused is None:
        check_torch_build(venv, facts, "x")
        return
    with pytest.raises(EnvironmentFailed) as caught:
        check_torch_build(venv, facts, "x")
    assert refused in str(caught.value)


def test_what_uv_said_comes_on_one_line() -> None:
    said = "Using CPython\nerror: No solution found\n  cause: Because x was not found,\n    so no.\n\nhint: try y\n"
    error = failed("cannot lock /m", Finished(1, "", said))
    assert str(error) == "cannot lock /m: No solution found Because x was not found, so no."
    assert isinstance(error, EnvironmentFailed)
    assert "hint: try y" in error.log
    offline = Finished(2, "", "error: Failed to fetch: `https://x`\n  cause: dns error\n")
    assert isinstance(failed("cannot lock /m", offline), Unreachable)
    assert "it said nothing" in str(failed("x", Finished(1, "", "")))


def test_a_full_disk_is_told_with_what_is_left(tmp_path: Path) -> None:
    for error in (OSError(errno.ENOSPC, "No space left on device"), NoSpace("uv: No space left on device")):
        with pytest.raises(NoSpace, match=r"no space for environment ab below .*: .* of .* are free; make room there"):
            with full_disk_told(tmp_path, "environment ab"):
                raise error
    with pytest.raises(PermissionError):
        with full_disk_told(tmp_path, "x"):
            raise PermissionError(errno.EACCES, "no")


def test_nothing_is_installed_outside_our_cache(tmp_path: Path) -> None:
    ours = tmp_path / "cache"
    outside = tmp_path / "venv"
    for venv in (ours / "plain", outside):
        (venv / "bin").mkdir(parents=True)
        (venv / "bin" / "python").symlink_to("/usr/bin/python3")
    (outside / "pyvenv.cfg").touch()
    (ours / "link").symlink_to(outside)
    for venv in (ours / "plain", outside, ours / "link"):
        with pytest.raises(EnvironmentFailed, match="nothing was installed"):
            assert_ours(venv, ours)
    (ours / "plain" / "pyvenv.cfg").touch()
    assert_ours(ours / "plain", ours)


def test_an_environment_whose_python_is_gone_is_not_ready(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "READY").touch()
    (tmp_path / "bin" / "python").symlink_to(tmp_path / "base")
    assert not is_ready(tmp_path)
    (tmp_path / "base").touch()
    assert is_ready(tmp_path)


def test_an_extra_that_was_not_pushed_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"without an environment for the extra 'rocm' \(it has _, cu128\)"):
        EnvironmentCache(tmp_path).ensure(record(python=""), extra="rocm")


def lines_of(what: EnvironmentRecord, folder: Path, extra: str | None = None) -> tuple[list[str], bool]:
    carried = FolderWheels.carried_by(what, {path.name: path for path in folder.glob("*.whl")})
    plan = WantedEnvironment(what, extra, HERE, WheelStore(folder / "store", carried)).plan()
    return list(plan.lines), bool(plan.from_index)


def test_a_python_that_is_pinned_in_other_words_is_told_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "a"\nrequires-python = ">=3.11"\n')
    spec = parse_spec("contract: 1\nname: a\nentrypoint: m:A")
    (tmp_path / ".python-version").write_text("# ours\nmy-venv\n")
    with pytest.raises(InvalidInput, match=r"\.python-version: 'my-venv' is no Python version"):
        prepare(tmp_path, spec, work=tmp_path / "work", index=IndexSettings())
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "a"\nrequires-python = "new"\n')
    with pytest.raises(InvalidInput, match=r"requires-python in .*pyproject\.toml: 'new' is no Python version"):
        prepare(tmp_path, spec, work=tmp_path / "work", index=IndexSettings())
