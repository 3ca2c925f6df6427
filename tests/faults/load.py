"""The load that hard faults are tried under: webhooks that accept, that fail at first, and that never accept some."""

import json
from collections.abc import Iterable

from dispatcher.core.delivery_log import DeliveryStatus
from dispatcher.core.records import DeliveryRecord, decode_dead_letter
from tests.deployment import WORKSPACE, Deployment
from tests.ledger import Ledger, fails_at_first
from tests.receiver import Received

_HOPELESS_EVERY = 20


def _number(request: Received) -> int:
    number: int = json.loads(request.body)["data"]["n"]
    return number


def is_hopeless(number: int) -> bool:
    """Say whether an event is one that `/picky` never accepts: few enough that its circuit stays closed."""
    return number % _HOPELESS_EVERY == 0


async def make_ledger(deployment: Deployment) -> Ledger:
    """Make three webhooks: one accepts, one fails half at first, one never accepts one in twenty (two attempts)."""
    receiver = deployment.receiver
    receiver.answer("/fails", fails_at_first)
    receiver.answer("/picky", lambda request: 500 if is_hopeless(_number(request)) else 200)
    webhooks = {path: await deployment.webhook(path) for path in ("/ok", "/fails")}
    webhooks["/picky"] = await deployment.webhook("/picky", max_attempts=2)
    return Ledger(deployment, webhooks)


async def check_nothing_lost(ledger: Ledger, seconds: float = 60.0) -> None:
    """Prove that every pair ended as it should: accepted and logged so, or dead letter for the right reason.

    Other webhooks than the ledger's aren't looked at.

    Args:
        ledger: Nothing is published to it any more, and a worker runs.
        seconds: How long the rest may take.
    """
    await ledger.until_got(ledger.expected, seconds)
    await ledger.deployment.until_done(seconds=seconds)
    await ledger.check_committed()
    assert ledger.missing() == []
    hopeless = _hopeless(ledger)
    letters = [decode_dead_letter(each.headers) for each in await _letters(ledger.deployment)]
    assert {(each.delivery_id, each.reason) for each in letters if isinstance(each, DeliveryRecord)} == {
        (delivery_id, "attempts_exhausted") for delivery_id in hopeless
    }
    mine = [each.subscription.id for each in ledger.webhooks.values()]
    rows = ledger.deployment.connection.deliveries.find({"w": WORKSPACE, "s": {"$in": mine}}, {"st": 1})
    found = {row["_id"]: row["st"] async for row in rows}
    wrong = {
        delivery_id: status
        for delivery_id, status in found.items()
        if status != (DeliveryStatus.FAILED if delivery_id in hopeless else DeliveryStatus.DELIVERED)
    }
    assert (len(found), wrong) == (ledger.expected, {})
    received = [each for path in ledger.webhooks for each in ledger.deployment.receiver.at(path)]
    accepted = {each.delivery_id for each in received if each.accepted}
    assert len(accepted) == ledger.expected - len(hopeless)


def _hopeless(ledger: Ledger) -> set[str]:
    picky = ledger.webhooks["/picky"]
    numbers = range(len(ledger.published))
    return {ledger.deployment.delivery_id(f"evt_{each}", picky) for each in numbers if is_hopeless(each)}


async def _letters(deployment: Deployment) -> Iterable[object]:
    return await deployment.records(deployment.names.dead_letter)
