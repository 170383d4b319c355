"""Metric families of features and predictions."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric

from understudy.common.codecs import Reason
from understudy.monitor.pipeline.pipeline import Pipeline
from understudy.monitor.records.redaction import Redaction
from understudy.monitor.routing.plan import Plan
from understudy.monitor.telemetry.families import ValueFamily, counter, gauge

INVALID = (
    *(Reason.EMPTY, Reason.ERROR_RESPONSE, Reason.NOT_JSON, Reason.TRUNCATED, Reason.WRONG_SHAPE),
)
"""Reasons why an answer holds no prediction that a client could use."""
_OUTPUT = ("model", "version", "arm", "prediction")


def prediction_families(pipeline: Pipeline, redaction: Redaction) -> Iterator[Metric]:
    """Predictions and missing features: of a sidecar, or of the evaluator that watches models.
    Classes of outputs that ``redaction`` hides are values of single rows, and left out."""
    values = ValueFamily("prediction_value", "Numeric predictions.", _OUTPUT)
    counts: list[tuple[list[str], float]] = []
    classes: list[tuple[list[str], float]] = []
    means: list[tuple[list[str], float]] = []
    for (model, version, arm), predictions in pipeline.predictions.items():
        for name, stats in predictions.by_name.items():
            labels = [model, version, arm, name]
            if stats.count:
                values.add(labels, stats.cumulative(), stats.total)
                counts.append((labels, stats.count))
                mean = stats.summary()["mean"]
                if mean is not None:
                    means.append((labels, mean))
            if not redaction.hides(name):
                classes += [([*labels, label], n) for label, n in stats.classes.items()]
    yield values
    yield counter("prediction_values", "Number of numeric predictions.", _OUTPUT, counts)
    yield gauge(
        "prediction_mean", "Mean of numeric predictions since the state began.", _OUTPUT, means
    )
    yield counter(
        "prediction_class",
        "Predicted classes; rare ones beyond a limit are 'other'.",
        (*_OUTPUT, "class"),
        classes,
    )
    yield counter(
        "feature_missing",
        "Feature values that were null, NaN or missing.",
        ("model", "version", "feature"),
        [
            ([model, version, feature], missing)
            for (model, version), features in pipeline.features.items()
            for feature, missing in features.missing().items()
        ],
    )
    yield counter(
        "feature_rows",
        "Rows of features that were decoded.",
        ("model", "version"),
        [(list(key), features.rows) for key, features in pipeline.features.items()],
    )


def undecoded_families(pipeline: Pipeline, plan: Plan) -> Iterator[Metric]:
    """Decoding results of a sidecar's records, with 0 for the ways in which answers of the plan's
    arms may be invalid. Evaluators must not count them again."""
    zeros = {
        (model.name, model.version, arm, "response", str(reason)): 0
        for model in plan.models
        for arm in plan.arms
        for reason in INVALID
    }
    yield counter(
        "undecodable",
        "Payloads without features or predictions, by reason.",
        ("model", "version", "arm", "part", "reason"),
        [(list(key), count) for key, count in (zeros | dict(pipeline.undecodable)).items()],
    )
    served = pipeline.served
    yield counter(
        "served_answers",
        "Answers by the version of the model that they say, in their payload or a header.",
        ("model", "version", "arm", "served"),
        [
            ((*key, version), count)
            for key, answers in served.answers.items()
            for version, count in answers.items()
        ],
    )
    yield counter(
        "served_version_changes",
        "Times that answers began to say another version of the model.",
        ("model", "version", "arm"),
        list(served.changed.items()),
    )
    yield counter(
        "records_evaluated",
        "Records in the evaluation plane's state.",
        (),
        [([], pipeline.records)],
    )
