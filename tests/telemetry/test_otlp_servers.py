"""Others' model servers and backends: MLServer with the tracing that it has, Jaeger, a collector."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.otlp import CLIENT, Collector, Jaeger, Seen
from tests.support.patience import eventually, patient
from tests.support.served import mlserver
from tests.support.service import REAL, Service
from understudy.loadtest.payloads.formats import in_format

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "00f067aa0ba902b7"
FAST = {"traces": {"interval": "100ms"}, "metrics": {"exporter": "none"}}
PATH = "/v2/models/delays/infer"
BODY = in_format("open-inference-v2-matrix", [dict.fromkeys("abcd", 1.0)])

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def service(folder: Path, model: str, collector: str, **config: Any) -> Service:
    models = [{"name": "delays"}]
    telemetry = {"endpoint": collector, **FAST}
    return Service(folder, REAL, workers=1, models=models, champion={"url": model},
                   telemetry=telemetry, **config)  # fmt: skip


def ask(url: str, flags: str = "01", trace: str = TRACE) -> None:
    headers = {"traceparent": f"00-{trace}-{PARENT}-{flags}"}
    answer = httpx.post(url + PATH, json=BODY, headers=headers, timeout=patient(20))
    answer.raise_for_status()


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collector]:
    one = Collector(tmp_path)
    yield one
    one.stop()


@pytest.fixture
def jaeger(tmp_path: Path) -> Iterator[Jaeger]:
    one = Jaeger(tmp_path)
    yield one
    one.stop()


def test_mlserver_and_the_sidecar_are_one_trace(collector: Collector, tmp_path: Path) -> None:
    """MLServer obeys the flag of its parent, and hangs its spans under the sidecar's."""
    with (
        mlserver(tmp_path / "m", f"http://127.0.0.1:{collector.grpc_port}") as model,
        service(tmp_path, model, collector.url) as side,
    ):
        ask(side.url, "00", "1" * 32)
        ask(side.url)

        def found() -> list[Seen]:
            spans = [one for one in collector.seen.spans if one.trace == TRACE]
            assert {one.scope[0] for one in spans} > {"understudy"}
            assert len([one for one in spans if one.scope[0] == "understudy"]) == 2
            return spans

        spans = eventually(found)
        by_id = {one.span: one for one in spans}
        (client,) = (one for one in spans if one.scope[0] == "understudy" and one.kind == CLIENT)
        server = by_id[client.parent]
        assert server.parent == PARENT
        theirs = [one for one in spans if one.scope[0] != "understudy"]
        (top,) = (one for one in theirs if one.parent not in {other.span for other in theirs})
        assert top.parent == client.span
        for one in spans:
            if one.span != server.span:
                above = by_id[one.parent]
                assert above.start <= one.start
                assert one.end <= above.end or one.parent == top.span
        assert not [one for one in collector.seen.spans if one.trace == "1" * 32]


def test_jaeger_shows_the_trace_and_what_it_is_linked_to(jaeger: Jaeger, tmp_path: Path) -> None:
    with (
        mlserver(tmp_path / "m", f"http://127.0.0.1:{jaeger.grpc_port}") as model,
        service(
            tmp_path, model, jaeger.url, challengers=[{"name": "candidate", "url": model}]
        ) as side,
    ):
        ask(side.url)

        def found() -> list[dict[str, Any]]:
            spans = jaeger.trace(TRACE)
            assert len([one for one in spans if one["service"] == "understudy"]) == 2
            assert len(spans) > 2
            return spans

        server, client, top, *_ = eventually(found)

        def parent(span: dict[str, Any]) -> str:
            (reference,) = (one for one in span["references"] if one["refType"] == "CHILD_OF")
            return str(reference["spanID"])

        assert parent(server) == PARENT
        assert parent(client) == server["spanID"]
        assert parent(top) == client["spanID"]
        assert top["service"] != "understudy"
        # The mirrored request is another trace, which follows from this one.
        text = httpx.get(
            side.control + "/metrics", headers={"accept": "application/openmetrics-text"}
        ).text
        traces = {
            part.partition('trace_id="')[2].partition('"')[0]
            for part in text.splitlines()
            if 'trace_id="' in part
        }
        assert traces >= {TRACE}

        def copied() -> dict[str, Any]:
            (other,) = traces - {TRACE}
            copy = jaeger.trace(other)[0]
            assert copy["service"] == "understudy"
            return copy

        copy = eventually(copied)
        (link,) = copy["references"]
        assert link == {"refType": "FOLLOWS_FROM", "traceID": TRACE, "spanID": server["spanID"]}
        assert set(jaeger.services()) >= {"understudy", top["service"]}
