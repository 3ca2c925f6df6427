"""Loading the event catalogue: the shipped one, an operator's own, and every way in which a file can be wrong."""

import json
import os

import pytest

from dispatcher.core.catalogue import DIALECT
from dispatcher.core.errors import SettingsError
from dispatcher.operations.catalogue import load_catalogue, shipped_folder

SHIPPED = {
    *(f"{thing}.{what}" for thing in ("user", "project") for what in ("created", "updated", "deleted")),
    *(f"team.member.{what}" for what in ("added", "removed", "role_changed")),
    *(f"account.{what}" for what in ("added", "updated", "deleted")),
    *(f"post.{what}" for what in ("deleted", "scheduled", "published", "publishing_failed")),
}
ENTRY = {
    "title": "Own Type",
    "group": "Own",
    "description": "Something happened.",
    "schema": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
    "sample": {"n": 1},
}


@pytest.fixture
def problems(tmp_path):
    """Load a catalogue of one file and return what is said to be wrong, without the folder."""

    def load(content, name="own.type.json"):
        raw = content if isinstance(content, bytes) else json.dumps(content, indent=1).encode()
        (tmp_path / name).write_bytes(raw)
        with pytest.raises(SettingsError) as caught:
            load_catalogue(tmp_path)
        return [line.removeprefix(f"{tmp_path}{os.sep}") for line in caught.value.problems]

    return load


def test_the_catalogue_has_exactly_the_types_that_are_promised():
    """Nothing is missing, nothing is there by mistake; they come in alphabetical order."""
    assert list(load_catalogue(None).types) == sorted(SHIPPED)


def test_titles_are_those_that_are_promised():
    """Each type has a title, a group and a description; two titles are not simply the type in words."""
    types = load_catalogue(None).types
    assert types["account.added"].title == "Account Added"
    assert types["post.publishing_failed"].title == "Publishing Post Failed"
    assert {entry.group for entry in types.values()} == {"Users", "Projects", "Teams", "Accounts", "Posts"}
    assert all(entry.description.endswith(".") for entry in types.values())


@pytest.mark.parametrize("event_type", sorted(SHIPPED))
def test_shipped_schemas_name_every_member_of_their_sample_and_require_an_object(event_type):
    """A sample shows nothing that its schema doesn't describe, and an empty or missing `data` is rejected."""
    entry = load_catalogue(None).types[event_type]
    assert entry.schema["$schema"] == DIALECT
    described(entry.schema, entry.sample)
    assert not entry.validator.is_valid({})
    assert not entry.validator.is_valid(None)


def described(schema, value):
    if isinstance(value, dict) and "properties" in schema:
        assert set(value) <= set(schema["properties"])
        for name, member in value.items():
            described(schema["properties"][name], member)
    elif isinstance(value, list):
        for member in value:
            described(schema["items"], member)


def test_a_folder_of_ones_own_replaces_the_shipped_catalogue(tmp_path):
    """Types come from the operator's files and only from there; adding a file adds a type, other files are let be."""
    (tmp_path / "own.type.json").write_text(json.dumps(ENTRY))
    (tmp_path / "..data").mkdir()
    (tmp_path / ".own.type.json").write_text("an editor's")
    (tmp_path / "README.md").write_text("notes")
    catalogue = load_catalogue(tmp_path)
    assert catalogue.get("own.type").sample == {"n": 1}
    assert catalogue.get("user.created") is None
    (tmp_path / "another.json").write_text(json.dumps(ENTRY))
    assert list(load_catalogue(tmp_path).types) == ["another", "own.type"]


def test_a_file_that_is_a_link_counts(tmp_path):
    """Mounted configuration is links into a hidden folder."""
    (tmp_path / "..data").mkdir()
    (tmp_path / "..data" / "own.type.json").write_text(json.dumps(ENTRY))
    (tmp_path / "own.type.json").symlink_to("..data/own.type.json")
    assert list(load_catalogue(tmp_path).types) == ["own.type"]


def test_a_folder_without_types_is_refused(tmp_path):
    """A wrong mount is no empty catalogue; a missing folder is said to be one."""
    for folder, said in ((tmp_path, "has no file <type>.json"), (tmp_path / "none", "can't be listed")):
        with pytest.raises(SettingsError, match="DISPATCHER_EVENT_SCHEMAS_DIR") as caught:
            load_catalogue(folder)
        assert said in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{\n "title": "A",\n "group" "B"\n}', "own.type.json:3: this is no JSON"),
        (b'{\n "title": NaN}', "own.type.json:2: this is no JSON"),
        (b'{\n\n "title": "\xff"}', "own.type.json:3: this is not UTF-8"),
        (b"", "own.type.json:1: this is no JSON"),
        (b"\n[1]", "own.type.json:2: write an object with the members title"),
    ],
)
def test_what_is_no_json_object_is_named_with_its_line(problems, content, said):
    """A typing error is said with file and line."""
    (line,) = problems(content)
    assert line.startswith(said)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"title": None}, "own.type.json:2: title must be a text that isn't empty"),
        ({"group": "  "}, "own.type.json:3: group must be"),
        ({"description": 7}, "own.type.json:4: description must be"),
        ({"schema": []}, "own.type.json:5: schema must be an object"),
        ({"schema": {"$schema": "http://json-schema.org/draft-07/schema#"}}, "own.type.json:6: only JSON Schema 2020"),
        (
            {"schema": {"properties": {"a": {}, "b": {"type": "nope"}}}},
            "own.type.json:9: this is no JSON Schema 2020-12: schema/properties/b/type: ",
        ),
        ({"schema": {"x": 1, "pattern": "("}}, "own.type.json:7: this is no JSON Schema 2020-12: schema/pattern: "),
        ({"sample": {"n": "1"}}, "own.type.json:17: the schema rejects the sample: sample/n: the value is not of type"),
        ({"sample": {}}, 'own.type.json:16: the schema rejects the sample: sample: "n" is a required property'),
        ({"sampel": 1}, "own.type.json:19: sampel is no member of a catalogue file"),
    ],
)
def test_a_wrong_member_is_named_with_its_line(problems, changes, said):
    """Whatever member is wrong, the line where it stands is told, and what to write where that helps."""
    (line,) = problems(ENTRY | changes)
    assert line.startswith(said)


@pytest.mark.parametrize("name", list(ENTRY))
def test_a_missing_member_is_named(problems, name):
    """Each of the five members must be there."""
    lines = problems({key: value for key, value in ENTRY.items() if key != name})
    assert lines == [f"own.type.json:1: {name} is missing"]


@pytest.mark.parametrize(
    ("reference", "target"),
    [
        ("$ref", "https://example.com/thing.json"),
        ("$ref", "thing.json#/a"),
        ("$ref", "file:///etc/hostname"),
        ("$ref", "#/$defs/none"),
        ("$dynamicRef", "https://example.com/thing.json"),
    ],
)
def test_a_reference_that_leads_out_of_the_file_is_refused(problems, reference, target):
    """Nothing is fetched, neither from the network nor from the disk; the line of the reference is told."""
    schema = {"$defs": {"a": {}}, "properties": {"a": {"$ref": "#/$defs/a"}, "n": {reference: target}}}
    (line,) = problems(ENTRY | {"schema": schema})
    assert line.startswith(f"own.type.json:14: the reference {target} leads nowhere in this file")


def test_not_even_a_schema_that_is_there_is_fetched(problems, tmp_path):
    """A reference to a file that could be read is refused all the same."""
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "n.json").write_text('{"type": "integer"}')
    target = (tmp_path / "there" / "n.json").as_uri()
    (line,) = problems(ENTRY | {"schema": {"properties": {"n": {"$ref": target}}}})
    assert line.endswith(f"the reference {target} leads nowhere in this file, and nothing is fetched")


def test_references_within_the_file_are_followed(tmp_path):
    """Definitions, embedded resources and the dialect itself can be referred to."""
    schema = {
        "$id": "https://example.com/root",
        "$defs": {"n": {"type": "integer"}, "in": {"$id": "in.json", "type": "string"}},
        "properties": {
            "n": {"$ref": "#/$defs/n"},
            "s": {"$ref": "in.json"},
            "schema": {"$ref": DIALECT},
        },
    }
    (tmp_path / "own.type.json").write_text(json.dumps(ENTRY | {"schema": schema}))
    accepts = load_catalogue(tmp_path).types["own.type"].validator.is_valid
    assert accepts({"n": 1, "s": "x", "schema": {"type": "object"}})
    for wrong in ({"n": "1"}, {"s": 1}, {"schema": {"type": "nope"}}):
        assert not accepts(wrong)


@pytest.mark.parametrize("name", ["a b.json", "-x.json", "é.json", f"{'a' * 129}.json"])
def test_a_file_whose_name_is_no_type_is_refused(problems, name):
    """A misnamed file would be a type that no event can have."""
    (line,) = problems(ENTRY, name)
    assert line == f"{name}: the name must be an event type and .json, such as user.created.json"


def test_every_fault_of_every_file_is_told_at_once(tmp_path):
    """Nobody mends one fault after the other."""
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "b.json").write_text(json.dumps(ENTRY | {"title": 1, "group": 1}))
    (tmp_path / "c.json").mkdir()
    with pytest.raises(SettingsError) as caught:
        load_catalogue(tmp_path)
    assert [os.path.basename(line.split(":")[0]) for line in caught.value.problems] == [  # noqa: PTH119 - of a text
        "a.json", "b.json", "b.json", "c.json",
    ]  # fmt: skip


def test_the_shipped_folder_is_the_one_in_the_source_tree():
    """Without a wheel, the files at the top of the tree are the catalogue."""
    assert (shipped_folder() / "user.created.json").is_file()
