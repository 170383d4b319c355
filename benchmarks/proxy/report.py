"""From the figures of a course to claims and tables; pure, but for asking Envoy its version."""

from __future__ import annotations

import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.harness import Claim, Result, environment, median, median_ratio
from benchmarks.proxy.contenders import peers_python
from tools.parts.debian import environment as parts_environment
from tools.parts.debian import find

Cost = dict[str, dict[str, list[dict[str, float]]]]
"""Cell, contender, one entry per round."""

COMPLETE = 0.99
"""A figure counts for a claim when at least this share of the work was done for it; what is under
way when the load stops may be given up."""


QUIET = 0.05
"""What others may take of the processors in a measurement that one can quote."""


@dataclass(frozen=True)
class Figures:
    """What a course measured. ``main`` names the cell that the claims are about."""

    cost: Cost
    main: str
    latency: dict[str, list[dict[str, float]]]
    rate: float
    memory: dict[str, Any]
    resident: dict[str, dict[str, dict[str, float]]]


def cell_name(body: str, connections: int) -> str:
    return f"{body}, {connections} connections"


def column(entries: list[dict[str, float]], key: str) -> list[float]:
    return [entry[key] for entry in entries if key in entry]


def cost_ratio(figures: Figures, ours: str, key: str, peer: str) -> float | None:
    """Ours over the peer's, the median over rounds; None when either left work undone.

    A proxy that drops copies, or an evaluation plane that drops records, is cheaper than one that
    does not: such a figure is no answer.
    """
    entries, peers = (figures.cost[figures.main].get(name, []) for name in (ours, peer))
    done = [column(each, "copied") for each in (entries, peers) if "mirror" in ours]
    if key == "everything_us":
        done.append(column(entries, "evaluated"))
    if any(min(shares, default=0.0) < COMPLETE for shares in done):
        return None
    return median_ratio(column(entries, key), column(peers, "everything_us"))


def added(figures: Figures, name: str, key: str) -> float | None:
    """Seconds more than without a proxy, the median over rounds."""
    pairs = zip(figures.latency.get(name, []), figures.latency["direct"], strict=False)
    return median([a[key] - b[key] for a, b in pairs])


def added_ratio(figures: Figures, ours: str, theirs: str) -> float | None:
    """p99 added by ours over theirs; None when the peer's is lost in the noise (not above zero)."""
    mine, peer = added(figures, ours, "p99"), added(figures, theirs, "p99")
    return mine / peer if mine is not None and peer is not None and peer > 0 else None


def growth(samples: Sequence[tuple[int, float]]) -> float:
    """Relative growth over the last half of the requests, from (requests so far, size).

    Between medians of the first and the last fifth of that half: single samples under load move.
    """
    last = samples[-1][0]
    half = [size for passed, size in samples if passed >= last / 2]
    fifth = max(1, len(half) // 5)
    return statistics.median(half[-fifth:]) / statistics.median(half[:fifth]) - 1


def others(figures: Figures) -> str:
    """How much of the machine went to processes outside the measurement, as a text."""
    shares = [
        share
        for rounds in figures.cost[figures.main].values()
        for share in column(rounds, "others")
    ]
    middle = median(shares)
    if middle is None:
        return "not known"
    text = f"{middle:.0%} of the processors, at most {max(shares):.0%} in a round"
    return text if middle <= QUIET else f"{text}: NOT A QUIET MACHINE, take no figure from here"


def claims(figures: Figures) -> list[Claim]:
    memory = figures.memory
    return [
        Claim("CPU per request, data plane with mirror / Envoy with mirror",
              cost_ratio(figures, "understudy-mirror", "data_plane_us", "envoy-mirror"),
              0.35, "<="),
        Claim("CPU per request, everything with mirror, every payload decoded / Envoy with mirror",
              cost_ratio(figures, "understudy-mirror", "everything_us", "envoy-mirror"),
              0.6, "<="),
        Claim("CPU per request, data plane without mirror / Envoy",
              cost_ratio(figures, "understudy", "data_plane_us", "envoy"), 0.6, "<="),
        Claim("p99 added at half of saturation, with mirror / Envoy with mirror",
              added_ratio(figures, "understudy-mirror", "envoy-mirror"), 1.0, "<="),
        Claim("resident memory of a worker, MiB", memory["worker_mib"], 40, "<="),
        Claim("resident memory of the evaluation plane, MiB", memory["evaluation_mib"], 160, "<="),
        Claim("growth of a worker over the last half of the requests",
              memory["worker_growth"], 0.02, "<="),
        Claim("growth of the evaluation plane over the last half of the requests",
              memory["evaluation_growth"], 0.02, "<="),
    ]  # fmt: skip


def report(figures: Figures, **course: Any) -> Result:
    """The benchmark's result; ``course`` says how it was measured."""
    result = Result(
        "proxy",
        environment(
            pinned="proxies on core 0; backend, challenger and load on core 1",
            **course,
            **versions(),
            others=others(figures),
            denominator="requests that reached the model server, counted there",
            latency="aiohttp is left out: it would set the pace for all",
            memory="a fresh start, bodies of 1 row; what all bodies leave behind is in a table",
        ),
        {
            "cost": figures.cost,
            "latency": figures.latency,
            "latency_rate": figures.rate,
            "memory": figures.memory,
            "resident": figures.resident,
        },
        claims(figures),
    )
    result.tables += [_cost_table(cell, entries) for cell, entries in figures.cost.items()]
    result.tables += [latency_table(figures), _resident_table(figures)]
    return result


_Table = tuple[str, list[str], list[list[Any]]]

_COLUMNS = {
    "data_plane_us": "CPU µs/request, data plane",
    "everything_us": "CPU µs/request, everything",
    "per_second": "requests/s",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "copied": "copies per request",
    "evaluated": "records evaluated",
    "errors": "errors",
}


def _cost_table(cell: str, entries: dict[str, list[dict[str, float]]]) -> _Table:
    rows = [
        [name, *(median(column(rounds, key)) for key in _COLUMNS)]
        for name, rounds in entries.items()
    ]
    return f"Closed loop: {cell} (medians)", ["proxy", *_COLUMNS.values()], rows


def latency_table(figures: Figures) -> _Table:
    """Latencies and what each proxy adds, in milliseconds."""
    quantiles = ("p50", "p99", "p99.9")

    def ms(seconds: float | None) -> float | None:
        return None if seconds is None else seconds * 1e3

    rows = [
        [
            name,
            *(ms(median(column(rounds, key))) for key in quantiles),
            *(None if name == "direct" else ms(added(figures, name, key)) for key in quantiles),
            ms(median(column(rounds, "send_lag_p99"))),
            int(sum(column(rounds, "failed"))),
        ]
        for name, rounds in figures.latency.items()
    ]
    header = ["proxy", *(f"{q} ms" for q in quantiles), *(f"{q} added" for q in quantiles),
              "send lag p99", "failed"]  # fmt: skip
    title = f"Open loop: Poisson arrivals at {figures.rate:,.0f}/s, 1 row (medians over rounds)"
    return title, header, rows


def _resident_table(figures: Figures) -> _Table:
    keys = {"everything_mib": "all processes", "worker_mib": "worker",
            "evaluation_mib": "evaluation plane"}  # fmt: skip
    start, end = figures.resident["start"], figures.resident["end"]
    rows = [
        [name, *(each.get(name, {}).get(key) for each in (start, end) for key in keys)]
        for name in end
    ]
    header = ["proxy", *(f"{text}, {when}" for when in ("start", "end") for text in keys.values())]
    return "Resident memory in MiB, before and after all closed-loop load", header, rows


def versions() -> dict[str, str]:
    """Versions of the peers as they tell them; "missing" where there is none."""

    def told(*command: object) -> str:
        try:
            done = subprocess.run(
                list(map(str, command)), capture_output=True, text=True, env=parts_environment()
            )
        except OSError:
            return ""
        return done.stdout + done.stderr

    python = peers_python()
    envoy = told(python.parent / "envoy", "--version").partition("version:")[2].strip().split("/")
    nginx = told(find("nginx"), "-v").partition("nginx/")[2].split()
    wrk = told(find("wrk"), "-v").partition("wrk ")[2].split()
    aiohttp = told(python, "-c", "import aiohttp; print(aiohttp.__version__)").strip()
    return {
        "envoy": envoy[1] if len(envoy) > 1 else "missing",
        "nginx": nginx[0] if nginx else "missing",
        "aiohttp": aiohttp or "missing",
        "wrk": wrk[0] if wrk else "missing",
    }
