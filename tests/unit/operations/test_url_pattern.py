"""The pattern of endpoint URLs, as the API's document shows it, promises nothing that is then refused."""

import re

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from dispatcher.core.urls import MAX_URL_LENGTH, parse_endpoint_url
from dispatcher.operations.url_pattern import LONG_HOST_PATTERN, URL_PATTERN


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=200)
@given(st.from_regex(URL_PATTERN[1:-1], fullmatch=True))
def test_what_matches_is_an_endpoint(url):
    """Whatever matches, and has no longer name than DNS knows, is read as an endpoint's URL."""
    assume(len(url) <= MAX_URL_LENGTH)
    assume(not re.match(LONG_HOST_PATTERN, url))
    assert parse_endpoint_url(url).host


def test_a_name_that_is_too_long_is_told_apart():
    """254 characters are one too many, whatever follows them."""
    name = ".".join(["a" * 62] * 4)
    assert not re.match(LONG_HOST_PATTERN, f"https://{name}aa/in?q=1")
    assert re.match(LONG_HOST_PATTERN, f"https://{name}aaa/in?q=1")
