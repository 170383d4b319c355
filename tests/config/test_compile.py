"""The plan says what the configuration means, and survives its trip to the worker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.certificates import self_signed
from tests.support.specimen import SPECIMEN
from understudy.common.grpc_messages import INFER
from understudy.monitor.config.compile import (
    compile_plan,
    default_paths,
    paths_of,
    plan_json,
    worker_count,
)
from understudy.monitor.config.load import parse
from understudy.monitor.config.model import OWN_HEADERS, Config, Model
from understudy.monitor.routing.plan import Breaker, ListenTls, Plan


def plan(text: str, generation: int = 1) -> Plan:
    return compile_plan(parse(text, "f.yaml", Path("/base")), generation)


def test_everything_in_the_file_reaches_the_plan() -> None:
    compiled = plan(SPECIMEN, 7)
    assert compiled.generation == 7
    assert compiled.arms == ("champion", "candidate", "plain")
    champion = compiled.champion
    assert (champion.host, champion.port, champion.path_prefix) == ("models.example", 443, "/base")
    assert champion.tls is not None
    assert (champion.tls.verify, champion.tls.server_name) == (False, "inner")
    assert champion.host_header == "models.internal"
    assert (champion.connect_timeout, champion.first_byte_timeout) == (0.5, 10.0)
    assert (champion.total_timeout, champion.idle_timeout) == (120.0, 3.0)
    assert (champion.max_connections, champion.max_waiting) == (7, 8)
    candidate, plain = compiled.challengers
    assert (candidate.upstream.host, candidate.upstream.port) == ("127.0.0.1", 8082)
    assert candidate.upstream.path_prefix == "/prefix"
    assert candidate.upstream.headers == (("x-env", "shadow"),)
    assert (candidate.upstream.max_connections, candidate.upstream.max_waiting) == (4, 9)
    assert candidate.upstream.connect_timeout == 1.0
    assert (candidate.rate, candidate.timeout) == (0.25, 1.0)
    assert (candidate.queue_requests, candidate.queue_bytes) == (9, 1024**2)
    assert candidate.max_response_bytes == 2048
    assert candidate.breaker == Breaker(3, 1.0, 9.0, 1)
    assert (plain.upstream.port, plain.upstream.tls) == (80, None)
    assert compiled.models[1].paths == ("/score/*",)
    assert compiled.capture.max_body_bytes == 1024
    assert compiled.capture.headers == ("x-segment",)
    assert (compiled.limits.head_bytes, compiled.limits.target_bytes) == (4096, 1024)
    assert (compiled.limits.connections, compiled.limits.header_timeout) == (5, 1.0)
    assert (compiled.limits.keepalive_timeout, compiled.limits.drain_timeout) == (2.0, 3.0)
    assert compiled.handoff.max_bytes == 1024**2


def test_mirrored_requests_carry_the_challengers_host_and_others_the_clients() -> None:
    compiled = plan(SPECIMEN.replace("  host: models.internal\n", ""))
    assert compiled.champion.host_header is None
    assert compiled.challengers[0].upstream.host_header == "127.0.0.1:8082"
    assert compiled.challengers[1].upstream.host_header == "named.example"


@pytest.mark.parametrize(
    ("url", "host", "port", "secure", "prefix"),
    [
        ("http://h", "h", 80, False, ""),
        ("http://h/", "h", 80, False, ""),
        ("HTTPS://H.example", "h.example", 443, True, ""),
        ("https://h:8443/a/b/", "h", 8443, True, "/a/b"),
        ("http://[::1]:8081", "::1", 8081, False, ""),
        ("http://10.0.0.1:1/%7Ex", "10.0.0.1", 1, False, "/%7Ex"),
    ],
)
def test_urls(url: str, host: str, port: int, secure: bool, prefix: str) -> None:
    text = f'version: 1\nlisten: "a:1"\nmodels: [{{name: m}}]\nchampion: {{url: "{url}"}}\n'
    champion = plan(text).champion
    assert (champion.host, champion.port, champion.path_prefix) == (host, port, prefix)
    assert (champion.tls is not None) is secure


@pytest.mark.parametrize(
    ("url", "socket", "prefix"),
    [
        ("unix:/run/model.sock", "/run/model.sock", ""),
        ("unix:/run/model.sock:/", "/run/model.sock", ""),
        ("unix:/run/model.sock:/a/b/", "/run/model.sock", "/a/b"),
        ("unix:model.sock", "/base/model.sock", ""),
    ],
)
def test_urls_of_unix_sockets(url: str, socket: str, prefix: str) -> None:
    server = f'{{name: n, url: "{url}"}}'
    text = f'version: 1\nlisten: "a:1"\nmodels: [{{name: m}}]\nchampion: {server}\n'
    compiled = plan(text + f"challengers: [{server.replace('n,', 'o,')}]\n")
    champion = compiled.champion
    assert (champion.socket, champion.path_prefix) == (socket, prefix)
    assert (champion.tls, champion.host_header) == (None, None)
    assert compiled.challengers[0].upstream.host_header == "localhost"


def test_connections_names_and_certificates(tmp_path: Path) -> None:
    self_signed(tmp_path, "a", "h")
    own = "{certificate: a.pem, key: a.key}"
    text = f"""
version: 1
listen: {{address: "a:1", tls: {{certificate: a.pem, key: a.key, client_ca: a.pem}}}}
models: [{{name: m, retry: true}}, {{name: n}}]
champion: {{url: "https://h", max_age: 1m, resolve: 2s, keepalive: 9s, tls: {own}}}
challengers: [{{name: c, url: "https://h", max_age: 30s, resolve: 3s, tls: {own}}}]
"""
    compiled = compile_plan(parse(text, "f.yaml", tmp_path), 1)
    chain, key = str(tmp_path / "a.pem"), str(tmp_path / "a.key")
    assert compiled.tls == ListenTls(chain, key, chain)
    assert [model.retry for model in compiled.models] == [True, False]
    serving = compiled.challengers[0].serving
    assert serving is not None
    for upstream, times in (
        (compiled.champion, (60.0, 2.0, 9.0)),
        (serving, (30.0, 3.0, 0.0)),
        (compiled.challengers[0].upstream, (30.0, 3.0, 0.0)),
    ):
        assert (upstream.max_age, upstream.resolve_every, upstream.keepalive) == times
        assert upstream.tls is not None
        assert (upstream.tls.certificate, upstream.tls.key) == (chain, key)
    assert Plan.from_json(json.loads(json.dumps(plan_json(compiled)))) == compiled


def test_the_usual_paths_of_a_model() -> None:
    assert plan(SPECIMEN).models[0].paths == tuple(default_paths("delays"))
    assert default_paths("m") == [
        "/v2/models/m/infer",
        "/v2/models/m/versions/*/infer",
        "/v1/models/m:predict",
        "/v1/models/m:classify",
        "/v1/models/m:regress",
        "/v1/models/m/versions/*:predict",
        "/v1/models/m/versions/*:classify",
        "/v1/models/m/versions/*:regress",
        "/invocations",
        "/inference.GRPCInferenceService/ModelInfer",
        "/inference.GRPCInferenceService/ModelStreamInfer",
    ]
    assert default_paths("m", "torchserve")[-2:] == ["/predictions/m", "/predictions/m/*"]
    assert "/api/v1.0/predictions" in default_paths("m", "seldon-v1")


def test_models_that_are_not_listed_have_the_paths_that_name_a_model() -> None:
    every = paths_of(Model.model_validate({"match": "*"}))
    assert {"/v2/models/*/infer", "/v1/models/*:predict", "/v1/chat/completions"} <= set(every)
    assert {"/v2/models/*/generate", "/api/chat", INFER} <= set(every)
    assert not {"/invocations", "/generate", "/predict"} & set(every)
    assert len(every) == len(set(every))
    chat = paths_of(Model.model_validate({"match": "*", "protocol": "openai-chat"}))
    assert "/chat/completions" in chat
    assert "/api/chat" not in chat
    assert paths_of(Model.model_validate({"match": "*", "paths": ["/a/*"]})) == ["/a/*"]


def test_the_usual_paths_may_be_written_out() -> None:
    paths = json.dumps(default_paths("m"))
    text = f'version: 1\nlisten: "a:1"\nmodels: [{{name: m, paths: {paths}}}]\n'
    assert plan(text + "champion: {url: 'http://h'}\n").models[0].paths == tuple(default_paths("m"))


def test_workers() -> None:
    config = parse(SPECIMEN, "f.yaml", Path("/"))
    assert worker_count(config) == 3
    assert 1 <= worker_count(config.model_copy(update={"workers": "auto"})) <= 4


fraction = st.floats(0, 1, allow_nan=False)
duration = st.floats(0.001, 3600).map("{}s".format)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
header_names = names.filter(lambda name: name.lower() not in OWN_HEADERS)


@st.composite
def upstreams(draw: st.DrawFn, name: str) -> dict[str, Any]:
    scheme = draw(st.sampled_from(["http", "https"]))
    data: dict[str, Any] = {
        "name": name,
        "url": f"{scheme}://h:{draw(st.integers(1, 65535))}{draw(st.sampled_from(['', '/p']))}",
        "idle": draw(duration),
        "headers": draw(st.dictionaries(header_names, st.sampled_from(["x", "a b"]), max_size=2)),
    }
    if scheme == "https":
        data["tls"] = {"verify": draw(st.booleans()), "server_name": draw(st.none() | names)}
    return data


@st.composite
def configurations(draw: st.DrawFn) -> Config:
    arms = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    models = draw(st.lists(names, min_size=1, max_size=3, unique=True))
    return Config.model_validate(
        {
            "version": 1,
            "listen": "127.0.0.1:0",
            "models": [{"name": name} for name in models],
            "champion": {
                **draw(upstreams(arms[0])),
                "timeouts": {"connect": draw(duration), "total": draw(duration)},
            },
            "challengers": [
                {**draw(upstreams(arm)), "mirror": {"rate": draw(fraction)}} for arm in arms[1:]
            ],
            "capture": {"headers": draw(st.lists(names, max_size=2))},
            "limits": {"drain": draw(duration), "head": draw(st.integers(1024, 61440))},
        }
    )


# The proxy's own headers are not valid in the configuration; the strategy never draws one.
@given(configurations(), st.integers(1, 2**40))
def test_a_plan_survives_the_trip_through_json(config: Config, generation: int) -> None:
    compiled = compile_plan(config, generation)
    assert Plan.from_json(json.loads(json.dumps(plan_json(compiled)))) == compiled


@given(configurations())
def test_a_configuration_survives_the_trip_to_the_evaluation_plane(config: Config) -> None:
    dumped = json.loads(json.dumps(config.model_dump(mode="json", by_alias=True)))
    assert Config.model_validate(dumped) == config


def test_a_plan_of_another_shape_is_refused() -> None:
    data = plan_json(plan(SPECIMEN))
    with pytest.raises(TypeError, match="unknown"):
        Plan.from_json({**data, "surprise": 1})
