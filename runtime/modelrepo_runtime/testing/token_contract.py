"""What every TokenStore must do: tokens are made once, kept hashed, found while they live."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from modelrepo.errors import Conflict, InvalidInput, NotFound
from modelrepo_runtime.queue.tokens import Grant, Role, TokenStore, opens, read_token
from modelrepo_runtime.testing.clock import FakeClock

GRANT = Grant(Role.SUBMIT, "acme", ("free", "light"), ("toy",), None, 200)


class TokenContract:
    """Subclass it and give it a fixture `tokens`: a store on this clock."""

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    def tokens(self, clock: FakeClock) -> Iterator[TokenStore]:
        raise NotImplementedError("an adapter's test gives this fixture")

    def test_a_token_is_found_by_its_id_and_opened_by_its_secret_alone(self, tokens: TokenStore) -> None:
        made, text = tokens.create("shop", GRANT)
        parts = read_token(text)
        assert parts is not None
        found = tokens.find(parts[0])
        assert found == made
        assert found is not None
        assert found.grant == GRANT
        assert opens(found, parts[1])
        assert not opens(found, parts[1] + "x")
        assert not opens(None, parts[1])
        assert tokens.find("0" * 16) is None

    def test_what_is_kept_of_a_token_opens_nothing(self, tokens: TokenStore) -> None:
        made, text = tokens.create("shop", GRANT)
        secret = text.rpartition("_")[2] if text.count("_") == 2 else text.split("_", 2)[2]
        assert secret not in repr(tokens.all())
        assert not opens(made, made.digest)

    def test_a_token_ends_when_it_is_revoked_or_its_time_is_over(self, tokens: TokenStore, clock: FakeClock) -> None:
        first, _ = tokens.create("first", Grant(Role.WORKER, cluster="c1"), life_s=60.0)
        clock.advance(1)
        second, _ = tokens.create("second", Grant(Role.OPERATE))
        assert tokens.revoke("second").revoked_at == clock()
        assert tokens.find(second.id) is None
        assert tokens.find(first.id) is not None
        assert tokens.live([first.id, second.id, "0" * 16]) == {first.id: first}
        clock.advance(61)
        assert tokens.find(first.id) is None and tokens.live([first.id]) == {} == tokens.live([])
        assert [token.name for token in tokens.all()] == ["first", "second"]

    def test_one_live_token_has_a_name(self, tokens: TokenStore) -> None:
        tokens.create("shop", GRANT)
        with pytest.raises(Conflict, match="revoke it"):
            tokens.create("shop", GRANT)
        tokens.revoke("shop")
        tokens.create("shop", GRANT)
        with pytest.raises(NotFound, match="no live token"):
            tokens.revoke("nobody")

    @pytest.mark.parametrize(
        ("name", "grant", "life_s"),
        [
            ("", GRANT, None),
            ("a\nb", GRANT, None),
            ("x" * 101, GRANT, None),
            ("shop", Grant(Role.SUBMIT, max_queued=0), None),
            ("shop", Grant(Role.SUBMIT, models=("No/Model",)), None),
            ("shop", Grant(Role.SUBMIT, cluster="c1"), None),
            ("box", Grant(Role.WORKER, tenant="acme"), None),
            ("shop", GRANT, -1.0),
        ],
    )
    def test_a_token_that_means_nothing_is_refused(
        self, tokens: TokenStore, name: str, grant: Grant, life_s: float | None
    ) -> None:
        with pytest.raises(InvalidInput):
            tokens.create(name, grant, life_s=life_s)
        assert tokens.all() == ()
