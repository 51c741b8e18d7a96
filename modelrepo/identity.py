"""Who is doing this, for the records that people read."""

from __future__ import annotations

import getpass
import socket


def whoami() -> str:
    """Return `user@host`; nothing depends on it."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
