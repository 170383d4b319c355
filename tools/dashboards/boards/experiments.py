"""Is the new one better: intervals over time, evidence, the ramp, and the decision."""

from __future__ import annotations

from tools.dashboards.board import EXPERIMENT, Board, Choice, Row
from tools.dashboards.panels import ORANGE, Query, bars, figure, lines, states, third
from tools.dashboards.queries import WHERE, named, rate
from tools.dashboards.words import DECISIONS, MET, PLAYED, decided
from understudy.monitor.routing.serving import ROLES

_OF = f'{WHERE}, experiment=~"$experiment"'
METRIC = Choice(
    "metric", "understudy_experiment_e_value", "metric", "A metric that is compared.", within=_OF
)
_WHO = "{{experiment}}: {{challenger}}"


def _effect(bound: str) -> str:
    result = named("experiment_effect", _OF, metric="~$metric", bound=bound)
    return f"avg by (experiment, challenger, metric) ({result})"


_VERDICT = Row(
    "Verdict",
    (
        figure(
            "Decision",
            "The current decision. The tests are anytime-valid: you may look at it and act on it at any "
            "time. No improvement: the target was ruled out, or a limit reached; no harm is proven.",
            "none",
            Query(decided(_OF), _WHO),
            empty="no experiment",
            words=DECISIONS,
            names=True,
            width=6,
            height=5,
        ),
        figure(
            "Share",
            "Share of units assigned to a challenger now.",
            "percentunit",
            Query(
                f"max by (experiment, challenger) ({named('experiment_weight', _OF)})",
                _WHO,
            ),
            empty="no experiment",
            names=True,
            width=6,
            height=5,
        ),
        figure(
            "Requests to the challenger",
            "Number of requests in the current mode, on which the evidence is based.",
            "short",
            Query(
                f"sum by (experiment, challenger) ({named('experiment_requests', _OF)})",
                _WHO,
            ),
            empty="no experiment",
            names=True,
            width=6,
            height=5,
        ),
        figure(
            "Labels",
            "Share of predictions older than the horizon that got a label, by arm.",
            "percentunit",
            Query(f"avg by (arm) ({named('feedback_coverage')})", "{{arm}}"),
            empty="no predictions older than the horizon",
            names=True,
            width=6,
            height=5,
        ),
        states(
            "Decision over time",
            "Promote, roll back, go on, or invalid: the split is not what it should be, or evidence is "
            "missing.",
            DECISIONS,
            Query(decided(_OF), _WHO),
            empty="no experiment",
            height=7,
        ),
        lines(
            "The ramp",
            "Share of units assigned to a challenger.",
            "percentunit",
            Query(
                f"max by (experiment, challenger) ({named('experiment_weight', _OF)})",
                _WHO,
            ),
            empty="no experiment",
            stepped=True,
            low=0,
            high=1,
            height=7,
        ),
    ),
)

_EFFECTS = Row(
    "Challenger minus champion: $metric",
    (
        lines(
            "Difference in $metric, and its interval",
            "The difference between the challenger and the champion, in the metric's own unit (rates as "
            "shares, latencies in seconds). The interval holds at all times at once: with the "
            "experiment's confidence the true difference was never outside of it. A bound that is not "
            "drawn is not known yet. Beyond the margin it is harm; effect is the target. Of several sidecars that each judge alone, the mean.",
            "none",
            Query(_effect("upper"), f"{_WHO}, upper"),
            Query(_effect("lower"), f"{_WHO}, lower"),
            Query(_effect("estimate"), f"{_WHO}, estimate"),
            Query(
                "avg by (experiment, challenger, metric, limit) "
                f"({named('experiment_limit', _OF, metric='~$metric')})",
                f"{_WHO}, {{{{limit}}}}",
            ),
            empty="no evidence yet",
            colors={
                "(lower|upper)$": "light-blue",
                "estimate$": "blue",
                "margin$": "red",
                "effect$": "green",
            },
            steps=((0.0, ORANGE),),
            width=16,
            height=9,
        ),
        lines(
            "Evidence on $metric",
            "The e-value of each claim: `pass`, that the challenger is good enough, and `harm`, that it "
            "is worse than allowed. Each is concluded at its threshold, which is higher for harm while the "
            "other metrics show none.",
            "none",
            Query(
                "max by (experiment, challenger, about) "
                f"(clamp({named('experiment_e_value', _OF, metric='~$metric')}, 1e-6, 1e12))",
                f"{_WHO}, {{{{about}}}}",
            ),
            Query(
                "max by (experiment, challenger, about) "
                f"({named('experiment_e_value_threshold', _OF, metric='~$metric')})",
                f"{_WHO}, {{{{about}}}}: threshold",
            ),
            empty="no evidence yet",
            colors={"pass$": "green", "harm$": "red", "threshold$": "orange"},
            log=True,
            width=8,
            height=9,
        ),
    ),
    repeat="metric",
)

_SERVES = Row(
    "Who serves",
    (
        third(
            "Planned and served",
            "Part of the requests that each arm should serve by the routes, and the part that it "
            "served in the last minute. They differ while an arm is down.",
            "percentunit",
            Query(
                f"max by (arm, of) ({named('arm_share')})",
                "{{arm}}, {{of}}",
            ),
            empty="no traffic",
            high=1.0,
        ),
        third(
            "Diverted",
            "Requests of the last minute that an arm should have served, and the champion served, "
            "because the arm's circuit breaker was open.",
            "none",
            Query(f"sum by (arm) ({named('arm_diverted_requests')})", "{{arm}}"),
            empty="no arms",
        ),
        third(
            "Down or failing",
            "1 for each arm that is down, down on some workers, or fails most of its requests.",
            "none",
            Query(
                f"max by (arm, state) ({named('arm_state', state='~down|partly_down|failing')})",
                "{{arm}}: {{state}}",
            ),
            empty="no arms",
            stepped=True,
        ),
        states(
            "Role",
            "What the routes plan for each arm: it serves, gets mirrored requests, serves only when "
            "another arm fails (standby), or is unused. Serving wins where replicas differ.",
            PLAYED,
            Query(
                "max by (arm) ("
                + " or ".join(
                    f"max by (arm) ({named('arm_role', role=word)} == 1) * {number}"
                    for number, word in enumerate(ROLES)
                )
                + ")",
                "{{arm}}",
            ),
            empty="no arms",
            width=24,
        ),
    ),
)

_FAIR = Row(
    "Is the comparison fair?",
    (
        third(
            "Mirrored requests by outcome",
            "Mirrored requests per second by outcome, including those that were dropped.",
            "reqps",
            Query(f"{rate('mirror_total', by='arm, outcome')} > 0", "{{arm}}: {{outcome}}"),
            empty="no mirrored requests",
            stacked=True,
        ),
        third(
            "Left out",
            "Requests per second without a unit, or served by the champion because the challenger's "
            "circuit breaker was open.",
            "reqps",
            Query(
                rate("experiment_unassigned_total", _OF, by="experiment, reason"),
                "{{experiment}}, no unit: {{reason}}",
            ),
            Query(
                rate("experiment_diverted_total", _OF, by="experiment"), "{{experiment}}: diverted"
            ),
            empty="no excluded requests",
        ),
        third(
            "Delay of labels",
            "Time from prediction to label, by arm. Where arms differ the comparison by labels is not "
            "fair yet.",
            "s",
            Query(
                "max by (arm, quantile) "
                f"({named('feedback_delay_seconds', WHERE, quantile='~0.5|0.99')})",
                "{{arm}}, quantile {{quantile}}",
            ),
            empty="no labels",
        ),
        third(
            "Not evaluated",
            "Requests of the present mode that were not evaluated, or whose answer was not, by reason. "
            "They count against a promotion by their worst case.",
            "short",
            Query(
                "sum by (experiment, challenger, reason) "
                f"({named('experiment_left_out', _OF)} > 0)",
                f"{_WHO}, {{{{reason}}}}",
            ),
            empty="every request was evaluated",
            stacked=True,
        ),
        third(
            "No answer yet",
            "Overdue: requests without a response long after they started. Lost: requests whose "
            "worker or record was lost. No challenger is promoted while it has clearly more of them "
            "than the champion.",
            "short",
            Query(
                f"sum by (experiment, arm, state) ({named('experiment_unanswered', _OF)} > 0)",
                "{{experiment}}: {{arm}}, {{state}}",
            ),
            empty="every request was answered in time",
            stacked=True,
        ),
        states(
            "Objectives by arm",
            "Whether each arm meets the configured objectives.",
            MET,
            Query(f"min by (arm, objective) ({named('objective_met')})", "{{arm}}: {{objective}}"),
            empty="no objectives",
            width=8,
            height=8,
        ),
        bars(
            "Cost per prediction",
            "From the configured prices per request and second.",
            "none",
            Query(f"avg by (arm) ({named('cost_per_prediction')})", "{{arm}}", instant=True),
            empty="no prices",
            width=24,
        ),
    ),
)

BOARD = Board(
    uid="understudy-experiments",
    title="Understudy / Experiments",
    text="Challengers against the champion: anytime-valid intervals, evidence, ramp and decision.",
    choices=(EXPERIMENT, METRIC),
    rows=(_VERDICT, _SERVES, _EFFECTS, _FAIR),
)
