"""Give a webhook a new signing secret, at once or with some time of overlap."""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from dispatcher.core.errors import ConflictError, NotFoundError, SealError
from dispatcher.core.model import SealedSecret, Webhook
from dispatcher.core.sealing import NONCE_BYTES, Keyring, SealPurpose, binding
from dispatcher.core.signing import generate_secret
from dispatcher.operations.audit import COMMAND_LINE, Audit
from dispatcher.operations.identifiers import Draw
from dispatcher.operations.inputs import Input, read_input
from dispatcher.operations.number_rules import WHOLE
from dispatcher.operations.webhook_fields import Secret
from dispatcher.operations.webhooks import Warned, check_revision, odd_secret
from dispatcher.ports import Actor, Clock, WebhookStore

MAX_OVERLAP_SECONDS = 7 * 86_400
MAX_SECRETS = 5
"""As many secrets sign at most: each one makes the signature header longer."""

_SECRET_BYTES = 32
_TRIES = 5


class Rotation(Input):
    """What a rotation takes."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"overlap_seconds": 86_400}]})

    secret: Secret | None = Field(
        None, repr=False, description="text of 16 to 256 printable characters, or leave it out to have one made"
    )
    overlap_seconds: Annotated[int, Field(ge=0, le=MAX_OVERLAP_SECONDS), WHOLE] | None = Field(
        None,
        description=f"a whole number of seconds from 0 (the old secret ends at once) to {MAX_OVERLAP_SECONDS} (7 days)",
    )


@dataclass(frozen=True, slots=True)
class RotatedSecret:
    """A webhook's new secret: the only time that it is shown.

    Attributes:
        webhook: As it is now.
        secret: The new one.
        overlap_ends_at_ms: Until when the one before it signs too, unix milliseconds; None: it ended at once.
        warnings: What is odd about the new one.
    """

    webhook: Webhook
    secret: str = field(repr=False)
    overlap_ends_at_ms: int | None
    warnings: tuple[Warned, ...] = ()


class SecretRotation:
    """Rotates the signing secrets of webhooks; each call sees one workspace and nothing else.

    Args:
        store: Where webhooks are kept.
        clock: Time.
        keyring: Seals secrets before they reach the store.
        draw: Random bytes, fit for secrets.
        audit: Where rotations are written down; None: nowhere.
    """

    def __init__(
        self, store: WebhookStore, clock: Clock, keyring: Keyring, draw: Draw, *, audit: Audit | None = None
    ) -> None:
        self._store = store
        self._clock = clock
        self._keyring = keyring
        self._draw = draw
        self._audit = audit

    async def rotate(
        self,
        workspace_id: str,
        webhook_id: str,
        sent: Any,
        *,
        only: Collection[int] | None = None,
        by: Actor = COMMAND_LINE,
    ) -> RotatedSecret:
        """Put a new secret in the place of the present one.

        Without overlap the present secret, and those that still overlap, sign nothing more. With overlap, each of
        them goes on signing beside the new one until its own time is over.

        Args:
            workspace_id: The tenant.
            webhook_id: `wh_…`.
            sent: A JSON-like object: any of `secret` and `overlap_seconds`.
            only: Revisions of the webhook that the rotation is meant for; None: whichever it is.
            by: Who asks for it.

        Raises:
            InvalidInputError: It names every wrong field; nothing is changed.
            NotFoundError: There is no such webhook in this workspace.
            ChangedError: Its revision is none of `only`.
            ConflictError: It is the secret already, too many secrets overlap, or others kept changing the webhook.
            UnavailableError: The store is out of reach.
        """
        wanted = read_input(Rotation, sent)
        secret = wanted.secret or generate_secret(self._draw(_SECRET_BYTES))
        for _ in range(_TRIES):
            webhook = await self._store.get(workspace_id, webhook_id)
            if webhook is None:
                raise NotFoundError(
                    "there is no such webhook in this workspace; GET /v1/webhooks lists those there are"
                )
            check_revision(webhook, only)
            rotated = self._rotated(webhook, secret, wanted.overlap_seconds or 0)
            if await self._store.replace(rotated.webhook, expected_revision=webhook.subscription.revision):
                if self._audit is not None:
                    await self._audit.note(workspace_id, by, "webhook.rotate_secret", webhook_id)
                return rotated
        raise ConflictError("the webhook was changed by others at the same time; rotate its secret again")

    def _rotated(self, webhook: Webhook, secret: str, overlap_seconds: int) -> RotatedSecret:
        subscription, now_ms = webhook.subscription, self._clock.now_ms()
        aad = binding(subscription.workspace_id, subscription.id, SealPurpose.SIGNING_SECRET)
        # What can't be opened can't sign either, and would keep the others from signing.
        opened = [(each, self._opened(each, aad)) for each in subscription.secrets]
        known = [(each, plain) for each, plain in opened if plain is not None]
        current = [each for each, _ in known if each.expires_at_ms is None]
        if any(plain == secret for each, plain in known if each.expires_at_ms is None):
            raise ConflictError(
                "this is the webhook's secret already; send another one, or leave it out to have one made"
            )
        former: list[SealedSecret] = []
        ends_at_ms = now_ms + overlap_seconds * 1000 if overlap_seconds and current else None
        if overlap_seconds:
            former = [SealedSecret(each.sealed, ends_at_ms) for each in current]
            former += [each for each, plain in known if plain != secret and _overlaps(each, now_ms)]
        if len(former) >= MAX_SECRETS:
            raise ConflictError(
                f"{len(former)} secrets would overlap with the new one; wait until one has ended, "
                "or rotate with overlap_seconds 0, which ends them all"
            )
        sealed = self._keyring.seal(secret.encode("utf-8"), nonce=self._draw(NONCE_BYTES), aad=aad)
        changed = replace(subscription, secrets=(SealedSecret(sealed), *former), revision=subscription.revision + 1)
        return RotatedSecret(
            replace(webhook, subscription=changed, updated_at_ms=now_ms),
            secret,
            ends_at_ms,
            odd_secret(secret),
        )

    def _opened(self, stored: SealedSecret, aad: bytes) -> str | None:
        try:
            return self._keyring.open(stored.sealed, aad=aad).decode("utf-8")
        except SealError:
            return None


def _overlaps(stored: SealedSecret, now_ms: int) -> bool:
    return stored.expires_at_ms is not None and stored.expires_at_ms > now_ms
