"""Labels as metric families: of a sidecar's store, or of each partition that an evaluator owns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from prometheus_client.core import Metric

from understudy.monitor.labels.store import OUTCOMES
from understudy.monitor.telemetry.families import QuantileFamily, counter, gauge

K = TypeVar("K", bound=tuple[str, ...])


def feedback_families(
    stores: Mapping[K, Mapping[str, Any]], of: tuple[str, ...] = ()
) -> Iterator[Metric]:
    """Labels by what became of them, and how late they come: figures of stores by the values of
    the labels ``of`` that tell them apart, as a partition may go to another process."""
    yield counter(
        "feedback",
        "Labels and rewards, by outcome.",
        (*of, "outcome"),
        [
            ((*which, outcome), figures["labels"].get(outcome, 0))
            for which, figures in stores.items()
            for outcome in OUTCOMES
        ],
    )
    yield gauge(
        "feedback_predictions",
        "Predictions that wait for a label, or are kept to detect late labels.",
        (*of, "arm"),
        [
            ((*which, arm), item["predictions"])
            for which, figures in stores.items()
            for arm, item in figures["coverage"].items()
        ],
    )
    yield gauge(
        "feedback_orphans",
        "Labels without a prediction so far.",
        of,
        [(which, figures["waiting"]["orphans"]) for which, figures in stores.items()],
    )
    yield counter(
        "feedback_repeated_ids",
        "Predictions whose request id was used before, by arm: the first one gets the label.",
        (*of, "arm"),
        [
            ((*which, arm), n)
            for which, figures in stores.items()
            for arm, n in figures["repeated"].items()
        ],
    )
    yield gauge(
        "feedback_coverage",
        "Part of the predictions older than the horizon that got a label, by arm.",
        (*of, "arm"),
        [
            ((*which, arm), item["share"])
            for which, figures in stores.items()
            for arm, item in figures["coverage"].items()
            if item["share"] is not None
        ],
    )
    yield counter(
        "feedback_purged",
        "Predictions and labels deleted, by reason.",
        (*of, "reason"),
        [
            ((*which, reason), n)
            for which, figures in stores.items()
            for reason, n in (*figures["purged"].items(), ("queue", figures.get("dropped", 0)))
        ],
    )
    yield counter(
        "feedback_failures",
        "Failed accesses to the database of labels.",
        of,
        [(which, figures["failures"]) for which, figures in stores.items()],
    )
    delays = QuantileFamily(
        "feedback_delay_seconds",
        "Time from prediction to label, by arm, within 2.2 %: it should not differ.",
        (*of, "arm"),
    )
    for which, figures in stores.items():
        for arm, item in figures["delays"].items():
            quantiles = [(float(q), value) for q, value in item["quantiles"].items()]
            delays.add((*which, arm), quantiles, item["count"], item["sum_seconds"])
    yield delays
