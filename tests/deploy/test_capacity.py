"""What the page about capacity says follows from what was measured."""

from dataclasses import replace

import pytest

from tests.bench.capacity import TENANTS, Run, Used, costs, tenant, unlike
from tests.bench.capacity_model import BUSY, LOADS, Figures, Load, Start, model
from tests.bench.capacity_page import BEGIN, END, PAGE, cores, disk, first, read_figures, render, shown, write_page

FIGURES = Figures(
    measured_on="2026-01-15",
    machine="2 processors",
    deliveries=1_000,
    retried=100,
    per_second=5_000.0,
    worker_mib=100.0,
    webhook_bytes=1_024.0,
    worker_us=100.0,
    mongod_us=40.0,
    broker_us=20.0,
    retry_worker_us=200.0,
    retry_mongod_us=80.0,
    retry_broker_us=40.0,
    idle_worker=0.01,
    idle_mongod=0.02,
    idle_broker=0.03,
    event_bytes=100.0,
    source_bytes=150.0,
    retry_bytes=400.0,
    log_bytes=600.0,
    retry_log_bytes=300.0,
    log_disk_bytes=200.0,
    index_bytes=100.0,
)
LOAD = Load("steady", 1e6, 1_000.0, 1_024, retried_share=0.1, event_bytes=1_100.0, endpoint_seconds=0.5)


def test_cores_are_those_of_deliveries_and_retries():
    """A thousand deliveries a second and a hundred retries cost what each of them was measured to, beside idling."""
    needs = model(FIGURES, LOAD)
    assert needs.worker_cores == pytest.approx(2 * 0.01 + 1_000 * 100e-6 + 100 * 200e-6)
    assert needs.mongod_cores == pytest.approx(2 * 0.02 + 1_000 * 40e-6 + 100 * 80e-6)
    assert needs.broker_cores == pytest.approx(2 * 0.03 + 1_000 * 20e-6 + 100 * 40e-6)
    assert needs.writes_per_second == pytest.approx(1_100)


def test_disks_hold_what_comes_for_as_long_as_it_is_kept():
    """Larger events take as much more on topics; the log compresses retries as it does deliveries."""
    needs = model(FIGURES, LOAD)
    assert needs.source_gb == pytest.approx(1e6 * 7 * (150 + 1_000) / 1e9)
    assert needs.own_gb == pytest.approx(1e6 * 7 * 0.1 * (400 + 1_000) / 1e9)
    assert needs.mongod_gb == pytest.approx(1e6 * 30 * (200 + 100 + 0.1 * 300 / 3) / 1e9)
    assert needs.index_gb == pytest.approx(1e6 * 30 * 100 / 1e9)
    assert model(FIGURES, LOAD, Start(log_days=15)).mongod_gb == pytest.approx(needs.mongod_gb / 2)
    assert model(FIGURES, LOAD, Start(topic_days=14)).source_gb == pytest.approx(needs.source_gb * 2)


def test_a_delivery_costs_what_is_used_beyond_idling():
    """What the same time costs without work is left out of worker and mongod; the publishing is the broker's."""
    run = Run(Used(3.0, 2.0, 0.5, 10.0), 0.5, Used(0.0, 0.0, 2.0, 5.0), 1.0, 1.0, {}, 0, 0)
    idle = Used(1.0, 1.0, 2.0, 20.0)
    assert costs(run, 1_000, idle) == pytest.approx(
        (2.5 / 500 * 1e6, 1.5 / 500 * 1e6, 0.5 / 500 * 1e6 + 2.0 / 1_000 * 1e6)
    )


def test_what_fails_once_is_spread_over_all_webhooks():
    """No webhook has failures alone, which would open its circuit."""
    assert {tenant(number) for number in range(1, 2 * TENANTS, 2)} == {tenant(number) for number in range(TENANTS)}
    assert len({len(unlike(number)) for number in (1, 2, 3)}) == 1


def test_memory_grows_with_webhooks():
    """A thousand webhooks of a KiB are a MiB in each worker."""
    assert model(FIGURES, LOAD).worker_mib == pytest.approx(101)


def test_workers_are_two_at_least():
    """One may be gone, however little comes; and each costs something while it has nothing to do."""
    needs = model(FIGURES, replace(LOAD, peak_per_second=0.0))
    assert (needs.workers, needs.partitions) == (2, 8)
    assert needs.worker_cores == pytest.approx(0.02)


def test_workers_are_enough_for_their_cores_or_their_requests():
    """Whichever bound is met first decides, and there are two partitions for each."""
    busy = model(FIGURES, replace(LOAD, peak_per_second=60_000.0, endpoint_seconds=0.0))
    assert busy.workers == 60_000 * 120e-6 / BUSY == 12
    assert busy.partitions == 24
    slow = model(FIGURES, replace(LOAD, endpoint_seconds=10.0))
    assert slow.in_flight == pytest.approx(11_000)
    assert slow.workers == 3


def test_what_is_used_up_most_breaks_first():
    """The list is in that order, and a part that is large enough is named as the next and not as broken."""
    needs = model(FIGURES, LOAD)
    shares = dict(needs.used)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert shares["one worker"] == pytest.approx(0.12 / BUSY)
    assert shares["partitions"] == pytest.approx(0.12 / BUSY / 8)
    assert first(needs) == "nothing; one worker: 20.0%"
    assert first(model(FIGURES, LOAD, Start(mongod_gb=1.0))) == "MongoDB's disk: 9.3 times over"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (shown(0.0579), "0.058"), (shown(4.26), "4.3"), (shown(12_345.6), "12,346"),
        (cores(0.004), "under 0.01"), (disk(0.0042), "4.2 MB"), (disk(950.0), "950 GB"), (disk(103_680.0), "104 TB"),
    ],
)  # fmt: skip
def test_numbers_are_shown_with_two_digits_and_a_unit_that_fits(text, expected):
    """No more is shown than was measured."""
    assert text == expected


def test_the_page_is_what_its_figures_make():
    """What stands between the marks follows from the figures beside it (mend: python -m tests.bench.capacity_page)."""
    _, _, behind = PAGE.read_text().partition(BEGIN)
    assert behind.partition(END)[0] == render(read_figures())


def test_every_load_has_its_column():
    """Each row of the second table has a cell for each load."""
    table = render(FIGURES).rpartition("\n\n")[2].splitlines()
    assert {line.count("|") for line in table} == {len(LOADS) + 2}


def test_writing_leaves_the_rest_of_the_page_alone(tmp_path):
    """What stands outside the marks stays, the figures are kept, and a page without marks is refused."""
    page, stored = tmp_path / "page.md", tmp_path / "figures.json"
    page.write_text(f"before\n{BEGIN}old\n{END}\nafter\n")
    write_page(FIGURES, page, stored)
    assert page.read_text() == f"before\n{BEGIN}{render(FIGURES)}{END}\nafter\n"
    assert read_figures(stored) == FIGURES
    page.write_text("no marks")
    with pytest.raises(ValueError, match="has no part between"):
        write_page(FIGURES, page, stored)
