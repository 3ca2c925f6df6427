"""Dead letters go out again, from the command's side to the endpoint: beside a worker that runs."""

import asyncio
from dataclasses import replace

import pytest

from dispatcher.app.dead_letter_replays import dead_letter_replays
from dispatcher.core.dead_letter_replays import Fate, ReplayChoice, ReplayStage
from dispatcher.core.dead_letters import DeadLetterFilter
from tests.deployment import deploy, event, eventually, make_settings, until


@pytest.fixture
async def deployment(services, unique_name):
    """A dispatcher of each test's own."""
    async with deploy(make_settings(services.kafka_bootstrap, services.mongo_uri, unique_name("dead"))) as made:
        yield made


async def run(settings, choice):
    """Replay as the command does; gives what came of it."""
    async with dead_letter_replays(settings) as replays:
        plan = await replays.plan(choice, lambda *_how_far: None)
        begun = await replays.begin(plan)
        return await replays.run(begun, plan.letters, lambda _replay: None, asyncio.Event())


async def dead_letters(deployment, count):
    """Wait for so many dead letters."""
    topic = deployment.names.dead_letter
    await eventually(lambda: deployment.records(topic), lambda found: len(found) == count, f"{count} dead letters")


async def test_a_mended_endpoint_gets_its_dead_letters(deployment):
    """What failed goes out again as first attempts of a new run, and is delivered; nothing else is sent."""
    failing = await deployment.webhook("/failing", max_attempts=1)
    await deployment.webhook("/fine")
    deployment.receiver.answer("/failing", 503)
    async with deployment.worker():
        await deployment.publish(*(event(number) for number in range(5)))
        await dead_letters(deployment, 5)
        deployment.receiver.answer("/failing", 200)
        await until(lambda: len(deployment.receiver.at("/fine")) == 5, "the others are delivered")
        done = await run(deployment.settings, ReplayChoice(DeadLetterFilter(reason="attempts_exhausted")))
        assert (done.stage, done.fates) == (ReplayStage.DONE, {Fate.REPLAYED: 5})
        for number in range(5):
            row = await deployment.until_logged(deployment.delivery_id(f"evt_{number}", failing), failing, "delivered")
            assert [(each.run, each.attempt) for each in row.attempts] == [("", 1), (done.id, 1)]
        await deployment.until_done()
    assert len(deployment.receiver.at("/failing")) == 10
    assert len(deployment.receiver.at("/fine")) == 5


async def test_a_record_without_a_workspace_is_an_event_once_there_is_a_default(deployment):
    """A dead letter of a source record is read again at its origin, and delivered under its ordinary ids, once."""
    webhook = await deployment.webhook("/hook")
    mended = replace(
        deployment.settings,
        topics=replace(deployment.settings.topics, default_workspace=webhook.subscription.workspace_id),
    )
    choice = ReplayChoice(DeadLetterFilter(reason="no_workspace"), as_events=True)
    async with deployment.worker():
        await deployment.publish({"id": "evt_1", "type": "user.created", "data": {}}, b"no event")
        await dead_letters(deployment, 2)
        async with dead_letter_replays(deployment.settings) as replays:
            plan = await replays.plan(choice, lambda *_how_far: None)
        assert plan.of(Fate.STILL_BAD) == 1
        done = await run(mended, choice)
        assert done.fates == {Fate.REPLAYED: 1}
        await deployment.until_logged(deployment.delivery_id("evt_1", webhook), webhook, "delivered")
        await run(mended, replace(choice, wanted=DeadLetterFilter(), again=False))
        await deployment.until_done()
    assert len(deployment.receiver.at("/hook")) == 1


async def test_another_webhook_of_the_workspace_gets_them(deployment):
    """Sent to another webhook, each delivery is that one's own: its log has it, and its endpoint gets it."""
    failing = await deployment.webhook("/failing", max_attempts=1, events=["user.*"])
    other = await deployment.webhook("/other", events=["team.*"])
    deployment.receiver.answer("/failing", 503)
    async with deployment.worker():
        await deployment.publish(event(1))
        await dead_letters(deployment, 1)
        wanted = DeadLetterFilter(subscription_id=failing.subscription.id)
        done = await run(deployment.settings, ReplayChoice(wanted, to_subscription=other.subscription.id))
        assert done.fates == {Fate.REPLAYED: 1}
        await deployment.until_logged(deployment.delivery_id("evt_1", other), other, "delivered")
    assert [len(deployment.receiver.at(path)) for path in ("/failing", "/other")] == [1, 1]
