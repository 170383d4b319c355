"""What goes in, what comes out, and how far both are from what was usual."""

from __future__ import annotations

from tools.dashboards.board import ARM, MODEL, VERSION, WHERE, Board, Choice, Row
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
from tools.dashboards.queries import (
    LIVE,
    OF_ARM,
    OF_MODEL,
    missing_share,
    named,
    of_buckets,
    rate,
    share,
)
from tools.dashboards.words import DRIFTED, UNTESTED

PREDICTION = Choice(
    "prediction", "understudy_prediction_values_total", "prediction", "A numeric prediction.",
    within=f'{WHERE}, model=~"$model"',
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
        f"Drift score: {what} (alert at 1).",
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
            "Distribution of predicted values over time, for champion and challengers. A model that "
            "always predicts the same value is a single line.",
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
            "Mean since the state began, by arm: a lasting difference is a difference between the models. "
            "For several replicas, their mean.",
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
            "Values decoded from responses.",
            "ops",
            Query(rate("prediction_values_total", _OUTPUT, by="arm"), "{{arm}}"),
            empty="no numeric predictions",
        ),
        third(
            "Undecodable payloads",
            "Payloads without readable features or predictions, by reason. They are forwarded "
            "untouched.",
            "ops",
            Query(rate("undecodable_total", OF_ARM, by="part, reason"), "{{part}}: {{reason}}"),
            empty="all payloads decoded",
        ),
        lines(
            "Versions that answer",
            "Answers per second by the version of the model that they say, and changes of it: a model "
            "that is replaced behind the same URL.",
            "ops",
            Query(
                rate("served_answers_total", OF_ARM, by="model, arm, served"),
                "{{model}}, {{arm}}: {{served}}",
            ),
            Query(
                rate("served_version_changes_total", OF_ARM, by="model, arm"),
                "{{model}}, {{arm}}: changes",
            ),
            empty="no answer says a version",
            width=24,
        ),
    ),
)

_IN = Row(
    "Features against the baseline",
    (
        states(
            "Drifted",
            "Features and predictions with detected drift, over time.",
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
            "Distance of the last rows from the baseline. Rule of thumb: 0.1 is a small shift, 0.25 a "
            "large one. Descriptive only; it raises no alert.",
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
        _shift("location", "a feature shifted up or down"),
        _shift("spread", "the spread of a feature changed"),
        _shift(
            "composition",
            "category shares changed",
            "no baseline with categorical features",
        ),
        third(
            "Features together",
            "Score of changes in the relation between features: reconstruction error, and with "
            "`monitoring.kernel` maximum mean discrepancy (alert at 1).",
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
            "Share of values that are null, NaN or absent, for the ten features with the largest share.",
            "percentunit",
            Query(f"topk(10, {missing_share()})", "{{model}}: {{feature}}"),
            empty="no features decoded",
        ),
        third(
            "Violated rules",
            "Rows per second that violate a rule of the baseline: range, type, unseen value, missing.",
            "ops",
            Query(
                f"topk(10, {rate('feature_violations_total', OF_MODEL, by='model, feature, rule')} > 0)",
                "{{model}}: {{feature}} {{rule}}",
            ),
            empty="no violations",
        ),
    ),
)

_RIGHT = Row(
    "Accuracy and labels",
    (
        lines(
            "Accuracy by labels",
            "With anytime-valid bounds: values outside them are ruled out.",
            "percentunit",
            *_bounded("accuracy", "labels"),
            empty="no labels",
            colors={"(lower|upper)$": "super-light-blue"},
            width=8,
        ),
        lines(
            "Accuracy without labels",
            "Estimated from the scores of recent predictions, with bounds, until labels arrive. It "
            "assumes that the scores are still calibrated.",
            "percentunit",
            *_bounded("estimated_accuracy", "estimated"),
            empty="no baseline with labels",
            colors={"(lower|upper)$": "super-light-blue"},
            width=8,
        ),
        lines(
            "Other measures",
            "Measured by labels: precision, recall, F1, AUC, calibration error and Brier score.",
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
            "Labels per second by outcome: joined with their prediction, too late, or for "
            "an unknown request. And predictions whose request id was used before: they get none.",
            "ops",
            Query(rate("feedback_total", by="outcome"), "{{outcome}}"),
            Query(rate("feedback_repeated_ids_total", by="arm"), "{{arm}}: repeated ids"),
            empty="no labels",
        ),
        third(
            "Error rate by segment",
            "Error rate by the value of a declared feature.",
            "percentunit",
            Query(
                "avg by (model, feature, segment) "
                f"({named('segment_error_rate', OF_MODEL, bound='estimate')})",
                "{{model}}: {{feature}} = {{segment}}",
            ),
            empty="no `monitoring.segments`, or no labels",
        ),
        third(
            "Validation cases passed",
            "Share of the validation cases that passed in the last round, by kind of case.",
            "percentunit",
            Query(f"min by (arm, kind) ({named('validation_pass_ratio')})", "{{arm}}: {{kind}}"),
            empty="no `validation.cases`",
            high=1,
        ),
        third(
            "Gap between segments",
            "Largest difference between the values of a declared feature, by metric. Findings use the "
            "lower bound: above 0, the gap is significant.",
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
            "Validation cases sent",
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
            "Share of rows that are compared with the baseline, by model; 0 without a baseline.",
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
        states(
            "Not tested",
            "Checks that are declared and not tested at present, with the reason: labels or rows that "
            "are still missing, or a setting.",
            UNTESTED,
            Query(
                f"max by (model, check, reason) ({named('not_tested', OF_MODEL)})",
                "{{model}}: {{check}} ({{reason}})",
            ),
            empty="every declared check is tested",
            width=24,
        ),
    ),
)

_LANGUAGE = Row(
    "Language models",
    (
        *(
            third(
                title,
                text,
                "s",
                *(
                    Query(of_buckets(at, family, OF_ARM, "arm"), f"{{{{arm}}}}, {name}")
                    for at, name in (("0.5", "p50"), ("0.99", "p99"))
                ),
                empty="no answers of language models",
            )
            for title, text, family in (
                (
                    "Time to the first token",
                    "From the request's arrival to the first event with output, reasoning included.",
                    "llm_time_to_first_token_seconds",
                ),
                (
                    "Time to the first answer",
                    "The same without reasoning.",
                    "llm_time_to_first_answer_seconds",
                ),
                (
                    "Time per output token",
                    "After the first event with output; needs the server's count of tokens.",
                    "llm_time_per_output_token_seconds",
                ),
                (
                    "Whole answers",
                    "From the request's arrival to the last event with output.",
                    "llm_answer_seconds",
                ),
            )
        ),
        third(
            "Tokens per second",
            "As the model servers count them; cached ones are part of the prompts', reasoning ones of "
            "the outputs'.",
            "none",
            Query(rate("llm_tokens_total", OF_ARM, by="arm, kind"), "{{arm}}, {{kind}}"),
            empty="no counts",
        ),
        third(
            "Answers by finish reason",
            "Answers per second: `length` were cut off, `none` has no reason.",
            "reqps",
            Query(rate("llm_answers_total", OF_ARM, by="reason"), "{{reason}}"),
            empty="no answers of language models",
            stacked=True,
        ),
        third(
            "Goodput",
            "Answers per second within all limits of the model's `goodput`.",
            "reqps",
            Query(rate("llm_good_answers_total", OF_ARM, by="arm"), "{{arm}}"),
            empty="no limits",
        ),
        third(
            "Good answers",
            "Share of all client requests that got an answer within the limits: failed ones are not good.",
            "percentunit",
            Query(
                share(
                    rate("llm_good_answers_total", OF_ARM, by="arm"),
                    rate("requests_total", LIVE, by="arm"),
                ),
                "{{arm}}",
            ),
            empty="no limits",
        ),
        third(
            "Cost of tokens",
            "Per hour, in the currency of the model's `cost`: prompts and answers together.",
            "short",
            Query(f"3600 * {rate('llm_cost_total', OF_ARM, by='arm')}", "{{arm}}"),
            empty="no prices",
        ),
        third(
            "Cost of an answer",
            "With its prompt, in the currency of the model's `cost`.",
            "short",
            Query(
                share(
                    rate("llm_cost_total", OF_ARM, by="arm"),
                    rate("llm_answers_total", OF_ARM, by="arm"),
                ),
                "{{arm}}",
            ),
            empty="no prices",
        ),
        third(
            "Tokens of an answer",
            "Output tokens per answer that was read.",
            "short",
            Query(
                share(
                    rate("llm_tokens_total", OF_ARM, by="arm", kind="output"),
                    rate("llm_answers_total", OF_ARM, by="arm"),
                ),
                "{{arm}}",
            ),
            empty="no counts",
        ),
        third(
            "Source of token counts",
            "Answers per second, by where the number of output tokens comes from.",
            "reqps",
            Query(rate("llm_token_counts_total", OF_ARM, by="source"), "{{source}}"),
            empty="no answers of language models",
        ),
    ),
)

BOARD = Board(
    uid="understudy-predictions",
    title="Understudy / Predictions and features",
    text="Distributions of predictions and features, drift from the baseline, and performance with and "
    "without labels.",
    choices=(MODEL, VERSION, ARM, PREDICTION),
    rows=(_OUT, _IN, _RIGHT, _LANGUAGE),
)
