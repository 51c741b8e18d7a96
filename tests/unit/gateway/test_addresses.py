"""Where URLs of tenants may lead."""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Callable

import pytest

from modelrepo.errors import Unreachable
from modelrepo_runtime.gateway.addresses import AddressRefused, AddressRules, Target, refusal, resolve
from modelrepo_runtime.gateway.pinned import PinnedConnection


def answering(*addresses: str) -> Callable[[str, int], list[str]]:
    return lambda host, port: list(addresses)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.9.9.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254"),
        *("100.64.0.1", "100.127.255.254", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255", "192.0.2.1"),
        *("198.18.0.1", "::1", "::", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "::127.0.0.1", "fe80::1", "fec0::1"),
        *("fc00::1", "fd12:3456::1", "ff02::1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::1", "2001:db8::1"),
        *("2002:7f00:1::", "2001:0:4136:e378:8000:63bf:3fff:fdd2"),
    ],
)
def test_an_address_that_is_not_public_is_refused_with_a_reason(address: str) -> None:
    assert refusal(ipaddress.ip_address(address))
    with pytest.raises(AddressRefused, match="--allow-url-host"):
        AddressRules(resolve=answering(address)).target("https://tenant.example/cat.png")


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.215.14", "2606:4700::1111", "64:ff9b::808:808", "100.63.0.1"])
def test_a_public_address_may_be_reached(address: str) -> None:
    target = AddressRules(resolve=answering(address)).target("https://tenant.example:8443/a/cat.png?size=2")
    assert target.addresses == (address,)
    assert (target.host, target.port, target.path) == ("tenant.example", 8443, "/a/cat.png?size=2")


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "localhost", "[::1]", "0"])
def test_other_ways_to_write_loopback_are_read_by_the_resolver_that_would_connect(host: str) -> None:
    with pytest.raises((AddressRefused, Unreachable)):
        AddressRules().target(f"https://{host}/")


def test_one_private_address_among_public_ones_refuses_the_name() -> None:
    with pytest.raises(AddressRefused):
        AddressRules(resolve=answering("8.8.8.8", "10.0.0.1")).target("https://tenant.example/")


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://tenant.example/",
            "ftp://tenant.example/",
            "file:///etc/passwd",
            "https://",
            "https:///path",
            "cat.png",
        ),
        *("https://user:secret@tenant.example/", "https://tenant.example:99999/", "https://[fe80::1%25eth0]/"),
        *("https://tenant.example/a b", "https://tenant.example/\r\nHost: inside", "https://tenant.example/ü"),
        *("https://tenant.example/" + "a" * 3000, "https://[::1", "https://tenant%00.example/"),
    ],
)
def test_what_is_no_plain_https_url_is_refused(url: str) -> None:
    with pytest.raises(AddressRefused):
        AddressRules(resolve=answering("8.8.8.8")).target(url)


def test_an_operator_may_name_hosts_that_are_reached_all_the_same() -> None:
    rules = AddressRules(frozenset({"Assets.internal"}), answering("10.0.0.1"))
    assert rules.target("http://assets.INTERNAL/x").addresses == ("10.0.0.1",)
    with pytest.raises(AddressRefused):
        rules.target("https://assets.internal.evil.example/x")


def test_a_name_that_nobody_knows_is_unreachable_and_not_refused() -> None:
    def unknown(host: str, port: int) -> list[str]:
        raise socket.gaierror(-2, "Name or service not known")

    with pytest.raises(Unreachable, match=r"tenant\.example"):
        AddressRules(resolve=unknown).target("https://tenant.example/")


def test_a_secret_in_a_query_does_not_reach_the_message() -> None:
    with pytest.raises(AddressRefused) as caught:
        AddressRules(resolve=answering("10.0.0.1")).target("https://tenant.example/x?token=hush")
    assert "hush" not in str(caught.value)


def test_a_name_is_resolved_once_and_the_connection_goes_where_it_was_judged() -> None:
    asked: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def rebinding(host: str, asked_port: int) -> list[str]:
            asked.append(host)
            return ["8.8.8.8"] if len(asked) == 1 else ["127.0.0.1"]

        judged = AddressRules(resolve=rebinding).target(f"https://rebinding.example:{port}/")
        assert judged.addresses == ("8.8.8.8",)
        assert asked == ["rebinding.example"]
        pinned = Target(judged.url, "http", judged.host, port, "/", ("127.0.0.1",))
        taker = threading.Thread(target=lambda: server.accept()[0].close())
        taker.start()
        connection = PinnedConnection(pinned, 5.0)
        connection.connect()
        connection.close()
        taker.join()
    assert asked == ["rebinding.example"]


def test_the_system_s_resolver_reads_plain_addresses() -> None:
    assert resolve("127.0.0.1", 443) == ["127.0.0.1"]
