"""What goes in, what comes out, and how far both are from what was usual."""

from __future__ import annotations

from tools.dashboards.board import ARM, MODEL, VERSION, Board, Choice, Row
from tools.dashboards.panels import (
    GREEN,
    ORANGE,
    RED,
    Panel,
    Query,
    bars,
    heat,
    lines,
    states,
    third,
)
from tools.dashboards.queries import OF_ARM, OF_MODEL, missing_share, named, rate, share
from tools.dashboards.words import DRIFTED

PREDICTION = Choice(
    "prediction", "understudy_prediction_values_total", "prediction", "A numeric prediction.",
    within='job=~"$job", instance=~"$instance", model=~"$model"',
)  # fmt: skip
_OUTPUT = f'{OF_ARM}, prediction=~"$prediction"'


def _bounded(metric: str, label: str) -> tuple[Query, ...]:
    """An estimate and its bounds."""
    return tuple(
        Query(
            "avg by (model, version) "
            f"({named('performance_estimate', OF_MODEL, metric=metric, bound=bound)})",
            f"{{{{model}}}} {{{{version}}}}, {label}{name}",
        )
        for bound, name in (("estimate", ""), ("lower", ", lower"), ("upper", ", upper"))
    )


def _shift(method: str, what: str, empty: str = "no baseline") -> Panel:
    return third(
        f"Shift of {method}",
        f"Evidence that {what}; it alarms at 1.",
        "none",
        Query(
            f"topk(10, max by (model, feature) ({named('drift_score', OF_MODEL, method=method)}))",
            "{{model}}: {{feature}}",
        ),
        empty=empty,
        steps=((1.0, RED),),
    )


_OUT = Row(
    "Predictions",
    (
        heat(
            "Predicted values",
            "How many predictions per second of the champion and the challengers had which value. A "
            "model that answers the same to everything is a single line.",
            "none",
            rate("prediction_value_bucket", _OUTPUT, by="le"),
            empty="no numeric predictions",
            width=12,
            scheme="Blues",
        ),
        lines(
            "Predicted classes",
            "Share of each class among the predictions.",
            "percentunit",
            Query(
                f"{rate('prediction_class_total', OF_ARM, by='model, arm, prediction, class')} / "
                "on (model, arm, prediction) group_left () "
                f"({rate('prediction_class_total', OF_ARM, by='model, arm, prediction')} > 0)",
                "{{model}}, {{arm}}: {{class}}",
            ),
            empty="no predicted classes",
            low=0,
            high=1,
            width=12,
            height=9,
        ),
        lines(
            "Mean of predictions",
            "Since the state began, by arm: a difference that stays is a difference between the models. "
            "Of several replicas, their mean.",
            "none",
            Query(
                f"avg by (model, arm, prediction) ({named('prediction_mean', _OUTPUT)})",
                "{{model}}, {{arm}}: {{prediction}}",
            ),
            empty="no numeric predictions",
            width=8,
        ),
        third(
            "Predictions per second",
            "Values that were decoded from answers.",
            "ops",
            Query(rate("prediction_values_total", _OUTPUT, by="arm"), "{{arm}}"),
            empty="no numeric predictions",
        ),
        third(
            "Undecodable payloads",
            "Payloads in which no features or predictions were found, by reason. They are forwarded "
            "untouched.",
            "ops",
            Query(rate("undecodable_total", OF_ARM, by="part, reason"), "{{part}}: {{reason}}"),
            empty="all were decoded",
        ),
    ),
)

_IN = Row(
    "Features against the baseline",
    (
        states(
            "Drifted",
            "When a feature or a prediction was found to have drifted.",
            DRIFTED,
            Query(
                f"max by (model, feature) ({named('drift_detected', OF_MODEL)})",
                "{{model}}: {{feature}}",
            ),
            empty="no baseline",
            height=10,
        ),
        bars(
            "Population stability index",
            "How different the last rows are from the baseline. For people: as a rule of thumb 0.1 is a "
            "little and 0.25 a lot. It alarms nobody.",
            "none",
            Query(
                "sort_desc(max by (model, feature) "
                f"({named('drift_score', OF_MODEL, method='psi')}))",
                "{{model}}: {{feature}}",
                instant=True,
            ),
            empty="no baseline",
            steps=((None, GREEN), (0.1, ORANGE), (0.25, RED)),
            width=12,
            height=10,
        ),
        _shift("location", "a feature is higher or lower than it was"),
        _shift("spread", "a feature is spread wider or narrower than it was"),
        _shift(
            "composition",
            "the values of a categorical feature have other shares than they had",
            "no baseline with categorical features",
        ),
        third(
            "Features together",
            "Evidence that features go together in another way: reconstruction, and with "
            "`monitoring.kernel` the discrepancy of whole rows; both alarm at 1.",
            "none",
            Query(
                "max by (model, method) "
                f"({named('drift_score', OF_MODEL, method='~reconstruction|discrepancy')})",
                "{{model}}: {{method}}",
            ),
            empty="no baseline with several numeric features",
            steps=((1.0, RED),),
        ),
        third(
            "Missing values",
            "Share of the values of each feature that were null, NaN or not there; the ten features "
            "with most of them.",
            "percentunit",
            Query(f"topk(10, {missing_share()})", "{{model}}: {{feature}}"),
            empty="no features decoded",
        ),
        third(
            "Violated rules",
            "Rows per second that break a rule of the baseline: range, type, unknown value, missing.",
            "ops",
            Query(
                f"topk(10, {rate('feature_violations_total', OF_MODEL, by='model, feature, rule')} > 0)",
                "{{model}}: {{feature}} {{rule}}",
            ),
            empty="no rule is broken",
        ),
    ),
)

_RIGHT = Row(
    "Is it right?",
    (
        lines(
            "Accuracy by labels",
            "With bounds that hold at all times: what is outside of them can be ruled out.",
            "percentunit",
            *_bounded("accuracy", "labels"),
            empty="no labels",
            colors={"(lower|upper)$": "super-light-blue"},
            width=8,
        ),
        lines(
            "Accuracy without labels",
            "Estimated from the scores of the last predictions, with bounds, while labels are on "
            "their way. It rests on scores that are as calibrated as they were.",
            "percentunit",
            *_bounded("estimated_accuracy", "estimated"),
            empty="no baseline with labels",
            colors={"(lower|upper)$": "super-light-blue"},
            width=8,
        ),
        lines(
            "Other measures",
            "By labels: precision, recall, F1, area under the curve, calibration error and Brier score.",
            "none",
            Query(
                "avg by (model, metric) ("
                + named(
                    "performance_estimate",
                    OF_MODEL,
                    metric="~precision|recall|f1|auc|ece|brier",
                    bound="estimate",
                )
                + ")",
                "{{model}}: {{metric}}",
            ),
            empty="no labels",
            width=8,
        ),
        third(
            "Labels",
            "Labels per second by what became of them: joined with their prediction, too late, or of "
            "nobody known.",
            "ops",
            Query(rate("feedback_total", by="outcome"), "{{outcome}}"),
            empty="no labels",
        ),
        third(
            "Error rate by segment",
            "Share of wrong predictions by the value of a declared feature.",
            "percentunit",
            Query(
                "avg by (model, feature, segment) "
                f"({named('segment_error_rate', OF_MODEL, bound='estimate')})",
                "{{model}}: {{feature}} = {{segment}}",
            ),
            empty="no `monitoring.segments`, or no labels",
        ),
        third(
            "Known cases passed",
            "Share of the validation cases that passed in the last round, by kind of case.",
            "percentunit",
            Query(f"min by (arm, kind) ({named('validation_pass_ratio')})", "{{arm}}: {{kind}}"),
            empty="no `validation.cases`",
            high=1,
        ),
        third(
            "Gap between segments",
            "Largest difference between the values of a declared feature, by measure. Findings are made "
            "of the lower bound: what is above 0 there is no accident.",
            "none",
            *(
                Query(
                    "max by (model, feature, metric) "
                    f"({named('performance_gap', OF_MODEL, bound=bound)})",
                    f"{{{{model}}}}: {{{{feature}}}}, {{{{metric}}}}{name}",
                )
                for bound, name in (("estimate", ""), ("lower", ", lower"))
            ),
            empty="no `monitoring.segments`, or no labels",
        ),
        third(
            "Known cases sent",
            "Validation cases per second, by arm and result.",
            "ops",
            Query(
                rate("validation_cases_total", by="arm, kind, result"),
                "{{arm}}: {{kind}} {{result}}",
            ),
            empty="no `validation.cases`",
        ),
        third(
            "Watched",
            "Share of the rows that are compared with the baseline, by model: none is, as long as "
            "there is no baseline.",
            "percentunit",
            Query(
                share(
                    rate("watched_rows_total", OF_MODEL, by="model"),
                    rate("feature_rows_total", OF_MODEL, by="model"),
                ),
                "{{model}}",
            ),
            empty="no baseline",
            high=1,
        ),
    ),
)

BOARD = Board(
    uid="understudy-predictions",
    title="Understudy / Predictions and features",
    text="Distributions of predictions and features, drift from the baseline, and performance with and "
    "without labels.",
    choices=(MODEL, VERSION, ARM, PREDICTION),
    rows=(_OUT, _IN, _RIGHT),
)
