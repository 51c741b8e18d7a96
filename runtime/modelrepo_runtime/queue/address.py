"""The URL of an SQLite queue and the file that it means, by SQLAlchemy's convention."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote, unquote

from modelrepo.errors import InvalidInput

SQLITE = "sqlite://"


def sqlite_url(path: Path) -> str:
    """Return the URL of a queue file: `sqlite:///` and its absolute path, four slashes in all."""
    return f"{SQLITE}/{quote(str(path.absolute()))}"


def sqlite_path(url: str, beside: Path | None = None) -> Path:
    """Return the file of a queue's URL or plain path.

    Three slashes come before a path that is relative to `beside` (the current folder unless given), four begin an
    absolute one; `sqlite:///~/queue.db` is in the user's home.

    Raises:
        InvalidInput: it names no file.
    """
    text = url
    if url.startswith(SQLITE):
        text = unquote(url.removeprefix(SQLITE))
        if text and not text.startswith("/"):
            raise InvalidInput(
                f"cannot open queue {url}: {text.partition('/')[0]!r} stands where a host would; write "
                f"sqlite:///{text} for a path from the current folder, sqlite:////{text} for one from the root"
            )
        text = text[1:]
    elif "://" in url:
        raise InvalidInput(f"cannot open queue {url}: it is no sqlite:///path, file path or memory://name")
    if not text.strip("/"):
        raise InvalidInput(
            f"cannot open queue {url}: it names no file; write sqlite:///queue.db for one in the current folder, "
            "sqlite:////path/to/queue.db for any other"
        )
    if text.startswith("//"):
        text = "/" + text.lstrip("/")  # two leading slashes are a root of their own in POSIX
    return ((beside or Path.cwd()) / Path(text).expanduser()).absolute()
