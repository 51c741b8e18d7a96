"""The body and the signed headers of one event: Standard Webhooks 1.0.0, symmetric signatures."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping

from modelrepo_runtime.jobs import timestamp
from modelrepo_runtime.queue.outbox import Delivery, secret_key

Places = Mapping[str, tuple[str | None, float | None]]
"""Key of an output -> its URL and when that runs out."""


def body_of(delivery: Delivery, places: Places | None = None) -> bytes:
    """Return what is posted: `{type, timestamp, data}`, `data` being the job object of the API."""
    document = {"type": delivery.kind, "timestamp": timestamp(delivery.at), "data": delivery.job.to_json(places)}
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def headers_of(delivery: Delivery, body: bytes, now: float) -> dict[str, str]:
    """Return the headers that go with `body` when it is posted at `now`, epoch seconds."""
    moment = str(int(now))
    return {
        "content-type": "application/json",
        "webhook-id": delivery.message,
        "webhook-timestamp": moment,
        "webhook-signature": sign(delivery.webhook.secret, delivery.message, moment, body),
    }


def sign(secret: str, message: str, moment: str, body: bytes) -> str:
    """Return `v1,` and the base64 HMAC-SHA256 of `message.moment.body`. Raises: InvalidInput for an unusable secret."""
    signed = b".".join((message.encode(), moment.encode(), body))
    return "v1," + base64.b64encode(hmac.digest(secret_key(secret), signed, hashlib.sha256)).decode()
