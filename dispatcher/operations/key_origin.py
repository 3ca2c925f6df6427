"""A webhook's API key stays with the address that it was given for.

The key is write-only. Were it sent to whatever URL is set next, whoever may write could have it sent to a server of
their own and read it there.

Source: RFC 6454 (the web origin concept).
"""

from collections.abc import Mapping
from typing import Any

from dispatcher.core.errors import InvalidUrlError
from dispatcher.core.model import Subscription
from dispatcher.core.urls import EndpointUrl, parse_endpoint_url

_KEY_STAYS = (
    "the URL's scheme, host or port changes, and the stored key is not sent to another address by itself; "
    "give the key again with the URL, or null to send none"
)


def key_left_behind(sent: Any, before: Subscription) -> dict[str, str]:
    """Return what is wrong with a change that takes the stored API key to another origin: field to problem, or nothing.

    Args:
        sent: What the caller sent.
        before: The subscription that it changes.
    """
    if before.api_key is None or not isinstance(sent, Mapping) or "api_key" in sent:
        return {}
    url = sent.get("url")
    try:
        wanted = parse_endpoint_url(url) if isinstance(url, str) else None
    except InvalidUrlError:
        wanted = None
    if wanted is None:  # there is none, or it is refused for itself
        return {}
    return {} if before.url is not None and _origin(wanted) == _origin(before.url) else {"api_key": _KEY_STAYS}


def _origin(url: EndpointUrl) -> tuple[str, str, int]:
    return url.scheme, url.host, url.port
