from __future__ import annotations

import pytest

from modelrepo.copying.selection import Selection, versions_of
from modelrepo.errors import InvalidInput, ModelNotFound
from modelrepo.stores.memory import MemoryStore
from tests.unit.copying.conftest import AddVersion, place_of


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("active", Selection(active=True)),
        ("active, previous,last:5", Selection(active=True, previous=True, last=5)),
        ("last:2,last:7", Selection(last=7)),
    ],
)
def test_a_selection_is_read(text: str, meant: Selection) -> None:
    assert Selection.parse(text) == meant


@pytest.mark.parametrize(
    "text", ["", "v3", "last", "last:", "last:0", "last:-1", "last:x", "active,,previous", "last:²"]
)
def test_what_is_no_selection_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidInput, match="active, previous and last:N"):
        Selection.parse(text)


def test_versions_come_in_the_order_of_their_publication_and_once(source: MemoryStore, add_version: AddVersion) -> None:
    for version in ("v1", "v2", "v3", "v4"):
        add_version(source, version)
    source.create("models/tiny/versions/v2/deleted.json", b"{}")
    place = place_of(source)
    assert versions_of(place, "tiny", None) == ["v1", "v3", "v4"]
    assert versions_of(place, "tiny", Selection(last=2)) == ["v3", "v4"]
    assert versions_of(place, "tiny", Selection(active=True, previous=True)) == []
    for version in ("v3", "v4", "v1"):
        place.promotions.promote("tiny", version)
    assert versions_of(place, "tiny", Selection(active=True, previous=True)) == ["v1", "v4"]
    assert versions_of(place, "tiny", Selection(active=True, last=1)) == ["v1", "v4"]


def test_a_model_that_is_not_there_is_named(source: MemoryStore) -> None:
    with pytest.raises(ModelNotFound, match="'nobody'"):
        versions_of(place_of(source), "nobody", None)
