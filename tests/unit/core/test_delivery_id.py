"""The delivery id: its form, and that it is the same for the same delivery and no other."""

import base64
import hashlib
import re
import struct

from hypothesis import assume, given
from hypothesis import strategies as st

from dispatcher.core.delivery_id import DeliveryIds

texts = st.text(st.characters(exclude_categories=()), max_size=12)
quadruples = st.tuples(texts, texts, texts, texts)


def derived(parts: tuple[str, str, str, str]) -> str:
    return DeliveryIds(*parts[:3]).of(parts[3])


def independently(parts: tuple[str, str, str, str]) -> str:
    raw = [part.encode("utf-8", "surrogatepass") for part in parts]
    digest = hashlib.sha256(b"".join(struct.pack(">I", len(part)) + part for part in raw)).digest()
    return "del_" + base64.b32encode(digest).decode()[:26].lower()


def test_a_known_id():
    """The id of one delivery is this one for ever: replays of years later depend on it."""
    assert DeliveryIds("acme", "", "evt_1").of("wh_1") == "del_5lbqgedzfrx45ptzpqs2pttdot"


@given(quadruples)
def test_is_the_digest_in_base32(parts):
    """The id is del_ and the first 26 base32 characters of SHA-256 over the length-prefixed parts."""
    assert derived(parts) == independently(parts)


@given(quadruples)
def test_has_its_form(parts):
    """Whatever the parts are, the id is del_ and 26 characters that any header, URL and key can hold."""
    assert re.fullmatch(r"del_[a-z2-7]{26}", derived(parts))


@given(quadruples, quadruples)
def test_different_deliveries_have_different_ids(one, other):
    """Two deliveries that differ in any part have different ids."""
    assume(one != other)
    assert derived(one) != derived(other)


@given(texts.filter(bool), st.integers(0, 2))
def test_text_that_moves_to_the_next_part_changes_the_id(text, place):
    """The parts can't run into one another: moving text from one to the next gives another id."""
    one, other = [""] * 4, [""] * 4
    one[place] = other[place + 1] = text
    assert derived(tuple(one)) != derived(tuple(other))


def test_one_event_derives_many_ids():
    """Deriving one subscription's id leaves that of the next unchanged, in whatever order."""
    ids = DeliveryIds("acme", "/users", "evt_1")
    forward = [ids.of(name) for name in ("wh_1", "wh_2", "wh_3")]
    assert [ids.of(name) for name in ("wh_3", "wh_2", "wh_1")] == forward[::-1]
    assert len(set(forward)) == 3
