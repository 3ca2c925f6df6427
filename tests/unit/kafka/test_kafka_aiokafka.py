"""What is used of aiokafka beyond its documented interface is still there."""

import inspect

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import SubscriptionState


def test_undocumented_parts_are_there():
    """The names that the consumer and the producer reach for exist, with the arguments they are given."""
    for owner, names in {
        Fetcher: ("_create_fetch_waiter", "beginning_offsets", "end_offsets", "get_offsets_by_times"),
        GroupCoordinator: (
            "check_errors",
            "request_rejoin",
            "ensure_coordinator_known",
            "fetch_committed_offsets",
            "coordinator_dead",
            "_do_heartbeat",
            "_send_req",
        ),
        SubscriptionState: ("fetch_context", "reassignment_in_progress"),
        AIOKafkaClient: ("fetch_all_metadata", "add_topic", "_wait_on_metadata", "coordinator_lookup"),
    }.items():
        for name in names:
            assert hasattr(owner, name), f"{owner.__name__}.{name}"
    assert list(inspect.signature(GroupCoordinator._do_commit_offsets).parameters)[1:] == ["assignment", "offsets"]


async def test_undocumented_attributes_are_there():
    """The attributes that are looked at exist once the objects do."""
    consumer = AIOKafkaConsumer(bootstrap_servers="127.0.0.1:1", group_id="g")
    producer = AIOKafkaProducer(bootstrap_servers="127.0.0.1:1")
    assert hasattr(consumer._client, "_sync_task")
    assert hasattr(producer._sender, "sender_task")
    assert hasattr(producer._message_accumulator, "fail_all")
    for name in ("_fetch_task", "_coordination_task", "_heartbeat_task"):
        owner = Fetcher if name == "_fetch_task" else GroupCoordinator
        assert f"self.{name}" in inspect.getsource(owner)
    await consumer.stop()
    await producer.stop()


def test_heartbeats_are_sent_by_what_is_watched():
    """The task that keeps a member alive sends by the one method, which says whether it was answered."""
    assert "success = await self._do_heartbeat()" in inspect.getsource(GroupCoordinator._heartbeat_routine)


async def test_a_getmany_without_timeout_never_suspends():
    """Reading without waiting can't be cancelled in the middle, so that the fetch counter never leaks."""
    source = inspect.getsource(Fetcher.fetched_records)
    waits = [line.strip() for line in source.splitlines() if "await " in line]
    assert waits == [
        "await self._subscriptions.wait_for_assignment()",
        "done, pending = await asyncio.wait([waiter], timeout=timeout)",
    ]
    assert source.index("if drained or not timeout:") < source.index("await asyncio.wait")
