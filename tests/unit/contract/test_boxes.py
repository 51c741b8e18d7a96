"""Conditions, host needs, secrets and configuration: what a box and a promotion bring to a spec."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from modelrepo.contract import (
    AcceleratorFacts,
    AcceleratorRule,
    HostNeeds,
    KnownHost,
    check_host,
    choose_extra,
    effective_config,
    gather_host_facts,
    parse_settings,
    resolve_secrets,
)
from modelrepo.contract.conditions import satisfies
from modelrepo.contract.quantities import format_size, parse_duration, parse_size
from modelrepo.errors import HostNeedUnmet, InvalidInput, NoExtraFits, SecretMissing

from .specs import spec_with

RULES = (
    AcceleratorRule("cuda >= 12.8", "cu128"),
    AcceleratorRule("cuda", "cu118"),
    AcceleratorRule("rocm >= 6.2", "rocm"),
)


def test_the_first_rule_that_fits_decides() -> None:
    assert choose_extra(RULES, AcceleratorFacts("cuda", "13.0")) == "cu128"
    assert choose_extra(RULES, AcceleratorFacts("cuda", "12.4")) == "cu118"
    assert choose_extra(RULES, AcceleratorFacts("cuda", None)) == "cu118"
    assert choose_extra(RULES, AcceleratorFacts("rocm", "6.2.4")) == "rocm"
    assert choose_extra((), AcceleratorFacts("cpu")) is None


def test_no_rule_that_fits_lists_rules_and_finding() -> None:
    with pytest.raises(NoExtraFits) as caught:
        choose_extra(RULES, AcceleratorFacts("rocm", "5.7"))
    assert "it offers rocm 5.7" in str(caught.value)
    assert "cuda >= 12.8 (cu128); cuda (cu118); rocm >= 6.2 (rocm)" in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "version", "when", "fits"),
    [
        ("cpu", None, "cpu", True),
        ("cuda", "12.8", "cpu", False),
        ("mps", None, "cpu", True),
        ("mps", None, "mps", True),
        ("cpu", None, "mps", False),
        ("cuda", "12.8", "cuda >= 12.8, < 13", True),
        ("cuda", "13.1", "cuda>=12.8,<13", False),
        ("cuda", "odd", "cuda >= 1", False),
        ("x-boards", "2.1", "x-boards >= 2.0", True),
        ("x-boards", "2.1", "x-other", False),
    ],
)
def test_a_condition_fits_or_not(kind: str, version: str | None, when: str, fits: bool) -> None:
    assert satisfies(AcceleratorFacts(kind, version), when) is fits


def test_every_unmet_need_is_named_at_once() -> None:
    needs = HostNeeds({"ffmpeg": ">=6", "sox": "*"}, ("libGL.so.1",), True, 80 << 30)
    with pytest.raises(HostNeedUnmet) as caught:
        check_host(needs, KnownHost({"ffmpeg": "5.1.4"}, gpu_memory=40 << 30))
    for part in (
        "ffmpeg >=6 (found 5.1.4)",
        "sox (not on PATH)",
        "libGL.so.1",
        "C compiler",
        "80 GiB (this box has 40 GiB)",
    ):
        assert part in str(caught.value)
    check_host(needs, KnownHost({"ffmpeg": "6.1", "sox": ""}, frozenset({"libGL.so.1"}), True, 80 << 30))


def test_a_command_that_tells_no_version_meets_no_comparison() -> None:
    with pytest.raises(HostNeedUnmet, match="one that tells no version"):
        check_host(HostNeeds({"x": ">=1"}), KnownHost({"x": ""}))


def test_gpu_memory_counts_only_where_a_gpu_serves() -> None:
    needs = HostNeeds(gpu_memory_bytes=1)
    check_host(needs, gather_host_facts())
    with pytest.raises(HostNeedUnmet, match="has no GPU"):
        check_host(needs, gather_host_facts(AcceleratorFacts("cpu")))


def test_this_box_tells_versions_and_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "mytool"
    tool.write_text('#!/bin/sh\n[ "$1" = "-version" ] && exit 1\necho "mytool version n7.1.2-beta Copyright 2020"\n')
    tool.chmod(0o755)
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\nexit 0\n")
    silent.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    facts = gather_host_facts()
    assert facts.command_version("mytool") == "7.1.2"
    assert facts.command_version("silent") == ""
    assert facts.command_version("surely-not-there") is None
    assert not facts.has_library("libsurely-not-there.so.9")
    if sys.platform == "linux":
        assert facts.has_library("libc.so.6")


def test_secrets_come_from_files_then_variables(tmp_path: Path) -> None:
    spec = spec_with("secrets: [HF_TOKEN, OTHER]")
    (tmp_path / "HF_TOKEN").write_text("abc\n")
    environ = {"MODELREPO_SECRET_OTHER": "o", "MODELREPO_SECRET_HF_TOKEN": "weaker", "HF_TOKEN": "never"}
    assert resolve_secrets(spec, tmp_path, environ) == {"HF_TOKEN": "abc", "OTHER": "o"}
    with pytest.raises(SecretMissing, match="MODELREPO_SECRET_HF_TOKEN, MODELREPO_SECRET_OTHER") as caught:
        resolve_secrets(spec, None, {"HF_TOKEN": "never"})
    assert "never" not in str(caught.value)
    (tmp_path / "HF_TOKEN").write_bytes(b"a\0b")
    with pytest.raises(SecretMissing, match="the secret HF_TOKEN holds a NUL byte"):
        resolve_secrets(spec, tmp_path, environ)


def test_config_is_laid_over_the_defaults() -> None:
    spec = spec_with("config: {threshold: 0.8, tags: [a], name: x, deep: {k: 1}, loud: false, limit: null, count: 3}")
    assert effective_config(spec, {"threshold": 1, "limit": "any"})["threshold"] == 1
    settings = ["threshold=0.5", 'tags=["b"]', "name=1.5", "loud=true", "limit=10", "count=4", 'deep={"k": 2}']
    assert parse_settings(spec, settings) == {
        "threshold": 0.5, "tags": ["b"], "name": "1.5", "loud": True, "limit": 10, "count": 4, "deep": {"k": 2},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("thresold=1", "'thresold' is not declared in model.yaml; did you mean 'threshold'?"),
        ("threshold", "write it like --set key=value"),
        ("threshold=high", "'high' has another type than its default 0.8"),
        ("threshold=true", "true has another type than its default 0.8"),
        ("threshold=NaN", "has another type"),
    ],
)
def test_a_setting_that_does_not_fit_is_refused(setting: str, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_settings(spec_with("config: {threshold: 0.8}"), [setting])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "size"), [("20MiB", 20 << 20), ("1.5 KB", 1500), ("0B", 0), (7, 7), ("60GiB", 60 << 30)]
)
def test_sizes(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "seconds"), [("20min", 1200), ("1.5h", 5400), ("250ms", 0.25), ("2 d", 172800), ("3s", 3)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["20", "20 mb", "-1MiB", "MiB", "", "1e3MiB", True])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_size(text)


def test_sizes_are_written_for_people() -> None:
    assert [format_size(size) for size in (1, 1536, 60 << 30)] == ["1 B", "1.5 KiB", "60 GiB"]
