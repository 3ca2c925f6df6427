"""Secrets that endpoints send back."""

import base64
import html
import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.echoes import EchoMask, shortest_of
from dispatcher.core.exchange import KEPT_BODY_BYTES

API_KEY = "k3y-of/acme+='\"<&>"
SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
PLAIN = SECRET.removeprefix("whsec_")
TOKENS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=8, max_size=60)


def in_code_points(text: str) -> str:
    """Escape all that System.Text.Json does."""
    return "".join(f"\\u{ord(char):04X}" if char in "&<>'\"+`" else char for char in text)


@pytest.mark.parametrize(
    "encoded",
    [
        pytest.param(lambda key: key, id="as it is"),
        pytest.param(lambda key: json.dumps({"X-API-Key": key}), id="json"),
        pytest.param(lambda key: json.dumps({"X-API-Key": key}).replace("/", "\\/"), id="json of PHP"),
        pytest.param(lambda key: f'{{"X-API-Key":"{in_code_points(key)}"}}', id="json of .NET"),
        pytest.param(
            lambda key: json.dumps(key).replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"),
            id="json of Go",
        ),
        pytest.param(lambda key: str({"X-API-Key": key}), id="repr of Python"),
        pytest.param(quote, id="path"),
        pytest.param(quote_plus, id="query"),
        pytest.param(lambda key: quote(key, safe="").replace("%2F", "%2f").replace("%2B", "%2b").replace("%3D", "%3d")
                     .replace("%3C", "%3c").replace("%3E", "%3e"), id="query in lower case"),
        pytest.param(html.escape, id="html"),
        pytest.param(lambda key: html.escape(key).replace("+", "&#43;"), id="html of Go"),
        pytest.param(lambda key: key.encode().hex(), id="hex"),
        pytest.param(lambda key: key.encode().hex().upper(), id="hex in upper case"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("secret", [API_KEY, SECRET])
def test_every_usual_form_of_a_secret_is_masked(encoded, secret):
    """A secret is masked in clear and in each form that frameworks show headers in, and the text around it stays."""
    body = f"before {encoded(secret)} after {encoded(secret)}.".encode()
    masked = EchoMask(["another secret", secret]).masked(body)
    assert encoded(secret.removeprefix("whsec_")).strip("{}'\"").split('": "')[-1].encode() not in masked
    assert masked.startswith(b"before ")
    assert masked.count(b"***") == 2
    assert b" after " in masked
    assert masked.endswith(b".")


@given(TOKENS, st.binary(max_size=20), st.binary(max_size=20), st.booleans())
def test_base64_at_any_place(secret, before, after, url_safe):
    """Of a secret inside base64, whatever stands around it, no more than two bytes at either end are left."""
    encode = base64.urlsafe_b64encode if url_safe else base64.b64encode
    raw = secret.encode()
    masked = EchoMask([secret]).masked(encode(before + raw + after))
    assert b"***" in masked
    kept_before, _, kept_after = masked.partition(b"***")
    # What is left decodes to what stood around, and to at most two bytes of the secret on each side.
    assert len(kept_before) * 6 <= (len(before) + 2) * 8 + 5
    assert len(kept_after.rstrip(b"=")) * 6 <= (len(after) + 2) * 8 + 5


@given(st.sampled_from([API_KEY, PLAIN]), st.integers(4, len(API_KEY) - 1))
def test_a_secret_that_the_bound_cuts_off(secret, kept):
    """A secret of which the kept part of a body has only the beginning is masked; in a shorter body it is not one."""
    end = secret[:kept].encode()
    body = b"x" * (KEPT_BODY_BYTES - len(end)) + end
    assert EchoMask([secret]).masked(body) == body[: -len(end)] + b"***"
    assert EchoMask([secret]).masked(body[1:]) == body[1:]


def test_a_beginning_within_the_body_stays():
    """What only begins as a secret does is left alone where the body goes on otherwise, also near its end."""
    body = b"x" * (KEPT_BODY_BYTES - 12) + PLAIN[:6].encode() + b"zzzzzz"
    assert EchoMask([SECRET]).masked(body) == body


@given(st.binary(max_size=200))
def test_what_holds_no_secret_stays(body):
    """A body without a secret is the very same."""
    assert EchoMask([API_KEY, SECRET]).masked(body) == body


def test_a_secret_within_another():
    """Of two secrets of which one holds the other, both are gone."""
    assert EchoMask(["abcdefgh", "abcdefgh-ijkl"]).masked(b"abcdefgh-ijkl abcdefgh") == b"*** ***"


def test_what_is_too_short_to_be_a_secret():
    """A key of three characters masks nothing; nothing of a body is looked at for it."""
    assert EchoMask(["abc", ""]).masked(b"abc abc") == b"abc abc"
    assert shortest_of(["abc", ""]) > KEPT_BODY_BYTES
    assert shortest_of(["abc", "abcdef", SECRET]) == 6


def test_repr_shows_no_secret():
    """What stands in a traceback or a log of the mask is no secret."""
    assert API_KEY not in repr(EchoMask([API_KEY]))
