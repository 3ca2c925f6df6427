"""Which static headers a webhook may add to its requests.

Source: RFC 9110 section 5.1 (names), 5.5 (values).
"""

import re

MAX_HEADERS = 20
MAX_VALUE_LENGTH = 1024

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
_VALUE = re.compile(r"[\x20-\x7e]*")

_SET_BY_DISPATCHER = frozenset(
    {
        "accept",
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "date",
        "expect",
        "host",
        "keep-alive",
        "te",
        "traceparent",
        "tracestate",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
    }
)
_SET_BY_DISPATCHER_PREFIXES = ("x-webhook-", "x-signature", "webhook-", "proxy-", "ce-")
_CREDENTIALS = frozenset({"authorization", "cookie", "x-api-key"})


def _either_case(word: str) -> str:
    return "".join(f"[{letter.upper()}{letter}]" if letter.isalpha() else letter for letter in word)


_FORBIDDEN = "|".join(
    (
        *(f"{_either_case(name)}$" for name in sorted(_SET_BY_DISPATCHER | _CREDENTIALS)),
        *(_either_case(prefix) for prefix in _SET_BY_DISPATCHER_PREFIXES),
    )
)
NAME_PATTERN = f"^(?!{_FORBIDDEN})[!#$%&'*+.^_`|~0-9A-Za-z-]{{1,100}}$"
"""What `check_header_name` accepts, as a pattern that Python and JavaScript read alike."""

VALUE_PATTERN = "^(?:[!-~](?:[ -~]*[!-~])?)?$"
"""What `check_header_value` accepts, apart from the length."""


def check_header_name(name: str) -> str:
    """Return a static header's name as it is.

    Raises:
        ValueError: It is no header name, or one that is not the owner's to set; the text says what to do.
    """
    lowered = name.lower()
    if not _NAME.fullmatch(name):
        raise ValueError("is no header name: use letters, digits and hyphens, at most 100 of them")
    if lowered in _CREDENTIALS:
        raise ValueError(
            "carries credentials, and static headers are listed in the clear: "
            "put the key in api_key, and choose its header with api_key_header"
        )
    if lowered in _SET_BY_DISPATCHER or lowered.startswith(_SET_BY_DISPATCHER_PREFIXES):
        raise ValueError("is set by the dispatcher itself; choose another name, such as X-My-Header")
    return name


def check_header_value(value: str) -> str:
    """Return a static header's value as it is.

    Raises:
        ValueError: It would not go over the wire unchanged; the text says what to do.
    """
    if len(value) > MAX_VALUE_LENGTH:
        raise ValueError(f"is longer than {MAX_VALUE_LENGTH} characters; shorten it")
    if not _VALUE.fullmatch(value) or value != value.strip(" "):
        raise ValueError("use printable ASCII characters, with no space at either end and no line break")
    return value


def check_headers(headers: dict[str, str | None]) -> dict[str, str | None]:
    """Return static headers as they are, if no name comes twice (names ignore case).

    Raises:
        ValueError: A name comes twice.
    """
    seen: set[str] = set()
    for name in headers:
        if name.lower() in seen:
            raise ValueError(f"has {name} twice (header names ignore case); send it once")
        seen.add(name.lower())
    return headers


def merge_headers(
    present: tuple[tuple[str, str], ...], sent: dict[str, str | None] | None
) -> tuple[tuple[str, str], ...]:
    """Merge sent headers into the present ones as a JSON merge patch does, ignoring the names' case.

    Args:
        present: What the webhook has.
        sent: Name to new value, None removing it; None altogether removes every header.

    Source: RFC 7396 section 2.
    """
    if sent is None:
        return ()
    merged = {name.lower(): (name, value) for name, value in present}
    for name, value in sent.items():
        if value is None:
            merged.pop(name.lower(), None)
        else:
            merged[name.lower()] = (name, value)
    return tuple(merged.values())
