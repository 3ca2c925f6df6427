"""Create, show, change and delete webhooks."""

import base64
import binascii
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dispatcher.core.errors import ChangedError, ConflictError, InvalidInputError, NotFoundError, QuotaError
from dispatcher.core.model import SealedSecret, Status, Subscription, Webhook
from dispatcher.core.payload import CLOUDEVENTS_CONTENT_TYPE
from dispatcher.core.sealing import NONCE_BYTES, Keyring, SealPurpose, binding
from dispatcher.core.urls import parse_endpoint_url
from dispatcher.operations.audit import COMMAND_LINE, Audit, differences
from dispatcher.operations.client_certificates import fingerprint, pair_problems
from dispatcher.operations.header_rules import merge_headers
from dispatcher.operations.identifiers import Draw, new_id
from dispatcher.operations.key_origin import key_left_behind
from dispatcher.operations.webhook_fields import (
    DEFAULTS,
    EndpointPolicy,
    NewWebhook,
    WebhookChange,
    WebhookFields,
    read_fields,
)
from dispatcher.ports import Actor, Clock, Page, WebhookFilter, WebhookStore

SECRET_PREFIX = "whsec_"  # noqa: S105 - the prefix of generated secrets, no secret

KNOWN_AFTER_MS = 5_000
"""By then all workers know of a change, unless MongoDB is away."""

_SECRET_BYTES = 32
_TRIES = 5

_OF_SUBSCRIPTION = (
    "method",
    "content_type",
    "status",
    "payload_format",
    "max_attempts",
    "api_key_header",
    "timeout_seconds",
    "rate_limit",
)
_OF_WEBHOOK = ("name", "description", "notification_type")


@dataclass(frozen=True, slots=True)
class Warned:
    """Something that was accepted and is probably not meant.

    Attributes:
        field: Path of the field (`events.0`).
        message: What is odd, and what to do if it isn't meant.
    """

    field: str
    message: str


@dataclass(frozen=True, slots=True)
class CreatedWebhook:
    """A new webhook, and its secret: the only time that it is shown."""

    webhook: Webhook
    secret: str = field(repr=False)
    warnings: tuple[Warned, ...] = ()


@dataclass(frozen=True, slots=True)
class BackfillOffer:
    """The time for which a webhook got nothing, as the dispatcher had disabled it. Times are unix milliseconds.

    Attributes:
        since_ms: When it was disabled.
        until_ms: When every worker knows that it is active again.
    """

    since_ms: int
    until_ms: int


@dataclass(frozen=True, slots=True)
class ChangedWebhook:
    """A webhook as it is after a change.

    Attributes:
        backfill: Where the change has made a disabled webhook active again: what it missed.
    """

    webhook: Webhook
    warnings: tuple[Warned, ...] = ()
    backfill: BackfillOffer | None = None


def no_known_types() -> Collection[str]:
    """Stand for an event catalogue where there is none: nothing is warned of."""
    return ()


class Webhooks:
    """The webhooks of all workspaces; each call sees one workspace and nothing else.

    Args:
        store: Where they are kept.
        clock: Time.
        policy: Which endpoints the operator allows, as far as a URL tells.
        keyring: Seals secrets before they reach the store.
        draw: Random bytes, fit for secrets.
        known_types: The event types of the catalogue; empty: nothing is known, so nothing is warned of.
        audit: Where changes are written down; None: nowhere.
        most: How many a workspace may have; None: any number.
    """

    def __init__(
        self,
        store: WebhookStore,
        clock: Clock,
        policy: EndpointPolicy,
        keyring: Keyring,
        draw: Draw,
        *,
        known_types: Callable[[], Collection[str]] = no_known_types,
        audit: Audit | None = None,
        most: int | None = None,
    ) -> None:
        self._most = most
        self._store = store
        self._clock = clock
        self._policy = policy
        self._keyring = keyring
        self._draw = draw
        self._known_types = known_types
        self._audit = audit

    async def create(self, workspace_id: str, sent: Any, *, by: Actor = COMMAND_LINE) -> CreatedWebhook:
        """Create a webhook from what the caller sent, a JSON-like object of settable fields.

        Raises:
            InvalidInputError: It names every wrong field; nothing is stored.
            QuotaError: The workspace has as many as it may.
            UnavailableError: The store is out of reach.
        """
        fields = read_fields(NewWebhook, sent, DEFAULTS, self._policy)
        self._check_client_certificate(fields)
        secret = fields.secret
        if secret is None:
            secret = SECRET_PREFIX + base64.b64encode(self._draw(_SECRET_BYTES)).decode("ascii")
        webhook_id = new_id("wh_", self._draw)
        now_ms = self._clock.now_ms()
        sealed = SealedSecret(self._seal(secret, workspace_id, webhook_id, SealPurpose.SIGNING_SECRET))
        blank = Webhook(
            subscription=Subscription(
                id=webhook_id, workspace_id=workspace_id, url=None, events=(), secrets=(sealed,), revision=0
            ),
            url="",
            name=None,
            description=None,
            created_at_ms=now_ms,
            updated_at_ms=now_ms,
        )
        webhook = self._changed(blank, fields, now_ms)
        if not await self._store.insert(webhook, at_most=self._most):
            raise QuotaError("webhooks", self._most or 0, "DISPATCHER_MAX_WEBHOOKS_PER_WORKSPACE")
        await self._note(by, "webhook.create", webhook, differences({}, _told(webhook)))
        return CreatedWebhook(webhook, secret, (*odd_secret(secret), *self._unknown_types(fields)))

    def problems_of(self, sent: Any, before: Webhook | None = None) -> dict[str, str]:
        """Say what `create`, or a change of the webhook `before`, would refuse: field to what is wrong with it."""
        try:
            fields: WebhookFields
            if before is None:
                fields = read_fields(NewWebhook, sent, DEFAULTS, self._policy)
            else:
                fields = self._read_change(sent, before)
            self._check_client_certificate(fields)
        except InvalidInputError as error:
            return error.fields
        return {}

    async def get(self, workspace_id: str, webhook_id: str) -> Webhook:
        """Return a webhook.

        Raises:
            NotFoundError: There is none of this id in this workspace.
            UnavailableError: The store is out of reach.
        """
        webhook = await self._store.get(workspace_id, webhook_id)
        if webhook is None:
            raise _not_found(webhook_id)
        return webhook

    async def some(self, workspace_id: str, webhook_ids: Iterable[str]) -> dict[str, Webhook | None]:
        """Return webhooks by id; None stands for one that was deleted, or isn't this workspace's.

        Raises:
            UnavailableError: The store is out of reach.
        """
        wanted = list(dict.fromkeys(webhook_ids))
        found = {each.subscription.id: each for each in await self._store.some(workspace_id, wanted)}
        return {webhook_id: found.get(webhook_id) for webhook_id in wanted}

    async def page(
        self, workspace_id: str, cursor: str | None, limit: int, *, wanted: WebhookFilter | None = None
    ) -> Page[Webhook]:
        """Return one page of webhooks, or of those that are wanted, newest first.

        Raises:
            InvalidInputError: The cursor is none of ours.
            UnavailableError: The store is out of reach.
        """
        return await self._store.page(workspace_id, cursor, limit, wanted=wanted)

    async def update(
        self,
        workspace_id: str,
        webhook_id: str,
        sent: Any,
        *,
        only: Collection[int] | None = None,
        by: Actor = COMMAND_LINE,
    ) -> ChangedWebhook:
        """Change the fields that the caller sent, and no others; a change made by somebody else stays.

        Args:
            workspace_id: The tenant.
            webhook_id: `wh_…`.
            sent: A JSON-like object of settable fields.
            only: Revisions that the change is meant for; None: whichever it is.
            by: Who changes it.

        Raises:
            InvalidInputError: It names every wrong field; nothing is stored. An API key that would go to another origin
                than the one that it was given for is one: whoever may write must not learn it that way.
            NotFoundError: There is none of this id in this workspace.
            ChangedError: Its revision is none of `only`.
            ConflictError: Others kept changing it.
            UnavailableError: The store is out of reach.
        """
        for _ in range(_TRIES):
            webhook = await self.get(workspace_id, webhook_id)
            subscription = webhook.subscription
            fields = self._read_change(sent, webhook)
            self._check_client_certificate(fields)
            check_revision(webhook, only)
            if not fields.model_fields_set:
                return ChangedWebhook(webhook)
            changed = self._changed(webhook, fields, self._clock.now_ms())
            if await self._store.replace(changed, expected_revision=subscription.revision):
                await self._note(by, "webhook.update", changed, _changes(webhook, changed, fields))
                return ChangedWebhook(changed, self._unknown_types(fields), _missed(webhook, changed))
        raise _overtaken()

    async def delete(
        self,
        workspace_id: str,
        webhook_id: str,
        *,
        only: Collection[int] | None = None,
        by: Actor = COMMAND_LINE,
    ) -> None:
        """Delete a webhook; what still waits for it is skipped.

        Args:
            workspace_id: The tenant.
            webhook_id: `wh_…`.
            only: Revisions that may be deleted; None: whichever it is.
            by: Who deletes it.

        Raises:
            NotFoundError: There is none of this id in this workspace.
            ChangedError: Its revision is none of `only`.
            ConflictError: Others kept changing it.
            UnavailableError: The store is out of reach.
        """
        for _ in range(_TRIES):
            if only is None and await self._store.get(workspace_id, webhook_id) is None:
                # One that is stored and can't be read counts as absent, and can still be got rid of.
                if not await self._store.delete(workspace_id, webhook_id):
                    raise _not_found(webhook_id)
                if self._audit is not None:
                    await self._audit.note(workspace_id, by, "webhook.delete", webhook_id)
                return
            webhook = await self._expected(workspace_id, webhook_id, only)
            revision = None if only is None else webhook.subscription.revision
            if await self._store.delete(workspace_id, webhook_id, expected_revision=revision):
                await self._note(by, "webhook.delete", webhook, differences(_told(webhook), {}))
                return
        raise _overtaken()

    async def _expected(self, workspace_id: str, webhook_id: str, only: Collection[int] | None) -> Webhook:
        webhook = await self.get(workspace_id, webhook_id)
        check_revision(webhook, only)
        return webhook

    def _read_change(self, sent: Any, before: Webhook) -> WebhookChange:
        problems: dict[str, str] = {}
        fields: WebhookChange | None = None
        try:
            fields = read_fields(WebhookChange, sent, _current(before), self._policy)
        except InvalidInputError as error:
            problems = error.fields
        problems = {**problems, **key_left_behind(sent, before.subscription)}
        if fields is None or problems:
            raise InvalidInputError(problems)
        return fields

    async def _note(self, by: Actor, action: str, webhook: Webhook, changes: Mapping[str, tuple[Any, Any]]) -> None:
        if self._audit is not None:
            subscription = webhook.subscription
            await self._audit.note(subscription.workspace_id, by, action, subscription.id, changes)

    def _changed(self, webhook: Webhook, fields: WebhookFields, now_ms: int) -> Webhook:
        sent = fields.model_dump(exclude_unset=True)
        values: dict[str, Any] = {name: DEFAULTS.get(name) if value is None else value for name, value in sent.items()}
        old = webhook.subscription
        changes = {name: values[name] for name in _OF_SUBSCRIPTION if name in values}
        if changes.get("content_type") == CLOUDEVENTS_CONTENT_TYPE:
            # The format alone decides that type; stored is what the webhook goes back to with another format.
            changes["content_type"] = DEFAULTS["content_type"]
        if "url" in values:
            changes["url"] = parse_endpoint_url(values["url"])
        if "events" in values:
            changes["events"] = tuple(values["events"])
        if "headers" in values:
            changes["headers"] = merge_headers(old.headers, values["headers"])
        if "api_key" in values:
            api_key = values["api_key"]
            changes["api_key"] = (
                None if api_key is None else self._seal(api_key, old.workspace_id, old.id, SealPurpose.API_KEY)
            )
        if "client_certificate" in values or "client_key" in values:
            key = values.get("client_key")
            changes["client_certificate"] = values.get("client_certificate")
            changes["client_key"] = (
                None if key is None else self._seal(key, old.workspace_id, old.id, SealPurpose.CLIENT_KEY)
            )
        subscription = replace(old, revision=old.revision + 1, **changes)
        if (subscription.url, subscription.status) != (old.url, old.status):
            subscription = replace(subscription, endpoint_revision=subscription.revision)
        about = {name: values[name] for name in _OF_WEBHOOK if name in values}
        if subscription.status != Status.DISABLED:
            about |= {"disabled_reason": None, "disabled_at_ms": None}
        return replace(
            webhook, subscription=subscription, url=values.get("url", webhook.url), updated_at_ms=now_ms, **about
        )

    def _check_client_certificate(self, fields: WebhookFields) -> None:
        if fields.client_certificate is not None and fields.client_key is not None:
            problems = pair_problems(fields.client_certificate, fields.client_key, self._clock.now_ms())
            if problems:
                raise InvalidInputError(problems)

    def _seal(self, plaintext: str, workspace_id: str, webhook_id: str, purpose: SealPurpose) -> bytes:
        return self._keyring.seal(
            plaintext.encode("utf-8"),
            nonce=self._draw(NONCE_BYTES),
            aad=binding(workspace_id, webhook_id, purpose),
        )

    def _unknown_types(self, fields: WebhookFields) -> tuple[Warned, ...]:
        known = self._known_types()
        patterns: Mapping[int, str] = dict(enumerate(fields.model_dump(include={"events"}).get("events", ())))
        if not known:
            return ()
        return tuple(
            Warned(f"events.{position}", "matches no event type of the catalogue; check its spelling")
            for position, pattern in patterns.items()
            if not _is_known(pattern, known)
        )


def _missed(before: Webhook, after: Webhook) -> BackfillOffer | None:
    """Return the time for which a webhook was disabled, where a change has ended it."""
    if before.disabled_at_ms is None or after.subscription.status != Status.ACTIVE:
        return None
    return BackfillOffer(before.disabled_at_ms, after.updated_at_ms + KNOWN_AFTER_MS)


def _current(webhook: Webhook) -> dict[str, Any]:
    """Return those fields that others are checked against."""
    subscription = webhook.subscription
    return {
        "url": webhook.url,
        "client_certificate": subscription.client_certificate,
        "payload_format": subscription.payload_format,
        "content_type": subscription.content_type,
        "headers": dict(subscription.headers),
    }


def check_revision(webhook: Webhook, only: Collection[int] | None) -> None:
    """Let a change go on that is meant for the webhook as it is.

    Raises:
        ChangedError: The webhook's revision is none of `only`.
    """
    if only is not None and webhook.subscription.revision not in only:
        raise ChangedError(
            "the webhook is not in the version that If-Match names; read it again, then send the change with "
            "the ETag of that answer"
        )


def _is_known(pattern: str, known: Collection[str]) -> bool:
    if pattern.endswith("*"):
        return any(name.startswith(pattern[:-1]) for name in known)
    return pattern in known


def odd_secret(secret: str) -> tuple[Warned, ...]:
    """Return the warning of a secret that looks like a Standard Webhooks one and can't be read as such, or nothing."""
    if not secret.startswith(SECRET_PREFIX):
        return ()
    try:
        base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return (
            Warned("secret", "what follows whsec_ is no base64, so Standard Webhooks libraries can't read this secret"),
        )
    return ()


def _told(webhook: Webhook) -> dict[str, Any]:
    """Return what the audit log tells of a webhook: every settable field but the secrets."""
    subscription = webhook.subscription
    told: dict[str, Any] = {"url": webhook.url, "events": list(subscription.events)}
    told |= {name: getattr(subscription, name) for name in _OF_SUBSCRIPTION}
    told |= {name: getattr(webhook, name) for name in _OF_WEBHOOK}
    told["client_certificate"] = fingerprint(subscription.client_certificate)
    return {**told, "status": str(subscription.status), "headers": dict(subscription.headers)}


def _changes(before: Webhook, after: Webhook, fields: WebhookFields) -> dict[str, tuple[Any, Any]]:
    changes = differences(_told(before), _told(after))
    # A secret that was set is named and never shown.
    return {**changes, **dict.fromkeys({"api_key", "client_key"} & fields.model_fields_set, (None, None))}


def _overtaken() -> ConflictError:
    return ConflictError("the webhook was changed by others at the same time; read it again, then send the change")


def _not_found(webhook_id: str) -> NotFoundError:
    shown = webhook_id if len(webhook_id) <= 64 else webhook_id[:63] + "…"  # noqa: PLR2004 - enough to recognise it
    return NotFoundError(f"there is no webhook {shown} in this workspace; GET /v1/webhooks lists those there are")
