"""What is written down of operators' commands over dead letters."""

from dispatcher.app.letter_audit import LetterAudit
from dispatcher.core.dead_letter_replays import LetterReplay, ReplayChoice
from dispatcher.core.dead_letters import DeadLetterFilter
from dispatcher.operations.audit import ACTIONS, COMMAND_LINE, Audit
from dispatcher.ports import AuditFilter
from tests.fakes.api_stack import ManualClock, draws
from tests.fakes.stores import MemoryAuditStore

WANTED = DeadLetterFilter("acme", "wh_1", "user.*", "gone", "5xx", 0, 1000)
TOLD = {
    "subscription": (None, "wh_1"),
    "type": (None, "user.*"),
    "reason": (None, "gone"),
    "response_code": (None, "5xx"),
    "since": (None, "1970-01-01T00:00:00Z"),
    "until": (None, "1970-01-01T00:00:01Z"),
}


async def entries(store, workspace_id):
    return list((await store.page(workspace_id, AuditFilter(), None, 10)).rows)


async def test_each_workspace_reads_what_a_command_did_with_its_dead_letters():
    """A purge and a replay are entries of every workspace they took letters of: who, which ones, how many."""
    store = MemoryAuditStore()
    audit = LetterAudit(Audit(store, ManualClock(), draws()))
    await audit.purged(WANTED, {"acme": 3})
    await audit.purged(DeadLetterFilter(), {"globex": 1})
    choice = ReplayChoice(WANTED, "wh_2", rate=5.0, again=True)
    await audit.began(LetterReplay("rpl_1", choice, 0, (), (), {}, 4), {"acme": 2, "globex": 2})
    found = {each.action: each for each in await entries(store, "acme")}
    assert found.keys() <= set(ACTIONS)
    purge, replay = found["dead_letters.purge"], found["dead_letters.replay"]
    assert (purge.actor, purge.target_id, purge.changes) == (COMMAND_LINE, "wh_1", TOLD | {"count": (None, 3)})
    options = {"to_subscription": (None, "wh_2"), "rate": (None, 5.0), "again": (None, True), "count": (None, 2)}
    assert (replay.actor, replay.target_id, replay.changes) == (COMMAND_LINE, "rpl_1", TOLD | options)
    theirs = {(each.action, each.target_id, each.changes["count"]) for each in await entries(store, "globex")}
    assert theirs == {("dead_letters.purge", "globex", (None, 1)), ("dead_letters.replay", "rpl_1", (None, 2))}
