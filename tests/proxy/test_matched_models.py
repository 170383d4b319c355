"""Models that are not listed: their names and versions come from paths and bodies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.grpc_world import call, grpc_plan, grpc_server
from tests.support.proxy import Message, Server, Sidecar, get, post, sidecar
from tests.support.proxy_peer import Peer
from understudy.common.grpc_messages import INFER, framed
from understudy.monitor.config.compile import compile_plan, plan_json
from understudy.monitor.config.load import parse
from understudy.monitor.errors import ConfigError
from understudy.monitor.proxy.routes import Routes
from understudy.monitor.routing.plan import Match, Model, Plan
from understudy.monitor.stats.shared import SharedStats, walk

CHAT, OPENAI = "/v1/chat/completions", "openai-chat"
UNKNOWN = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


def config_of(port: int, models: str, more: str = "") -> str:
    return f"""
version: 1
listen: 127.0.0.1:0
capture: {{max_body: 4KiB}}
models: {models}
champion: {{url: 'http://127.0.0.1:{port}'}}
{more}
"""


def plan_of(port: int, models: str, more: str = "") -> Plan:
    return compile_plan(parse(config_of(port, models, more), "test", Path("/")), 1)


def answer(message: Message) -> bytes:
    """As a server that knows all models but those whose name has ``unknown`` in it."""
    if b"unknown" in message.first + message.body:
        return UNKNOWN
    return b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Bench:
    side: Sidecar
    peer: Peer
    server: Server

    async def ask(self, path: str, body: bytes = b"{}", **more: Any) -> None:
        await self.side.ask(post(body, path=path, **more))

    def requests(self) -> dict[tuple[str, str, str], int]:
        """By model, version and protocol; those of clients."""
        words = self.side.worker._stats.words
        found: dict[tuple[str, str, str], int] = {}
        for entry in walk(words):
            primary = entry.name == "requests" and entry.labels["role"] == "primary"
            if primary and (count := words[entry.offset]):
                key = tuple(entry.labels[name] for name in ("model", "version", "protocol"))
                found[key] = found.get(key, 0) + count  # type: ignore[index, arg-type]
        return found

    async def recorded(self, count: int) -> list[tuple[str, str]]:
        """Model and version of each record, by the names that the worker has told before it."""
        await self.side.until(lambda: len(self.peer.records) >= count)
        models: Any = self.peer.names[-1]["models"]
        return [(models[r.model]["name"], models[r.model]["version"]) for r in self.peer.records]


@contextlib.asynccontextmanager
async def matching(models: str, more: str = "") -> AsyncIterator[Bench]:
    server = await Server(answer).start()
    async with sidecar(plan_of(server.port, models, more)) as side:
        peer = Peer(side.folder / "records.sock")
        await peer.start()
        yield Bench(side, peer, server)
        await peer.stop()
    await server.stop()


@pytest.mark.anyio
async def test_names_and_versions_come_from_paths_and_bodies_as_the_field_has_them() -> None:
    async with matching("[{match: '*'}]") as bench:
        await bench.ask("/v2/models/delays/infer")
        await bench.ask("/v2/models/delays/versions/3/infer")
        await bench.ask("/v1/models/llama3%3A8b:predict")
        await bench.ask("/v1/models/org%2Fm/versions/2:predict")
        await bench.ask(CHAT, b'{"model": "meta-llama/Llama-3-8B:Q4", "messages": []}')
        await bench.ask(CHAT, json.dumps({"model": "modèle"}).encode())
        body = b'{"model": "chunked"}'
        raw = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        await bench.ask(CHAT, raw, framing=b"Transfer-Encoding: chunked")
        await bench.ask(INFER, framed(b"\x0a\x01g\x12\x014"))
        assert await bench.recorded(8) == [
            ("delays", ""),
            ("delays", "3"),
            ("llama3:8b", ""),
            ("org/m", "2"),
            ("meta-llama/Llama-3-8B:Q4", ""),
            ("modèle", ""),
            ("chunked", ""),
            ("g", "4"),
        ]
        assert bench.requests() == {
            ("delays", "", "open-inference-v2"): 1,
            ("delays", "3", "open-inference-v2"): 1,
            ("llama3:8b", "", "kserve-v1"): 1,
            ("org/m", "2", "kserve-v1"): 1,
            ("g", "4", "open-inference-v2"): 1,
            **{(name, "", OPENAI): 1
               for name in ("meta-llama/Llama-3-8B:Q4", "modèle", "chunked")},
        }  # fmt: skip


@pytest.mark.anyio
async def test_names_that_the_server_does_not_know_become_no_labels() -> None:
    async with matching("[{match: '*'}]") as bench:
        for number in range(80):
            await bench.ask(f"/v2/models/unknown-{number}/infer")
            await bench.ask(CHAT, b'{"model": "unknown-%d"}' % number)
        await bench.ask("/v2/models/m/infer")
        await bench.ask("/v2/models/m/infer?unknown")  # it fails, and stays known
        assert bench.requests() == {
            ("other", "", "open-inference-v2"): 80,
            ("other", "", OPENAI): 80,
            ("m", "", "open-inference-v2"): 2,
        }
        assert (await bench.recorded(162)).count(("other", "")) == 160
        assert bench.side.counter("models_unlisted") == 0


@pytest.mark.anyio
async def test_there_are_no_more_than_are_allowed_and_the_rest_is_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with matching("[{match: {most: 2}}]") as bench:
        for name in ("a", "b", "c", "d", "a", "c"):
            await bench.ask(f"/v2/models/{name}/infer")
            await bench.ask(CHAT, b'{"model": "%b"}' % name.encode())
        assert bench.requests() == {
            ("a", "", "open-inference-v2"): 2,
            ("a", "", OPENAI): 2,
            ("b", "", "open-inference-v2"): 1,
            ("b", "", OPENAI): 1,
            ("other", "", "open-inference-v2"): 3,
            ("other", "", OPENAI): 3,
        }
        assert bench.side.counter("models_unlisted") == 6
    (line,) = (one.message for one in caplog.records if "most" in one.message)
    assert "more than 2 models" in line
    assert "'other'" in line


@pytest.mark.anyio
async def test_what_has_no_name_counts_under_the_name_of_the_entry() -> None:
    large = b'{"model": "m", "pad": "%b"}' % (b"x" * 8000)
    async with matching("[{name: rest, match: {names: ['m*'], body: /model}}]") as bench:
        bodies = (b"not JSON", b"{}", b'{"model": 7}', b'{"model": "a b"}', b'{"model": "x"}')
        for body in (*bodies, b"[" * 3000, large):
            await bench.ask(CHAT, body)
        await bench.ask("/v2/models/a%20b/infer")
        await bench.ask("/v2/models/%FF/infer")
        await bench.side.ask(get("/elsewhere"))
        assert bench.requests() == {
            ("rest", "", OPENAI): 7,
            ("rest", "", "open-inference-v2"): 2,
            ("other", "", "other"): 1,
        }


@pytest.mark.anyio
async def test_listed_models_come_first_also_by_their_name_in_bodies() -> None:
    models = "[{match: '*'}, {name: m, version: '1'}, {name: chat, paths: [/chat]}]"
    experiment = """
challengers: [{name: other, url: 'http://127.0.0.1:9'}]
experiments:
  - {name: e, model: chat, challengers: [other], metrics: [{metric: error_rate, margin: 1 pp}]}
"""
    async with matching(models, experiment) as bench:
        await bench.ask("/v2/models/m/infer")
        await bench.ask("/chat")
        await bench.ask(CHAT, b'{"model": "chat"}')
        await bench.ask(CHAT, b'{"model": "m"}')
        await bench.ask("/v2/models/n/infer")
        assert bench.requests() == {
            ("m", "1", "open-inference-v2"): 1,
            ("chat", "", "auto"): 1,
            ("chat", "", OPENAI): 1,
            ("m", "1", OPENAI): 1,
            ("n", "", "open-inference-v2"): 1,
        }


@pytest.mark.anyio
async def test_a_mirrored_request_has_the_model_of_its_original() -> None:
    other = await Server(answer).start()
    challenger = f"challengers: [{{name: other, url: 'http://127.0.0.1:{other.port}'}}]"
    async with matching("[{match: '*'}]", challenger) as bench:
        for _ in range(3):
            await bench.ask(CHAT, b'{"model": "m"}')
        assert await bench.recorded(6) == [("m", "")] * 6
    await other.stop()


@pytest.mark.anyio
async def test_what_was_found_outlasts_a_reload() -> None:
    async with matching("[{match: '*'}]") as bench:
        for name in ("a", "b"):
            await bench.ask(f"/v2/models/{name}/infer")
        await bench.recorded(2)
        bench.side.worker.reload(
            plan_of(bench.server.port, "[{name: first}, {match: {names: ['b*']}}]")
        )
        await asyncio.sleep(0)
        assert bench.side.worker.runtime.routes.known == {("b", ""): 2}
        for name in ("a", "b", "first"):
            await bench.ask(f"/v2/models/{name}/infer")
        found = await bench.recorded(5)
        assert found[2:] == [("other", ""), ("b", ""), ("first", "")]


@pytest.mark.anyio
async def test_what_was_found_outlasts_the_worker() -> None:
    async with matching("[{match: '*'}, {name: listed}]") as bench:
        for name in ("a", "listed", "unknown"):
            await bench.ask(f"/v2/models/{name}/infer")
        await bench.side.until(lambda: sum(bench.requests().values()) == 3)
        (file,) = bench.side.folder.glob("*.stats")
        stats = SharedStats(shutil.copy(file, file.with_name("copy")))
        try:
            plan = plan_of(bench.server.port, "[{name: first}, {match: '*'}]")
            assert Routes(plan, stats).known == {("a", ""): 2, ("listed", ""): 3}
            only = plan_of(bench.server.port, "[{name: first}]")
            assert Routes(only, stats).known == {}
        finally:
            stats.close()


@pytest.mark.anyio
@pytest.mark.parametrize("listed", [False, True])
async def test_calls_of_grpc_have_the_model_of_their_messages(listed: bool) -> None:
    """Over gRPC, all models have the same path."""
    names = ("a", "b") if listed else ()
    models = [Model(name, "", "auto", (INFER,)) for name in names]
    if not listed:
        models.append(Model("other", "", "auto", (INFER,), match=Match()))
    with grpc_server() as server:
        plan = replace(grpc_plan(server.port), models=tuple(models))
        async with sidecar(plan) as side:
            peer = Peer(side.folder / "records.sock")
            await peer.start()
            bench = Bench(side, peer, Server())
            for name in (b"a", b"b", b"b"):
                await asyncio.to_thread(call, side.port, b"\x0a\x01" + name)
            await asyncio.to_thread(call, side.port, b"\x0a\x03a b")
            nameless = [] if listed else [("other", "")]
            assert await bench.recorded(3 + len(nameless)) == [
                ("a", ""), ("b", ""), ("b", ""), *nameless,
            ]  # fmt: skip
            await peer.stop()


def test_a_plan_survives_its_way_to_the_workers() -> None:
    plan = plan_of(1, "[{name: a}, {match: {names: ['x/*'], most: 3}}]")
    assert Plan.from_json(json.loads(json.dumps(plan_json(plan)))) == plan


@pytest.mark.parametrize(
    ("models", "more", "message"),
    [
        ("[{match: '*'}, {match: 'a*'}]", "", "models[1].match"),
        ("[{match: 'a b'}]", "", "models[0].match: must match pattern"),
        ("[{match: '*', version: '1'}]", "", "list that by its name"),
        ("[{match: '*', baseline: b.json}]", "", "list that by its name"),
        ("[{version: '1'}]", "", "models[0].name"),
        ("[{name: other}]", "", "reserved"),
        (
            "[{match: '*'}]",
            "challengers: [{name: c, url: 'http://127.0.0.1:9'}]\n"
            "experiments: [{name: e, challengers: [c]}]",
            "must be one model",
        ),
    ],
)
def test_what_is_rejected(models: str, more: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(config_of(1, models, more), "test", Path("/"))
    assert message in str(refused.value)
