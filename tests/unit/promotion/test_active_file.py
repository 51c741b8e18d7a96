"""active.yaml: written one way, read as people write it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from modelrepo.canonical import Json
from modelrepo.canonical import dumps as canonical
from modelrepo.errors import InvalidActiveFile, InvalidInput, NewerFormat
from modelrepo.promotion import yaml_text
from modelrepo.promotion.active_file import HEADER, LARGEST_BYTES, ActiveFile, Rollout, parse, render

DIGEST = "ab" * 32

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    [
        "no",
        "on",
        "1e5",
        "1_000",
        "12:30",
        "010",
        "0x1f",
        "2024-01-01",
        "~",
        "",
        " a ",
        "a: b",
        "# c",
        "- d",
        "null",
        "<<",
    ]
)
numbers = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | texts
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3))
configs = st.dictionaries(texts, values, max_size=4)


@given(configs, st.integers(1, 10**9), st.sampled_from(["10%", "1", "100%", "25"]))
def test_what_is_written_is_read_back(config: dict[str, Json], generation: int, share: str) -> None:
    file = ActiveFile("v1", DIGEST, generation, config, Rollout(share))
    again = parse(render(file))
    assert canonical(again.config) == canonical(config)
    assert (again.version, again.digest, again.generation, again.rollout) == ("v1", DIGEST, generation, Rollout(share))
    assert render(again) == render(file)


@given(st.dictionaries(st.text("abcdefgh", min_size=1), texts | st.integers(-1000, 1000), max_size=3))
def test_other_readers_read_the_same(config: dict[str, Any]) -> None:
    document = yaml.safe_load(render(ActiveFile("v1", None, 1, config)))
    assert document["config"] == config


@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_whatever_is_saved_is_read_or_refused(data: bytes) -> None:
    for text in (data, b"version: v1\nconfig: " + data):
        try:
            parse(text)
        except (InvalidActiveFile, NewerFormat):
            pass


def test_a_header_says_who_follows_the_file() -> None:
    text = render(ActiveFile("v1", DIGEST, 3)).decode()
    assert text.startswith(HEADER)
    assert all(line.startswith("#") for line in HEADER.splitlines())
    assert f"digest: sha256:{DIGEST}\n" in text
    assert "\nconfig: {}\nrollout: {max_unavailable: 10%}\n" in text


def test_a_version_alone_is_enough() -> None:
    assert parse(b"version: v2") == ActiveFile("v2")


@pytest.mark.parametrize("written", ["1.10", "2024-01-01", "42", "0x10", "1e5", "010", "true", "no"])
def test_a_version_is_taken_as_it_stands(written: str) -> None:
    assert parse(f"version: {written}\n".encode()).version == written


def test_what_editors_do_to_a_file_does_no_harm() -> None:
    assert parse(
        b"\xef\xbb\xbf# mine\r\n---\r\nversion: 'v2'   # why\r\n\r\ngeneration: x\r\nconfig:\r\n"
    ) == ActiveFile("v2")
    assert parse("version: v2\nmine: [1, {a: b}]\n".encode("utf-16")) == ActiveFile("v2")


def test_config_is_read_as_json_values() -> None:
    config = parse(b"version: v1\nconfig: {a: 1e-5, b: no, c: 2024-01-01, d: 010, e: 0.5, f: ~, g: [true, -3]}").config
    assert config == {"a": 1e-5, "b": "no", "c": "2024-01-01", "d": 10, "e": 0.5, "f": None, "g": [True, -3]}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("# only a comment", "empty"),
        ("v2", "no mapping"),
        ("config: {}", "no key `version`"),
        ("version: [v2]", "no single value"),
        ("version: v2\nversion: v3", "line 2: key 'version' is there twice"),
        ("version: v2\nconfig: {a: 1, a: 2}", "'a' is there twice"),
        ("version: v2\nconfig: [1]", "config is no mapping"),
        ("version: v2\nconfig: {a: .nan}", "config cannot be written"),
        ("version: v2\nconfig: {a: 9007199254740993}", "config cannot be written"),
        ("version: v2\nconfig: {1: a}", "config cannot be written"),
        ("version: v2\nconfig: {a: &x [1], b: *x}", "anchors are not allowed"),
        ("version: v2\nconfig: !!python/object:os.system {}", "could not determine a constructor"),
        ("version: v2\nconfig: {a: b", "line 2"),
        ("version: v2\n\tx: y", "line 2"),
        ("version: v2\ndigest: abc", "write sha256: and 64 hex digits"),
        ("version: v2\nrollout: 10%", "rollout is no mapping"),
        ("version: v2\nrollout: {max_unavailable: 0%}", "max_unavailable '0%'"),
        ("version: v2\nrollout: {max_unavailable: 101%}", "max_unavailable '101%'"),
        ("version: v2\nrollout: {max_fetching: 0}", "max_fetching 0"),
        ("version: v2\nrollout: {max_fetching: 10%}", "max_fetching '10%'"),
        ("version: v2\nrollout: {max_fetching: true}", "max_fetching True"),
        ("version: v2\n--- \nversion: v3", "single document"),
        ("version: ../../v2", "is not allowed"),
        ("version: 'v 2'", "is not allowed"),
        ("version: latest", "has a meaning of its own"),
        ("format: one\nversion: v2", "no format number"),
        ("version: v2\n#" + "x" * LARGEST_BYTES, "more than the"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(text: str, says: str) -> None:
    with pytest.raises(InvalidActiveFile, match="modelrepo edit") as caught:
        parse(text.encode())
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_it_requires_must_be_known() -> None:
    assert parse(b"version: v1\nrequires:\nnew: 1").version == "v1"
    with pytest.raises(NewerFormat, match="channels"):
        parse(b"version: v1\nrequires: [channels]")
    with pytest.raises(NewerFormat, match="format 2"):
        parse(b"format: 2\nversion: v1")


def test_what_nobody_would_read_is_not_written() -> None:
    with pytest.raises(InvalidInput, match="put what is large into the version"):
        render(ActiveFile("v1", DIGEST, 1, {"prompt": "x" * LARGEST_BYTES}))


@pytest.mark.parametrize(("written", "meant"), [("10 %", "10%"), (" 2 ", "2"), ("100%", "100%")])
def test_shares_are_written_one_way(written: str, meant: str) -> None:
    assert Rollout(written).max_unavailable == meant


@pytest.mark.parametrize("share", ["", "0", "-1", "ten", "1.5%", "%"])
def test_shares_without_a_meaning_are_refused(share: str) -> None:
    with pytest.raises(InvalidInput, match="max_unavailable"):
        Rollout(share)


def test_numbers_keep_their_kind() -> None:
    document = yaml_text.load(yaml_text.dump({"a": 1, "b": 1.0, "c": 1e300, "d": -0.0}).encode())
    assert [type(value) for value in document.values()] == [int, float, float, float]
    assert math.copysign(1, document["d"]) == -1
