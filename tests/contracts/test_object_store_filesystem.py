"""The filesystem store keeps the contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelrepo.stores.filesystem import FilesystemStore
from modelrepo.testing.store_contract import ObjectStoreContract


class TestFilesystemStore(ObjectStoreContract):
    @pytest.fixture(autouse=True)
    def _root(self, tmp_path: Path) -> None:
        self.root = tmp_path / "not made yet"

    def open_client(self) -> FilesystemStore:
        return FilesystemStore(self.root)

    def raw_write(self, key: str, data: bytes) -> None:
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def raw_keys(self) -> set[str]:
        return {str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file()}
