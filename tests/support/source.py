"""Baselines and rows that tests of the watch share."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from understudy.monitor.baseline.builder import Builder
from understudy.monitor.baseline.model import Baseline

NAMES = ("amount", "age", "country")
PREDICTION = ("p",)
COUNTRIES = ("de", "fr", "it", "es")


class Source:
    """Rows of two numbers and a country, with a score; every call goes on where the last ended."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)

    def row(self) -> list[Any]:
        chance = self._chance
        country = chance.choices(COUNTRIES, (5, 3, 1, 1))[0]
        return [round(chance.lognormvariate(3.0, 1.0), 2), float(chance.randint(18, 90)), country]

    def rows(self, count: int) -> list[list[Any]]:
        return [self.row() for _ in range(count)]

    def score(self) -> float:
        return round(self._chance.betavariate(2.0, 5.0), 4)


def baseline(rows: int = 10_000, seed: int = 1, **fields: Any) -> Baseline:
    source = Source(seed)
    builder = Builder(model="delays", roles={"p": "prediction"}, source="test", **fields)
    columns = [list(cells) for cells in zip(*source.rows(rows), strict=True)]
    builder.add((*NAMES, *PREDICTION), [*columns, [source.score() for _ in range(rows)]])
    return builder.finish()


def saved(folder: Path, rows: int = 10_000) -> str:
    path = folder / "baseline.json"
    baseline(rows).save(path)
    return str(path)
