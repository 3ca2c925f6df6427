"""Workers are killed, told to end and joined by others under load: every event reaches every webhook."""

import random
import sys
import time

import pytest

from tests.deployment import Deployment, eventually
from tests.ledger import Ledger, fails_at_first
from tests.receiver import Answer

KILLS = 5
EVENTS = 20_000


async def make_ledger(deployment: Deployment, seed: int) -> Ledger:
    """Make three webhooks: one healthy, one with a latency of its own each time, one that at first fails half."""
    chance = random.Random(seed)
    receiver = deployment.receiver
    receiver.answer("/jitter", lambda _: Answer(200, chance.uniform(0, 0.05)))
    receiver.answer("/fails", fails_at_first)
    return Ledger(deployment, {path: await deployment.webhook(path) for path in ("/ok", "/jitter", "/fails")})


@pytest.mark.timeout(300)
async def test_worker_killed_at_random_moments_loses_nothing(
    deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGKILL five times under load: all arrives, no commit passes an unfinished record, nothing logged is redone."""
    seed = 11
    chance = random.Random(seed)
    ledger = await make_ledger(deployment, seed)
    await ledger.publish(EVENTS)
    moments = sorted(chance.sample(range(1, ledger.expected * 9 // 10), KILLS))
    logged = []
    async with deployment.process() as worker:
        for moment in moments:
            await ledger.until_got(moment)
            await worker.kill()
            logged.append((time.time(), await ledger.logged_steps()))
            await ledger.check_committed()
            await worker.start(ready=False)
        await ledger.until_got(ledger.expected)
        await deployment.until_done()
        await ledger.check_committed()
    assert ledger.missing() == []
    assert await deployment.records(deployment.names.dead_letter) == []
    await ledger.check_log()
    assert [ledger.repeated_since(at, steps) for at, steps in logged] == [[]] * KILLS
    with capsys.disabled():
        sys.stdout.write(f"\nseed {seed}: killed after {moments} of {ledger.expected} pairs; {ledger.duplicates()}\n")


@pytest.mark.timeout(120)
async def test_worker_told_to_end_under_load_finishes_what_it_began(
    deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGTERM under load: exit 0 within 25 s, nothing is lost, and nothing that was answered 2xx is sent again."""
    seed = 13
    ledger = await make_ledger(deployment, seed)
    await ledger.publish(3_000)
    async with deployment.process() as worker:
        for share in (0.2, 0.6):
            await ledger.until_got(int(ledger.expected * share))
            worker.terminate()
            began = time.monotonic()
            assert await worker.ended(25) == 0
            took = time.monotonic() - began
            await ledger.check_committed()
            with capsys.disabled():
                sys.stdout.write(
                    f"\nseed {seed}: ended {took:.1f} s after SIGTERM; {ledger.got()} pairs; {ledger.duplicates()}\n"
                )
            await worker.start(ready=False)
        await ledger.until_got(ledger.expected)
        await deployment.until_done()
    assert ledger.missing() == []
    assert ledger.sent_after_accepted() == []
    assert ledger.duplicates().same_attempt == 0
    await ledger.check_log()


@pytest.mark.timeout(150)
@pytest.mark.parametrize("way", ["leaves", pytest.param("dies", marks=pytest.mark.slow)])
async def test_second_worker_that_comes_and_goes_under_load(
    deployment: Deployment, capsys: pytest.CaptureFixture[str], way: str
) -> None:
    """A second worker joins under load and leaves: nothing is lost or sent again after 2xx; if it dies, none lost."""
    seed = 14
    ledger = await make_ledger(deployment, seed)
    await ledger.publish(1_000)
    async with deployment.process() as first:
        await ledger.until_got(1_000)
        async with ledger.flow(400):
            async with deployment.process() as second:
                await eventually(
                    lambda: second.metric("dispatcher_events_total"), lambda taken: taken > 100, "the second takes part"
                )
                if way == "leaves":
                    second.terminate()
                    assert await second.ended(25) == 0
                else:
                    await second.kill()
                    await ledger.check_committed()
            before = await first.metric("dispatcher_events_total")
            await eventually(
                lambda: first.metric("dispatcher_events_total"), lambda now: now > before + 100, "the first goes on"
            )
        await ledger.until_got(ledger.expected)
        await deployment.until_done()
    assert ledger.missing() == []
    with capsys.disabled():
        sys.stdout.write(f"\nseed {seed}: {ledger.duplicates()}\n")
    if way == "leaves":
        assert ledger.sent_after_accepted() == []
    await ledger.check_log()
