"""URLs that the gateway signs to itself."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

from modelrepo.stores.opening import open_store
from modelrepo_runtime.gateway.signing import UrlSigner, shared_secret
from modelrepo_runtime.testing.clock import FakeClock


def test_a_url_holds_for_its_verb_and_key_until_it_runs_out() -> None:
    clock = FakeClock(1000.0)
    signer = UrlSigner(b"secret", clock)
    url, expires_at = signer.url("https://gw.example/", "GET", "jobs/a b/1.png", 60)
    assert url.startswith("https://gw.example/v1/content/jobs/a%20b/1.png?")
    query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    expires, signature = int(query["expires"]), query["signature"]
    assert expires_at == 1060
    assert signer.holds("GET", "jobs/a b/1.png", expires, signature)
    assert not signer.holds("PUT", "jobs/a b/1.png", expires, signature)
    assert not signer.holds("GET", "jobs/a b/2.png", expires, signature)
    assert not signer.holds("GET", "jobs/a b/1.png", expires + 1, signature)
    assert not signer.holds("GET", "jobs/a b/1.png", expires, "é")
    assert not UrlSigner(b"another", clock).holds("GET", "jobs/a b/1.png", expires, signature)
    clock.advance(61)
    assert not signer.holds("GET", "jobs/a b/1.png", expires, signature)


def test_gateways_before_one_store_sign_alike() -> None:
    first = shared_secret(open_store("memory://signing"))
    assert first == shared_secret(open_store("memory://signing"))
    assert len(first) >= 32
