"""The how-to shows the example's files as they are."""

from __future__ import annotations

import re
from pathlib import Path

from modelrepo_cli.demo.examples import example_folder

PAGE = Path(__file__).resolve().parents[3] / "docs" / "howto" / "first-model.md"


def shown(kind: str) -> str:
    blocks = re.findall(rf"```{kind}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 1
    return str(blocks[0])


def test_the_page_shows_the_whole_model_yaml() -> None:
    assert shown("yaml") == (example_folder("hello-model") / "model.yaml").read_text(encoding="utf-8")


def test_the_page_shows_the_whole_class() -> None:
    source = (example_folder("hello-model") / "model.py").read_text(encoding="utf-8")
    assert shown("python") == source[source.index("class Hello:") :]
