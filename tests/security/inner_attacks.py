"""Attacks on secrets and on those who read: what each tries, what protects, where, and how the protection is taken out.

Each attack is a function that says whether it succeeded; `test_inner_attacks.py` runs each with and without its
protection.
"""

import hmac
from pathlib import Path

import jinja2
import pytest
from click.testing import CliRunner

from dispatcher.cli import output
from dispatcher.console import drawing
from dispatcher.core import rendering
from dispatcher.core.decoding import decode
from dispatcher.core.errors import InvalidInputError, SealError
from dispatcher.core.model import Origin, SealedSecret, Subscription
from dispatcher.core.rendering import RequestTemplate
from dispatcher.core.sealing import Keyring, SealPurpose, binding
from dispatcher.core.urls import parse_endpoint_url
from dispatcher.operations import webhooks
from dispatcher.operations.catalogue import load_catalogue
from dispatcher.operations.test_events import EventTests
from dispatcher.operations.webhooks import Webhooks
from tests.fakes.api_stack import URL, HttpsOnly, ManualClock, api_stack, draws
from tests.fakes.console_stack import console_stack
from tests.fakes.http import MemorySender, answer
from tests.fakes.log import MemoryDeliveryLog
from tests.fakes.stores import MemoryWebhookStore
from tests.security.attack_form import Attacks
from tests.unit.pipeline import world

KEYRING = Keyring([b"k" * 32])
API_KEY = "the key of the endpoint"
SECRET = "the secret that signs"
EVENT = decode(b'{"id":"evt_1","type":"a.b","workspace_id":"acme","data":1}', (), Origin("t", 0, 0, 0), None)

INNER_ATTACKS = Attacks()
attack = INNER_ATTACKS.attack


def _keep_echoes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RequestTemplate, "without_secrets", lambda _, body: body)


@attack(
    "an endpoint that shows what it was sent, in a log that others read",
    protection="secrets are masked where the answer is taken",
    where="dispatcher/core/echoes.py",
    off=_keep_echoes,
)
async def echo_into_the_log(_: Path) -> bool:
    """Deliver to an endpoint that echoes, and look for the key in the delivery log."""
    around = world.World("1h")
    api_key = world.KEYRING.seal(
        API_KEY.encode(), nonce=bytes(12), aad=binding(world.WORKSPACE, "wh_a", SealPurpose.API_KEY)
    )
    around.index.put(world.subscription("wh_a", api_key=api_key))
    around.sender.answers = lambda sent: answer(500, body=sent.request.head)
    around.add_source()
    await around.start()
    try:
        around.publish(1)
        await world.eventually(around.caught_up)
        return API_KEY in repr(list(around.log.documents.values()))
    finally:
        await around.stop()


@attack(
    "the same, by a test event",
    protection="secrets are masked where the answer is taken",
    where="dispatcher/operations/test_events.py",
    off=_keep_echoes,
)
async def echo_into_a_test(_: Path) -> bool:
    """Send a test event to an endpoint that echoes, and look for the key in the result."""
    store, sender = MemoryWebhookStore(), MemorySender()
    sender.answers = lambda sent: answer(200, body=sent.request.head)
    tests = EventTests(
        store, load_catalogue(None), sender, MemoryDeliveryLog(), KEYRING, ManualClock(), draws(), "Test/1.0"
    )
    created = await _operation(store).create("acme", {"url": URL, "events": ["*"], "api_key": "the-key-of-it"})
    result = await tests.send("acme", created.webhook.subscription.id, {})
    return b"the-key-of-it" in result.response_body


@attack(
    "a webhook led to one's own server, to read its key there",
    protection="another origin needs the key again",
    where="dispatcher/operations/key_origin.py",
    off=lambda patch: patch.setattr(webhooks, "key_left_behind", lambda *_: {}),
)
async def key_to_ones_own_server(_: Path) -> bool:
    """Change the URL of a webhook whose key is not known, and look for the key in the next request."""
    store = MemoryWebhookStore()
    operation = _operation(store)
    created = await operation.create("acme", {"url": URL, "events": ["*"], "api_key": "the-key-of-it"})
    webhook_id = created.webhook.subscription.id
    try:
        changed = await operation.update("acme", webhook_id, {"url": "https://mine.example.net/"})
    except InvalidInputError:
        return False
    request = RequestTemplate(changed.webhook.subscription, KEYRING, "Test/1.0").render(EVENT, "del_1", 1, 0)
    return request.url.host == "mine.example.net" and b"the-key-of-it" in request.head


@attack(
    "a sealed secret copied to a webhook of one's own",
    protection="sealed values are bound to workspace, webhook and purpose",
    where="dispatcher/core/sealing.py",
    off=lambda patch: patch.setattr(rendering, "binding", lambda *_: b""),
)
async def copied_secret(_: Path) -> bool:
    """Put another webhook's sealed secret into one's own, and have something signed with it."""
    theirs = rendering.binding("acme", "wh_theirs", SealPurpose.SIGNING_SECRET)
    stolen = SealedSecret(KEYRING.seal(SECRET.encode(), nonce=bytes(12), aad=theirs))
    mine = Subscription("wh_mine", "evil", parse_endpoint_url(URL), ("*",), (stolen,))
    try:
        return b"X-Webhook-Signature" in RequestTemplate(mine, KEYRING, "x").render(EVENT, "del_1", 1, 0).head
    except SealError:
        return False


@attack(
    "a copy of the database",
    protection="secrets are sealed before they are stored",
    where="dispatcher/operations/webhooks.py",
    off=lambda patch: patch.setattr(Keyring, "seal", lambda _, plaintext, **__: bytes(37) + plaintext),
)
async def stolen_database(_: Path) -> bool:
    """Create a webhook, and look for its secret in what is stored."""
    async with api_stack() as api:
        sent = {"url": URL, "events": ["*"], "secret": SECRET, "api_key": "the-key-of-it"}
        response = await api.call("POST", "/webhooks", sent, headers={"Idempotency-Key": "once"})
        assert response.status == 201
        webhook = next(iter(api.webhook_store.webhooks.values()))
        stored = repr([webhook, webhook.subscription.secrets, webhook.subscription.api_key])
        return SECRET in stored or "the-key-of-it" in stored


@attack(
    "escape sequences in an operator's terminal",
    protection="what strangers wrote is written out",
    where="dispatcher/core/masking.py",
    off=lambda patch: patch.setattr(output, "legible", lambda text: text),
)
async def terminal_escapes(_: Path) -> bool:
    """Have an event type shown that sets the terminal's title."""
    with CliRunner().isolation() as (written, *_):
        output.print_table(["type"], [["\x1b]0;pwned\x07"]])
        return b"\x1b" in written.getvalue()


def _escape_nothing(patch: pytest.MonkeyPatch) -> None:
    class Careless(jinja2.Environment):
        def __init__(self, **options: object) -> None:
            super().__init__(**{**options, "autoescape": False})

    patch.setattr(drawing, "Environment", Careless)


@attack(
    "script in a name, for whoever opens the console",
    protection="templates escape what they are given",
    where="dispatcher/console/drawing.py",
    off=_escape_nothing,
)
async def script_in_a_name(_: Path) -> bool:
    """Give a webhook a name that is script, and open its page."""
    async with console_stack() as console:
        created = await console.api.create(name="<script>alert(1)</script>")
        await console.browser.sign_in()
        return "<script>alert(1)" in (await console.browser.get(f"/webhooks/{created['id']}")).text


@attack(
    "a form sent from another site",
    protection="each form carries its session's token",
    where="dispatcher/console/frame.py",
    off=lambda patch: patch.setattr(hmac, "compare_digest", lambda *_: True),
)
async def forged_form(_: Path) -> bool:
    """Delete a webhook by a form without the token."""
    async with console_stack() as console:
        created = await console.api.create()
        await console.browser.sign_in()
        await console.browser.post(f"/webhooks/{created['id']}/delete", {}, token="guessed")
        return created["id"] not in console.api.webhook_store.webhooks


def _operation(store: MemoryWebhookStore) -> Webhooks:
    return Webhooks(store, ManualClock(), HttpsOnly(), KEYRING, draws())
