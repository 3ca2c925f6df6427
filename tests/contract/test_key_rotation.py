"""The encryption key is changed on a real MongoDB, beside changes of the webhooks, and killed half way."""

import asyncio
import base64
import json
import os
import sys
from dataclasses import fields

import pytest
import trustme

from dispatcher.app.clock import SystemClock, draw
from dispatcher.core.matching import SubscriptionIndex
from dispatcher.core.model import Subscription
from dispatcher.core.sealing import Keyring, SealPurpose, binding
from dispatcher.mongo.audit import MongoAudit
from dispatcher.mongo.sealed_webhooks import MongoSealedWebhooks
from dispatcher.mongo.subscription_feed import SubscriptionFeed
from dispatcher.mongo.webhooks import MongoWebhooks
from dispatcher.operations.audit import Audit
from dispatcher.operations.key_rotation import KeyRotation
from dispatcher.operations.rotation import SecretRotation
from dispatcher.operations.webhooks import Webhooks
from dispatcher.ports import AuditFilter
from tests.fakes.api_stack import URL, HttpsOnly
from tests.kafka_support import until
from tests.mongo_support import open_database

OLD, NEW = b"o" * 32, b"n" * 32
BEFORE, BOTH, AFTER = Keyring([OLD]), Keyring([NEW, OLD]), Keyring([NEW])
WEBHOOKS = 800


@pytest.fixture
async def connection(services, unique_name):
    async with open_database(services.mongo_uri, unique_name("keys")) as connection:
        yield connection


@pytest.fixture
def rotation(connection):
    audit = Audit(MongoAudit(connection.audit), SystemClock(), draw)
    return KeyRotation(MongoSealedWebhooks(connection.webhooks), BOTH, draw, audit)


def operation(connection, keyring):
    return Webhooks(MongoWebhooks(connection.webhooks), SystemClock(), HttpsOnly(), keyring, draw)


async def fill(connection, count=WEBHOOKS, workspaces=3):
    """Create webhooks with a secret and a key that name them; gives workspace and id of each."""
    webhooks, made = operation(connection, BEFORE), []
    for start in range(0, count, 50):
        wanted = range(start, min(count, start + 50))
        fields = [
            {"url": URL, "events": ["*"], "secret": f"the secret of {n:05}", "api_key": f"key-{n}"} for n in wanted
        ]
        created = await asyncio.gather(
            *(webhooks.create(f"ws_{n % workspaces}", sent) for n, sent in zip(wanted, fields, strict=True))
        )
        made += [each.webhook.subscription for each in created]
    return made


def opened(subscription, keyring=AFTER):
    """Open a webhook's secrets and key; raises where one needs another key."""
    workspace_id, webhook_id = subscription.workspace_id, subscription.id
    secret, key = (
        binding(workspace_id, webhook_id, each) for each in (SealPurpose.SIGNING_SECRET, SealPurpose.API_KEY)
    )
    secrets = [keyring.open(each.sealed, aad=secret).decode() for each in subscription.secrets]
    return secrets, keyring.open(subscription.api_key, aad=key).decode()


async def test_a_client_key_is_sealed_anew_as_well(connection, rotation):
    """The key of a webhook's client certificate opens with the new encryption key, and is the same."""
    leaf = trustme.CA().issue_cert(common_name="client")
    sent = {
        "url": URL,
        "events": ["*"],
        "client_certificate": leaf.cert_chain_pems[0].bytes().decode(),
        "client_key": leaf.private_key_pem.bytes().decode(),
    }
    made = (await operation(connection, BEFORE).create("ws", sent)).webhook.subscription
    assert (await rotation.rotate()).survey.is_done
    stored = (await MongoWebhooks(connection.webhooks).get("ws", made.id)).subscription
    assert stored.client_key != made.client_key
    aad = binding("ws", made.id, SealPurpose.CLIENT_KEY)
    assert AFTER.open(stored.client_key, aad=aad) == BEFORE.open(made.client_key, aad=aad)


async def test_rotation_beside_changes(connection, rotation):
    """While webhooks are changed, rotated and deleted, all are sealed anew: nothing is lost, nothing comes back."""
    made = await fill(connection)
    store, changes, secrets = MongoWebhooks(connection.webhooks), operation(connection, BOTH), {}
    rotating = SecretRotation(store, SystemClock(), BOTH, draw)

    async def change(every):
        for number in range(every, WEBHOOKS, 40):
            subscription = made[number]
            where = (subscription.workspace_id, subscription.id)
            if every == 0:
                await changes.update(*where, {"name": f"changed {number}"})
            elif every == 1:
                await changes.update(*where, {"api_key": f"new-{number}"})
            elif every == 2:
                await rotating.rotate(*where, {"secret": f"the new secret of {number}", "overlap_seconds": 3600})
            else:
                await changes.delete(*where)
            secrets[number] = every

    done, *_ = await asyncio.gather(rotation.rotate(), *(change(every) for every in range(4)))
    assert len(secrets) == WEBHOOKS // 10
    again = await rotation.rotate()  # what was created by an old process, had there been one
    assert (done.survey.is_done, again.values, again.survey.is_done) == (True, 0, True)
    for number, before in enumerate(made):
        stored = await store.get(before.workspace_id, before.id)
        kind = secrets.get(number)
        if kind == 3:
            assert stored is None
            continue
        texts, key = opened(stored.subscription)
        assert texts == [*([f"the new secret of {number}"] if kind == 2 else []), f"the secret of {number:05}"]
        assert key == (f"new-{number}" if kind == 1 else f"key-{number}")
        assert stored.name == (f"changed {number}" if kind == 0 else None)
        assert stored.subscription.endpoint_revision == before.endpoint_revision


async def test_a_change_begun_before_does_not_bring_the_former_key_back(connection, rotation):
    """A replacement made from what was read before the rotation is refused: it would store the former values again."""
    (made,) = await fill(connection, 1)
    store = MongoWebhooks(connection.webhooks)
    stale = await store.get(made.workspace_id, made.id)
    await rotation.rotate()
    assert not await store.replace(stale, expected_revision=made.revision)


async def test_workers_take_it_over(connection, rotation):
    """The index of a worker follows: it holds the new values, and nothing else of the webhook differs."""
    made = await fill(connection, 20)
    index = SubscriptionIndex()
    feed = SubscriptionFeed(connection.webhooks, index, SystemClock())
    running = asyncio.create_task(feed.run())
    try:
        await feed.ready()
        await rotation.rotate()
        await until(lambda: all(AFTER.is_current(each.secrets[0].sealed) for each in index), "the index follows")
    finally:
        running.cancel()
        await asyncio.wait({running})
    for number, before in enumerate(made):
        now = index.get(before.id)
        assert opened(now) == ([f"the secret of {number:05}"], f"key-{number}")
        same = {field.name for field in fields(Subscription)} - {"secrets", "api_key", "revision"}
        assert all(getattr(now, name) == getattr(before, name) for name in same)


async def test_killed_half_way_and_run_again(connection, services, rotation):
    """A killed command leaves each webhook whole under one key or the other; the next one does the rest."""
    made = await fill(connection)
    name = connection.database.name
    process = await command(services, name)
    sealed = MongoSealedWebhooks(connection.webhooks)

    async def current():
        found = [each async for batch in sealed.batches() for each in batch]
        return sum(BOTH.is_current(next(iter(each.values.values()))[1]) for each in found)

    while not await current():
        assert process.returncode is None, "it ended before it was killed"
    process.kill()
    await process.communicate()
    half = await rotation.survey()
    assert 0 < half.former < 2 * WEBHOOKS
    assert half.closed == half.unreadable == 0
    for subscription in made:
        stored = await MongoWebhooks(connection.webhooks).find(subscription.id)
        assert len({BOTH.is_current(stored.secrets[0].sealed), BOTH.is_current(stored.api_key)}) == 1
    audit = MongoAudit(connection.audit)
    assert (await audit.page("ws_0", AuditFilter(), None, 9)).rows
    process = await command(services, name, "--json")
    written, told = await process.communicate()
    assert process.returncode == 0, told
    answer = json.loads(written)
    assert (answer["sealed_anew"], answer["done"]) == (half.former, True)
    assert answer["keys"] == [{"id": BOTH.ids[0], "secrets": 2 * WEBHOOKS}, {"id": BOTH.ids[1], "secrets": 0}]
    for number, subscription in enumerate(made):
        stored = await MongoWebhooks(connection.webhooks).find(subscription.id)
        assert opened(stored) == ([f"the secret of {number:05}"], f"key-{number}")


async def command(services, database, *options):
    keys = ",".join(base64.b64encode(key).decode() for key in (NEW, OLD))
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "dispatcher", "secrets", "rotate-key", *options,
        env={**os.environ, "DISPATCHER_MONGO_URI": services.mongo_uri, "DISPATCHER_MONGO_DATABASE": database,
             "DISPATCHER_ENCRYPTION_KEYS": keys},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def test_webhooks_that_cannot_be_read(connection, rotation):
    """Broken documents are counted and named, and keep nobody else from being sealed anew."""
    made = await fill(connection, 2)
    await connection.webhooks.insert_many([{"_id": "wh_a"}, {"_id": "wh_b", "secrets": [{}], "revision": 1}])
    survey = (await rotation.rotate()).survey
    assert (survey.unreadable, set(survey.named), survey.former) == (2, {"wh_a", "wh_b"}, 0)
    for subscription in made:
        opened(await MongoWebhooks(connection.webhooks).find(subscription.id))
