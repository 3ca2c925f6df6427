"""Stored secrets under a new encryption key."""

import itertools
from dataclasses import replace

import pytest

from dispatcher.core.errors import UnavailableError
from dispatcher.core.sealing import Keyring, SealPurpose, binding
from dispatcher.operations.audit import Audit
from dispatcher.operations.key_rotation import MAX_NAMED, KeyRotation
from dispatcher.ports import AuditFilter, SealedWebhook
from tests.fakes.api_stack import ManualClock, draws
from tests.fakes.sealed import MemorySealedStore
from tests.fakes.stores import MemoryAuditStore

OLD, NEW, LOST = b"o" * 32, b"n" * 32, b"l" * 32
BOTH = Keyring([NEW, OLD])
ONLY_NEW = Keyring([NEW])
ANYONE = AuditFilter()


def webhook(number: int, key: bytes = OLD, workspace: str = "acme") -> SealedWebhook:
    """Make one with a current secret, one that overlaps, and an API key."""
    webhook_id = f"wh_{number}"

    def sealed(purpose, text):
        nonce = number.to_bytes(12, "big")
        return purpose, Keyring([key]).seal(text, nonce=nonce, aad=binding(workspace, webhook_id, purpose))

    values = {
        "secrets.0.sealed": sealed(SealPurpose.SIGNING_SECRET, b"secret"),
        "secrets.1.sealed": sealed(SealPurpose.SIGNING_SECRET, b"former secret"),
        "api_key": sealed(SealPurpose.API_KEY, b"api key"),
    }
    return SealedWebhook(webhook_id, workspace, 7, values)


def opened(stored: SealedWebhook, keyring: Keyring = ONLY_NEW) -> list[bytes]:
    return [
        keyring.open(sealed, aad=binding(stored.workspace_id, stored.id, purpose))
        for purpose, sealed in stored.values.values()
    ]


@pytest.fixture
def audit_store():
    return MemoryAuditStore()


@pytest.fixture
def rotation_of(audit_store):
    def make(store, keyring=BOTH):
        draw = draws()
        return KeyRotation(store, keyring, draw, Audit(audit_store, ManualClock(), draw))

    return make


async def test_everything_opens_without_the_former_key(rotation_of):
    """Each value is sealed with the first key and opens to what it was; the revision counts up once a webhook."""
    store = MemorySealedStore(*(webhook(number) for number in range(8)), webhook(8, NEW))
    done = await rotation_of(store).rotate()
    assert (done.webhooks, done.values) == (8, 24)
    for stored in store.webhooks.values():
        assert opened(stored) == [b"secret", b"former secret", b"api key"]
        assert stored.revision == (7 if stored.id == "wh_8" else 8)
    assert dict(done.survey.values) == {BOTH.ids[0]: 27, BOTH.ids[1]: 0}
    assert (done.survey.webhooks, done.survey.former, done.survey.is_done) == (9, 0, True)


async def test_no_nonce_is_used_twice(rotation_of):
    """Each value gets a nonce of its own, another one than before."""
    store = MemorySealedStore(*(webhook(number) for number in range(4)))
    await rotation_of(store).rotate()
    nonces = [sealed[9:21] for stored in store.webhooks.values() for _, sealed in stored.values.values()]
    assert len(set(nonces)) == 12


async def test_a_second_run_changes_nothing(rotation_of, audit_store):
    """What is done is left alone, and told of once."""
    store = MemorySealedStore(webhook(1))
    await rotation_of(store).rotate()
    before = dict(store.webhooks)
    assert (await rotation_of(store).rotate()).values == 0
    assert store.webhooks == before
    assert len((await audit_store.page("acme", ANYONE, None, 9)).rows) == 1


async def test_a_survey_changes_nothing(rotation_of):
    """Counting says what each key has sealed, and leaves it so."""
    store = MemorySealedStore(webhook(1), webhook(2, NEW))
    before, seen = dict(store.webhooks), []
    survey = await rotation_of(store).survey(seen.append)
    assert dict(survey.values) == {BOTH.ids[0]: 3, BOTH.ids[1]: 3}
    assert (survey.former, survey.is_done, seen) == (3, False, [2])
    assert store.webhooks == before


async def test_broken_off_and_run_again(rotation_of, audit_store):
    """A run that ends half way has lost nothing and is in the audit log; the next one does the rest."""
    store = MemorySealedStore(*(webhook(number) for number in range(9)))
    store.reseals_left = 4
    with pytest.raises(UnavailableError):
        await rotation_of(store).rotate()
    assert all(opened(stored, BOTH) == [b"secret", b"former secret", b"api key"] for stored in store.webhooks.values())
    assert len((await audit_store.page("acme", ANYONE, None, 9)).rows) == 1
    store.reseals_left = 9
    done = await rotation_of(store).rotate()
    assert (done.webhooks, done.survey.is_done) == (5, True)


async def test_a_change_in_between_stands(rotation_of):
    """A webhook that is changed at the same moment keeps that change, and is sealed anew all the same."""
    store = MemorySealedStore(webhook(1), webhook(2))
    races = {"wh_1"}

    def race(webhook_id):
        if webhook_id in races:
            races.remove(webhook_id)
            stored = store.webhooks[webhook_id]
            purpose = SealPurpose.API_KEY
            aad = binding("acme", webhook_id, purpose)
            changed = (purpose, Keyring([OLD]).seal(b"another key", nonce=bytes(12), aad=aad))
            store.webhooks[webhook_id] = replace(stored, revision=8, values={**stored.values, "api_key": changed})

    store.before_reseal = race
    assert (await rotation_of(store).rotate()).survey.is_done
    assert opened(store.webhooks["wh_1"]) == [b"secret", b"former secret", b"another key"]
    assert store.webhooks["wh_1"].revision == 9


async def test_a_process_that_still_seals_with_the_former_key_is_noticed(rotation_of):
    """Where somebody keeps bringing the former key back, the rotation ends and says that it isn't done."""
    store = MemorySealedStore(webhook(1))
    revisions = itertools.count(8)

    def race(webhook_id):
        store.webhooks[webhook_id] = replace(webhook(1), revision=next(revisions))

    store.before_reseal = race
    done = await rotation_of(store).rotate()
    assert (done.survey.former, done.survey.is_done) == (3, False)


async def test_a_webhook_that_goes_meanwhile(rotation_of):
    """One that is deleted before it is sealed anew is no fault."""
    store = MemorySealedStore(webhook(1))
    store.before_reseal = lambda webhook_id: store.webhooks.pop(webhook_id, None)
    done = await rotation_of(store).rotate()
    assert (done.webhooks, done.survey.webhooks, done.survey.is_done) == (0, 0, True)


async def test_what_cannot_be_opened_is_named_and_left(rotation_of):
    """Values of a key that isn't set, values from elsewhere and broken webhooks are counted, named, and not touched."""
    moved = replace(webhook(2), id="wh_moved")  # its values are bound to wh_2
    broken = SealedWebhook("wh_broken", "acme", 0, None)
    store = MemorySealedStore(webhook(1, LOST), moved, broken, webhook(3))
    done = await rotation_of(store).rotate()
    survey = done.survey
    assert (done.webhooks, survey.closed, survey.unreadable, survey.is_done) == (1, 6, 1, False)
    assert set(survey.named) == {"wh_1", "wh_moved", "wh_broken"}
    assert opened(store.webhooks["wh_1"], Keyring([LOST])) == [b"secret", b"former secret", b"api key"]
    assert store.webhooks["wh_moved"] == moved


async def test_the_part_of_a_webhook_that_opens_is_sealed_anew(rotation_of):
    """One value that no key opens doesn't keep the others of its webhook under the former key."""
    stored = webhook(1)
    lost = webhook(1, LOST).values["api_key"]
    store = MemorySealedStore(replace(stored, values={**stored.values, "api_key": lost}))
    survey = (await rotation_of(store).rotate()).survey
    assert (survey.closed, survey.former, survey.values[BOTH.ids[0]]) == (1, 0, 2)
    assert store.webhooks["wh_1"].values["api_key"] == lost


async def test_as_many_are_named_as_can_be_read(rotation_of):
    """Of many that can't be opened all are counted and some are named."""
    store = MemorySealedStore(*(webhook(number, LOST) for number in range(MAX_NAMED + 5)))
    survey = await rotation_of(store).survey()
    assert (survey.closed, len(survey.named)) == (3 * (MAX_NAMED + 5), MAX_NAMED)


async def test_each_workspace_is_told_once(rotation_of, audit_store):
    """The audit log of each workspace whose secrets were sealed anew has one entry, which names the key by its id."""
    store = MemorySealedStore(webhook(1), webhook(2), webhook(3, workspace="other"), webhook(4, NEW, "untouched"))
    await rotation_of(store).rotate()
    for workspace, count in (("acme", 1), ("other", 1), ("untouched", 0)):
        rows = (await audit_store.page(workspace, ANYONE, None, 9)).rows
        assert [(row.action, row.target_id, row.actor.kind) for row in rows] == [
            ("secrets.rotate_key", BOTH.ids[0], "command_line")
        ] * count


def test_a_sealed_webhook_shows_no_values():
    """Not even sealed values stand in a repr."""
    assert "values" not in repr(webhook(1))
