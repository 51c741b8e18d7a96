"""A store that stands before another one."""

from __future__ import annotations

from modelrepo.stores.port import ObjectStore, StoreAbility, StoreIdentity


class PassingOn:
    """Goes by the name of `inner`; the seven verbs are for those who inherit."""

    inner: ObjectStore

    @property
    def url(self) -> str:
        return self.inner.url

    @property
    def ability(self) -> StoreAbility:
        return self.inner.ability

    @property
    def identity(self) -> StoreIdentity:
        return self.inner.identity
