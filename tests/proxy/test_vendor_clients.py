"""OpenAI's, Anthropic's and Ollama's own Python clients get through the sidecar what they get
directly: whole answers and streams, tool calls, errors before and within an answer, streams that
they leave. And the sidecar counts what happened."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.llm_clients import READ
from tests.support.patience import eventually, patient
from tests.support.service import REAL, Service
from tests.support.vendor_server import ARGUMENTS, WORDS, LanguageModelServer
from tools.parts.servers import need_server

pytestmark = pytest.mark.integration
SCRIPT = Path(__file__).parents[1] / "support" / "llm_clients.py"
PATHS = {
    "openai": ["/v1/chat/completions", "/v1/responses", "/v1/embeddings"],
    "anthropic": ["/v1/messages"],
    "ollama": ["/api/chat", "/api/embed"],
}
COUNTED = {
    "openai": {"stream_error": 2, "truncated": 1, "model_overload": 4, "client_error": 4},
    "anthropic": {"stream_error": 2, "truncated": 2, "model_overload": 3, "client_error": 3},
    "ollama": {"stream_error": 1, "truncated": 1, "model_overload": 2, "client_error": 2},
}
"""By vendor, requests by outcome that the client's calls lead to; and it leaves one stream."""


@pytest.fixture(scope="module")
def server() -> Iterator[LanguageModelServer]:
    with LanguageModelServer() as made:
        yield made


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, server: LanguageModelServer
) -> Iterator[Service]:
    need_server("llm-clients")
    with LanguageModelServer() as other:
        config: dict[str, Any] = {
            "workers": 1,
            "models": [{"name": name, "paths": paths} for name, paths in PATHS.items()],
            "champion": {"name": "champion", "url": server.url},
            # What is mirrored must not show at the client.
            "challengers": [{"name": "candidate", "url": other.url, "mirror": {"rate": 1.0}}],
        }
        with Service(tmp_path_factory.mktemp("vendors"), REAL, **config) as made:
            yield made


def answers(vendor: str, url: str) -> dict[str, Any]:
    """What the vendor's client returned or raised, by case."""
    python = need_server("llm-clients") / "python"
    done = subprocess.run(
        [python, SCRIPT, vendor, url], capture_output=True, text=True, timeout=patient(120)
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def outcomes(service: Service, model: str) -> dict[str, int]:
    """Requests of clients for a model, by outcome."""
    found: dict[str, int] = {}
    text = httpx.get(service.control + "/metrics", timeout=patient(30)).text
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = sample.labels
            if (
                sample.name == "understudy_requests_total"
                and (labels["model"], labels["role"]) == (model, "primary")
                and sample.value
            ):
                found[labels["outcome"]] = found.get(labels["outcome"], 0) + int(sample.value)
    return found


@pytest.mark.parametrize("vendor", list(PATHS))
def test_a_vendors_client_sees_no_difference(
    vendor: str, service: Service, server: LanguageModelServer
) -> None:
    direct = answers(vendor, server.url)
    left = server.left
    through = answers(vendor, service.url)
    assert through.keys() == direct.keys()
    for case, expected in direct.items():
        assert through[case] == expected, case
    assert len(through["left"]) == READ
    eventually(lambda: server.left > left, "the model server sees that the client left")
    wanted = {**COUNTED[vendor], "cancelled": 1}
    eventually(lambda: {k: v for k, v in outcomes(service, vendor).items() if k != "ok"} == wanted)


def test_the_cases_are_what_they_are_called(server: LanguageModelServer) -> None:
    """Answers that are equal because all of them failed would prove nothing."""
    text = "".join(WORDS)
    openai = answers("openai", server.url)
    assert openai["chat text"]["choices"][0]["message"]["content"] == text
    pieces = [
        choice["delta"]["content"] or ""
        for event in openai["chat text streamed"]
        for choice in event["choices"]
    ]
    assert "".join(pieces) == text
    assert openai["chat text streamed"][-1]["usage"]["completion_tokens"] == 5
    (call,) = openai["chat tools"]["choices"][0]["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == ARGUMENTS
    assert openai["chat refused"]["error"] == "RateLimitError"
    assert openai["chat invalid streamed"][0]["error"] == "BadRequestError"
    assert openai["chat broken streamed"][-1]["error"] == "APIError"
    assert openai["responses text streamed"][-1]["type"] == "response.completed"
    assert openai["embeddings"]["data"][0]["embedding"] == [0.25, -0.5]
    anthropic = answers("anthropic", server.url)
    assert anthropic["messages text gathered"]["content"][0]["text"] == text
    assert anthropic["messages tools gathered"]["content"][0]["input"] == ARGUMENTS
    assert anthropic["messages broken gathered"]["type"] == "overloaded_error"
    assert anthropic["messages refused"]["status_code"] == 429
    ollama = answers("ollama", server.url)
    assert ollama["chat text"]["message"]["content"] == text
    assert ollama["chat tools streamed"][0]["message"]["tool_calls"][0]["function"][
        "arguments"
    ] == (ARGUMENTS)
    assert ollama["chat broken streamed"][-1]["error"] == "ResponseError"
