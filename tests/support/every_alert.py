"""Series of a service where everything can go wrong: for every alert there is a fault.

The series are those of the trials that the unit tests are made of, scraped by a real Prometheus. An
alert that waits for minutes or hours does so for seconds here: all times of its rule are shortened by
one factor, so that the shortest is :data:`SHORTEST`, and its counters run faster by the same.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from understudy.common.units import seconds
from understudy.monitor.slo.compiled import Compiled
from understudy.monitor.slo.model import Level, Slices, Stream
from understudy.monitor.slo.promql import selector
from understudy.monitor.slo.trial_series import RATE

SHORTEST = 5.0
SLOS = "objectives"
BURST = 5.0
"""There is so much more traffic during a fault, so that a day before it weighs less."""
_DURATION = re.compile(r"(\[|offset )((?:[0-9]+[smhdw])+)\b")
_ONES_OWN = re.compile(r'\b(instance|model|arm|experiment)="([^"]*)"')


def shortened(*rules: dict[str, Any]) -> tuple[list[dict[str, Any]], float]:
    """An alert and the rules that record for it, with all times shortened, and by how much."""
    times = [seconds(time) for rule in rules for _, time in _DURATION.findall(rule["expr"])]
    times += [seconds(rule["for"]) for rule in rules if "for" in rule]
    factor = max(1.0, min(times, default=SHORTEST) / SHORTEST)

    def less(time: str) -> str:
        return f"{round(seconds(time) / factor * 1000)}ms"

    found = []
    for rule in rules:
        short = {**rule, "expr": _DURATION.sub(lambda m: m[1] + less(m[2]), rule["expr"])}
        found.append({**short, "for": less(rule["for"])} if "for" in rule else short)
    return found, factor


@dataclass
class Series:
    """``calm`` and ``fault`` are values, or what is added in a second."""

    owner: str
    counts: bool
    calm: float
    fault: float
    value: float = 0.0


class Exporter:
    """Whatever is in ``ill`` has its fault."""

    def __init__(self) -> None:
        self.series: dict[str, Series] = {}
        self.recorded: dict[str, float] = {}
        """What Prometheus has recorded in the past, and not been told."""
        self.ill: set[str] = set()
        self._lock = threading.Lock()
        self._at = time.monotonic()

    def add(self, owner: str, one: Stream | Level, faster: float = 1.0) -> None:
        """Where two trials have the same series, more wins."""
        counts = isinstance(one, Stream)
        scale = RATE * faster if counts else 1.0
        known = self.series.setdefault(one.series, Series(owner, counts, 0.0, 0.0))
        known.calm = max(known.calm, one.good * scale)
        known.fault = max(known.fault, one.bad * scale) if counts else one.bad
        known.value = 0.0 if counts else known.calm

    def fault(self, *owners: str) -> None:
        """These and no others have their fault from now on."""
        with self._lock:
            self._advance()
            self.ill = set(owners)

    def _advance(self) -> None:
        now = time.monotonic()
        passed, self._at = now - self._at, now
        for one in self.series.values():
            now_is = one.fault if one.owner in self.ill else one.calm
            one.value = one.value + now_is * passed if one.counts else now_is

    def text(self) -> str:
        """What is scraped."""
        with self._lock:
            self._advance()
            return "".join(f"{name} {one.value}\n" for name, one in self.series.items())

    def past(self, until: float, seconds: int, step: int) -> str:
        """A calm past in the OpenMetrics format, which what is scraped goes on from."""
        lines = []
        for name, one in self.series.items():
            if not one.counts:  # rules look at what a gauge is, hardly at what it was
                continue
            for number in range(seconds // step + 1):
                value = one.calm * number * step
                lines.append(f"{name} {value} {until - seconds + number * step:.3f}")
            one.value = one.calm * seconds
        for name, value in self.recorded.items():
            lines += [f"{name} {value} {until - back:.3f}" for back in range(seconds, -1, -step)]
        return "\n".join([*lines, "# EOF\n"])


def everything(found: Compiled) -> tuple[dict[str, dict[str, Any]], Exporter]:
    """The rule files, shortened, and series for each of their alerts but that of a lost target."""
    exporter = Exporter()
    files = found.rule_files()
    factors: list[float] = []
    for data in files.values():
        for group in data["groups"]:
            rules: list[dict[str, Any]] = []
            waiting: list[dict[str, Any]] = []
            for rule in group["rules"]:
                if rule.get("record") == "slo:sli_error:slice":
                    rules += shortened(rule)[0]
                elif group["name"].startswith("understudy-slo-"):
                    rules.append(rule)
                elif "record" in rule:
                    waiting.append(rule)
                else:
                    shorter, factor = shortened(*waiting, rule)
                    waiting = []
                    rules += shorter
                    factors.append(factor)
            group["rules"] = rules
    for number, (alert, factor) in enumerate(zip(found.alerts, factors, strict=True)):
        for one in alert.trial.series:
            if one.series.startswith("up{"):
                continue
            name = _ONES_OWN.sub(rf'\g<1>="\g<2>{number}"', one.series)
            moved = type(one)(name, one.good, one.bad)
            exporter.add(f"{alert.name} {alert.severity}", moved, factor)
    for slo in found.slos:
        for one in slo.sli.trial:
            bad = one.bad
            if "feedback_delay_seconds" in one.series:
                # Labels are late: were they missing, this would be seen only much later.
                bad = one.good * (100.0 if one.series.partition("{")[0].endswith("_sum") else 1.0)
            elif isinstance(one, Stream):
                bad *= BURST
            exporter.add(SLOS, type(one)(one.series, one.good, bad))
        if isinstance(slo.sli, Slices):
            exporter.recorded[selector("slo:sli_error:slice", slo.identity())] = 0.0
    return files, exporter


@contextmanager
def serving(exporter: Exporter | None, port: int = 0) -> Iterator[int]:
    """An exporter on a port; without one, a target that has nothing to say."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = (exporter.text() if exporter else "").encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
