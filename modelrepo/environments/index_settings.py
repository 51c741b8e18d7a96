"""Where this box gets packages from."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from modelrepo.environments.default_index import uvs_own_index
from modelrepo.environments.pip_configuration import pip_setting

# What uv reads for a named index, and who holds the passwords of all of them.
_CREDENTIALS = re.compile(r"UV_INDEX_\w+_(USERNAME|PASSWORD)|UV_KEYRING_PROVIDER")
_PASSWORD = re.compile(r"://(?:[^/@:]*:)?([^/@]+)@")  # or a token that stands alone
_TRUE = ("1", "true", "yes", "on")


@dataclass(frozen=True, slots=True)
class NamedIndex:
    """An index's address, and the name that uv knows its password by."""

    name: str | None
    url: str

    @classmethod
    def parse(cls, text: str) -> NamedIndex:
        """Read `URL` or `NAME=URL`."""
        name, equals, url = text.partition("=")
        return cls(name, url) if equals and "/" not in name else cls(None, text)


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """Index addresses, folders of wheels and certificates to trust, as this box has them; never written anywhere."""

    default_index: str | None = None
    indexes: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    cert: str | None = None
    no_index: bool = False
    credentials: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @classmethod
    def from_environment(
        cls,
        environ: Mapping[str, str] | None = None,
        *,
        default_index: str | None = None,
        indexes: Sequence[str] = (),
        find_links: Sequence[str] = (),
        cert: str | None = None,
    ) -> IndexSettings:
        """Take the flags given, else the user's UV_*, else pip's configuration.

        Indexes go together: one given by a stronger source is never mixed with those of a weaker one.
        """
        env = os.environ if environ is None else environ
        default, more, none = default_index, tuple(indexes), False
        if not (default or more):
            default = env.get("UV_DEFAULT_INDEX") or env.get("UV_INDEX_URL") or None
            more = (*_words(env.get("UV_INDEX")), *_words(env.get("UV_EXTRA_INDEX_URL")))
        if not (default or more):
            default = pip_setting(env, "index-url")
            more = _words(pip_setting(env, "extra-index-url"))
            none = (pip_setting(env, "no-index") or "").lower() in _TRUE
        folders = tuple(find_links)
        if not folders:
            folders = tuple(part for part in env.get("UV_FIND_LINKS", "").split(",") if part)
        if not folders:
            folders = _words(pip_setting(env, "find-links"))
        bundle = cert or env.get("SSL_CERT_FILE") or pip_setting(env, "cert")
        return cls(
            default_index=default,
            indexes=tuple(index for index in more if _exists(index)),
            find_links=tuple(_absolute(folder) for folder in folders if _exists(folder)),
            cert=bundle or None,
            no_index=none,
            credentials=tuple(sorted((name, value) for name, value in env.items() if _CREDENTIALS.fullmatch(name))),
        )

    def addresses(self) -> tuple[NamedIndex, ...]:
        """Return the indexes that are asked, the first first; uv's own where nobody names another."""
        if self.no_index:
            return ()
        named = [*self.indexes, self.default_index or uvs_own_index()]
        return tuple(NamedIndex.parse(address) for address in named)

    def arguments(self) -> tuple[str, ...]:
        """Return what uv has no environment variable for; taken by its lock, build and pip commands."""
        return ("--no-index",) if self.no_index else ()

    def variables(self) -> dict[str, str]:
        """Return the settings as uv's environment variables."""
        found = {
            "UV_DEFAULT_INDEX": self.default_index,
            "UV_INDEX": " ".join(self.indexes),
            "UV_FIND_LINKS": ",".join(self.find_links),
            "SSL_CERT_FILE": self.cert,
        }
        return {name: value for name, value in found.items() if value} | dict(self.credentials)

    def secrets(self) -> tuple[str, ...]:
        """Return the passwords among the settings, as they are written; the longest first."""
        found = {value for name, value in self.credentials if name.endswith("_PASSWORD") and value}
        for address in filter(None, (self.default_index, *self.indexes, *self.find_links)):
            found |= {form for secret in _PASSWORD.findall(address) for form in (secret, unquote(secret))}
        return tuple(sorted(found, key=lambda secret: (-len(secret), secret)))


def local_path(address: str) -> Path | None:
    """Return the path of a file URL or plain path, None for what is fetched over a network."""
    parts = urlsplit(address)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return None if "://" in address else Path(address).expanduser()


def _words(text: str | None) -> tuple[str, ...]:
    return tuple((text or "").split())


def _absolute(address: str) -> str:
    # uv runs in other folders than the one that a relative path was written for.
    return address if "://" in address else str(Path(address).expanduser().absolute())


def _exists(address: str) -> bool:
    # pip passes over a folder that is gone; uv would end with an error.
    path = local_path(NamedIndex.parse(address).url)
    return path is None or path.exists()
