"""Many features at once, cycles, and rows that remember: what single charts would miss or dream."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from tests.support.sheets import take
from understudy.monitor.baseline.builder import Builder
from understudy.monitor.baseline.cycles import learn_cycles
from understudy.monitor.baseline.model import Baseline
from understudy.monitor.config.detectors import Detector
from understudy.monitor.detectors.kernel import (
    FourierFeatures,
    KernelBlocks,
    weighted_chi2_isf,
    weighted_chi2_sf,
)
from understudy.monitor.detectors.subspace import Subspace
from understudy.monitor.health.drift.signals import signals_of
from understudy.monitor.health.drift.watch import ModelWatch
from understudy.monitor.health.options import Options

HOUR = 3600.0
NAMES = ("a", "b", "c", "d")
Floats = np.ndarray


def correlated(rng: np.random.Generator, rows: int) -> Floats:
    """a and b go together, so do c and d."""
    x = rng.normal(size=(rows, 4))
    x[:, 1] = 0.95 * x[:, 0] + math.sqrt(1.0 - 0.95**2) * x[:, 1]
    x[:, 3] = 0.9 * x[:, 2] + math.sqrt(1.0 - 0.9**2) * x[:, 3]
    return x


def of(x: Floats, **fields: object) -> Baseline:
    builder = Builder(model="m", **fields)
    builder.add(NAMES[: x.shape[1]], [column.tolist() for column in x.T])
    return builder.finish()


def feed(watch: ModelWatch, x: Floats, start: float = 0.0, step: float = 1.0) -> None:
    times = [start + number * step for number in range(len(x))]
    take(watch, NAMES[: x.shape[1]], x.tolist(), times)


def titles(watch: ModelWatch) -> list[str]:
    return [s.title for s in signals_of(watch, "m", "", watch.newest)]


def test_joint_drift_names_the_features() -> None:
    rng = np.random.default_rng(1)
    baseline = Baseline.from_dict(json.loads(json.dumps(of(correlated(rng, 5000)).to_dict())))
    watch = ModelWatch(baseline, Options(kernel=True))
    feed(watch, correlated(rng, 5000))
    assert titles(watch) == []
    broken = correlated(rng, 6000)
    broken[:, 1] = rng.permutation(broken[:, 1])  # b by another key: looks as usual by itself
    feed(watch, broken, 5000.0)
    found = {s.key.rpartition("/")[2]: s for s in signals_of(watch, "m", "", watch.newest)}
    assert set(found) == {"reconstruction", "discrepancy"}
    assert {one.name for one in found["reconstruction"].features[:2]} == {"a", "b"}
    assert "each single feature is as usual" in found["reconstruction"].title
    again = ModelWatch(baseline, Options(kernel=True))
    again.load_state(json.loads(json.dumps(watch.dump_state())))
    assert titles(again) == titles(watch)
    feed(watch, correlated(rng, 12_000), 11_000.0)
    assert titles(watch) == [], "what is as it used to be is let go of"


def test_a_subspace_leaves_the_residual() -> None:
    matrix = np.array([[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 1.0]])
    found = Subspace.of(matrix)
    assert len(found.components) == 2
    assert found.errors(np.array([[1.0, 1.0, 5.0]])) == pytest.approx(0.0, abs=1e-12)
    assert found.errors(np.array([[1.0, -1.0, 5.0]])) == pytest.approx(2.0)
    assert len(Subspace.of(np.eye(3)).components) == 2, "there is always something left"
    with pytest.raises(ValueError, match="components"):
        Subspace(np.eye(3))


def test_weighted_sums_of_chi_squared_agree_with_a_simulation() -> None:
    rng = np.random.default_rng(2)
    weights = rng.exponential(size=20)
    drawn = rng.chisquare(1.0, (200_000, 20)) @ weights
    for level in (0.5, 0.05, 0.002):
        value = weighted_chi2_isf(level, weights)
        assert weighted_chi2_sf(value, weights) == pytest.approx(level, rel=1e-6)
        share = float((drawn > value).mean())
        # Five standard errors of the simulation, and 5 % for the approximation.
        assert abs(share - level) < 5.0 * math.sqrt(level / 200_000) + 0.05 * level
    assert weighted_chi2_sf(0.0, weights) == 1.0


def test_the_discrepancy_holds_its_run_length_for_any_batch_size() -> None:
    rng = np.random.default_rng(3)
    features = FourierFeatures.draw(4)
    mean, spectrum = KernelBlocks.reference(features, correlated(rng, 20_000))
    run_length = 20_000.0
    alarms, rows = 0, 400_000
    blocks = KernelBlocks(features, mean, spectrum, 20_000.0, run_length)
    for _ in range(rows // 256):
        alarms += int(blocks.update(correlated(rng, 256)).crossed[0] >= 0)
    # 20 on average; 60 or more has a probability below 1e-9.
    assert alarms < 60
    x = correlated(rng, 5000)
    whole, parts = (KernelBlocks(features, mean, spectrum, 20_000.0, run_length) for _ in range(2))
    whole.update(x)
    for part in np.array_split(x, 37):
        parts.update(part)
    assert parts.statistics == pytest.approx(whole.statistics)
    restored = KernelBlocks(features, mean, spectrum, 20_000.0, run_length)
    restored.load_state(json.loads(json.dumps(parts.dump_state())))
    assert restored.update(x).statistic == pytest.approx(parts.update(x).statistic, rel=1e-5)
    with pytest.raises(ValueError, match="blocks"):
        restored.load_state({**parts.dump_state(), "rows": [1]})
    with pytest.raises(ValueError, match="shape"):
        KernelBlocks(features, mean[:3], spectrum, 1e4, run_length)


def seasonal(rng: np.random.Generator, days: int, start: float) -> tuple[Floats, Floats]:
    """Two columns, the first higher by day than by night; a row every two minutes."""
    times = start + np.arange(days * 720) * 120.0
    x = rng.normal(size=(len(times), 2))
    x[:, 0] += 2.0 * np.sin(2.0 * np.pi * times / 86400.0)
    return x, times


def test_a_daily_cycle_of_the_baseline_causes_no_alarm() -> None:
    rng = np.random.default_rng(4)
    x, times = seasonal(rng, 21, 0.0)
    baseline = of(x)
    columns = [column.tolist() for column in x.T]
    baseline.seasons = learn_cycles(baseline, lambda: [(NAMES[:2], columns, times.tolist())])
    assert baseline.seasons is not None
    assert baseline.seasons["series"] == ["a"]
    baseline = Baseline.from_dict(json.loads(json.dumps(baseline.to_dict())))
    watch = ModelWatch(baseline, Options(run_length=100_000.0))
    later, moments = seasonal(rng, 14, 21 * 86400.0)
    take(watch, NAMES[:2], later.tolist(), moments.tolist())
    assert titles(watch) == []
    assert any("the weekly cycle (UTC)" in said for said in watch.assumptions)
    gone, moments = seasonal(rng, 2, 35 * 86400.0)
    gone[:, 0] += 1.0  # less than between noon and midnight
    take(watch, NAMES[:2], gone.tolist(), moments.tolist())
    assert titles(watch)[0].startswith("Inputs have changed: a")


def test_a_single_day_gives_no_cycle() -> None:
    x, times = seasonal(np.random.default_rng(5), 1, 0.0)
    columns = [column.tolist() for column in x.T]
    assert learn_cycles(of(x), lambda: [(NAMES[:2], columns, times.tolist())]) is None


def remembering(rng: np.random.Generator, rows: int, phi: float) -> Floats:
    x = np.empty((rows, 2))
    level = rng.normal(size=2)
    for row in range(rows):
        level = phi * level + math.sqrt(1.0 - phi * phi) * rng.normal(size=2)
        x[row] = level
    return x


def test_autocorrelation_raises_the_thresholds() -> None:
    rng = np.random.default_rng(6)
    plain = ModelWatch(of(remembering(rng, 10_000, 0.0)), Options())
    wide = ModelWatch(of(remembering(rng, 10_000, 0.7)), Options())
    # The location of an AR(1) with 0.7 is inflated by (1 + 0.7) / (1 - 0.7), its spread by less.
    assert (wide.cusum.threshold[:2] > 2.0 * plain.cusum.threshold[:2]).all()
    assert (wide.cusum.threshold[2:] > 1.2 * plain.cusum.threshold[2:]).all()
    assert any("rows depend on each other" in said for said in wide.assumptions)
    alarms = 0
    for seed in range(6):
        watch = ModelWatch(wide.baseline, Options(run_length=100_000.0))
        feed(watch, remembering(np.random.default_rng(100 + seed), 10_000, 0.7))
        alarms += bool(watch.shifts.alarmed.any())
    # 0.6 x 0.4 (the share of the drift) on average; 6 of 6 has a probability below 1e-6.
    assert alarms < 6


@pytest.mark.parametrize("kind", ["shewhart", "ewma", "adwin", "kswin", "page_hinkley"])
def test_declared_detectors_corroborate(kind: str) -> None:
    if kind not in ("shewhart", "ewma"):
        pytest.importorskip(
            "river", reason="river is an extra: pip install 'understudy-serving[river]'"
        )
    rng = np.random.default_rng(7)
    x = rng.normal(size=(10_000, 2))
    options = {"run_length": 100_000} if kind == "ewma" else {"rules": [1], "limit": 4.5}
    declared = Detector(
        series="a", kind=kind, options=options if kind in ("shewhart", "ewma") else {}
    )
    watch = ModelWatch(of(x), Options(detectors=(declared,)))
    shifted = rng.normal(size=(3000, 2))
    shifted[1000:, 0] += 2.0  # some of them have no baseline but what came before
    feed(watch, shifted)
    (place, detector), *_ = watch.corroborators
    assert (place, detector.alarmed) == (0, True)
    said = [s for s in signals_of(watch, "m", "", watch.newest) if s.severity == "info"]
    assert [s.rule for s in said] == [kind]
    assert "upwards" in said[0].title or kind in ("kswin", "adwin", "page_hinkley")
    again = ModelWatch(watch.baseline, watch.options)
    again.load_state(json.loads(json.dumps(watch.dump_state())))
    assert again.corroborators[0][1].summary() == detector.summary()


def test_an_invalid_detector_is_reported_and_the_others_run() -> None:
    rng = np.random.default_rng(8)
    declared = (
        Detector(series="nothing", kind="ewma"),
        Detector(series="a", kind="shewhart", options={"rules": [99]}),
    )
    watch = ModelWatch(of(rng.normal(size=(2000, 2))), Options(detectors=declared))
    assert [said.split(":")[0] for said in watch.errors] == [
        "ewma",
        "rules are numbers from 1 to 8, not [99]",
    ]
    assert watch.corroborators == []
    with pytest.raises(ValueError, match="no option 'delta'"):
        Detector(series="a", kind="ewma", options={"delta": 1})
    feed(watch, rng.normal(size=(300, 2)))
    assert watch.rows == 300


def test_drift_has_example_rows() -> None:
    rng = np.random.default_rng(9)
    watch = ModelWatch(of(rng.normal(size=(5000, 2))), Options())
    x = rng.normal(size=(3000, 2))
    x[:, 1] -= 1.5
    feed(watch, x)
    (signal,) = signals_of(watch, "m", "", watch.newest)
    assert signal.examples
    for one in signal.examples:
        assert x[int(one.removeprefix("r-")), 1] < -2.5, "far out on the side that it went to"
