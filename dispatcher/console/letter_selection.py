"""Which dead letters a page is about: filters of its address or form to and fro, and counts that lead to more."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from dispatcher.console.form_times import as_rfc3339
from dispatcher.core.dead_letters import NO_ANSWER
from dispatcher.core.delivery_log import FailedFilter
from dispatcher.core.errors import InvalidInputError
from dispatcher.operations.failed_deliveries import FILTERS, read_failed_filter
from dispatcher.ports import FailedSummary

HOME = "/console/dead-letters"
DELIVERY = "delivery"
"""One dead letter by its delivery's id, beside the filters."""
CHOSEN_BY = (*FILTERS, DELIVERY)
COUNTED = 6
"""How many values of each kind are counted."""

_TIMES = frozenset({"since", "until"})


@dataclass(frozen=True, slots=True)
class Count:
    """How many dead letters have a value in common.

    Attributes:
        value: As the filter takes it.
        count: So many.
        link: The list with this value as a filter.
    """

    value: str
    count: int
    link: str


def wanted_of(filters: Mapping[str, str]) -> tuple[FailedFilter, dict[str, str]]:
    """Read the filters of a URL; where some are wrong, nothing is filtered and each is told."""
    try:
        return filter_of(filters), {}
    except InvalidInputError as error:
        return FailedFilter(), error.fields


def filter_of(chosen: Mapping[str, str]) -> FailedFilter:
    """Read what is chosen.

    Raises:
        InvalidInputError: It names every wrong field.
    """
    wanted = read_failed_filter({name: text for name, text in _in_utc(chosen).items() if name != DELIVERY})
    return replace(wanted, delivery_ids=(chosen[DELIVERY],)) if DELIVERY in chosen else wanted


def _in_utc(chosen: Mapping[str, str]) -> dict[str, str]:
    return {name: as_rfc3339(text) if name in _TIMES else text for name, text in chosen.items()}


def chosen_of(form: Mapping[str, str]) -> dict[str, str]:
    """Return what a question's form chooses."""
    return {name: text for name in CHOSEN_BY if (text := form.get(name, ""))}


def selection_of(chosen: Mapping[str, str]) -> dict[str, Any]:
    """Return what is chosen as the operations take it."""
    sent: dict[str, Any] = _in_utc(chosen)
    if DELIVERY in sent:
        sent["delivery_ids"] = [sent.pop(DELIVERY)]
    return sent


def counts_of(summary: FailedSummary, filters: Mapping[str, str]) -> dict[str, list[Count]]:
    """Return the commonest values of each kind, each with the list that has it as a filter too."""
    kinds = {
        "Reason": ("reason", [(each.value, each.count) for each in summary.by_reason]),
        "Webhook": ("subscription", [(each.value, each.count) for each in summary.by_webhook]),
        "Event type": ("type", [(each.value, each.count) for each in summary.by_type]),
        "Response": (
            "response_code",
            [(str(each.value) if each.value else NO_ANSWER, each.count) for each in summary.by_response_code],
        ),
    }
    return {
        title: [
            Count(value, count, f"{HOME}?{urlencode({**filters, name: value})}") for value, count in found[:COUNTED]
        ]
        for title, (name, found) in kinds.items()
    }
