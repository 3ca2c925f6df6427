"""Rotating a webhook's secret: which secrets sign afterwards, and for how long."""

import dataclasses

import pytest

from dispatcher.core.errors import ConflictError, InvalidInputError, NotFoundError
from dispatcher.core.rendering import RequestTemplate
from dispatcher.core.sealing import Keyring, SealPurpose, binding
from dispatcher.core.signing import SigningKey
from dispatcher.operations.rotation import SecretRotation
from dispatcher.operations.webhooks import Webhooks
from tests.fakes.api_stack import START_MS, URL, HttpsOnly, ManualClock, draws
from tests.fakes.event_records import plain
from tests.fakes.stores import MemoryWebhookStore

FIRST = "the first secret of all"
KEYRING = Keyring([b"k" * 32])


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def store():
    return MemoryWebhookStore()


@pytest.fixture
def rotation(store, clock):
    return SecretRotation(store, clock, KEYRING, draws())


@pytest.fixture
async def webhook_id(store, clock):
    webhooks = Webhooks(store, clock, HttpsOnly(), KEYRING, draws())
    created = await webhooks.create("acme", {"url": URL, "events": [], "secret": FIRST})
    return created.webhook.subscription.id


def signers(store, webhook_id, clock, *secrets):
    """Say which of these secrets sign now in `webhook-signature`, and which one in the single-valued headers."""
    head = RequestTemplate(store.webhooks[webhook_id].subscription, KEYRING, "test/1").render(
        plain(), "del_1", 1, clock.now_ms()
    )
    lines = dict(line.split(": ", 1) for line in head.head.decode().split("\r\n")[1:-2])
    stamp = lines["webhook-timestamp"].encode()
    standard = lines["webhook-signature"].split(" ")
    named = {SigningKey(each).standard(b"del_1", stamp, head.body).decode(): each for each in secrets}
    single = [each for each in secrets if SigningKey(each).hex_digest(head.body).decode() == lines["X-Signature"]]
    return [named.get(each) for each in standard], single


async def test_without_overlap_the_old_secret_dies_at_once(store, clock, rotation, webhook_id):
    """The default: only the new secret, made here, signs from now on."""
    rotated = await rotation.rotate("acme", webhook_id, {})
    assert rotated.secret.startswith("whsec_")
    assert rotated.overlap_ends_at_ms is None
    assert signers(store, webhook_id, clock, FIRST, rotated.secret) == ([rotated.secret], [rotated.secret])
    assert rotated.secret not in repr(rotated)


async def test_with_overlap_both_sign_until_it_ends(store, clock, rotation, webhook_id):
    """While the overlap lasts both sign, the new one first and alone in the single-valued headers; then it alone."""
    given = "the second secret of all"
    rotated = await rotation.rotate("acme", webhook_id, {"secret": given, "overlap_seconds": 60})
    assert (rotated.secret, rotated.overlap_ends_at_ms) == (given, START_MS + 60_000)
    clock.ms += 59_999
    assert signers(store, webhook_id, clock, FIRST, given) == ([given, FIRST], [given])
    clock.ms += 1
    assert signers(store, webhook_id, clock, FIRST, given) == ([given], [given])


async def test_each_overlap_keeps_its_own_end_until_a_rotation_without(store, clock, rotation, webhook_id):
    """A second rotation with overlap doesn't cut the first one short; one without ends them all."""
    second = (await rotation.rotate("acme", webhook_id, {"overlap_seconds": 100})).secret
    clock.ms += 50_000
    third = (await rotation.rotate("acme", webhook_id, {"overlap_seconds": 10})).secret
    secrets = (FIRST, second, third)
    assert signers(store, webhook_id, clock, *secrets)[0] == [third, second, FIRST]
    clock.ms += 10_000
    assert signers(store, webhook_id, clock, *secrets)[0] == [third, FIRST]
    last = (await rotation.rotate("acme", webhook_id, {"overlap_seconds": 0})).secret
    assert signers(store, webhook_id, clock, *secrets, last)[0] == [last]


async def test_secrets_that_ended_are_forgotten_and_their_number_is_bounded(store, clock, rotation, webhook_id):
    """At most five secrets sign; ended ones make room."""
    for _ in range(4):
        await rotation.rotate("acme", webhook_id, {"overlap_seconds": 60})
    before = store.webhooks[webhook_id]
    with pytest.raises(ConflictError, match="5 secrets would overlap"):
        await rotation.rotate("acme", webhook_id, {"overlap_seconds": 60})
    assert store.webhooks[webhook_id] is before
    clock.ms += 60_000
    await rotation.rotate("acme", webhook_id, {"overlap_seconds": 60})
    assert len(store.webhooks[webhook_id].subscription.secrets) == 2


async def test_secret_whose_key_is_gone_is_dropped(store, clock, rotation, webhook_id):
    """A secret that can't be opened any more doesn't overlap: it would keep the new one from signing."""
    webhook = store.webhooks[webhook_id]
    aad = binding("acme", webhook_id, SealPurpose.SIGNING_SECRET)
    sealed = Keyring([b"x" * 32]).seal(b"lost for ever", nonce=bytes(12), aad=aad)
    lost = dataclasses.replace(webhook.subscription.secrets[0], sealed=sealed)
    subscription = dataclasses.replace(webhook.subscription, secrets=(lost,))
    store.webhooks[webhook_id] = dataclasses.replace(webhook, subscription=subscription)
    rotated = await rotation.rotate("acme", webhook_id, {"overlap_seconds": 60})
    assert rotated.overlap_ends_at_ms is None
    assert signers(store, webhook_id, clock, rotated.secret)[0] == [rotated.secret]


@pytest.mark.parametrize(
    ("sent", "wrong"),
    [
        ({"overlap_seconds": -1, "secret": "short"}, {"overlap_seconds", "secret"}),
        ({"overlap_seconds": 604_801}, {"overlap_seconds"}),
        ({"overlap_seconds": True}, {"overlap_seconds"}),
        ({"overlap_seconds": 1.5}, {"overlap_seconds"}),
        ({"overlap": 5}, {"overlap"}),
        ([], {""}),
    ],
)
async def test_wrong_fields_are_named_and_nothing_changes(store, rotation, webhook_id, sent, wrong):
    """Bounds, types and unknown names are refused."""
    before = store.webhooks[webhook_id]
    with pytest.raises(InvalidInputError) as caught:
        await rotation.rotate("acme", webhook_id, sent)
    assert set(caught.value.fields) == wrong
    assert store.webhooks[webhook_id] is before


async def test_the_present_secret_is_refused(store, rotation, webhook_id):
    """A rotation to the secret that the webhook has already is a conflict, and nothing changes."""
    before = store.webhooks[webhook_id]
    with pytest.raises(ConflictError, match="already"):
        await rotation.rotate("acme", webhook_id, {"secret": FIRST})
    assert store.webhooks[webhook_id] is before


async def test_rotation_survives_a_change_in_between(store, rotation, webhook_id):
    """A change made by somebody else between read and write stays, and the rotation is made on top of it."""

    def interfere():
        store.before_replace = lambda: None
        webhook = store.webhooks[webhook_id]
        subscription = dataclasses.replace(webhook.subscription, max_attempts=3, revision=9)
        store.webhooks[webhook_id] = dataclasses.replace(webhook, subscription=subscription)

    store.before_replace = interfere
    rotated = await rotation.rotate("acme", webhook_id, {})
    assert (rotated.webhook.subscription.max_attempts, rotated.webhook.subscription.revision) == (3, 10)


async def test_webhook_of_another_workspace_is_not_there(store, rotation, webhook_id):
    """Another workspace can't rotate, nor learn of the webhook."""
    before = store.webhooks[webhook_id]
    with pytest.raises(NotFoundError):
        await rotation.rotate("globex", webhook_id, {})
    assert store.webhooks[webhook_id] is before
