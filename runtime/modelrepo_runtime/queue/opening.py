"""From a URL to a queue."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from platformdirs import user_state_path

from modelrepo.errors import InvalidInput
from modelrepo.settings import find_settings
from modelrepo_runtime.queue.memory import memory_queue
from modelrepo_runtime.queue.port import JobQueue
from modelrepo_runtime.timing import Timing


def open_queue(url: str, timing: Timing | None = None) -> JobQueue:
    """Open `sqlite:///path`, a plain path, or `memory://name`, which all of one process share.

    Raises: InvalidInput, NewerFormat, Unreachable.
    """
    scheme = urlsplit(url).scheme if "://" in url else ""
    if scheme == "memory":
        return memory_queue(url, timing)
    if scheme in ("", "sqlite"):
        from modelrepo_runtime.queue.sqlite.queue import SqliteQueue

        return SqliteQueue(queue_path(url), timing)
    raise InvalidInput(f"cannot open queue {url}: it is no sqlite:///path, file path or memory://name")


def queue_path(url: str) -> Path:
    """Return the file of an SQLite queue's URL: `sqlite:///abs/path`, `sqlite:///~/path` or a plain path."""
    text = unquote(url.removeprefix("sqlite://")) if url.startswith("sqlite://") else url
    if url.startswith("sqlite://"):
        text = "/" + text.lstrip("/")  # four slashes, as others write an absolute path, mean the same as three
        text = text[1:] if text.startswith("/~") else text
    if not text.strip("/"):
        raise InvalidInput(f"cannot open queue {url}: it names no file; write sqlite:///path/to/queue.db")
    return Path(text).expanduser().absolute()


def default_queue_url(flag: str | None = None, start: Path | None = None) -> str:
    """Return the queue in use: flag, MODELREPO_QUEUE, `queue` in modelrepo.toml, or the user's own."""
    chosen = flag or os.environ.get("MODELREPO_QUEUE")
    if chosen:
        return chosen
    settings = find_settings(start or Path.cwd())
    if settings.queue and settings.path is not None:
        beside = "://" not in settings.queue and not settings.queue.startswith("~")
        return str(settings.path.parent / settings.queue) if beside else settings.queue
    return f"sqlite://{user_state_path('modelrepo') / 'queue.db'}"


def default_files_url(queue_url: str, flag: str | None = None, start: Path | None = None) -> str:
    """Return where job files are kept: flag, MODELREPO_FILES, `files` in modelrepo.toml, or beside the queue."""
    chosen = flag or os.environ.get("MODELREPO_FILES") or find_settings(start or Path.cwd()).files
    if chosen:
        return chosen
    if queue_url.startswith("memory://"):
        return queue_url
    return (queue_path(queue_url).parent / "files").as_uri()
