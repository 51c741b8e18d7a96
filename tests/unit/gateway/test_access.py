"""Who may do what."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelrepo.errors import InvalidInput
from modelrepo.repository import Repository
from modelrepo_runtime.gateway.serving import Place, check_open
from modelrepo_runtime.gateway.settings import GatewaySettings
from modelrepo_runtime.queue.tokens import Grant, Role

from . import gateways
from .gateways import Bench

PATHS = [
    ("GET", "/v1/jobs", {"acme": 200, "any": 200, "box": 403, "boss": 200}),
    ("GET", "/v1/models", {"acme": 200, "any": 200, "box": 403, "boss": 200}),
    ("POST", "/v1/files", {"acme": 201, "any": 201, "box": 403, "boss": 201}),
    ("GET", "/metrics", {"acme": 403, "any": 403, "box": 403, "boss": 200}),
    ("GET", "/healthz", {"acme": 200, "box": 200}),
    ("GET", "/readyz", {"acme": 200, "box": 200}),
    ("GET", "/v1/openapi.json", {"acme": 200, "box": 200}),
]


@pytest.mark.parametrize(("method", "path", "expected"), PATHS)
def test_each_role_reaches_what_is_its_own(quiet: Bench, method: str, path: str, expected: dict[str, int]) -> None:
    assert {who: quiet.ask(method, path, who=who).status for who in expected} == expected
    is_open = path in ("/healthz", "/readyz", "/v1/openapi.json")
    assert quiet.ask(method, path, who=None).status == (200 if is_open else 401)


@pytest.mark.parametrize(
    "token", ["", "mr_", "mr_0000000000000000_secret", "nonsense", "mr_é_x", "mr_" + "a" * 500, "mr__x", "Bearer"]
)
def test_what_is_no_token_opens_nothing(quiet: Bench, token: str) -> None:
    reply = quiet.gateway.ask(
        "GET", "/v1/jobs", headers={"Authorization": f"Bearer {token}".encode().decode("latin-1")}
    )
    assert (reply.status, reply.json()["error"]["code"]) == (401, "unauthenticated")
    assert reply.headers["www-authenticate"] == "Bearer"


def test_the_id_of_a_token_without_its_secret_opens_nothing(quiet: Bench) -> None:
    real = quiet.tokens["acme"]
    for wrong in (real[:-1], real + "x", real.rpartition("_")[0] + "_", real.swapcase()):
        assert quiet.gateway.ask("GET", "/v1/jobs", token=wrong).status == 401


def test_a_revoked_token_and_an_expired_one_open_nothing(bench: Bench) -> None:
    assert bench.ask("GET", "/v1/jobs").status == 200
    bench.queue.tokens.revoke("acme")
    assert bench.ask("GET", "/v1/jobs").status == 401
    _, short = bench.queue.tokens.create("short", Grant(Role.SUBMIT, tenant="acme"), life_s=1e-6)
    assert bench.gateway.ask("GET", "/v1/jobs", token=short).status == 401


def test_a_token_is_for_its_tiers_models_and_so_many_waiting_jobs(bench: Bench) -> None:
    def submit(**told: object) -> tuple[int, str | None]:
        reply = bench.ask("POST", "/v1/jobs", {"model": "toy", "inputs": {"text": "hi"}, **told}, who="narrow")
        return reply.status, reply.json().get("error", {}) and reply.json()["error"]["code"]

    assert submit(tier="light") == (403, "not_allowed")
    assert submit(model="bare") == (403, "not_allowed")
    assert submit(tier="api") == (201, None)
    assert submit() == (201, None)
    assert submit() == (429, "too_many_queued")
    reply = bench.ask("POST", "/v1/jobs", {"model": "toy", "inputs": {"text": "hi"}}, who="narrow")
    assert int(reply.headers["retry-after"]) >= 1
    assert reply.json()["error"]["retryable"] is True
    bench.finish(bench.claim())
    assert submit() == (201, None)


def test_a_token_for_any_tenant_names_one_with_each_job(bench: Bench) -> None:
    assert bench.submit("any", tenant="someone")["tenant"] == "someone"
    assert bench.submit("any")["tenant"] == "default"
    assert bench.submit("acme", tenant="acme")["tenant"] == "acme"


def test_without_tokens_only_programs_of_the_same_box_are_answered(repo: Repository, tmp_path: Path) -> None:
    settings = GatewaySettings(open_to_all=True, token_cache_s=0.0)
    with gateways.bench(repo, tmp_path, tokens=False, settings=settings) as bench:
        assert bench.ask("GET", "/v1/jobs", who=None).status == 200
        assert bench.ask("GET", "/v1/jobs", who=None, headers={"Host": "evil.example"}).status == 403
        assert bench.ask("GET", "/v1/jobs", who=None, headers={"Origin": "https://evil.example"}).status == 403
        bench.queue.tokens.create("first", Grant(Role.OPERATE))
        assert bench.ask("GET", "/v1/jobs", who=None).status == 401


@pytest.mark.parametrize("floor", ["worker", "fleet"])
def test_a_host_that_looks_like_a_path_shows_nobody_the_errors_of_machines(quiet: Bench, floor: str) -> None:
    reply = quiet.ask("GET", "/v1/jobs/job_none", headers={"Host": f"gateway/v1/{floor}/claim?"})
    assert (reply.status, set(reply.json()["error"])) == (404, {"code", "message", "retryable"})


def test_a_gateway_without_tokens_listens_on_its_own_box_alone() -> None:
    assert check_open(Place("127.0.0.1"), has_tokens=False)
    assert check_open(Place("::1"), has_tokens=False)
    assert not check_open(Place("127.0.0.1"), has_tokens=True)
    assert not check_open(Place("0.0.0.0"), has_tokens=True)
    for host in ("0.0.0.0", "::", "10.0.0.1", "gateway.example"):
        with pytest.raises(InvalidInput, match="modelrepo token create"):
            check_open(Place(host), has_tokens=False)
