"""Each benchmark runs and prints one JSON object with the promised keys, and nothing else; no figure is judged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

BENCH = Path(__file__).resolve().parents[2] / "bench"

PROMISED = {
    "overhead.py --jobs 5": "ours_ms_p50 ours_ms_p99 fsync_ms_p50 fsyncs peer peer_ms_p50 jobs",
    "swap.py --swaps 10 --heavy-swaps 2 --heavy-mib 4": "swaps jobs failed lost visible_s_p50 visible_s_p99 phases_s"
    " overlap_gap_ms_p50"
    " overlap_gap_ms_p99 drain_gap_ms_p50 rss_slope_kib_per_swap fd_slope_per_swap heavy_swaps"
    " heavy_mib heavy_visible_s_p50 heavy_gap_ms_p50 inplace_gap_ms_p50 rollback_s_p50 peak_over_one_copy heavy_jobs"
    " heavy_failed heavy_lost",
    "state.py --quick": "bytes blocked_over_memcpy blocked_ms first_blocked_ms memcpy_ms dcp_blocked_ms durable_s"
    " resume_pool_s resume_storage_s",
    "dedup.py --layers 2": "three_of_64 lora_in_2_layers one_of_3_models full_fine_tune one_10_kb_tensor"
    " one_of_many_small worst_ours_over_changed",
    "env.py --rounds 1 --package packaging": "attach_s first_build_s offline_restore_s uv_sync_s uv_sync_cold_s"
    " attach_budget_s packages files rounds",
    "load.py --quick": "bytes cold_over_limit cold_over_safetensors cold_over_torch warm_attach_ms"
    " second_worker_extra_mib",
    "transfer.py --quick": "push_vs_s5cmd pull_vs_s5cmd push_vs_s5cmd_verified pull_vs_s5cmd_verified push_vs_s3fs"
    " pull_vs_s3fs bytes peak_rss_mib cpu_s_per_gb rounds cases",
    "claims.py --quick": "postgresql sqlite",
    "days.py --quick": "launch overload",
    "gateway.py --quick": "long_polls db_connections rss_mib wakeup_ms_p50 wakeup_ms_p99 claims_per_s heartbeats_per_s"
    " submits_per_s hellos_per_s",
    "help.py --times 2": "help_ms_p50 python_ms_p50 ratio modules_imported",
}


LONG = ("swap.py", "state.py", "dedup.py", "env.py", "load.py", "transfer.py", "days.py")
"""Benchmarks that take longer than a few seconds even so."""


def commands() -> list[ParameterSet]:
    long = [pytest.mark.full_counts]
    return [pytest.param(command, marks=long if command.startswith(LONG) else []) for command in PROMISED]


@pytest.mark.parametrize("command", commands())
def test_a_benchmark_prints_one_object_with_the_promised_keys(command: str) -> None:
    name, *options = command.split()
    done = subprocess.run(
        [sys.executable, str(BENCH / name), "--json", *options], stdout=subprocess.PIPE, check=True, timeout=200
    )
    result = json.loads(done.stdout)
    assert set(result) == {*PROMISED[command].split(), "notes"}


def test_every_benchmark_is_promised_and_on_the_page() -> None:
    files = {path.name for path in BENCH.glob("*.py")} - {"page.py"}
    assert {command.split()[0] for command in PROMISED} == files
    assert all(f'"{name}"' in (BENCH / "page.py").read_text(encoding="utf-8") for name in files)
