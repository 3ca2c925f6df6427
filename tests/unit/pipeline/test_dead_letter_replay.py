# ruff: noqa: D102 - the world's methods say what they do by their names
"""Replays of dead letters: what goes out and how, what is left out and why, and what a crash or a stop repeats."""

import asyncio
import json
from dataclasses import replace

import pytest

from dispatcher.core.dead_letter_replays import Fate, ReplayChoice, ReplayStage
from dispatcher.core.dead_letters import DeadLetterFilter
from dispatcher.core.delivery_id import DeliveryIds
from dispatcher.core.delivery_log import DeliveryStatus, already_done
from dispatcher.core.errors import ConflictError, InvalidInputError, NotFoundError, UnavailableError
from dispatcher.core.model import Status
from dispatcher.core.records import decode_headers
from dispatcher.core.reruns import new_run_id
from dispatcher.pipeline import dead_letter_replay
from dispatcher.ports import RejectedRecordError
from tests.fakes.dead_letters import MemoryReplayTopic
from tests.unit.mongo.samples import START_MS
from tests.unit.pipeline.letter_world import NOW_MS, World, event, fates


@pytest.fixture
def world():
    return World()


async def test_a_replayed_delivery_is_a_run_of_its_own_from_its_first_attempt(world):
    """Its record has the letter's event and coordinates, the replay's id, no attempts; the log shows that it waits."""
    delivery_id = world.letter(1, offset=7)
    done = await world.replay()
    (sent,) = world.sent
    assert (sent.delivery_id, sent.subscription_id, sent.workspace_id) == (delivery_id, "wh_1", "acme")
    assert (sent.replay_id, sent.attempt, sent.first_attempt_ms, sent.reason) == (done.id, 0, 0, "")
    assert (sent.origin.topic, sent.origin.offset, sent.origin.timestamp_ms) == ("events", 7, START_MS)
    (record,) = world.broker.on_topic("webhooks.replay")
    assert json.loads(record.value)["id"] == "evt_1"
    assert record.key == b"wh_1"
    assert dict(record.headers)["traceparent"] == b"00-1"
    state = world.log.state(delivery_id)
    assert (state.run, state.status) == (done.id, DeliveryStatus.PENDING)
    assert not already_done(state, done.id, 1)
    assert (done.stage, done.fates, done.left) == (ReplayStage.DONE, {Fate.REPLAYED: 1}, ())
    assert set(world.letters.handled.values()) == {done.id}


@pytest.mark.parametrize(("made", "most", "kept"), [(2, 6, 2), (6, 6, 5), (4, 2, 1), (1, 1, 0)])
async def test_attempts_that_are_kept_leave_one_at_least(world, made, most, kept):
    """Kept attempts count on, up to one below what the webhook allows today: its worker then makes one more."""
    world.set("wh_1", max_attempts=most)
    world.letter(1, attempt=made)
    await world.replay(keeps_attempts=True)
    assert [(each.attempt, each.first_attempt_ms) for each in world.sent] == [(kept, 7 if kept else 0)]


async def test_only_what_the_filter_wants_goes_out(world):
    """Letters of other webhooks, reasons, times and the source records among them are left alone."""
    wanted = world.letter(1, at_ms=START_MS + 10)
    world.letter(2, "wh_2", at_ms=START_MS + 10)
    world.letter(3, at_ms=START_MS + 10, reason="gone")
    world.letter(4, at_ms=START_MS + 99)
    world.bad(b"no event", at_ms=START_MS + 10)
    only = DeadLetterFilter(subscription_id="wh_1", reason="attempts_exhausted", until_ms=START_MS + 50)
    await world.replay(only)
    assert world.sent_ids == [wanted]


async def test_a_plan_tells_where_how_many_would_go_and_sends_nothing(world):
    """Planned is by workspace, webhook and fate; nothing is produced, stored, logged or marked."""
    world.letter(1)
    world.letter(2, "wh_2")
    world.logged(world.letter(3, "wh_2"), DeliveryStatus.DELIVERED)
    world.set("wh_3", status=Status.DISABLED)
    world.letter(4, "wh_3", workspace="other")
    world.letter(5, "wh_gone")
    world.bad(b"no event")
    plan = await world.plan()
    assert plan.counts == {
        ("acme", "wh_1", Fate.REPLAYED): 1,
        ("acme", "wh_2", Fate.REPLAYED): 1,
        ("acme", "wh_2", Fate.DELIVERED): 1,
        ("other", "wh_3", Fate.WEBHOOK_INACTIVE): 1,
        ("acme", "wh_gone", Fate.WEBHOOK_DELETED): 1,
        ("", "", Fate.NO_EVENT): 1,
    }
    assert (plan.chosen, plan.of(Fate.REPLAYED), plan.deliveries) == (6, 2, 2)
    assert not world.sent
    assert not world.store.stored
    assert not world.log.entries
    assert not world.letters.handled


async def test_whoever_keeps_the_books_is_told_of_each_replay_that_begins(world):
    """How many letters of each workspace are to go out is told once, as planned; a resumed one tells nothing."""
    world.letter(1)
    world.letter(2, "wh_2")
    world.letter(3, "wh_3", workspace="other")
    world.letter(4, "wh_gone")
    world.told = Stopping(world.stop, after=1)
    stopped = await world.replay(rate=1)
    world.stop.clear()
    world.told = Telling(lambda _replay: None, world, 2_000)
    await world.resume(stopped.id)
    assert world.began == [(stopped.id, {"acme": 2, "other": 1})]


async def test_of_a_delivery_with_more_letters_the_newest_goes_out(world):
    """A delivery that failed again after a replay goes out once, by its last letter."""
    world.letter(1)
    delivery_id = world.letter(1, replay_id=new_run_id(START_MS, bytes(10)), at_ms=START_MS + 5, attempt=3)
    done = await world.replay(keeps_attempts=True)
    assert (world.sent_ids, world.sent[0].attempt, done.selected) == ([delivery_id], 3, 1)


async def test_ids_sort_behind_every_run_that_is_known(world):
    """Where a clock was ahead, the replay's id still sorts behind the run that ended in the letter."""
    delivery_id = world.letter(1)
    ahead = new_run_id(NOW_MS + 10**9, bytes(10))
    world.logged(delivery_id, DeliveryStatus.SKIPPED, ahead)
    done = await world.replay()
    assert done.id > ahead
    assert world.sent_ids == [delivery_id]


async def test_max_bounds_the_letters_that_go_out(world):
    """With a bound, the first so many go out, what is left out among them not counted; the rest stays for later."""
    world.logged(world.letter(0), DeliveryStatus.DELIVERED)
    expected = [world.letter(number) for number in range(1, 9)]
    done = await world.replay(most=4)
    assert world.sent_ids == expected[:4]
    assert (done.selected, done.replayed, done.stage) == (4, 4, ReplayStage.DONE)


async def test_to_another_webhook_deliveries_get_its_own_ids(world):
    """Sent to another webhook of the workspace, each delivery is that webhook's, in its partition."""
    world.letter(1, attempt=6)
    await world.replay(to_subscription="wh_2")
    (sent,) = world.sent
    assert sent.delivery_id == DeliveryIds("acme", "", "evt_1").of("wh_2")
    assert (sent.subscription_id, sent.attempt) == ("wh_2", 0)
    assert world.broker.on_topic("webhooks.replay")[0].key == b"wh_2"


async def test_another_webhook_whose_delivery_failed_gets_it(world):
    """What failed for the other webhook as well, in whatever run, goes to it: its own letter was not asked for."""
    world.letter(1)
    theirs = DeliveryIds("acme", "", "evt_1").of("wh_2")
    world.logged(theirs, DeliveryStatus.FAILED, new_run_id(START_MS, bytes(10)))
    await world.replay(to_subscription="wh_2")
    assert world.sent_ids == [theirs]


async def test_another_webhook_that_got_the_event_gets_it_no_second_time(world):
    """What the other webhook has been delivered is left out."""
    world.letter(1)
    world.logged(DeliveryIds("acme", "", "evt_1").of("wh_2"), DeliveryStatus.DELIVERED)
    assert fates(await world.plan(to_subscription="wh_2")) == {Fate.DELIVERED: 1}


@pytest.mark.parametrize(
    ("target", "error"), [("wh_3", InvalidInputError), ("wh_none", InvalidInputError), ("wh_off", ConflictError)]
)
async def test_letters_go_to_no_webhook_of_another_workspace(world, target, error):
    """A target of another workspace, an unknown one or one that isn't active is refused before anything is sent."""
    world.set("wh_off", workspace_id="acme", status=Status.INACTIVE)
    world.letter(1)
    with pytest.raises(error):
        await world.replay(to_subscription=target)
    assert not world.sent


async def test_a_pointer_is_read_at_its_origin(world):
    """A letter without bytes goes out with those that its origin holds; gone or replaced, it is left out."""
    offsets = [world.broker.append("events", event(number)).offset for number in (1, 2)]
    delivery_id = world.letter(1, value=None, reason="too_large", offset=offsets[0])
    world.letter(3, value=None, reason="too_large", offset=offsets[1])
    world.letter(4, value=None, reason="too_large", offset=99)
    done = await world.replay()
    assert world.sent_ids == [delivery_id]
    assert done.fates == {Fate.REPLAYED: 1, Fate.GONE: 2}


async def test_a_letter_whose_event_is_another_one_is_left_out(world):
    """Bytes that decode to another event, or to none, are never sent under the letter's delivery id."""
    world.letter(1, value=event(2))
    world.letter(3, value=b"broken")
    world.letter(4, value=event(4, workspace="other"))
    assert fates(await world.plan()) == {Fate.UNREADABLE: 3}


async def test_a_letter_of_two_workspaces_goes_nowhere(world):
    """A letter whose webhook is of another workspace than its event is left out, whoever asks for it."""
    world.letter(1, "wh_3", reason="workspace_mismatch")
    assert fates(await world.plan()) == {Fate.MISMATCH: 1}
    assert fates(await world.plan(again=True)) == {Fate.MISMATCH: 1}


async def test_the_same_range_is_refused_a_second_time_unless_again(world):
    """Once replayed, the same filters over the same letters are refused, with words that say how to go on."""
    world.letter(1)
    first = await world.replay(DeadLetterFilter("acme"))
    with pytest.raises(ConflictError, match=f"1 of the 1 dead letters .*{first.id}(.|\n)*--again"):
        await world.replay(DeadLetterFilter("acme", since_ms=START_MS - 5))
    assert len(world.sent) == 1
    world.ms += 1000
    await world.replay(DeadLetterFilter("acme"), again=True)
    assert len({each.replay_id for each in world.sent}) == 2


async def test_what_a_bound_kept_back_follows_with_the_same_command(world):
    """After a replay of the first few, the same command sends the next few, and is refused when none is left."""
    expected = [world.letter(number) for number in range(3)]
    for _ in range(3):
        await world.replay(DeadLetterFilter("acme"), most=1)
        world.ms += 1000
    assert world.sent_ids == expected
    (latest, *_) = await world.store.like(ReplayChoice(DeadLetterFilter("acme")))
    assert [(span.position, span.end) for span in latest.whole] == [(0, 3)]
    with pytest.raises(ConflictError, match="--again"):
        await world.replay(DeadLetterFilter("acme"), most=1)


async def test_what_a_bound_kept_back_is_nothing_that_a_replay_went_through(world):
    """A replay that ended early is kept with what it came to, and with no more."""
    for number in range(3):
        world.letter(number)
    done = await world.replay(most=1)
    assert [(span.position, span.end) for span in done.whole] == [(0, 1)]


async def test_a_webhook_that_is_active_again_gets_its_letters_with_the_same_command(world):
    """What a replay left out because its webhook was not active goes out later, and nothing else does again."""
    sent = world.letter(1)
    left_out = world.letter(2, "wh_2")
    world.set("wh_2", status=Status.DISABLED)
    await world.replay(DeadLetterFilter("acme"))
    world.set("wh_2", status=Status.ACTIVE)
    world.ms += 1000
    done = await world.replay(DeadLetterFilter("acme"))
    assert world.sent_ids == [sent, left_out]
    assert done.fates == {Fate.UNDER_WAY: 1, Fate.REPLAYED: 1}


async def test_a_webhook_that_is_not_active_makes_no_repetition(world):
    """Where nothing would go out because of the webhook, the plan says that, and no earlier replay is blamed."""
    world.letter(1)
    world.letter(2, "wh_2")
    await world.replay(DeadLetterFilter("acme", reason="attempts_exhausted"), most=1)
    world.set("wh_2", status=Status.DISABLED)
    world.set("wh_1", status=Status.DISABLED)
    world.log.documents.clear()
    world.letters.handled.clear()
    plan = await world.plan(DeadLetterFilter("acme", reason="attempts_exhausted"))
    assert (fates(plan), plan.is_repetition) == ({Fate.WEBHOOK_INACTIVE: 2}, False)


async def test_windows_side_by_side_are_other_ranges(world):
    """A replay of one span of time is no obstacle to the next span's, though it looked a little beyond its end."""
    expected = [world.letter(number, at_ms=START_MS + number * 10) for number in range(3)]
    for start_ms in (START_MS, START_MS + 10, START_MS + 20):
        await world.replay(DeadLetterFilter("acme", since_ms=start_ms, until_ms=start_ms + 10))
        world.ms += 1000
    assert world.sent_ids == expected


async def test_a_window_beside_an_unfinished_replay_is_another_range(world):
    """What lies in the span that was read, and in no time that was asked for, may go out by its own command."""
    for number in range(2):
        world.letter(number)
    other = world.letter(2, at_ms=START_MS + 1)
    world.told = Stopping(world.stop, after=1)
    await world.replay(DeadLetterFilter("acme", until_ms=START_MS + 1), rate=1)
    world.stop.clear()
    world.told = []
    await world.replay(DeadLetterFilter("acme", since_ms=START_MS + 1, until_ms=START_MS + 2))
    assert world.sent_ids[1:] == [other]


async def test_what_an_unfinished_replay_is_still_to_send_waits_for_it(world):
    """The same command with another letter beside it is refused while an earlier one isn't done with the others."""
    for number in range(4):
        world.letter(number)
    world.told = Stopping(world.stop, after=2)
    stopped = await world.replay(DeadLetterFilter("acme"), rate=2)
    world.letter(5, at_ms=NOW_MS + 1)
    plan = await world.plan(DeadLetterFilter("acme"))
    assert (plan.is_repetition, plan.repeated, plan.unfinished) == (True, {stopped.id: 4}, 2)
    assert not (await world.plan(DeadLetterFilter("acme"), again=True)).is_repetition
    world.stop.clear()
    world.told = []
    assert (await world.replay(DeadLetterFilter("acme", since_ms=NOW_MS + 1))).replayed == 1


async def test_a_slow_replay_looks_into_what_it_is_about_to_send(world):
    """What was delivered, or whose webhook was disabled, while a slow replay ran, stays out of it."""
    first, second, *_ = [world.letter(number) for number in range(3)]
    world.letter(4, "wh_2")

    def meanwhile(replay):
        if replay.replayed == 1:
            world.logged(second, DeliveryStatus.DELIVERED)
            world.set("wh_2", status=Status.DISABLED)

    replays = world.replays()
    plan = await world.plan(rate=1, replays=replays)
    begun = await replays.begin(plan)
    await replays.run(
        replace(begun, choice=replace(begun.choice, rate=1.9)),
        plan.letters,
        Telling(meanwhile, world, 2_000),
        world.stop,
    )
    assert world.sent_ids[0] == first
    assert second not in world.sent_ids
    assert {each.subscription_id for each in world.sent} == {"wh_1"}


async def test_what_was_purged_meanwhile_stays_out_of_a_long_replay(world):
    """Every half minute a replay looks for what was dealt with beside it."""
    for number in range(4):
        world.letter(number)

    def meanwhile(replay):
        if replay.replayed == 1:
            world.letters.handled[0, 1, START_MS] = "purge"
            world.letters.handled[0, 2, START_MS] = "purge"

    replays = world.replays()
    plan = await world.plan(rate=1, replays=replays)
    done = await replays.run(await replays.begin(plan), plan.letters, Telling(meanwhile, world, 31_000), world.stop)
    assert done.fates == {Fate.REPLAYED: 2, Fate.HANDLED: 2}


async def test_a_bound_counts_on_behind_what_kafka_refuses(world):
    """Where Kafka refuses one of the first, the next takes its place, and none between them is passed over."""
    ids = [world.letter(number) for number in range(5)]
    world.producer.refuses = lambda record: (
        RejectedRecordError("too large") if decode_headers(record.headers).delivery_id == ids[0] else None
    )
    done = await world.replay(most=2)
    assert world.sent_ids == ids[1:3]
    assert done.fates == {Fate.REFUSED: 1, Fate.REPLAYED: 2}
    assert [(span.position, span.end) for span in done.whole] == [(0, 3)]


async def test_what_went_to_another_webhook_is_handled_in_the_log(world):
    """Letters that another webhook got are marked with their own deliveries; those of a new run of their own not."""
    own = world.letter(1)
    await world.replay(to_subscription="wh_2")
    assert world.letters.moved == [own]
    world.letter(3, "wh_3", workspace="other")
    await world.replay(DeadLetterFilter("other"))
    assert world.letters.moved == [own]


async def test_a_stop_while_it_still_reads_ends_a_resumed_replay(world, monkeypatch):
    """Told to stop before anything was read, a replay ends at once, as stopped; it can be gone on with."""
    expected = [world.letter(number) for number in range(3)]
    world.told = Stopping(world.stop, after=1)
    monkeypatch.setattr(dead_letter_replay, "BATCH_DELIVERIES", 1)
    stopped = await world.replay()
    world.told = []
    reads = world.letters.choose

    async def never(*_what):
        await asyncio.Event().wait()

    for name, where in (("choose", world.letters), ("delivery_ids", MemoryReplayTopic)):
        world.letters.choose = reads
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(where, name, never)
            async with asyncio.timeout(10):
                again = await world.resume(stopped.id)
        assert (again.stage, again.replayed, len(world.sent)) == (ReplayStage.STOPPED, 1, 1)
    world.stop.clear()
    assert (await world.resume(stopped.id)).fates == {Fate.REPLAYED: 3}
    assert world.sent_ids == expected


async def test_what_came_after_the_first_replay_is_another_range(world):
    """Letters that came to the topic since are replayed without a word, where only they are asked for."""
    world.letter(1)
    await world.replay(DeadLetterFilter("acme"))
    later = world.letter(2, at_ms=NOW_MS + 1)
    done = await world.replay(DeadLetterFilter("acme", since_ms=NOW_MS))
    assert (world.sent_ids[1:], done.fates) == ([later], {Fate.REPLAYED: 1})


async def test_letters_that_were_dealt_with_stay_out_under_other_filters(world):
    """What was replayed or purged under one filter is left out under another one, and goes out with again."""
    world.letter(1)
    second = world.letter(2, "wh_2")
    await world.replay(DeadLetterFilter(subscription_id="wh_1"))
    world.log.documents.clear()
    done = await world.replay(DeadLetterFilter("acme"))
    assert (world.sent_ids[1:], done.fates) == ([second], {Fate.HANDLED: 1, Fate.REPLAYED: 1})
    assert fates(await world.plan(DeadLetterFilter("acme"), again=True)) == {Fate.REPLAYED: 2}


async def test_kafka_refuses_one_record_and_the_others_go_out(world):
    """A record that Kafka will never take is told of, is not logged as waiting, and stays on the list."""
    too_large, fine = world.letter(1), world.letter(2)
    world.producer.refuses = lambda record: (
        RejectedRecordError("too large") if decode_headers(record.headers).delivery_id == too_large else None
    )
    done = await world.replay()
    assert (world.sent_ids, done.fates) == ([fine], {Fate.REFUSED: 1, Fate.REPLAYED: 1})
    assert [each.delivery_id for each in world.log.entries] == [fine]
    assert {offset for _, offset, _ in world.letters.handled} == {1}


async def test_a_replay_of_which_nothing_went_out_is_no_repetition(world):
    """Where Kafka took nothing, the same command may be given again once that is mended."""
    delivery_id = world.letter(1)
    world.producer.refuses = lambda _record: RejectedRecordError("too large")
    assert (await world.replay()).fates == {Fate.REFUSED: 1}
    world.producer.refuses = lambda _record: None
    world.ms += 1
    assert (await world.replay()).fates == {Fate.REPLAYED: 1}
    assert world.sent_ids == [delivery_id]


async def test_a_stop_ends_after_the_batch_in_hand_and_the_rest_follows(world, monkeypatch):
    """Stopped in the middle, a replay is stored as it stands; gone on with, each letter has gone out once, in order."""
    monkeypatch.setattr(dead_letter_replay, "BATCH_DELIVERIES", 2)
    expected = [world.letter(number) for number in range(7)]
    world.told = Stopping(world.stop, after=4)
    stopped = await world.replay()
    assert (stopped.stage, stopped.replayed, len(world.sent)) == (ReplayStage.STOPPED, 4, 4)
    assert len(world.letters.handled) == 4
    world.stop.clear()
    world.told = []
    done = await world.resume(stopped.id)
    assert world.sent_ids == expected
    assert (done.stage, done.fates, len(world.letters.handled)) == (ReplayStage.DONE, {Fate.REPLAYED: 7}, 7)


async def test_a_low_rate_makes_small_batches(world):
    """No more goes out at once than a second's worth, so that a stop need not wait for long."""
    for number in range(5):
        world.letter(number)
    world.told = Stopping(world.stop, after=1)
    stopped = await world.replay(rate=2)
    assert (stopped.replayed, len(world.sent)) == (2, 2)


async def test_the_rate_counts_what_a_batch_takes(world, monkeypatch):
    """Each batch has the time that its deliveries have at this rate: what sending it took is not waited for again."""
    pauses = []

    async def pause(seconds, _stop):
        pauses.append(round(seconds, 3))
        world.ms += round(seconds * 1000)

    def told(_replay):
        world.ms += 300

    monkeypatch.setattr(dead_letter_replay, "_pause", pause)
    for number in range(8):
        world.letter(number)
    replays = world.replays()
    plan = await world.plan(replays=replays, rate=2)
    await replays.run(await replays.begin(plan), plan.letters, told, world.stop)
    assert pauses == [0.7] * 4


@pytest.mark.parametrize("marked_at_once", [2, 1000])
@pytest.mark.parametrize("moment", ["before", "in", "behind"])
async def test_after_a_crash_each_letter_has_gone_out_once(world, monkeypatch, moment, marked_at_once):
    """Killed before a batch (marked or not), in its produce or before it was logged, it ends as if it had not been."""
    monkeypatch.setattr(dead_letter_replay, "BATCH_DELIVERIES", 2)
    monkeypatch.setattr(dead_letter_replay, "MARKED_AT_ONCE", marked_at_once)
    expected = [world.letter(number) for number in range(7)]
    replays = world.replays()
    plan = await world.plan(replays=replays)
    begun = await replays.begin(plan)
    with pytest.raises(UnavailableError):
        await replays.run(begun, plan.letters, Crash(world, moment, after=2), world.stop)
    world.log.down = False
    world.producer.refuses = lambda _record: None
    world.producer.release()
    world.store.before_store = lambda _replay: None
    assert 2 <= len(world.sent) < 7
    done = await world.resume(begun.id)
    assert sorted(world.sent_ids) == sorted(expected)
    assert (done.stage, done.fates) == (ReplayStage.DONE, {Fate.REPLAYED: 7})
    assert {world.log.state(each).run for each in expected} == {done.id}
    assert len(world.letters.handled) == 7


async def test_progress_is_stored_now_and_then_and_marked_before(world, monkeypatch):
    """Before a replay's progress is stored, all that it is past has been marked as handled."""
    monkeypatch.setattr(dead_letter_replay, "BATCH_DELIVERIES", 2)
    monkeypatch.setattr(dead_letter_replay, "MARKED_AT_ONCE", 4)
    for number in range(9):
        world.letter(number)
    seen = []
    world.store.before_store = lambda replay: seen.append((replay.replayed, len(world.letters.handled)))
    await world.replay()
    assert all(marked >= stored for stored, marked in seen)
    assert [stored for stored, _ in seen] == [0, 0, 4, 4, 8, 9]


async def test_whoever_is_taken_over_stops_before_its_next_batch(world, monkeypatch):
    """A second process that goes on with a replay ends the first one, and nothing goes out twice."""
    monkeypatch.setattr(dead_letter_replay, "BATCH_DELIVERIES", 2)
    expected = [world.letter(number) for number in range(6)]
    replays = world.replays()
    plan = await world.plan(replays=replays)
    begun = await replays.begin(plan)

    def taken_over(replay):
        if replay.replayed == 4:
            world.store.stored[replay.id] = (world.store.stored[replay.id][0], "b")

    with pytest.raises(ConflictError, match="another process"):
        await replays.run(begun, plan.letters, taken_over, world.stop)
    assert len(world.sent) == 4
    await world.resume(begun.id)
    assert world.sent_ids == expected


async def test_a_resumed_replay_keeps_to_what_was_asked_for_and_to_its_snapshot(world, monkeypatch):
    """Gone on with, filters, bound and target hold as they were given, and later letters are not its own."""
    monkeypatch.setattr(dead_letter_replay, "BATCH_DELIVERIES", 2)
    for number in range(7):
        world.letter(number)
    world.letter(8, "wh_3", workspace="other")
    world.told = Stopping(world.stop, after=2)
    stopped = await world.replay(DeadLetterFilter("acme"), to_subscription="wh_2", most=5)
    world.stop.clear()
    world.told = []
    world.letter(9)
    done = await world.resume(stopped.id)
    assert [each.subscription_id for each in world.sent] == ["wh_2"] * 5
    assert (done.replayed, done.stage) == (5, ReplayStage.DONE)


async def test_unknown_and_done_replays_are_not_gone_on_with(world):
    """An unknown id and a replay that is done are told apart, and nothing is sent."""
    world.letter(1)
    done = await world.replay()
    with pytest.raises(ConflictError, match="1 dead letters were replayed"):
        await world.resume(done.id)
    with pytest.raises(NotFoundError, match="rpl_none"):
        await world.resume("rpl_none")
    assert len(world.sent) == 1


async def test_an_unfinished_replay_is_to_be_gone_on_with(world, monkeypatch):
    """The same command after a crash is refused with the command that goes on."""
    monkeypatch.setattr(dead_letter_replay, "BATCH_DELIVERIES", 2)
    for number in range(4):
        world.letter(number)
    world.told = Stopping(world.stop, after=2)
    stopped = await world.replay()
    with pytest.raises(ConflictError, match=f"--resume {stopped.id}"):
        await world.replay()


class Stopping(list):
    """Stops a replay when so many letters went out."""

    def __init__(self, stop, after):
        self.stop, self.after = stop, after

    def append(self, replay):
        if replay.replayed >= self.after:
            self.stop.set()


class Telling:
    """Does something when it is told how far a replay is; time then goes on."""

    def __init__(self, does, world, passes_ms=0):
        self.does, self.world, self.passes_ms = does, world, passes_ms

    def __call__(self, replay):
        self.does(replay)
        self.world.ms += self.passes_ms

    append = __call__


class Crash:
    """Ends a replay's process, more or less: before a batch, with half of it produced, or before it is logged."""

    def __init__(self, world, moment, after):
        self.world, self.moment, self.after, self.left = world, moment, after, 1

    def __call__(self, replay):
        world = self.world
        if replay.replayed < self.after:
            return
        if self.moment == "before":
            world.store.before_store = self.fail
        elif self.moment == "in":
            world.producer.refuses = self.refuse
        else:
            world.log.down = True
            # What it asks of the log before it produces is answered from what it knows.
            world.log.states = self.states_of(world.log)

    @staticmethod
    def states_of(log):
        async def states(delivery_ids):
            return {each: log.documents[each].state for each in delivery_ids if each in log.documents}

        return states

    def refuse(self, _record):
        self.left -= 1
        return None if self.left >= 0 else UnavailableError("killed")

    @staticmethod
    def fail(_replay):
        raise UnavailableError("killed")
