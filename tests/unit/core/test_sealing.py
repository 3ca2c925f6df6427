"""Sealing: only the right key and the right place open a sealed value."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.errors import SealError
from dispatcher.core.sealing import Keyring, SealPurpose, binding, key_id_of

KEYS = st.binary(min_size=32, max_size=32)
NONCES = st.binary(min_size=12, max_size=12)
OLD, NEW, NONCE = b"o" * 32, b"n" * 32, b"0123456789ab"


@given(KEYS, NONCES, st.binary(), st.binary())
def test_what_was_sealed_opens(key, nonce, plaintext, aad):
    """A sealed value opens to what was sealed, and doesn't hold it in the clear."""
    keyring = Keyring([key])
    sealed = keyring.seal(plaintext, nonce=nonce, aad=aad)
    assert keyring.open(sealed, aad=aad) == plaintext
    assert len(sealed) == len(plaintext) + 37
    assert len(plaintext) < 8 or plaintext not in sealed[21:]


@given(st.binary(max_size=40), st.data())
def test_a_changed_byte_does_not_open(plaintext, data):
    """Whichever byte of a sealed value is changed, it doesn't open."""
    keyring = Keyring([NEW])
    sealed = bytearray(keyring.seal(plaintext, nonce=NONCE, aad=b"here"))
    sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(SealError):
        keyring.open(bytes(sealed), aad=b"here")


@given(st.binary(max_size=60))
def test_any_bytes_open_or_are_refused(sealed):
    """Bytes that nobody sealed end in SealError, never in another error."""
    with pytest.raises(SealError):
        Keyring([NEW]).open(sealed, aad=b"")


@given(st.lists(st.tuples(st.text(), st.text(), st.sampled_from(SealPurpose)), min_size=2, max_size=2, unique=True))
def test_a_value_opens_only_where_it_belongs(places):
    """A value that was copied to another workspace, subscription or purpose doesn't open there."""
    keyring = Keyring([NEW])
    here, there = (binding(*place) for place in places)
    sealed = keyring.seal(b"secret", nonce=NONCE, aad=here)
    with pytest.raises(SealError):
        keyring.open(sealed, aad=there)


def test_the_parts_of_a_place_cannot_be_shifted():
    """Where one name ends and the next begins is part of the binding."""
    assert binding("ab", "c", SealPurpose.API_KEY) != binding("a", "bc", SealPurpose.API_KEY)


def test_a_new_first_key_seals_and_the_old_ones_open():
    """After a new key was put in front, old values open and are told apart from current ones."""
    before, during, after = Keyring([OLD]), Keyring([NEW, OLD]), Keyring([NEW])
    old, new = (ring.seal(b"secret", nonce=NONCE, aad=b"") for ring in (before, during))
    assert during.open(old, aad=b"") == after.open(new, aad=b"") == b"secret"
    assert (during.is_current(old), during.is_current(new)) == (False, True)
    with pytest.raises(SealError, match="DISPATCHER_ENCRYPTION_KEYS"):
        after.open(old, aad=b"")


@pytest.mark.parametrize("keys", [[], [b"short"], [NEW, b"x" * 33]])
def test_keys_of_another_length_are_refused(keys):
    """A keyring has keys, and all of them have 32 bytes."""
    with pytest.raises(ValueError, match="32 bytes"):
        Keyring(keys)


def test_a_nonce_of_another_length_is_refused():
    """A nonce has 12 bytes."""
    with pytest.raises(ValueError, match="12 bytes"):
        Keyring([NEW]).seal(b"", nonce=b"short", aad=b"")


def test_no_key_is_shown():
    """Neither a key nor its id appears where a keyring is printed."""
    assert repr(Keyring([NEW, OLD])) == str(Keyring([NEW, OLD])) == "Keyring(2 keys)"


def test_keys_have_ids_that_tell_nothing():
    """A value says which key sealed it; ids are stable, short, differ, and aren't the key."""
    keys = [bytes([number]) * 32 for number in range(3)]
    ring = Keyring(keys)
    sealed = ring.seal(b"x", nonce=bytes(12), aad=b"")
    assert key_id_of(sealed) == ring.ids[0]
    assert ring.ids == Keyring(keys).ids
    assert len(set(ring.ids)) == 3
    assert all(len(each) == 16 and each not in key.hex() for each, key in zip(ring.ids, keys, strict=True))
    assert key_id_of(b"\x02" + sealed[1:]) == key_id_of(sealed[:20]) == ""
