"""What bad requests get: always a problem that says what to do, never a 5xx."""

import asyncio
import json
import zlib

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dispatcher.core.errors import UnavailableError
from tests.fakes.api_stack import URL, problems

JSON = {"Content-Type": "application/json"}

MALFORMED = [
    b"",
    b"{",
    b"nonsense",
    b'{"url": "x",}',
    b'{"max_attempts": NaN}',
    b'{"rate_limit": Infinity}',
    b'{"rate_limit": 1e999}',
    b'{"max_attempts": ' + b"9" * 5000 + b"}",
    b'{"name": "\xff\xfe"}',
    b'{"name": "\\ud800"}',
    b"\xef\xbb\xbf{}",
    b'{"name": "' + b"\x00" + b'"}',
    b"[" * 5000 + b"]" * 5000,
    b"[" * 1000 + b"]" * 1000,
    b'{"a":' * 1000 + b"1" + b"}" * 1000,
    b"{}{}",
]


@pytest.mark.parametrize("body", MALFORMED, ids=lambda body: repr(body[:20]))
async def test_malformed_json_is_a_400(api, body):
    """What is no JSON in the strict sense gets 400, in a new webhook and in a change."""
    created = await api.create()
    for method, path in (("POST", "/webhooks"), ("PATCH", f"/webhooks/{created['id']}")):
        response = await api.call(method, path, data=body, headers=JSON)
        assert response.status in (400, 422), await response.text()
        await problems(response)


@pytest.mark.parametrize("body", [b"[]", b"null", b"1", b'"text"', b"true", b"[" * 500 + b"]" * 500])
async def test_json_that_is_no_object_is_a_422(api, body):
    """A body that is JSON and no object is told to be one."""
    response = await api.call("POST", "/webhooks", data=body, headers=JSON)
    assert response.status == 422
    assert "object" in (await problems(response))[""]


async def test_a_name_that_comes_twice_is_refused(api):
    """A duplicate name is named rather than one of its values taken, at any depth."""
    body = b'{"url": "https://a.example.com", "events": [], "url": "https://b.example.com"}'
    response = await api.call("POST", "/webhooks", data=body, headers=JSON)
    assert response.status == 422
    assert set(await problems(response)) == {"url"}
    body = b'{"url": "https://a.example.com", "events": [], "headers": {"X-A": "1", "X-A": "2"}}'
    assert set(await problems(await api.call("POST", "/webhooks", data=body, headers=JSON))) == {"X-A"}


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16"]
)
async def test_another_media_type_is_a_415(api, content_type):
    """A body in another media type or character set is refused with the one to use."""
    response = await api.call("POST", "/webhooks", data=b"{}", headers={"Content-Type": content_type})
    assert response.status == 415
    await problems(response)


async def test_merge_patch_media_type_is_taken(api):
    """A change may come as application/merge-patch+json."""
    created = await api.create()
    headers = {"Content-Type": "application/merge-patch+json"}
    response = await api.call("PATCH", f"/webhooks/{created['id']}", data=b'{"name": "n"}', headers=headers)
    assert response.status == 200


@pytest.mark.parametrize("announced", [True, False])
async def test_an_oversize_body_is_a_413(api, announced):
    """A body over 64 KiB is refused, whether its length is announced or not."""
    body = b'{"name": "' + b"n" * 70_000 + b'"}'

    async def chunks():
        for start in range(0, len(body), 8192):
            yield body[start : start + 8192]

    response = await api.call("POST", "/webhooks", data=body if announced else chunks(), headers=JSON)
    assert response.status == 413
    await problems(response)


async def test_a_compressed_bomb_is_a_413(api):
    """A small body that grows beyond the limit when it is unpacked is refused."""
    bomb = zlib.compress(b'{"name": "' + b"n" * 20_000_000 + b'"}')
    response = await api.call("POST", "/webhooks", data=bomb, headers={**JSON, "Content-Encoding": "deflate"})
    assert response.status == 413


async def test_a_broken_content_coding_is_a_400(api):
    """A body that says it is gzip and isn't is refused."""
    response = await api.call("POST", "/webhooks", data=b"{}" * 50, headers={**JSON, "Content-Encoding": "gzip"})
    assert response.status == 400


@pytest.mark.parametrize("path", ["/nothing", "/webhooks/", "/webhooks/wh_1/nothing", "", "/webhooks/a/b/c/d"])
async def test_an_unknown_path_is_a_404_problem(api, path):
    """An unknown path says so, with a key or without."""
    for key in ("all", None):
        response = await api.call("GET", path, key=key)
        assert response.status == 404
        await problems(response)


async def test_a_path_outside_the_api_is_a_404_problem(api):
    """Outside /v1 the answer is a problem too."""
    response = await api.client.get("/favicon.ico")
    assert response.status == 404
    await problems(response)


async def test_a_wrong_method_is_a_405_that_lists_the_right_ones(api):
    """The Allow header lists what the path takes."""
    response = await api.call("PUT", "/webhooks", {})
    assert response.status == 405
    assert set(response.headers["Allow"].replace(" ", "").split(",")) == {"GET", "HEAD", "OPTIONS", "POST"}
    await problems(response)
    assert (await api.call("POST", "/webhooks/wh_1", {})).status == 405


async def test_options_lists_the_methods_without_a_key(api):
    """OPTIONS answers 204 with what the path takes, and nothing else."""
    for path, methods in (
        ("/webhooks", {"GET", "HEAD", "POST", "OPTIONS"}),
        ("/webhooks/wh_1", {"GET", "HEAD", "PATCH", "DELETE", "OPTIONS"}),
        ("/webhooks/wh_1/test", {"POST", "OPTIONS"}),
    ):
        response = await api.call("OPTIONS", path, key=None)
        assert (response.status, await response.read()) == (204, b"")
        assert set(response.headers["Allow"].split(", ")) == methods


async def test_head_answers_what_get_would_without_the_body(api):
    """HEAD has GET's status and headers, checks the key alike, and has no body."""
    path = f"/webhooks/{(await api.create())['id']}"
    shown, bare = await api.call("GET", path), await api.call("HEAD", path)
    assert (bare.status, await bare.read()) == (200, b"")
    for name in ("Content-Type", "Content-Length", "ETag"):
        assert bare.headers[name] == shown.headers[name]
    assert (await api.call("HEAD", path, key=None)).status == 401
    assert (await api.call("HEAD", path, key="write")).status == 403
    assert (await api.call("HEAD", "/webhooks/wh_1")).status == 404


async def test_an_unknown_expectation_is_a_417_problem(api):
    """What can't be met is refused before the body is read; 100-continue is met."""
    response = await api.call("POST", "/webhooks", {}, headers={"Expect": "miracles"})
    assert response.status == 417
    await problems(response)
    assert response.headers["X-Request-Id"] == (await response.json())["request_id"]
    response = await api.call("POST", "/webhooks", {"url": URL, "events": []}, expect100=True)
    assert response.status == 201


async def test_all_wrong_parameters_are_named_at_once(api):
    """Unknown, doubled, wrong filters and wrong paging stand in one answer."""
    path = f"/webhooks/{(await api.create())['id']}/deliveries"
    response = await api.call("GET", f"{path}?status=ok&since=today&typ=a&limit=0&until=x&until=y&cursor=")
    assert set(await problems(response)) == {"status", "since", "typ", "limit", "until", "cursor"}


async def test_a_call_without_parameters_takes_none(api):
    """A parameter that nobody reads is refused rather than ignored, also where nothing would be wrong with the body."""
    path = f"/webhooks/{(await api.create())['id']}"
    for method, place, body in (
        ("GET", path, None),
        ("PATCH", path, {"name": "n"}),
        ("POST", "/webhooks", {"url": URL, "events": []}),
        ("POST", f"{path}/rotate-secret", None),
        ("DELETE", path, None),
    ):
        response = await api.call(method, f"{place}?type=user.deleted", body)
        assert response.status == 422
        assert set(await problems(response)) == {"type"}
    assert (await (await api.call("GET", path)).json())["name"] is None


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("limit=0", {"limit"}),
        ("limit=201", {"limit"}),
        ("limit=x", {"limit"}),
        ("limit=%D9%A3", {"limit"}),
        ("limit=" + "9" * 5000, {"limit"}),
        ("cursor=", {"cursor"}),
        ("cursor=!!!", {"cursor"}),
        ("cursor=%FF%00", {"cursor"}),
        ("cursor=" + "A" * 600, {"cursor"}),
        ("limit=1&limit=2", {"limit"}),
        ("page=2&limit=0", {"page", "limit"}),
        ("%ED%A0%80=1", None),
    ],
)
async def test_a_wrong_query_names_its_parameters(api, query, fields):
    """Unknown, doubled and wrong parameters are named."""
    response = await api.client.get(
        "/v1/webhooks?" + query, headers={"Authorization": f"Bearer {api.keys['all']}"}, allow_redirects=False
    )
    assert response.status == 422, await response.text()
    found = await problems(response)
    assert fields is None or set(found) == fields


async def test_an_outage_is_a_503_that_says_when_to_come_back(api):
    """While MongoDB is out of reach every call answers 503 with Retry-After."""
    api.outage.down = True
    for method, path, body in (("GET", "/webhooks", None), ("POST", "/webhooks", {"url": URL, "events": []})):
        response = await api.call(method, path, body)
        assert response.status == 503
        assert int(response.headers["Retry-After"]) > 0
        await problems(response)
    api.outage.down = False
    assert (await api.call("GET", "/webhooks")).status == 200


async def test_what_nobody_foresaw_is_a_500_that_tells_nothing(api, monkeypatch):
    """A fault of the service is a problem with the request id and without its cause."""

    async def broken(*_args, **_options):
        raise RuntimeError("secret detail")

    monkeypatch.setattr(api.webhook_store, "page", broken)
    response = await api.call("GET", "/webhooks", headers={"X-Request-Id": "mine-1"})
    text = await response.text()
    assert response.status == 500
    assert "secret detail" not in text
    assert (await response.json())["request_id"] == "mine-1"


async def test_a_conflict_is_a_409(api, monkeypatch):
    """A change that others keep overtaking ends in 409."""
    created = await api.create()

    async def overtaken(*_args, **_options):
        return False

    monkeypatch.setattr(api.webhook_store, "replace", overtaken)
    response = await api.call("PATCH", f"/webhooks/{created['id']}", {"name": "n"})
    assert response.status == 409
    await problems(response)


async def test_every_answer_has_a_request_id(api):
    """A plain id of the caller's comes back, any other is replaced, and a problem repeats it."""
    response = await api.call("GET", "/webhooks", headers={"X-Request-Id": "trace.1_a-b"})
    assert response.headers["X-Request-Id"] == "trace.1_a-b"
    made = set()
    for sent in ("", "with space", "x" * 129, "ü"):
        response = await api.call("GET", "/nothing", headers={"X-Request-Id": sent})
        made.add(response.headers["X-Request-Id"])
        assert response.headers["X-Request-Id"].startswith("req_")
        assert (await response.json())["request_id"] == response.headers["X-Request-Id"]
    assert len(made) == 4


async def test_requests_are_logged_with_their_id(api):
    """A change and a failure are written down with id, status and key, without query string; a read only at debug."""
    created = await api.create()
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        await api.call("GET", "/webhooks", headers={"X-Request-Id": "one"})
        await api.call("PATCH", f"/webhooks/{created['id']}?q=hidden", {"name": 1}, headers={"X-Request-Id": "two"})
        await api.call("DELETE", f"/webhooks/{created['id']}", headers={"X-Request-Id": "three"})
        await api.call("GET", "/nothing", key=None, headers={"X-Request-Id": "four"})
    (key,) = [key.id for key in await api.api_keys.list("acme") if key.name == "all"]
    path = f"/v1/webhooks/{created['id']}"
    assert [(line["log_level"], line["method"], line["path"], line["status"], line["api_key"]) for line in lines] == [
        ("debug", "GET", "/v1/webhooks", 200, key),
        ("info", "PATCH", path, 422, key),
        ("info", "DELETE", path, 204, key),
        ("info", "GET", "/v1/nothing", 404, None),
    ]
    assert "hidden" not in str(lines)


async def test_lines_of_a_request_have_its_id(api, monkeypatch):
    """Whatever is logged while a request is served can be found by the id that its caller was told."""

    async def broken(*_args, **_options):
        raise RuntimeError("cause")

    monkeypatch.setattr(api.webhook_store, "page", broken)
    seen = []

    def note(_logger, _method, event):
        seen.append(structlog.contextvars.merge_contextvars(None, "", dict(event)))
        return event

    before = structlog.get_config()["processors"]
    structlog.configure(processors=[note, *before])
    try:
        await api.call("GET", "/webhooks", headers={"X-Request-Id": "mine-2"})
    finally:
        structlog.configure(processors=before)
    assert [(line["event"], line["request_id"]) for line in seen] == [
        ("request failed", "mine-2"),
        ("request", "mine-2"),
    ]
    assert "cause" in seen[0]["traceback"]


async def test_a_slow_body_is_a_408(api, monkeypatch):
    """A body that doesn't end is given up."""
    monkeypatch.setattr("dispatcher.api.bodies.READ_TIMEOUT_SECONDS", 0.05)
    stuck = asyncio.Event()

    async def chunks():
        yield b'{"url'
        await stuck.wait()

    response = await api.call("POST", "/webhooks", data=chunks(), headers=JSON)
    stuck.set()
    assert response.status == 408


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=8
)
FIELDS = st.sampled_from(
    [
        "name",
        "description",
        "url",
        "method",
        "content_type",
        "events",
        "status",
        "secret",
        "api_key",
        "api_key_header",
        "notification_type",
        "payload_format",
        "max_attempts",
        "headers",
        "timeout_seconds",
        "rate_limit",
    ]
)
NEARLY = st.sampled_from(["*", URL, ["user.created"], "inactive", "cloudevents", {"X-A": "b"}, {"X-A": None}, 5, None])
BODIES = st.dictionaries(FIELDS | st.text(max_size=8), VALUES | NEARLY, max_size=8)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=BODIES | VALUES)
async def test_no_json_body_makes_a_5xx(api, body):
    """Whatever JSON is sent to create or change a webhook, the answer is 2xx or 4xx."""
    if not hasattr(api, "victim"):
        api.victim = (await api.create())["id"]
    for method, path in (("POST", "/webhooks"), ("PATCH", f"/webhooks/{api.victim}")):
        response = await api.call(method, path, data=json.dumps(body).encode(), headers=JSON)
        assert response.status in (200, 201, 400, 422), await response.text()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=64))
async def test_no_bytes_make_a_5xx(api, body):
    """Whatever bytes are sent as JSON, the answer is 4xx."""
    response = await api.call("POST", "/webhooks", data=body, headers=JSON)
    assert response.status in (400, 422)


async def test_an_outage_of_the_key_store_is_no_401(api):
    """A key that can't be looked up isn't called unknown."""
    api.clock.ms += 5000
    api.outage.down = True
    with pytest.raises(UnavailableError):
        await api.api_keys.authenticate(api.keys["all"])
