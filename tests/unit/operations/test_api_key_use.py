"""API keys."""

import hashlib

import pytest

from dispatcher.core.errors import InvalidInputError, NotFoundError, UnauthorizedError
from dispatcher.operations.api_keys import ApiKeys, allows
from tests.fakes.api_stack import START_MS, ManualClock, draws
from tests.fakes.stores import MemoryApiKeyStore


@pytest.fixture
def store():
    return MemoryApiKeyStore()


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def keys(store, clock):
    return ApiKeys(store, clock, draws())


async def test_only_the_hash_is_stored(keys, store):
    """The store holds the SHA-256 of the key's text, and its repr never shows the text."""
    created = await keys.create("acme", "ci", ["read"])
    assert created.plaintext.startswith("whk_")
    assert len(created.plaintext) == 4 + 43
    assert list(store.keys) == [hashlib.sha256(created.plaintext.encode()).digest()]
    assert created.plaintext not in repr(created)
    assert (await keys.authenticate(created.plaintext)) == created.key


@pytest.mark.parametrize(
    ("arguments", "fields"),
    [
        (("", None, ["read"], None), {"workspace_id"}),
        (("a b", None, ["read"], None), {"workspace_id"}),
        (("w" * 65, None, ["read"], None), {"workspace_id"}),
        (("acme", "", ["read"], None), {"name"}),
        (("acme", "n\n", ["read"], None), {"name"}),
        (("acme", None, [], None), {"scopes"}),
        (("acme", None, ["read", "root"], None), {"scopes"}),
        (("acme", None, ["read"], START_MS), {"expires_at"}),
        (("a b", "", ["root"], 1), {"workspace_id", "name", "scopes", "expires_at"}),
    ],
)
async def test_wrong_fields_are_all_named(keys, store, arguments, fields):
    """What is wrong is named, and no key is made."""
    with pytest.raises(InvalidInputError) as caught:
        await keys.create(*arguments)
    assert set(caught.value.fields) == fields
    assert not store.keys


async def test_a_busy_key_is_read_once_a_second(keys, store, clock):
    """Within a second of a read the key is remembered, then it is read again."""
    created = await keys.create("acme", None, ["read"])
    before = store.outage.calls
    for _ in range(5):
        await keys.authenticate(created.plaintext)
        clock.ms += 199
    assert store.outage.calls == before + 1
    clock.ms += 5
    await keys.authenticate(created.plaintext)
    assert store.outage.calls == before + 2


async def test_a_key_revoked_elsewhere_is_refused_within_a_second(keys, store, clock):
    """Another process' revocation takes effect when the remembered second is over."""
    created = await keys.create("acme", None, ["read"])
    await keys.authenticate(created.plaintext)
    store.keys.clear()
    clock.ms += 1000
    with pytest.raises(UnauthorizedError):
        await keys.authenticate(created.plaintext)


async def test_a_key_revoked_here_is_refused_at_once(keys):
    """This process forgets a key that it revokes."""
    created = await keys.create("acme", None, ["read"])
    await keys.authenticate(created.plaintext)
    with pytest.raises(NotFoundError):
        await keys.revoke("globex", created.key.id)
    await keys.authenticate(created.plaintext)
    await keys.revoke("acme", created.key.id)
    with pytest.raises(UnauthorizedError):
        await keys.authenticate(created.plaintext)


async def test_the_memory_is_bounded(keys):
    """However many keys are used, no more than a bounded number is remembered."""
    for _ in range(1100):
        await keys.authenticate((await keys.create("acme", None, ["read"])).plaintext)
    assert len(keys._found) <= 1024


async def test_use_is_written_down_once_it_can_be(keys, store, clock):
    """Use is noted in one write, and an outage only puts it off."""
    created = await keys.create("acme", None, ["read"])
    await keys.authenticate(created.plaintext)
    store.outage.down = True
    await keys.flush_last_used()
    store.outage.down = False
    clock.ms += 7
    await keys.flush_last_used()
    (listed,) = await keys.list("acme")
    assert listed.last_used_at_ms == clock.ms
    before = store.outage.calls
    await keys.flush_last_used()
    assert store.outage.calls == before


async def test_admin_implies_the_other_scopes(keys):
    """`admin` may do everything, any other scope only its own."""
    admin = (await keys.create("acme", None, ["admin"])).key
    writer = (await keys.create("acme", None, ["write"])).key
    assert all(allows(admin, scope) for scope in ("read", "write", "admin"))
    assert [allows(writer, scope) for scope in ("read", "write", "admin")] == [False, True, False]
