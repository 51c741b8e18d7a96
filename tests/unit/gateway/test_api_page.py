"""docs/api.md says what the OpenAPI document and the counters say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from modelrepo_runtime.gateway.fleet_metrics import FIGURES
from modelrepo_runtime.gateway.typescript import types

from .gateways import Bench

PAGE = (Path(__file__).parents[3] / "docs" / "api.md").read_text()


@pytest.fixture
def document(quiet: Bench) -> dict[str, Any]:
    found: dict[str, Any] = quiet.ask("GET", "/v1/openapi.json").json()
    return found


def test_every_operation_and_every_key_is_on_the_page(document: dict[str, Any]) -> None:
    table = PAGE.partition("## Operations")[2].partition("## Submit")[0]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            row = next((row for row in rows if f"`{operation['operationId']}`" in row), None)
            assert row is not None, operation["operationId"]
            assert path in row
            assert method.upper() in row
            named = [each["name"] for each in operation.get("parameters", ()) if each["in"] in ("query", "header")]
            for name in set(named) - {"expires", "signature", "version"}:
                assert name.replace("-", "").lower() in PAGE.replace("-", "").lower(), (path, name)
    for name in ("SubmissionBody", "JobDocument", "Output", "JobFault", "Place", "Eta", "FileBody", "Fault"):
        for key in document["components"]["schemas"][name]["properties"]:
            assert f"`{key}`" in PAGE or f'"{key}"' in PAGE, (name, key)
    assert set(re.findall(r"`(queued|running|succeeded|failed|rejected|cancelled|expired)`", PAGE)) == set(
        document["components"]["schemas"]["JobDocument"]["properties"]["status"]["enum"]
    )


def test_every_counter_is_on_the_page_with_its_labels(quiet: Bench) -> None:
    shown = {
        found[0]: tuple(re.findall(r"`(\w+)`", found[1]))
        for found in re.findall(r"^\| `(modelrepo_\w+)` \| (.*?) \|", PAGE, re.MULTILINE)
    }
    counted = {
        metric._name + ("_total" if metric._type == "counter" else ""): tuple(metric._labelnames)
        for metric in vars(quiet.gateway.parts.metrics).values()
        if hasattr(metric, "_labelnames")
    }
    assert shown == counted | {figure.name: figure.labels for figure in FIGURES}


def test_types_for_typescript_name_every_document(document: dict[str, Any]) -> None:
    module = types(document)
    for name in document["components"]["schemas"]:
        assert re.search(rf"^export (interface {name} {{|type {name} = )", module, re.MULTILINE), name
    assert '  submitJob: { method: "POST", path: "/v1/jobs" },' in module
    assert '  status: "queued" | "running" | "succeeded"' in module
    assert "  tier?: string | null;" in module
    assert "  outputs: Output[];" in module
    assert "unknown[]" not in module
