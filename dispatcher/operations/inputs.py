"""Read what a caller sent as one of this package's small input models."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from dispatcher.core.errors import InvalidInputError
from dispatcher.operations.wrong_fields import in_words


class Input(BaseModel):
    """A JSON object that callers send; each field's description says what it wants ("send …")."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)


Model = TypeVar("Model", bound=Input)


def read_input(
    model: type[Model],
    sent: Any,
    *,
    items: Mapping[str, str] | None = None,
    unsettable: Mapping[str, str] | None = None,
) -> Model:
    """Read and check an input.

    Args:
        model: What is wanted.
        sent: The JSON value that the caller sent.
        items: Field name to what its members want, for lists.
        unsettable: Fields that a caller may well try, to what to do instead.

    Raises:
        InvalidInputError: It names every wrong field.
    """
    try:
        return model.model_validate(sent)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
        raise InvalidInputError(in_words(errors, model, items=items or {}, unsettable=unsettable or {})) from None
