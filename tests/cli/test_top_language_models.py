"""What a user sees of a language model that runs behind ``understudy serve``: ``understudy top``,
the API, and the model's page."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.patience import eventually, patient
from tests.support.service import REAL, ROOT, Service
from tests.support.vendor_server import LanguageModelServer

PATH = "/v1/chat/completions"
GOOD, CUT, BROKEN = 12, 3, 2


def top(service: Service, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "understudy", "top", "--url", service.control, *words],
        capture_output=True, text=True, cwd=ROOT, timeout=patient(60),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("llm")
    with LanguageModelServer() as server:
        config: dict[str, Any] = {
            "workers": 1,
            "models": [
                {
                    "name": "chat",
                    "paths": [PATH],
                    "goodput": {"ttft": "1h", "tpot": "1h"},
                    "cost": {"prompt": 1.0, "output": 2.0},
                }
            ],
            "champion": {"name": "champion", "url": server.url},
        }
        with Service(folder, REAL, **config) as service:
            with httpx.Client(base_url=service.url, timeout=patient(30)) as client:
                models = ["text"] * GOOD + ["cut"] * CUT + ["broken"] * BROKEN
                for model in models:
                    body = {"model": model, "stream": True, "messages": []}
                    assert client.post(PATH, json=body).status_code == 200
            yield service


def row(service: Service) -> dict[str, Any]:
    """The model's row of `/v1/arms`, once all answers are in it."""

    def whole() -> Any:
        (arm,) = httpx.get(service.control + "/v1/arms", timeout=patient(30)).json()["arms"]
        (one,) = arm["language_models"]
        counted = one["answers"], one["truncated"], one["stream_error"]
        return one if counted == (GOOD, CUT, BROKEN) else None

    found: dict[str, Any] = eventually(whole)
    return found


def test_the_api_top_and_the_page_show_the_same_model(service: Service) -> None:
    one = row(service)
    assert (one["model"], one["arm"]) == ("chat", "champion")
    assert 0 < one["ttft"]["p50"] <= one["ttft"]["p99"]
    assert 0 < one["tpot"]["p50"] <= one["tpot"]["p99"]
    assert one["finish_reasons"] == {"stop": GOOD}
    # Streams that broke are not good.
    assert one["goodput"]["share"] == pytest.approx(GOOD / (GOOD + CUT + BROKEN))
    assert one["output_tokens_per_second"] * one["window_seconds"] == pytest.approx(GOOD * 5)
    assert one["prompt_tokens_per_second"] * one["window_seconds"] == pytest.approx(GOOD * 9)
    cost = GOOD * (9 * 1.0 + 5 * 2.0) / 1e6
    assert one["cost_per_hour"] * one["window_seconds"] / 3600 == pytest.approx(cost)

    status = json.loads(top(service, "--json"))
    (arm,) = status["arms"]
    assert arm["language_models"][0]["finish_reasons"] == {"stop": GOOD}
    shown = top(service, "--once")
    assert "ttft p50" in shown
    assert f"chat on champion, 1 min: finish reasons stop {GOOD}" in shown
    assert f"stream error {BROKEN}; truncated {CUT}" in shown
    assert "(70.6 %)" in shown

    page = httpx.get(service.control + "/?model=chat", timeout=patient(30)).text
    section = page.partition('<section id="tokens">')[2].partition("</section>")[0]
    for text in (
        "Tokens in the last minute",
        "champion",
        f"stop {GOOD}",
        f">{BROKEN}<",
        f">{CUT}<",
        "70.6",
    ):
        assert text in section
