"""What templates and examples import from the stub is there to be imported."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from modelrepo.contract import type_stub
from modelrepo.contract.stub import STUB_FILE

ROOT = Path(__file__).parents[3]
SOURCES = [ROOT / "cli/modelrepo_cli/templates/model.py.tmpl", *sorted((ROOT / "examples").glob("*/*.py"))]
DOCUMENTS = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "modelrepo/contract" / STUB_FILE]


def imported(tree: ast.AST) -> set[str]:
    """Return the names that a module takes from the stub."""
    return {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == Path(STUB_FILE).stem
        for alias in node.names
    }


def defined() -> set[str]:
    return {node.name for node in ast.parse(type_stub()).body if isinstance(node, ast.ClassDef)}


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_code_takes_from_the_stub_only_what_it_defines(source: Path) -> None:
    tree = ast.parse(source.read_text())
    assert imported(tree) <= defined()
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert imported(tree) <= used


def test_the_template_and_each_example_show_the_stub() -> None:
    models = [source for source in SOURCES if source.name in ("model.py", "model.py.tmpl")]
    assert len(models) >= 3
    assert all(imported(ast.parse(model.read_text())) == {"Ctx", "Job"} for model in models)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documents_import_only_what_the_stub_defines(document: Path) -> None:
    lines = [line.strip() for line in document.read_text().splitlines()]
    for line in lines:
        if line.startswith(f"from {Path(STUB_FILE).stem} import "):
            assert imported(ast.parse(line)) <= defined()
