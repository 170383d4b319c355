"""Answers of language models in the evaluation: tokens, times, goodput, and over Kafka alike."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.support.live_experiment import live, status
from tests.support.live_experiment import record as made
from tests.support.llm_streams import SHAPES, Shape, chunk, delta, sse
from understudy.common.codecs import Table
from understudy.common.codecs.llm.columns import ANSWER, NOT_COMPARED
from understudy.common.events import LINES, SSE
from understudy.common.mlperf import PRESETS
from understudy.common.token_buckets import FIRST_TOKEN_EDGES
from understudy.monitor.config.goodput import limits_of
from understudy.monitor.config.model import Config
from understudy.monitor.evidence.block_columns import BlockColumns
from understudy.monitor.evidence.blocks import Builder, RecordBlock, decode, encode
from understudy.monitor.evidence.decoding import Decoder
from understudy.monitor.evidence.rows import ROWS, rows_of
from understudy.monitor.evidence.settings import Settings
from understudy.monitor.pipeline.pipeline import Pipeline
from understudy.monitor.proxy.memory import Memory
from understudy.monitor.proxy.stream import StreamMeter
from understudy.monitor.records import record
from understudy.monitor.records.encode import encode as encode_record
from understudy.monitor.records.handoff import Names
from understudy.monitor.telemetry.llm import llm_families

READ = [shape for shape in SHAPES if shape.outcome == "ok"]
NAMES = Names(1, (("chat", "", "auto"),), ("champion", "candidate"))
JSON = b"content-type: application/json"


def settings(**model: Any) -> Settings:
    """Of a model ``chat``, as the supervisor writes a validated configuration."""
    config = Config.model_validate(
        {
            "version": 1,
            "listen": "127.0.0.1:0",
            "models": [{"name": "chat", "paths": ["/v1/chat/completions"], **model}],
            "champion": {"url": "http://127.0.0.1:1"},
            "challengers": [{"name": "candidate", "url": "http://127.0.0.1:2"}],
        }
    )
    return Settings.from_json(config.model_dump(mode="json", by_alias=True))


def encoded(shape: Shape, tick: float = 0.01, arm: int = 0, role: int = 0, at: int = 0) -> bytes:
    """A record of a stream whose events come ``tick`` seconds after each other."""
    kind = LINES if shape.header.endswith(b"ndjson") else SSE
    meter = StreamMeter(kind, 1 << 18, Memory(1 << 20))
    now = 0
    for piece in shape.body.splitlines(keepends=True):
        now += int(tick * 1e9) if piece.strip() else 0
        meter.feed(piece, now)
    meter.outcome(False)
    body, _ = meter.take_copy()
    _, parts = encode_record(
        0, arm, 200, role, record.OK, 1_790_000_000.0 + at, now, now // 2, 0, 10, len(shape.body),
        b"r-%d" % at, b"", b"", shape.path.encode(), JSON, shape.header,
        None if role else json.dumps(shape.request).encode(), body, proxy_id=1 + at,
        events=meter.times(0),
    )  # fmt: skip
    return b"".join(parts)


def samples(pipeline: Pipeline) -> dict[tuple[str, ...], float]:
    found = {}
    for family in llm_families(pipeline):
        for sample in family.samples:
            labels = {k: v for k, v in sample.labels.items() if k not in ("model", "version")}
            found[sample.name.removeprefix("understudy_llm_"), *labels.values()] = sample.value
    return found


def test_tokens_times_and_finish_reasons_are_exported() -> None:
    pipeline = Pipeline(settings(goodput={"preset": "llama3.1-8b", "ttft": "15ms"}))
    records = [encoded(SHAPES[0], at=0), encoded(SHAPES[3], at=1), encoded(SHAPES[12], at=2)]
    pipeline.take(NAMES, len(records), b"".join(records))
    pipeline.flush()
    assert not pipeline.undecodable
    found = samples(pipeline)
    assert found["tokens_total", "champion", "prompt"] == 9
    assert found["tokens_total", "champion", "cached"] == 4
    assert found["tokens_total", "champion", "output"] == 10
    silent = Pipeline(settings())
    silent.take(NAMES, 1, encoded(SHAPES[12]))
    silent.flush()
    assert not [key for key in samples(silent) if key[0] == "tokens_total"]
    assert found["answers_total", "champion", "tool_calls"] == 1
    assert found["answers_total", "champion", "none"] == 1
    assert found["token_counts_total", "champion", "logprobs"] == 1
    assert found["token_counts_total", "champion", "none"] == 1
    # One is late with its first token, one tells no tokens.
    assert found["good_answers_total", "champion"] == 1
    first = "time_to_first_token_seconds_bucket"
    edges = [float(key[2]) for key in found if key[0] == first]
    assert edges == [*FIRST_TOKEN_EDGES, float("inf")]
    assert (found[first, "champion", "0.01"], found[first, "champion", "0.02"]) == (2, 3)
    predictions = pipeline.predictions["chat", "", "champion"]
    assert "answer_hash" not in predictions.by_name
    assert predictions.by_name["finish_reason"].classes["stop"] == 1
    again = Pipeline(settings())
    again.load_state(json.loads(json.dumps(pipeline.dump_state())))
    assert samples(again) == found


def test_tokens_cost_what_is_declared() -> None:
    pipeline = Pipeline(settings(cost={"prompt": 2.0, "cached": 0.5, "output": 10.0}))
    # 9 tokens of a prompt, of which 4 were cached, and 7 of an answer; and one that tells nothing.
    pipeline.take(NAMES, 2, encoded(SHAPES[0], at=0) + encoded(SHAPES[12], at=1))
    pipeline.flush()
    cost = (5 * 2.0 + 4 * 0.5 + 7 * 10.0) / 1e6
    assert samples(pipeline)["cost_total", "champion"] == pytest.approx(cost)
    stats = pipeline.predictions["chat", "", "champion"].by_name["token_cost"]
    assert (stats.count, stats.missing) == (1, 1)
    free = Pipeline(settings())
    free.take(NAMES, 1, encoded(SHAPES[0]))
    free.flush()
    assert ("cost_total", "champion") not in samples(free)


def test_a_prompt_without_a_price_need_not_be_counted() -> None:
    pipeline = Pipeline(settings(cost={"output": 10.0}))
    pipeline.take(NAMES, 1, encoded(SHAPES[3]))  # tokens by logprobs: those of the answer alone
    pipeline.flush()
    assert samples(pipeline)["cost_total", "champion"] == pytest.approx(30 / 1e6)


@pytest.mark.parametrize("wrong", [{}, {"prompt": -1.0}, {"prompt": 0.0}, {"output": float("inf")}])
def test_prices_are_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="cost"):
        settings(cost=wrong)


def test_a_model_of_another_kind_has_none_of_it() -> None:
    pipeline = Pipeline(settings())
    pipeline.flush()
    assert samples(pipeline) == {}


@pytest.mark.parametrize("shape", READ, ids=lambda shape: shape.name)
def test_blocks_over_kafka_hold_the_same(shape: Shape) -> None:
    decoder = Decoder(settings())
    builder = Builder("pod", "run", 1, 10)
    (one,) = record.decode_batch(encoded(shape))
    request, response = decoder.decode(NAMES.models[0], one)
    assert isinstance(response, Table)
    assert response.names == ANSWER
    list(builder.add(NAMES, one, request, response, 0.0))
    (block,) = builder.flush(0.0, everything=True)
    received = decode(encode(block))
    assert isinstance(received, RecordBlock)
    ((_, _, features, predictions),) = received.rows()
    assert isinstance(features, Table)
    assert isinstance(predictions, Table)
    assert isinstance(request, Table)
    assert features.row(0) == request.row(0)
    assert predictions.row(0) == response.row(0)


def test_times_never_decide_whether_two_answers_agree() -> None:
    compared = set(ANSWER) - set(NOT_COMPARED)
    assert compared == {"finish_reason", "answer_hash", "tools_hash", "is_refusal", "is_json"}


def test_answers_of_two_arms_agree_by_their_content_alone() -> None:
    decoder = Decoder(settings())
    one = live(metrics=[{"metric": "disagreement", "margin": "1 pp"}])

    def answered(text: str, tick: float, number: int, role: int) -> None:
        events = sse(chunk(delta(content=text)), chunk(delta("stop")), "[DONE]")
        shape = replace(SHAPES[0], body=events)
        (of_worker,) = record.decode_batch(encoded(shape, tick, role, role))
        _, table = decoder.decode(NAMES.models[0], of_worker)
        assert isinstance(table, Table)
        arm = "candidate" if role else "champion"
        one.take(made(number, role), arm, None, None, table)

    for number in range(100):
        answered("The answer  is 4.", 0.01, number, 0)
        # Slower, with other space and case; and every tenth is another answer.
        other = "It is 5." if number % 10 == 0 else "the answer is 4."
        answered(other, 0.2, number, 1)
    found = status(one)["disagreement"]
    assert found.estimates[1] == pytest.approx(0.1)


def test_hashes_are_compared_and_not_watched() -> None:
    decoder = Decoder(settings())
    builder = Builder("pod", "run", 1, 10)
    (of_worker,) = record.decode_batch(encoded(SHAPES[0]))
    request, response = decoder.decode(NAMES.models[0], of_worker)
    list(builder.add(NAMES, of_worker, request, response, 0.0))
    (block,) = builder.flush(0.0, everything=True)
    (rows,) = [b for b in rows_of(BlockColumns(block, 0, "champion")) if b.kind[0] == ROWS]
    assert "finish_reason" in rows.names
    assert "system_hash" in rows.names
    assert not {"answer_hash", "tools_hash"} & set(rows.names)
    assert len(rows.names) == len(rows.columns)


@pytest.mark.parametrize(
    ("declared", "limits"),
    [
        (None, ()),
        ({"preset": "llama3.1-8b"}, (("ttft_seconds", 2.0), ("tpot_seconds", 0.1))),
        (
            {"preset": "mixtral-8x7b", "tpot": "50ms"},
            (("ttft_seconds", 2.0), ("tpot_seconds", 0.05)),
        ),
        ({"ttft": "500ms", "e2e": "9s"}, (("ttft_seconds", 0.5), ("e2e_seconds", 9.0))),
    ],
)
def test_limits(declared: dict[str, Any] | None, limits: object) -> None:
    assert limits_of(declared) == limits
    assert all(ttft > tpot for ttft, tpot in PRESETS.values())
