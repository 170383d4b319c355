"""The gate for language models, from its command, against a server that streams with known
delays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.gates import gate, measured, on_one_line, plan
from tests.support.llm_server import LlmServer
from tests.support.llm_streams import SHAPES
from understudy.loadtest.gate.plan import Objectives
from understudy.loadtest.payloads.openai import PATHS, streamed

OPENAI = [one for one in SHAPES if PATHS.search(one.path.partition("?")[0])]
PAYLOADS = """
    payloads:
      path: /v1/chat/completions
      count: 20
      template:
        model: m
        stream: true
        stream_options: {include_usage: true}
        max_tokens: 5
        messages: [{role: user, content: {$text: 12}}]
"""


def test_times_of_streams_are_those_of_the_server(tmp_path: Path) -> None:
    """It sends a role chunk at once, waits 300 ms for the first of 5 tokens, and 50 ms for each
    other one: no time can be shorter than that."""
    text = f"""
    version: 1
    objectives: {{ttft: {{p50: 60s}}, tpot: {{p50: 30s}}, e2e: {{p50: 60s}}}}
    {PAYLOADS}
    stages: [{{name: steady, load: {{rate: 20, seconds: 2}}}}]
    """
    html = tmp_path / "report.html"
    with LlmServer(tmp_path, first=0.3, gap=0.05) as server:
        code, said, result = measured(tmp_path, server.url, text, "--html", html)
    assert code == 0, said
    (stage,) = result["stages"]
    assert [(one["name"], one["said"]) for one in stage["criteria"]] == [
        ("ttft p50", "passed"), ("tpot p50", "passed"), ("e2e p50", "passed")
    ]  # fmt: skip
    streams = stage["streams"]
    assert streams["ttft"]["count"] == stage["load"]["requests"]
    assert streams["ttft"]["p50"] >= 0.3
    assert streams["tpot"]["p50"] >= 0.05
    assert streams["e2e"]["p50"] >= 0.3 + 4 * 0.05
    assert streams["longest_gap"]["p50"] >= 0.05
    assert streams["inter_chunk"]["count"] == 4 * stage["load"]["requests"]
    assert streams["ttfc"]["p50"] <= streams["ttft"]["p50"] - 0.25, "the role chunk is no token"
    assert streams["output_tokens"]["mean"] == 5.0
    assert streams["prompt_tokens"]["mean"] == 12.0
    assert "12 prompt and 5 output tokens in the mean" in said
    assert "first token (ttft)" in html.read_text()


def test_a_queue_counts_from_when_requests_were_due(tmp_path: Path) -> None:
    """One slot of 200 ms and 10 requests per second: the wait for the slot is a part of the time
    to the first token, and grows, so the verdict is that of the tail."""
    text = f"""
    version: 1
    objectives: {{ttft: {{p90: 1s}}}}
    {PAYLOADS}
    engine: {{arrivals: even}}
    stages: [{{name: steady, load: {{rate: 10, seconds: 4}}}}]
    """
    with LlmServer(tmp_path, first=0.2, slots=1) as server:
        code, said, result = measured(tmp_path, server.url, text)
    assert code == 1, said
    assert result["stages"][0]["streams"]["ttft"]["max"] >= 39 * 0.2 - 3.9
    assert "ttft p90: took longer than 1 s" in said


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("error", "an error in the stream"),
        ("truncated", "the stream ended early"),
        ("cut", "closed early"),
    ],
)
def test_a_stream_that_fails_takes_for_ever(tmp_path: Path, bad: str, why: str) -> None:
    """Every second stream fails after its first tokens, which came in time."""
    text = f"""
    version: 1
    objectives: {{ttft: {{p90: 60s}}, goodput: {{ttft: 60s, share: 90 %}}}}
    {PAYLOADS}
    stages: [{{name: steady, load: {{rate: 40, seconds: 3}}}}]
    """
    with LlmServer(tmp_path, bad=bad, every=2, after=1) as server:
        code, said, result = measured(tmp_path, server.url, text)
    assert code == 1, said
    (stage,) = result["stages"]
    assert [one["said"] for one in stage["criteria"]] == ["failed", "failed"]
    assert stage["criteria"][0]["value"] is None, "the percentile is infinite"
    assert why in said
    assert 0.3 < stage["criteria"][1]["value"] < 0.7


def test_a_stall_fails_the_time_per_token(tmp_path: Path) -> None:
    text = f"""
    version: 1
    objectives: {{ttft: {{p90: 60s}}, tpot: {{p90: 100ms}}}}
    {PAYLOADS}
    stages: [{{name: steady, load: {{rate: 40, seconds: 3}}}}]
    """
    with LlmServer(tmp_path, bad="stall", stalled=1.0, every=2, after=1) as server:
        code, said, result = measured(tmp_path, server.url, text)
    assert code == 1, said
    (stage,) = result["stages"]
    said_by = {one["name"]: one["said"] for one in stage["criteria"]}
    assert said_by == {"ttft p90": "passed", "tpot p90": "failed"}
    assert stage["streams"]["longest_gap"]["max"] >= 1.0


def test_no_number_of_tokens_is_made_up(tmp_path: Path) -> None:
    text = f"""
    version: 1
    objectives: {{tpot: {{p90: 60s}}}}
    {PAYLOADS}
    stages: [{{name: steady, load: {{rate: 40, seconds: 2}}}}]
    """
    with LlmServer(tmp_path, usage=False) as server:
        code, said, result = measured(tmp_path, server.url, text)
    assert code == 1, said
    assert "told no number of tokens: ask for stream_options.include_usage" in said
    assert result["stages"][0]["streams"]["output_tokens"]["known"] == 0


def test_answers_that_are_not_streamed_have_no_first_token(tmp_path: Path) -> None:
    text = f"""
    version: 1
    objectives: {{ttft: {{p90: 60s}}}}
    {PAYLOADS.replace("stream: true", "stream: false")}
    stages: [{{name: steady, load: {{rate: 40, seconds: 2}}}}]
    """
    with LlmServer(tmp_path) as server:
        code, said, result = measured(tmp_path, server.url, text)
    assert code == 1, said
    assert "had no output: send stream: true" in said
    assert result["stages"][0]["streams"]["ttft"]["count"] == 0


def test_a_plan_for_another_protocol_is_refused_before_it_runs(tmp_path: Path) -> None:
    text = """
    version: 1
    objectives: {ttft: {p50: 1s}}
    payloads: {path: /invocations, template: {inputs: [1]}}
    stages: [{name: steady, load: {rate: 10, seconds: 1}}]
    """
    found = gate("--target", "http://127.0.0.1:1", "--plan", plan(tmp_path, text), "--check")
    assert found.exit_code == 2
    assert "set checks.format: openai" in on_one_line(found.output)


def test_presets_are_mlperf_s(tmp_path: Path) -> None:
    text = f"""
    version: 1
    objectives: {{preset: llama2-70b-interactive}}
    {PAYLOADS}
    stages: [{{name: steady, load: {{rate: 10, seconds: 100}}}}]
    """
    found = gate("--target", "http://127.0.0.1:1", "--plan", plan(tmp_path, text), "--check")
    assert found.exit_code == 0, found.output
    assert "ttft p99: at most 450ms" in found.output
    assert "tpot p99: at most 40ms" in found.output
    own = Objectives.model_validate(
        {"preset": "mixtral-8x7b", "goodput": {"share": "95 %"}, "ttft": {"p50": "1s"}}
    )
    assert own.good_limits() == {"ttft": 2.0, "tpot": 0.2}
    assert own.stream_percentiles() == {"ttft": {0.5: 1.0}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{goodput: {share: 90 %}}", "goodput: give at least one of ttft, tpot and e2e"),
        ("{goodput: {ttft: 1s}}", "give share, rate or both"),
        ("{preset: llama9}", "is not one of"),
        ("{ttft: {p42: 1s}}", "ttft.p42"),
    ],
)
def test_errors_of_objectives_name_the_key(tmp_path: Path, text: str, said: str) -> None:
    text = f"objectives: {text}\nstages: [{{name: s, load: {{rate: 1}}}}]"
    found = gate("--target", "http://127.0.0.1:1", "--plan", plan(tmp_path, text), "--check")
    assert (found.exit_code, said in found.output) == (2, True), found.output


@pytest.mark.parametrize("shape", OPENAI, ids=lambda shape: shape.name)
def test_recorded_streams_are_read_at_every_split(shape: Any) -> None:
    """A time is that of the piece that completes the event."""
    whole = streamed([shape.body], [7])
    assert (whole.error == "") == (shape.outcome == "ok"), whole.error
    if shape.outcome == "ok":
        assert whole.stream.first_token == whole.stream.last_token == 7.0
        assert len(whole.gaps) == len(shape.output) - 1
    for cut in range(1, len(shape.body)):
        found = streamed([shape.body[:cut], shape.body[cut:]], [1, 2])
        assert found.error == whole.error
        assert found.stream.output_tokens == pytest.approx(whole.stream.output_tokens, nan_ok=True)


def test_a_slower_first_token_is_a_regression(tmp_path: Path) -> None:
    """The whole answers take about as long in both: the second server is slow to begin, and quick
    after it."""
    text = f"""
    version: 1
    objectives: {{preset: llama3.1-405b}}
    {PAYLOADS}
    stages: [{{name: steady, load: {{rate: 20, seconds: 2}}, judged: false}}]
    """
    results = []
    for first, gap in ((0.1, 0.4), (1.6, 0.02)):
        with LlmServer(tmp_path, first=first, gap=gap) as server:
            _, said, result = measured(tmp_path, server.url, text, "--no-verdict")
        result["stages"][0]["verdict"] = "passed"  # not a warm-up
        path = tmp_path / f"{first}.json"
        path.write_text(json.dumps(result))
        results.append(path)
    found = gate("compare", *results, "--json")
    by_figure = {one["figure"]: one["said"] for one in json.loads(found.stdout)}
    assert (found.exit_code, by_figure["ttft p50"]) == (1, "worse"), said
    assert by_figure["tpot p50"] == "better"
    assert by_figure["ttft p99"] == "cannot be told", "of 40 requests"
