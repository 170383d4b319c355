"""A challenger that is asked for another model or version: in paths, bodies, headers and gRPC."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.grpc_world import call, grpc_plan, grpc_server
from tests.support.proxy import OK, Server, post, sidecar
from tests.support.proxy_mirror import outcomes
from tests.support.proxy_split import NAMES, divided, unit_of
from understudy.common.grpc_messages import model_of
from understudy.monitor.config.compile import compile_plan, plan_json, servers_of
from understudy.monitor.config.load import parse
from understudy.monitor.errors import ConfigError
from understudy.monitor.proxy.rewriting import Rewriter
from understudy.monitor.routing.plan import Challenger, Model, Plan, Rewrite, Upstream

CHAT = "/v1/chat/completions"
ANY = Rewrite((("*", "m-v2"),))
ONE = Rewrite((("m", "org/m-v2:Q4"),))
SECOND = Rewrite((("*", ""),), "2")
BOTH = Rewrite((("*", "n"),), "2")


@pytest.mark.parametrize(
    ("rewrite", "target", "sent", "of_body"),
    [
        (ANY, "/v2/models/m/infer?a=/v2/models/m", "/v2/models/m-v2/infer?a=/v2/models/m", False),
        (ANY, "/v2/models/m/versions/1/infer", "/v2/models/m-v2/versions/1/infer", False),
        (SECOND, "/v2/models/m/infer", "/v2/models/m/versions/2/infer", False),
        (SECOND, "/v2/models/m/versions/1/infer", "/v2/models/m/versions/2/infer", False),
        (SECOND, "/v1/models/a%2Fb:predict", "/v1/models/a%2Fb/versions/2:predict", False),
        (BOTH, "/base/v1/models/a:b/versions/7:predict", "/base/v1/models/n/versions/2:predict", 0),
        (BOTH, "/v1/models/m%3Apredict", "/v1/models/n/versions/2:predict", False),
        (BOTH, "/predictions/m/1.0", "/predictions/n/2", False),
        (ONE, "/v2/models/m/infer", "/v2/models/org%2Fm-v2:Q4/infer", False),
        (ONE, "//v2/models/%6d/infer", "//v2/models/org%2Fm-v2:Q4/infer", False),
        (ONE, "/v2/models/other/infer", "/v2/models/other/infer", False),
        (ANY, "/x%0D%0Ay/v2/models/m%0D%0A/infer", "/x%0D%0Ay/v2/models/m-v2/infer", False),
        (ANY, CHAT, CHAT, True),
        (ANY, "/invocations", "/invocations", True),
    ],
)
def test_which_paths_name_the_model(
    rewrite: Rewrite, target: str, sent: str, of_body: bool
) -> None:
    assert Rewriter((), rewrite).target(target.encode()) == (sent.encode(), bool(of_body))


@pytest.mark.parametrize(
    ("rewrite", "body", "sent"),
    [
        (ANY, '{"model": "m", "n": 1.50, "big": 1e400}', '{"model": "m-v2", "n": 1.50, "big": 1e400}'),
        (ANY, ' {"a":[{"model":"m"}],"mod\\u0065l":"m"} ', ' {"a":[{"model":"m"}],"mod\\u0065l":"m-v2"} '),
        (ANY, '{"model":"a","model":"b"}', '{"model":"m-v2","model":"m-v2"}'),
        (ANY, '{"text": "ü\\ud83d", "model": "ü"}', '{"text": "ü\\ud83d", "model": "m-v2"}'),
        (ONE, '{"model": "m"}', '{"model": "org/m-v2:Q4"}'),
        (ONE, '{"model": "other"}', '{"model": "other"}'),
        (BOTH, '{"model_name":"m","model_version":"1"}', '{"model_name":"n","model_version":"2"}'),
        (BOTH, '{"model_name":"m","model_version":1}', '{"model_name":"n","model_version":2}'),
        (SECOND, '{"model":"m","model_version":"1"}', '{"model":"m","model_version":"2"}'),
        (SECOND, '{"model": "m"}', None),
        (ANY, '{"prompt": "m"}', None),
        (ANY, '{"model": 7}', None),
        (ANY, '["model", "m"]', None),
        (ANY, '{"model": "m"} trailing', None),
        (ANY, '{"model": "m",}', None),
        (ANY, '{"model": "m"', None),
        (ANY, "", None),
        (ANY, "[" * 100_000, None),
    ],
)  # fmt: skip
def test_which_bodies_are_rewritten(rewrite: Rewrite, body: str, sent: str | None) -> None:
    rewritten = Rewriter((), rewrite).body(body.encode())
    assert rewritten == (sent.encode() if sent is not None else None)
    if sent is not None:
        assert rewritten is not None
        json.loads(rewritten)


def test_bodies_that_are_not_text_or_are_compressed_are_not_rewritten() -> None:
    rewriter = Rewriter((), ANY)
    assert rewriter.body(b'{"model": "m", "x": "\xff"}') is None
    assert rewriter.body(b'{"model": "m"}', [b"Content-Encoding: gzip"]) is None
    assert rewriter.body(b'{"model": "m"}', [b"content-encoding: identity"]) is not None


def test_headers_that_name_the_model_and_digests() -> None:
    lines = [
        b"Seldon-Model: m", b"X-Model-Version: 1", b"Content-Digest: sha-256=:x:", b"Digest: y",
        b"Content-MD5: z", b"Signature-Input: s", b"accept: m",
    ]  # fmt: skip
    assert Rewriter((), BOTH).lines(lines) == [
        b"Seldon-Model: n", b"X-Model-Version: 2", b"accept: m",
    ]  # fmt: skip
    assert Rewriter((), BOTH).wants_body(b"/invocations", lines) is False
    assert Rewriter((), BOTH).wants_body(b"/invocations", [b"accept: m"]) is True
    assert Rewriter([(b"/a", b"/b")], None).lines(lines) == lines


def field(number: int, value: bytes) -> bytes:
    assert len(value) < 128
    return bytes((number << 3 | 2, len(value))) + value


def framed(*messages: bytes) -> bytes:
    return b"".join(b"\0" + len(one).to_bytes(4, "big") + one for one in messages)


def test_messages_of_grpc() -> None:
    rest = field(3, b"id") + field(5, field(1, b"x") + field(2, b"FP32")) + b"\x38\x96\x01"
    message = field(1, b"m") + field(2, b"1") + rest
    assert Rewriter((), BOTH).grpc(framed(message)) == framed(
        field(1, b"n") + field(2, b"2") + rest
    )
    assert Rewriter((), ANY).grpc(framed(message)) == framed(
        field(1, b"m-v2") + field(2, b"1") + rest
    )
    assert Rewriter((), SECOND).grpc(framed(field(1, b"m") + rest)) == framed(
        field(1, b"m") + field(2, b"2") + rest
    )
    # Several messages; the last of repeated fields counts, wherever it is.
    twice = field(1, b"other") + rest + field(1, b"m")
    one = Rewriter((), Rewrite((("m", "n"),)))
    assert one.grpc(framed(twice, message)) == framed(
        field(1, b"n") + rest, field(1, b"n") + field(2, b"1") + rest
    )
    assert one.grpc(framed(field(1, b"other") + rest)) == framed(field(1, b"other") + rest)
    # The length of a longer name takes two bytes.
    name = "n" * 200
    assert Rewriter((), Rewrite((("*", name),))).grpc(framed(field(1, b"m"))) == framed(
        b"\x0a\xc8\x01" + name.encode()
    )


@pytest.mark.parametrize(
    "frames",
    [
        framed(field(1, b"m"))[:-1],
        b"\x01" + framed(field(1, b"m"))[1:],
        framed(field(3, b"m")),
        framed(b"\x0a\x05m"),
        framed(b"\x08\x01"),
        framed(b"\x0b"),
        framed(field(1, b"\xff")),
        framed(b"\x00\x01"),
        framed(b"\xff" * 11),
        b"\0\0",
    ],
)
def test_messages_that_cannot_be_rewritten(frames: bytes) -> None:
    assert Rewriter((), ANY).grpc(frames) is None


# Over sockets -----------------------------------------------------------------------------------


def config_of(port: int, rewrite: str) -> str:
    return f"""
version: 1
listen: 127.0.0.1:0
capture: {{max_body: 4KiB}}
models: [{{name: m, paths: [{CHAT}, /v2/models/m/infer]}}]
champion: {{url: 'http://127.0.0.1:{port}'}}
challengers:
  - {{name: candidate, url: 'http://127.0.0.1:{port}', rewrite: {rewrite}}}
experiments:
  - {{name: e, challengers: [candidate], metrics: [{{metric: error_rate, margin: 1 pp}}]}}
"""


def plan_of(port: int, rewrite: str) -> Plan:
    return compile_plan(parse(config_of(port, rewrite), "test", Path("/")), 1)


@pytest.mark.anyio
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
async def test_a_mirrored_request_asks_for_the_other_model(chunked: bool) -> None:
    server = await Server(OK).start()
    body = b'{"model": "m", "n": 1.50}'
    digest = b"Content-Digest: sha-256=:x:"
    raw = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked else body
    framing = b"Transfer-Encoding: chunked" if chunked else None
    async with sidecar(plan_of(server.port, "{model: m-v2}")) as side:
        assert (await side.ask(post(raw, digest, path=CHAT, framing=framing))).status == 200
        await side.until(lambda: outcomes(side) == {"ok": 1})
    champion, challenger = server.seen
    assert (champion.raw_body, champion.header("content-digest")) == (raw, b"sha-256=:x:")
    assert challenger.body == b'{"model": "m-v2", "n": 1.50}'
    assert challenger.header("content-length") == b"%d" % len(challenger.body)
    assert challenger.header("content-digest") is challenger.header("transfer-encoding") is None


@pytest.mark.anyio
async def test_a_request_whose_model_cannot_be_replaced_is_counted_and_not_sent() -> None:
    server = await Server(OK).start()
    large = b'{"model": "m", "pad": "%b"}' % (b"x" * 8000)
    async with sidecar(plan_of(server.port, "{model: m-v2}")) as side:
        for body, *lines in (
            (b"\0\1\2", b"Content-Type: application/octet-stream"),
            (b'{"prompt": "m"}',),
            (b'{"model": "m"}', b"Content-Encoding: gzip"),
            (large,),
        ):
            assert (await side.ask(post(body, *lines, path=CHAT))).status == 200
        await side.until(lambda: outcomes(side) == {"not_rewritten": 4})
        # Where the path says it, the body may be anything, and of any size.
        for body in (b"\0\1\2", b"\0" * 8000):
            assert (await side.ask(post(body))).status == 200
        await side.until(lambda: len(server.seen) == 8)
    targets = [message.first.split(b" ")[1] for message in server.seen]
    assert targets.count(b"/v2/models/m-v2/infer") == 2
    assert targets.count(CHAT.encode()) == 4


@pytest.mark.anyio
async def test_version_2_of_one_server_and_an_adapter_by_name() -> None:
    server = await Server(OK).start()
    async with sidecar(plan_of(server.port, "{version: 2}")) as side:
        await side.ask(post(b"\0\1"))
        await side.until(lambda: len(server.seen) == 2)
    assert server.seen[1].first == b"POST /v2/models/m/versions/2/infer HTTP/1.1"
    server.seen.clear()
    async with sidecar(plan_of(server.port, "{model: {m: adapter-b}}")) as side:
        for name in (b"m", b"other"):
            await side.ask(post(b'{"model": "%b"}' % name, path=CHAT))
        await side.until(lambda: len(server.seen) == 4)
    assert sorted(message.body for message in server.seen) == [
        b'{"model": "adapter-b"}', b'{"model": "m"}', b'{"model": "other"}', b'{"model": "other"}',
    ]  # fmt: skip


@pytest.mark.anyio
@pytest.mark.parametrize("arm", [0, 1])
async def test_a_challenger_that_serves_is_asked_for_its_model(arm: int) -> None:
    def chat(plan: Plan) -> Plan:
        return replace(plan, models=(Model("m", "1", "auto", (CHAT,)),))

    async with divided(chat, serving={"rewrite": ANY}) as bench:
        unit = b"x-request-id: " + unit_of(arm)
        body = b'{"model": "m", "n": 1}'
        answer, record = await bench.record(post(body, unit, path=CHAT))
        assert (answer.body, record.arm, record.assigned) == (NAMES[arm], arm, arm + 1)
        assert record.request_body == body
        (seen,) = (bench.champion, bench.other)[arm].seen
        assert seen.body == (b'{"model": "m-v2", "n": 1}' if arm else body)
        # Neither arm gets evidence of a request that only one of them could be sent.
        answer, record = await bench.record(post(b"not JSON", unit, path=CHAT))
        assert (answer.body, record.arm, record.assigned) == (NAMES[0], 0, 0)
        assert bench.unassigned("not_rewritten") == 1
        assert bench.champion.seen[-1].body == b"not JSON"


@pytest.mark.anyio
async def test_mirrored_calls_of_grpc_ask_for_the_other_model() -> None:
    message = field(1, b"m") + field(5, b"tensor")
    with grpc_server(b"old:") as champion, grpc_server(b"new:") as new:
        upstream = Upstream("candidate", "127.0.0.1", new.port, http2=True, rewrite=BOTH)
        async with sidecar(grpc_plan(champion.port, Challenger(upstream))) as side:
            answer, _, _ = await asyncio.to_thread(call, side.port, message)
            assert answer == b"old:" + message
            await side.until(lambda: outcomes(side) == {"ok": 1})
            await asyncio.to_thread(call, side.port, field(5, b"tensor"))
            await side.until(lambda: outcomes(side) == {"ok": 1, "not_rewritten": 1})
        (seen,) = new.seen
        assert seen[2] == field(1, b"n") + field(2, b"2") + field(5, b"tensor")


# Configuration ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rewrite", "message"),
    [
        ("{}", "give a model, a version, or both"),
        ("{model: 'a b'}", "rewrite.model"),
        ("{version: '2/3'}", "rewrite.version"),
    ],
)
def test_rewrites_that_are_rejected(rewrite: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(config_of(1, rewrite), "test", Path("/"))
    assert message in str(refused.value)


def test_the_champion_is_never_asked_for_another_model() -> None:
    text = config_of(1, "{version: 2}").replace("champion: {", "champion: {rewrite: {version: 2}, ")
    with pytest.raises(ConfigError, match=r"champion\.rewrite"):
        parse(text, "test", Path("/"))


def test_an_experiment_with_another_model_has_another_server() -> None:
    digests = set()
    for rewrite in ("{version: 1}", "{version: 2}", "{model: n}"):
        config = parse(config_of(1, rewrite), "test", Path("/"))
        digests.add(servers_of(config, config.experiments[0])["candidate"])
    assert len(digests) == 3


def test_a_plan_survives_its_way_to_the_workers() -> None:
    plan = plan_of(1, "{model: {m: n}, version: 2}")
    assert Plan.from_json(json.loads(json.dumps(plan_json(plan)))) == plan


# Any input --------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(
    st.dictionaries(st.text(max_size=6), VALUES, max_size=6),
    st.sampled_from(("model", "model_name")),
    st.text(max_size=8),
    st.integers(0, 6),
    st.booleans(),
)
def test_only_the_name_changes_in_any_object(
    others: dict[str, object], key: str, name: str, at: int, ascii_: bool
) -> None:
    members = [one for one in others.items() if one[0] not in ("model", "model_name")]
    members.insert(at, (key, name))
    body = json.dumps(dict(members), ensure_ascii=ascii_, indent=at % 3 or None)
    if any(0xD800 <= ord(sign) <= 0xDFFF for sign in body):
        return
    rewritten = Rewriter((), ANY).body(body.encode())
    assert rewritten is not None
    assert json.loads(rewritten) == {**dict(members), key: "m-v2"}
    # All else is as it was, byte for byte.
    pair = f"{json.dumps(key)}: {json.dumps(name, ensure_ascii=ascii_)}"
    assert rewritten.decode() in {
        body[:begin] + f'{json.dumps(key)}: "m-v2"' + body[begin + len(pair) :]
        for begin in range(len(body))
        if body.startswith(pair, begin)
    }


@given(st.binary(max_size=200))
def test_any_bytes_are_rewritten_or_left_alone(data: bytes) -> None:
    for rewriter in (Rewriter((), BOTH), Rewriter((), ONE)):
        rewriter.body(data)
        rewriter.grpc(data)
        for message in (data, field(1, b"m") + data):
            found = rewriter.grpc(framed(message))
            if found is not None:
                # What is said by the messages is read again.
                assert model_of(found) is not None
