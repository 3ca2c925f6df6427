"""MongoDB or Kafka goes away under load and comes back: nothing is lost, and the worker says that it isn't ready."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from dispatcher.local import LocalStack
from tests.deployment import deploy, make_settings
from tests.ledger import Ledger, fails_at_first
from tests.services import Services

StackFactory = Callable[..., Awaitable[LocalStack]]


@asynccontextmanager
async def ledger_on(kafka_bootstrap: str, mongo_uri: str, name: str) -> AsyncIterator[Ledger]:
    """Deploy on these services, with a healthy webhook and one that fails at first."""
    async with deploy(make_settings(kafka_bootstrap, mongo_uri, name)) as deployment:
        deployment.receiver.answer("/fails", fails_at_first)
        yield Ledger(deployment, {path: await deployment.webhook(path) for path in ("/ok", "/fails")})


@pytest.mark.timeout(150)
@pytest.mark.parametrize(("way", "per_second"), [("stop", 200), pytest.param("pause", 50, marks=pytest.mark.slow)])
async def test_deliveries_go_on_without_mongodb_and_are_logged_when_it_is_back(
    services: Services, local_stack_factory: StackFactory, unique_name: Callable[..., str], way: str, per_second: int
) -> None:
    """While MongoDB is stopped, or hangs, deliveries go on and the worker isn't ready; then everything is logged."""
    stack = await local_stack_factory(kafka=False)
    mongo = stack.mongo_process
    async with ledger_on(services.kafka_bootstrap, stack.mongo_uri, unique_name("nomongo")) as ledger:
        async with ledger.deployment.process() as worker:
            async with ledger.flow(per_second):
                await ledger.until_got(per_second)
                if way == "stop":
                    await mongo.stop()
                else:
                    mongo.pause()
                try:
                    await worker.until_ready(wanted=False)
                    await ledger.until_got(ledger.got() + 3 * per_second)
                    assert worker.runs
                finally:
                    if way == "stop":
                        await mongo.start()
                    else:
                        mongo.resume()
                await worker.until_ready()
            await ledger.until_got(ledger.expected)
            await ledger.deployment.until_done()
        await ledger.check_log()
        assert ledger.missing() == []
        assert ledger.sent_after_accepted() == []


@pytest.mark.timeout(120)
async def test_worker_told_to_end_without_mongodb_loses_nothing(
    services: Services, local_stack_factory: StackFactory, unique_name: Callable[..., str]
) -> None:
    """SIGTERM while MongoDB is away: the process ends within 25 s, and the next one does what was not logged."""
    stack = await local_stack_factory(kafka=False)
    async with ledger_on(services.kafka_bootstrap, stack.mongo_uri, unique_name("endmongo")) as ledger:
        async with ledger.deployment.process() as worker:
            async with ledger.flow(200):
                await ledger.until_got(400)
                await stack.mongo_process.stop()
                await ledger.until_got(ledger.got() + 400)
                worker.terminate()
                code = await worker.ended(25)
                await stack.mongo_process.start()
            await ledger.check_committed()
            await worker.start()
            await ledger.until_got(ledger.expected)
            await ledger.deployment.until_done()
        assert code == 0
        await ledger.check_log()
        assert ledger.missing() == []


@pytest.mark.timeout(120)
@pytest.mark.slow
async def test_worker_told_to_end_without_kafka_loses_nothing(
    services: Services, local_stack_factory: StackFactory, unique_name: Callable[..., str]
) -> None:
    """SIGTERM while Kafka is away: the process ends within 25 s, and the next one goes on."""
    stack = await local_stack_factory(mongo=False)
    async with ledger_on(stack.kafka_bootstrap, services.mongo_uri, unique_name("endkafka")) as ledger:
        await ledger.publish(2_000)
        async with ledger.deployment.process() as worker:
            await ledger.until_got(500)
            await stack.kafka_process.stop()
            worker.terminate()
            code = await worker.ended(25)
            await stack.kafka_process.start()
            await worker.start()
            await ledger.until_got(ledger.expected)
            await ledger.deployment.until_done()
            await ledger.check_committed()
        assert code == 0
        await ledger.check_log()
        assert ledger.missing() == []


@pytest.mark.timeout(120)
@pytest.mark.slow
@pytest.mark.parametrize("service", ["kafka", "mongo"])
async def test_idle_worker_notices_that_a_service_is_away(
    services: Services, local_stack_factory: StackFactory, unique_name: Callable[..., str], service: str
) -> None:
    """Without any event, too, a worker isn't ready while Kafka or MongoDB is away, and is again afterwards."""
    stack = await local_stack_factory(kafka=service == "kafka", mongo=service == "mongo")
    kafka, mongo = stack.kafka_bootstrap or services.kafka_bootstrap, stack.mongo_uri or services.mongo_uri
    process = stack.kafka_process or stack.mongo_process
    async with ledger_on(kafka, mongo, unique_name("idle")) as ledger, ledger.deployment.process() as worker:
        await process.stop()
        await worker.until_ready(wanted=False, seconds=60)
        await process.start()
        await worker.until_ready()
        await ledger.publish(10)
        await ledger.until_got(ledger.expected)
        assert worker.runs


@pytest.mark.timeout(150)
@pytest.mark.parametrize("way", ["stop", pytest.param("kill", marks=pytest.mark.slow)])
async def test_worker_outlives_kafka(
    services: Services, local_stack_factory: StackFactory, unique_name: Callable[..., str], way: str
) -> None:
    """Kafka is stopped, or killed, under load and started again: the worker isn't ready meanwhile, loses nothing."""
    stack = await local_stack_factory(mongo=False)
    kafka = stack.kafka_process
    async with ledger_on(stack.kafka_bootstrap, services.mongo_uri, unique_name("nokafka")) as ledger:
        await ledger.publish(3_000)
        async with ledger.deployment.process() as worker:
            await ledger.until_got(1_000)
            await (kafka.stop() if way == "stop" else kafka.kill())
            await worker.until_ready(wanted=False)
            await kafka.start()
            await worker.until_ready()
            await ledger.publish(500)
            await ledger.until_got(ledger.expected)
            await ledger.deployment.until_done()
            await ledger.check_committed()
            assert worker.runs
        await ledger.check_log()
        assert ledger.missing() == []
