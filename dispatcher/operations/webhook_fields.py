"""The settable fields of a webhook: what each accepts, in one place for the API, the console and the commands.

Both inputs are JSON-like objects. Null stands for "as if never set": in a new webhook it is the same as leaving
the field out, in a change it goes back to the default (`url` and `events` can't).

Source: RFC 7396 (JSON merge patch) for changes.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Protocol, TypeVar, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo
from pydantic.fields import FieldInfo

from dispatcher.core.errors import InvalidInputError, InvalidUrlError
from dispatcher.core.matching import TYPE, is_pattern
from dispatcher.core.payload import CLOUDEVENTS_CONTENT_TYPE, FORM
from dispatcher.core.urls import MAX_URL_LENGTH, EndpointUrl, parse_endpoint_url
from dispatcher.operations.client_certificates import (
    CERTIFICATE_HINT,
    CERTIFICATE_PATTERN,
    KEY_HINT,
    KEY_PATTERN,
    MAX_CERTIFICATE_LENGTH,
    MAX_KEY_LENGTH,
    check_certificate,
    check_key,
    contradictions,
)
from dispatcher.operations.header_rules import (
    MAX_HEADERS,
    MAX_VALUE_LENGTH,
    NAME_PATTERN,
    VALUE_PATTERN,
    check_header_name,
    check_header_value,
    check_headers,
)
from dispatcher.operations.number_rules import WHOLE
from dispatcher.operations.text_rules import (
    LINE_PATTERN,
    TEXT_PATTERN,
    TOKEN_PATTERN,
    check_line,
    check_text,
    is_line,
    is_token,
)
from dispatcher.operations.url_pattern import LONG_HOST_PATTERN, URL_PATTERN
from dispatcher.operations.wrong_fields import in_words

MAX_PATTERNS = 100
EXAMPLE_URL = "https://hooks.example.com/in"

DEFAULTS: Final[Mapping[str, Any]] = {
    "name": None,
    "description": None,
    "method": "POST",
    "content_type": "application/json",
    "status": "active",
    "api_key": None,
    "api_key_header": "X-API-Key",
    "client_certificate": None,
    "client_key": None,
    "notification_type": "REST",
    "payload_format": "event",
    "max_attempts": 6,
    "headers": None,
    "timeout_seconds": 10,
    "rate_limit": None,
}
"""What a field is that was never set."""


class EndpointPolicy(Protocol):
    """Which endpoints the operator allows, as far as a URL tells; see `dispatcher.core.addresses`."""

    def check_url(self, url: EndpointUrl, /) -> str | None:
        """Say why an endpoint is not allowed; None where it is."""


MAX_API_KEY_LENGTH = 512


def _url(value: str, info: ValidationInfo) -> str:
    try:
        endpoint = parse_endpoint_url(value)
    except InvalidUrlError as error:
        raise ValueError(str(error)) from None
    policy = cast("EndpointPolicy", info.context)
    refusal = policy.check_url(endpoint)
    if refusal is not None:
        raise ValueError(refusal)
    return value


def _pattern(value: str) -> str:
    if not is_pattern(value):
        raise ValueError(
            "send an event type (user.created), a prefix (user.*) or *; "
            "a type is at most 128 letters, digits, dots, hyphens and underscores"
        )
    return value


def _patterns(values: list[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _secret(value: str) -> str:
    if not is_line(value):
        raise ValueError("send characters that are no control characters, or leave it out to have a secret made")
    return value


def _api_key(value: str) -> str:
    if not is_token(value) or not 0 < len(value) <= MAX_API_KEY_LENGTH:
        raise ValueError(
            f"send 1 to {MAX_API_KEY_LENGTH} printable ASCII characters without spaces "
            "(the word Bearer is added where api_key_header is Authorization)"
        )
    return value


def _shown(**keywords: Any) -> FieldInfo:
    """Say in the API's document what a validator checks."""
    return cast("FieldInfo", Field(json_schema_extra=keywords))


_EVENT_PATTERN = f"^(?:\\*|{TYPE.pattern}(?:\\.\\*)?)$"

Url = Annotated[
    str,
    _shown(
        **{"pattern": URL_PATTERN, "not": {"pattern": LONG_HOST_PATTERN}},
        maxLength=MAX_URL_LENGTH,
        examples=[EXAMPLE_URL],
    ),
    AfterValidator(_url),
]
Events = Annotated[
    list[Annotated[str, _shown(pattern=_EVENT_PATTERN), AfterValidator(_pattern)]],
    Field(max_length=MAX_PATTERNS),
    AfterValidator(_patterns),
]
Secret = Annotated[
    str, Field(min_length=16, max_length=256, json_schema_extra={"pattern": LINE_PATTERN}), AfterValidator(_secret)
]
Headers = Annotated[
    dict[
        Annotated[str, AfterValidator(check_header_name)],
        Annotated[str, _shown(pattern=VALUE_PATTERN, maxLength=MAX_VALUE_LENGTH), AfterValidator(check_header_value)]
        | None,
    ],
    Field(max_length=MAX_HEADERS, json_schema_extra={"propertyNames": {"pattern": NAME_PATTERN}}),
    AfterValidator(check_headers),
]

_URL_HINT = "an absolute https:// URL of at most 2048 characters"
_EVENTS_HINT = f'a list of at most {MAX_PATTERNS} event types or patterns, such as ["user.created", "team.*"], or ["*"]'


# What `_contradictions` refuses of one input, in the words of JSON Schema.
_IS_CLOUDEVENTS: dict[str, Any] = {
    "properties": {"payload_format": {"const": "cloudevents"}},
    "required": ["payload_format"],
}
_FORM_CLOUDEVENTS: dict[str, Any] = {
    "properties": {"payload_format": {"const": "cloudevents"}, "content_type": {"const": FORM}},
    "required": ["payload_format", "content_type"],
}
_CLOUDEVENTS_TYPE: dict[str, Any] = {
    "properties": {"content_type": {"const": CLOUDEVENTS_CONTENT_TYPE}},
    "required": ["content_type"],
}
_CLOUDEVENTS_TYPE_ALONE: dict[str, Any] = {**_CLOUDEVENTS_TYPE, "not": _IS_CLOUDEVENTS}
_CLOUDEVENTS_TYPE_ELSEWHERE: dict[str, Any] = {
    "properties": {**_CLOUDEVENTS_TYPE["properties"], "payload_format": {"not": {"const": "cloudevents"}}},
    "required": ["content_type", "payload_format"],
}


def _new_webhook_schema(schema: dict[str, Any]) -> None:
    schema["not"] = {"anyOf": [_FORM_CLOUDEVENTS, _CLOUDEVENTS_TYPE_ALONE]}
    schema["examples"] = [{"url": EXAMPLE_URL, "events": ["user.created", "team.*"]}]
    for name, default in DEFAULTS.items():
        schema["properties"][name]["default"] = default


class WebhookFields(BaseModel):
    """The fields that a new webhook and a change have in common."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)

    name: (
        Annotated[
            str,
            Field(min_length=1, max_length=200, json_schema_extra={"pattern": LINE_PATTERN}),
            AfterValidator(check_line),
        ]
        | None
    ) = Field(None, description="text of 1 to 200 characters")
    description: (
        Annotated[str, Field(max_length=2000, json_schema_extra={"pattern": TEXT_PATTERN}), AfterValidator(check_text)]
        | None
    ) = Field(None, description="text of at most 2000 characters")
    method: Literal["POST", "PUT", "PATCH"] | None = Field(None, description="one of POST, PUT, PATCH")
    content_type: (
        Literal["application/json", "application/x-www-form-urlencoded", "application/cloudevents+json"] | None
    ) = Field(None, description=f"application/json or {FORM}")
    status: Literal["active", "inactive"] | None = Field(
        None, description="active or inactive (disabled is the dispatcher's to set; active ends it)"
    )
    api_key: (
        Annotated[
            str,
            _shown(pattern=TOKEN_PATTERN, minLength=1, maxLength=MAX_API_KEY_LENGTH),
            AfterValidator(_api_key),
        ]
        | None
    ) = Field(None, repr=False, description="text of 1 to 512 characters, or null for no key")
    api_key_header: Literal["X-API-Key", "Authorization"] | None = Field(
        None, description="X-API-Key, or Authorization (then sent as Bearer …)"
    )
    client_certificate: (
        Annotated[
            str,
            _shown(pattern=CERTIFICATE_PATTERN, maxLength=MAX_CERTIFICATE_LENGTH),
            AfterValidator(check_certificate),
        ]
        | None
    ) = Field(None, description=f"{CERTIFICATE_HINT}, shown to an https endpoint that asks for one; or null for none")
    client_key: (
        Annotated[str, _shown(pattern=KEY_PATTERN, maxLength=MAX_KEY_LENGTH), AfterValidator(check_key)] | None
    ) = Field(None, repr=False, description=f"{KEY_HINT}; it is never shown")
    notification_type: Literal["REST"] | None = Field(None, description="REST, the only type there is")
    payload_format: Literal["event", "context", "cloudevents"] | None = Field(
        None, description="one of event, context, cloudevents"
    )
    max_attempts: Annotated[int, Field(ge=1, le=20), WHOLE] | None = Field(
        None, description="a whole number from 1 to 20; the first attempt counts"
    )
    headers: Headers | None = Field(
        None, description=f"an object of at most {MAX_HEADERS} header names and their values"
    )
    timeout_seconds: Annotated[int, Field(ge=1, le=30), WHOLE] | None = Field(
        None, description="a whole number of seconds from 1 to 30"
    )
    rate_limit: Annotated[float, Field(ge=0.001, le=10_000, allow_inf_nan=False)] | None = Field(
        None, description="deliveries per second as a number from 0.001 to 10000, or null for no limit"
    )


class NewWebhook(WebhookFields):
    """What a webhook is made from."""

    model_config = ConfigDict(json_schema_extra=_new_webhook_schema)

    url: Url = Field(description=_URL_HINT)
    events: Events = Field(description=_EVENTS_HINT)
    secret: Secret | None = Field(
        None, repr=False, description="text of 16 to 256 printable characters, or leave it out to have one made"
    )


class WebhookChange(WebhookFields):
    """What of a webhook is to change: the fields in `model_fields_set`, and no others."""

    model_config = ConfigDict(
        json_schema_extra={
            "not": {"anyOf": [_FORM_CLOUDEVENTS, _CLOUDEVENTS_TYPE_ELSEWHERE]},
            "examples": [{"events": ["user.*"], "max_attempts": 3}],
        }
    )

    url: Url = Field("", description=_URL_HINT)
    events: Events = Field([], description=_EVENTS_HINT)


_ITEMS = {
    "events": "an event type as text, such as user.created",
    "headers": "the header's value as text, or null to leave it out",
}
_BY_DISPATCHER = "is the dispatcher's to set; leave it out"
_UNSETTABLE = {
    **dict.fromkeys(("id", "created_at", "updated_at", "disabled_reason", "disabled_at", "warnings"), _BY_DISPATCHER),
    "client_key_set": "only says whether there is a key; set it with client_key",
    "api_key_set": "only says whether there is a key; set it with api_key",
    "secret": "can't be changed here; rotate it with POST /v1/webhooks/{id}/rotate-secret",
}

Fields = TypeVar("Fields", bound=WebhookFields)


def read_fields(model: type[Fields], sent: Any, current: Mapping[str, Any], policy: EndpointPolicy) -> Fields:
    """Read and check an input, against the webhook as it is now.

    Args:
        model: `NewWebhook` or `WebhookChange`.
        sent: The JSON value that the caller sent.
        current: `url`, `payload_format`, `content_type`, `client_certificate` and `headers` (an object, or None) as
            they are before.
        policy: Which endpoints the operator allows.

    Raises:
        InvalidInputError: It names every wrong field.
    """
    problems: dict[str, str] = {}
    fields: Fields | None = None
    try:
        fields = model.model_validate(sent, context=policy)
    except ValidationError as error:
        problems = in_words(
            error.errors(include_url=False, include_input=False), model, items=_ITEMS, unsettable=_UNSETTABLE
        )
    if isinstance(sent, Mapping):
        problems = {**_contradictions(sent, current), **problems}
    if fields is None or problems:
        raise InvalidInputError(problems)
    return fields


def _contradictions(sent: Mapping[str, Any], current: Mapping[str, Any]) -> dict[str, str]:
    """Check what one field asks of another; whatever has a wrong type is left to the field's own check."""
    problems: dict[str, str] = {}
    after = {**current, **{name: DEFAULTS.get(name) if value is None else value for name, value in sent.items()}}
    payload_format, content_type = after.get("payload_format"), after.get("content_type")
    blamed = "content_type" if "content_type" in sent else "payload_format"
    if payload_format == "cloudevents" and content_type == FORM:
        problems[blamed] = (
            f"payload_format cloudevents is always sent as {CLOUDEVENTS_CONTENT_TYPE}; "
            "leave content_type out (or null), or choose payload_format event or context"
        )
    if content_type == CLOUDEVENTS_CONTENT_TYPE and payload_format != "cloudevents":
        problems[blamed] = (
            f"{CLOUDEVENTS_CONTENT_TYPE} goes with payload_format cloudevents; send application/json or {FORM}"
        )
    problems |= contradictions(sent, after)
    headers = sent.get("headers")
    if isinstance(headers, Mapping):
        names = {name.lower() for name in (current.get("headers") or {})}
        names -= {str(name).lower() for name, value in headers.items() if value is None}
        names |= {str(name).lower() for name, value in headers.items() if value is not None}
        if len(names) > MAX_HEADERS:
            problems["headers"] = f"that makes {len(names)} headers; keep at most {MAX_HEADERS}"
    return problems
