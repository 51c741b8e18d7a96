"""`modelrepo worker`."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelrepo.settings import KEYS, find_settings
from modelrepo_cli.verbs import Call, verb

if TYPE_CHECKING:
    from modelrepo_runtime.worker.settings import Source

# Held to modelrepo_runtime.worker.settings.OPTIONS by a test; written out here, so that `--help` loads no YAML.
FLAGS: tuple[tuple[str, dict[str, Any]], ...] = (
    (
        "token_file",
        {"metavar": "FILE", "help": "The token for a gateway; with --queue it is all that a box needs."},
    ),
    ("cache", {"metavar": "DIR", "help": "Versions, environments and locks of this box."}),
    ("cache_size", {"metavar": "SIZE", "help": "What the cache may hold, such as 500GB; the whole disk unless given."}),
    ("pool", {"metavar": "DIR", "help": "On tmpfs, to load checkpoints from, or none; on /dev/shm unless given."}),
    ("pool_size", {"metavar": "SIZE", "help": "What the pool may hold, such as 200GiB; half the memory unless given."}),
    ("pool_numa_node", {"metavar": "N", "help": "The memory node that the pool lies on, such as far or CXL memory."}),
    ("models", {"metavar": "A,B", "help": "Serve only these; every model that has an active version unless given."}),
    ("share_slots", {"metavar": "YES|NO", "help": "Slots go round where there are more models than slots; yes."}),
    ("slots", {"metavar": "LAYOUT", "help": "auto, none, 8x1 (eight slots of one device), 2x4, or 0,1,2,3;4,5."}),
    ("cpu_slots", {"metavar": "N", "help": "Slots on the CPU, beside those on accelerators."}),
    ("name", {"metavar": "NAME", "help": "This worker's name in `modelrepo status`; the host's unless given."}),
    ("secrets_dir", {"metavar": "DIR", "help": "A folder with a file for each secret that models name."}),
    ("grace", {"metavar": "SECONDS", "help": "From SIGTERM, the time in which jobs finish or are handed back."}),
    ("allow_builds", {"is_flag": True, "default": None, "help": "Let this box compile packages that have no wheel."}),
    ("link_mode", {"metavar": "MODE", "help": "hardlink, or copy: each environment has files of its own."}),
    ("default_index", {"metavar": "URL", "help": "The package index to install from."}),
    ("find_links", {"multiple": True, "metavar": "DIR", "help": "A folder or page of wheels; repeat it."}),
    (
        "object_mirror",
        {"multiple": True, "metavar": "URL", "help": "A copy of the repository to read objects from first; repeat it."},
    ),
    ("cluster", {"metavar": "NAME", "help": "The boxes that share accelerators: CPU slots work for these."}),
    (
        "handover",
        {"metavar": "URL", "help": "The cluster's storage for what stages hand over; else the files."},
    ),
    ("stages", {"metavar": "KIND", "help": "cpu or gpu: only stages on it; auto: what the slot can run."}),
    ("adapter_cache", {"metavar": "SIZE", "help": "What adapters of jobs may take; 10GiB unless given."}),
    ("adapter_files", {"metavar": "N", "help": "How many adapters of jobs are kept; 1000 unless given."}),
    ("state_memory", {"metavar": "DIR", "help": "On tmpfs, for states that jobs save; in /dev/shm unless given."}),
)


def _option(name: str, settings: dict[str, Any]) -> click.Option:
    told = settings["help"].rstrip(".")
    return click.Option(
        [f"--{name.replace('_', '-')}", name], **{**settings, "help": f"{told} [MODELREPO_{name.upper()}]."}
    )


def _as_found(source: Source) -> Source:
    """Say where repository, queue and files will be looked for that no setting names."""
    if source.value is not None or source.name not in KEYS:
        return source
    from modelrepo_runtime.queue.opening import default_queue_url

    told = find_settings(Path.cwd())
    origin = str(told.path) if getattr(told, source.name) is not None else source.origin
    match source.name:
        case "repo":
            return replace(source, value=told.repo, origin=origin)
        case "queue":
            return replace(source, value=default_queue_url(None), origin=origin)
    return replace(source, value=told.files, origin=origin) if told.files else source


@verb("repo", "queue", "files", parameters=tuple(_option(name, settings) for name, settings in FLAGS))
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="Read this worker.yaml.")
@click.option("--print-config", is_flag=True, help="Print every setting and where it comes from, and end.")
def command(call: Call, config: Path | None, print_config: bool, **flags: Any) -> None:
    """Serve models on this box.

    Takes jobs from the queue and runs each model in a process of its own, in its own environment. Promoting another
    version swaps it between two jobs. SIGTERM finishes or hands back what runs; SIGUSR2 writes all threads' stacks to
    the job logs.
    """
    from modelrepo_runtime.worker import settings

    told = {"repo": call.repo, "queue": call.queue, "files": call.files, **flags}
    decided, sources = settings.load_settings(told, os.environ, config)
    if print_config:
        sources = tuple(_as_found(source) for source in sources)
        document = {source.name: {"value": source.value, "from": source.origin} for source in sources}
        call.output.show(document, settings.print_config(sources).rstrip("\n"))
        return
    from modelrepo_runtime.worker.daemon import run_worker

    click.get_current_context().exit(run_worker(decided))
