"""How late the senders were, added up over all workers: whether what Locust shows may be believed.

Workers hand their histograms to the master with their reports; there they add up. At the end the
master says how late its senders were, and a run in which the lag at p99 is more than 5 % of the
latency that was to be shown is INVALID, with exit code 2. The web page has the same at
``/send-lag``.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from locust import events
from locust.env import Environment

from understudy.loadtest.engine.book import Taken
from understudy.loadtest.engine.histogram import Histogram

SHARE = 0.05
"""Of a latency limit, what the lag may be at its 99th percentile."""
_KEY = "understudy"


class Book:
    """By the name of a request: send lags and latencies, and the limit that was set for it."""

    def __init__(self) -> None:
        self.lags: dict[str, Histogram] = {}
        self.latencies: dict[str, Histogram] = {}
        self.limits: dict[str, float] = {}

    def add(self, name: str, part: Taken, limit: float | None) -> None:
        """Requests that have ended."""
        self._of(name)
        self.lags[name].add((part.picked - part.due).clip(0.0))
        self.latencies[name].add((part.ended - part.due).clip(0.0))
        if limit is not None:
            self.limits[name] = min(limit, self.limits.get(name, limit))

    def _of(self, name: str) -> None:
        for held in (self.lags, self.latencies):
            held.setdefault(name, Histogram())

    def pack(self) -> dict[str, Any]:
        """As plain data, for a report."""
        return {
            name: [self.lags[name].to_dict(), self.latencies[name].to_dict(), self.limits.get(name)]
            for name in self.lags
        }

    def merge(self, data: dict[str, Any]) -> None:
        """Add what another process has packed."""
        for name, (lags, latencies, limit) in data.items():
            self._of(name)
            self.lags[name].merge(Histogram.from_dict(lags))
            self.latencies[name].merge(Histogram.from_dict(latencies))
            if limit is not None:
                self.limits[name] = min(limit, self.limits.get(name, limit))

    def figures(self) -> list[dict[str, Any]]:
        """What may be said of each name; ``valid`` None where no limit was set."""
        found = []
        for name, lags in self.lags.items():
            limit, lag = self.limits.get(name), lags.quantile(0.99)
            found.append(
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
        return found


_hooks: Any = events  # without types of its own
book = Book()
"""Of this process; in a master, of all workers together."""


def _report(client_id: str, data: dict[str, Any], **_: Any) -> None:
    data[_KEY] = book.pack()
    book.lags.clear()
    book.latencies.clear()


def _reported(client_id: str, data: dict[str, Any], **_: Any) -> None:
    book.merge(data.pop(_KEY, {}))


def _reset(**_: Any) -> None:
    book.lags.clear()
    book.latencies.clear()


def _web(environment: Environment, web_ui: Any = None, **_: Any) -> None:
    if web_ui is not None:

        def send_lag() -> Any:
            return web_ui.app.response_class(
                json.dumps(book.figures()), mimetype="application/json"
            )

        web_ui.app.add_url_rule("/send-lag", "send_lag", send_lag)


def _said(environment: Environment, **_: Any) -> None:
    if type(environment.runner).__name__ == "WorkerRunner":
        return
    for one in book.figures():
        lag = f"send lag p50 {_ms(one['lag_p50'])}, p99 {_ms(one['lag_p99'])}"
        line = f"{one['name']}: {one['requests']:,} requests, p99 {_ms(one['p99'])}; {lag}"
        if one["valid"] is False:
            line = (
                f"INVALID {line}: more than {SHARE:.0%} of the limit of {_ms(one['limit'])}; fewer "
                "users for each worker, more workers, or a machine that has time for them"
            )
            environment.process_exit_code = 2
        print(line, file=sys.stderr, flush=True)


def _ms(seconds: float | None) -> str:
    return "nothing" if seconds is None else f"{seconds * 1e3:.3g} ms"


_hooks.report_to_master.add_listener(_report)
_hooks.worker_report.add_listener(_reported)
_hooks.reset_stats.add_listener(_reset)
_hooks.init.add_listener(_web)
_hooks.quitting.add_listener(_said)
