"""A lone mongod becomes a primary, or the wait says why not."""

from typing import Any

import pytest
from pymongo.errors import OperationFailure

from dispatcher.local import replica_set


class FakeClient:
    """Stands for a mongod: knows whether its set was made, and becomes primary a question later."""

    def __init__(self, *, made: bool = False, refuse: int = 0) -> None:
        self.admin = self
        self.commands: list[Any] = []
        self.made = made
        self.refuse = refuse

    async def command(self, command: Any) -> dict[str, Any]:
        """Answer as mongod does."""
        self.commands.append(command)
        if command == "hello":
            if not self.made:
                return {"isreplicaset": True, "isWritablePrimary": False}
            return {"setName": "dispatcher", "isWritablePrimary": True, "me": "127.0.0.1:1"}
        self.made = True
        if self.refuse:
            raise OperationFailure("no", code=self.refuse)
        return {"ok": 1}


async def test_set_is_made_once() -> None:
    """A mongod without a set gets one of itself; one that has a set is only asked."""
    fresh, old = FakeClient(), FakeClient(made=True)
    assert not await replica_set._is_primary(fresh, "127.0.0.1:1")
    assert fresh.commands[1]["replSetInitiate"]["members"] == [{"_id": 0, "host": "127.0.0.1:1"}]
    assert await replica_set._is_primary(fresh, "127.0.0.1:1")
    assert await replica_set._is_primary(old, "127.0.0.1:1")
    assert old.commands == ["hello"]


async def test_primary_under_another_address_is_not_ready() -> None:
    """A set that knows itself by another port isn't taken for ready: clients would be sent there."""
    assert not await replica_set._is_primary(FakeClient(made=True), "127.0.0.1:2")


async def test_set_that_is_there_already_is_no_failure() -> None:
    """Losing the race to make the set is fine; any other refusal is not."""
    assert not await replica_set._is_primary(FakeClient(refuse=23), "127.0.0.1:1")
    with pytest.raises(OperationFailure):
        await replica_set._is_primary(FakeClient(refuse=13), "127.0.0.1:1")


async def test_silent_mongod_is_told_by_address() -> None:
    """Where nobody answers in time, the wait ends with the address."""
    with pytest.raises(TimeoutError, match=r"mongod on 127\.0\.0\.1:1"):
        await replica_set.make_primary(1, timeout_seconds=0.05)
