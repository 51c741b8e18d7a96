"""Runs uv with an environment of our own making: nothing that a shell exports can point it elsewhere."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Literal

from modelrepo.environments.index_settings import IndexSettings
from modelrepo.environments.processes import Finished, run_process
from modelrepo.errors import EnvironmentFailed, NoSpace, Unreachable

# Inherited UV_*, PIP_*, VIRTUAL_ENV and PYTHON* never reach uv: UV_PYTHON alone once emptied a base interpreter.
INHERITED = (
    *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "NETRC", "SSH_AUTH_SOCK"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "XDG_CONFIG_HOME", "XDG_CONFIG_DIRS"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
)
# The first day that a zip file can hold, so that the same source makes the same wheel.
_SOURCE_DATE_EPOCH = "315532800"
_DRAWN = re.compile(r"^[^\w\[`'\"(/.-]+")  # the tree that uv draws around causes
LinkMode = Literal["hardlink", "copy"]
"""How an environment gets its files from uv's cache. Links share their bytes with it and with other environments."""

_UNREACHABLE = re.compile(
    r"(?i)error sending request|failed to fetch|dns error|connection refused|timed out|tcp connect"
)
_FULL = re.compile(r"(?i)no space left on device|os error 28|disk quota exceeded")


@dataclass(frozen=True, slots=True)
class Uv:
    """uv with this box's index settings and one cache. `cache=None` is the user's own."""

    index: IndexSettings = field(default_factory=IndexSettings)
    cache: Path | None = None
    link_mode: LinkMode | None = None

    def environment(self, *, offline: bool = False) -> dict[str, str]:
        """Return the whole environment that uv gets."""
        env = {name: os.environ[name] for name in INHERITED if name in os.environ}
        env |= {"UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1", "NO_COLOR": "1"}
        env |= {"SOURCE_DATE_EPOCH": _SOURCE_DATE_EPOCH}
        if self.cache is not None:
            env["UV_CACHE_DIR"] = str(self.cache)
        elif "UV_CACHE_DIR" in os.environ:
            env["UV_CACHE_DIR"] = os.environ["UV_CACHE_DIR"]
        if self.link_mode is not None:
            env["UV_LINK_MODE"] = self.link_mode
        return env | ({"UV_OFFLINE": "1"} if offline else {}) | self.index.variables()

    def run(
        self,
        arguments: Sequence[str | Path],
        *,
        cwd: Path,
        offline: bool = False,
        stop: Callable[[], bool] | None = None,
    ) -> Finished:
        """Run uv to its end, whatever its exit status.

        Raises: Stopped once `stop()` says so, NoSpace, EnvironmentFailed where uv cannot be started.
        """
        command = [uv_binary(), *map(str, arguments)]
        env = self.environment(offline=offline)
        done = run_process(command, cwd=cwd, env=env, stop=stop)
        done = replace(done, stderr=self._without_secrets(done.stderr))
        if done.returncode != 0 and _FULL.search(done.stderr):
            raise NoSpace(f"uv: {_last_line(done.stderr)}")
        return done

    def _without_secrets(self, text: str) -> str:
        """Leave out what a build may print of the environment that it is given: messages and logs travel far."""
        for secret in self.index.secrets():
            text = text.replace(secret, "****")
        return text


@cache
def uv_binary() -> str:
    """Return the full path of the uv that came with us."""
    import uv

    return uv.find_uv_bin()


def failed(what: str, done: Finished) -> EnvironmentFailed | Unreachable:
    """Return the error for a uv that did not succeed, with what it said last."""
    if _UNREACHABLE.search(done.stderr):
        return Unreachable(f"{what}: the package index did not answer: {_told(done.stderr)}")
    return EnvironmentFailed(f"{what}: {_told(done.stderr)}", log=done.log)


def _told(stderr: str) -> str:
    """Put uv's error and its causes on one line."""
    lines = [_DRAWN.sub("", line) for line in stderr.splitlines()]
    start = next((index for index, line in enumerate(lines) if line.startswith("error:")), None)
    if start is None:
        return _last_line(stderr)
    kept = [line.removeprefix("error:").removeprefix("cause:").strip() for line in lines[start:]]
    return " ".join(line for line in kept if line and not line.startswith("hint:"))[:600]


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
