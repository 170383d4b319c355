"""All that a saved state is made of goes there and back: dump, load, dump gives the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.special import expit, logit

from tests.support.sheets import sheet_of, take
from understudy.monitor.baseline.builder import Builder
from understudy.monitor.config.detectors import Detector, ErrorDetector
from understudy.monitor.config.experiment import Experiment as Declared
from understudy.monitor.config.performance import Performance
from understudy.monitor.detectors import packed
from understudy.monitor.evidence.arms import Arms
from understudy.monitor.evidence.pending import PREFIX
from understudy.monitor.experiments.live import LiveExperiment
from understudy.monitor.findings.finding import Signal
from understudy.monitor.findings.ledger import Findings
from understudy.monitor.health.drift.watch import ModelWatch
from understudy.monitor.health.options import Options
from understudy.monitor.health.performance.watch import PerformanceWatch
from understudy.monitor.labels.store import Joined
from understudy.shadow.experiment.batches import Array, Pairs, Split
from understudy.shadow.experiment.experiment import Experiment
from understudy.shadow.experiment.fates import ABANDONED, ANSWERED, OVERLOAD, ends, pair_ends
from understudy.shadow.state import Stateful, layout_of

NAMES = ("a", "b", "country")
COUNTRIES = ["de", "fr", "it", "es"]


Feed = Callable[[Any, int], None]
"""What makes evidence of a part of the stream, by its number."""


def drift() -> tuple[Callable[[], ModelWatch], Feed]:
    rng = np.random.default_rng(1)

    def cells(count: int, shift: float) -> list[list[Any]]:
        first = rng.normal(shift, 1.0, count)
        second = first + rng.normal(0.0, 1.0, count)
        indices = rng.choice(COUNTRIES, count, p=[0.4, 0.3, 0.2, 0.1])
        rows = zip(first.round(4), second.round(4), indices, strict=True)
        return [[float(a), float(b), str(c)] for a, b, c in rows]

    builder = Builder(model="m")
    builder.add(NAMES, [list(column) for column in zip(*cells(4000, 0.0), strict=True)])
    baseline = builder.finish()
    options = Options(
        segments=("country",),
        kernel=True,
        detectors=(
            Detector(kind="shewhart", series="a"),
            Detector(kind="ewma", series="a"),
        ),
    )
    batches = [cells(1500, shift) for shift in (0.0, 0.7, 0.7)]

    def feed(watch: ModelWatch, number: int) -> None:
        times = range(1500 * number, 1500 * (number + 1))
        watch.take_rows(sheet_of(NAMES, batches[number], times), NAMES, False)
        watch.flush()

    return lambda: ModelWatch(baseline, options), feed


def performance(**settings: Any) -> tuple[Callable[[], PerformanceWatch], Feed]:
    rng = np.random.default_rng(2)
    p = np.clip(rng.beta(2.0, 2.0, 24_000), 0.01, 0.99).round(3)
    known, live = p[:20_000], p[20_000:].tolist()
    builder = Builder(model="m", roles={"p": "prediction", "y": "target"})
    y = (rng.random(known.size) < known).astype(float)
    builder.add(("p", "y"), [known.tolist(), y.tolist()])
    baseline = builder.finish()
    declared = Performance(prediction="p", threshold=0.5, **settings)
    labels = (rng.random(len(live)) < expit(0.3 * logit(np.array(live)))).astype(float).tolist()

    def feed(watch: PerformanceWatch, number: int) -> None:
        for n in range(1280 * number, 1280 * (number + 1)):
            outputs = {"p": live[n], f"{PREFIX}group": "ab"[n % 2]}
            watch.take([live[n]], [float(n)], None, f"r-{n}")
            watch.take_label(
                Joined(n, f"r-{n}", "champion", False, "m", 0.0, float(n), outputs, 0, labels[n],
                       None, float(n), 1.0)
            )  # fmt: skip
        watch.flush()

    return lambda: PerformanceWatch(declared, baseline, 1e5, ("group",)), feed


def experiment(margin: str) -> tuple[Callable[[], Experiment], Feed]:
    metrics = [
        {"metric": "error_rate", "margin": margin},
        {"metric": "latency_p99", "margin": "10 %"},
        {"metric": "latency_mean", "margin": "20 ms"},
        {"metric": "latency_tail", "margin": "20 %"},
    ]
    declared = Declared.model_validate(
        {"name": "x", "challengers": ["candidate"], "metrics": metrics}
    )
    arms = Arms("champion", "", {"candidate": 1.0}, b"salt")

    n, columns, limit = 700, ("latency", "error", "unusable"), 1.0

    def values(rng: np.random.Generator, column: str) -> Array:
        drawn = rng.lognormal(size=n) * 0.01
        return drawn if column == "latency" else (drawn > 0.02).astype(float)

    def feed(found: Experiment, number: int) -> None:
        rng = np.random.default_rng(number)
        contest = found.contests["candidate"]
        # Every value of the first part is known; later some are not.
        lost = 0.02 if number else 0.0
        fates = [
            rng.choice([ANSWERED, ABANDONED, OVERLOAD], n, p=[1.0 - 2.0 * lost, lost, lost])
            for _ in range(2)
        ]
        pairs: list[dict[str, tuple[Array, Array]]] = [{}, {}, {}]
        split: list[dict[str, Array]] = [{}, {}, {}]
        for column in columns:
            both = values(rng, column), values(rng, column)
            of_pairs = pair_ends(column, both, (fates[0], fates[1]), limit)
            of_split = ends(column, values(rng, column), fates[0], limit, paired=False)
            for part in range(3):
                pairs[part][column] = of_pairs[part]
                split[part][column] = of_split[part]
        contest.update_pairs(Pairs(pairs[0], n, *pairs[1:]))
        arms = (rng.random(n) < 0.4).astype(float)
        contest.update_split(Split(arms, np.full(n, 0.4), split[0], low=split[1], high=split[2]))
        measures = [m for of_mode in contest.measures.values() for m in of_mode if m is not None]
        assert all(m.n[0] and m.n[1] and (m.worst is None) == (number == 0) for m in measures)
        found.assigned([600, 400], [0.6, 0.4])
        found.decide("split", 1.0)

    return lambda: LiveExperiment(declared, arms, 1e6).experiment, feed


def findings() -> tuple[Callable[[], Findings], Feed]:
    def signal(number: int) -> Signal:
        return Signal(f"drift/m/1/{number}/", "drift", "m", "1", "", "warning", "it drifts")

    def feed(found: Findings, number: int) -> None:
        now = 1e6 + 10_000.0 * number
        found.report("watch", [signal(n) for n in range(3)], now)
        found.report("watch", [signal(n) for n in range(2)], now + 1.0, hold=0.0)
        if number < 2:
            found.close(found.open()[0].id, "me", "known", now + 2.0)
        found.silence("drift/*", now + 50_000.0, "me", "maintenance", now + 3.0)

    return Findings, feed


def parts(item: object) -> Iterator[Stateful]:
    """Everything stateful in it, the innermost first."""
    if isinstance(item, Stateful):
        for field in layout_of(type(item)).fields:
            yield from parts(getattr(item, field.attribute))
        yield item
    elif isinstance(item, Mapping):
        for value in item.values():
            yield from parts(value)
    elif isinstance(item, (list, tuple)):
        for value in item:
            yield from parts(value)


KINDS: dict[str, tuple[Callable[[], Any], Feed]] = {
    "drift": drift(),
    "performance": performance(),
    "performance, few false alarms": performance(guarantee="ever", alpha=0.05),
    "performance, corroborated": performance(detectors=[ErrorDetector(kind="shewhart")]),
    "experiment": experiment("1 pp"),
    "experiment, relative margin": experiment("10 %"),
    "findings": findings(),
}
each = pytest.mark.parametrize(("make", "feed"), KINDS.values(), ids=KINDS)


def through_json(part: Stateful) -> Any:
    return json.loads(json.dumps(part.dump_state(), allow_nan=False))


@each
def test_a_restored_object_continues_identically(make: Callable[[], Any], feed: Feed) -> None:
    with packed.exactly():
        one, two = make(), make()
        for number in (0, 1):
            feed(one, number)
        state = through_json(one)
        assert through_json(two) != state
        two.load_state(state)
        assert through_json(two) == state
        for each in (one, two):
            feed(each, 2)
        assert through_json(two) == through_json(one)


@each
def test_parts_with_settings_are_built_from_their_state(
    make: Callable[[], Any], feed: Feed
) -> None:
    one = make()
    feed(one, 0)
    seen = set()
    with packed.exactly():
        for part in parts(one):
            if not layout_of(type(part)).in_place:
                seen.add(type(part))
                state = through_json(part)
                assert through_json(type(part).from_state(state)) == state, type(part).__name__
    assert seen


def test_a_restored_watch_takes_what_the_baseline_says_for_no_more_than_that() -> None:
    rng = np.random.default_rng(8)
    names = tuple(f"x{number}" for number in range(12))
    x = lfilter([1.0], [1.0, -0.7], rng.standard_normal((10_200, 12)), axis=0)
    builder = Builder(model="m")
    builder.add(names, x[:10_000].T.tolist())
    baseline = builder.finish()
    watch, again = (ModelWatch(baseline, Options()) for _ in range(2))
    assert watch.inflation.min() > 1.0
    take(watch, names, x[10_000:].tolist(), range(200))
    again.load_state(json.loads(json.dumps(watch.dump_state())))
    # A few rows say nothing new; what is saved of the variances is rounded.
    assert again.inflation.tolist() == watch.inflation.tolist()
    assert again.cusum.threshold.tolist() == watch.cusum.threshold.tolist()
