"""Loads the event catalogue: one file for each event type, checked as a whole before anything starts."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
from jsonschema_rs import Draft202012Validator, ValidationError

import dispatcher
from dispatcher.core.catalogue import DIALECT, Catalogue, EventType, compile_schema
from dispatcher.core.errors import SettingsError
from dispatcher.core.matching import TYPE
from dispatcher.operations.json_lines import line_of

_TEXTS = ("title", "group", "description")
_MEMBERS = (*_TEXTS, "schema", "sample")
_SETTING = "DISPATCHER_EVENT_SCHEMAS_DIR"


class _Problems:
    """Collects what is wrong in one file, with the line of each fault."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._text = text
        self.lines: list[str] = []

    def add(self, where: Sequence[str | int], problem: str) -> None:
        self.lines.append(f"{self._path}:{line_of(self._text, where)}: {problem}")


def load_catalogue(folder: Path | None) -> Catalogue:
    """Load every `<type>.json` of a folder; other files and hidden ones mean nothing.

    Args:
        folder: Where they are; None takes the catalogue that is shipped.

    Raises:
        SettingsError: With one line for each fault of each file, such as `user.created.json:12: …`.
    """
    folder = folder or shipped_folder()
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix == ".json" and not path.name.startswith("."))
    except OSError as error:
        raise SettingsError([f"{_SETTING}: {folder} can't be listed: {error.strerror}"]) from None
    if not paths:
        raise SettingsError([f"{_SETTING}: {folder} has no file <type>.json; put one there for each event type"])
    problems: list[str] = []
    entries = [entry for path in paths if (entry := _load(path, problems)) is not None]
    if problems:
        raise SettingsError(problems)
    return Catalogue(entries)


def shipped_folder() -> Path:
    """Return where the shipped catalogue is: in the package, or beside it in a source tree."""
    package = Path(dispatcher.__file__).parent
    carried = package / "_schemas" / "events"
    return carried if carried.is_dir() else package.parent / "schemas" / "events"


def _load(path: Path, problems: list[str]) -> EventType | None:
    if not TYPE.fullmatch(path.stem):
        problems.append(f"{path}: the name must be an event type and .json, such as user.created.json")
        return None
    try:
        raw = path.read_bytes()
        text = raw.decode()
        entry = orjson.loads(text)
    except OSError as error:
        problems.append(f"{path}: can't be read: {error.strerror}")
        return None
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        problems.append(f"{path}:{line}: this is not UTF-8")
        return None
    except orjson.JSONDecodeError as error:
        problems.append(f"{path}:{error.lineno}: this is no JSON: {error.msg} (column {error.colno})")
        return None
    found = _Problems(path, text)
    made = _entry(path.stem, entry, found)
    problems.extend(found.lines)
    return made


def _entry(event_type: str, entry: Any, problems: _Problems) -> EventType | None:
    if not isinstance(entry, dict):
        problems.add((), f"write an object with the members {', '.join(_MEMBERS)}")
        return None
    for name in entry:
        if name not in _MEMBERS:
            problems.add((name,), f"{name} is no member of a catalogue file; those are {', '.join(_MEMBERS)}")
    for name in _MEMBERS:
        if name not in entry:
            problems.add((), f"{name} is missing")
        elif name in _TEXTS and not (isinstance(entry[name], str) and entry[name].strip()):
            problems.add((name,), f"{name} must be a text that isn't empty")
    validator = _compiled(entry["schema"], problems) if "schema" in entry else None
    if validator is not None and "sample" in entry:
        for error in validator.iter_errors(entry["sample"]):
            where = ("sample", *error.instance_path)
            problems.add(where, f"the schema rejects the sample: {'/'.join(map(str, where))}: {error.message}")
    if validator is None or problems.lines:
        return None
    title, group, description, schema, sample = (entry[name] for name in _MEMBERS)
    return EventType(event_type, title, group, description, schema, sample, validator)


def _compiled(schema: Any, problems: _Problems) -> Draft202012Validator | None:
    if not isinstance(schema, dict):
        problems.add(("schema",), "schema must be an object: the JSON Schema of the event's data")
        return None
    if schema.get("$schema", DIALECT) != DIALECT:
        problems.add(("schema", "$schema"), f"only JSON Schema 2020-12 is read; write {DIALECT}, or leave it out")
        return None
    try:
        return compile_schema(schema)
    except ValidationError as error:
        where = ("schema", *error.instance_path)
        reference = None if error.instance_path else _dangling_reference(schema, error.message)
        if reference is None:
            problems.add(where, f"this is no JSON Schema 2020-12: {'/'.join(map(str, where))}: {error.message}")
        else:
            path, target = reference
            problems.add(
                ("schema", *path), f"the reference {target} leads nowhere in this file, and nothing is fetched"
            )
    except ValueError as error:
        problems.add(("schema",), f"the schema can't be used: {error}")
    return None


def _dangling_reference(schema: Any, message: str) -> tuple[tuple[str | int, ...], str] | None:
    """Find the reference that a message of the compiler is about, which doesn't say where it stands."""
    for path, target in _references(schema, ()):
        base, _, fragment = target.partition("#")
        if (base or fragment) in message:
            return path, target
    return None


def _references(part: Any, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    members: Iterator[tuple[str | int, Any]]
    if isinstance(part, Mapping):
        members = iter(part.items())
    elif isinstance(part, list):
        members = iter(enumerate(part))
    else:
        return
    for name, member in members:
        if name in ("$ref", "$dynamicRef") and isinstance(member, str):
            yield (*path, name), member
        else:
            yield from _references(member, (*path, name))
