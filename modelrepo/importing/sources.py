"""Where a model is imported from: a folder or file of this box, or the Hugging Face Hub at one commit."""

from __future__ import annotations

import importlib
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol

from modelrepo.errors import Forbidden, InvalidInput, MissingExtra, ModelRepoError, NotFound, Unreachable
from modelrepo.versions.paths import path_problem

SCHEME = "hf://"

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


class ImportSource(Protocol):
    """What an import asks of the place that it is from. Paths are relative, with forward slashes."""

    @property
    def said(self) -> str:
        """How people name it."""
        ...

    @property
    def commit(self) -> str | None: ...

    def files(self) -> Sequence[str]: ...

    def read(self, path: str) -> bytes:
        """Return a small file's bytes."""
        ...


@dataclass(frozen=True, slots=True)
class FolderSource:
    """A folder of this box, or one file of it."""

    path: Path

    @property
    def said(self) -> str:
        return str(self.path)

    @property
    def commit(self) -> str | None:
        return None

    def files(self) -> Sequence[str]:
        if self.path.is_file():
            return (self.path.name,)
        found = []
        for folder, folders, names in os.walk(self.path, followlinks=True):
            folders[:] = [name for name in folders if not name.startswith(".")]
            here = Path(folder).relative_to(self.path)
            found += [(here / name).as_posix() for name in names if not name.startswith(".")]
        return tuple(sorted(found))

    def read(self, path: str) -> bytes:
        file = self.path if self.path.is_file() else self.path / path
        try:
            return file.read_bytes()
        except OSError as error:
            raise InvalidInput(f"cannot import {self.path}: {file} cannot be read: {error.strerror}") from error

    def place(self, target: Path, files: Sequence[str], *, copy: bool) -> None:
        """Put it at `target`: a link to where it lies, or a copy of `files`."""
        if not copy:
            target.symlink_to(self.path.resolve())
        elif self.path.is_file():
            shutil.copyfile(self.path, target)
        else:
            for path in files:
                (target / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.path / path, target / path)


class HubSource:
    """A model on the Hugging Face Hub, at the commit that its revision means now.

    Raises:
        InvalidInput: the URL cannot be read. NotFound: there is no such model or revision.
        MissingExtra, Unreachable, Forbidden
    """

    def __init__(self, url: str) -> None:
        self.name, _, revision = url.removeprefix(SCHEME).partition("@")
        if self.name.count("/") != 1 or not all(self.name.split("/")) or ("@" in url and not revision):
            raise InvalidInput(f"cannot import {url!r}: it is not of the form hf://ORG/NAME or hf://ORG/NAME@REVISION")
        try:
            self._hub: Any = importlib.import_module("huggingface_hub")
        except ImportError as error:
            raise MissingExtra(f"import from {url}", "hf") from error
        try:
            info = self._hub.HfApi().model_info(self.name, revision=revision or None)
        except Exception as error:  # noqa: BLE001 - its own classes of errors differ from release to release
            self._refuse(url, error)
        self._commit = str(info.sha)
        self._files = tuple(sorted(str(each.rfilename) for each in info.siblings or ()))
        for path in self._files:
            if (problem := path_problem(path)) is not None:
                raise InvalidInput(f"cannot import {url}: it lists the path {path!r}, which {problem}; tell its owner")

    @property
    def said(self) -> str:
        return f"{SCHEME}{self.name}@{self._commit}"

    @property
    def commit(self) -> str | None:
        return self._commit

    def files(self) -> Sequence[str]:
        return tuple(path for path in self._files if not any(part.startswith(".") for part in path.split("/")))

    def read(self, path: str) -> bytes:
        try:
            return Path(self._hub.hf_hub_download(self.name, path, revision=self._commit)).read_bytes()
        except Exception as error:  # noqa: BLE001 - as above
            self._refuse(self.said, error)

    def download(self, target: Path, files: Sequence[str]) -> None:
        """Fetch `files` into the folder `target`."""
        try:
            self._hub.snapshot_download(
                self.name, revision=self._commit, local_dir=str(target), allow_patterns=list(files)
            )
        except Exception as error:  # noqa: BLE001 - as above
            self._refuse(self.said, error)
        shutil.rmtree(target / ".cache", ignore_errors=True)  # the client's own notes

    def _refuse(self, url: str, error: Exception) -> NoReturn:
        raise _told(url, error) from error


def _told(url: str, error: Exception) -> ModelRepoError:
    names = {each.__name__ for each in type(error).__mro__}
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    what = f"cannot import {url}"
    if "GatedRepoError" in names:
        return Forbidden(f"{what}: its owner grants access one by one; ask for it there, then set HF_TOKEN ({reason})")
    if names & {"RepositoryNotFoundError", "RevisionNotFoundError", "EntryNotFoundError"}:
        return NotFound(f"{what}: there is no such model or revision, or HF_TOKEN may not see it ({reason})")
    return Unreachable(f"{what}: no answer that can be used ({type(error).__name__}: {reason}); run it again")


def open_source(text: str) -> FolderSource | HubSource:
    """Find what `text` means: `hf://ORG/NAME[@REVISION]`, or a path.

    Raises:
        InvalidInput, NotFound, MissingExtra, Unreachable, Forbidden
    """
    if text.startswith(SCHEME):
        return HubSource(text)
    if "://" in text:
        raise InvalidInput(f"cannot import {text!r}: give a folder, or hf://ORG/NAME@REVISION")
    path = Path(text).expanduser()
    if not path.exists():
        hub = f"; a model of that name on the Hub is {SCHEME}{text}@main" if _HUB_NAME.fullmatch(text) else ""
        raise NotFound(f"cannot import {path}: it does not exist{hub}")
    return FolderSource(path.absolute())
