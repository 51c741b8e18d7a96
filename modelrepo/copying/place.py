"""One of the two repositories of a copy, as far as copying goes."""

from __future__ import annotations

from dataclasses import dataclass

from modelrepo.promotion import Promotions
from modelrepo.stores.port import ObjectStore
from modelrepo.versions.catalogue import Catalogue


@dataclass(frozen=True, slots=True)
class Place:
    """A repository's store, its versions and what is live in it."""

    store: ObjectStore
    catalogue: Catalogue
    promotions: Promotions

    @property
    def url(self) -> str:
        return self.store.url
