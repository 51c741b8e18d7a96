"""What this box has for the work with a repository: room for its cache, uv, interpreters, versions."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

from modelrepo.contract.quantities import format_size
from modelrepo.diagnosis.finding import Finding, fail, looked_at, ok, warn
from modelrepo.environments.interpreters import OLDEST, interpreters
from modelrepo.environments.uv_tool import uv_binary

LITTLE_SPACE_BYTES = 20 * 2**30
"""One environment with torch takes 5 GiB and more, and weights come on top."""

LITTLE_INODES = 100_000  # one environment with torch has some 20,000 files
_DISTRIBUTIONS = ("modelrepo-toolkit", "obstore", "botocore", "fsspec", "s3fs", "gcsfs", "adlfs")
_ASK_TIMEOUT_S = 20.0


def diagnose_box(cache: Path, environ: Mapping[str, str] | None = None) -> tuple[Finding, ...]:
    """Look at this box; `cache` is the folder of its cache."""
    environ = os.environ if environ is None else environ
    return (
        *looked_at("cache", lambda: _cache(cache.absolute())),
        *looked_at("uv", _uv),
        *looked_at("interpreters", lambda: _interpreters(environ)),
        *looked_at("versions", _versions),
    )


def _cache(cache: Path) -> Iterator[Finding]:
    there = next(folder for folder in (cache, *cache.parents) if folder.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        advice = "grant it, or name another folder with MODELREPO_CACHE"
        yield fail("cache", f"{cache}: user id {os.geteuid()} may not write to {there}", advice, path=str(cache))
        return
    facts = os.statvfs(there)
    room, inodes = facts.f_bavail * facts.f_frsize, facts.f_favail if facts.f_files else None
    found = f"{cache}: {format_size(room)} free" + ("" if inodes is None else f", {inodes:,} inodes free")
    told = {"path": str(cache), "free_bytes": room, "free_inodes": inodes}
    if room < LITTLE_SPACE_BYTES or (inodes is not None and inodes < LITTLE_INODES):
        yield warn("cache", found, "make room, or name a folder on a larger disk with MODELREPO_CACHE", **told)
    else:
        yield ok("cache", found, **told)


def _uv() -> Finding:
    try:
        done = subprocess.run([uv_binary(), "--version"], capture_output=True, timeout=_ASK_TIMEOUT_S, check=True)
    except (OSError, ImportError, subprocess.SubprocessError) as error:
        return fail("uv", f"does not run: {error}", "install modelrepo-toolkit again: uv comes with it")
    return ok("uv", done.stdout.decode(errors="replace").strip(), path=uv_binary())


def _interpreters(environ: Mapping[str, str]) -> Finding:
    found = [one for one in interpreters(environ) if tuple(map(int, one.version.split(".")[:2])) >= OLDEST]
    facts = {"interpreters": [{"version": one.version, "path": str(one.path)} for one in found]}
    if not found:
        return fail("interpreters", "none that models run on", "install a CPython, so that it is on PATH", **facts)
    return ok("interpreters", ", ".join(f"{one.version} ({one.path})" for one in found), **facts)


def _versions() -> Finding:
    versions = {"python": platform.python_version()}
    for name in _DISTRIBUTIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    system = f"{platform.system()} {platform.machine()}"
    found = ", ".join(f"{name} {version}" for name, version in versions.items())
    return ok("versions", f"{found}, {system}", versions=versions, system=system, executable=sys.executable)
