"""What an API key is made from, as callers of the API send it."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from dispatcher.core.errors import InvalidInputError
from dispatcher.operations.text_rules import LINE_PATTERN, check_line
from dispatcher.operations.times import parse_rfc3339
from dispatcher.operations.wrong_fields import in_words

MAX_NAME_LENGTH = 200

_ITEMS = {"scopes": "one of read, write, admin"}
_BY_DISPATCHER = "is the dispatcher's to set; leave it out"
_UNSETTABLE = {
    **dict.fromkeys(("id", "created_at", "last_used_at", "key"), _BY_DISPATCHER),
    "workspace_id": "is that of the API key you call with; leave it out",
}


def _time(value: str) -> str:
    parse_rfc3339(value)
    return value


class NewApiKey(BaseModel):
    """What an API key is made from."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        json_schema_extra={"examples": [{"name": "ci", "scopes": ["read", "write"]}]},
    )

    name: (
        Annotated[
            str,
            Field(min_length=1, max_length=MAX_NAME_LENGTH, json_schema_extra={"pattern": LINE_PATTERN}),
            AfterValidator(check_line),
        ]
        | None
    ) = Field(None, description=f"text of 1 to {MAX_NAME_LENGTH} characters")
    scopes: Annotated[list[Literal["read", "write", "admin"]], Field(min_length=1, max_length=3)] = Field(
        description='a list of 1 to 3 of read, write, admin, such as ["read"]'
    )
    expires_at: Annotated[str, Field(json_schema_extra={"format": "date-time"}), AfterValidator(_time)] | None = Field(
        None, description="a later time, such as 2030-01-15T10:30:00Z, or null for a key that doesn't expire"
    )


def read_new_api_key(sent: Any) -> NewApiKey:
    """Read and check what a key is to be made from.

    Raises:
        InvalidInputError: It names every wrong field.
    """
    try:
        return NewApiKey.model_validate(sent)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
        raise InvalidInputError(in_words(errors, NewApiKey, items=_ITEMS, unsettable=_UNSETTABLE)) from None
