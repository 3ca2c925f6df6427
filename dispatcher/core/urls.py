"""Endpoint URLs: what is accepted, and the parts that a request needs.

Source: RFC 3986 section 3.2, RFC 9110 section 4.2.
"""

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from dispatcher.core.errors import InvalidUrlError

MAX_URL_LENGTH = 2048

_UNSAFE = re.compile(r"[^\x21-\x7e]")
_NOT_IN_TARGET = re.compile(r'["<>\\^`{|}]')
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,62}(\.[A-Za-z0-9_-]{1,63})*)?\.?")
_BRACKETED = re.compile(r"\[[0-9A-Fa-f:.]+\](:[0-9]*)?")
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class EndpointUrl:
    """An endpoint URL, taken apart.

    Attributes:
        scheme: `http` or `https`.
        host: Lower-case ASCII name or IP literal, without brackets.
        port: 1 to 65535, the scheme's where the URL names none.
        target: Path and query as they stand in the request line.
        host_header: The Host header's value; brackets and a non-default port included.
    """

    scheme: str
    host: str
    port: int
    target: str
    host_header: str


def parse_endpoint_url(url: str) -> EndpointUrl:
    """Take an endpoint URL apart, refusing what must never reach the wire.

    Whether plain HTTP, its address and its port are allowed is the operator's policy and checked elsewhere.

    Args:
        url: An absolute http or https URL in ASCII; a name outside ASCII must come as punycode.

    Returns:
        Its parts.

    Raises:
        InvalidUrlError: It is too long, has control or non-ASCII characters, user information, a fragment,
            another scheme, no host or no valid port.
    """
    if len(url) > MAX_URL_LENGTH:
        raise InvalidUrlError(f"the URL is longer than {MAX_URL_LENGTH} characters")
    if _UNSAFE.search(url):
        raise InvalidUrlError(
            "the URL has a space, a control character or a character outside ASCII; "
            "percent-encode it, and write an international host name in punycode (xn--…)"
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InvalidUrlError("the URL's host or port can't be read; write https://host[:port]/path") from None
    if parts.scheme not in _DEFAULT_PORTS:
        raise InvalidUrlError("the URL must start with https:// (or http:// where the operator allows it)")
    if "#" in url:
        raise InvalidUrlError("the URL has a fragment (#…), which is never sent; leave it out")
    if "@" in parts.netloc:
        raise InvalidUrlError("the URL has a user name or password; use the api_key field instead")
    if port == 0:
        raise InvalidUrlError("port 0 can't be connected to")
    return _assemble(parts, port or _DEFAULT_PORTS[parts.scheme])


def _assemble(parts: SplitResult, port: int) -> EndpointUrl:
    host = (parts.hostname or "").lower()
    bracketed = "[" in parts.netloc
    if bracketed:
        try:
            if not _BRACKETED.fullmatch(parts.netloc):
                raise ValueError  # noqa: TRY301 - the same refusal as below
            host = str(ipaddress.IPv6Address(host))
        except ValueError:
            raise InvalidUrlError("the URL's [address] is no IPv6 address; zone ids are not accepted") from None
    elif not _HOST.fullmatch(host) or len(host) > 253:  # noqa: PLR2004 - RFC 1035's limit
        raise InvalidUrlError("the URL has no valid host name")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if _NOT_IN_TARGET.search(target):
        raise InvalidUrlError("the URL's path or query has one of \"<>\\^`{|}; percent-encode it")
    shown = f"[{host}]" if bracketed else host
    host_header = shown if port == _DEFAULT_PORTS[parts.scheme] else f"{shown}:{port}"
    return EndpointUrl(parts.scheme, host, port, target, host_header)
