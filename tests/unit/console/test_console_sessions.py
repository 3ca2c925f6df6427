"""Cookies of sessions and flashes."""

import base64

import pytest

from dispatcher.console.sessions import FLASH_SECONDS, SESSION_SECONDS, Flash, Sessions, shortened
from dispatcher.core.sealing import Keyring
from dispatcher.operations.api_keys import digest_of
from tests.fakes.api_stack import ManualClock, draws

KEY = "whk_secret-part"


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def sessions(clock):
    return Sessions(Keyring([b"k" * 32]), clock, draws())


def test_a_session_comes_back_from_its_cookie_until_it_ends(sessions, clock):
    """The cookie holds the key's digest and nothing that can be read; after 12 hours it is worth nothing."""
    session = sessions.begin(KEY)
    cookie = sessions.write(session)
    assert sessions.read(cookie) == session
    assert (session.key_digest, session.signed_in) == (digest_of(KEY), True)
    assert KEY.encode() not in base64.urlsafe_b64decode(cookie)
    clock.ms += SESSION_SECONDS * 1000 - 1
    assert sessions.read(cookie) == session
    clock.ms += 1
    assert sessions.read(cookie) is None


def test_what_was_changed_or_sealed_elsewhere_is_no_session(sessions, clock):
    """A cookie with one bit flipped, of another deployment, or made up, is refused."""
    cookie = sessions.write(sessions.begin(KEY))
    raw = bytearray(base64.urlsafe_b64decode(cookie))
    raw[-1] ^= 1
    elsewhere = Sessions(Keyring([b"x" * 32]), clock, draws())
    for made_up in (
        base64.urlsafe_b64encode(raw).decode(),
        "",
        "?",
        "Zm9v",
        "\udc80",
        elsewhere.write(sessions.begin()),
    ):
        assert sessions.read(made_up) is None


def test_a_flash_is_read_by_its_own_session_for_some_minutes(sessions, clock):
    """Neither another session nor a session's cookie reads as a flash, and an old one reads as nothing."""
    session, other = sessions.begin(KEY), sessions.begin(KEY)
    flash = Flash("Done.", "good", "whsec_x", "wh_1")
    cookie = sessions.write_flash(session, flash)
    assert sessions.read_flash(session, cookie) == flash
    assert sessions.read_flash(other, cookie) is None
    assert sessions.read_flash(session, sessions.write(session)) is None
    assert sessions.read(cookie) is None
    clock.ms += FLASH_SECONDS * 1000
    assert sessions.read_flash(session, cookie) is None


def test_forms_outlive_their_session(sessions):
    """A form's token is that of the key, whichever session it is; another key's, and the sign-in page's, are others."""
    first, second, other = sessions.begin(KEY), sessions.begin(KEY), sessions.begin("whk_other")
    assert first.token != second.token
    assert first.form_token == second.form_token != other.form_token
    assert digest_of(KEY).hex() not in first.form_token
    door = sessions.begin()
    assert door.form_token == door.token != sessions.begin().form_token


def test_no_secret_shows_in_a_representation():
    """Neither a token nor a secret gets into a log by way of repr."""
    sessions = Sessions(Keyring([b"k" * 32]), ManualClock(), draws())
    session = sessions.begin(KEY)
    assert session.token not in repr(session)
    assert "whsec_x" not in repr(Flash("Done.", secret="whsec_x"))


def test_long_texts_are_cut_for_the_cookie():
    """A flash keeps everything but the end of a long text."""
    cut = shortened(Flash("a" * 20, "bad", "s", "wh_1"), 10)
    assert cut == Flash("a" * 9 + "…", "bad", "s", "wh_1")
    assert shortened(cut, 10) is cut
