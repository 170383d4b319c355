"""A live experiment with a success metric and a guardrail, and pairs to feed it."""

from __future__ import annotations

import numpy as np

from understudy.monitor.config.experiment import Experiment as Declared
from understudy.monitor.evidence.arms import Arms
from understudy.monitor.experiments.live import LiveExperiment
from understudy.shadow.experiment import Pairs

NOW = 1_000_000.0
METRICS = [
    {"metric": "accuracy", "role": "success", "base_rate": 0.9, "effect": "5 pp"},
    {"metric": "error_rate", "margin": "2 pp"},
]


def pairs(n: int, challenger: float) -> Pairs:
    rng = np.random.default_rng(1)
    correct = (rng.random(n) < 0.9) * 1.0, (rng.random(n) < challenger) * 1.0
    return Pairs({"correct": correct, "error": (np.zeros(n), np.zeros(n))}, n)


def running(n: int, challenger: float) -> LiveExperiment:
    declared = Declared.model_validate(
        {
            "name": "x",
            "challengers": ["candidate"],
            "metrics": METRICS,
            "label": {"prediction": "p"},
            "minimum_duration": 0,
        }
    )
    live = LiveExperiment(declared, Arms("champion", "", {"candidate": 1.0}, b"salt"), NOW)
    for part in range(3):
        live.experiment.contests["candidate"].update_pairs(pairs(n // 3, challenger))
        live.tick(NOW + 60.0 * (part + 1))
    return live
