"""Every rule about a webhook's fields, as a caller meets it."""

import pytest

from tests.fakes.api_stack import URL, problems

WRONG = [
    ("url", None),
    ("url", 7),
    ("url", "not a url"),
    ("url", "http://hooks.example.com/"),
    ("url", "https://private.example.com/"),
    ("url", "https://user:pass@example.com/"),
    ("url", "https://example.com/" + "a" * 3000),
    ("name", 1),
    ("name", ""),
    ("name", "two\nlines"),
    ("name", "n" * 201),
    ("description", ["x"]),
    ("description", "bell\x07"),
    ("method", "GET"),
    ("method", "post"),
    ("content_type", "text/plain"),
    ("content_type", "application/cloudevents+json"),
    ("events", "user.created"),
    ("events", {"0": "user.created"}),
    ("events", [f"t.{number}" for number in range(101)]),
    ("status", "disabled"),
    ("status", True),
    ("secret", "short"),
    ("secret", "s" * 257),
    ("secret", "control\x00" + "s" * 20),
    ("api_key", ""),
    ("api_key", "two words"),
    ("api_key", "umlaut-ü"),
    ("api_key", "line\nbreak"),
    ("api_key", "k" * 513),
    ("api_key_header", "X-Other"),
    ("notification_type", "GRPC"),
    ("payload_format", "xml"),
    ("max_attempts", 0),
    ("max_attempts", 21),
    ("max_attempts", "6"),
    ("max_attempts", 6.5),
    ("max_attempts", True),
    ("max_attempts", 10**300),
    ("headers", ["X-A: b"]),
    ("headers", {f"X-{number}": "v" for number in range(21)}),
    ("headers", {"X-A": "1", "x-a": "2"}),
    ("timeout_seconds", 0),
    ("timeout_seconds", 31),
    ("timeout_seconds", 2.5),
    ("rate_limit", 0),
    ("rate_limit", -1),
    ("rate_limit", 1e300),
    ("rate_limit", "5"),
    ("rate_limit", True),
    ("surprise", 1),
    ("id", "wh_1"),
    ("created_at", "2026-01-15T10:30:00Z"),
    ("api_key_set", True),
]

WRONG_HEADERS = [
    "Content-Type",
    "content-length",
    "HOST",
    "Connection",
    "Transfer-Encoding",
    "User-Agent",
    "X-Webhook-Id",
    "x-webhook-anything",
    "X-Signature",
    "X-Signature-256",
    "webhook-id",
    "traceparent",
    "Accept-Encoding",
    "Authorization",
    "X-API-Key",
    "bad name",
    "bad:name",
    "ümlaut",
    "",
]


@pytest.mark.parametrize(("field", "value"), WRONG, ids=lambda value: str(value)[:30])
async def test_a_wrong_field_is_named_and_nothing_is_stored(api, field, value):
    """A wrong value ends in 422 that names this field alone, in a new webhook and in a change."""
    response = await api.call("POST", "/webhooks", {"url": URL, "events": [], field: value})
    assert response.status == 422, await response.text()
    found = await problems(response)
    assert list(found) == [field]
    assert len(found[field]) > 10
    assert (await (await api.call("GET", "/webhooks")).json())["data"] == []
    created = await api.create()
    response = await api.call("PATCH", f"/webhooks/{created['id']}", {field: value})
    assert response.status == 422
    assert list(await problems(response)) == [field]


@pytest.mark.parametrize("name", WRONG_HEADERS)
async def test_a_header_that_is_not_the_owners_to_set_is_named(api, name):
    """A static header that the dispatcher sets, that carries a credential or is no header name is refused."""
    response = await api.call("POST", "/webhooks", {"url": URL, "events": [], "headers": {name: "v", "X-Fine": "v"}})
    assert response.status == 422
    assert list(await problems(response)) == [f"headers.{name}"]


@pytest.mark.parametrize("value", ["line\r\nbreak", "tab\t", "ü", " edge", "edge ", "\x00", "v" * 1025, 5, []])
async def test_a_header_value_that_would_not_pass_unchanged_is_named(api, value):
    """A static header's value is printable ASCII."""
    response = await api.call("POST", "/webhooks", {"url": URL, "events": [], "headers": {"X-Mine": value}})
    assert response.status == 422
    assert list(await problems(response)) == ["headers.X-Mine"]


@pytest.mark.parametrize("pattern", ["", "user.", ".*", "user*", "*.created", "a b", "ü", "t" * 129, 5, None, ["x"]])
async def test_a_wrong_event_pattern_is_named_by_its_place(api, pattern):
    """Only types, `prefix.*` and `*` may stand in events, apart from what the type rule itself allows."""
    response = await api.call("POST", "/webhooks", {"url": URL, "events": ["user.created", pattern]})
    if pattern == "user.":
        assert response.status == 201  # a dot at the end is well-formed by the rule for types
        return
    assert response.status == 422
    assert list(await problems(response)) == ["events.1"]


async def test_all_wrong_fields_are_named_at_once(api):
    """One answer names every wrong field: types, bounds, unknown ones, places in lists, and contradictions."""
    body = {
        "url": "ftp://x",
        "events": ["fine", "not fine", 3],
        "method": "GET",
        "max_attempts": 99,
        "headers": {"Host": "x", "X-Ok": "ok", "X-Bad": "\n"},
        "payload_format": "cloudevents",
        "content_type": "application/x-www-form-urlencoded",
        "evnts": [],
        "api_key": " ",
    }
    response = await api.call("POST", "/webhooks", body)
    found = await problems(response)
    assert set(found) == {
        "url",
        "events.1",
        "events.2",
        "method",
        "max_attempts",
        "headers.Host",
        "headers.X-Bad",
        "content_type",
        "evnts",
        "api_key",
    }
    assert "did you mean events" in found["evnts"]
    assert "PUT" in found["method"]
    assert "20" in found["max_attempts"]


async def test_missing_fields_are_named(api):
    """An empty object is told what every webhook needs."""
    response = await api.call("POST", "/webhooks", {})
    found = await problems(response)
    assert set(found) == {"url", "events"}
    assert all("required" in words for words in found.values())


async def test_a_wrong_secret_is_not_echoed(api):
    """What is refused as a secret or an API key isn't repeated in the answer."""
    body = {"url": URL, "events": [], "secret": "hunter2", "api_key": "pass word"}
    text = await (await api.call("POST", "/webhooks", body)).text()
    assert "hunter2" not in text
    assert "pass word" not in text


async def test_thousands_of_unknown_fields_are_cut_short(api):
    """The answer stays small however much is wrong."""
    response = await api.call("POST", "/webhooks", {f"f{number}": 1 for number in range(4000)})
    assert response.status == 422
    assert len(await response.read()) < 64 * 1024


async def test_headers_are_counted_after_the_merge(api):
    """A change that would make too many headers is refused, one that removes as many as it adds is not."""
    created = await api.create(headers={f"X-{number}": "v" for number in range(20)})
    path = f"/webhooks/{created['id']}"
    assert (await api.call("PATCH", path, {"headers": {"X-New": "v"}})).status == 422
    assert (await api.call("PATCH", path, {"headers": {"X-New": "v", "X-0": None}})).status == 200


async def test_limits_themselves_are_accepted(api):
    """The values at the edge of each rule pass."""
    created = await api.create(
        max_attempts=20,
        timeout_seconds=30,
        rate_limit=0.001,
        secret="s" * 16,
        api_key="k" * 512,
        name="👨‍👩‍👧 " + "n" * 190,
        description="two\nlines",
        events=[f"t.{number}" for number in range(100)],
        headers={f"X-{number}": "" for number in range(20)},
        status="inactive",
        api_key_header="Authorization",
    )
    assert created["status"] == "inactive"
    assert created["rate_limit"] == 0.001


async def test_a_secret_that_only_looks_like_a_standard_one_is_warned_of(api):
    """`whsec_` followed by something else than base64 is accepted with a warning."""
    created = await api.create(secret="whsec_this is not base64")
    assert [warning["field"] for warning in created["warnings"]] == ["secret"]
    assert (await api.create(secret="whsec_" + "QUJD" * 8))["warnings"] == []
