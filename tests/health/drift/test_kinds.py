"""Every kind of data, from the payload to the finding: quiet as it was, found when it changes."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.sheets import take
from understudy.common.codecs import ModelSpec, Table, decode_exchange
from understudy.monitor.baseline.builder import Builder
from understudy.monitor.baseline.model import Baseline
from understudy.monitor.health.drift.signals import signals_of
from understudy.monitor.health.drift.watch import ModelWatch
from understudy.monitor.health.options import Options

WORDS = ("late", "bag", "gate", "crew", "food", "seat", "thanks", "good", "bad", "delay")
FEATURES = ("amount", "member", "sku", "at", "note", "face")
PREDICTIONS = ("p", "label", "price")
SPEC = ModelSpec("m", "1", "kserve-v1")
PATH = b"/v1/models/m:predict"
JSON = b"content-type: application/json"
MONDAY = 1767571200.0
Row = dict[str, Any]


def row_of(chance: random.Random, number: int) -> Row:
    """One request's features, and what the model makes of them."""
    amount = chance.gauss(0.0, 1.0)
    # A few products are most of it, and there is always one that was never seen.
    popular = f"s{min(int(chance.paretovariate(1.2)), 300)}"
    at = MONDAY + 3600.0 * chance.randrange(24 * 7)
    return {
        "amount": amount,
        "member": chance.random() < 0.2,
        "sku": popular if chance.random() < 0.9 else f"s{chance.randrange(10**6)}",
        "at": f"2026-01-{5 + int((at - MONDAY) // 86400):02}T{int(at % 86400 // 3600):02}:00:00",
        "note": " ".join(chance.choice(WORDS) for _ in range(chance.randint(3, 9))),
        "face": [chance.gauss(0.0, 1.0) for _ in range(32)],
        "p": 1.0 / (1.0 + math.exp(-amount)),
        "label": chance.choices(["red", "green", "blue"], [0.6, 0.3, 0.1])[0],
        "price": 100.0 + 10.0 * amount + chance.gauss(0.0, 1.0),
    }


def rows(seed: int, count: int, change: Callable[[random.Random, Row], None] | None) -> list[Row]:
    chance = random.Random(seed)
    found = [row_of(chance, number) for number in range(count)]
    if change is not None:
        for row in found:
            change(chance, row)
    return found


@pytest.fixture(scope="module")
def baseline() -> Baseline:
    names = (*FEATURES, *PREDICTIONS)
    builder = Builder(model="m", roles=dict.fromkeys(PREDICTIONS, "prediction"))
    builder.add(names, [[row[name] for row in rows(1, 4000, None)] for name in names])
    return Baseline.from_dict(json.loads(json.dumps(builder.finish().to_dict())))


def watched(baseline: Baseline, many: list[Row]) -> list[Any]:
    """Payloads of KServe's first protocol, fifty rows each, decoded and watched as in the service;
    what is found."""
    watch = ModelWatch(baseline, Options())
    for start in range(0, len(many), 50):
        part = many[start : start + 50]
        asked = json.dumps({"instances": [{n: row[n] for n in FEATURES} for row in part]})
        said = json.dumps({"predictions": [{n: row[n] for n in PREDICTIONS} for row in part]})
        found = decode_exchange(SPEC, PATH, JSON, asked.encode(), 200, JSON, said.encode())
        assert isinstance(found.features, Table)
        assert isinstance(found.predictions, Table)
        inputs, answers = found.features, found.predictions
        assert inputs.rows == answers.rows == len(part)
        take(
            watch,
            (*inputs.names, *answers.names),
            [
                [*inputs.row(place).values(), *answers.row(place).values()]
                for place in range(inputs.rows)
            ],
            [MONDAY + start] * inputs.rows,
            [b"r-%d" % start] * inputs.rows,
            answered=True,
        )
    return signals_of(watch, "m", "1", watch.newest)


def test_unchanged_data_of_all_kinds_cause_no_alarm(baseline: Baseline) -> None:
    kinds = {column.name: column.kind for column in baseline.columns.values()}
    assert kinds == {
        "amount": "numeric", "member": "boolean", "sku": "categorical", "at": "datetime",
        "note": "text", "face": "vector", "p": "numeric", "label": "categorical",
        "price": "numeric",
    }  # fmt: skip
    assert [signal.title for signal in watched(baseline, rows(2, 4000, None))] == []


def amount(chance: random.Random, row: Row) -> None:
    row["amount"] += 0.5


def member(chance: random.Random, row: Row) -> None:
    row["member"] = chance.random() < 0.4


def sku(chance: random.Random, row: Row) -> None:
    if chance.random() < 0.2:
        row["sku"] = "s7"


def at(chance: random.Random, row: Row) -> None:
    row["at"] = row["at"][:11] + f"{chance.randrange(8):02}:00:00"


def note(chance: random.Random, row: Row) -> None:
    row["note"] = row["note"].replace("gate", "xqvz")


def longer(chance: random.Random, row: Row) -> None:
    row["note"] += " late bag gate crew food"


def face(chance: random.Random, row: Row) -> None:
    row["face"] = [value + 0.3 for value in row["face"]]


def wider(chance: random.Random, row: Row) -> None:
    row["face"] = [value * 1.3 for value in row["face"]]


def p(chance: random.Random, row: Row) -> None:
    row["p"] = min(1.0, row["p"] * 1.3)


def label(chance: random.Random, row: Row) -> None:
    row["label"] = chance.choices(["red", "green", "blue"], [0.55, 0.25, 0.2])[0]


def price(chance: random.Random, row: Row) -> None:
    row["price"] += 8.0


@pytest.mark.parametrize(
    "change", [amount, member, sku, at, note, longer, face, wider, p, label, price]
)
def test_a_change_of_each_kind_is_detected(
    baseline: Baseline, change: Callable[[random.Random, Row], None]
) -> None:
    found = watched(baseline, rows(3, 2500, change))
    name = {"longer": "note", "wider": "face"}.get(change.__name__, change.__name__)
    assert found
    assert all(signal.features[0].name == name for signal in found), [s.title for s in found]
    assert all(signal.examples for signal in found)
    assert all(signal.since is not None for signal in found if signal.kind == "drift")


def test_unseen_categories_have_the_rate_of_the_baseline(baseline: Baseline) -> None:
    # A tenth of the products come once; another product in their place is no news, more of them is.
    def strangers(chance: random.Random, row: Row) -> None:
        if chance.random() < 0.4:
            row["sku"] = f"t{chance.randrange(10**9)}"

    assert watched(baseline, rows(4, 4000, None)) == []
    (signal,) = watched(baseline, rows(5, 3000, strangers))
    assert signal.features[0].name == "sku"
