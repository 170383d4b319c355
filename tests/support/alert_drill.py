"""A real Prometheus with a past, a real Alertmanager, and somebody who is paged."""

from __future__ import annotations

import json
import random
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.support.ports import free_port
from tests.support.promtool import write
from tests.support.webhook_receiver import Receiver
from tests.support.world import World
from tools.parts.debian import alertmanager, environment, need
from understudy.monitor.config.slo import SloFile
from understudy.monitor.slo import alertmanager as routing
from understudy.monitor.slo.compile import compiled

DAY = 86_400
ALERTING = {
    "windows": [
        {"severity": "page", "budget": "2 %", "long": "1h", "short": "5s"},
        {"severity": "ticket", "budget": "10 %", "long": "1d", "short": "10s"},
    ]
}
"""The short windows are such that the end of a fault can be waited for."""
OBJECTIVES: dict[str, Any] = {
    "version": 1,
    "service": "delays",
    "scrape": {"job": "understudy"},
    "scrape_interval": "1s",
    "interval": "1s",
    "alerting": ALERTING,
    "slos": [{"name": "availability", "objective": "99.99 %", "availability": {}}],
}
LABELS = (
    'instance="one",job="understudy",model="m",version="1",arm="champion",role="primary",'
    'protocol="open-inference"'
)
DOWN = "UnderstudyModelServerDown page"
BURN = "UnderstudyErrorBudgetBurn page"
TICKET = "UnderstudyErrorBudgetBurn ticket"
FINDING = "UnderstudyValidation page"


def served(folder: Path) -> World:
    """A service whose model server passes a case, so that there is a finding when it does not."""
    tensor = {"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [1.0, 2.0]}
    case = {"name": "one", "request": {"inputs": [tensor]}, "expect": {"p": 0.5}}
    (folder / "cases.jsonl").write_text(json.dumps(case) + "\n")
    cases = {"cases": str(folder / "cases.jsonl"), "every": "300ms"}
    return World(folder, validation=cases, monitoring={"hold": "1s"})


def past(labels: str, until: float, seconds: int = DAY, step: int = 15, rate: float = 100.0) -> str:
    """A day of requests in the OpenMetrics format: hours that are busier than others, noise, and now
    and then an error, as many as an objective of 99.99 % allows."""
    chance = random.Random(11)
    totals = {"ok": 0, "server_error": 0}
    lines: dict[str, list[str]] = {outcome: [] for outcome in totals}
    start = until - seconds
    for number in range(seconds // step):
        moment = start + number * step
        busy = 1.0 + 0.3 * ((int(moment) // 3600) % 3 - 1) + 0.1 * (chance.random() - 0.5)
        totals["ok"] += int(rate * step * busy)
        totals["server_error"] += chance.random() < 0.03
        for outcome, total in totals.items():
            name = f'understudy_requests_total{{{labels},outcome="{outcome}"}}'
            lines[outcome].append(f"{name} {total} {moment:.3f}")
    body = "\n".join(line for some in lines.values() for line in some)
    return f"# TYPE understudy_requests counter\n{body}\n# EOF\n"


class Stack:
    """Both servers; the webhooks of Alertmanager go to ``told``."""

    def __init__(
        self,
        folder: Path,
        told: Receiver,
        rules: dict[str, Any],
        jobs: list[dict[str, Any]],
        findings_wait: str = "15s",
    ) -> None:
        self.folder = folder
        self.prometheus = f"http://127.0.0.1:{free_port()}"
        self.alertmanager = f"http://127.0.0.1:{free_port()}"
        config = routing.document({"page": told.url + "/page", "ticket": told.url + "/ticket"})
        # As generated, but with short times.
        about_models, pages = config["route"]["routes"]
        config["route"] |= {"group_wait": "3s", "group_interval": "1s"}
        about_models |= {"group_wait": findings_wait, "group_interval": "1s"}
        pages["group_interval"] = "1s"
        write(folder, {**rules, "alertmanager.yml": config, "prometheus.yml": {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": list(rules),
            "alerting": {"alertmanagers": [{"static_configs": [
                {"targets": [self.alertmanager.removeprefix("http://")]}]}]},
            "scrape_configs": jobs,
        }})  # fmt: skip
        self.processes: list[subprocess.Popen[bytes]] = []

    def backfill(self, text: str) -> None:
        """Give Prometheus a past, before it starts."""
        (self.folder / "past.txt").write_text(text)
        subprocess.run(
            [need("promtool"), "tsdb", "create-blocks-from", "openmetrics", "past.txt", "data"],
            cwd=self.folder, check=True, capture_output=True, env=environment(),
        )  # fmt: skip

    def start(self) -> None:
        log = (self.folder / "servers.log").open("wb")
        self._run(
            [str(need("prometheus")), f"--config.file={self.folder / 'prometheus.yml'}",
             f"--storage.tsdb.path={self.folder / 'data'}",
             f"--web.listen-address={self.prometheus.removeprefix('http://')}"], log,
        )  # fmt: skip
        self._run(
            [*alertmanager(), f"--config.file={self.folder / 'alertmanager.yml'}",
             f"--storage.path={self.folder / 'alertmanager'}", "--cluster.listen-address=",
             f"--web.listen-address={self.alertmanager.removeprefix('http://')}"], log,
        )  # fmt: skip

    def _run(self, command: list[str], log: Any) -> None:
        self.processes.append(
            subprocess.Popen(command, stdout=log, stderr=log, env=environment(), cwd=self.folder)
        )

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()

    def value(self, expression: str) -> float | None:
        """Of the only series that it yields; None when there is none."""
        answer = httpx.get(self.prometheus + "/api/v1/query", params={"query": expression})
        result = answer.raise_for_status().json()["data"]["result"]
        return float(result[0]["value"][1]) if result else None

    def is_well(self) -> bool:
        """The past counts, the present is scraped, the case passes, the budget is nearly whole."""
        ratio = self.value("slo:sli_error:ratio_rate1d")
        live = self.value('sum(rate(understudy_requests_total{outcome="ok"}[5s]))')
        passed = self.value("understudy_validation_pass_ratio")
        return ratio is not None and 0.0 < ratio < 1e-4 and (live or 0) > 10 and passed == 1.0

    def alerts(self) -> dict[str, dict[str, Any]]:
        """What Alertmanager holds, by name and severity."""
        found = httpx.get(self.alertmanager + "/api/v2/alerts").raise_for_status().json()
        return {key(one["labels"]): one for one in found}


@contextmanager
def stack(folder: Path, told: Receiver, world: World) -> Iterator[Stack]:
    """Started, with a past."""
    found = compiled(SloFile.model_validate(OBJECTIVES), "drill")
    folder.mkdir()
    made = Stack(folder, told, found.rule_files(), [job(one=world.service.control)])
    made.backfill(past(LABELS, time.time() - 30))
    made.start()
    try:
        yield made
    finally:
        made.stop()


def job(**targets: str) -> dict[str, Any]:
    """What is scraped, by the name of the instance."""
    return {
        "job_name": "understudy",
        "honor_labels": True,
        "static_configs": [
            {"targets": [url.removeprefix("http://")], "labels": {"instance": name}}
            for name, url in targets.items()
        ],
    }


def key(labels: dict[str, str]) -> str:
    """An alert as the tests call it."""
    return f"{labels['alertname']} {labels['severity']}"


@dataclass(frozen=True)
class Message:
    """One alert of one message, with the receiver that got it."""

    receiver: str
    alert: str
    status: str


def messages(told: Receiver, named: Callable[[dict[str, str]], str] = key) -> list[Message]:
    """In the order in which they came; ``named`` says what an alert is called by its labels."""
    return [
        Message(request.path.strip("/"), named(alert["labels"]), alert["status"])
        for request in list(told.requests)
        for alert in request.json["alerts"]
    ]


def stories(found: Iterable[Message]) -> dict[str, list[str]]:
    """What was told of each alert, without what was only repeated in a group."""
    stories: dict[str, list[str]] = {}
    for one in found:
        story = stories.setdefault(one.alert, [])
        if not story or story[-1] != one.status:
            story.append(one.status)
    return stories
