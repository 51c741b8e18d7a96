"""Whether a box has what `host:` asks for; asked before anything is downloaded."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import Protocol

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from modelrepo.contract.conditions import AcceleratorFacts
from modelrepo.contract.quantities import format_size
from modelrepo.contract.spec import HostNeeds
from modelrepo.errors import HostNeedUnmet

COMPILERS = ("cc", "gcc", "clang")
_ASK_TIMEOUT_S = 10.0


class HostFacts(Protocol):
    """What a box has. Each answer is looked up when it is asked for."""

    def command_version(self, command: str) -> str | None:
        """Return its version, "" where it tells none, None where there is no such command."""

    def has_library(self, name: str) -> bool: ...

    def has_compiler(self) -> bool: ...

    def gpu_memory_bytes(self) -> int | None:
        """Return the memory of one device; 0 on a box without, None where nothing is to be run on a GPU."""


@dataclass(frozen=True, slots=True)
class KnownHost:
    """Facts given by hand: for tests, and for a box that is asked about from afar."""

    commands: dict[str, str]
    libraries: frozenset[str] = frozenset()
    compiler: bool = False
    gpu_memory: int | None = None

    def command_version(self, command: str) -> str | None:
        return self.commands.get(command)

    def has_library(self, name: str) -> bool:
        return name in self.libraries

    def has_compiler(self) -> bool:
        return self.compiler

    def gpu_memory_bytes(self) -> int | None:
        return self.gpu_memory


@dataclass(frozen=True, slots=True)
class ThisHost:
    """The box that this process runs on."""

    accelerator: AcceleratorFacts | None = None

    def command_version(self, command: str) -> str | None:
        path = shutil.which(command)
        if path is None:
            return None
        for flag in ("-version", "--version"):
            try:
                asked = subprocess.run(
                    [path, flag], stdin=subprocess.DEVNULL, capture_output=True, timeout=_ASK_TIMEOUT_S, check=False
                )
            except (OSError, subprocess.TimeoutExpired):
                continue
            told = asked.stdout or asked.stderr
            match = re.search(rb"(?<![\w.])[nv]?(\d+(?:\.\d+)+)", told) or re.search(rb"(?<![\w.])v?(\d+)", told)
            if asked.returncode == 0 and match:
                return match[1].decode()
        return ""

    def has_library(self, name: str) -> bool:
        # In a process of its own: loading runs the library's code, and it stays loaded.
        command = [sys.executable, "-I", "-S", "-c", "import ctypes, sys; ctypes.CDLL(sys.argv[1])", name]
        try:
            return subprocess.run(command, capture_output=True, timeout=_ASK_TIMEOUT_S, check=False).returncode == 0
        except (OSError, subprocess.TimeoutExpired):
            return False

    def has_compiler(self) -> bool:
        return any(shutil.which(command) for command in COMPILERS)

    def gpu_memory_bytes(self) -> int | None:
        if self.accelerator is None:
            return None
        return 0 if self.accelerator.kind == "cpu" else self.accelerator.memory_bytes


def gather_host_facts(accelerator: AcceleratorFacts | None = None) -> HostFacts:
    """Return the facts of this box; `accelerator` is what a slot offers, None for one that serves cpu stages only."""
    return ThisHost(accelerator)


def parse_versions(versions: str) -> SpecifierSet:
    """Read `>=6` of `host.commands`. Raises: ValueError."""
    try:
        return SpecifierSet("" if versions.strip() == "*" else versions)
    except InvalidSpecifier:
        raise ValueError(f"{versions!r} is no version comparison; write it like '>=6', or '*' for any") from None


def check_host(needs: HostNeeds, facts: HostFacts) -> None:
    """Raises: HostNeedUnmet, naming every need that this box does not meet."""
    unmet = [*_commands(needs, facts), *_libraries(needs, facts)]
    if needs.compiler and not facts.has_compiler():
        unmet.append(f"a C compiler ({', '.join(COMPILERS)}: none found)")
    memory = facts.gpu_memory_bytes()
    if needs.gpu_memory_bytes is not None and memory is not None and memory < needs.gpu_memory_bytes:
        found = f"has {format_size(memory)}" if memory else "has no GPU"
        unmet.append(f"a GPU with {format_size(needs.gpu_memory_bytes)} (this box {found})")
    if unmet:
        raise HostNeedUnmet(
            f"this box lacks what host: in model.yaml asks for: {'; '.join(unmet)}; install it or use another box"
        )


def _commands(needs: HostNeeds, facts: HostFacts) -> list[str]:
    unmet = []
    for command, versions in needs.commands.items():
        found = facts.command_version(command)
        wanted = parse_versions(versions)
        if found is None:
            unmet.append(f"the command {command} {wanted}".rstrip() + " (not on PATH)")
        elif len(wanted) and not (found and wanted.contains(found, prereleases=True)):
            unmet.append(f"the command {command} {wanted} (found {found or 'one that tells no version'})")
    return unmet


def _libraries(needs: HostNeeds, facts: HostFacts) -> list[str]:
    return [f"the library {name} (not found)" for name in needs.libraries if not facts.has_library(name)]
