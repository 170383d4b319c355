"""URLs of model servers over HTTP/2, from the file to the plan of a worker."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
from pydantic import ValidationError

from understudy.monitor.config.checks import problems_of
from understudy.monitor.config.compile import compile_plan
from understudy.monitor.config.model import Config


def config(**champion: Any) -> Config:
    return Config.model_validate(
        {
            "version": 1,
            "listen": "127.0.0.1:8080",
            "models": [{"name": "m"}],
            "champion": champion,
        }
    )


@pytest.mark.parametrize(
    ("champion", "http2", "tls", "port"),
    [
        ({"url": "http://a:8001"}, False, False, 8001),
        ({"url": "http://a:8001", "http2": True}, True, False, 8001),
        ({"url": "h2c://a"}, True, False, 80),
        ({"url": "GRPC://a:8001/x"}, True, False, 8001),
        ({"url": "grpcs://a"}, True, True, 443),
        ({"url": "grpcs://a", "tls": {"verify": False}}, True, True, 443),
        ({"url": "https://a", "http2": True}, True, True, 443),
        ({"url": "https://a"}, False, True, 443),
        ({"url": "unix:/run/m.sock", "http2": True}, True, False, 80),
    ],
)
def test_scheme_and_option_reach_the_plan(
    champion: dict[str, Any], http2: bool, tls: bool, port: int
) -> None:
    upstream = compile_plan(config(**champion), 1).champion
    assert (upstream.http2, upstream.tls is not None, upstream.port) == (http2, tls, port)


@pytest.mark.parametrize(
    "champion",
    [
        {"url": "grpc://a", "tls": {"verify": False}},
        {"url": "grpc://a", "http2": False},
        {"url": "grpc:a"},
        {"url": "h2c://user:secret@a"},
        {"url": "http3://a"},
    ],
)
def test_what_contradicts_itself_is_an_error(champion: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as raised:
        config(**champion)
    assert "secret" not in raised.value.errors()[0]["msg"]


def test_without_the_package_the_check_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "ngh2" else found(name)
    )
    problems = [
        text for where, text in problems_of(config(url="grpc://a")) if where == "champion.url"
    ]
    assert problems
    assert "pip install ngh2" in problems[0]
    assert not [w for w, _ in problems_of(config(url="http://a")) if w == "champion.url"]


def test_calls_of_the_protocol_are_inference_requests_by_default() -> None:
    (model,) = compile_plan(config(url="grpc://a"), 1).models
    assert "/inference.GRPCInferenceService/ModelInfer" in model.paths
    assert "/inference.GRPCInferenceService/ModelStreamInfer" in model.paths
