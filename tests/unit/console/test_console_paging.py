"""Cursors and filters in addresses."""

import pytest
from aiohttp.test_utils import make_mocked_request

from dispatcher.console.paging import cursor_of, filters_of, links
from dispatcher.ports import Page


def asked(query=""):
    return make_mocked_request("GET", f"/console/webhooks{query}")


@pytest.mark.parametrize(("query", "cursor"), [("", None), ("?cursor=", None), ("?cursor=abc", "abc")])
def test_the_first_page_has_no_cursor(query, cursor):
    """An empty one is none."""
    assert cursor_of(asked(query)) == cursor


def test_a_cursor_is_cut(monkeypatch):
    """No more than any of ours has."""
    assert len(cursor_of(asked(f"?cursor={'a' * 2000}"))) == 512


def test_filters_are_those_that_say_something():
    """Blanks and names that are none are left out; long texts are cut."""
    request = asked(f"?q=%20a%20b%20&status=&other=x&type={'t' * 300}")
    assert filters_of(request, ("q", "status", "type")) == {"q": "a b", "type": "t" * 200}


@pytest.mark.parametrize(("sent", "wanted"), [("%00", {}), ("a%00b", {"q": "a b"}), ("%0Aa%7F", {"q": "a"})])
def test_control_characters_are_blanks(sent, wanted):
    """No store is asked for a text that it can't take."""
    assert filters_of(asked(f"?q={sent}"), ("q",)) == wanted


def test_links_keep_the_filters():
    """The first page has no way back, the last none on; filters are escaped."""
    more, last = Page([], "next="), Page([], None)
    filters = {"q": "a&b", "status": "active"}
    assert links(asked(), more, filters) == {
        "first": "",
        "next": "/console/webhooks?q=a%26b&status=active&cursor=next%3D",
    }
    assert links(asked("?cursor=x"), last, filters) == {"first": "/console/webhooks?q=a%26b&status=active", "next": ""}
    assert links(asked("?cursor=x"), last, {}) == {"first": "/console/webhooks", "next": ""}
