"""Send one logged delivery again: a run of its own, from the record that its event was read from."""

from dataclasses import dataclass

from dispatcher.core.delivery_log import LoggedDelivery
from dispatcher.core.errors import ConflictError, NotFoundError
from dispatcher.core.model import Origin, Status, Webhook
from dispatcher.core.reruns import CHANCE_BYTES, expired, new_run_id, pending_entry, rerun_record
from dispatcher.core.topics import TopicNames
from dispatcher.operations.audit import COMMAND_LINE, Audit
from dispatcher.operations.identifiers import Draw
from dispatcher.ports import (
    Actor,
    Clock,
    DeliveryLogReader,
    DeliveryLogWriter,
    OutgoingRecord,
    RecordLookup,
    RecordPlacer,
    WebhookStore,
)


@dataclass(frozen=True, slots=True)
class Redelivery:
    """A delivery that was asked for again.

    Attributes:
        delivery_id: `del_…`; the same as before.
        replay_id: `rpl_…`: what the log shows its attempts under.
    """

    delivery_id: str
    replay_id: str


class Redeliveries:
    """Redelivers; each call sees one workspace and nothing else.

    Args:
        store: Where webhooks are kept.
        log: Where deliveries are read from.
        log_writer: Shows that they wait again.
        records: Reads events again.
        producer: Takes the new run's record.
        names: The own topics.
        clock: Time.
        draw: Random bytes.
        audit: Where redeliveries are written down; None: nowhere.
    """

    def __init__(
        self,
        store: WebhookStore,
        log: DeliveryLogReader,
        log_writer: DeliveryLogWriter,
        records: RecordLookup,
        producer: RecordPlacer,
        names: TopicNames,
        clock: Clock,
        draw: Draw,
        *,
        audit: Audit | None = None,
    ) -> None:
        self._store = store
        self._log = log
        self._log_writer = log_writer
        self._records = records
        self._producer = producer
        self._names = names
        self._clock = clock
        self._draw = draw
        self._audit = audit

    async def redeliver(
        self, workspace_id: str, webhook_id: str, delivery_id: str, *, by: Actor = COMMAND_LINE
    ) -> Redelivery:
        """Start a delivery anew, whatever became of it; a schedule that still runs for it ends.

        Args:
            workspace_id: The tenant.
            webhook_id: `wh_…`.
            delivery_id: `del_…`.
            by: Who asks for it.

        Raises:
            NotFoundError: There is no such webhook in this workspace, or no such delivery of it.
            ConflictError: The webhook is not active, or the delivery was a test.
            GoneError: The event's record is kept no more.
            UnavailableError: Kafka or the log is out of reach.
        """
        active_webhook(await self._store.get(workspace_id, webhook_id))
        delivery = await self._log.get(workspace_id, webhook_id, delivery_id)
        if delivery is None:
            raise NotFoundError(
                "there is no such delivery of this webhook in this workspace; "
                "GET /v1/webhooks/{id}/deliveries lists those that are still kept"
            )
        if delivery.test:
            raise ConflictError("this was a test event, which is sent once; POST /v1/webhooks/{id}/test sends another")
        now_ms = self._clock.now_ms()
        run = new_run_id(now_ms, self._draw(CHANCE_BYTES), after=delivery.run)
        await self._producer.place(await self._record(delivery, run))
        if self._audit is not None:
            changes = {"webhook_id": (None, webhook_id), "replay_id": (delivery.run or None, run)}
            await self._audit.note(workspace_id, by, "delivery.redeliver", delivery_id, changes)
        await self._log_writer.write([pending_entry(delivery, run, now_ms)])
        return Redelivery(delivery_id, run)

    async def _record(self, delivery: LoggedDelivery, run: str) -> OutgoingRecord:
        at = delivery.origin
        found = await self._records.read(at.topic, at.partition, at.offset)
        if found is None:
            raise expired(at)
        origin = Origin(at.topic, at.partition, at.offset, found.timestamp, found.key)
        key, headers = rerun_record(delivery, run, found.value, found.headers, origin)
        return OutgoingRecord(self._names.replay, key, found.value, headers)


def active_webhook(webhook: Webhook | None) -> Webhook:
    """Return a webhook that deliveries can be sent to.

    Raises:
        NotFoundError: There is none.
        ConflictError: Its status would have them skipped.
    """
    if webhook is None:
        raise NotFoundError("there is no such webhook in this workspace; GET /v1/webhooks lists those there are")
    if webhook.subscription.status != Status.ACTIVE:
        raise ConflictError(
            f"the webhook is {webhook.subscription.status}, so nothing would be sent; set its status to active first"
        )
    return webhook
