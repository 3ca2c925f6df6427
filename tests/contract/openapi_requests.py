"""What of a request no JSON Schema can say: schemathesis loads this and mends the requests that it makes up.

Only what would be right otherwise is touched: a wrong value stays wrong.

- A key of idempotency is new for each new request.
- A span of time ends after it begins, and a replay's begins in the past; a key expires in the future.
- A client certificate is left out where it only looks like one.
- Endpoints are on this machine: test events are really sent.
"""

import itertools
import os
import re
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import schemathesis

from dispatcher.api.idempotency import IDEMPOTENCY_KEY_HEADER
from dispatcher.api.idempotency import KEY_PATTERN as IDEMPOTENCY_PATTERN
from dispatcher.core.urls import MAX_URL_LENGTH
from dispatcher.operations.client_certificates import (
    CERTIFICATE_PATTERN,
    KEY_PATTERN,
    MAX_CERTIFICATE_LENGTH,
    MAX_KEY_LENGTH,
)
from dispatcher.operations.times import parse_rfc3339
from dispatcher.operations.url_pattern import LONG_HOST_PATTERN, URL_PATTERN

_ENDPOINT = os.environ["CONTRACT_ENDPOINT"]
_SINCE, _UNTIL, _FAR = "2026-01-15T00:00:00Z", "2026-01-16T00:00:00Z", "2999-01-01T00:00:00Z"
_numbers = itertools.count(1)


@schemathesis.hook
def before_call(_context: Any, case: Any, **_options: Any) -> None:
    """Mend a request that is about to be sent."""
    key = (case.headers or {}).get(IDEMPOTENCY_KEY_HEADER)
    if isinstance(key, str) and re.fullmatch(IDEMPOTENCY_PATTERN[1:-1], key):
        case.headers[IDEMPOTENCY_KEY_HEADER] = f"{key[:247]}{next(_numbers):08}"
    for sent in (case.query, case.body):
        if isinstance(sent, dict):
            _mend_times(sent, _now_ms() if case.method == "POST" else None)
    if isinstance(case.body, dict):
        _drop_certificates(case.body)
    if isinstance(case.body, dict) and _is_endpoint(case.body.get("url")):
        case.body["url"] = _on_this_machine(case.body["url"])


def _drop_certificates(body: dict[str, Any]) -> None:
    """Leave out what only looks like PEM: a certificate needs its key and an https endpoint."""
    looks = {
        "client_certificate": (CERTIFICATE_PATTERN, MAX_CERTIFICATE_LENGTH),
        "client_key": (KEY_PATTERN, MAX_KEY_LENGTH),
    }
    for name, (pattern, longest) in looks.items():
        value = body.get(name)
        if isinstance(value, str) and len(value) <= longest and re.search(pattern, value):
            del body[name]


def _now_ms() -> int:
    return int(datetime.now(UTC).timestamp() * 1000)


def _mend_times(sent: dict[str, Any], latest_ms: int | None) -> None:
    since, until, expires = (_time(sent.get(name)) for name in ("since", "until", "expires_at"))
    is_late = since is not None and latest_ms is not None and since >= latest_ms
    if is_late or (since is not None and until is not None and since >= until):
        sent["since"] = _SINCE
        if until is not None:
            sent["until"] = _UNTIL
    if expires is not None and expires <= _now_ms() + 3_600_000:
        sent["expires_at"] = _FAR


def _time(value: Any) -> int | None:
    try:
        return parse_rfc3339(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _is_endpoint(url: Any) -> bool:
    return (
        isinstance(url, str)
        and len(url) <= MAX_URL_LENGTH
        and re.fullmatch(URL_PATTERN[1:-1], url) is not None
        and not re.match(LONG_HOST_PATTERN, url)
    )


def _on_this_machine(url: str) -> str:
    parts = urlsplit(url)
    target = url[url.index(parts.netloc) + len(parts.netloc) :]
    return f"{_ENDPOINT}{target}"[:MAX_URL_LENGTH]
