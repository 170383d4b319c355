"""Units of assignment: counted once, read at fixed ages, bounded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from understudy.monitor.config.experiment import Experiment as Declared
from understudy.monitor.evidence.arms import Arms
from understudy.monitor.evidence.batch import ColumnBatch, batch_of
from understudy.monitor.evidence.layout import ASSIGNED
from understudy.monitor.experiments.live import LiveExperiment
from understudy.shadow.experiment.cutoffs import CUTOFFS
from understudy.shadow.experiment.units import Observed, UnitTable

DAY = 86_400.0
BEGIN = 1e9
Rows = tuple[list[str], np.ndarray, np.ndarray, np.ndarray]
"""Units, arms, times, values."""


def take(table: UnitTable, rows: Rows, size: int) -> list[Observed]:
    units, arms, at, x = rows
    observed = []
    for begin in range(0, len(units), size):
        part = slice(begin, begin + size)
        _, _, found = table.take(units[part], arms[part], at[part], {"x": x[part]})
        observed += found
    return observed


def joined(observed: list[Observed]) -> dict[int, tuple[list[int], list[float], list[float]]]:
    found: dict[int, tuple[list[int], list[float], list[float]]] = {}
    for one in observed:
        arms, sums, counts = found.setdefault(one.cutoff, ([], [], []))
        arms += one.arms.tolist()
        sums += one.columns["x"][0].tolist()
        counts += one.columns["x"][1].tolist()
    return found


def traffic(seed: int, users: int, rows: int, days: float) -> Rows:
    rng = np.random.default_rng(seed)
    arms = rng.integers(0, 2, users).astype(np.int16)
    who = rng.integers(0, users, rows)
    at = BEGIN + np.sort(rng.random(rows)) * days * DAY
    return [f"u{u}" for u in who.tolist()], arms[who], at, rng.random(rows)


def test_a_unit_is_read_once_at_each_age_with_what_it_showed_by_then() -> None:
    at = BEGIN + np.array([0.0, 30.0, 61.0, 1000.0, 20_000.0])
    rows = (["a"] * 5, np.ones(5, np.int16), at, np.arange(1.0, 6.0))
    found = joined(take(UnitTable(("x",)), rows, 5))
    assert found == {0: ([1], [3.0], [2.0]), 1: ([1], [6.0], [3.0]), 2: ([1], [10.0], [4.0])}


def test_readings_do_not_depend_on_how_requests_are_batched() -> None:
    rows = traffic(1, 200, 3000, 3.0)
    whole = joined(take(UnitTable(("x",)), rows, 3000))
    assert len(whole[0][0]) == 200
    for size in (1, 17, 400):
        assert joined(take(UnitTable(("x",)), rows, size)) == whole


def test_a_unit_is_counted_once_however_long_it_stays_away() -> None:
    table = UnitTable(("x",))
    at = BEGIN + np.array([0.0, 5 * DAY, 40 * DAY])
    new, begun, _ = table.take(["a"] * 3, np.zeros(3, np.int16), at, {"x": np.ones(3)})
    assert new.tolist() == begun.tolist() == [True, False, False]
    closed = joined(table.close())
    assert closed == {}, "it has passed all ages"
    new, begun, _ = table.take(["a"], np.ones(1, np.int16), at[-1:] + 1.0, {"x": np.ones(1)})
    assert (new.tolist(), begun.tolist()) == ([False], [True]), "under other weights"
    left = joined(table.close())
    assert left == {cutoff: ([1], [1.0], [1.0]) for cutoff in range(len(CUTOFFS))}


def test_a_unit_that_changes_its_arm_keeps_the_first() -> None:
    table = UnitTable(("x",))
    at = BEGIN + np.arange(3.0)
    table.take(["a"] * 3, np.array([0, 1, 0], np.int16), at, {"x": np.array([1.0, 5.0, 2.0])})
    assert table.conflicts == 1
    assert joined(table.close())[0] == ([0], [3.0], [2.0])


def test_a_table_that_is_full_holds_a_sample_of_the_units() -> None:
    rows = traffic(3, 5000, 20_000, 1.0)
    table = UnitTable(("x",), limit=600)
    take(table, rows, 250)
    assert 250 <= len(table) <= 600
    number, error = table.distinct
    assert error == pytest.approx(len(table) ** -0.5)
    assert abs(number - len(set(rows[0]))) < 6 * error * 5000
    kept = {
        u
        for u in set(rows[0])
        if table.take([u], np.zeros(1, np.int16), rows[2][-1:], {"x": np.full(1, np.nan)})[0][0]
        is np.False_
    }
    assert kept == set(rows[0]), "no unit is new a second time"


def test_the_state_of_a_table_continues() -> None:
    rows = traffic(4, 300, 4000, 2.0)
    half = tuple(part[:2000] for part in rows), tuple(part[2000:] for part in rows)
    table = UnitTable(("x",), limit=128)
    take(table, half[0], 500)  # type: ignore[arg-type]
    other = UnitTable(("x",), limit=128)
    other.load_state(table.dump_state())
    assert joined(take(other, half[1], 500)) == joined(take(table, half[1], 500))  # type: ignore[arg-type]
    assert other.dump_state() == table.dump_state()
    with pytest.raises(ValueError, match="40 at most"):
        UnitTable(("x",), limit=40).load_state(table.dump_state())


# Through an experiment ----------------------------------------------------------------------------


def experiment(metrics: list[dict[str, Any]], share: float = 0.5) -> LiveExperiment:
    declared = Declared.model_validate(
        {
            "name": "x",
            "challengers": ["new"],
            "mode": "split",
            "weights": {"new": share},
            "unit": {"by": "header", "name": "x-user"},
            "metrics": metrics,
        }
    )
    return LiveExperiment(declared, Arms("old", "", {"new": 0.0}, b"salt"), BEGIN)


def rows_of(
    live: LiveExperiment,
    units: list[str],
    arms: np.ndarray,
    at: np.ndarray,
    error: np.ndarray,
    share: float = 0.5,
    epoch: float = BEGIN,
) -> ColumnBatch:
    n = len(units)
    same = np.full(n, 0.01), np.zeros(n), np.ones(n), np.ones(n), np.full(n, epoch)
    columns = [at - 0.01, *same, np.full(n, epoch), units, np.full(n, 1.0 - share)]
    ids = [b"%d" % i for i in range(n)]
    values = {"error": error}
    cells = [values.get(name, np.full(n, np.nan)) for name in live.layout.columns]
    names = live.layout.assigned_names(2)
    return batch_of((ASSIGNED, "x"), names, at, ids, arms, [*columns, np.full(n, share), *cells])


def run(
    live: LiveExperiment, rows: tuple[list[str], np.ndarray, np.ndarray, np.ndarray], size: int
) -> set[str]:
    """All verdicts on the way, in batches of ``size``."""
    units, arms, at, error = rows
    verdicts = set()
    for begin in range(0, len(units), size):
        part = slice(begin, begin + size)
        live.feed([rows_of(live, units[part], arms[part], at[part], error[part])])
        live.tick(float(at[part][-1]))
        verdicts.add(live.contestants["new"].decision.verdict)
    return verdicts


def users(seed: int, number: int, days: float, per_day: int) -> Any:
    """Users who return for days, each with an error rate and an activity of its own."""
    rng = np.random.default_rng(seed)
    arms = (rng.random(number) < 0.5).astype(np.int16)
    rates = rng.beta(0.3, 5.0, number)
    activity = rng.gamma(0.5, 1.0, number)
    rows = int(per_day * days)
    who = rng.choice(number, rows, p=activity / activity.sum())
    at = BEGIN + np.sort(rng.random(rows)) * days * DAY
    error = (rng.random(rows) < rates[who]).astype(np.float64)
    return [f"u{u}" for u in who.tolist()], arms[who], at, error


@pytest.mark.parametrize("seed", range(8))
def test_returning_users_do_not_break_the_split(seed: int) -> None:
    """A/A. Counted again at each return, 17 of 76 such runs were called a broken split."""
    live = experiment([{"metric": "error_rate", "role": "success"}])
    rows = users(seed, 3000, 7.0, 6000)
    verdicts = run(live, rows, 1000)
    assert "invalid" not in verdicts
    split = live.experiment.split
    assert split is not None
    assert len(set(rows[0])) - 50 <= sum(split.counts) <= len(set(rows[0]))


def test_returning_users_are_not_better_or_worse_than_themselves() -> None:
    """A/A, a look after every 500 requests: at alpha 0.05 each way, 40 runs have at most 10 wrong
    verdicts but for one in 10^6."""
    wrong = 0
    for seed in range(40):
        live = experiment([{"metric": "error_rate", "role": "success"}])
        verdicts = run(live, users(100 + seed, 400, 3.0, 7000), 500)
        wrong += bool(verdicts & {"promote", "rollback"})
    assert wrong <= 10


def test_steady_tenants_give_evidence_as_the_experiment_runs() -> None:
    """300 tenants that never leave; the challenger fails a fifth of the time."""
    rng = np.random.default_rng(6)
    rows, tenants = 40_000, 300
    arms = (np.arange(tenants) % 2).astype(np.int16)
    who = rng.integers(0, tenants, rows)
    at = BEGIN + np.linspace(0.0, 6 * 3600.0, rows)
    error = (rng.random(rows) < np.where(arms[who] == 1, 0.2, 0.01)).astype(np.float64)
    live = experiment([{"metric": "error_rate", "margin": "2 pp"}])
    units = [f"t{u}" for u in who.tolist()]
    assert "rollback" in run(live, (units, arms[who], at, error), 500)
    contest = live.experiment.contests["new"]
    assert contest.served == [150, 150]
    measure = contest.measures["split"][0]
    assert measure is not None
    assert measure.n == [150, 150]
    assert measure.note == "units 4 hours after their first request"


def test_units_that_come_back_under_other_weights_count_once_for_the_split() -> None:
    live = experiment([{"metric": "error_rate", "margin": "2 pp"}])
    rng = np.random.default_rng(7)
    points = rng.random(4000)
    names = [f"u{i}" for i in range(4000)]
    for number, share in enumerate((0.05, 0.25, 0.5)):
        arms = (points < share).astype(np.int16)
        at = BEGIN + number * 1000.0 + np.linspace(0.1, 500.0, 4000)
        epoch = BEGIN + number * 1000.0
        live.feed([rows_of(live, names, arms, at, np.zeros(4000), share, epoch)])
        live.tick(float(at[-1]))
    split = live.experiment.split
    assert split is not None
    assert sum(split.counts) <= 4000
    assert live.experiment.split_honoured
    assert sum(live.experiment.contests["new"].served) == 12_000
