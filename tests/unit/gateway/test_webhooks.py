"""Webhooks against receivers that answer, hang, redirect, fail and talk nonsense, on this box and allowed by name."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import ssl
from pathlib import Path

import pytest

from modelrepo.errors import InvalidInput
from modelrepo_runtime.gateway.addresses import AddressRules
from modelrepo_runtime.gateway.webhooks.sending import HEAD_BYTES, Sender
from modelrepo_runtime.gateway.webhooks.signing import body_of, sign
from modelrepo_runtime.jobs import Job, OutputFile, Status, Webhook
from modelrepo_runtime.queue.outbox import Delivery, check_webhook, next_wait_s
from modelrepo_runtime.testing.certificates import certificate
from modelrepo_runtime.testing.webhook_receiver import Received, receiving, says

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OK = b"HTTP/1.1 204 No Content\r\n\r\n"
ALLOWED = AddressRules(frozenset({"127.0.0.1"}))


def delivery(url: str, **facts: object) -> Delivery:
    job = Job("job_1", "m", "api", "acme", Status.RUNNING, 1_700_000_000.0, 1_700_000_000.0, stage="run")
    return Delivery(1, "msg_1", "job.started", 1_700_000_001.5, Webhook(url, SECRET), 0, job)


def test_a_signature_is_that_of_the_standards_own_example() -> None:
    assert (
        sign(SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", b'{"test": 2432232314}')
        == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


def test_an_event_arrives_once_with_a_signature_that_its_receiver_can_check() -> None:
    async def story() -> Received:
        async with receiving(says(OK)) as receiver:
            sent = await Sender(ALLOWED, clock=lambda: 1_700_000_009.7).send(delivery(receiver.url))
            assert sent.error is None and sent.status == 204
            (request,) = receiver.received
            return request

    request = asyncio.run(story())
    assert request.path == "/hook?of=a" and request.headers["content-type"] == "application/json"
    told = f"msg_1.1700000009.{request.body.decode()}".encode()
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    expected = base64.b64encode(hmac.new(key, told, hashlib.sha256).digest()).decode()
    assert request.headers["webhook-id"] == "msg_1" and request.headers["webhook-timestamp"] == "1700000009"
    assert request.headers["webhook-signature"] == f"v1,{expected}"
    document = json.loads(request.body)
    assert (document["type"], document["timestamp"]) == ("job.started", "2023-11-14T22:13:21.500Z")
    assert document["data"]["id"] == "job_1" and document["data"]["status"] == "running"


def test_the_outputs_of_a_job_carry_urls_made_for_this_try() -> None:
    job = Job(
        "job_1", "m", "api", "t", Status.SUCCEEDED, 1.0, 1.0, outputs=(OutputFile("video", "k/v.mp4", 3, "video/mp4"),)
    )
    told = Delivery(1, "msg_1", "job.finished", 2.0, Webhook("https://a.example", SECRET), 0, job)
    document = json.loads(body_of(told, {"k/v.mp4": ("https://files.example/v", 5.0)}))
    assert document["data"]["outputs"][0]["url"] == "https://files.example/v"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 500 Oops\r\n\r\n", "answered 500"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\n\r\n", "redirects are not followed"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "no HTTP"),
        (b"", "closed without a word"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * (2 * HEAD_BYTES), "headers"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 11, "never comes"),
    ],
)
def test_any_answer_but_2xx_is_a_failure_in_words(answer: bytes, words: str) -> None:
    async def story() -> None:
        async with receiving(says(answer)) as receiver:
            sent = await Sender(ALLOWED).send(delivery(receiver.url))
            assert sent.error is not None and words in sent.error and not sent.gone
            assert len(receiver.received) == 1

    asyncio.run(story())


def test_a_receiver_that_hangs_or_drips_is_given_up_in_time() -> None:
    async def silent(_request: Received, writer: asyncio.StreamWriter) -> None:
        await asyncio.get_running_loop().create_future()

    async def drips(_request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while not writer.is_closing():
            writer.write(b"x: y\r\n")
            await writer.drain()
            await asyncio.sleep(0.02)

    async def story() -> None:
        for answer in (silent, drips):
            async with receiving(answer) as receiver:
                sent = await Sender(ALLOWED, total_s=0.3).send(delivery(receiver.url))
                assert not sent.answered and sent.error is not None and "no answer within 0.3 s" in sent.error

    asyncio.run(story())


def test_a_long_answer_is_not_read_to_its_end() -> None:
    async def endless(_request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"z" * 65536)
            await writer.drain()

    async def story() -> None:
        async with receiving(endless) as receiver:
            assert (await Sender(ALLOWED).send(delivery(receiver.url))).error is None

    asyncio.run(story())


def test_a_receiver_may_say_when_to_come_again_and_that_it_is_gone() -> None:
    async def story() -> None:
        async with receiving(says(b"HTTP/1.1 429 Slow\r\nRetry-After: 77\r\n\r\n")) as receiver:
            assert (await Sender(ALLOWED).send(delivery(receiver.url))).asked_s == 77
        async with receiving(says(b"HTTP/1.1 410 Gone\r\n\r\n")) as receiver:
            assert (await Sender(ALLOWED).send(delivery(receiver.url))).gone

    asyncio.run(story())


def test_nothing_is_sent_to_addresses_that_no_tenant_may_name() -> None:
    async def story() -> None:
        async with receiving(says(OK)) as receiver:
            for url in (receiver.url, f"https://127.0.0.1:{receiver.port}/", "https://100.64.1.2/", "https://[::1]/"):
                sent = await Sender().send(delivery(url))
                assert sent.error is not None and "cannot use" in sent.error, url
            assert receiver.received == []

    asyncio.run(story())


def test_the_connection_goes_to_the_address_that_was_judged_and_the_certificate_must_be_the_hosts(
    tmp_path: Path,
) -> None:
    chain, key = certificate(tmp_path)
    serves = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serves.load_cert_chain(chain, key)
    asked: list[str] = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    rules = AddressRules(frozenset({"localhost", "hooks.example"}), resolve)

    async def story() -> None:
        sender = Sender(rules, tls=ssl.create_default_context(cafile=str(chain)))
        async with receiving(tls=serves) as receiver:
            assert (await sender.send(delivery(f"https://localhost:{receiver.port}/x"))).error is None
            other = await sender.send(delivery(f"https://hooks.example:{receiver.port}/x"))
            assert other.error is not None and "certificate" in other.error.lower() and not other.answered
            assert [request.headers["host"] for request in receiver.received] == [f"localhost:{receiver.port}"]

    asyncio.run(story())
    assert asked == ["localhost", "hooks.example"]


def test_a_host_that_nobody_knows_or_that_refuses_is_an_unanswered_try() -> None:
    async def story() -> None:
        async with receiving(says(OK)) as receiver:
            closed = receiver.url
        for url in ("https://nobody.invalid/", closed):
            sent = await Sender(ALLOWED).send(delivery(url))
            assert not sent.answered and sent.error

    asyncio.run(story())


def test_ten_tries_take_a_day_and_no_eleventh_follows() -> None:
    waits = [next_wait_s(tries) for tries in range(1, 11)]
    assert waits[-1] is None and waits[:9] == sorted(wait for wait in waits if wait is not None)
    assert sum(wait or 0.0 for wait in waits) == 86_400
    assert next_wait_s(1, asked_s=3600) == 3600 and next_wait_s(9, asked_s=1e9) == next_wait_s(9)


@pytest.mark.parametrize(
    ("url", "secret"),
    [
        ("ftp://a.example/", SECRET),
        ("https:///x", SECRET),
        ("https://u:p@a.example/", SECRET),
        ("https://a.example/ x", SECRET),
        ("https://a.example/", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        ("https://a.example/", "whsec_short"),
        ("https://a.example/", "whsec_!!!!"),
    ],
)
def test_webhooks_that_could_never_be_told_are_refused(url: str, secret: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_webhook(Webhook(url, secret))
    assert secret not in str(caught.value)
