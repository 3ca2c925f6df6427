"""What an operator is shown of strangers' bytes."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.masking import is_secret_name, legible, legible_json, masked, masked_bytes


@given(st.text())
def test_whatever_is_shown_prints_as_itself(text):
    """No control, no direction and nothing without width is left of any text; what prints stays as it is."""
    assert legible(text).isprintable()
    assert legible(text, lines=True).replace("\n", "").isprintable()
    if text.isprintable():
        assert legible(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;pwned\x07", "\\x1b]0;pwned\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("a\u202egnp.exe", "a\\u202egnp.exe"),
        ("\U000e0041", "\\U000e0041"),
        ("\ud800", "\\ud800"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("Grüße 東京", "Grüße 東京"),
    ],
)
def test_what_a_terminal_would_obey_is_written_out(text, shown):
    """Escape sequences in both spellings, letters that turn a line around, tags and halves of letters are escaped."""
    assert legible(text) == shown


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("secret whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw end", "MfKQ"),
        ("Authorization: Bearer abc.def-1 end", "abc.def"),
        ("authorization: bearer abc.def-1 end", "abc.def"),
        ("X-Webhook-Signature: sha256=0123456789abcdef0123 end", "0123456789"),
    ],
)
def test_texts_lose_what_looks_like_a_secret(text, hidden):
    """Signing secrets, bearer tokens and signatures are masked wherever they stand; the rest stays."""
    shown = masked(text)
    assert hidden not in shown
    assert shown.endswith("*** end")
    assert hidden.encode() not in masked_bytes(text.encode()) or "sha256" in text


def test_members_named_like_secrets_are_masked_at_any_depth():
    """Passwords, tokens and keys in a body are masked by their names, with all that is below; what is around stays."""
    value = {
        "password": "hush",
        "user": [{"apiKey": "k", "api_key": 1, "access_token": "t", "name": "n", "tokens": {"count": 2, "x": "y"}}],
        "keys": {"passwords": ["hush", "hush"]},
        "credentials": None,
        "secret": True,
    }
    assert legible_json(value) == {
        "password": "***",
        "user": [{"apiKey": "***", "api_key": "***", "access_token": "***", "name": "n", "tokens": "***"}],
        "keys": {"passwords": "***"},
        "credentials": None,
        "secret": True,
    }


@given(
    st.binary()
    | st.dictionaries(st.sampled_from(["password", "my_secret", "n"]), st.text()).map(json.dumps).map(str.encode)
)
def test_masked_bytes_keep_their_places(raw):
    """However much is masked, every byte stays where it was, so that an offset still points to it."""
    assert len(masked_bytes(raw)) == len(raw)


def test_bytes_that_are_no_json_lose_secrets_too():
    """A body that is cut off, or has a mistake, is masked by the look of its members."""
    raw = b'{"user_password" : "h\\"ush", "api-key":"k1", "n": "v", ,}'
    assert masked_bytes(raw) == b'{"user_password" : "******", "api-key":"**", "n": "v", ,}'
    raw = b'{"pin_token": -12.5e3, "secrets": ["a", "b"], "credentials": {"user": "u"}, "n": 7, "token": "cut'
    expected = b'{"pin_token": *******, "secrets": [********], "credentials": {***********}, "n": 7, "token": "***'
    assert masked_bytes(raw) == expected
    raw = b'{"tokens": {"a": ["]", {"b": "x"}], "c": "y"}, "n": 1,, "passwords": [["k'
    assert (
        masked_bytes(raw)
        == b'{"tokens": {' + b"*" * len(b'"a": ["]", {"b": "x"}], "c": "y"') + b'}, "n": 1,, "passwords": [***'
    )
    assert masked_bytes(b"Bearer abc whsec_def") == b"Bearer *** whsec_***"


@pytest.mark.parametrize(
    ("name", "secret"),
    [("ce_apitoken", True), ("ce_cookie", True), ("Authorization", True), ("ce_type", False), ("cookies", False)],
)
def test_headers_are_secret_by_their_names(name, secret):
    """A CloudEvents attribute's header counts by the attribute's name, any other by its own."""
    assert is_secret_name(name) is secret
