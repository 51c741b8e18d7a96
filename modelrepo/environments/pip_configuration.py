"""pip's own settings, which uv does not read: configuration files, then PIP_* over them."""

from __future__ import annotations

import configparser
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

SYSTEM_FILE = Path("/etc/pip.conf")
_SECTIONS = ("global", "install")  # the later wins, as in `pip install`


def pip_setting(environ: Mapping[str, str], name: str) -> str | None:
    """Return one setting, as `index-url`, in pip's order: environment, [install], [global]."""
    variable = environ.get("PIP_" + name.upper().replace("-", "_"))
    if variable:
        return variable
    found: dict[str, str] = {}
    for path in configuration_files(environ):
        parser = configparser.RawConfigParser(strict=False)
        try:
            parser.read_string(path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError, configparser.Error):
            continue
        for section in _SECTIONS:
            for spelling in (name, name.replace("-", "_")):
                if parser.has_option(section, spelling):
                    found[section] = parser.get(section, spelling)
    return found.get("install", found.get("global"))


def configuration_files(environ: Mapping[str, str]) -> Iterator[Path]:
    """Yield the files that pip reads, the weakest first."""
    named = environ.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return
    home = Path(environ.get("HOME") or Path.home())
    if sys.platform == "darwin":
        yield Path("/Library/Application Support/pip/pip.conf")
    else:
        for folder in (environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep):
            yield Path(folder) / "pip" / "pip.conf"
        yield SYSTEM_FILE
    yield home / ".pip" / "pip.conf"
    if sys.platform == "darwin":
        yield home / "Library" / "Application Support" / "pip" / "pip.conf"
    yield Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "pip" / "pip.conf"
    yield Path(environ.get("VIRTUAL_ENV") or sys.prefix) / "pip.conf"
    if named:
        yield Path(named)
