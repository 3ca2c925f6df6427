"""The shipped event catalogue, and samples of it."""

import json
import re

import pytest

from dispatcher.app.samples import catalogue_folder, sample_of
from dispatcher.core.errors import SettingsError
from dispatcher.core.matching import TYPE

SHIPPED = {
    *(f"{thing}.{what}" for thing in ("user", "project") for what in ("created", "updated", "deleted")),
    *(f"team.member.{what}" for what in ("added", "removed", "role_changed")),
    *(f"account.{what}" for what in ("added", "updated", "deleted")),
    *(f"post.{what}" for what in ("deleted", "scheduled", "published", "publishing_failed")),
}
ENTRIES = {path.stem: json.loads(path.read_text()) for path in sorted(catalogue_folder(None).glob("*.json"))}
TYPES = {"object": dict, "array": list, "string": str, "boolean": bool}


def accepted(schema, value):
    """Check a value against the part of JSON Schema that the catalogue uses."""
    assert isinstance(value, TYPES[schema["type"]]), value
    if isinstance(value, dict):
        assert set(schema.get("required", ())) <= set(value)
        for name, part in schema.get("properties", {}).items():
            assert name in value or name not in schema.get("required", ())
            if name in value:
                accepted(part, value[name])
        if "properties" in schema:
            assert set(value) <= set(schema["properties"]), "the sample has a member that the schema doesn't describe"
    elif isinstance(value, list):
        for member in value:
            accepted(schema["items"], member)
    else:
        assert value in schema.get("enum", [value])
        assert isinstance(value, bool) or re.search(schema.get("pattern", ""), value)


def test_the_catalogue_has_exactly_the_types_that_are_promised():
    """Nothing is missing, nothing is there by mistake."""
    assert set(ENTRIES) == SHIPPED


@pytest.mark.parametrize("event_type", sorted(SHIPPED))
def test_each_entry_is_complete_and_its_schema_accepts_its_sample(event_type):
    """Title, group, description, schema and sample are there and agree."""
    entry = ENTRIES[event_type]
    assert set(entry) == {"title", "group", "description", "schema", "sample"}
    assert TYPE.fullmatch(event_type)
    assert entry["schema"]["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    accepted(entry["schema"], entry["sample"])


def test_titles_are_those_that_are_promised():
    """Two titles are not simply the type in words."""
    assert ENTRIES["account.added"]["title"] == "Account Added"
    assert ENTRIES["post.publishing_failed"]["title"] == "Publishing Post Failed"


def test_a_folder_of_ones_own_replaces_the_shipped_catalogue(tmp_path):
    """Samples come from the operator's files, and only from there."""
    (tmp_path / "own.type.json").write_text('{"sample": {"a": 1}}')
    assert sample_of("own.type", tmp_path) == {"a": 1}
    assert sample_of("user.created", tmp_path) is None


def test_a_broken_catalogue_file_is_named(tmp_path):
    """An operator's typing error is said with the file's name."""
    (tmp_path / "own.type.json").write_text("{")
    with pytest.raises(SettingsError, match=r"own\.type\.json"):
        sample_of("own.type", tmp_path)


@pytest.mark.parametrize("event_type", ["../secrets", "a/b", "", "."])
def test_no_type_leads_out_of_the_folder(event_type):
    """What is no event type is no file name."""
    assert sample_of(event_type) is None
