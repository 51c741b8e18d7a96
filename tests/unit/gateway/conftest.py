"""A repository for the whole folder, a gateway for each test, or one for all that change nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from modelrepo.repository import Repository

from . import gateways


@pytest.fixture(scope="session")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return gateways.repository(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def quiet(repo: Repository, tmp_path_factory: pytest.TempPathFactory) -> Iterator[gateways.Bench]:
    """A gateway for tests that leave it as it was."""
    with gateways.bench(repo, tmp_path_factory.mktemp("quiet")) as made:
        yield made


@pytest.fixture
def bench(repo: Repository, tmp_path: Path) -> Iterator[gateways.Bench]:
    with gateways.bench(repo, tmp_path) as made:
        yield made
