"""delete, prune and verify as they are typed: what they print, and what they end with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelrepo.repository import Repository
from modelrepo_cli.main import main
from tests.unit.maintenance.stocked import put


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    monkeypatch.setenv("MODELREPO_REPO", str(tmp_path / "repository"))
    monkeypatch.setenv("MODELREPO_CACHE", str(tmp_path / "cache"))
    repository = Repository.init(str(tmp_path / "repository"))
    for data in (b"one", b"two", b"three"):
        put(repository.store, b"shared", data)
    for version in ("v1", "v2", "v3"):
        repository.promotions.promote("m", version)
    return repository


def spoil(repository: Repository, key: str) -> None:
    repository.store.replace(key, b"{")


def test_deleting_says_what_becomes_of_the_bytes(repository: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["delete", "m@v1", "--dry-run"]) == 0
    assert "would delete m@v1; 1 object of 3 B" in capsys.readouterr().out
    assert main(["delete", "m@v1", "--reason", "old"]) == 0
    assert "m@v1 is deleted (generation 4); its bytes go when `modelrepo prune` marks" in capsys.readouterr().out
    assert main(["delete", "m@v1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["generation"] == 4


@pytest.mark.parametrize(("reference", "code"), [("m@v3", 4), ("m@v2", 4), ("m@v9", 3), ("m", 2)])
def test_what_cannot_be_deleted_ends_with_its_code(repository: Repository, reference: str, code: int) -> None:
    assert main(["delete", reference]) == code
    assert main(["delete", reference, "--dry-run"]) == code


def test_pruning_says_what_it_kept_and_why(repository: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    repository.delete("m", "v1")
    assert main(["prune"]) == 0
    assert (
        capsys.readouterr().out == "kept 3 objects of 14 B, which 2 versions and 0 bundles name, 1 wanted by a push\n"
    )
    assert main(["prune", "--dry-run", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["kept"]["needed"], document["freed_bytes"], document["dry_run"]) == (3, 0, True)
    assert main(["prune", "--grace", "59m"]) == 2


def test_verifying_ends_with_one_while_something_is_wrong(
    repository: Repository, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backup = Repository.init(str(tmp_path / "backup"))
    repository.copy_to(backup)
    assert main(["verify", "--all"]) == 0
    assert capsys.readouterr().out.endswith(": all is what it should be\n")
    for stat in list(repository.store.list("objects/"))[:2]:
        spoil(repository, stat.key)
    assert main(["verify", "--all", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["wrong"] == 2
    assert main(["verify", "--all", "--quick"]) == 1
    assert "; 2 wrong" in capsys.readouterr().out
    assert main(["verify", "--all", "--repair", str(tmp_path / "backup")]) == 0
    assert "2 repaired: all is what it should be" in capsys.readouterr().out
    assert main(["verify", "m"]) == 0


@pytest.mark.parametrize(
    "arguments",
    [[], ["m", "--all"], ["--local", "--quick"], ["--local", "--repair", "x"], ["--all", "--remove"]],
)
def test_verifying_takes_one_thing_to_look_at(repository: Repository, arguments: list[str]) -> None:
    assert main(["verify", *arguments]) == 2


def test_a_box_that_has_fetched_nothing_is_whole(repository: Repository, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--local"]) == 0
    assert "all is what it should be" in capsys.readouterr().out


def test_a_version_that_cannot_be_read_can_be_deleted_and_a_rollback_passes_over_it(repository: Repository) -> None:
    spoil(repository, "models/m/versions/v2/manifest.json")
    assert main(["rollback", "m"]) == 1
    assert main(["delete", "m@v1"]) == 4
    assert main(["delete", "m@v2"]) == 0
    assert main(["verify", "--all"]) == 0
    assert main(["rollback", "m"]) == 0
    assert repository.promotions.state("m").version == "v1"


def test_a_list_with_a_torn_manifest_is_a_list_and_ends_with_one(
    repository: Repository, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(repository, "models/m/versions/v1/manifest.json")
    assert main(["list", "m"]) == 1
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 4
    assert [row.split()[0] for row in rows if "corrupt" in row] == ["v1"]
    assert main(["list"]) == 0
