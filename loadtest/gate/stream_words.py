"""What a stage has seen of a language model's streams, in words."""

from __future__ import annotations

from typing import Any

from understudy.common.units import percent
from understudy.loadtest.engine.outcome import Outcome
from understudy.loadtest.gate.plan import Objectives
from understudy.loadtest.gate.stream_times import not_good, summary
from understudy.loadtest.gate.words import number, seconds

STREAM_TIMES = {
    "ttfc": "first chunk",
    "ttft": "first token (ttft)",
    "ttfo": "first token after reasoning",
    "inter_chunk": "between chunks",
    "tpot": "per output token (tpot)",
    "longest_gap": "longest gap of an answer",
    "e2e": "last token (e2e)",
}
"""Times of a stream by their key in the result, in the order of the report."""
STREAM_KEYS = ("p50", "p90", "p95", "p99", "max")


def stream_facts(objectives: Objectives, outcome: Outcome) -> list[str]:
    """The main figures of the streams of a load, of answers that did not fail; an empty list where
    there were none."""
    if not outcome.streams or not outcome.count:
        return []
    found = summary(outcome)
    if not found["ttft"]["count"]:
        return []
    facts = ["; ".join(_time(found[key], key) for key in ("ttft", "tpot", "e2e"))]
    tokens, prompts = found["output_tokens"], found["prompt_tokens"]
    if tokens["known"]:
        words = (
            f"{number(tokens['mean'])} output tokens in the mean, "
            f"{number(tokens['per_second'])} per second"
        )
        if prompts["known"]:
            words = f"{number(prompts['mean'])} prompt and {words}"
        facts.append(words)
    if objectives.goodput is not None:
        counted, bad = not_good(outcome, objectives.good_limits())
        count, good = int(counted.sum()), int((counted & ~bad).sum())
        limits = objectives.good_limits().items()
        kept = ", ".join(f"{name} {seconds(limit)}" for name, limit in limits)
        rate = good / outcome.seconds if outcome.seconds else 0.0
        facts.append(
            f"{good:,} of {count:,} answers ({percent(good / count if count else 0.0)}) kept "
            f"{kept}: a goodput of {number(rate)} answers per second"
        )
    if found["cancelled"]:
        facts.append(f"{found['cancelled']:,} answers were cancelled by the plan")
    return facts


def _time(found: dict[str, Any], name: str) -> str:
    if not found["count"]:
        return f"{name} not known"
    parts = [f"{key} {seconds(found[key])}" for key in ("p50", "p99") if found[key] is not None]
    return f"{name} " + (", ".join(parts) or f"at most {seconds(found['max'])}")
