"""The webhooks of a run, of two workspaces: healthy, slow, failing at first or always, gone, for other types."""

import json
import random
from collections.abc import Mapping
from typing import Any

from tests.deployment import WORKSPACE, Deployment
from tests.faults.soak.facts import Endpoint, Request
from tests.faults.soak.publisher import OTHER_WORKSPACE, RARE_TYPE
from tests.receiver import HANG, Answer

DELIVERED = frozenset({"delivered"})
PATIENT = {"max_attempts": 20, "timeout_seconds": 8}
LATENCY_SECONDS = {"/jitter": (0.0, 0.05), "/other-jitter": (0.0, 0.05), "/slow": (0.2, 0.9)}
"""From, to; others answer at once. The slow one takes longer than from commit to commit: always some are under way."""
GONE = "/gone"


def remember(at: float, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Request:
    """Make what is kept of a request."""
    return Request(headers["webhook-id"], path, json.loads(body)["id"], int(headers["x-webhook-attempt"]), at)


class Endpoints:
    """How the endpoints answer.

    Args:
        deployment: Where they are registered.
        chance: Draws latencies.

    Attributes:
        hang: While True nobody gets an answer.
        known: What was made, by path.
    """

    def __init__(self, deployment: Deployment, chance: random.Random) -> None:
        self.hang = False
        self.known: dict[str, Endpoint] = {}
        self._deployment = deployment
        self._chance = chance

    async def make(self) -> None:
        """Register all webhooks."""
        gives_up = frozenset({"attempts_exhausted", "circuit_open"})
        await self._add("/ok", ("*",))
        await self._add("/jitter", ("user.*",))
        await self._add("/slow", ("project.*",))
        await self._add("/fails-at-first", ("user.created", "project.*"))
        await self._add("/dead", ("post.published",), gives_up, max_attempts=2)
        await self._add(GONE, (RARE_TYPE,), frozenset({"gone"}))
        await self._add("/never", ("account.deleted",))
        await self._add("/other", ("*",), workspace=OTHER_WORKSPACE)
        await self._add("/other-jitter", ("user.updated",), workspace=OTHER_WORKSPACE)

    async def revive(self) -> None:
        """Let the endpoint that is gone get events again, until it answers the next one."""
        deployment, gone = self._deployment, self.known[GONE]
        await deployment.webhooks.update(gone.workspace, gone.id, {"status": "active"})

    async def _add(
        self,
        path: str,
        types: tuple[str, ...],
        ends: frozenset[str] = DELIVERED,
        workspace: str = WORKSPACE,
        **fields: Any,
    ) -> None:
        fields = {**PATIENT, **fields}
        made = await self._deployment.webhook(path, workspace, events=list(types), **fields)
        subscription = made.subscription
        self.known[path] = Endpoint(subscription.id, path, workspace, types, fields["max_attempts"], ends)
        self._deployment.receiver.answer(path, self._answer)

    def _answer(self, request: Request) -> Answer | int:
        if self.hang:
            return HANG
        match request.path:
            case "/dead":
                return 500
            case "/gone":
                return 410
            case "/fails-at-first":
                # Not so many that the circuit opens.
                return 500 if request.attempt == 1 and int(request.event_id[4:]) % 2 else 200
        return Answer(200, self._chance.uniform(*LATENCY_SECONDS.get(request.path, (0.0, 0.0))))
