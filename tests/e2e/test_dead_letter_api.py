"""Dead letters and backfills to the endpoint's end: in the API, and by the operator's command."""

import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from dispatcher.app.dead_letters import open_letters
from dispatcher.core.dead_letters import DeadLetterFilter
from dispatcher.core.delivery_log import DeliveryStatus
from dispatcher.core.model import Webhook
from dispatcher.operations.times import rfc3339
from tests.deployment import Deployment, event, event_ids, eventually, until
from tests.receiver import Answer

Call = Callable[..., Any]


@pytest.fixture
async def call(shared: Deployment, workspace: str) -> AsyncIterator[Call]:
    """A call of the API with a key of the test's workspace."""
    async with shared.api(workspace) as call:
        yield call


async def failing(shared: Deployment, workspace: str, name: str, count: int) -> tuple[Webhook, list[str]]:
    """Make a webhook for one event type whose deliveries fail for good; gives it and their ids."""
    path, event_type = f"/{workspace}/{name}", f"user.{name}"
    shared.receiver.answer(path, Answer(500))
    webhook = await shared.webhook_known_to(shared.running, path, workspace, events=[event_type], max_attempts=1)
    sent = [event(f"{workspace}-{name}-{number}", event_type, workspace) for number in range(count)]
    await shared.publish(*sent)
    ids = [shared.delivery_id(each["id"], webhook) for each in sent]
    for each in ids:
        await shared.until_logged(each, webhook, DeliveryStatus.FAILED)
    return webhook, ids


async def until_ended(call: Call, replay_id: str) -> Any:
    """Wait until a replay has ended; gives it."""

    async def look() -> Any:
        return await call("GET", f"/replays/{replay_id}")

    return await eventually(look, lambda job: job["finished_at"] is not None, "the replay has ended", 60)


async def listed(call: Call) -> set[str]:
    """List the workspace's dead letters."""
    return {row["id"] for row in (await call("GET", "/dead-letters?limit=200"))["data"]}


async def test_dead_letters_are_counted_replayed_and_purged(shared: Deployment, workspace: str, call: Call) -> None:
    """A workspace's replay sends what can be sent, of all webhooks; the rest stays, and leaves the list when purged.

    What is sent again or purged in the API is off the operator's list as well, and the other way round.
    """
    mended, healed = await failing(shared, workspace, "mended", 4)
    still, sick = await failing(shared, workspace, "still", 3)
    off, left = await failing(shared, workspace, "off", 2)
    await call("PATCH", f"/webhooks/{off.subscription.id}", json={"status": "inactive"})
    summary = await call("GET", "/dead-letters/summary?response_code=5xx")
    assert summary["total"] == 9
    assert {each["value"]: each["count"] for each in summary["by_subscription"]} == {
        mended.subscription.id: 4,
        still.subscription.id: 3,
        off.subscription.id: 2,
    }
    shared.receiver.answer(f"/{workspace}/mended", 200)
    job = await call("POST", "/dead-letters/replay", json={"reason": "attempts_exhausted", "rate": 50})
    done = await until_ended(call, job["id"])
    assert (done["status"], done["webhook_id"]) == ("done", None)
    assert done["counts"] == {"selected": 9, "produced": 7, "gone": 0, "skipped": 2}
    for each in healed:
        assert (await shared.until_logged(each, mended, DeliveryStatus.DELIVERED)).run == job["id"]
    await shared.until_done("replay")
    for each in sick:
        assert (await shared.until_logged(each, still, DeliveryStatus.FAILED)).run == job["id"]
    assert await listed(call) == {*sick, *left}
    purged = await call("POST", "/dead-letters/purge", json={"delivery_ids": [sick[0], *left, healed[0]]})
    assert purged == {"handled": 3, "more": False}
    assert await listed(call) == set(sick[1:])
    shown = await call("GET", f"/dead-letters/{sick[0]}")
    assert (shown["handled_at"] is not None, len(shown["attempts"])) == (True, 2)
    wanted = DeadLetterFilter(workspace_id=workspace)
    async with open_letters(shared.settings) as (letters, _):
        spans = await letters.snapshot(wanted)
        seen = await letters.survey(spans, wanted, lambda _done: None, examples=20)
        assert {letter.delivery_id for letter in seen.examples} == set(sick[1:])
        one = DeadLetterFilter(workspace_id=workspace, subscription_id=still.subscription.id)
        chosen = await letters.survey(spans, one, lambda _done: None)
        assert (await letters.purge(spans, chosen.choice, lambda _done: None)).deliveries == 2
    assert await listed(call) == set()
    # What is handled and fails once more is a dead letter again.
    await call("POST", f"/webhooks/{still.subscription.id}/deliveries/{sick[0]}/redeliver")
    await eventually(lambda: listed(call), lambda found: found == {sick[0]}, "it is back", 30)
    async with open_letters(shared.settings) as (letters, _):
        spans = await letters.snapshot(one)
        seen = await letters.survey(spans, one, lambda _done: None, examples=20)
        assert [letter.delivery_id for letter in seen.examples] == [sick[0]]


async def test_reactivation_offers_what_was_missed(shared: Deployment, workspace: str, call: Call) -> None:
    """A webhook that its endpoint's 410 disabled is set active: the offered call sends what came meanwhile, once."""
    path = f"/{workspace}"
    shared.receiver.answer(path, Answer(410))
    webhook = await shared.webhook_known_to(shared.running, path, workspace, events=["user.*"])
    own = f"/webhooks/{webhook.subscription.id}"
    await shared.publish(event(f"{workspace}-gone", workspace=workspace))
    await shared.until_logged(shared.delivery_id(f"evt_{workspace}-gone", webhook), webhook, DeliveryStatus.FAILED)
    await until(lambda: shared.running.index.get(webhook.subscription.id).status == "disabled", "it is disabled")
    shared.receiver.answer(path, 200)
    missed = [event(f"{workspace}-{number}", workspace=workspace) for number in range(5)]
    await shared.publish(*missed)
    await shared.until_done("source")
    changed = await call("PATCH", own, json={"status": "active"})
    offer = changed["backfill"]
    assert offer["since"] <= rfc3339(int(time.time() * 1000))
    await until(lambda: shared.running.index.get(webhook.subscription.id).status == "active", "it is active")
    await shared.publish(event(f"{workspace}-later", workspace=workspace))
    later = shared.delivery_id(f"evt_{workspace}-later", webhook)
    await shared.until_logged(later, webhook, DeliveryStatus.DELIVERED)
    job = await call("POST", offer["path"].removeprefix("/v1"), json=offer["body"])
    done = await until_ended(call, job["id"])
    assert (done["status"], done["counts"]["produced"]) == ("done", 5)
    wanted = {f"evt_{workspace}-later", *(each["id"] for each in missed)}
    await until(lambda: len(event_ids(shared.receiver.at(path))) >= len(wanted) + 1, "all arrived")
    await shared.until_done("replay")
    arrived = event_ids(shared.receiver.at(path))
    assert sorted(arrived) == sorted([*wanted, f"evt_{workspace}-gone"])


async def command(shared: Deployment, *arguments: str) -> asyncio.subprocess.Process:
    """Start `dispatcher backfill` as an operator would."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "dispatcher",
        "backfill",
        *arguments,
        env=shared.process().environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def missed_events(shared: Deployment, workspace: str, count: int) -> tuple[Webhook, str]:
    """Make an active webhook, and events that came before it; gives it and their beginning."""
    since = rfc3339(int(time.time() * 1000) - 1000)
    await shared.publish(*(event(f"{workspace}-{number}", workspace=workspace) for number in range(count)))
    await shared.until_done("source")
    return await shared.webhook_known_to(shared.running, f"/{workspace}", workspace, events=["user.*"]), since


async def test_operators_backfill_waits_until_it_is_done(shared: Deployment, workspace: str) -> None:
    """The command sends a new webhook what came before it, tells how much, and a second one finds nothing to send."""
    webhook, since = await missed_events(shared, workspace, 20)
    for produced in (20, 0):
        process = await command(shared, "--subscription", webhook.subscription.id, "--since", since, "--json")
        out, err = await process.communicate()
        assert process.returncode == 0, err
        shown = json.loads(out)
        assert (shown["status"], shown["counts"]["produced"]) == ("done", produced)
        await shared.until_done("replay")
    assert len(set(event_ids(shared.receiver.at(f"/{workspace}")))) == 20
    assert len(shared.receiver.at(f"/{workspace}")) == 20


async def test_interrupted_command_leaves_the_backfill_running(shared: Deployment, workspace: str, call: Call) -> None:
    """Ctrl-C ends the command and not the job, which goes on at its rate; it can be watched and cancelled later."""
    webhook, since = await missed_events(shared, workspace, 40)
    process = await command(shared, "--subscription", webhook.subscription.id, "--since", since, "--rate", "2/s")
    assert process.stderr is not None
    first = (await process.stderr.readline()).decode()
    replay_id = first.split(":")[0]
    await until(lambda: shared.receiver.at(f"/{workspace}"), "the first one arrives")
    process.send_signal(signal.SIGINT)
    out, err = await process.communicate()
    assert (process.returncode, f"{replay_id} goes on without this command" in err.decode()) == (1, True)
    assert b"is running" in out
    before = (await call("GET", f"/replays/{replay_id}"))["counts"]["produced"]

    async def look() -> Any:
        return await call("GET", f"/replays/{replay_id}")

    await eventually(look, lambda job: job["counts"]["produced"] > before, "it goes on")
    ending = await command(shared, "--cancel", replay_id)
    out, err = await ending.communicate()
    assert (ending.returncode, b"is cancelled" in out) == (0, True), err
    watching = await command(shared, "--follow", replay_id)
    assert (await watching.wait()) == 1
    await shared.until_done("replay")
    arrived = event_ids(shared.receiver.at(f"/{workspace}"))
    assert 0 < len(arrived) < 40
    assert len(arrived) == len(set(arrived))
