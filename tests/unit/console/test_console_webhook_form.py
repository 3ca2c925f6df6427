"""The form of a webhook: what its fields ask for, and what stands in them."""

from dataclasses import replace

import pytest
from multidict import MultiDict

from dispatcher.console.webhook_form import (
    blank,
    changed,
    chosen_events,
    conflicts,
    field_problems,
    groups,
    input_of,
    of_webhook,
    revision_of,
    typed,
    with_warnings,
)
from dispatcher.core.catalogue import Catalogue
from dispatcher.core.model import Subscription, Webhook
from dispatcher.operations.catalogue import load_catalogue
from dispatcher.operations.webhooks import Warned
from tests.unit.console.test_console_webhook_pages import FIELDS

URL = "https://hooks.example.com/in"


def webhook(**changes):
    about = {name: changes.pop(name) for name in ("name", "description", "url") if name in changes}
    subscription = replace(Subscription("wh_1", "acme", None, ("user.created",), ()), **changes)
    return replace(Webhook(subscription, URL, "Billing", None, 0, 0), **about)


def form(**changes):
    return MultiDict({**FIELDS, "description": "", "max_attempts": "6", **changes})


def test_a_form_that_was_not_touched_changes_nothing():
    """What stands in the fields of a webhook, sent back, is the webhook: rate limit, headers and patterns too."""
    before = webhook(
        events=("user.created", "team.*", "order.paid"), rate_limit=1234.567, headers=(("X-A", "1"),), method="PUT"
    )
    state = of_webhook(before, load_catalogue(None))
    sent = MultiDict({**state.values, "notification_type": "REST", "revision": state.revision})
    sent.extend([("events", each) for each in state.events if each == "user.created"])
    asked, problems = input_of(sent, before)
    assert (changed(asked, before), problems) == ({}, {})


@pytest.mark.parametrize(
    ("rate", "shown"),
    [(None, ""), (0.1, "0.1"), (2.5, "2.5"), (1000.0, "1000"), (1234.567, "1234.567"), (1e-5, "0.00001")],
)
def test_a_rate_limit_keeps_its_digits(rate, shown):
    """No digit is lost between what is stored and what is saved again."""
    before = webhook(rate_limit=rate)
    assert of_webhook(before, Catalogue()).values["rate_limit"] == shown
    assert input_of(form(rate_limit=shown), before)[0]["rate_limit"] == rate


@pytest.mark.parametrize(
    ("typed_in", "read"), [("2,5", 2.5), ("3", 3.0), ("fast", "fast"), ("1e3", "1e3"), ("-1", "-1"), ("", None)]
)
def test_a_number_that_is_none_goes_on_as_text(typed_in, read):
    """The operation says what it wants; a comma is a point."""
    assert input_of(form(rate_limit=typed_in))[0]["rate_limit"] == read


@pytest.mark.parametrize(("typed_in", "read"), [("7", 7), ("7.5", "7.5"), ("9" * 10, "9" * 10), ("", None)])
def test_whole_numbers(typed_in, read):
    """The same for attempts and seconds."""
    assert input_of(form(max_attempts=typed_in))[0]["max_attempts"] == read


def test_what_must_be_there_is_asked_for():
    """Name and URL; blanks are nothing."""
    assert set(input_of(form(name="  ", url=""))[1]) == {"name", "url"}


def test_secrets_are_sent_only_where_they_were_typed():
    """Empty fields keep what there is; the box takes an API key away."""
    assert not {"secret", "api_key"} & input_of(form(secret="", api_key=""))[0].keys()
    sent, _ = input_of(form(secret=" s ", api_key="k"))
    assert (sent["secret"], sent["api_key"]) == ("s", "k")
    assert input_of(form(api_key="k", remove_api_key="yes"))[0]["api_key"] is None


def test_headers_are_lines():
    """A header that isn't there any more is taken away, whatever its case; a line without a colon is told."""
    before = webhook(headers=(("X-A", "1"), ("X-B", "2")))
    assert input_of(form(headers="x-a: 3\n\nX-C:4:5"), before)[0]["headers"] == {"X-B": None, "x-a": "3", "X-C": "4:5"}
    sent, problems = input_of(form(headers="X-A 1"), before)
    assert (sent["headers"], "one header a line" in problems["headers"]) == ({}, True)


def test_events_are_ticked_or_typed():
    """Once each, in their order; all events make the others needless."""
    ticked = MultiDict([("events", "b.c"), ("events", "a.b"), ("other_events", "team.*, a.b  order.paid")])
    assert chosen_events(ticked) == ["b.c", "a.b", "team.*", "order.paid"]
    ticked.add("events", "*")
    assert chosen_events(ticked) == ["*"]
    assert chosen_events(MultiDict()) == []


def test_what_was_typed_stands_there_again_but_for_secrets():
    """A tick is kept too."""
    state = typed(form(secret="s", api_key="k", remove_api_key="yes", revision="3"), {"url": "wrong"})
    assert not {"secret", "api_key"} & state.values.keys()
    assert (state.values["remove_api_key"], state.revision, state.problems) == ("yes", "3", {"url": "wrong"})


def test_problems_stand_beside_fields():
    """Patterns belong to the field that takes them, headers name theirs."""
    told = field_problems({"events.3": "is no type", "events.4": "later", "headers.Cookie": "no", "url": "bad"})
    assert told == {"other_events": "is no type", "headers": "Cookie: no", "url": "bad"}


def test_warnings_name_what_is_seen():
    """A pattern by itself, a field by its words; never a path of the API."""
    it = webhook(events=("user.created", "user.craeted"))
    told = with_warnings("Saved.", (Warned("events.1", "matches nothing"), Warned("api_key", "is odd")), it)
    assert told == "Saved. Look at the event type user.craeted: matches nothing. Look at the api key: is odd."
    assert with_warnings("Saved.", (Warned("events.7", "x"),), it) == "Saved. Look at the events: x."


def test_others_changes_are_told_field_by_field():
    """Only those that differ from what was typed; the order of events is no difference."""
    theirs = webhook(name="Theirs", events=("b.c", "a.b"))
    mine = {"name": "Mine", "events": ["a.b", "b.c"], "headers": {}, "max_attempts": 6}
    assert conflicts(mine, theirs) == [("name", "Theirs", "Mine")]


@pytest.mark.parametrize(("text", "only"), [("3", (3,)), ("", None), ("x", None), ("9" * 16, None), ("-1", None)])
def test_a_revision_is_a_number(text, only):
    """What names none is none."""
    assert revision_of(MultiDict({"revision": text})) == only


def test_the_blank_form_and_the_groups():
    """A new webhook has the defaults and no event; the catalogue's groups and entries are in order."""
    assert (blank().values["status"], blank().events) == ("active", frozenset())
    headings = [heading for heading, _ in groups(load_catalogue(None))]
    assert headings == sorted(headings)
