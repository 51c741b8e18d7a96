"""Connections: how long each may wait for what."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from modelrepo.errors import InvalidInput

CONNECT_TIMEOUT_S = 5
SILENT_PEER_MS = 5000
"""What was sent and is not acknowledged for so long ends the connection: a peer that is gone says nothing."""
TIMEOUTS = {
    "lock_timeout": "1s",
    "statement_timeout": "5s",
    "idle_in_transaction_session_timeout": "1s",
}
"""A claimer that is stopped in the middle of a transaction lets go of its shard after a second."""
PLANNING = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
}
"""Every statement seeks in an index; which rows a table has today must not choose another plan."""


def connect(url: str, settings: dict[str, str]) -> psycopg.Connection[Any]:
    """Return a connection that starts and ends its transactions by hand, and prepares what it is told to.

    Raises: psycopg.Error.
    """
    options = " ".join(f"-c {name}={value}" for name, value in settings.items())
    given = conninfo_to_dict(url).get("options")
    return psycopg.connect(
        url,
        autocommit=True,
        prepare_threshold=None,
        cursor_factory=psycopg.RawCursor,
        connect_timeout=CONNECT_TIMEOUT_S,
        tcp_user_timeout=SILENT_PEER_MS,
        keepalives_idle=5,
        keepalives_interval=2,
        keepalives_count=2,
        application_name="modelrepo",
        options=f"{given} {options}" if given else options,
    )


def shown(url: str) -> str:
    """Return a URL without its password. Raises: InvalidInput where it is none."""
    try:
        facts = conninfo_to_dict(url)
    except psycopg.Error as error:
        raise InvalidInput(f"cannot open queue: {str(error).strip()}; write postgresql://user@host/database") from None
    known = {name: str(value) for name, value in facts.items() if name != "password" and value is not None}
    user = f"{known['user']}@" if "user" in known else ""
    port = f":{known['port']}" if "port" in known else ""
    host = known.get("host", "")
    if host.startswith("/"):
        return f"postgresql://{user}/{known.get('dbname', '')}?host={host}{port.replace(':', '&port=')}"
    return f"postgresql://{user}{host}{port}/{known.get('dbname', '')}"
