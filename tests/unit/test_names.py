"""Names, references and keys are those of the format."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelrepo import layout
from modelrepo.errors import InvalidName, InvalidReference, ModelRepoError
from modelrepo.names import (
    Reference,
    check_model_name,
    check_version_id,
    near_names,
    next_version,
    parse_reference,
    sort_key,
)


@pytest.mark.parametrize("name", ["a", "0", "video-gen", "a.b_c-d", "a..b", "x" * 64])
def test_model_names_that_are_allowed(name: str) -> None:
    assert check_model_name(name) == name


@pytest.mark.parametrize("name", ["", "A", "-a", "a-", ".a", "a/b", "a/b/c", "a b", "ü", "a\n", "x" * 65, "..", "a@b"])
def test_model_names_that_are_not(name: str) -> None:
    with pytest.raises(InvalidName, match="not allowed"):
        check_model_name(name)


def test_a_slash_is_said_to_be_reserved() -> None:
    with pytest.raises(InvalidName, match="reserved"):
        check_model_name("team/model")


@pytest.mark.parametrize("version", ["v1", "1", "V1.0+cu128", "2024-01-01", "a_b", "x" * 64])
def test_version_ids_that_are_allowed(version: str) -> None:
    assert check_version_id(version) == version


@pytest.mark.parametrize(
    "version", ["", "active", "previous", "latest", "git", "git:abc", "-1", "v1-", "a/b", "v 1", "x" * 65]
)
def test_version_ids_that_are_not(version: str) -> None:
    with pytest.raises(InvalidName):
        check_version_id(version)


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("m", Reference("m")),
        ("m@v1", Reference("m", "v1")),
        ("m@active", Reference("m", "active")),
        ("m@previous", Reference("m", "previous")),
        ("m@git:0a1b2c3", Reference("m", "git:0a1b2c3")),
    ],
)
def test_references_are_read_and_written(text: str, reference: Reference) -> None:
    assert parse_reference(text) == reference
    assert str(reference) == text
    assert reference.commit == ("0a1b2c3" if "git:" in text else None)


@pytest.mark.parametrize("text", ["m@", "m@latest", "m@git:", "m@git:xyz", "m@git:abc"])
def test_references_without_a_meaning_say_so(text: str) -> None:
    with pytest.raises(InvalidReference):
        parse_reference(text)


@given(st.text(max_size=12))
def test_any_text_is_a_reference_or_an_error(text: str) -> None:
    try:
        assert str(parse_reference(text)) == text
    except ModelRepoError:
        pass


def test_near_names_are_found() -> None:
    assert near_names("video-gne", ["video-gen", "audio", "Video-Gen2"])[0] == "video-gen"
    assert near_names("zzz", ["video-gen"]) == []


def test_the_next_version_is_above_every_other() -> None:
    assert next_version([]) == "v1"
    assert next_version(["v1", "v10", "v9", "v03", "other", "v2-rc"]) == "v11"


def test_versions_sort_as_people_count() -> None:
    assert sorted(["v10", "v9", "v1", "1.10", "1.9", "a", "v1-rc"], key=sort_key) == [
        "1.9", "1.10", "a", "v1", "v1-rc", "v9", "v10",
    ]  # fmt: skip


def test_keys_lie_where_the_format_says() -> None:
    digest = "ab" + "c" * 62
    assert layout.active_file("m") == "models/m/active.yaml"
    assert layout.history_entry("m", 17) == "models/m/history/00000017.yaml"
    assert layout.manifest("m", "v1") == "models/m/versions/v1/manifest.json"
    assert layout.tombstone("m", "v1") == "models/m/versions/v1/deleted.json"
    assert layout.copy_for_people("m", "v1", "uv.lock") == "models/m/versions/v1/uv.lock"
    assert layout.object_(digest) == f"objects/sha256/ab/{digest}"
    assert layout.bundle("e", None, "cp311", "linux_x86_64", "b") == "environments/e/_/cp311-linux_x86_64/b.json"
    assert layout.bundle("e", "cuda", "cp311", "any", "b") == "environments/e/cuda/cp311-any/b.json"
    assert (layout.push_lease("p"), layout.push_lease("p", 2)) == ("pushes/p.json", "pushes/p.2.json")
    assert [layout.prune("p"), layout.prune_decision("p"), layout.prune_done("p")] == [
        "prunes/p.json", "prunes/p.decision", "prunes/p.done",
    ]  # fmt: skip
    assert layout.lost_save("m", digest) == f"models/m/history/.lost-{digest}"


def test_keys_are_read_back() -> None:
    digest = "ab" + "c" * 62
    assert layout.generation_of("models/m/history/00000017.yaml") == 17
    assert layout.generation_of("models/m/history/123456789.yaml") == 123456789
    for key in ("models/m/history/.lost-ab", "models/m/history/17.yaml", "models/m/history/00000017.yaml~", "x"):
        assert layout.generation_of(key) is None
    assert layout.version_of("models/m/versions/v1/manifest.json") == ("m", "v1")
    assert layout.version_of("models/m/versions/v1/deleted.json") is None
    assert layout.digest_of(layout.object_(digest)) == digest
    for key in ("objects/sha256/ab/short", f"objects/sha256/ff/{digest}", f"objects/sha256/{digest}"):
        assert layout.digest_of(key) is None
