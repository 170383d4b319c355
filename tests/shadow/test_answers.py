"""Two answers to one request: tolerance, labels, vectors, noise, and the worst that is kept."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial import distance

from understudy.shadow.comparison import ComparisonError, NoiseCancelling, Rules, Worst, compare
from understudy.shadow.comparison.worst import MOST_BYTES

EXACT = Rules()


def agrees(a: object, b: object, rules: Rules = EXACT) -> bool:
    found = compare({"y": [a]}, {"y": [b]}, rules)
    assert found.agree == compare({"y": [b]}, {"y": [a]}, rules).agree, "which is which"
    return found.agree


@pytest.mark.parametrize(
    ("a", "b", "rules", "wanted"),
    [
        (1.0, 1.0 + 1e-9, EXACT, False),
        (1.0, 1.05, Rules(absolute=0.05 + 1e-12), True),
        (1.0, 1.06, Rules(absolute=0.05), False),
        (100.0, 101.0, Rules(relative=0.01), True),
        (100.0, 102.1, Rules(relative=0.02), False),
        (1.0, math.nextafter(1.0, 2.0), Rules(ulp=1), True),
        (1.0, 1.0 + 3 * math.ulp(1.0), Rules(ulp=2), False),
        (1e300, math.nextafter(1e300, math.inf), Rules(ulp=1), True),
        (0.0, -0.0, EXACT, True),
        (math.nan, math.nan, EXACT, True),
        (math.nan, 1.0, Rules(absolute=9.0), False),
        (math.inf, math.inf, EXACT, True),
        (math.inf, 1.0, Rules(relative=1.0, absolute=1.0), False),
        (1, 1.0, EXACT, True),
        (True, 1, EXACT, False),
        (None, 0, EXACT, False),
        (None, None, EXACT, True),
        ("a", "a", EXACT, True),
        ("a", "b", Rules(relative=1.0), False),
        ("1", 1, EXACT, False),
        ([1.0, 2.0], [1.0, 2.0 + 1e-12], Rules(absolute=1e-9), True),
        ([1.0, 2.0], [2.0, 1.0], EXACT, False),
        ([1.0, 2.0], [2.0, 1.0], Rules(unordered=("y",)), True),
        ([1.0], [1.0, 2.0], EXACT, False),
        ({"a": 1, "b": [1, 2]}, {"b": [1, 2], "a": 1}, EXACT, True),
        ({"a": 1, "b": 2}, {"a": 1}, EXACT, False),
        ({"a": 1, "t": 5}, {"a": 1, "t": 6}, Rules(ignore=("y.t",)), True),
        ({"a": {"s": [2, 1]}}, {"a": {"s": [1, 2]}}, Rules(unordered=("y.a.s",)), True),
    ],
)
def test_cells_agree_within_tolerance(a: object, b: object, rules: Rules, wanted: bool) -> None:
    assert agrees(a, b, rules) is wanted


@pytest.mark.parametrize("name", ["absolute", "relative", "ulp", "top_k"])
def test_invalid_rules_are_rejected(name: str) -> None:
    for value in (-1, math.nan):
        with pytest.raises(ComparisonError, match=name):
            Rules(**{name: value})


def test_outputs_are_aligned_by_name() -> None:
    found = compare({"a": [1, 2], "b": ["x", "y"]}, {"b": ["x", "z"], "c": [1, 1]}, EXACT)
    assert {name: f.kind for name, f in found.fields.items()} == {
        "a": "missing",
        "b": "value",
        "c": "extra",
    }
    assert (found.rows, found.fields["b"].rows, found.fields["b"].flips) == (2, 1, 1)
    assert found.severity == 3.0
    assert "a: missing in the challenger's response" in found.explain()
    assert 'b: "y" against "z", different label in 1 of 2 rows' in found.explain()
    assert compare({"a": [1]}, {"a": [1, 2]}, EXACT).fields["a"].kind == "rows"
    assert compare({"a": [1]}, {"a": ["1"]}, EXACT).fields["a"].kind == "type"
    assert compare({"a": [1], "t": [5]}, {"a": [1]}, Rules(ignore=("t",))).agree


def test_unordered_columns_agree_in_any_order() -> None:
    rules = Rules(unordered=("tags",))
    assert compare({"tags": ["a", "b"]}, {"tags": ["b", "a"]}, rules).agree
    assert not compare({"tags": ["a", "b"]}, {"tags": ["b", "b"]}, rules).agree


def test_vectors_of_scores_are_compared_by_rank_and_distance() -> None:
    x, y = [0.1, 0.2, 0.4, 0.3], [0.4, 0.2, 0.1, 0.3]
    found = compare({"p": [x]}, {"p": [y]}, Rules(top_k=2)).fields["p"]
    assert found.flips == 1
    assert found.largest == pytest.approx(0.3)
    assert found.top_k == 0.5, "of {2, 3} and {0, 3}"
    assert found.rank_correlation == pytest.approx(stats.spearmanr(x, y).statistic)
    assert found.distance == pytest.approx(distance.jensenshannon(x, y, base=2))
    small = compare({"p": [[0.6, 0.4]]}, {"p": [[0.61, 0.39]]}, EXACT).fields["p"]
    assert (small.flips, small.top_k) == (0, None)
    assert compare({"p": [[0.6, 0.4]]}, {"p": [[0.4, 0.6]]}, EXACT).severity > small.severity
    ties = [1.0, 1.0, 2.0, 3.0, 3.0]
    other = [3.0, 1.0, 1.0, 2.0, 2.0]
    found = compare({"s": [ties]}, {"s": [other]}, EXACT).fields["s"]
    assert found.rank_correlation == pytest.approx(stats.spearmanr(ties, other).statistic)
    assert found.distance is None, "they are no distributions"


cells = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats(allow_nan=False)
    | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2)
    ),
    max_leaves=6,
)


@given(st.lists(cells, min_size=1, max_size=4), st.lists(cells, min_size=1, max_size=4))
def test_comparison_is_reflexive_and_symmetric(first: list[Any], second: list[Any]) -> None:
    one = compare({"y": first}, {"y": second}, EXACT)
    assert one.agree == compare({"y": second}, {"y": first}, EXACT).agree
    assert compare({"y": first}, {"y": json.loads(json.dumps(first))}, EXACT).agree
    assert math.isfinite(one.severity)
    assert one.agree == (one.explain() == "")


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.floats(0, 10), st.floats(0, 1))
def test_wider_rules_agree_more(a: float, b: float, absolute: float, relative: float) -> None:
    if agrees(a, b, Rules(absolute=absolute)):
        assert agrees(a, b, Rules(absolute=absolute, relative=relative))
        assert agrees(a, b, Rules(absolute=2 * absolute))


def noisy(rng: np.random.Generator, own: float, theirs: float, n: int) -> NoiseCancelling:
    noise = NoiseCancelling()
    for _ in range(n):
        challenger = compare({"y": [0]}, {"y": [int(rng.random() < theirs)]}, EXACT)
        again = compare({"y": [0]}, {"y": [int(rng.random() < own)]}, EXACT)
        noise.update(challenger, again)
    return noise


def test_noise_is_subtracted() -> None:
    """Under equal noise the evidence ever reaches 1e7 with probability below 1e-7 (Ville); with 20
    points more, 2,000 requests fall short of e^10 with less than that."""
    rng = np.random.default_rng(5)
    equal = noisy(rng, 0.3, 0.3, 2000)
    assert equal.tests[""].peak_log_e < math.log(1e7)
    worse = noisy(rng, 0.3, 0.5, 2000)
    assert worse.tests[""].log_e > 10.0
    assert worse.compared == 2000
    (field,) = worse.fields()
    assert field["output"] == "y"
    assert field["challenger_only"] > field["champion_only"]
    copy = NoiseCancelling.from_state(json.loads(json.dumps(worse.dump_state())))
    assert copy.fields() == worse.fields()
    both = worse.merge(equal)
    assert both.compared == 4000
    assert both.tests[""].wins == worse.tests[""].wins + equal.tests[""].wins


def test_late_outputs_count_as_agreed_before() -> None:
    noise = NoiseCancelling()
    same = compare({"a": [1]}, {"a": [1]}, EXACT)
    other = compare({"a": [1]}, {"a": [2]}, EXACT)
    for _ in range(9):
        noise.update(same, same)
    noise.update(other, same)
    assert (noise.tests["a"].wins, noise.tests["a"].ties) == (1, 9)
    for i in range(300):
        noise.update(compare({f"f{i}": [1]}, {f"f{i}": [2]}, EXACT), same)
    assert len(noise.tests) <= 65


def offer(worst: Worst, severity: float, number: int, **inputs: object) -> bool:
    return worst.offer(severity, float(number), f"r{number}", "why", inputs, {"y": 1}, {"y": 2})


def test_the_worst_are_stored_in_order_and_bounded() -> None:
    worst = Worst(3)
    for number, severity in enumerate([0.1, 0.5, 0.5, 0.2, 0.9]):
        offer(worst, severity, number)
    assert [e["request_id"] for e in worst.entries] == ["r4", "r1", "r2"]
    assert not offer(worst, 0.5, 7), "an earlier one is as bad"
    assert not offer(worst, 2.0, 4), "it is there already"
    assert offer(worst, 1.0, 8, text="x" * 100, rest="y" * MOST_BYTES)
    kept = worst.entries[0]["inputs"]
    assert kept == {"text": "x" * 100, "…": "1 more"}
    assert len(json.dumps(worst.dump_state())) < 3 * 3 * MOST_BYTES
    other = Worst(3)
    offer(other, 0.7, 20)
    both = worst.merge(other)
    assert [e["request_id"] for e in both.entries] == ["r8", "r4", "r20"]
    copy = Worst.from_state(json.loads(json.dumps(both.dump_state())))
    assert copy.entries == both.entries
    assert not offer(Worst(0), 9.0, 1)
