"""CUPED from earlier records: what units did before any of them was assigned."""

from __future__ import annotations

import json

import numpy as np
import pytest

from understudy.monitor.config.experiment import Experiment as Declared
from understudy.monitor.evidence.arms import Arms
from understudy.monitor.evidence.batch import batch_of
from understudy.monitor.evidence.layout import ASSIGNED, FACTS
from understudy.monitor.experiments.history import UnitHistory
from understudy.monitor.experiments.live import LiveExperiment
from understudy.shadow.experiment import ExperimentError, Hypothesis
from understudy.shadow.experiment.fates import ANSWERED
from understudy.shadow.experiment.hypothesis import EARLIER
from understudy.shadow.experiment.rules import BUILT_IN

BEGIN = 1e9
FIELD = "field:spend"
METRIC = {"metric": "prediction", "field": "spend", "role": "success"}


def test_means_of_earlier_requests_are_frozen_by_the_first_assignment() -> None:
    history = UnitHistory((EARLIER + "x", "x"))
    assert history.columns == (EARLIER + "x",)

    def adjust(units: list[str], x: list[float], assigning: bool) -> list[float]:
        found = history.adjust(units, {"x": np.array(x)}, assigning)
        values: list[float] = found[EARLIER + "x"].tolist()
        return values

    assert np.isnan(adjust(["a", "b"], [1.0, np.nan], False)).all()
    assert adjust(["a"], [3.0], False) == [1.0]
    assert adjust(["a", "b"], [100.0, 100.0], True) == pytest.approx([2.0, np.nan], nan_ok=True)
    assert adjust(["a"], [100.0], False) == [2.0], "what came after is not added"
    again = UnitHistory((EARLIER + "x",))
    again.load_state(json.loads(json.dumps(history.dump_state())))
    history = again
    assert adjust(["a"], [7.0], False) == [2.0]


def test_earlier_needs_values_that_come_with_their_unit() -> None:
    with pytest.raises(ExperimentError, match="is about labels"):
        Hypothesis.parse({"metric": "reward", "margin": "1 %", "earlier": True}, "m", 0.05)
    with pytest.raises(ExperimentError, match="remove one"):
        Hypothesis.parse({**METRIC, "earlier": True, "covariate": "x"}, "m", 0.05)


def widths(seed: int, gap: float) -> tuple[float, float, str]:
    """Width of the interval without and with the adjustment, and the note."""
    found = []
    for earlier in (False, True):
        declared = Declared.model_validate(
            {
                "name": "x",
                "challengers": ["candidate"],
                "mode": "canary",
                "unit": {"by": "header", "name": "x-user"},
                "metrics": [{**METRIC, "earlier": earlier}],
                "stages": [{"weight": 0}, {"weight": 0.5}, {"weight": 1}],
            }
        )
        live = LiveExperiment(declared, Arms("champion", "", {"candidate": 1.0}, b"s"), BEGIN)
        rng = np.random.default_rng(seed)
        taste = 3.0 * rng.standard_normal(1500)
        assigned = (rng.random(1500) < 0.5).astype(np.int16)
        for stage, (weights, begin) in enumerate(((1.0, BEGIN), (0.5, BEGIN + 1e5))):
            n = 9000
            who = rng.integers(0, 1500, n)
            sides = assigned[who] if stage else np.zeros(n, np.int16)
            x = taste[who] + rng.standard_normal(n) + gap * sides
            at = begin + 1.0 + np.sort(rng.random(n)) * 4000.0
            known = {"started": at, "seconds": np.full(n, 0.01), "answered": np.ones(n),
                     "fate": np.full(n, float(ANSWERED)), "epoch": np.full(n, begin),
                     "settled": np.full(n, begin)}  # fmt: skip
            facts = [known.get(name, np.zeros(n)) for name in FACTS]
            given = {FIELD: x, "unusable": np.zeros(n)}
            values = [given.get(c, np.full(n, np.nan)) for c in live.layout.columns]
            columns = [*facts, [f"u{u}" for u in who.tolist()], np.full(n, weights),
                       np.full(n, 1.0 - weights), *values]  # fmt: skip
            ids = [b"%d/%d" % (stage, i) for i in range(n)]
            names = live.layout.assigned_names(2)
            live.feed([batch_of((ASSIGNED, "x"), names, at, ids, sides, columns)])
            live.tick(begin + 4100.0)
        evidence, usable = live.experiment.contests["candidate"].evidence("split", 0.05)
        assert (usable.name, usable.records) == (BUILT_IN, evidence.records)
        assert evidence.difference.lower < gap < evidence.difference.upper
        found.append(evidence.difference.upper - evidence.difference.lower)
    return found[0], found[1], evidence.note


def test_what_units_did_in_the_shadow_narrows_the_interval() -> None:
    plain, adjusted, note = widths(3, 0.3)
    assert adjusted < 0.6 * plain
    assert "adjusted for the unit's earlier requests, which explains" in note
