"""What this box's indexes and folders of wheels hold of a project: PEP 503, PEP 691, and plain folders and pages."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

from packaging.utils import InvalidSdistFilename, InvalidWheelFilename, canonicalize_name, parse_sdist_filename

from modelrepo.environments.carried import parse_wheel
from modelrepo.environments.index_settings import IndexSettings, local_path
from modelrepo.environments.record import Requirement
from modelrepo.environments.web import Page, Web, without_password
from modelrepo.errors import EnvironmentFailed

_ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
_SHA256 = re.compile(r"sha256=([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class IndexFile:
    """A file that an index lists. `sha256` is what the index says it is, None where it says nothing."""

    filename: str
    url: str
    sha256: str | None = None

    @property
    def is_wheel(self) -> bool:
        return self.filename.endswith(".whl")


class SimpleIndex:
    """All that one box's settings name, asked in their order."""

    def __init__(self, settings: IndexSettings, web: Web) -> None:
        self._settings, self._web = settings, web

    def files(self, requirement: Requirement) -> tuple[IndexFile, ...]:
        """Return the wheels and source distributions of exactly one version. Raises: Unreachable, Forbidden."""
        found: dict[tuple[str, str], IndexFile] = {}
        for listed in self._listed(canonicalize_name(requirement.name)):
            if _is_of(listed.filename, requirement):
                found.setdefault((listed.filename, listed.url), listed)
        return tuple(found.values())

    def asked(self) -> str:
        """Name the places, for messages."""
        places = [*self._settings.find_links, *(index.url for index in self._settings.addresses())]
        return ", ".join(map(without_password, places)) or "no index at all"

    def _listed(self, project: str) -> Iterator[IndexFile]:
        for place in self._settings.find_links:
            yield from self._of_place(place)
        for index in self._settings.addresses():
            yield from self._of_index(index.url.rstrip("/"), project)

    def _of_place(self, place: str) -> Iterator[IndexFile]:
        path = local_path(place)
        if path is None:
            page = self._web.page(place, "text/html")
            yield from () if page is None else _links(page)
        elif path.is_dir():
            yield from (IndexFile(file.name, file.absolute().as_uri()) for file in sorted(path.iterdir()))
        elif path.is_file():
            yield from _links(_local_page(path))

    def _of_index(self, address: str, project: str) -> Iterator[IndexFile]:
        path = local_path(address)
        if path is None:
            page = self._web.page(f"{address}/{project}/", _ACCEPT)
            yield from () if page is None else _links(page)
            return
        for name in ("index.html", "index.json"):
            if (path / project / name).is_file():
                yield from _links(_local_page(path / project / name))
                return


def _local_page(path: Path) -> Page:
    kind = "application/json" if path.suffix == ".json" else "text/html"
    return Page(path.absolute().as_uri(), kind, path.read_text("utf-8", "replace"))


def _links(page: Page) -> list[IndexFile]:
    """Return what a page lists. Raises: EnvironmentFailed where it is no page of an index."""
    if not page.content_type.endswith("json"):
        return list(_anchors(page))
    try:
        return [_listed_file(page, file) for file in json.loads(page.text)["files"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise EnvironmentFailed(f"{without_password(page.url)} is no page of a package index: {error!r}") from None


def _listed_file(page: Page, file: Any) -> IndexFile:
    digest = (file.get("hashes") or {}).get("sha256")
    if not isinstance(file["filename"], str) or not isinstance(digest, str | None):
        raise TypeError("a file's name or digest is no text")
    return IndexFile(file["filename"], urljoin(page.url, file["url"]), digest)


def _anchors(page: Page) -> Iterator[IndexFile]:
    parser = _Anchors(page.url)
    parser.feed(page.text)
    for link in parser.found:
        url, fragment = urldefrag(link)
        digest = _SHA256.search(fragment)
        yield IndexFile(unquote(urlsplit(url).path.rpartition("/")[2]), url, digest[1] if digest else None)


class _Anchors(HTMLParser):
    """Collects where a page's anchors lead."""

    def __init__(self, base: str) -> None:
        super().__init__()
        self._base = base
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        target = dict(attrs).get("href")
        if not target or tag not in ("a", "base"):
            return
        try:
            link = urljoin(self._base, target)
        except ValueError:
            return  # it leads nowhere
        if tag == "base":
            self._base = link
        else:
            self.found.append(link)


def _is_of(filename: str, requirement: Requirement) -> bool:
    if "/" in filename or "\\" in filename or not filename.isprintable():
        return False
    try:
        if filename.endswith(".whl"):
            wheel = parse_wheel(filename)
            return (wheel.name, wheel.version) == (requirement.name, requirement.version)
        name, version = parse_sdist_filename(filename)
    except (EnvironmentFailed, InvalidSdistFilename, InvalidWheelFilename):
        return False
    return (name, str(version)) == (requirement.name, requirement.version)
