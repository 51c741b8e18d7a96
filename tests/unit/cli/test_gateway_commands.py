"""`modelrepo token` and `modelrepo gateway`: what they refuse, print, and end with."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from modelrepo.repository import Repository
from modelrepo_cli import exit_codes
from modelrepo_cli.main import main
from modelrepo_runtime.queue.tokens import read_token


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("MODELREPO_REPO", "MODELREPO_QUEUE", "MODELREPO_FILES", "MODELREPO_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    Repository.init((tmp_path / "repository").as_uri(), by="tests")
    (tmp_path / "modelrepo.toml").write_text('repo = "repository"\nqueue = "queue.db"\n')
    return tmp_path


def test_a_token_is_printed_once_listed_and_revoked(capsys: pytest.CaptureFixture[str]) -> None:
    flags = [
        "--role",
        "submit",
        "--tenant",
        "acme",
        "--tiers",
        "free, light",
        "--max-queued",
        "200",
        "--expires",
        "90d",
    ]
    assert main(["token", "create", "shop", *flags]) == exit_codes.DONE
    text = capsys.readouterr().out.strip()
    assert read_token(text)
    assert main(["token", "list", "--json"]) == exit_codes.DONE
    told = capsys.readouterr().out
    (token,) = json.loads(told)["tokens"]
    assert text.split("_", 2)[2] not in told
    assert (token["tiers"], token["max_queued"], token["state"]) == (["free", "light"], 200, "live")
    assert main(["token", "create", "shop", "--role", "operate"]) == exit_codes.CONFLICT
    assert main(["token", "revoke", "shop"]) == exit_codes.DONE
    assert main(["token", "revoke", "shop"]) == exit_codes.NOT_FOUND
    capsys.readouterr()
    assert main(["token", "list"]) == exit_codes.DONE
    assert "revoked" in capsys.readouterr().out


@pytest.mark.parametrize(
    "flags",
    [
        ["--role", "submit"],
        ["--role", "submit", "--tenant", "a", "--any-tenant"],
        ["--role", "operate", "--any-tenant"],
        ["--role", "worker", "--tenant", "a"],
        ["--role", "submit", "--tenant", "a", "--cluster", "c"],
        ["--role", "submit", "--tenant", "a", "--models", "No Model"],
        ["--role", "king"],
        [],
    ],
)
def test_a_token_that_means_nothing_is_a_usage_error(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["token", "create", "shop", *flags]) == exit_codes.INVALID
    assert capsys.readouterr().err.startswith("error: ")


def test_a_gateway_refuses_what_it_cannot_do(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gateway", "--host", "0.0.0.0"]) == exit_codes.INVALID
    assert "modelrepo token create" in capsys.readouterr().err
    (place / "nonsense.pem").write_text("nonsense")
    assert main(["gateway", "--port", "0", "--tls-cert", "nonsense.pem"]) == exit_codes.INVALID
    assert "--tls-cert nonsense.pem" in capsys.readouterr().err
    assert main(["gateway", "--max-connections", "999999999"]) == exit_codes.INVALID
    assert "open files" in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["gateway", "--port", port]) == exit_codes.CONFLICT
    assert f"cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err


def test_a_gateway_says_where_it_listens_and_ends_well_when_it_is_told_to(place: Path) -> None:
    command = [sys.executable, "-m", "modelrepo_cli", "gateway", "--port", "0", "--json"]
    process = subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ})
    assert process.stdout is not None
    printed = b""
    while not printed.endswith(b"}\n"):
        piece = process.stdout.readline()
        assert piece, process.communicate()[1]
        printed += piece
    assert json.loads(printed)["url"].startswith("http://127.0.0.1:")
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == exit_codes.DONE
    assert all(json.loads(line)["level"] == "info" for line in errors.splitlines())
