"""The verdict over a run's facts says what is wrong with them: each test puts one thing wrong."""

from dataclasses import replace

import pytest

from dispatcher.core.delivery_id import DeliveryIds
from tests.faults.soak.facts import Disruption, Endpoint, Event, Facts, Letter, Logged, Record, Request
from tests.faults.soak.verdict import judge

OK = Endpoint("wh_ok", "/ok", "acme", ("*",), 20, frozenset({"delivered"}))
DEAD = Endpoint("wh_dead", "/dead", "acme", ("post.*",), 2, frozenset({"attempts_exhausted", "circuit_open"}))
GONE = Endpoint("wh_gone", "/gone", "acme", ("team.left",), 20, frozenset({"gone"}))
OTHER = Endpoint("wh_other", "/other", "globex", ("*",), 20, frozenset({"delivered"}))
TIER = "retry.1s"

EVENTS = (
    Event("evt_0", "user.created", "acme"),
    Event("evt_1", "post.published", "acme"),
    Event("evt_2", "team.left", "acme"),
    Event("evt_3", "user.created", "globex"),
    Event("evt_4", "team.left", "acme"),
)


def delivery(number: int, endpoint: Endpoint) -> str:
    """Give the id of an event's delivery to an endpoint."""
    event = EVENTS[number]
    return DeliveryIds(event.workspace, "", event.id).of(endpoint.id)


def request(number: int, endpoint: Endpoint, status: int, attempt: int = 1, at: float = 100.0) -> Request:
    """Make a request that was answered after 10 ms; status 0: never."""
    answered = (status, at + 0.01) if status else None
    return Request(delivery(number, endpoint), endpoint.path, f"evt_{number}", attempt, at, answered)


@pytest.fixture
def facts() -> Facts:
    """A run without a fault: 1 is delivered at the second attempt and dead elsewhere, 2 is gone, the rest delivered."""
    facts = Facts({each.path: each for each in (OK, DEAD, GONE, OTHER)})
    for offset, event in enumerate(EVENTS):
        facts.publish(event)
        facts.acknowledged.add(event.id)
        facts.place(0, offset, event.id)
    facts.requests += [
        request(0, OK, 200),
        request(1, OK, 500),
        request(1, OK, 200, attempt=2, at=102),
        request(1, DEAD, 500),
        request(1, DEAD, 500, attempt=2, at=102),
        request(2, OK, 200),
        request(2, GONE, 410),
        request(3, OTHER, 200),
        request(4, OK, 200),
    ]
    facts.records += [
        Record(TIER, 0, 0, (delivery(1, OK), 2), "", 101),
        Record(TIER, 0, 1, (delivery(1, DEAD), 2), "", 101),
    ]
    facts.letters += [Letter(delivery(1, DEAD), "attempts_exhausted", 102), Letter(delivery(2, GONE), "gone", 100)]
    facts.committed = {("source", 0): len(EVENTS), (TIER, 0): 2}
    facts.log = {
        delivery(0, OK): Logged("delivered", "", {1: 200}),
        delivery(1, OK): Logged("delivered", "", {1: 500, 2: 200}),
        delivery(1, DEAD): Logged("failed", "attempts_exhausted", {1: 500, 2: 500}),
        delivery(2, OK): Logged("delivered", "", {1: 200}),
        delivery(2, GONE): Logged("failed", "gone", {1: 410}),
        delivery(3, OTHER): Logged("delivered", "", {1: 200}),
        delivery(4, OK): Logged("delivered", "", {1: 200}),
    }
    return facts


def without_requests(facts: Facts, delivery_id: str) -> None:
    """Take all requests of a delivery out."""
    facts.requests = [each for each in facts.requests if each.delivery_id != delivery_id]


def test_true_story_has_no_problem(facts: Facts) -> None:
    """Where all is well the verdict counts everything and finds nothing."""
    verdict = judge(facts)
    assert verdict.problems == {}
    assert verdict.unexplained == []
    assert not verdict.explained
    assert (verdict.events, verdict.pairs, verdict.requests) == (5, 8, 9)
    assert (verdict.delivered, verdict.waiting, verdict.withdrawn) == (5, 0, 1)
    assert verdict.dead_lettered == {"attempts_exhausted": 1, "gone": 1}


def test_request_that_never_came_is_lost(facts: Facts) -> None:
    """A matched pair without a request, a waiting record or a letter is lost."""
    without_requests(facts, delivery(3, OTHER))
    (lost,) = judge(replace(facts, log=None)).lost
    assert "evt_3 to /other" in lost


def test_failed_attempt_without_a_record_is_lost(facts: Facts) -> None:
    """An attempt that failed, and whose next one waits nowhere, is lost however much arrived before."""
    facts.requests = [each for each in facts.requests if not (each.path == "/ok" and each.attempt == 2)]
    assert judge(replace(facts, records=facts.records[1:], log=None)).lost


@pytest.mark.parametrize("status", [0, 302, 503])
def test_request_without_success_is_no_delivery(facts: Facts, status: int) -> None:
    """Only an answer of 2xx makes a pair delivered."""
    without_requests(facts, delivery(3, OTHER))
    facts.requests.append(request(3, OTHER, status))
    assert judge(replace(facts, log=None)).lost


def test_acknowledged_event_that_is_not_on_its_topic_is_lost(facts: Facts) -> None:
    """An event that Kafka acknowledged and doesn't have is lost."""
    facts.acknowledged.add("evt_9")
    assert judge(facts).lost


@pytest.mark.parametrize("role", ["source", TIER])
def test_what_is_not_committed_waits(facts: Facts, role: str) -> None:
    """A pair whose source record, or retry record, is not committed waits and is not lost."""
    number, endpoint = (4, OK) if role == "source" else (1, OK)
    facts.requests = [
        each
        for each in facts.requests
        if each.delivery_id != delivery(number, endpoint) or (role == TIER and each.attempt == 1)
    ]
    facts.committed[role, 0] = 4 if role == "source" else 0
    verdict = judge(replace(facts, log=None))
    assert verdict.problems == {}
    assert verdict.waiting == (2 if role == "source" else 1)


@pytest.mark.parametrize(("role", "number", "endpoint"), [("source", 4, OK), (TIER, 1, OK)])
def test_forged_commit_is_found(facts: Facts, role: str, number: int, endpoint: Endpoint) -> None:
    """A commit past a record whose attempt was never made makes its pair lost, and a retry record is named."""
    facts.requests = [
        each
        for each in facts.requests
        if each.delivery_id != delivery(number, endpoint) or (role == TIER and each.attempt == 1)
    ]
    facts.committed[role, 0] = 99
    verdict = judge(replace(facts, log=None))
    assert verdict.lost
    assert bool(verdict.passed) == (role == TIER)


def test_step_that_a_circuit_skipped_was_not_passed(facts: Facts) -> None:
    """A committed record whose attempt was skipped is no fault where its delivery waits for a later one."""
    facts.requests = [each for each in facts.requests if each.delivery_id != delivery(1, OK) or each.attempt == 1]
    facts.records.append(Record("retry.3s", 0, 0, (delivery(1, OK), 3), "", 101))
    verdict = judge(replace(facts, log=None))
    assert verdict.problems == {}
    assert verdict.waiting == 1


@pytest.mark.parametrize("reason", ["gone", "circuit_open", "expired", "undecodable"])
def test_dead_letter_with_another_reason_is_a_wrong_end(facts: Facts, reason: str) -> None:
    """A reason that the requests don't bear out, or that the endpoint may not end with, is wrong."""
    facts.letters[0] = Letter(delivery(1, DEAD), reason, 102)
    assert "wrong end" in judge(replace(facts, log=None)).problems


def test_circuit_may_end_a_delivery_after_many_failures(facts: Facts) -> None:
    """`circuit_open` is borne out by 20 failed requests of its endpoint."""
    facts.letters[0] = Letter(delivery(1, DEAD), "circuit_open", 102)
    facts.requests += [request(1, DEAD, 500, attempt=2, at=103 + number) for number in range(18)]
    assert judge(replace(facts, log=None)).problems == {}


def test_early_dead_letter_is_a_wrong_end(facts: Facts) -> None:
    """`attempts_exhausted` before the last attempt was made is wrong."""
    facts.requests = [each for each in facts.requests if not (each.path == "/dead" and each.attempt == 2)]
    assert judge(replace(facts, log=None)).wrong_ends


def test_dead_letter_of_a_healthy_endpoint_is_a_wrong_end(facts: Facts) -> None:
    """A delivery that should have been made has no dead letter, whatever its reason."""
    without_requests(facts, delivery(0, OK))
    facts.requests.append(request(0, OK, 500, attempt=20))
    facts.letters.append(Letter(delivery(0, OK), "attempts_exhausted", 102))
    assert judge(replace(facts, log=None)).wrong_ends


def test_second_dead_letter_is_a_wrong_end(facts: Facts) -> None:
    """Two dead letters of one delivery are wrong, unless the first was produced when a fault may have hidden that."""
    facts.letters.append(replace(facts.letters[0], at=110))
    assert judge(facts).wrong_ends
    facts.disruptions += [Disruption("before", 90, 95), Disruption("after", 105, 120)]
    assert judge(facts).wrong_ends
    facts.disruptions.append(Disruption("killed", 103, 104))
    verdict = judge(facts)
    assert verdict.problems == {}
    assert verdict.second_letters == {"killed": 1}


def test_delivered_and_dead_lettered_is_a_wrong_end(facts: Facts) -> None:
    """A delivery that was accepted has no dead letter."""
    facts.requests.append(request(1, DEAD, 200, attempt=1, at=101))
    assert judge(replace(facts, log=None)).wrong_ends


def test_delivery_of_an_endpoint_that_only_fails_is_a_wrong_end(facts: Facts) -> None:
    """Where every delivery must fail, an accepted one is wrong."""
    del facts.letters[0]
    facts.requests.append(request(1, DEAD, 200, attempt=2, at=103))
    assert judge(replace(facts, log=None)).wrong_ends


def test_gone_without_a_letter_is_lost(facts: Facts) -> None:
    """A delivery that was told 410 needs its letter; those that come after it may go nowhere."""
    del facts.letters[1]
    assert "evt_2 to /gone" in judge(replace(facts, log=None)).lost[0]
    without_requests(facts, delivery(2, GONE))
    assert len(judge(replace(facts, log=None)).lost) == 2


@pytest.mark.parametrize(
    ("number", "endpoint"), [(0, DEAD), (0, OTHER), (3, OK)], ids=["type", "workspace", "workspace back"]
)
def test_pair_that_was_never_matched_is_wrong(facts: Facts, number: int, endpoint: Endpoint) -> None:
    """A request with another type, or for another workspace, is wrong."""
    facts.requests.append(request(number, endpoint, 200))
    (wrong,) = judge(facts).wrong
    assert f"evt_{number} arrived at {endpoint.path}" in wrong


def test_event_under_another_delivery_is_wrong(facts: Facts) -> None:
    """A known delivery's id on another event's body, or at another path, is wrong."""
    facts.requests[0] = replace(facts.requests[0], event_id="evt_3")
    assert judge(facts).wrong
    facts.requests[0] = replace(facts.requests[0], event_id="evt_0", path="/other")
    assert judge(facts).wrong


def test_record_letter_or_row_of_nothing_is_wrong(facts: Facts) -> None:
    """What Kafka or the log has of an unknown delivery is wrong, a source record in the dead letters too."""
    facts.records.append(Record(TIER, 0, 2, ("del_unknown", 2), "", 101))
    facts.letters.append(Letter("", "undecodable", 102))
    assert facts.log is not None
    facts.log["del_foreign"] = Logged("delivered", "", {1: 200})
    assert len(judge(facts).wrong) == 3


def test_repeat_is_counted_as_unexplained(facts: Facts) -> None:
    """A step that is sent again, or one after an accepted, is counted where nothing explains it."""
    facts.requests.append(request(0, OK, 200, at=103))
    facts.requests.append(request(3, OTHER, 200, attempt=2, at=103))
    verdict = judge(replace(facts, log=None))
    assert len(verdict.unexplained) == 2
    assert not verdict.explained


def test_repeat_of_what_was_unsettled_is_explained(facts: Facts) -> None:
    """What was under way at a fault may be sent again, and later steps of its delivery too; what was not, may not."""
    facts.requests.append(request(0, OK, 200, at=103))
    facts.requests.append(request(1, OK, 200, attempt=2, at=103))
    facts.requests.append(request(3, OTHER, 200, at=103))
    facts.disruptions.append(Disruption("killed", 100, 101, {(delivery(0, OK), 1), (delivery(1, OK), 1)}))
    verdict = judge(replace(facts, log=None))
    assert verdict.explained == {"under way or not logged at: killed": 1, "forked chain after: killed": 1}
    (left,) = verdict.unexplained
    assert "evt_3" in left


def test_step_behind_one_that_was_produced_at_a_fault_is_explained(facts: Facts) -> None:
    """Where a later step's record was produced when a fault may have hidden that, an earlier one may be sent again."""
    facts.requests.append(request(1, OK, 500, at=103))
    assert judge(replace(facts, log=None)).unexplained
    facts.disruptions.append(Disruption("killed", 101, 102))
    verdict = judge(replace(facts, log=None))
    assert verdict.explained == {"forked chain after: killed": 1}


def test_repeat_of_a_delivery_that_was_moved_at_a_fault_is_explained(facts: Facts) -> None:
    """Where a delivery was moved without an attempt when a fault may have hidden that, its step may be sent twice."""
    facts.requests.append(request(3, OTHER, 200, at=103))
    facts.records.append(Record("overflow", 0, 0, (delivery(3, OTHER), 1), "slow_lane", 99))
    facts.committed["overflow", 0] = 1
    assert judge(facts).unexplained
    facts.disruptions.append(Disruption("long after", 125, 126))
    assert judge(facts).unexplained
    facts.disruptions.append(Disruption("killed", 101.5, 102.5))
    assert judge(facts).explained == {"forked chain after: killed": 1}


def test_fault_that_excuses_nothing_explains_nothing(facts: Facts) -> None:
    """What was under way while a fault lasted that breaks no worker off is not to be sent again."""
    facts.requests.append(request(0, OK, 200, at=103))
    facts.disruptions.append(Disruption("hang", 100, 105, {(delivery(0, OK), 1)}, excuses=False))
    assert judge(facts).unexplained


def test_repeat_is_explained_by_the_latest_fault(facts: Facts) -> None:
    """Where a step was unsettled at two faults before it was sent again, the later one explains that."""
    facts.requests.append(request(0, OK, 200, at=103))
    unsettled = {(delivery(0, OK), 1)}
    facts.disruptions += [Disruption("first", 99, 100, unsettled), Disruption("second", 101, 102, unsettled)]
    assert judge(facts).explained == {"under way or not logged at: second": 1}


def test_silent_log_explains_a_repeat(facts: Facts) -> None:
    """What a worker sent without an answer of the log may have been sent before; not what it sent earlier or later."""
    facts.requests.append(request(0, OK, 200, at=103))
    facts.unchecked = [60.0, 104.0]
    assert judge(facts).unexplained
    facts.unchecked = [102.0]
    assert judge(facts).explained == {"the delivery log didn't say in time what was sent": 1}


def test_fault_explains_nothing_before_it(facts: Facts) -> None:
    """A repeat that came before a fault is not explained by it."""
    facts.requests.append(request(0, OK, 200, at=103))
    facts.disruptions.append(Disruption("killed", 104, 105, {(delivery(0, OK), 1)}))
    assert judge(facts).unexplained


def test_repeat_after_a_hand_over_is_explained(facts: Facts) -> None:
    """What was handed over before its answer came may be sent again; what was moved otherwise may not."""
    facts.requests.append(request(0, OK, 200, at=103))
    facts.committed["overflow", 0] = 1
    for reason, explained in (("handed_over", 1), ("slow_lane", 0)):
        record = Record("overflow", 0, 0, (delivery(0, OK), 1), reason, 101)
        verdict = judge(replace(facts, records=[*facts.records, record]))
        assert sum(verdict.explained.values()) == explained
        assert len(verdict.unexplained) == 1 - explained


def test_repeat_of_a_step_that_was_produced_twice_is_explained(facts: Facts) -> None:
    """Where a retry record was produced again because a fault hid the first, its step may be sent twice."""
    facts.requests.append(request(1, OK, 200, attempt=2, at=103))
    facts.records.append(replace(facts.records[0], offset=2, at=106))
    facts.committed[TIER, 0] = 3
    assert judge(facts).unexplained
    facts.disruptions.append(Disruption("frozen", 102, 107))
    verdict = judge(facts)
    assert verdict.explained == {"forked chain after: frozen": 1}
    assert verdict.unexplained == []


def test_event_that_was_published_twice_explains_a_repeat(facts: Facts) -> None:
    """An event that stands on its topic twice is one pair, and may be sent twice."""
    facts.place(1, 0, "evt_0")
    facts.requests.append(request(0, OK, 200, at=103))
    verdict = judge(facts)
    assert verdict.explained == {"published twice": 1}
    assert verdict.pairs == 8


@pytest.mark.parametrize(
    "row",
    [
        None,
        Logged("delivered", "", {1: 500, 2: 204}),
        Logged("delivered", "", {2: 200}),
        Logged("delivered", "", {1: 500, 2: 200, 3: 200}),
        Logged("retrying", "", {1: 500, 2: 200}),
        Logged("failed", "attempts_exhausted", {1: 500, 2: 200}),
        Logged("skipped", "deleted", {1: 500, 2: 200}),
    ],
    ids=["no row", "another status", "attempt missing", "attempt too many", "not ended", "failed", "skipped"],
)
def test_log_that_tells_another_story_is_found(facts: Facts, row: Logged | None) -> None:
    """Each delivery's row must have the attempts and statuses that its endpoint saw, and its end."""
    assert facts.log is not None
    del facts.log[delivery(1, OK)]
    if row is not None:
        facts.log[delivery(1, OK)] = row
    assert "log disagrees" in judge(facts).problems


def test_log_says_why_a_delivery_failed(facts: Facts) -> None:
    """A failed row names its letter's reason; one without a letter is found."""
    assert facts.log is not None
    facts.log[delivery(1, DEAD)] = Logged("failed", "circuit_open", {1: 500, 2: 500})
    facts.log[delivery(0, OK)] = Logged("failed", "attempts_exhausted", {1: 200})
    facts.log[delivery(3, OTHER)] = Logged("delivered", "", {1: 200})
    assert len(judge(facts).disagreements) == 2


def test_delivered_row_without_an_accepted_request_is_found(facts: Facts) -> None:
    """A row may say delivered only where the endpoint answered 2xx."""
    assert facts.log is not None
    facts.requests[0].answered = (500, 100.01)
    facts.log[delivery(0, OK)] = Logged("delivered", "", {1: 500})
    verdict = judge(facts)
    assert verdict.lost
    assert verdict.disagreements


def test_attempt_that_was_unsettled_may_be_missing_where_its_webhook_was_disabled(facts: Facts) -> None:
    """A delivery that is read again after a fault, when its webhook is disabled, is skipped and logged as that."""
    assert facts.log is not None
    del facts.letters[1]
    facts.log[delivery(2, GONE)] = Logged("skipped", "disabled", {0: 0})
    assert judge(facts).disagreements
    facts.disruptions.append(Disruption("frozen", 99, 101, {(delivery(2, GONE), 1)}))
    assert judge(facts).problems == {}


def test_attempt_that_was_unsettled_may_be_missing_where_its_next_step_was_durable(facts: Facts) -> None:
    """A worker that died between a retry's acknowledgement and the log leaves an attempt that nobody makes again."""
    assert facts.log is not None
    facts.log[delivery(1, OK)] = Logged("delivered", "", {2: 200})
    assert judge(facts).disagreements
    facts.disruptions.append(Disruption("killed", 99, 101, {(delivery(1, OK), 1)}))
    assert judge(facts).problems == {}
    facts.records = [each for each in facts.records if each.step[0] != delivery(1, OK)]
    assert judge(facts).disagreements


def test_attempt_that_was_unsettled_may_match_nothing_when_it_is_read_again(facts: Facts) -> None:
    """An event that is read again after a fault, when its webhook is disabled, matches nothing and has no row."""
    assert facts.log is not None
    del facts.letters[1], facts.log[delivery(2, GONE)]
    assert judge(facts).disagreements
    facts.disruptions.append(Disruption("killed", 99, 101, {(delivery(2, GONE), 1)}))
    assert judge(facts).problems == {}


def test_problems_stand_in_the_text(facts: Facts) -> None:
    """What is wrong can be read, and long lists are cut."""
    facts.requests += [request(0, OTHER, 200, at=103 + number) for number in range(30)]
    text = str(judge(facts))
    assert "evt_0 arrived at /other" in text
    assert "30 in all" in text
