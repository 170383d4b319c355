"""Load for language models from the gate's command: arrivals in bursts, traces, lengths, shared
prefixes, sessions and clients that leave, as the server receives them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.gates import gate, measured, on_one_line, plan
from tests.support.llm_server import LlmServer
from tests.support.load_server import written
from understudy.common.http2 import AVAILABLE, INSTALL
from understudy.loadtest.engine.arrivals import Piece, Profile
from understudy.loadtest.engine.pool import Open
from understudy.loadtest.errors import PlanError
from understudy.loadtest.payloads.traces import Traced, read_trace

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,37,4
2023-11-16 18:15:46.9805900,8,2
2023-11-16 18:15:47.1805900,21,3
"""
MOONCAKE = """{"timestamp": 0, "input_length": 600, "output_length": 3, "hash_ids": [0, 1]}
{"timestamp": 250, "input_length": 530, "output_length": 2, "hash_ids": [0, 2]}
{"timestamp": 500, "input_length": 40, "output_length": 4, "hash_ids": [3]}
"""
BURST_GPT = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,37,4,41,Conversation log
5,ChatGPT,8,0,8,Conversation log
6,GPT-4,21,3,24,API log
"""
LENGTHS = [(37, 4), (8, 2), (21, 3)]


def messages(request: dict[str, Any]) -> list[dict[str, str]]:
    found: list[dict[str, str]] = request["messages"]
    return found


def size(text: str) -> int:
    return len(text.split())


@pytest.mark.parametrize("processes", [1, 2, 5])
@pytest.mark.parametrize("burstiness", [0.25, 1.0, 16.0])
def test_gamma_arrivals_are_those_of_one_process_whatever_their_number(
    processes: int, burstiness: float
) -> None:
    load = Open(Profile((Piece(200.0, 100.0, 100.0),)), kind="gamma", seed=7, burstiness=burstiness)
    one = np.concatenate(list(load.share(0, 1)))
    shares = [np.concatenate(list(load.share(k, processes))) for k in range(processes)]
    assert np.array_equal(np.sort(np.concatenate(shares)), one)
    assert all(abs(len(part) - len(one) / processes) <= 1 for part in shares)
    gaps = np.diff(one)
    spread = gaps.std() / gaps.mean()
    assert spread == pytest.approx(burstiness**-0.5, rel=0.05)
    assert len(one) == pytest.approx(20_000, rel=0.06)


def test_burstiness_belongs_to_gamma(tmp_path: Path) -> None:
    for engine in ("{arrivals: gamma}", "{burstiness: 0.5}"):
        text = (
            f"engine: {engine}\nobjectives: {{p50: 1s}}\nstages: [{{name: s, load: {{rate: 1}}}}]"
        )
        found = gate("--target", "http://127.0.0.1:1", "--plan", plan(tmp_path, text), "--check")
        assert (found.exit_code, "go together" in on_one_line(found.output)) == (2, True), (
            found.output
        )


@pytest.mark.parametrize(
    ("text", "name", "rows"),
    [
        (AZURE, "azure.csv", [(0.0, 37, 4), (0.3, 8, 2), (0.5, 21, 3)]),
        (MOONCAKE, "mooncake.jsonl", [(0.0, 600, 3), (0.25, 530, 2), (0.5, 40, 4)]),
        (BURST_GPT, "burst.csv", [(0.0, 37, 4), (0.0, 8, 1), (1.0, 21, 3)]),
    ],
    ids=["azure", "mooncake", "burstgpt"],
)
def test_traces_are_read(
    tmp_path: Path, text: str, name: str, rows: list[tuple[float, int, int]]
) -> None:
    found = read_trace(written(tmp_path, name, text), 100)
    start = found[0].at
    assert [(one.input_tokens, one.output_tokens) for one in found] == [row[1:] for row in rows]
    assert [one.at - start for one in found] == pytest.approx([row[0] for row in rows])
    assert len(read_trace(tmp_path / name, 2)) == 2
    broken = written(tmp_path, "broken" + name, text + "x,y\n")
    with pytest.raises(PlanError, match="line"):
        read_trace(broken, 100)


def test_a_trace_of_another_kind_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", "a,b\n1,2\n")
    with pytest.raises(PlanError, match="not a trace of language models"):
        read_trace(path, 5)
    assert Traced(0.0, 1, 1).blocks == ()


@pytest.mark.parametrize("text", [AZURE, MOONCAKE], ids=["azure", "mooncake"])
def test_a_trace_gives_times_and_lengths(tmp_path: Path, text: str) -> None:
    name = written(tmp_path, "trace", text).name
    plan_text = f"""
    objectives: {{e2e: {{p50: 60s}}}}
    payloads:
      path: /v1/chat/completions
      prompts: {{model: m, trace: {name}}}
    stages: [{{name: replay, load: {{shape: trace, trace: {name}, speed: 0.5}}, judged: false}}]
    """
    with LlmServer(tmp_path) as server:
        code, said, result = measured(tmp_path, server.url, plan_text, "--no-verdict")
        requests = server.requests()[1:]  # the first one is the preflight's
    assert code == 0, said
    (stage,) = result["stages"]
    rows = [(size(messages(one)[0]["content"]), one["max_tokens"]) for one in requests]
    wanted = LENGTHS if text is AZURE else [(600, 3), (530, 2), (40, 4)]
    assert sorted(rows) == sorted(wanted)
    assert all(one["min_tokens"] == one["max_tokens"] and one["ignore_eos"] for one in requests)
    assert stage["streams"]["output_tokens"]["mean"] == np.mean([row[1] for row in wanted])
    assert stage["streams"]["prompt_tokens"]["mean"] == np.mean([row[0] for row in wanted])
    if text is MOONCAKE:
        first, second, third = (
            messages(next(one for one in requests if one["max_tokens"] == tokens))[0][
                "content"
            ].split()
            for tokens in (3, 2, 4)
        )
        assert first[:512] == second[:512], "equal blocks are equal texts"
        assert first[512:530] != second[512:530]
        assert first[:40] != third


def test_lengths_are_drawn_and_prefixes_shared(tmp_path: Path) -> None:
    text = """
    objectives: {ttft: {p50: 60s}}
    payloads:
      path: /v1/chat/completions
      count: 40
      prompts:
        model: m
        input_tokens: {$int: [5, 9]}
        output_tokens: {$choice: [2, 3]}
        prefix_tokens: 30
        prefixes: 2
        exact: false
    stages: [{name: steady, load: {rate: 40, seconds: 1}}]
    """
    with LlmServer(tmp_path) as server:
        code, said, _ = measured(tmp_path, server.url, text)
        requests = server.requests()
    assert code == 0, said
    assert {one["max_tokens"] for one in requests} == {2, 3}
    assert {size(messages(one)[-1]["content"]) for one in requests} <= set(range(5, 10))
    prefixes = {messages(one)[0]["content"] for one in requests}
    assert len(prefixes) == 2
    assert {size(one) for one in prefixes} == {30}
    assert "ignore_eos" not in requests[0]


def test_turns_of_a_session_follow_each_other(tmp_path: Path) -> None:
    """Each has the turns before it in its prompt, and comes after the end of the answer to them."""
    text = """
    objectives: {ttft: {p50: 60s}}
    payloads:
      path: /v1/chat/completions
      count: 6
      prompts: {model: m, input_tokens: 4, output_tokens: 2, turns: 3, think: 0.2}
    engine: {arrivals: even}
    stages: [{name: sessions, load: {rate: 6, seconds: 1}}]
    """
    with LlmServer(tmp_path, first=0.1) as server:
        code, said, result = measured(tmp_path, server.url, text)
        requests = server.requests()[1:]
    assert code == 0, said
    assert result["stages"][0]["load"]["requests"] == 18
    turns: dict[str, list[int]] = {}
    for one in requests:
        found = messages(one)
        assert [part["role"] for part in found[:-1]] == ["user", "assistant"] * (len(found) // 2)
        turns.setdefault(found[0]["content"], []).append(len(found))
    assert len(turns) == 6
    assert all(lengths == [1, 3, 5] for lengths in turns.values()), "in order"


def test_a_session_ends_with_a_turn_that_fails(tmp_path: Path) -> None:
    text = """
    objectives: {errors: 50 %}
    payloads:
      path: /v1/chat/completions
      count: 6
      prompts: {model: m, input_tokens: 4, output_tokens: 4, turns: 3}
    stages: [{name: sessions, load: {rate: 6, seconds: 1}, judged: false}]
    """
    with LlmServer(tmp_path, bad="error", after=1) as server:
        _, said, result = measured(tmp_path, server.url, text, "--no-verdict")
        requests = server.requests()[1:]
    assert {len(messages(one)) for one in requests} == {1}, said
    assert result["stages"][0]["load"]["failed"] == len(requests)


def test_clients_that_leave_are_no_failures_of_the_server(tmp_path: Path) -> None:
    """It would stream for 4 s; all its clients leave after 0.5 s, with the times that they
    saw."""
    text = """
    objectives: {ttft: {p50: 60s}, errors: 0}
    payloads:
      path: /v1/chat/completions
      count: 9
      prompts:
        {model: m, input_tokens: 4, output_tokens: 200, cancelled: 100 %, cancel_after: 500ms}
    engine: {timeout: 600s}
    limits: {seconds: 900}
    stages: [{name: leaving, load: {rate: 20, seconds: 1}}]
    """
    with LlmServer(tmp_path, gap=0.02) as server:
        code, said, result = measured(tmp_path, server.url, text)
    assert code == 0, said
    (stage,) = result["stages"]
    assert stage["load"]["failed"] == 0
    assert stage["streams"]["cancelled"] == stage["load"]["requests"] > 0
    assert stage["streams"]["output_tokens"]["known"] == 0
    assert "answers were cancelled by the plan" in said


def test_a_limit_that_had_passed_before_the_client_left_is_missed(tmp_path: Path) -> None:
    text = """
    objectives: {ttft: {p90: 300ms}, goodput: {ttft: 300ms, share: 1 %}}
    payloads:
      path: /v1/chat/completions
      prompts: {model: m, input_tokens: 4, output_tokens: 2, cancelled: 80 %, cancel_after: 1s}
    stages: [{name: leaving, load: {rate: 40, seconds: 1}}]
    """
    with LlmServer(tmp_path, first=3.0) as server:
        code, said, result = measured(tmp_path, server.url, text)
    assert code == 1, said
    ttft = result["stages"][0]["criteria"][0]
    assert (ttft["name"], ttft["said"]) == ("ttft p90", "failed")


def test_capacity_is_the_goodput(tmp_path: Path) -> None:
    """Two slots of 100 ms: at most 20 answers per second, whatever the machine; a probe of 4 s has
    those that are good until a second after its end."""
    text = """
    objectives: {goodput: {e2e: 1s, share: 60 %}}
    payloads: {path: /v1/chat/completions, prompts: {model: m, input_tokens: 4, output_tokens: 1}}
    stages:
      - {name: capacity, capacity: {start: 4, most: 200, seconds: 4, precision: 0.5}, judged: false}
    """
    with LlmServer(tmp_path, first=0.1, slots=2) as server:
        code, said, result = measured(tmp_path, server.url, text, "--no-verdict")
    assert code == 0, said
    found = result["stages"][0]["capacity"]
    assert found["high"] is not None
    assert found["low"] is None or found["low"] < found["high"] <= 200
    if found["low"] is not None:
        assert 0.0 < found["goodput"] <= 20.0 * 5.0 / 4.0
        assert "a goodput of" in said


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        ("{model: m, cancelled: 10 %}", "go together"),
        ("{model: m, trace: t.csv, input_tokens: 4}", "leave input_tokens and output_tokens out"),
        (
            "{model: m, input_tokens: {$words: 3}}",
            "payloads.prompts.input_tokens: unknown generator",
        ),
        ("{model: m, turns: many}", "payloads.prompts.turns: not a number"),
        ("{}", "model"),
    ],
)
def test_errors_of_prompts_name_the_key(tmp_path: Path, prompts: str, said: str) -> None:
    written(tmp_path, "t.csv", AZURE)
    text = json.dumps({"objectives": {"p50": "1s"}, "stages": [{"name": "s", "load": {"rate": 1}}]})
    text = f"payloads: {{path: /v1/completions, prompts: {prompts}}}\n" + "\n".join(
        f"{key}: {json.dumps(value)}" for key, value in json.loads(text).items()
    )
    found = gate("--target", "http://127.0.0.1:1", "--plan", plan(tmp_path, text), "--check")
    assert (found.exit_code, said in on_one_line(found.output)) == (2, True), found.output


@pytest.mark.skipif(not AVAILABLE, reason=INSTALL)
def test_sessions_over_http2_are_refused_before_they_run(tmp_path: Path) -> None:
    text = """
    objectives: {p50: 1s}
    payloads: {path: /v1/completions, prompts: {model: m, turns: 2}}
    stages: [{name: s, load: {rate: 1}}]
    """
    found = gate("--target", "h2c://127.0.0.1:1", "--plan", plan(tmp_path, text), "--check")
    assert found.exit_code == 2
    assert "are not sent over HTTP/2" in on_one_line(found.output), found.output
