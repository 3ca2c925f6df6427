"""An endpoint that is down and comes back, beside another tenant's on the same host."""

import pytest

from dispatcher.core import breaker
from dispatcher.core.delivery_log import DeliveryStatus
from tests.deployment import Deployment, event, until
from tests.receiver import Received

EVENTS = 40


@pytest.mark.timeout(120)
async def test_endpoint_that_comes_back_gets_everything(
    shared: Deployment, workspace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An open circuit spares the endpoint and nobody else; once a probe succeeds, all that waited arrives, once."""
    monkeypatch.setattr(breaker, "FIRST_PROBE_SECONDS", 0.5)
    down, healthy, neighbour = f"/{workspace}/down", f"/{workspace}/up", f"{workspace}-neighbour"
    is_down = True
    accepted: list[str] = []

    def answer(request: Received) -> int:
        if is_down:
            return 500
        accepted.append(request.delivery_id)
        return 200

    shared.receiver.answer(down, answer)
    webhook = await shared.webhook_known_to(shared.running, down, workspace, max_attempts=4)
    await shared.webhook_known_to(shared.running, healthy, neighbour)
    skipped = shared.running.metrics.circuit_skipped
    before = skipped._value.get()
    numbers = [f"{workspace}-{number}" for number in range(EVENTS)]
    await shared.publish(*(event(each, workspace=workspace) for each in numbers))
    await shared.publish(*(event(each, workspace=neighbour) for each in numbers))
    await until(lambda: skipped._value.get() > before + EVENTS, "steps are skipped")
    assert shared.running.pipeline.lanes.count_states()["circuit_open"] == 1
    await until(lambda: len(shared.receiver.at(healthy)) == EVENTS, "the neighbour has everything")
    tried = len(shared.receiver.at(down))
    assert tried < 4 * EVENTS
    is_down = False

    ids = [shared.delivery_id(f"evt_{each}", webhook) for each in numbers]
    for each in ids:
        logged = await shared.until_logged(each, webhook, DeliveryStatus.DELIVERED, 60)
        assert logged.attempts_made <= 4
    assert sorted(accepted) == sorted(ids)
    assert shared.running.pipeline.lanes.count_states()["circuit_open"] == 0
    await shared.until_done()
