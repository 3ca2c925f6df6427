"""The event catalogue: which event types there are, and what their `data` looks like.

Validators are compiled once. Their messages say where and which rule, and name no value of the event: they go into
dead letters, which more people read than events. `format` is an annotation and rejects nothing, as the
specification has it by default; a `pattern` rejects.

Source: JSON Schema 2020-12 (Core; Validation section 7.2.1).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from jsonschema_rs import Draft202012Validator, FancyRegexOptions

from dispatcher.core.model import DeadLetterReason

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_BACKTRACK_LIMIT = 10_000
"""Steps that one pattern may take over one string, a fraction of a millisecond: publishers choose the string."""
_MAX_PATH_CHARS = 128


@dataclass(frozen=True, slots=True, eq=False)
class EventType:
    """One entry of the catalogue.

    Attributes:
        type: The event type.
        title: Its name for people.
        group: The heading that it is listed under.
        description: When such an event happens.
        schema: JSON Schema 2020-12 of the event's `data`, as it stands in the file. Not to be changed.
        sample: A `data` that the schema accepts. Not to be changed.
        validator: The schema, compiled.
    """

    type: str
    title: str
    group: str
    description: str
    schema: dict[str, Any]
    sample: Any
    validator: Draft202012Validator = field(repr=False)


class Catalogue:
    """The event types that are known here; never changes.

    Args:
        entries: Its event types.

    Attributes:
        types: The entries by event type, in alphabetical order.
    """

    __slots__ = ("_accepts", "types")

    def __init__(self, entries: Iterable[EventType] = ()) -> None:
        ordered = sorted(entries, key=lambda entry: entry.type)
        self.types: Mapping[str, EventType] = MappingProxyType({entry.type: entry for entry in ordered})
        self._accepts = {entry.type: entry.validator.is_valid for entry in ordered}

    def get(self, event_type: str) -> EventType | None:
        """Return an entry, or None where the type is unknown."""
        return self.types.get(event_type)

    def fault(self, event_type: str, data: Any) -> DeadLetterReason | None:
        """Say what keeps an event off the catalogue: an unknown type, its schema, or None where nothing does.

        Args:
            event_type: The event's type.
            data: Its `data`, parsed.
        """
        accepts = self._accepts.get(event_type)
        if accepts is None:
            return DeadLetterReason.UNKNOWN_TYPE
        try:
            accepted = accepts(data)
        except UnicodeEncodeError:
            accepted = accepts(_encodable(data))
        return None if accepted else DeadLetterReason.SCHEMA

    def explain(self, event_type: str, data: Any) -> str:
        """Say in words what `fault` found; of `data` where it is wrong first, and which rule: `data/user/email: …`."""
        entry = self.types.get(event_type)
        if entry is None:
            return f"the event catalogue has no type {event_type}; add a file for it, or check its spelling"
        error = next(iter(entry.validator.iter_errors(_encodable(data))), None)
        if error is None:
            return "the schema accepts the data"
        path = "/".join(("data", *map(str, error.instance_path)))
        if len(path) > _MAX_PATH_CHARS:
            path = f"{path[: _MAX_PATH_CHARS - 3]}..."
        return f"{path}: {error.message}"


def compile_schema(schema: dict[str, Any]) -> Draft202012Validator:
    """Compile a schema; references lead to places within it only, and nothing is fetched.

    Raises:
        jsonschema_rs.ValidationError: It is no schema, or a reference leads nowhere.
        ValueError: It is nested too deep.
    """
    return Draft202012Validator(
        schema,
        validate_formats=False,
        mask="the value",
        offline=True,
        pattern_options=FancyRegexOptions(backtrack_limit=_BACKTRACK_LIMIT),
    )


def _encodable(value: Any) -> Any:
    """Return a value with every lone surrogate, which is no UTF-8, replaced."""
    match value:
        case str():
            return value.encode("utf-8", "replace").decode()
        case dict():
            return {_encodable(key): _encodable(member) for key, member in value.items()}
        case list():
            return [_encodable(member) for member in value]
        case _:
            return value
