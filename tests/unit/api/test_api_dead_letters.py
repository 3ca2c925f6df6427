"""The calls about dead letters, over stores in memory."""

import dataclasses

import pytest

from dispatcher.core.delivery_log import DeliveryStatus, LoggedAttempt
from tests.fakes.api_stack import START_MS, problems
from tests.unit.api.test_api_deliveries import delivery

FAILED = DeliveryStatus.FAILED
HOUR_MS = 3_600_000


def letter(number, webhook_id="wh_1", **fields):
    """Make a failed delivery."""
    plain = {
        "status": FAILED,
        "response_code": 503,
        "reason": "attempts_exhausted",
        "error": "the endpoint answered 503",
    }
    return delivery(number, webhook_id, **{**plain, **fields})


@pytest.fixture
def letters(log):
    """Fill the log with dead letters of every kind, and what is none."""
    log.deliveries = [
        letter(1),
        letter(2, reason="gone", response_code=410),
        letter(3, "wh_2", response_code=0, error="connection refused"),
        letter(4, event_type="team.member.added", response_code=500),
        letter(5, created_at_ms=START_MS + HOUR_MS),
        letter(6, handled_at_ms=START_MS),
        letter(7, workspace_id="globex"),
        letter(8, test=True),
        delivery(9, "wh_1"),
        delivery(10, "wh_1", status=DeliveryStatus.RETRYING),
    ]
    return log.deliveries


def numbers(page):
    """Give the numbers of the deliveries of a page."""
    return [int(row["id"][4:]) for row in page["data"]]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", [5, 4, 3, 2, 1]),
        ("?subscription=wh_2", [3]),
        ("?type=team.member.added", [4]),
        ("?reason=gone", [2]),
        ("?response_code=503", [5, 1]),
        ("?response_code=5xx", [5, 4, 1]),
        ("?response_code=none", [3]),
        ("?since=2026-01-15T10:30:03Z", [5, 4, 3]),
        ("?until=2026-01-15T10:30:03Z", [2, 1]),
        ("?response_code=5XX&until=2026-01-15T10:30:04Z", [1]),
        ("?reason=expired", []),
    ],
)
async def test_filters_narrow_list_and_counts_alike(api, letters, query, expected):
    """Each filter leaves what it names; handled, tested and delivered ones, and other workspaces', are never there."""
    page = await (await api.call("GET", f"/dead-letters{query}")).json()
    assert numbers(page) == expected
    summary = await (await api.call("GET", f"/dead-letters/summary{query}")).json()
    assert (summary["total"], summary["complete"]) == (len(expected), True)
    for name in ("by_reason", "by_subscription", "by_type", "by_response_code", "by_hour"):
        assert sum(each["count"] for each in summary[name]) == len(expected)


async def test_counts_name_what_there_is(api, letters):
    """Counts are by reason, webhook, type, status code and hour; each value is what the filter takes."""
    summary = await (await api.call("GET", "/dead-letters/summary")).json()
    assert summary["by_reason"] == [{"value": "attempts_exhausted", "count": 4}, {"value": "gone", "count": 1}]
    assert summary["by_subscription"] == [{"value": "wh_1", "count": 4}, {"value": "wh_2", "count": 1}]
    assert summary["by_type"][1] == {"value": "team.member.added", "count": 1}
    assert {each["value"]: each["count"] for each in summary["by_response_code"]} == {
        "503": 2,
        "none": 1,
        "410": 1,
        "500": 1,
    }
    assert summary["by_hour"] == [
        {"value": "2026-01-15T11:00:00Z", "count": 1},
        {"value": "2026-01-15T10:00:00Z", "count": 4},
    ]


async def test_wrong_filters_are_all_named(api):
    """Every wrong filter is named at once, in the list and in the counts, which take no paging."""
    query = "subscription=&type=a%20b&reason=lost&response_code=5x&since=yesterday"
    for path in ("/dead-letters", "/dead-letters/summary"):
        response = await api.call("GET", f"{path}?{query}")
        assert response.status == 422
        assert set(await problems(response)) == {"subscription", "type", "reason", "response_code", "since"}
    assert set(await problems(await api.call("GET", "/dead-letters/summary?limit=5"))) == {"limit"}
    assert set(await problems(await api.call("GET", "/dead-letters?status=failed"))) == {"status"}


async def test_pages_follow_each_other(api, log):
    """Every dead letter is listed once over all pages."""
    log.deliveries = [letter(number) for number in range(7)]
    seen, cursor = [], ""
    while cursor is not None:
        page = await (await api.call("GET", f"/dead-letters?limit=3{cursor and '&cursor=' + cursor}")).json()
        seen += numbers(page)
        cursor = page["next_cursor"]
    assert seen == [6, 5, 4, 3, 2, 1, 0]


async def test_one_is_shown_with_its_attempts(api, letters):
    """One has attempts, webhook and mark; what is no dead letter of this workspace is a 404."""
    letters[0].attempts = [LoggedAttempt("", 1, FAILED, START_MS, 5.0, 503, "the endpoint answered 503", b"down")]
    shown = await (await api.call("GET", "/dead-letters/del_001")).json()
    assert (shown["webhook_id"], shown["handled_at"]) == ("wh_1", None)
    assert [made["response_body"] for made in shown["attempts"]] == ["down"]
    assert (await (await api.call("GET", "/dead-letters/del_006")).json())["handled_at"] == "2026-01-15T10:30:00Z"
    for number in ("007", "008", "009", "010", "099"):
        response = await api.call("GET", f"/dead-letters/del_{number}")
        assert response.status == 404
        await problems(response)


async def test_selection_is_marked_and_leaves_the_lists(api, letters):
    """A purge marks what its fields choose, in this workspace; a second one finds nothing more."""
    response = await api.call("POST", "/dead-letters/purge", {"subscription": "wh_1", "response_code": "5xx"})
    assert await response.json() == {"handled": 3, "more": False}
    assert numbers(await (await api.call("GET", "/dead-letters")).json()) == [3, 2]
    again = await api.call("POST", "/dead-letters/purge", {"subscription": "wh_1", "response_code": "5xx"})
    assert (await again.json())["handled"] == 0
    some = await api.call("POST", "/dead-letters/purge", {"delivery_ids": ["del_003", "del_003", "del_007"]})
    assert (await some.json())["handled"] == 1
    assert numbers(await (await api.call("GET", "/dead-letters", key="other")).json()) == [7]


async def test_purge_is_written_down_once_it_did_something(api, letters):
    """The audit log says who marked how many of what; a purge that found nothing is no change."""
    await api.call("POST", "/dead-letters/purge", {"reason": "gone"})
    await api.call("POST", "/dead-letters/purge", {"reason": "gone"})
    log = await (await api.call("GET", "/audit-log?action=dead_letters.purge", key="admin")).json()
    (entry,) = log["data"]
    assert (entry["target_id"], entry["actor"]["name"]) == ("acme", "all")
    assert {change["field"]: change["after"] for change in entry["changes"]} == {"reason": "gone", "count": 1}


async def test_selection_goes_out_as_a_job(api, letters):
    """A replay is a job of the workspace with what was asked for; it can be shown and cancelled like any other."""
    created = await api.create()
    api.clock.ms += 60_000
    sent = {
        "subscription": created["id"],
        "reason": "gone",
        "response_code": "4XX",
        "type": "user.created",
        "rate": 2.5,
    }
    response = await api.call("POST", "/dead-letters/replay", sent)
    job = await response.json()
    assert (response.status, response.headers["Location"]) == (202, f"/v1/replays/{job['id']}")
    assert (job["source"], job["webhook_id"], job["rate"], job["delivery_status"]) == (
        "dead_letters",
        created["id"],
        2.5,
        "failed",
    )
    assert job["dead_letters"] == {
        "type": "user.created",
        "reason": "gone",
        "response_code": "4xx",
        "delivery_ids": None,
    }
    assert (job["since"], job["until"]) == ("1970-01-01T00:00:00Z", "2026-01-15T10:31:00Z")
    assert await (await api.call("GET", f"/replays/{job['id']}")).json() == job
    assert (await api.call("GET", f"/replays/{job['id']}", key="other")).status == 404
    span = {"since": "2026-01-15T10:00:00Z", "until": "2099-01-01T00:00:00Z"}
    whole = await (await api.call("POST", "/dead-letters/replay", span)).json()
    assert (whole["webhook_id"], whole["since"], whole["rate"]) == (None, span["since"], None)
    assert whole["until"] == "2026-01-15T10:31:00Z"
    some = await (await api.call("POST", "/dead-letters/replay", {"delivery_ids": ["del_2", "del_1", "del_2"]})).json()
    assert some["dead_letters"]["delivery_ids"] == ["del_2", "del_1"]
    log = await (await api.call("GET", f"/audit-log?target={job['id']}", key="admin")).json()
    changes = {change["field"]: change["after"] for change in log["data"][0]["changes"]}
    assert (changes["source"], changes["reason"], changes["rate"]) == ("dead_letters", "gone", 2.5)


@pytest.mark.parametrize("call", ["replay", "purge"])
@pytest.mark.parametrize(
    ("sent", "wrong"),
    [
        ({}, {"since"}),
        ({"reason": None}, {"since"}),
        (
            {"subscription": "", "type": "a b", "reason": "lost", "response_code": "9", "since": "x", "until": 1},
            {"subscription", "type", "reason", "response_code", "since", "until"},
        ),
        ({"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}, {"until"}),
        ({"delivery_ids": []}, {"delivery_ids"}),
        ({"delivery_ids": [f"del_{number}" for number in range(201)]}, {"delivery_ids"}),
        ({"delivery_ids": ["del_1", ""]}, {"delivery_ids.1"}),
        ({"reasons": "gone"}, {"reasons"}),
    ],
)
async def test_wrong_selections_are_refused(api, letters, call, sent, wrong):
    """A selection of nothing in particular, or with wrong fields, does nothing and names each of them."""
    response = await api.call("POST", f"/dead-letters/{call}", sent)
    assert response.status == 422
    assert set(await problems(response)) == wrong
    assert len(numbers(await (await api.call("GET", "/dead-letters")).json())) == 5


@pytest.mark.parametrize("rate", [0, 0.05, 101, "5", True])
async def test_rate_is_within_bounds(api, letters, rate):
    """A rate that is no number of the range is named, for every kind of replay."""
    created = await api.create()
    response = await api.call("POST", "/dead-letters/replay", {"reason": "gone", "rate": rate})
    assert (response.status, set(await problems(response))) == (422, {"rate"})
    span = {"since": "2026-01-01T00:00:00Z", "until": "2026-01-02T00:00:00Z", "rate": rate}
    response = await api.call("POST", f"/webhooks/{created['id']}/replay", span)
    assert (response.status, set(await problems(response))) == (422, {"rate"})


async def test_replay_of_a_webhook_needs_one_that_is_there_and_active(api, letters):
    """One that is unknown or isn't active is a conflict that says so; a time to come is a wrong field."""
    created = await api.create()
    unknown = await api.call("POST", "/dead-letters/replay", {"subscription": "wh_none"})
    assert (unknown.status, "is no webhook" in (await unknown.json())["detail"]) == (409, True)
    other = await api.call("POST", "/dead-letters/replay", {"subscription": created["id"]}, key="other")
    assert (other.status, "is no webhook" in (await other.json())["detail"]) == (409, True)
    stored = api.webhook_store.webhooks[created["id"]]
    subscription = dataclasses.replace(stored.subscription, status="disabled")
    api.webhook_store.webhooks[created["id"]] = dataclasses.replace(stored, subscription=subscription)
    response = await api.call("POST", "/dead-letters/replay", {"subscription": created["id"]})
    assert response.status == 409
    assert "set its status to active" in (await response.json())["detail"]
    future = await api.call("POST", "/dead-letters/replay", {"since": "2026-01-15T10:30:00Z"})
    assert (future.status, set(await problems(future))) == (422, {"since"})


@pytest.mark.parametrize(
    ("method", "path", "key", "scope"),
    [
        ("GET", "/dead-letters", "write", "read"),
        ("GET", "/dead-letters/summary", "write", "read"),
        ("GET", "/dead-letters/del_001", "write", "read"),
        ("POST", "/dead-letters/replay", "read", "write"),
        ("POST", "/dead-letters/purge", "read", "write"),
    ],
)
async def test_each_call_needs_its_scope(api, letters, method, path, key, scope):
    """Whoever may only read replays and purges nothing, and the other way round."""
    response = await api.call(method, path, {"reason": "gone"} if method == "POST" else None, key=key)
    assert response.status == 403
    assert scope in (await response.json())["detail"]


async def test_outages_are_told_as_such(api, letters, outage):
    """While MongoDB is away each call says when to come back."""
    await api.call("GET", "/dead-letters")
    outage.down = True
    for method, path in (("GET", "/dead-letters/summary"), ("POST", "/dead-letters/purge")):
        response = await api.call(method, path, {"reason": "gone"} if method == "POST" else None)
        assert (response.status, "Retry-After" in response.headers) == (503, True)
