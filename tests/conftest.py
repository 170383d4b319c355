"""What tests of several packages use. Everything heavy starts only when a test asks for it."""

from __future__ import annotations

import inspect
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hypothesis import HealthCheck, settings

from tests.support.browser import chromium
from tests.support.patience import patient
from tests.support.scheduling import OneKafka, waits

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter
    from playwright.sync_api import Browser

    from tests.support.kafka_cluster import Cluster

# Hundreds of processes start during a run. Without the files of bytecode, each would compile what it
# imports again: two of its three seconds.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# A shell that starts a run in the background ignores Ctrl-C for it, and so would every process that
# a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# jsonschema imports it where it is, and it takes a second to build its grammars, in each process of
# the run. It comes with the tool that writes the SBOM; users of jsonschema alone do not have it.
sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]
# No test is about time: a machine may be busy.
settings.register_profile("understudy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("understudy")
# What httpx.get and others use where a test gives no timeout, 5 s by default: one object.
_HTTPX = inspect.signature(httpx.get).parameters["timeout"].default
_HTTPX.connect = _HTTPX.read = _HTTPX.write = _HTTPX.pool = patient(20.0)
# Each of these calls makes a client, and each client would read all certificate authorities again:
# most of the CPU of a loop that waits for an answer.
_TLS = httpx.create_ssl_context()
for _call in (httpx.request, httpx.get, httpx.head, httpx.post, httpx.put,
              httpx.patch, httpx.delete, httpx.options):  # fmt: skip
    _call.__kwdefaults__["verify"] = _TLS


NOT_TESTED = "NOT TESTED"
"""How the reason of a skip begins when something was left out that should not be."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="tests that are marked as slow, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):  # one of several processes of xdist
        first = {
            item.path
            for item in items
            if waits({mark.name for mark in item.iter_markers()}, item.nodeid.partition("::")[0])
        }
        items.sort(key=lambda item: item.path not in first)
    if config.getoption("--all"):
        return
    for item in items:
        if item.get_closest_marker("slow") is not None:
            reason = f"{NOT_TESTED}: it takes minutes; `make test-all` runs it"
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    return OneKafka(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """Say once more, and briefly, what was left out."""
    reasons: Counter[str] = Counter()
    for report in terminalreporter.stats.get("skipped", []):
        if isinstance(report.longrepr, tuple):
            reason = report.longrepr[2].removeprefix("Skipped: ")
            if reason.startswith(NOT_TESTED):
                reasons[reason.removeprefix(NOT_TESTED + ": ")] += 1
    if reasons:
        terminalreporter.section("not tested here", yellow=True, bold=True)
        for reason, count in reasons.most_common():
            terminalreporter.write_line(f"{count:5} tests: {reason}")


@pytest.fixture
def anyio_backend() -> str:
    """What tests that are coroutines run on: ``@pytest.mark.anyio``."""
    return "asyncio"


@pytest.fixture(scope="module")  # while it is there, its loop runs, and no other one can
def browser() -> Iterator[Browser]:
    """A real browser without a window; see :mod:`tests.support.browser`."""
    yield from chromium()


@pytest.fixture(scope="session")
def _kafka() -> Iterator[Cluster]:
    from tests.support.kafka_cluster import Cluster

    with Cluster() as cluster:
        yield cluster


@pytest.fixture
def kafka_cluster(_kafka: Cluster) -> Iterator[Cluster]:
    """Three real Kafka nodes, shared by the session; whatever a test does to them is put right."""
    _kafka.heal()
    yield _kafka
    _kafka.heal()
