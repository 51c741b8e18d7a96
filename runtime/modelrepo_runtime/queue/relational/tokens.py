"""Tokens in the queue's database."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from modelrepo_runtime.queue.relational.transaction import Database, Row, Snapshot, Transaction
from modelrepo_runtime.queue.tiers import unknown
from modelrepo_runtime.queue.tokens import Grant, Role, Token, issue, name_taken, no_such


@dataclass(frozen=True, slots=True)
class RelationalTokens:
    """See TokenStore."""

    database: Database

    def create(self, name: str, grant: Grant, *, life_s: float | None = None) -> tuple[Token, str]:
        """See TokenStore."""

        def work(tx: Transaction) -> tuple[Token, str]:
            token, text = issue(name, grant, tx.now, life_s)
            tiers = [row["name"] for row in tx.rows("tiers")]
            for tier in grant.tiers:
                if tier not in tiers:
                    raise unknown(tier, tiers)
            if _live(tx, name) is not None:
                raise name_taken(name)
            rights = json.dumps({**asdict(grant), "role": grant.role.value})
            tx.run("token_insert", token.id, name, token.digest, rights, tx.now, token.expires_at)
            return token, text

        return self.database.write(work)

    def find(self, token_id: str) -> Token | None:
        """See TokenStore."""

        def work(tx: Snapshot) -> Token | None:
            row = tx.row("token_get", token_id)
            token = _token(row) if row is not None else None
            return token if token is not None and token.live(tx.now) else None

        return self.database.read(work)

    def live(self, token_ids: Sequence[str]) -> Mapping[str, Token]:
        """See TokenStore."""

        def work(tx: Snapshot) -> Mapping[str, Token]:
            rows = tx.select("token_view", f"where {tx.statements.among('id')}", tx.array(list(token_ids)))
            found = (_token(row) for row in rows)
            return {token.id: token for token in found if token.live(tx.now)}

        return self.database.read(work)

    def all(self) -> tuple[Token, ...]:
        """See TokenStore."""
        return self.database.read(lambda tx: tuple(_token(row) for row in tx.rows("tokens")))

    def revoke(self, name: str) -> Token:
        """See TokenStore."""

        def work(tx: Transaction) -> Token:
            token = _live(tx, name)
            if token is None:
                raise no_such(name)
            tx.run("token_revoke", tx.now, token.id)
            return _token(tx.only("token_get", token.id))

        return self.database.write(work)

    def waiting(self, tenant: str, most: int) -> int:
        """See TokenStore."""
        return int(self.database.read(lambda tx: tx.only("waiting_of_tenant", tenant, most)[0]))


def _live(tx: Snapshot, name: str) -> Token | None:
    found = (_token(row) for row in tx.rows("tokens_named", name))
    return next((token for token in found if token.live(tx.now)), None)


def _token(row: Row) -> Token:
    told = json.loads(row["rights"])
    grant = Grant(
        role=Role(told["role"]),
        tenant=told.get("tenant"),
        tiers=tuple(told.get("tiers", ())),
        models=tuple(told.get("models", ())),
        cluster=told.get("cluster"),
        max_queued=told.get("max_queued"),
    )
    return Token(row["id"], row["name"], row["digest"], grant, row["created"], row["expires"], row["revoked"])
