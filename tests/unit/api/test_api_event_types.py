"""The calls about the event catalogue, over the one that is shipped."""

from pathlib import Path

import orjson
import pytest

from dispatcher.operations.catalogue import load_catalogue
from tests.fakes.api_stack import api_stack

FILES = {
    path.stem: orjson.loads(path.read_bytes()) for path in (Path(__file__).parents[3] / "schemas/events").glob("*.json")
}


@pytest.fixture
async def api():
    async with api_stack(catalogue=load_catalogue(None)) as stack:
        yield stack


async def test_the_list_shows_every_file_of_the_catalogue(api):
    """Each type comes once, by name, with what its file says; the shipped ones fit on one page."""
    answer = await (await api.call("GET", "/event-types", key="read")).json()
    assert answer == {
        "data": [
            {
                "type": event_type,
                "title": told["title"],
                "group": told["group"],
                "description": told["description"],
                "schema": told["schema"],
                "sample": told["sample"],
            }
            for event_type, told in sorted(FILES.items())
        ],
        "next_cursor": None,
    }


async def test_the_list_comes_in_pages_too(api):
    """Following the cursor shows every type once, and the last page has none."""
    names, cursor, pages = [], "", 0
    while cursor is not None:
        answer = await (await api.call("GET", f"/event-types?limit=5{cursor and '&cursor='}{cursor}")).json()
        names += [entry["type"] for entry in answer["data"]]
        cursor, pages = answer["next_cursor"], pages + 1
    assert names == sorted(FILES)
    assert pages == 4


async def test_one_type_is_shown_by_its_name(api):
    """A type with dots in its name is found, and is what the list says of it."""
    listed = (await (await api.call("GET", "/event-types")).json())["data"]
    shown = await api.call("GET", "/event-types/team.member.role_changed")
    assert shown.status == 200
    assert await shown.json() in listed
    assert (await shown.json())["title"] == "Team Member Role Changed"


async def test_a_type_that_is_not_in_the_catalogue_is_not_found(api):
    """The answer says where those are that it has."""
    response = await api.call("GET", "/event-types/user.creatd")
    assert response.status == 404
    assert "GET /v1/event-types" in (await response.json())["detail"]


@pytest.mark.parametrize("path", ["/event-types", "/event-types/user.created"])
async def test_a_key_is_needed(api, path):
    """The catalogue is the customers', not the public's."""
    assert (await api.call("GET", path, key=None)).status == 401
