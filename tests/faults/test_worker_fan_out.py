"""A large fan-out is cut in the middle: each webhook still gets the event, and none that answered gets it twice."""

import asyncio
import sys
from collections import Counter

import pytest

from tests.deployment import Deployment, event, until
from tests.receiver import Answer

WEBHOOKS = 1_500


@pytest.mark.timeout(120)
@pytest.mark.parametrize("way", ["term", "kill"])
async def test_fan_out_that_is_cut_in_the_middle_reaches_everyone(
    deployment: Deployment, capsys: pytest.CaptureFixture[str], way: str
) -> None:
    """One event for 1,500 webhooks, the worker ended in the middle: the next one sends to exactly those still due."""
    receiver = deployment.receiver
    receiver.answer("/many", Answer(200, 0.05))
    for _ in range(WEBHOOKS // 100):
        await asyncio.gather(*(deployment.webhook("/many") for _ in range(100)))
    sent = receiver.at("/many")
    async with deployment.process(MAX_IN_FLIGHT="50") as worker:
        ((partition, offset),) = await deployment.publish(event("wide"))
        await until(lambda: len(sent) >= 500, "a third is sent")
        if way == "kill":
            await worker.kill()
            complete = offset
        else:
            worker.terminate()
            assert await worker.ended(25) == 0
            complete = offset + 1  # What was left of the event was handed over.
        before = len(sent)
        assert before < WEBHOOKS
        assert (await deployment.committed())[deployment.source, partition] == complete
        await worker.start(ready=False)
        await until(lambda: len({request.delivery_id for request in sent}) == WEBHOOKS, "all got it")
        await deployment.until_done()
    repeated = [each for each, count in Counter(request.delivery_id for request in sent).items() if count > 1]
    with capsys.disabled():
        sys.stdout.write(f"\n{way}: {before} before the end, {len(repeated)} of them again\n")
    # What was in flight, and what was answered within the delivery log's last lingering.
    assert len(repeated) <= (150 if way == "kill" else 0)
