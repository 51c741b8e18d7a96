"""A pipeline's script releases from a checkout without weights; run twice it changes nothing. Ready files run it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
import yaml

from modelrepo import Repository
from modelrepo_cli.main import cli
from tests.acceptance.wholeness import check_repository
from tests.conftest import Bucket

CI = Path(__file__).resolve().parents[2] / "examples" / "ci"
SCRIPT = CI / "release.sh"
PATIENCE_S = 240
MODEL_PY = "class M:\n    def load(self, ctx): pass\n    def run(self, job): return 1\n"


@dataclass
class Checkout:
    """A model in a Git repository that has no weights, and the environment of a pipeline's job."""

    folder: Path
    environment: dict[str, str]

    def commit(self, message: str) -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)
        return self.git("rev-parse", "HEAD")

    def git(self, *arguments: str) -> str:
        return self.run("git", "-C", str(self.folder), *arguments).stdout.strip()

    def release(self, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.run("sh", str(SCRIPT), "tiny", str(self.folder), wanted=None, **environment)

    def run(self, *command: str, wanted: int | None = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert wanted is None or done.returncode == wanted, done.stderr
        return done


@pytest.fixture
def checkout(seaweed: Bucket, tmp_path: Path) -> Checkout:
    """A checkout whose first version somebody pushed and promoted from a box that has the weights."""
    folder = tmp_path / "checkout" / "tiny"
    (folder / "weights").mkdir(parents=True)
    (folder / "model.yaml").write_text(
        "contract: 1\nname: tiny\nentrypoint: model:M\ncheckpoints: {w: weights}\nstages: [{name: run, on: cpu}]\n"
    )
    (folder / "model.py").write_text(MODEL_PY)
    (folder / "pyproject.toml").write_text(
        '[project]\nname = "tiny"\nversion = "0"\nrequires-python = ">=3.11"\n[tool.uv]\npackage = false\n'
    )
    (folder / ".gitignore").write_text("weights/\n")
    (folder / "weights" / "w.bin").write_bytes(b"w" * 5000)
    kept = {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "UV_", "PIP_"))}
    environment = kept | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "CI": "true",
        "MODELREPO_REPO": f"{seaweed.url}/models",
        "MODELREPO_CACHE": str(tmp_path / "cache"),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a",
    }  # fmt: skip
    made = Checkout(folder, environment)
    made.run("modelrepo", "init")
    made.run("git", "init", "--quiet", str(folder))
    made.run("modelrepo", "push", str(folder), "--lock", "--check", "none", "--promote")
    shutil.rmtree(folder / "weights")
    made.commit("first")
    return made


@pytest.mark.full_counts
def test_a_release_publishes_what_changed_and_run_twice_it_changes_nothing(checkout: Checkout) -> None:
    url = checkout.environment["MODELREPO_REPO"]
    (checkout.folder / "model.py").write_text(MODEL_PY.replace("return 1", "return 2"))
    commit = checkout.commit("answer 2")
    queue = f"sqlite:///{checkout.folder.parent / 'queue.db'}"

    first = checkout.release(MODELREPO_QUEUE=queue)
    assert first.returncode == 0, first.stderr
    repository = Repository.open(url)
    whole = check_repository(repository)
    assert (whole.versions, whole.active, whole.generations) == (("v1", "v2"), "v2", 2)
    version = repository.resolve(f"tiny@git:{commit}")
    assert (version.version, version.manifest.git_dirty, version.manifest.message) == ("v2", False, "answer 2")
    assert version.manifest.checkpoints == repository.resolve("tiny@v1").manifest.checkpoints
    assert repository.promotions.history("tiny")[-1].reason == f"commit {commit}"
    before = {stat.key: stat.etag for stat in repository.store.list("models/")}

    second = checkout.release(MODELREPO_QUEUE=queue)
    assert second.returncode == 0, second.stderr
    assert "tiny@v2 holds the same already" in second.stdout
    assert {stat.key: stat.etag for stat in Repository.open(url).store.list("models/")} == before

    checkout.git("commit", "--quiet", "--allow-empty", "--message", "of another model")
    third = checkout.release()
    assert third.returncode == 0, third.stderr
    assert "changes nothing of tiny" in third.stdout
    assert {stat.key: stat.etag for stat in Repository.open(url).store.list("models/")} == before

    Repository.open(url).promotions.rollback("tiny")
    checkout.git("reset", "--quiet", "--hard", commit)
    undone = checkout.release()
    assert undone.returncode == 4, "a pipeline that runs again takes no rollback back"
    assert "blocked" in undone.stderr
    assert check_repository(Repository.open(url)).active == "v1"


def test_a_release_ends_where_something_is_wrong(checkout: Checkout) -> None:
    url = checkout.environment["MODELREPO_REPO"]
    before = check_repository(Repository.open(url))
    (checkout.folder / "model.py").write_text("class M:\n    def load(self): pass\n")
    checkout.commit("break the signature")
    broken = checkout.release()
    assert (broken.returncode, "load(self)" in broken.stderr) == (1, True), broken.stderr
    unlocked = checkout.folder / "pyproject.toml"
    checkout.git("revert", "--no-edit", "HEAD")
    unlocked.write_text(unlocked.read_text().replace(">=3.11", ">=3.10"))
    checkout.commit("need another Python")
    assert checkout.release().returncode == 2
    unlocked.with_name("uv.lock").unlink()
    by_hand = checkout.release(CI="")
    assert (by_hand.returncode, "has no uv.lock" in by_hand.stderr) == (2, True), by_hand.stderr
    misspelt = checkout.run("sh", str(SCRIPT), "tinny", str(checkout.folder), wanted=2)
    assert misspelt.stderr.endswith("model.yaml is that of 'tiny', not of 'tinny'\n")
    nowhere = checkout.release(AWS_ENDPOINT_URL="http://127.0.0.1:9")
    assert nowhere.returncode == 5, nowhere.stderr
    assert check_repository(Repository.open(url)) == before


def test_the_ready_files_run_the_script_and_hold_no_secret() -> None:
    for name, steps in (("github.yml", github_steps()), ("gitlab-ci.yml", gitlab_steps())):
        assert any(shlex.split(step)[:2] == ["sh", "ci/release.sh"] for step in steps), name
        text = (CI / name).read_text()
        assert not re.search(r"(?i)secret|access_key|password", text), "a role in place of keys"
        assert not re.search(r"https?://|\w\.(com|io|org)\b", text), "whose registry it is, is the user's"


def github_steps() -> list[str]:
    document = yaml.safe_load((CI / "github.yml").read_text())
    assert document["permissions"]["id-token"] == "write"
    (job,) = document["jobs"].values()
    return [step["run"] for step in job["steps"] if "run" in step]


def gitlab_steps() -> list[str]:
    document = yaml.safe_load((CI / "gitlab-ci.yml").read_text())
    (job,) = document.values()
    assert job["id_tokens"]
    return list(job["script"])


@pytest.mark.parametrize("name", ["release.sh", "github.yml", "gitlab-ci.yml"])
def test_every_command_of_the_ready_files_is_one(name: str) -> None:
    steps = {
        "release.sh": SCRIPT.read_text().splitlines(),
        "github.yml": github_steps(),
        "gitlab-ci.yml": gitlab_steps(),
    }
    found = [words for step in steps[name] for words in commands(step)]
    assert found
    context = click.Context(cli)
    for verb, *words in found:
        command = cli.get_command(context, verb)
        assert command is not None, f"modelrepo {verb} does not exist"
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, f"modelrepo {verb} {words}"


def commands(step: str) -> Iterator[list[str]]:
    """Find what is told to modelrepo in a line of a script."""
    if step.lstrip().startswith("#"):
        return
    for told in re.findall(r"(?:^|[\s;|&])modelrepo ((?:[^;|&>\n]|&&)+)", step):
        yield shlex.split(told)


def test_the_script_is_plain_sh() -> None:
    checked = subprocess.run(["sh", "-n", str(SCRIPT)], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert sorted(path.name for path in CI.iterdir()) == ["github.yml", "gitlab-ci.yml", "release.sh"]
