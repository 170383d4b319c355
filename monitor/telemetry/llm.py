"""Metric families of language models, from the derived columns of their answers."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric

from understudy.common.codecs.llm.columns import TOKENS
from understudy.monitor.evidence.prediction_stats import Predictions, PredictionStats
from understudy.monitor.pipeline.pipeline import ArmKey, Pipeline
from understudy.monitor.telemetry.families import counter, histogram, number_text

_OF = ("model", "version", "arm")
TIMES = (
    (
        "ttft_seconds",
        "llm_time_to_first_token_seconds",
        "Time from the request's arrival to the first event with output.",
    ),
    (
        "ttfo_seconds",
        "llm_time_to_first_answer_seconds",
        "Time from the request's arrival to the first event with output that is not reasoning.",
    ),
    (
        "tpot_seconds",
        "llm_time_per_output_token_seconds",
        "Time per output token after the first event with output.",
    ),
    (
        "e2e_seconds",
        "llm_answer_seconds",
        "Time from the request's arrival to the last event with output.",
    ),
)
"""(column, metric, help)"""


def llm_families(pipeline: Pipeline) -> Iterator[Metric]:
    """Times, tokens, finish reasons and goodput of answers that were read."""
    models = {
        key: of_arm
        for key, of_arm in pipeline.predictions.items()
        if "finish_reason" in of_arm.by_name and "tokens_source" in of_arm.by_name
    }
    for column, name, text in TIMES:
        family = histogram(name, text, _OF)
        for key, stats in _columns(models, column):
            buckets = [(number_text(edge), count) for edge, count in stats.cumulative()]
            family.add_metric(key, buckets, stats.total)
        yield family
    yield counter(
        "llm_tokens",
        "Tokens, as model servers count them: cached ones are part of those of prompts, reasoning "
        "ones of those of outputs.",
        (*_OF, "kind"),
        [
            ([*key, name.removesuffix("_tokens")], stats.total)
            for name in TOKENS
            for key, stats in _columns(models, name)
            if stats.count  # what a server does not tell is not 0
        ],
    )
    for column, name, text, label in (
        ("finish_reason", "llm_answers", "Answers that were read, by finish reason.", "reason"),
        (
            "tokens_source",
            "llm_token_counts",
            "Answers by where their number of output tokens comes from; none: it is not known.",
            "source",
        ),
    ):
        yield counter(
            name,
            text,
            (*_OF, label),
            [
                ([*key, value], count)
                for key, stats in _columns(models, column)
                for value, count in stats.classes.items()
            ],
        )
    yield counter(
        "llm_good_answers",
        "Answers within all limits of the model's `goodput`.",
        _OF,
        [(key, stats.total) for key, stats in _columns(models, "is_good") if stats.count],
    )
    yield counter(
        "llm_cost",
        "What the tokens of answers and their prompts cost, in the currency of the model's `cost`.",
        _OF,
        [(key, stats.total) for key, stats in _columns(models, "token_cost") if stats.count],
    )


def _columns(
    models: dict[ArmKey, Predictions], name: str
) -> Iterator[tuple[list[str], PredictionStats]]:
    for key, of_arm in models.items():
        stats = of_arm.by_name.get(name)
        if stats is not None:
            yield list(key), stats
