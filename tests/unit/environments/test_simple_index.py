"""What an index lists, as HTML, as JSON, as a folder and as a plain page; and how it is asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelrepo.environments.index_settings import IndexSettings
from modelrepo.environments.record import Requirement
from modelrepo.environments.simple_index import IndexFile, SimpleIndex
from modelrepo.environments.web import Web, without_password
from modelrepo.errors import EnvironmentFailed, Unreachable

WANTED = Requirement("my-lib", "1.0")
WHEEL = "my_lib-1.0-py3-none-any.whl"
DIGEST = "ab" * 32


def files(settings: IndexSettings) -> list[IndexFile]:
    return list(SimpleIndex(settings, Web(settings)).files(WANTED))


def html(folder: Path, text: str) -> IndexSettings:
    page = folder / "simple" / "my-lib" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text(text)
    return IndexSettings(default_index=(folder / "simple").as_uri(), no_index=False)


def test_a_page_of_anchors_is_read_with_its_base_and_its_hashes(tmp_path: Path) -> None:
    text = f"""<html><head><base href="https://files.example/a/"></head><body>
      <a href="{WHEEL}#sha256={DIGEST}">x</a> <a href="../b/my_lib-1.0.tar.gz">y</a> <a name="z">z</a>
      <a href="my_lib-1.0%2Bcpu-py3-none-any.whl">other</a> <a href="my_lib-2.0-py3-none-any.whl">newer</a></body>"""
    assert files(html(tmp_path, text)) == [
        IndexFile(WHEEL, f"https://files.example/a/{WHEEL}", DIGEST),
        IndexFile("my_lib-1.0.tar.gz", "https://files.example/b/my_lib-1.0.tar.gz"),
    ]


def test_a_page_of_json_is_read(tmp_path: Path) -> None:
    page = tmp_path / "my-lib" / "index.json"
    page.parent.mkdir()
    listed = [{"filename": WHEEL, "url": f"../files/{WHEEL}", "hashes": {"sha256": DIGEST}}]
    page.write_text(json.dumps({"files": listed}))
    settings = IndexSettings(default_index=str(tmp_path))
    assert files(settings) == [IndexFile(WHEEL, (tmp_path / "files" / WHEEL).as_uri(), DIGEST)]
    page.write_text('{"files": [3]}')
    with pytest.raises(EnvironmentFailed, match="is no page of a package index"):
        files(settings)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 200_000,
        '{"files": [{"filename": 5, "url": "x"}]}',
        '{"files": [{"filename": "a", "url": 5}]}',
        '{"files": [{"filename": "a", "url": "x", "hashes": {"sha256": ["x"]}}]}',
        '{"files": [{"filename": "a", "url": "http://[x"}]}',
    ],
)
def test_json_that_is_garbage_is_said_to_be(tmp_path: Path, text: str) -> None:
    (tmp_path / "my-lib").mkdir()
    (tmp_path / "my-lib" / "index.json").write_text(text)
    with pytest.raises(EnvironmentFailed, match="is no page of a package index"):
        files(IndexSettings(default_index=str(tmp_path)))


def test_anchors_that_lead_nowhere_are_passed_over(tmp_path: Path) -> None:
    text = f"""<base href="http://[x"><a href="http://[x/{WHEEL}">x</a><a href="my_lib-1.0-py3-none-any.%00.whl">x</a>
      <a href="https://files.example/{WHEEL}">x</a>"""
    assert [one.url for one in files(html(tmp_path, text))] == [f"https://files.example/{WHEEL}"]


def test_a_folder_and_a_page_of_links_are_read_before_any_index(tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / WHEEL).touch()
    (tmp_path / "wheels" / "README").touch()
    (tmp_path / "links.html").write_text(f'<a href="https://example.com/{WHEEL}">x</a>')
    found = files(IndexSettings(find_links=(str(tmp_path / "wheels"), str(tmp_path / "links.html")), no_index=True))
    assert [one.url for one in found] == [(tmp_path / "wheels" / WHEEL).as_uri(), f"https://example.com/{WHEEL}"]


@pytest.mark.parametrize(
    "name",
    [
        "my_lib-1.0-1%2F..%2F..%2Fx-py3-none-any.whl",
        "my_lib-1.0-1\\..\\x-py3-none-any.whl",
        "..%2Fmy_lib-1.0.tar.gz",
        "my_lib-one-py3-none-any.whl",
        "my_lib",
    ],
)
def test_a_name_that_is_none_is_passed_over(tmp_path: Path, name: str) -> None:
    assert files(html(tmp_path, f'<a href="https://example.com/{name}">x</a>')) == []


def test_an_index_that_does_not_answer_is_asked_again_and_then_told_without_its_password() -> None:
    pauses: list[float] = []
    settings = IndexSettings(default_index="http://ann:secret@127.0.0.1:1/wheels")
    with pytest.raises(Unreachable, match=r"did not answer: http://127\.0\.0\.1:1/wheels/my-lib/") as caught:
        SimpleIndex(settings, Web(settings, pause=pauses.append)).files(WANTED)
    assert "secret" not in str(caught.value)
    assert len(pauses) == 2


def test_the_places_that_were_asked_are_named_without_passwords(tmp_path: Path) -> None:
    settings = IndexSettings("https://outer/wheels", ("inner=https://u:p@inner/wheels",), (str(tmp_path),))
    assert SimpleIndex(settings, Web(settings)).asked() == f"{tmp_path}, https://inner/wheels, https://outer/wheels"
    assert SimpleIndex(IndexSettings(no_index=True), Web(settings)).asked() == "no index at all"
    assert without_password("https://u:p@host:8/a?b") == "https://host:8/a?b"
