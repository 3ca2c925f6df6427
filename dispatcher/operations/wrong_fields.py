"""What pydantic found wrong with an input, as field paths and words that say what to send instead."""

import difflib
from collections.abc import Iterable, Mapping

from pydantic import BaseModel
from pydantic_core import ErrorDetails

MAX_PROBLEMS = 100
"""More wrong fields than that are not named one by one."""

_MAX_PATH_LENGTH = 128


def in_words(
    errors: Iterable[ErrorDetails],
    model: type[BaseModel],
    *,
    items: Mapping[str, str],
    unsettable: Mapping[str, str],
) -> dict[str, str]:
    """Name every wrong field and say what to send instead.

    Args:
        errors: As pydantic lists them.
        model: The model that refused; its fields' descriptions say what each wants ("send …").
        items: Field name to what its members want, for lists and objects.
        unsettable: Fields that exist and can't be sent, to what to do instead.

    Returns:
        Field path (`events.0`) to what is wrong; one problem a path, at most `MAX_PROBLEMS`.
    """
    problems: dict[str, str] = {}
    for error in errors:
        if len(problems) >= MAX_PROBLEMS:
            break
        steps = [str(step) for step in error["loc"] if step != "[key]"]
        problems.setdefault(shown_path(steps), _problem(error, steps, model, items, unsettable))
    return problems


def shown_path(steps: Iterable[str]) -> str:
    """Join a field's path with dots, cut to a length that can be shown."""
    path = ".".join(steps)
    return path if len(path) <= _MAX_PATH_LENGTH else path[: _MAX_PATH_LENGTH - 1] + "…"


def _problem(
    error: ErrorDetails,
    steps: list[str],
    model: type[BaseModel],
    items: Mapping[str, str],
    unsettable: Mapping[str, str],
) -> str:
    name = steps[0] if steps else ""
    if error["type"] == "extra_forbidden":
        return unsettable.get(name) or _unknown(name, model)
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    if len(steps) > 1:
        return f"send {items[name]}"
    field = model.model_fields.get(name)
    wanted = field.description if field is not None else "a JSON object"
    return f"is required: send {wanted}" if error["type"] == "missing" else f"send {wanted}"


def _unknown(name: str, model: type[BaseModel]) -> str:
    near = difflib.get_close_matches(name[:64], model.model_fields, n=1)
    if near:
        return f"is no field here; did you mean {near[0]}?"
    return f"is no field here; leave it out, or use one of: {', '.join(sorted(model.model_fields))}"
