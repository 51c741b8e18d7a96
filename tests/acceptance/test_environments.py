"""Environments with the real uv: tiny wheels from folders, from an index over HTTP and from members' sources."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from modelrepo.contract import AcceleratorFacts, ModelSpec, parse_spec
from modelrepo.environments import (
    EnvironmentCache,
    EnvironmentRecord,
    IndexSettings,
    PreparedEnvironment,
    environments_in,
    prepare,
    verify_environment,
)
from modelrepo.environments.cache import remove_environment
from modelrepo.environments.interpreters import interpreters
from modelrepo.environments.offers import FolderWheels, OfferedWheel
from modelrepo.environments.preparing import prepare as prepare_environment
from modelrepo.errors import Corrupt, EnvironmentFailed, InterpreterMissing, InvalidInput, LockOutOfDate, Stopped
from modelrepo.holds import Hold, try_take
from modelrepo.pushing.push_options import PushOptions
from modelrepo.pushing.rehearsal import check_push

from .packages import make_index, make_sdist, make_wheel, served

SPEC = parse_spec("contract: 1\nname: m\nentrypoint: model:M\n")
MINOR = f"{sys.version_info[0]}.{sys.version_info[1]}"


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    # Environments hold thousands of links; pytest would keep them for three runs.
    shutil.rmtree(tmp_path, ignore_errors=True)


def project(folder: Path, *dependencies: str, rest: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text(
        f'[project]\nname = "m"\nversion = "0"\nrequires-python = ">={MINOR}"\n'
        f"dependencies = {json.dumps(list(dependencies))}\n{rest}"
    )
    return folder


def wheels_only(folder: Path) -> IndexSettings:
    return IndexSettings(find_links=(str(folder),), no_index=True)


def prepared_from(box: Path, *dependencies: str, rest: str = "", spec: str = "") -> PreparedEnvironment:
    """Lock and gather a project whose wheels lie in `box/wheels`."""
    (box / "wheels").mkdir(exist_ok=True)
    whole = parse_spec(f"contract: 1\nname: m\nentrypoint: model:M\n{spec}")
    return gather(box, project(box / "m", *dependencies, rest=rest), wheels_only(box / "wheels"), whole)


def gather(box: Path, folder: Path, index: IndexSettings, spec: ModelSpec = SPEC) -> PreparedEnvironment:
    return prepare(folder, spec, work=box / "work", index=index, cache=box / "pusher", environ={})


def value_in(venv: Path, expression: str, module: str = "tiny") -> str:
    code = f"import {module}; print({expression})"
    done = subprocess.run([venv / "bin" / "python", "-I", "-B", "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_wheel_from_a_folder_travels_with_the_version(box: Path) -> None:
    make_wheel(box / "wheels", "tiny", "1.5")
    prepared = prepared_from(box, "tiny")
    assert [wheel.filename for wheel in prepared.record.carried] == ["tiny-1.5-py3-none-any.whl"]
    assert prepared.record.for_extra(None)[0].hashes == ()
    shutil.rmtree(box / "wheels")
    record = EnvironmentRecord.from_json(json.loads(json.dumps(prepared.record.to_json())))
    offline = EnvironmentCache(box / "worker", index=IndexSettings(no_index=True))
    venv = offline.ensure(record, extra=None, wheels=prepared.wheels())
    assert value_in(venv, "tiny.VERSION") == "1.5"
    assert value_in(venv, "tiny.__cached__").endswith(f"cpython-{MINOR.replace('.', '')}.pyc")
    assert Path(value_in(venv, "tiny.__cached__")).is_file()
    assert not list(venv.parent.glob(".building-*"))


def test_an_environment_is_built_once_and_shared(box: Path) -> None:
    make_wheel(box / "wheels", "tiny")
    prepared = prepared_from(box, "tiny")
    cache = EnvironmentCache(box / "worker")
    phases: list[str] = []
    first = cache.ensure(
        prepared.record, extra=None, wheels=prepared.wheels(), progress=lambda phase, *_: phases.append(phase)
    )
    assert phases
    phases.clear()

    again = cache.ensure(prepared.record, extra=None, progress=lambda phase, *_: phases.append(phase))
    assert (again, phases) == (first, [])
    assert cache.find(prepared.record, extra=None) == first


def test_a_tampered_wheel_is_refused_by_name_and_digest(box: Path) -> None:
    make_wheel(box / "wheels", "tiny")
    prepared = prepared_from(box, "tiny")
    prepared.carried[0].write_bytes(prepared.carried[0].read_bytes() + b"x")
    cache = EnvironmentCache(box / "worker")
    with pytest.raises(Corrupt, match=r"tiny-1\.0-py3-none-any\.whl is not what is written down"):
        cache.ensure(prepared.record, extra=None, wheels=prepared.wheels())
    assert cache.find(prepared.record, extra=None) is None


def test_a_wheel_that_rots_in_the_box_is_refused_by_its_hash(box: Path) -> None:
    make_wheel(box / "wheels", "tiny")
    prepared = prepared_from(box, "tiny")
    cache = EnvironmentCache(box / "worker")
    venv = cache.ensure(prepared.record, extra=None, wheels=prepared.wheels())
    shutil.rmtree(venv)
    kept = next((box / "worker" / "wheels").glob("*/*.whl"))
    other = make_wheel(box / "evil", "tiny", files={"tiny.py": 'VERSION = "6.6"\n'})
    assert other.stat().st_size == kept.stat().st_size
    other.replace(kept)
    with pytest.raises(Corrupt, match="rotted on this box and was removed"):
        cache.ensure(prepared.record, extra=None, wheels=prepared.wheels())
    venv = cache.ensure(prepared.record, extra=None, wheels=prepared.wheels())
    assert value_in(venv, "tiny.VERSION") == "1.0"


def test_hashes_of_an_index_are_kept_and_checked(box: Path) -> None:
    index = make_index(box / "index", [make_wheel(box / "made", "tiny", "2.0")])
    with served(index) as address:
        settings = IndexSettings(default_index=address)
        folder = project(box / "m", "tiny")
        prepared = gather(box, folder, settings)
        assert prepared.record.carried == ()
        (pinned,) = prepared.record.for_extra(None)
        assert (str(pinned), len(pinned.hashes)) == ("tiny==2.0", 1)
        assert address not in json.dumps(prepared.record.to_json())
        venv = EnvironmentCache(box / "worker", index=settings).ensure(prepared.record, extra=None)
        assert value_in(venv, "tiny.VERSION") == "2.0"
        make_wheel(box / "made", "tiny", "2.0", files={"tiny.py": "VERSION = 'evil'\n"})
    # Another box's index serves other bytes under the same name.
    with served(make_index(box / "evil", [box / "made" / "tiny-2.0-py3-none-any.whl"])) as address:
        with pytest.raises(EnvironmentFailed, match=r"(?i)hash"):
            EnvironmentCache(box / "other", index=IndexSettings(default_index=address)).ensure(
                prepared.record, extra=None
            )


def test_a_lock_answers_also_where_this_box_has_another_index(box: Path) -> None:
    index = make_index(box / "index", [make_wheel(box / "made", "tiny")])
    folder = project(box / "m", "tiny")
    with served(index) as address:
        settings = IndexSettings(default_index=address)
        gather(box, folder, settings)
    nowhere = IndexSettings(default_index="http://127.0.0.1:1/simple")
    again = prepare(folder, SPEC, work=box / "work", index=nowhere, cache=box / "pusher", locked=True, environ={})
    assert not again.lock_created


def test_what_has_no_wheel_for_this_box_is_never_compiled_unasked(box: Path) -> None:
    files = [make_sdist(box / "made", "onlysource"), make_wheel(box / "made", "alien", tag="py3-none-win_amd64")]
    with served(make_index(box / "index", files)) as address:
        settings = IndexSettings(default_index=address)
        for name in ("onlysource", "alien"):
            folder = project(box / name, name)
            prepared = gather(box, folder, settings)
            with pytest.raises(
                EnvironmentFailed, match=rf"{name} has no wheel for Python {MINOR} on \w+, .*--allow-builds"
            ):
                EnvironmentCache(box / "worker", index=settings).ensure(prepared.record, extra=None)


def test_members_and_paths_travel_as_wheels(box: Path) -> None:
    backend = box / "sha red" / "backend"
    backend.mkdir(parents=True)
    (backend / "tinybackend.py").write_text(BACKEND)
    for name in ("lib", "other"):
        member(box / "sha red" / name, name, "one")
    rest = '[tool.uv.sources]\nlib = {path = "../sha red/lib", editable = true}\n'
    rest += f'other = {{path = "{box}/sha red/other"}}\n'
    first = prepared_from(box, "lib", "other", rest=rest)
    assert sorted(one.name for one in first.record.members) == ["lib", "other"]
    assert len(first.record.carried) == 2
    again = prepared_from(box, "lib", "other", rest=rest)
    assert again.record == first.record
    member(box / "sha red" / "lib", "lib", "two")
    changed = prepared_from(box, "lib", "other", rest=rest)
    assert changed.record.digest != first.record.digest
    venv = EnvironmentCache(box / "worker").ensure(changed.record, extra=None, wheels=changed.wheels())
    assert value_in(venv, "lib.VALUE", "lib") == "two"
    shutil.rmtree(box / "sha red")
    assert value_in(venv, "other.VALUE", "other") == "one"


def test_a_source_distribution_is_built_where_that_was_asked(box: Path) -> None:
    (box / "backend").mkdir()
    (box / "backend" / "tinybackend.py").write_text(BACKEND)
    member(box / "lib", "lib", "built")
    sdist = make_sdist(box / "sdists", "lib", "0.1", tree=box / "lib")
    # From a folder no other box could get it, so a push builds it.
    pushed = gather(box, project(box / "m", "lib"), wheels_only(box / "sdists"))
    assert [wheel.filename for wheel in pushed.record.carried] == ["lib-0.1-py3-none-any.whl"]
    # From an index each box gets it, and only one that may compile builds it.
    with served(make_index(box / "index", [sdist])) as address:
        settings = IndexSettings(default_index=address)
        indexed = gather(box, project(box / "n", "lib"), settings)
        assert indexed.record.carried == ()
        cache = EnvironmentCache(box / "worker", index=settings, allow_builds=True)
        venv = cache.ensure(indexed.record, extra=None)
    assert value_in(venv, "lib.VALUE", "lib") == "built"


def test_a_workspace_has_its_lock_above(box: Path) -> None:
    make_wheel(box / "wheels", "tiny")
    root = box / "space"
    folder = project(root / "models" / "a", "tiny")
    (root / "pyproject.toml").write_text('[tool.uv.workspace]\nmembers = ["models/*"]\n')
    prepared = gather(box, folder, wheels_only(box / "wheels"))
    assert prepared.lock == (root / "uv.lock").resolve()
    assert prepared.lock_created
    assert not (folder / "uv.lock").exists()
    assert [str(one) for one in prepared.record.for_extra(None)] == ["tiny==1.0"]


def test_each_extra_has_an_environment_of_its_own(box: Path) -> None:
    make_wheel(box / "wheels", "fake_torch", "1.0+cpu")
    make_wheel(
        box / "wheels",
        "fake_torch",
        "1.0+cu128",
        files={"torch/version.py": "__version__='1.0+cu128'\ncuda = '12.8'\nhip = None\n"},
    )
    rest = """
[project.optional-dependencies]
cpu = ["fake-torch==1.0+cpu"]
cu128 = ["fake-torch==1.0+cu128"]
[tool.uv]
conflicts = [[{ extra = "cpu" }, { extra = "cu128" }]]
"""  # fmt: skip
    prepared = prepared_from(box, rest=rest, spec="accelerators: {cuda: cu128, cpu: cpu}\n")
    assert prepared.record.extras == ("cu128", "cpu")
    cache, wheels = EnvironmentCache(box / "worker"), prepared.wheels()
    plain = cache.ensure(prepared.record, extra="cpu", wheels=wheels, accelerator=AcceleratorFacts("cpu"))
    cuda = cache.ensure(prepared.record, extra="cu128", wheels=wheels, accelerator=AcceleratorFacts("cuda", "12.9"))
    assert plain != cuda
    assert value_in(plain, "fake_torch.VERSION", "fake_torch") == "1.0+cpu"
    with pytest.raises(EnvironmentFailed, match="too new"):
        cache.ensure(prepared.record, extra="cu128", wheels=wheels, accelerator=AcceleratorFacts("cuda", "11.8"))


def test_an_extra_that_pyproject_lacks_is_told(box: Path) -> None:
    with pytest.raises(InvalidInput, match=r"names the extra 'cu128', which .*pyproject\.toml lacks \(it has none\)"):
        prepared_from(box, spec="accelerators: {cuda: cu128}\n")


def test_a_lock_is_made_where_that_is_allowed(box: Path) -> None:
    make_wheel(box / "wheels", "tiny")
    folder = project(box / "m", "tiny")

    def attempt(environ: dict[str, str], *, locked: bool = False, lock: bool = False) -> PreparedEnvironment:
        index = wheels_only(box / "wheels")
        return prepare_environment(
            folder, SPEC, work=box / "work", index=index, cache=box / "c", locked=locked, lock=lock, environ=environ
        )

    for environ, locked in (({}, True), ({"CI": "true"}, False)):
        with pytest.raises(LockOutOfDate, match=r"has no uv.lock; run `uv lock` there"):
            attempt(environ, locked=locked)
        assert not (folder / "uv.lock").exists()
    assert attempt({"CI": "true"}, lock=True).lock_created
    before = (folder / "uv.lock").read_bytes()
    assert not attempt({"CI": "true"}, locked=True).lock_created
    make_wheel(box / "wheels", "added")
    project(box / "m", "tiny", "added")
    with pytest.raises(LockOutOfDate, match=r"does not answer to pyproject.toml; run `uv lock`"):
        attempt({})
    assert (folder / "uv.lock").read_bytes() == before


def test_an_empty_environment_needs_nothing(box: Path) -> None:
    prepared = prepared_from(box)
    venv = EnvironmentCache(box / "worker").ensure(prepared.record, extra=None)
    assert value_in(venv, "sys.prefix", "sys") == str(venv)


def test_a_shell_full_of_uv_variables_changes_nothing(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_wheel(box / "wheels", "tiny")
    victim = box / "victim"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", victim], check=True)
    before = sorted(str(path) for path in victim.rglob("*"))
    for name in ("UV_PYTHON", "VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT", "UV_TARGET", "PIP_PREFIX", "UV_SYSTEM_PYTHON"):
        monkeypatch.setenv(name, str(victim))
    monkeypatch.setenv("UV_OFFLINE", "sometimes")
    prepared = prepared_from(box, "tiny")
    venv = EnvironmentCache(box / "worker").ensure(prepared.record, extra=None, wheels=prepared.wheels())
    assert value_in(venv, "tiny.VERSION") == "1.0"
    assert sorted(str(path) for path in victim.rglob("*")) == before


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("home/.config/uv/uv.toml", "[pip]\ntarget = '{}'\n"),
        ("worker/pyproject.toml", "[tool.uv.pip]\ntarget = '{}'\n"),
    ],
)
def test_files_of_uvs_settings_cannot_lead_an_install_elsewhere(
    box: Path, monkeypatch: pytest.MonkeyPatch, file: str, text: str
) -> None:
    make_wheel(box / "wheels", "tiny")
    prepared = prepared_from(box, "tiny")
    (box / file).parent.mkdir(parents=True)
    (box / file).write_text(text.format(box / "victim"))
    monkeypatch.setenv("HOME", str(box / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    venv = EnvironmentCache(box / "worker").ensure(prepared.record, extra=None, wheels=prepared.wheels())
    assert value_in(venv, "tiny.VERSION") == "1.0"
    assert not (box / "victim").exists()


def test_bytecode_is_compiled_once_for_all_environments(box: Path) -> None:
    make_wheel(box / "wheels", "tiny")
    make_wheel(box / "wheels", "more")
    cache = EnvironmentCache(box / "worker")
    first = prepared_from(box, "tiny")
    one = cache.ensure(first.record, extra=None, wheels=first.wheels())
    (box / "m" / "uv.lock").unlink()
    second = prepared_from(box, "tiny", "more")
    two = cache.ensure(second.record, extra=None, wheels=second.wheels())
    assert one != two
    compiled = [Path(value_in(venv, "tiny.__cached__")) for venv in (one, two)]
    assert compiled[0].samefile(compiled[1])


def test_a_change_in_an_environment_is_found_by_its_record(box: Path) -> None:
    make_wheel(box / "wheels", "tiny", files={"tiny/__init__.py": 'VERSION = "1"\n', "tiny/more.py": "x = 1\n"})
    prepared = prepared_from(box, "tiny")
    cache = EnvironmentCache(box / "worker")
    venv = cache.ensure(prepared.record, extra=None, wheels=prepared.wheels())
    assert list(environments_in(cache.folder)) == [venv]
    assert value_in(venv, "tiny.VERSION") == "1"
    assert verify_environment(venv) == ()
    (site,) = venv.glob("lib/python3*/site-packages")
    (site / "tiny" / "more.py").unlink()
    changed = site / "tiny" / "__init__.py"
    changed.chmod(0o644)
    changed.write_text('VERSION = "2"\n')
    (site / "sneaky.pth").write_text("import tiny\n")
    told = [str(problem) for problem in verify_environment(venv)]
    inside = site.relative_to(venv)
    assert told == [
        f"{inside}/tiny/__init__.py: changed (tiny 1.0)",
        f"{inside}/tiny/more.py: missing (tiny 1.0)",
        f"{inside}/sneaky.pth: not installed by any distribution",
    ]
    with pytest.raises(Stopped):
        verify_environment(venv, stop=lambda: True)


def test_linked_environments_share_their_bytes_and_copied_ones_do_not(box: Path) -> None:
    make_wheel(box / "wheels", "tiny")
    prepared = prepared_from(box, "tiny")
    linked, copied = EnvironmentCache(box / "worker"), EnvironmentCache(box / "worker", link_mode="copy")
    venvs = [cache.ensure(prepared.record, extra=None, wheels=prepared.wheels()) for cache in (linked, copied)]
    assert venvs[0] != venvs[1]
    assert [cache.find(prepared.record, extra=None) for cache in (linked, copied)] == venvs
    modules = [Path(value_in(venv, "tiny.__file__")) for venv in venvs]
    assert [module.stat().st_nlink > 1 for module in modules] == [True, False]
    compiled = [Path(value_in(venv, "tiny.__cached__")) for venv in venvs]
    assert [path.stat().st_nlink > 1 for path in compiled] == [True, False]
    modules[0].write_text("VERSION = 'written into'\n")
    assert [len(verify_environment(venv)) for venv in venvs] == [1, 0]


def test_four_processes_build_it_once(box: Path) -> None:
    make_wheel(box / "wheels", "tiny")
    prepared = prepared_from(box, "tiny")
    children = [builder(box, prepared) for _ in range(4)]
    answers = [json.loads(child.communicate(timeout=60)[0]) for child in children]
    assert [child.returncode for child in children] == [0] * 4
    assert len({answer["venv"] for answer in answers}) == 1
    assert sum(answer["built"] for answer in answers) == 1


def test_a_killed_build_leaves_nothing_that_is_taken_for_whole(box: Path) -> None:
    make_wheel(box / "wheels", "tiny", files={f"tiny/m{number}.py": f"X = {number}\n" * 50 for number in range(300)})
    prepared = prepared_from(box, "tiny")
    cache = EnvironmentCache(box / "worker")
    for phase in ("making", "installing", "compiling"):
        child = builder(box, prepared, die_at=phase)
        child.communicate(timeout=60)
        assert child.returncode == -signal.SIGKILL
        assert cache.find(prepared.record, extra=None) is None
    venv = cache.ensure(prepared.record, extra=None, wheels=prepared.wheels())
    assert value_in(venv, "tiny.m7.X", "tiny.m7") == "7"
    # What a killed build had started may still write for a moment; the next build removes what it left.
    assert [path.name for path in venv.parent.iterdir() if not path.name.startswith(".")] == [venv.name]


def test_a_process_that_waits_for_another_stops_on_request(box: Path) -> None:
    make_wheel(box / "wheels", "tiny")
    prepared = prepared_from(box, "tiny")
    cache = EnvironmentCache(box / "worker")
    building, leave = threading.Event(), threading.Event()

    class Held(FolderWheels):
        def bring(self, wheels: Sequence[OfferedWheel], folder: Path) -> None:
            building.set()
            assert leave.wait(30)
            FolderWheels.bring(self, wheels, folder)

    held = Held(prepared.wheels().files)
    holder = threading.Thread(target=lambda: cache.ensure(prepared.record, extra=None, wheels=held))
    holder.start()
    try:
        assert building.wait(30)
        with pytest.raises(Stopped, match="another process"):
            cache.ensure(prepared.record, extra=None, stop=lambda: True)
    finally:
        leave.set()
        holder.join(30)
    assert cache.find(prepared.record, extra=None) is not None


def test_two_environments_of_one_lock_are_built_at_once(box: Path) -> None:
    make_wheel(box / "wheels", "tiny")
    prepared = prepared_from(box, "tiny")
    of_links, of_copies = EnvironmentCache(box / "worker"), EnvironmentCache(box / "worker", link_mode="copy")

    class Meanwhile(FolderWheels):
        def bring(self, wheels: Sequence[OfferedWheel], folder: Path) -> None:
            of_copies.ensure(prepared.record, extra=None, wheels=prepared.wheels())
            FolderWheels.bring(self, wheels, folder)

    venv = of_links.ensure(prepared.record, extra=None, wheels=Meanwhile(prepared.wheels().files))
    copied = of_copies.find(prepared.record, extra=None)
    assert copied is not None
    assert value_in(venv, "tiny.VERSION") == value_in(copied, "tiny.VERSION")


def test_an_environment_that_a_push_looks_at_is_not_evicted(box: Path) -> None:
    prepared = prepared_from(box)
    hold = box / "worker" / "holds" / f"environment-{prepared.record.digest}"
    seen: list[Hold | None] = []
    (box / "m" / "model.py").touch()
    check_push(
        box / "m",
        SPEC,
        prepared,
        PushOptions(cache=box / "worker"),
        lambda request: seen.append(try_take(hold, shared=False)),
        prepared.wheels(),
    )
    assert seen == [None]
    assert try_take(hold, shared=False) is not None


def test_what_is_left_of_an_environment_that_is_being_removed_is_none(
    box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = prepared_from(box)
    cache = EnvironmentCache(box / "worker")
    venv = cache.ensure(prepared.record, extra=None)

    def killed(folder: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("modelrepo.environments.cache.shutil.rmtree", killed)
        remove_environment(venv)
    assert cache.find(prepared.record, extra=None) is None
    assert cache.ensure(prepared.record, extra=None) == venv


def test_another_python_has_another_environment(box: Path) -> None:
    prepared = prepared_from(box)
    cache = EnvironmentCache(box / "worker")
    own = cache.ensure(prepared.record, extra=None)
    others = {one.minor for one in interpreters() if one.minor.startswith("3.1")} - {MINOR}
    for minor in sorted(others)[:1]:
        venv = cache.ensure(replace(prepared.record, python=minor, requires_python=""), extra=None)
        assert venv.parent == own.parent
        assert value_in(venv, "'%d.%d' % sys.version_info[:2]", "sys") == minor
    with pytest.raises(InterpreterMissing, match=rf"no Python .*3\.99.*it has .*{MINOR}"):
        cache.ensure(replace(prepared.record, python="3.99", requires_python=""), extra=None)


def builder(box: Path, prepared: PreparedEnvironment, die_at: str | None = None) -> subprocess.Popen[str]:
    """Start a process that ensures the environment; `die_at` names the phase in which it is killed."""
    given = {
        "record": prepared.record.to_json(),
        "carried": {path.name: str(path) for path in prepared.carried},
        "cache": str(box / "worker"),
        "die_at": die_at,
    }
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.Popen(
        [sys.executable, "-c", BUILDER, json.dumps(given)], stdout=subprocess.PIPE, text=True, env=environ
    )


BUILDER = """
import json, os, signal, sys, threading, time
from pathlib import Path
from modelrepo.environments import EnvironmentCache, EnvironmentRecord
from modelrepo.environments.offers import FolderWheels
given = json.loads(sys.argv[1])
phases = []
def tell(phase, done, total):
    phases.append(phase)
    if given["die_at"] and phase.startswith(given["die_at"]):
        threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGKILL)).start()
        if given["die_at"] == "making":
            os.kill(os.getpid(), signal.SIGKILL)
record = EnvironmentRecord.from_json(given["record"])
wheels = FolderWheels.carried_by(record, {name: Path(path) for name, path in given["carried"].items()})
venv = EnvironmentCache(Path(given["cache"])).ensure(record, extra=None, wheels=wheels, progress=tell)
print(json.dumps({"venv": str(venv), "built": any(phase.startswith("making") for phase in phases)}))
"""

# A build backend of thirty lines: real ones would have to come from an index.
BACKEND = """
import pathlib, re, zipfile

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    text = pathlib.Path("pyproject.toml").read_text()
    name = re.search(r'name = "(.*)"', text)[1]
    info = f"{name}-0.1.dist-info"
    files = {
        f"{name}.py": pathlib.Path(f"{name}.py").read_text(),
        f"{info}/METADATA": f"Metadata-Version: 2.1\\nName: {name}\\nVersion: 0.1\\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\\nGenerator: t\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{path},,\\n" for path in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(pathlib.Path(wheel_directory) / f"{name}-0.1-py3-none-any.whl", "w") as archive:
        for path, content in files.items():
            archive.writestr(zipfile.ZipInfo(path), content)
    return f"{name}-0.1-py3-none-any.whl"

build_editable = build_wheel
"""


def member(folder: Path, name: str, value: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.py").write_text(f'VALUE = "{value}"\n')
    (folder / "pyproject.toml").write_text(
        f'[project]\nname = "{name}"\nversion = "0.1"\n'
        '[build-system]\nrequires = []\nbuild-backend = "tinybackend"\nbackend-path = ["backend"]\n'
    )
    shutil.copytree(folder.parent / "backend", folder / "backend", dirs_exist_ok=True)
