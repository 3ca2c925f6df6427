"""What a delivery looks like on the wire, to somebody who knows only the documentation."""

import base64
import hashlib
import hmac
import json
import time
import urllib.parse

import standardwebhooks

from tests.deployment import Deployment, event, until
from tests.receiver import Received

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def one_delivery(shared: Deployment, workspace: str, **fields: object) -> tuple[Received, str]:
    """Publish one event to one webhook; gives what arrived and the webhook's id."""
    webhook = await shared.webhook_known_to(shared.running, f"/{workspace}", workspace, **fields)
    sent = event("wire", "team.member.added", workspace, name="Grüße \u2028")
    sent |= {"created_at": "2026-01-15T10:30:00Z", "context": {"tier": 1}}
    headers = [("traceparent", TRACE.encode()), ("dispatcher-attempt", b"7"), ("x-other", b"not passed on")]
    await shared.publish(sent, headers=headers)
    await until(lambda: shared.receiver.at(f"/{workspace}"), "the delivery arrives")
    (received,) = shared.receiver.at(f"/{workspace}")
    return received, webhook.subscription.id


async def test_every_documented_header_arrives(shared: Deployment, workspace: str) -> None:
    """All documented headers are there, each signature verifies over the raw body, and no own header leaks."""
    received, webhook_id = await one_delivery(
        shared,
        workspace,
        secret=SECRET,
        method="PUT",
        api_key="key-123",
        headers={"X-Team": "blue"},
    )
    headers = dict(received.headers)
    digest = hmac.new(SECRET.encode(), received.body, hashlib.sha256).hexdigest()
    assert received.method == "PUT"
    assert json.loads(received.body) == {
        "id": "evt_wire",
        "type": "team.member.added",
        "created_at": "2026-01-15T10:30:00Z",
        "data": {"n": "wire", "name": "Grüße \u2028"},
    }
    expected = {
        "content-type": "application/json",
        "user-agent": "Dispatcher-Webhooks/1.0",
        "x-webhook-id": webhook_id,
        "x-webhook-event": "team.member.added",
        "x-webhook-signature": f"sha256={digest}",
        "x-signature-256": f"sha256={digest}",
        "x-signature": digest,
        "x-webhook-attempt": "1",
        "traceparent": TRACE,
        "x-api-key": "key-123",
        "x-team": "blue",
        "content-length": str(len(received.body)),
    }
    assert {name: headers.get(name) for name in expected} == expected
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
    assert standardwebhooks.Webhook(SECRET).verify(received.body, headers) == json.loads(received.body)
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + received.body
    ours = base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
    assert headers["webhook-signature"] == f"v1,{ours}"
    assert not [name for name in headers if name.startswith("dispatcher-")]
    assert "x-other" not in headers


async def test_form_with_a_plain_secret_and_bearer_key(shared: Deployment, workspace: str) -> None:
    """A form carries the JSON in its payload field; a secret of any form signs with its UTF-8 bytes, here too."""
    secret = "correct horse bättery"
    received, _ = await one_delivery(
        shared,
        workspace,
        secret=secret,
        content_type="application/x-www-form-urlencoded",
        payload_format="context",
        api_key="key-456",
        api_key_header="Authorization",
    )
    headers = dict(received.headers)
    assert headers["content-type"] == "application/x-www-form-urlencoded"
    assert headers["authorization"] == "Bearer key-456"
    ((name, payload),) = urllib.parse.parse_qsl(received.body.decode(), strict_parsing=True)
    assert name == "payload"
    assert json.loads(payload) == {
        "event_time": "2026-01-15T10:30:00Z",
        "event_type": "team.member.added",
        "current_context": {"tier": 1},
        "data": {"n": "wire", "name": "Grüße \u2028"},
    }
    assert headers["x-signature"] == hmac.new(secret.encode(), received.body, hashlib.sha256).hexdigest()
    content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + received.body
    ours = base64.b64encode(hmac.digest(secret.encode(), content, "sha256")).decode()
    assert headers["webhook-signature"] == f"v1,{ours}"
