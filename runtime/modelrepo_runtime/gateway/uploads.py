"""Whose an upload is: its id carries a mark, of the tenant that it was made for, which gateways alone can make."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field

from modelrepo_runtime.jobs import new_id

_MARK_LETTERS = 24  # 96 bits: nobody finds one by trying


@dataclass(frozen=True)
class Uploads:
    """Names uploads, with the secret that all gateways before one store share; nothing is written down."""

    secret: bytes = field(repr=False)

    def name(self, tenant: str | None) -> str:
        """Return the id of a fresh upload; None: of a token for any tenant."""
        kind, _, number = new_id("file").partition("_")
        return f"{kind}_{self._mark(number, tenant)}_{number}"

    def is_open_to(self, tenant: str | None, file_id: str) -> bool:
        """Say whether a tenant's jobs may name an upload; a token for any tenant may name all."""
        if tenant is None:
            return True
        _, _, rest = file_id.partition("_")
        mark, _, number = rest.partition("_")
        return hmac.compare_digest(mark.encode("utf-8", "replace"), self._mark(number, tenant).encode())

    def _mark(self, number: str, tenant: str | None) -> str:
        told = f"upload\n{number}\n{tenant or ''}".encode("utf-8", "surrogatepass")
        return hmac.new(self.secret, told, hashlib.sha256).hexdigest()[:_MARK_LETTERS]
