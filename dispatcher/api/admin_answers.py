"""What the API answers about its keys, the changes that were made, and the event catalogue."""

from typing import Annotated, Any

from pydantic import Field

from dispatcher.api.answers import Answer, Time, fields_of, one_of, time_of
from dispatcher.core.catalogue import EventType
from dispatcher.operations.api_keys import CreatedApiKey
from dispatcher.operations.audit import ACTIONS
from dispatcher.operations.times import rfc3339
from dispatcher.ports import ApiKey, AuditEntry


class ApiKeyAnswer(Answer):
    """An API key without its secret part."""

    id: str
    name: str | None
    scopes: list[Annotated[str, one_of("read", "write", "admin")]]
    created_at: Time
    last_used_at: Time | None = Field(description="written down every few seconds")
    expires_at: Time | None = Field(description="when it is refused; null: never")


class CreatedApiKeyAnswer(ApiKeyAnswer):
    """A new API key."""

    key: str = Field(description="shown this once", repr=False)


class ApiKeyPageAnswer(Answer):
    """A page of API keys, newest first."""

    data: list[ApiKeyAnswer]
    next_cursor: str | None = Field(description="cursor of the next page; null on the last")


class ActorAnswer(Answer):
    """Who changed something."""

    type: str = Field(description="api_key, command_line or dispatcher")
    id: str | None = Field(description="the API key's id")
    name: str | None


class ChangeAnswer(Answer):
    """What changed; values of secrets are null."""

    field: str
    before: Any = Field(description="null where it is new")
    after: Any = Field(description="null where it is gone")


class AuditEntryAnswer(Answer):
    """One change."""

    id: str
    at: Time
    actor: ActorAnswer
    action: Annotated[str, one_of(*ACTIONS)]
    target_id: str = Field(description="the webhook, delivery, replay or API key that was changed")
    changes: list[ChangeAnswer]


class AuditPageAnswer(Answer):
    """A page of changes, newest first."""

    data: list[AuditEntryAnswer]
    next_cursor: str | None = Field(description="cursor of the next page; null on the last")


class EventTypeAnswer(Answer):
    """An event type of the catalogue."""

    type: str
    title: str
    group: str
    description: str
    # The name that callers meet is `schema`, which pydantic's models have a method of.
    data_schema: dict[str, Any] = Field(
        serialization_alias="schema", description="JSON Schema 2020-12 of the event's data"
    )
    sample: Any = Field(description="a data that the schema accepts")


class EventTypesAnswer(Answer):
    """A page of the event types of the catalogue, by name."""

    data: list[EventTypeAnswer]
    next_cursor: str | None = Field(description="cursor of the next page; null on the last")


def api_key_answer(key: ApiKey) -> ApiKeyAnswer:
    """Show an API key."""
    return ApiKeyAnswer(
        id=key.id,
        name=key.name,
        scopes=sorted(key.scopes),
        created_at=rfc3339(key.created_at_ms),
        last_used_at=time_of(key.last_used_at_ms),
        expires_at=time_of(key.expires_at_ms),
    )


def created_api_key_answer(created: CreatedApiKey) -> CreatedApiKeyAnswer:
    """Show a new API key and its text."""
    return CreatedApiKeyAnswer(**fields_of(api_key_answer(created.key)), key=created.plaintext)


def audit_entry_answer(entry: AuditEntry) -> AuditEntryAnswer:
    """Show a change."""
    actor = entry.actor
    return AuditEntryAnswer(
        id=entry.id,
        at=rfc3339(entry.at_ms),
        actor=ActorAnswer(type=actor.kind, id=actor.id, name=actor.name),
        action=entry.action,
        target_id=entry.target_id,
        changes=[ChangeAnswer(field=name, before=before, after=now) for name, (before, now) in entry.changes.items()],
    )


def event_type_answer(entry: EventType) -> EventTypeAnswer:
    """Show an event type."""
    return EventTypeAnswer(
        type=entry.type,
        title=entry.title,
        group=entry.group,
        description=entry.description,
        data_schema=entry.schema,
        sample=entry.sample,
    )
