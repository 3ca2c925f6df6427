"""The calls about a webhook's deliveries."""

import pytest

from dispatcher.core.delivery_log import DeliveryStatus, LoggedAttempt, LoggedDelivery
from dispatcher.core.model import Origin
from tests.fakes.api_stack import START_MS, problems


def delivery(number: int, webhook_id: str, **fields) -> LoggedDelivery:
    values = {
        "delivery_id": f"del_{number:03}",
        "workspace_id": "acme",
        "subscription_id": webhook_id,
        "event_id": f"evt_{number}",
        "event_type": "user.created",
        "source": "",
        "origin": Origin("events", 0, number, START_MS),
        "status": DeliveryStatus.DELIVERED,
        "created_at_ms": START_MS + number * 1000,
        "updated_at_ms": START_MS + number * 1000 + 5,
        "attempts_made": 1,
        "duration_ms": 12.3456,
        "response_code": 200,
        "error": "",
        "reason": "",
        "next_attempt_at_ms": None,
        "run": "",
        "test": False,
    }
    return LoggedDelivery(**{**values, **fields})


async def test_rows_show_the_summary(api, log):
    """A row has the latest step's outcome; no response shows as null."""
    created = await api.create()
    log.deliveries = [
        delivery(1, created["id"]),
        delivery(
            2,
            created["id"],
            status=DeliveryStatus.RETRYING,
            response_code=0,
            error="connection refused",
            next_attempt_at_ms=START_MS + 60_000,
        ),
    ]
    page = await (await api.call("GET", f"/webhooks/{created['id']}/deliveries")).json()
    assert page["next_cursor"] is None
    assert page["data"] == [
        {
            "id": "del_002",
            "event_id": "evt_2",
            "event_type": "user.created",
            "status": "retrying",
            "response_code": None,
            "response_time_ms": 12.346,
            "attempts_made": 1,
            "created_at": "2026-01-15T10:30:02Z",
            "updated_at": "2026-01-15T10:30:02.005Z",
            "next_attempt_at": "2026-01-15T10:31:00Z",
            "error": "connection refused",
            "reason": None,
            "test": False,
            "replay_id": None,
        },
        {
            "id": "del_001",
            "event_id": "evt_1",
            "event_type": "user.created",
            "status": "delivered",
            "response_code": 200,
            "response_time_ms": 12.346,
            "attempts_made": 1,
            "created_at": "2026-01-15T10:30:01Z",
            "updated_at": "2026-01-15T10:30:01.005Z",
            "next_attempt_at": None,
            "error": None,
            "reason": None,
            "test": False,
            "replay_id": None,
        },
    ]


async def test_the_detail_has_every_attempt_in_order(api, log):
    """Attempts come oldest first, with their bodies as text whatever their bytes."""
    created = await api.create()
    attempts = [
        LoggedAttempt("", 2, DeliveryStatus.DELIVERED, START_MS + 9, 5.0, 200, "", b"OK \xff"),
        LoggedAttempt("", 1, DeliveryStatus.RETRYING, START_MS, 10_000.0, 0, "timed out", b""),
    ]
    log.deliveries = [delivery(1, created["id"], attempts=attempts, attempts_made=2)]
    detail = await (await api.call("GET", f"/webhooks/{created['id']}/deliveries/del_001")).json()
    assert (detail["id"], detail["attempts_made"]) == ("del_001", 2)
    assert detail["attempts"] == [
        {
            "attempt": 1,
            "at": "2026-01-15T10:30:00Z",
            "status": "retrying",
            "response_code": None,
            "response_time_ms": 10000.0,
            "response_body": "",
            "error": "timed out",
            "replay_id": None,
        },
        {
            "attempt": 2,
            "at": "2026-01-15T10:30:00.009Z",
            "status": "delivered",
            "response_code": 200,
            "response_time_ms": 5.0,
            "response_body": "OK �",
            "error": None,
            "replay_id": None,
        },
    ]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("status=failed", ["del_002"]),
        ("type=team.member.added", ["del_003"]),
        ("since=2026-01-15T10:30:03Z", ["del_004", "del_003"]),
        ("until=2026-01-15T11:30:02%2B01:00", ["del_001"]),
        ("since=2026-01-15T10:30:02Z&until=2026-01-15T10:30:03Z", ["del_002"]),
        ("status=pending", []),
    ],
)
async def test_filters_narrow_the_list(api, log, query, expected):
    """Each filter leaves only what it names."""
    created = await api.create()
    log.deliveries = [
        delivery(1, created["id"]),
        delivery(2, created["id"], status=DeliveryStatus.FAILED),
        delivery(3, created["id"], event_type="team.member.added"),
        delivery(4, created["id"]),
        delivery(5, "wh_other"),
        delivery(6, created["id"], workspace_id="globex"),
    ]
    page = await (await api.call("GET", f"/webhooks/{created['id']}/deliveries?{query}")).json()
    assert [row["id"] for row in page["data"]] == expected


async def test_wrong_filters_are_all_named(api):
    """Every wrong filter is named at once with what to send; what can't be compared isn't."""
    created = await api.create()
    query = "status=lost&type=a%20b&since=yesterday&until=2026-13-01T00:00:00Z"
    response = await api.call("GET", f"/webhooks/{created['id']}/deliveries?{query}")
    assert response.status == 422
    found = await problems(response)
    assert set(found) == {"status", "type", "since", "until"}
    assert "delivered" in found["status"]
    query = "since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z"
    assert set(await problems(await api.call("GET", f"/webhooks/{created['id']}/deliveries?{query}"))) == {"until"}


async def test_pages_of_deliveries_follow_each_other(api, log):
    """Every delivery is listed once over all pages."""
    created = await api.create()
    log.deliveries = [delivery(number, created["id"]) for number in range(7)]
    seen, cursor = [], ""
    while cursor is not None:
        path = f"/webhooks/{created['id']}/deliveries?limit=3{cursor and '&cursor=' + cursor}"
        page = await (await api.call("GET", path)).json()
        seen += [row["id"] for row in page["data"]]
        cursor = page["next_cursor"]
    assert seen == [f"del_{number:03}" for number in reversed(range(7))]


async def test_unknown_deliveries_are_a_404(api, log):
    """A delivery of another webhook isn't this one's, and an unknown webhook has no list."""
    created = await api.create()
    log.deliveries = [delivery(1, "wh_other")]
    for path in (f"/webhooks/{created['id']}/deliveries/del_001", "/webhooks/wh_nope/deliveries"):
        response = await api.call("GET", path)
        assert response.status == 404
        await problems(response)
