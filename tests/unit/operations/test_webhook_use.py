"""Creating and changing webhooks."""

import dataclasses

import pytest

from dispatcher.core.addresses import AddressPolicy
from dispatcher.core.errors import ConflictError, InvalidInputError
from dispatcher.core.sealing import Keyring
from dispatcher.operations.webhooks import Webhooks
from tests.fakes.api_stack import URL, HttpsOnly, ManualClock, draws
from tests.fakes.stores import MemoryWebhookStore

LEAST = {"url": URL, "events": ["user.created"]}


@pytest.fixture
def store():
    return MemoryWebhookStore()


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def webhooks(store, clock):
    return Webhooks(store, clock, HttpsOnly(), Keyring([b"k" * 32]), draws())


async def disable(store, webhook_id):
    webhook = store.webhooks[webhook_id]
    subscription = dataclasses.replace(
        webhook.subscription, status="disabled", revision=webhook.subscription.revision + 1
    )
    store.webhooks[webhook_id] = dataclasses.replace(
        webhook, subscription=subscription, disabled_reason="gone", disabled_at_ms=1
    )


@pytest.mark.parametrize("status", ["active", "inactive"])
async def test_setting_a_status_ends_disabled(webhooks, store, status):
    """A disabled webhook that is set active or inactive loses the reason with the status."""
    created = await webhooks.create("acme", LEAST)
    webhook_id = created.webhook.subscription.id
    await disable(store, webhook_id)
    changed = (await webhooks.update("acme", webhook_id, {"status": status})).webhook
    assert changed.subscription.status == status
    assert (changed.disabled_reason, changed.disabled_at_ms) == (None, None)


async def test_another_change_leaves_disabled_as_it_is(webhooks, store):
    """A disabled webhook stays so, with its reason, until its status is set."""
    webhook_id = (await webhooks.create("acme", LEAST)).webhook.subscription.id
    await disable(store, webhook_id)
    changed = (await webhooks.update("acme", webhook_id, {"name": "n"})).webhook
    assert (changed.subscription.status, changed.disabled_reason) == ("disabled", "gone")


@pytest.mark.parametrize(
    ("change", "begins_anew"),
    [
        ({"url": "https://new.example.com/"}, True),
        ({"status": "inactive"}, True),
        ({"name": "n"}, False),
        ({"url": LEAST["url"]}, False),
    ],
)
async def test_another_url_or_status_is_another_endpoint(webhooks, change, begins_anew):
    """How an endpoint fared before its owner changed URL or status counts no more; other changes leave it be."""
    before = (await webhooks.create("acme", LEAST)).webhook.subscription
    after = (await webhooks.update("acme", before.id, change)).webhook.subscription
    assert after.revision == 2
    assert after.endpoint_revision == (2 if begins_anew else before.endpoint_revision)


async def test_a_change_made_in_between_is_kept(webhooks, store):
    """Two changes at the same time both stand."""
    webhook_id = (await webhooks.create("acme", LEAST)).webhook.subscription.id
    races = [webhook_id]

    def race():
        if races:
            webhook = store.webhooks[races.pop()]
            subscription = dataclasses.replace(webhook.subscription, max_attempts=3, revision=2)
            store.webhooks[webhook_id] = dataclasses.replace(webhook, subscription=subscription)

    store.before_replace = race
    changed = (await webhooks.update("acme", webhook_id, {"name": "n"})).webhook
    assert (changed.name, changed.subscription.max_attempts, changed.subscription.revision) == ("n", 3, 3)


async def test_a_change_that_is_always_overtaken_gives_up(webhooks, store):
    """After a few tries it is a conflict, and nothing of it is stored."""
    webhook_id = (await webhooks.create("acme", LEAST)).webhook.subscription.id

    def race():
        webhook = store.webhooks[webhook_id]
        subscription = dataclasses.replace(webhook.subscription, revision=webhook.subscription.revision + 1)
        store.webhooks[webhook_id] = dataclasses.replace(webhook, subscription=subscription)

    store.before_replace = race
    with pytest.raises(ConflictError):
        await webhooks.update("acme", webhook_id, {"name": "n"})
    assert store.webhooks[webhook_id].name is None


async def test_an_empty_change_writes_nothing(webhooks, store, clock):
    """Nothing sent, nothing changed: neither revision nor time."""
    created = (await webhooks.create("acme", LEAST)).webhook
    clock.ms += 1
    assert (await webhooks.update("acme", created.subscription.id, {})).webhook is created


async def test_a_url_that_is_no_longer_allowed_does_not_hold_up_other_changes(webhooks, store):
    """Only what is sent is checked: a webhook whose URL the policy now refuses can still be renamed."""
    webhook_id = (await webhooks.create("acme", LEAST)).webhook.subscription.id
    webhook = store.webhooks[webhook_id]
    store.webhooks[webhook_id] = dataclasses.replace(webhook, url="https://private.example.com/")
    changed = (await webhooks.update("acme", webhook_id, {"name": "n"})).webhook
    assert changed.name == "n"


async def test_the_url_is_stored_whole_and_taken_apart(webhooks):
    """What is shown is what was sent; what is sent to is the parsed form."""
    webhook = (await webhooks.create("acme", {**LEAST, "url": "https://Example.COM:8443/a?b=c"})).webhook
    assert webhook.url == "https://Example.COM:8443/a?b=c"
    assert (webhook.subscription.url.host, webhook.subscription.url.port) == ("example.com", 8443)
    assert webhook.subscription.revision == 1


@pytest.mark.parametrize(
    "url", ["https://other.example.com/in", "https://hooks.example.com:8443/in", "http://hooks.example.com/in"]
)
async def test_a_stored_key_is_not_taken_to_another_origin(store, clock, url):
    """Another scheme, host or port needs the key again or null; without, nothing changes and its field is named."""
    webhooks = Webhooks(store, clock, AddressPolicy(allow_http=True), Keyring([b"k" * 32]), draws())
    created = await webhooks.create("acme", {**LEAST, "url": "https://hooks.example.com/in", "api_key": "sk_live_1"})
    webhook_id, before = created.webhook.subscription.id, created.webhook
    with pytest.raises(InvalidInputError) as caught:
        await webhooks.update("acme", webhook_id, {"url": url, "name": "n"})
    assert set(caught.value.fields) == {"api_key"}
    assert store.webhooks[webhook_id] is before
    assert webhooks.problems_of({"url": url}, before) == caught.value.fields
    given = (await webhooks.update("acme", webhook_id, {"url": url, "api_key": "sk_live_2"})).webhook
    assert (given.url, given.subscription.api_key is None) == (url, False)
    await webhooks.update("acme", webhook_id, {"url": "https://third.example.com/", "api_key": None})
    keyless = await webhooks.update("acme", webhook_id, {"url": "https://fourth.example.com/"})
    assert keyless.webhook.url == "https://fourth.example.com/"


async def test_a_key_goes_with_another_path_of_its_origin(webhooks):
    """The same scheme, host and port in another spelling, and another path, keep the key."""
    url = "https://hooks.example.com/in"
    webhook_id = (await webhooks.create("acme", {**LEAST, "url": url, "api_key": "sk_live_1"})).webhook.subscription.id
    for other in ("https://hooks.example.com/out?a=b", "https://HOOKS.example.com:443/"):
        changed = (await webhooks.update("acme", webhook_id, {"url": other})).webhook
        assert (changed.url, changed.subscription.api_key is not None) == (other, True)


async def test_a_key_whose_url_cannot_be_read(webhooks, store):
    """Where the stored URL can't be used any more, nobody knows whom the key was for: it is asked for again."""
    webhook_id = (await webhooks.create("acme", {**LEAST, "api_key": "sk_live_1"})).webhook.subscription.id
    webhook = store.webhooks[webhook_id]
    store.webhooks[webhook_id] = dataclasses.replace(
        webhook, subscription=dataclasses.replace(webhook.subscription, url=None)
    )
    with pytest.raises(InvalidInputError) as caught:
        await webhooks.update("acme", webhook_id, {"url": URL})
    assert set(caught.value.fields) == {"api_key"}


async def test_wrong_fields_are_named_beside_the_key(webhooks):
    """A change with other faults names them all at once; a URL that is refused is at fault for itself alone."""
    webhook_id = (await webhooks.create("acme", {**LEAST, "api_key": "sk_live_1"})).webhook.subscription.id
    webhook = await webhooks.get("acme", webhook_id)
    assert set(webhooks.problems_of({"url": "https://x.example.com/", "max_attempts": 0}, webhook)) == {
        "api_key",
        "max_attempts",
    }
    assert set(webhooks.problems_of({"url": "no url"}, webhook)) == {"url"}
    assert set(webhooks.problems_of({"url": None}, webhook)) == {"url"}


async def test_secrets_never_show_in_a_repr(webhooks):
    """Neither a created webhook's repr nor an error's text holds a secret."""
    created = await webhooks.create("acme", {**LEAST, "secret": "correct horse battery", "api_key": "sk_live_1"})
    assert "correct horse" not in repr(created)
    assert "sk_live_1" not in repr(created)
    with pytest.raises(InvalidInputError) as caught:
        await webhooks.create("acme", {**LEAST, "secret": "hunter2", "api_key": "pass word"})
    assert "hunter2" not in str(caught.value)
    assert "pass word" not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_ids_and_secrets_differ(webhooks):
    """Each webhook has an id, a secret and a nonce of its own."""
    made = [await webhooks.create("acme", LEAST) for _ in range(3)]
    assert len({created.webhook.subscription.id for created in made}) == 3
    assert len({created.secret for created in made}) == 3
    assert len({created.webhook.subscription.secrets[0].sealed[9:21] for created in made}) == 3


@pytest.mark.parametrize("url", ["http://example.com/", "https://127.1/", "https://[::1]/", "https://example.com:22/"])
async def test_the_operators_policy_is_asked(store, clock, url):
    """What the address policy refuses by its looks is refused as a wrong field."""
    webhooks = Webhooks(store, clock, AddressPolicy(), Keyring([b"k" * 32]), draws())
    with pytest.raises(InvalidInputError) as caught:
        await webhooks.create("acme", {**LEAST, "url": url})
    assert set(caught.value.fields) == {"url"}
    assert not store.webhooks
