"""Tiny distributions, made in a millisecond, and an index that serves them over HTTP."""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


def make_wheel(
    folder: Path,
    name: str,
    version: str = "1.0",
    *,
    tag: str = "py3-none-any",
    files: Mapping[str, str] | None = None,
    requires: Sequence[str] = (),
) -> Path:
    """Write a wheel whose one module tells its version."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
    contents = {
        **(files or {f"{name}.py": f'VERSION = "{version}"\n'}),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    record = "".join(f"{path},sha256={_urlsafe(text)},{len(text)}\n" for path, text in contents.items())
    path = folder / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inner, text in {**contents, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            archive.writestr(zipfile.ZipInfo(inner), text)
    return path


def make_sdist(folder: Path, name: str, version: str = "1.0", *, tree: Path | None = None) -> Path:
    """Write a source distribution of `tree`; without one, of something that nothing here could build."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        if tree is not None:
            archive.add(tree, f"{name}-{version}")
        contents = {"PKG-INFO": f"Metadata-Version: 2.2\nName: {name}\nVersion: {version}\n"}
        if tree is None:
            contents["pyproject.toml"] = (
                '[build-system]\nrequires = ["surely-not-there"]\nbuild-backend = "x"\n'
                f'[project]\nname = "{name}"\nversion = "{version}"\n'
            )
        for inner, text in contents.items():
            entry = tarfile.TarInfo(f"{name}-{version}/{inner}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return path


def make_index(folder: Path, files: Sequence[Path]) -> Path:
    """Lay out files as a simple index (PEP 503) with hashes."""
    projects: dict[str, list[str]] = {}
    for file in files:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        name = file.name.split("-")[0].replace("_", "-")
        (folder / "files").mkdir(parents=True, exist_ok=True)
        (folder / "files" / file.name).write_bytes(file.read_bytes())
        projects.setdefault(name, []).append(f'<a href="../../files/{file.name}#sha256={digest}">{file.name}</a>')
    for name, links in projects.items():
        page = folder / "simple" / name / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text("<!DOCTYPE html><html><body>" + "<br>".join(links) + "</body></html>")
    return folder


@contextmanager
def served(folder: Path, *, password: str | None = None, seen: list[str | None] | None = None) -> Iterator[str]:
    """Serve a folder on a free port of the loopback; yields the address of its simple index.

    With `password`, a `user:password`, nobody else gets anything. `seen` is given every request's credentials.
    """
    handler = partial(_Guarded, password=password, seen=[] if seen is None else seen, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/simple"
        finally:
            server.shutdown()
            thread.join()


class _Guarded(SimpleHTTPRequestHandler):
    def __init__(self, *args: Any, password: str | None, seen: list[str | None], **options: Any) -> None:
        self._password, self._seen = password, seen
        super().__init__(*args, **options)

    def do_GET(self) -> None:
        scheme, _, token = (self.headers["Authorization"] or "").partition(" ")
        given = base64.b64decode(token).decode() if scheme == "Basic" else None
        self._seen.append(given)
        if self._password is not None and given != self._password:
            self.send_error(401)
            return
        super().do_GET()

    def log_message(self, *args: Any) -> None:
        pass


def _urlsafe(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
