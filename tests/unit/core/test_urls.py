"""Endpoint URLs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.core.errors import InvalidUrlError
from dispatcher.core.urls import MAX_URL_LENGTH, EndpointUrl, parse_endpoint_url


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("https://example.com", ("https", "example.com", 443, "/", "example.com")),
        ("HTTPS://Example.COM:443/A?b=c", ("https", "example.com", 443, "/A?b=c", "example.com")),
        ("http://example.com:8080?x=1", ("http", "example.com", 8080, "/?x=1", "example.com:8080")),
        ("https://example.com:80/", ("https", "example.com", 80, "/", "example.com:80")),
        ("https://example.com.:/", ("https", "example.com.", 443, "/", "example.com.")),
        ("https://[2606:4700::1111]:8443/x", ("https", "2606:4700::1111", 8443, "/x", "[2606:4700::1111]:8443")),
        ("https://[::FFFF:1.2.3.4]/", ("https", "::ffff:102:304", 443, "/", "[::ffff:102:304]")),
        ("https://a_b.xn--bcher-kva.example/%20", ("https", "a_b.xn--bcher-kva.example", 443, "/%20", None)),
    ],
)
def test_a_url_is_taken_apart(url, parts):
    """Scheme, host, port, request target and Host header come out as they go on the wire."""
    scheme, host, port, target, host_header = parts
    assert parse_endpoint_url(url) == EndpointUrl(scheme, host, port, target, host_header or host)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com/hook",
        "//example.com/",
        "ftp://example.com/",
        "https://",
        "https:///hook",
        "https:example.com",
        "https://user:password@example.com/",
        "https://user@example.com/",
        "https://@example.com/",
        "https://example.com/#part",
        "https://example.com/#",
        "https://example.com:0/",
        "https://example.com:65536/",
        "https://example.com:+80/",
        "https://example.com:8x/",
        "https://exam ple.com/",
        "https://example.com/a b",
        "https://example.com/\r\nX-Evil: 1",
        "https://example.com/\x00",
        "https://example.com/\x7f",
        "https://exämple.com/",
        "https://example.com\\@evil.example/",
        "https://example.com/a\\b",
        'https://example.com/"',
        "https://exa%6dple.com/",
        "https://a..b/",
        "https://.example.com/",
        "https://-example.com/",
        "https://example.com../",
        "https://" + "a" * 64 + ".com/",
        "https://" + "a." * 127 + "com/",
        "https://[::1/",
        "https://::1/",
        "https://[fe80::1%25eth0]/",
        "https://[fe80::1%eth0]/",
        "https://[v1.a]/",
        "https://[127.0.0.1]/",
        "https://[::1]evil.example/",
        "https://evil.example[::1]/",
        "https://example.com/" + "a" * MAX_URL_LENGTH,
    ],
)
def test_what_must_not_reach_the_wire_is_refused(url):
    """Control characters, credentials, fragments, zone ids and ambiguous hosts are refused with a sentence."""
    with pytest.raises(InvalidUrlError, match=r"\w+ \w+"):
        parse_endpoint_url(url)


@given(st.text(max_size=60).map(lambda text: "https://" + text) | st.text(max_size=80))
def test_any_text_is_refused_or_safe(text):
    """Whatever the text, what is accepted can't break out of the request line or the Host header."""
    try:
        url = parse_endpoint_url(text)
    except InvalidUrlError:
        return
    assert all("\x21" <= character <= "\x7e" for character in url.target + url.host_header)
    assert url.target.startswith("/") or url.target.startswith("?")
    assert "@" not in url.host
    assert "/" not in url.host
    assert 1 <= url.port <= 65535
    again = parse_endpoint_url(f"{url.scheme}://{url.host_header}{url.target}")
    assert again == url
