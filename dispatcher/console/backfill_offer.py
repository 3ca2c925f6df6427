"""What a webhook missed while it was disabled, offered on its page; the page's address keeps it."""

from collections.abc import Mapping
from urllib.parse import urlencode

from dispatcher.operations.times import parse_rfc3339, rfc3339
from dispatcher.operations.webhooks import BackfillOffer, ChangedWebhook

_SINCE, _UNTIL = "missed_since", "missed_until"


def page_after(changed: ChangedWebhook) -> str:
    """Return the page of a webhook after a change, with the offer where there is one."""
    location, offer = f"/console/webhooks/{changed.webhook.subscription.id}", changed.backfill
    if offer is None:
        return location
    return f"{location}?{urlencode({_SINCE: rfc3339(offer.since_ms), _UNTIL: rfc3339(offer.until_ms)})}"


def offer_of(query: Mapping[str, str]) -> BackfillOffer | None:
    """Return the offer that stands in a page's address; None where there is none, or none that can be read."""
    try:
        offer = BackfillOffer(parse_rfc3339(query.get(_SINCE, "")), parse_rfc3339(query.get(_UNTIL, "")))
    except ValueError:
        return None
    return offer if offer.since_ms < offer.until_ms else None


def fields_of(offer: BackfillOffer) -> dict[str, str]:
    """Return what the form of a replay sends for an offer: whole seconds, so that its own fields can show them."""
    since_ms, until_ms = offer.since_ms // 1000 * 1000, -(-offer.until_ms // 1000) * 1000
    times = {"since": rfc3339(since_ms).removesuffix("Z"), "until": rfc3339(until_ms).removesuffix("Z")}
    return {"source": "events", "span": "", **times}
