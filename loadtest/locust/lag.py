"""The send lag of all Locust workers, which decides whether a run is valid.

Workers send their histograms to the master with their reports; the master merges them. At the end
it prints the send lag; a run whose p99 lag exceeds 5 % of the latency limit is INVALID, with exit
code 2, as is a run without requests. The web page serves the same
figures at ``/send-lag``.
"""

from __future__ import annotations

import json
from typing import Any

from locust import events
from locust.env import Environment

from understudy.common.terminal import echo
from understudy.loadtest.engine.histogram import Histogram
from understudy.loadtest.engine.recorder import FinishedRequests

SHARE = 0.05
"""Largest p99 of the send lag, as a share of the latency limit."""
_KEY = "understudy"


class LagStatistics:
    """Send lags and latencies by the name of the request, and its latency limit."""

    def __init__(self) -> None:
        self.lags: dict[str, Histogram] = {}
        self.latencies: dict[str, Histogram] = {}
        self.limits: dict[str, float] = {}
        self.unseen: dict[str, str] = {}
        """What is not looked at in the responses to requests of a name."""

    def add(self, name: str, part: FinishedRequests, limit: float | None) -> None:
        """Add finished requests of ``name``; ``limit`` in seconds."""
        self.start(name)
        self.lags[name].add((part.picked - part.due).clip(0.0))
        self.latencies[name].add((part.ended - part.due).clip(0.0))
        if limit is not None:
            self.limits[name] = min(limit, self.limits.get(name, limit))

    def start(self, name: str) -> None:
        """A user begins to send requests of ``name``."""
        for histograms in (self.lags, self.latencies):
            histograms.setdefault(name, Histogram())

    def pack(self) -> dict[str, Any]:
        """As JSON-compatible data for a report of Locust."""
        return {
            name: [
                self.lags[name].to_dict(), self.latencies[name].to_dict(), self.limits.get(name),
                self.unseen.get(name, ""),
            ]
            for name in self.lags
        }  # fmt: skip

    def merge(self, data: dict[str, Any]) -> None:
        """Merge the packed data of another process."""
        for name, (lags, latencies, limit, unseen) in data.items():
            self.start(name)
            self.lags[name].merge(Histogram.from_dict(lags))
            self.latencies[name].merge(Histogram.from_dict(latencies))
            if limit is not None:
                self.limits[name] = min(limit, self.limits.get(name, limit))
            if unseen:
                self.unseen[name] = unseen

    def figures(self) -> list[dict[str, Any]]:
        """Figures of each name; ``valid`` is None without a limit."""
        results = []
        for name, lags in self.lags.items():
            limit, lag = self.limits.get(name), lags.quantile(0.99)
            results.append(
                {
                    "name": name,
                    "requests": lags.count,
                    "lag_p50": lags.quantile(0.5),
                    "lag_p99": lag,
                    "p99": self.latencies[name].quantile(0.99),
                    "p999": self.latencies[name].quantile(0.999),
                    "limit": limit,
                    "valid": None if limit is None or lag is None else lag <= SHARE * limit,
                }
            )
        return results


_hooks: Any = events  # without types
statistics = LagStatistics()
"""Statistics of this process; in a master, of all workers."""


def _report(client_id: str, data: dict[str, Any], **_: Any) -> None:
    data[_KEY] = statistics.pack()
    statistics.lags.clear()
    statistics.latencies.clear()


def _merge_report(client_id: str, data: dict[str, Any], **_: Any) -> None:
    statistics.merge(data.pop(_KEY, {}))


def _reset(**_: Any) -> None:
    statistics.lags.clear()
    statistics.latencies.clear()


def _web(environment: Environment, web_ui: Any = None, **_: Any) -> None:
    if web_ui is not None:

        def send_lag() -> Any:
            return web_ui.app.response_class(
                json.dumps(statistics.figures()), mimetype="application/json"
            )

        web_ui.app.add_url_rule("/send-lag", "send_lag", send_lag)


def _print_lag(environment: Environment, **_: Any) -> None:
    if type(environment.runner).__name__ == "WorkerRunner":
        return
    for one in statistics.figures():
        lag = f"send lag p50 {_ms(one['lag_p50'])}, p99 {_ms(one['lag_p99'])}"
        if not one["requests"]:
            continue
        line = f"{one['name']}: {one['requests']:,} requests, p99 {_ms(one['p99'])}; {lag}"
        if one["valid"] is False:
            line = (
                f"INVALID {line}: more than {SHARE:.0%} of the limit of {_ms(one['limit'])}; use "
                "fewer users per worker, more workers, or a less busy machine"
            )
            environment.process_exit_code = 2
        echo(line, err=True)
        if one["name"] in statistics.unseen:
            echo(f"note: {one['name']}: {statistics.unseen[one['name']]}", err=True)
    silent = [one["name"] for one in statistics.figures() if not one["requests"]]
    if not environment.stats.total.num_requests or silent:
        what = ", ".join(silent) or "the run"
        echo(f"INVALID {what}: no request has ended, so nothing was measured", err=True)
        environment.process_exit_code = 2


def _judge_last(environment: Environment, **_: Any) -> None:
    """Judge the run after every other listener, whenever it was added: one that sets the exit code
    by the share of failures, as Locust's documentation does, must not hide that it is INVALID."""
    environment.events.quitting._handlers.insert(0, _print_lag)  # called in reverse


def _ms(seconds: float | None) -> str:
    return "nothing" if seconds is None else f"{seconds * 1e3:.3g} ms"


_hooks.report_to_master.add_listener(_report)
_hooks.worker_report.add_listener(_merge_report)
_hooks.reset_stats.add_listener(_reset)
_hooks.init.add_listener(_web)
_hooks.init.add_listener(_judge_last)
