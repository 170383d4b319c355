"""The control API of a sidecar and of an evaluator, with its routes, for tests of guards."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

from starlette.routing import Route

from tests.support.evaluation import SHADOW, config_of
from understudy.monitor.api.guard import Guard
from understudy.monitor.config.model import Config
from understudy.monitor.evidence.settings import Settings
from understudy.monitor.kafka.commands import CommandQueue
from understudy.monitor.kafka.consumer import EvidenceConsumer
from understudy.monitor.kafka.evaluator import Evaluator
from understudy.monitor.kafka.options import Options, kafka_of
from understudy.monitor.service.evaluator_api import guarded_api

T = TypeVar("T")
TOKEN = "correct horse"


VARIABLE = "UNDERSTUDY_WIRING_TOKEN"


PARAMETERS = {
    "name": "shadowed",
    "challenger": "candidate",
    "command": "pause",
    "hook": "rollback",
    "id": "20261123T221530-7",
    "rest": "x",
    "file": "console.css",
}


class Commands(CommandQueue):
    """Calls are made at once, in another thread, as a consumer does between messages."""

    def submit(self, call: Callable[[], T], reads: bool = False) -> Future[T]:
        future = super().submit(call, reads)
        threading.Thread(target=self.run).start()
        return future


class Line:
    """A supervisor that does what it is asked."""

    async def reload(self) -> Any:
        return SimpleNamespace(ok=True, generation=2, error=None)

    async def routes(self) -> Any:
        return SimpleNamespace(ok=True, generation=2, error=None)


def config(folder: Path, **changes: Any) -> Config:
    control = {"listen": "0.0.0.0:9090", "token_env": VARIABLE}
    return config_of(folder, control=control, experiments=[SHADOW], **changes)


def settings_of(config: Config) -> Settings:
    return Settings.from_json(config.model_dump(mode="json", by_alias=True))


def routes(app: Any) -> Iterator[tuple[str, str]]:
    """Method and path of everything that the application behind a guard answers."""
    app = app.app if isinstance(app, Guard) else app
    for route in app.routes:
        inner = getattr(route, "original_router", None)  # how newer versions of FastAPI include
        if inner is not None:
            yield from routes(inner)
            continue
        assert isinstance(route, Route), f"{route!r} cannot be looked into"
        for method in (route.methods or set()) - {"HEAD"}:
            yield method, route.path


def filled(path: str) -> str:
    for name, value in PARAMETERS.items():
        path = path.replace(f"{{{name}}}", value).replace(f"{{{name}:path}}", value)
    assert "{" not in path, f"the test knows no value for a parameter of {path}"
    return path


def evidence_consumer(folder: Path) -> EvidenceConsumer:
    return EvidenceConsumer(config(folder), ["0"])


def evaluator_api(folder: Path, url: str = "", **members: Any) -> Guard:
    """The guarded API of an evaluator that is a member of a group of two, without the brokers: ``url`` is
    that of the other one."""
    declared = config(folder, kafka={"bootstrap": ["127.0.0.1:1"]})
    evaluator = Evaluator(declared, Options(kafka_of(declared), "evaluator-0"))
    group: Any = SimpleNamespace(
        consumers=members,
        evidence_partitions=2,
        commands=Commands(),
        owner=lambda _: url or None,
    )
    evaluator.member = group
    return guarded_api(evaluator, settings_of(declared))
