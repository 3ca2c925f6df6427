"""A worker that stood still finds that MongoDB has forgotten what changed meanwhile."""

import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable

import pytest

from dispatcher.core.model import Webhook
from dispatcher.local import LocalStack
from tests.deployment import Deployment, deploy, make_settings, until
from tests.faults.hard_faults import LOST
from tests.faults.load import check_nothing_lost, make_ledger
from tests.ledger import Ledger
from tests.mongo_support import SHORT_HISTORY, overwrite_history, resume_token
from tests.receiver import Received
from tests.services import Services

PER_SECOND = 100
SECRET = "a secret that nobody told the worker of"
LOADED = "webhooks loaded"


@pytest.mark.timeout(150)
async def test_webhooks_are_loaded_again_under_load_where_their_history_is_lost(
    services: Services, local_stack_factory: Callable[..., Awaitable[LocalStack]], unique_name: Callable[..., str]
) -> None:
    """After the loss a new URL and secret are in effect, a deleted webhook gets nothing, and no delivery is lost."""
    stack = await local_stack_factory(kafka=False, mongo_args=SHORT_HISTORY)
    async with deploy(make_settings(services.kafka_bootstrap, stack.mongo_uri, unique_name("history"))) as deployment:
        ledger = await make_ledger(deployment)
        moved, deleted = await deployment.webhook("/old"), await deployment.webhook("/deleted")
        receiver = deployment.receiver
        async with deployment.process() as worker:
            async with ledger.flow(PER_SECOND):
                await until(lambda: len(receiver.at("/old")) > PER_SECOND, "deliveries arrive")
                worker.pause()
                try:
                    await change(deployment, moved, deleted)
                    await overwrite_history(deployment.connection, await resume_token(deployment.connection))
                finally:
                    worker.resume()
                await until(lambda: worker.said(LOST), "the worker notices")
                await until(lambda: len(worker.said(LOADED)) == 2, "all webhooks are loaded again")
                late = len(ledger.published)
                await until(lambda: len(receiver.at("/new")) > PER_SECOND, "deliveries arrive at the new place")
            await check_nothing_lost(ledger)
            assert worker.runs
        check_changed(ledger, late)


async def change(deployment: Deployment, moved: Webhook, deleted: Webhook) -> None:
    """Move one webhook, with another secret, and delete another."""
    # What the worker had asked for when it was stopped is answered with this one.
    await deployment.webhook("/answer", events=[])
    subscription = moved.subscription
    await deployment.webhooks.update(
        subscription.workspace_id, subscription.id, {"url": deployment.receiver.url("/new")}
    )
    await deployment.change_secret(moved, SECRET)
    await deployment.webhooks.delete(deleted.subscription.workspace_id, deleted.subscription.id)


def check_changed(ledger: Ledger, late: int) -> None:
    """Prove that each event reached the webhook that was moved, and that late ones met what is stored now."""
    receiver = ledger.deployment.receiver
    old, new = receiver.at("/old"), receiver.at("/new")
    assert {number_of(each) for each in (*old, *new)} == set(range(len(ledger.published)))
    assert [each for each in (*old, *receiver.at("/deleted")) if number_of(each) >= late] == []
    for each in [each for each in new if number_of(each) >= late]:
        wanted = hmac.new(SECRET.encode(), each.body, hashlib.sha256).hexdigest()
        assert each.headers["x-webhook-signature"] == f"sha256={wanted}"


def number_of(request: Received) -> int:
    """Read the number of the event."""
    number: int = json.loads(request.body)["data"]["n"]
    return number
