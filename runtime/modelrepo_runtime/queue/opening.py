"""From a URL to a queue."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from platformdirs import user_state_path

from modelrepo.errors import InvalidInput
from modelrepo.settings import find_settings
from modelrepo_runtime.queue.address import SQLITE, sqlite_path, sqlite_url
from modelrepo_runtime.queue.memory import memory_queue
from modelrepo_runtime.queue.port import JobQueue
from modelrepo_runtime.timing import Timing

POSTGRES = ("postgresql://", "postgres://")


def open_queue(url: str, timing: Timing | None = None, *, token: str | None = None) -> JobQueue:
    """Open `https://GATEWAY`, `postgresql://..`, `sqlite:///path`, a plain path, or `memory://name`.

    A gateway is shown `token`, else that of MODELREPO_TOKEN. All of one process share a `memory://name`. `sqlite:///queue.db`
    lies in the current folder, `sqlite:////var/lib/queue.db` where it says.

    Raises: InvalidInput, NewerFormat, Unreachable.
    """
    scheme = urlsplit(url).scheme if "://" in url else ""
    if scheme == "memory":
        return memory_queue(url, timing)
    if scheme in ("postgresql", "postgres"):
        from modelrepo_runtime.queue.postgres.queue import PostgresQueue

        return PostgresQueue(url, timing)
    if scheme in ("", "sqlite"):
        from modelrepo_runtime.queue.sqlite.queue import SqliteQueue

        return SqliteQueue(sqlite_path(url), timing)
    if is_gateway(url):
        from modelrepo_runtime.queue.http.queue import HttpQueue
        from modelrepo_runtime.remote.talk import Talk, find_token

        return HttpQueue(Talk(url, token or find_token())).as_queue
    raise InvalidInput(f"cannot open queue {url}: it is no postgresql://.., sqlite:///path, file path or memory://name")


def is_gateway(url: str) -> bool:
    """Tell whether a queue's URL is that of a gateway."""
    return url.startswith(("https://", "http://"))


def default_queue_url(flag: str | None = None, start: Path | None = None) -> str:
    """Return the queue in use: flag, MODELREPO_QUEUE, `queue` in modelrepo.toml, or the user's own.

    A relative path, with three slashes or with no scheme, starts in the folder of `modelrepo.toml` where it stands
    there, else in the current one.
    """
    chosen = flag or os.environ.get("MODELREPO_QUEUE")
    if chosen:
        return chosen
    settings = find_settings(start or Path.cwd())
    if settings.queue and settings.path is not None:
        is_file = "://" not in settings.queue or settings.queue.startswith(SQLITE)
        return sqlite_url(sqlite_path(settings.queue, settings.path.parent)) if is_file else settings.queue
    return sqlite_url(user_state_path("modelrepo") / "queue.db")


def default_files_url(queue_url: str, flag: str | None = None, start: Path | None = None) -> str:
    """Return where job files are kept: flag, MODELREPO_FILES, `files` in modelrepo.toml, or beside the queue.

    Raises: InvalidInput where none is named and the queue is no file.
    """
    chosen = flag or os.environ.get("MODELREPO_FILES") or find_settings(start or Path.cwd()).files
    if chosen:
        return chosen
    if queue_url.startswith("memory://") or is_gateway(queue_url):
        return queue_url
    if queue_url.startswith(POSTGRES):
        raise InvalidInput(
            "the queue is on PostgreSQL, and no place is named for the files of jobs; name one that all boxes reach,"
            " such as a bucket, with --files, MODELREPO_FILES or `files` in modelrepo.toml"
        )
    return (sqlite_path(queue_url).parent / "files").as_uri()
