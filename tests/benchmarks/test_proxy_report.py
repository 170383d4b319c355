"""What the proxy benchmark makes of its figures: no claim rests on work that was not done."""

from __future__ import annotations

import pytest

from benchmarks.proxy.open_loop import quantile
from benchmarks.proxy.report import (
    Figures,
    added_ratio,
    claims,
    cost_ratio,
    growth,
    latency_table,
    others,
)

MAIN = "1 row, 32 connections"
MEMORY = {
    "worker_mib": 30.0,
    "evaluation_mib": 90.0,
    "worker_growth": 0.0,
    "evaluation_growth": 0.0,
}


def entry(data: float, everything: float, copied: float, **more: float) -> dict[str, float]:
    return {"data_plane_us": data, "everything_us": everything, "copied": copied, **more}


def figures(
    *,
    copied: float = 1.0,
    peer_copied: float = 1.0,
    evaluated: float = 1.0,
    peer_p99: float = 0.004,
) -> Figures:
    ours = [entry(30, 50, 1.0, evaluated=1.0), entry(40, 60, copied, evaluated=evaluated)]
    cost = {
        "understudy-mirror": ours,
        "envoy-mirror": [entry(100, 100, 1.0), entry(200, 200, peer_copied)],
        "understudy": [entry(20, 30, 0.0, evaluated=1.0)] * 2,
        "envoy": [entry(50, 50, 0.0), entry(100, 100, 0.0)],
    }
    latency = {
        name: [{"p50": p99 / 2, "p99": p99, "p99.9": p99 * 2, "failed": 0.0}]
        for name, p99 in {
            "direct": 0.001,
            "understudy-mirror": 0.002,
            "envoy-mirror": peer_p99,
        }.items()
    }
    resident = {when: {"envoy": {"everything_mib": 60.0}} for when in ("start", "end")}
    return Figures({MAIN: cost}, MAIN, latency, 5000.0, MEMORY, resident)


def test_costs_are_compared_round_by_round() -> None:
    seen = figures()
    data = cost_ratio(seen, "understudy-mirror", "data_plane_us", "envoy-mirror")
    everything = cost_ratio(seen, "understudy-mirror", "everything_us", "envoy-mirror")
    plain = cost_ratio(seen, "understudy", "data_plane_us", "envoy")
    assert data == pytest.approx((0.3 + 0.2) / 2)
    assert everything == pytest.approx((0.5 + 0.3) / 2)
    assert plain == pytest.approx((0.4 + 0.2) / 2)


@pytest.mark.parametrize("lacking", [{"copied": 0.9}, {"peer_copied": 0.9}])
def test_a_round_without_its_copies_gives_no_ratio(lacking: dict[str, float]) -> None:
    seen = figures(**lacking)
    assert cost_ratio(seen, "understudy-mirror", "data_plane_us", "envoy-mirror") is None
    assert cost_ratio(seen, "understudy", "data_plane_us", "envoy") is not None


def test_a_round_with_dropped_records_says_nothing_about_evaluation() -> None:
    seen = figures(evaluated=0.8)
    assert cost_ratio(seen, "understudy-mirror", "everything_us", "envoy-mirror") is None
    assert cost_ratio(seen, "understudy-mirror", "data_plane_us", "envoy-mirror") is not None


def test_a_missing_peer_gives_no_ratio() -> None:
    seen = figures()
    del seen.cost[MAIN]["envoy-mirror"]
    assert cost_ratio(seen, "understudy-mirror", "data_plane_us", "envoy-mirror") is None


def test_latency_added_is_compared_above_the_direct_path() -> None:
    assert added_ratio(figures(), "understudy-mirror", "envoy-mirror") == pytest.approx(1 / 3)


def test_a_peer_lost_in_the_noise_does_not_meet_a_claim_by_its_sign() -> None:
    seen = figures(peer_p99=0.0005)
    assert added_ratio(seen, "understudy-mirror", "envoy-mirror") is None
    unmet = [claim.claim for claim in claims(seen) if not claim.met]
    assert unmet == ["p99 added at half of saturation, with mirror / Envoy with mirror"]


def test_the_tables_hold_every_contender() -> None:
    text = latency_table(figures())
    assert [row[0] for row in text[2]] == ["direct", "understudy-mirror", "envoy-mirror"]
    assert text[2][1][5] == pytest.approx(1.0)  # p99 added, in ms
    assert text[2][0][5] is None


def test_quantiles_are_values_that_were_seen() -> None:
    values = [float(n) for n in range(1, 101)]
    assert quantile(values, 0.5) == 50
    assert quantile(values, 0.99) == 99
    assert quantile(values, 0.999) == 100
    assert quantile([7.0], 0.5) == 7


def test_a_machine_that_others_use_is_named() -> None:
    seen = figures()
    assert others(seen) == "not known"
    rounds = seen.cost[MAIN]["envoy"]
    rounds[0]["others"], rounds[1]["others"] = 0.01, 0.03
    assert others(seen) == "2% of the processors, at most 3% in a round"
    rounds[0]["others"], rounds[1]["others"] = 0.2, 0.4
    assert "NOT A QUIET MACHINE" in others(seen)


def test_growth_is_that_of_the_last_half() -> None:
    warm = [(n, 20.0 + n) for n in range(50)]
    assert growth([*warm, *((n, 100.0) for n in range(50, 100))]) == 0
    rising = growth([*warm, *((n, 50.0 + n) for n in range(50, 100))])
    assert rising == pytest.approx((144.5 - 104.5) / 104.5, rel=0.01)
    jolted = [(n, 500.0 if n == 99 else 100.0) for n in range(100)]
    assert growth(jolted) == 0
    assert growth([(10, 30.0)]) == 0
