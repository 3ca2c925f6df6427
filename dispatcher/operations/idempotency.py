"""A request that is sent twice with one idempotency key is done once; the second gets the first one's answer.

An answer may hold a secret that is shown once, so it is kept sealed.

Source: draft-ietf-httpapi-idempotency-key-header.
"""

import asyncio
import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson
import structlog

from dispatcher.core.errors import SealError, UnavailableError
from dispatcher.core.sealing import NONCE_BYTES, Keyring, SealPurpose, binding
from dispatcher.operations.identifiers import Draw, new_id
from dispatcher.ports import Claim, Clock, IdempotencyStore

KEPT_SECONDS = 24 * 60 * 60
LEASE_SECONDS = 90
"""How long a request may take; where its process died, the same request may be done anew after that."""

WAIT_SECONDS = 15.0
"""How long a request waits for the answer to the same one that is under way, here or in another process."""

_FIRST_LOOK_SECONDS = 0.05
_LATER_LOOK_SECONDS = 0.5

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class FinalAnswer:
    """An answer that the same request gets again."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Begun:
    """The request is to be done now; pass this to `finish` or `abandon`."""

    workspace_id: str
    claim: Claim


@dataclass(frozen=True, slots=True)
class UnderWay:
    """The same request is being done at this moment."""


@dataclass(frozen=True, slots=True)
class OtherRequest:
    """The key was used with another request."""


class Idempotency:
    """The idempotency keys of all workspaces.

    Args:
        store: Where requests and answers are kept.
        clock: Time.
        keyring: Seals the answers.
        draw: Random bytes, fit for secrets.
    """

    def __init__(self, store: IdempotencyStore, clock: Clock, keyring: Keyring, draw: Draw) -> None:
        self._store = store
        self._clock = clock
        self._keyring = keyring
        self._draw = draw

    async def begin(
        self, workspace_id: str, call: str, key: str, request: bytes
    ) -> Begun | FinalAnswer | UnderWay | OtherRequest:
        """Say what is to become of a request.

        Args:
            workspace_id: The tenant; keys of two don't meet.
            call: Method and path; a key counts for one call.
            key: What the caller sent.
            request: All that makes the request what it is, such as its body.

        Raises:
            ConflictError: Others kept taking the key and giving it back.
            UnavailableError: The store is out of reach.
        """
        now_ms = self._clock.now_ms()
        parts = orjson.dumps([workspace_id, call, key])
        claim = Claim(
            id=hashlib.sha256(parts).hexdigest(),
            request_hash=hashlib.sha256(request).digest(),
            ticket=new_id("", self._draw),
            now_ms=now_ms,
            leased_until_ms=now_ms + LEASE_SECONDS * 1000,
            expires_at_ms=now_ms + KEPT_SECONDS * 1000,
        )
        found = await self._store.claim(claim)
        if found is None:
            return Begun(workspace_id, claim)
        if found.request_hash != claim.request_hash:
            return OtherRequest()
        if found.answer is None:
            return UnderWay()
        return self._opened(workspace_id, claim.id, found.answer)

    async def begin_when_free(
        self, workspace_id: str, call: str, key: str, request: bytes, *, wait_seconds: float = WAIT_SECONDS
    ) -> Begun | FinalAnswer | UnderWay | OtherRequest:
        """Do as `begin`, and wait for the answer where the same request is under way."""
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + wait_seconds, _FIRST_LOOK_SECONDS
        while True:
            found = await self.begin(workspace_id, call, key, request)
            if not isinstance(found, UnderWay) or loop.time() >= deadline:
                return found
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LATER_LOOK_SECONDS)

    async def finish(self, begun: Begun, answer: FinalAnswer) -> None:
        """Keep the answer for the next request of the same key.

        It never fails: what was asked for is done, and the caller waits for the answer.
        """
        plain = orjson.dumps(
            {
                "status": answer.status,
                "headers": {str(name): str(value) for name, value in answer.headers.items()},
                "body": base64.b64encode(answer.body).decode("ascii"),
            }
        )
        sealed = self._keyring.seal(
            plain, nonce=self._draw(NONCE_BYTES), aad=_binding(begun.workspace_id, begun.claim.id)
        )
        try:
            await self._store.finish(begun.claim, sealed)
        except UnavailableError as error:
            _log.warning("answer could not be kept for its idempotency key", problem=str(error))

    async def abandon(self, begun: Begun) -> None:
        """Let the same key be used again: nothing was done, or it can't be told what. It never fails."""
        try:
            await self._store.abandon(begun.claim)
        except UnavailableError as error:
            _log.warning("idempotency key could not be given back", problem=str(error))

    def _opened(self, workspace_id: str, claim_id: str, sealed: bytes) -> FinalAnswer | OtherRequest:
        try:
            answer = orjson.loads(self._keyring.open(sealed, aad=_binding(workspace_id, claim_id)))
        except SealError as error:
            # Its encryption key was taken out of the settings: all that is left to say is "use another key".
            _log.warning("kept answer can't be opened", problem=str(error))
            return OtherRequest()
        return FinalAnswer(answer["status"], answer["headers"], base64.b64decode(answer["body"]))


def _binding(workspace_id: str, claim_id: str) -> bytes:
    return binding(workspace_id, claim_id, SealPurpose.ANSWER)
