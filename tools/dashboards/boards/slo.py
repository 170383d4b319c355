"""Objectives, their error budgets, and how fast these go; from recording rules named as Sloth's."""

from __future__ import annotations

from tools.dashboards.board import IDENTITY, SERVICE, SLO, Board, Row
from tools.dashboards.panels import GREEN, ORANGE, RED, Query, bars, figure, lines, states
from tools.dashboards.words import FIRING

_OF = f'{IDENTITY}, sloth_service=~"$service", sloth_slo=~"$slo"'
_BY = "cluster, namespace, sloth_service, sloth_slo"
_NAME = "{{cluster}} {{namespace}} {{sloth_service}}: {{sloth_slo}}"


def _each(rule: str, how: str = "max") -> str:
    return f"{how} by ({_BY}) ({rule}{{{_OF}}})"


_BUDGETS = Row(
    "Error budgets",
    (
        figure(
            "Least budget left",
            "The selected objective with the least error budget left.",
            "percentunit",
            Query(f"min(slo:period_error_budget_remaining:ratio{{{_OF}}})"),
            empty="no objectives",
            steps=((None, RED), (0.1, ORANGE), (0.5, GREEN)),
            decimals=2,
            width=6,
            height=5,
        ),
        figure(
            "Fastest burn",
            "The selected objective that burns its budget fastest now. At 1, the budget lasts exactly "
            "for the period; at 14.4, an hour spends two percent of a 30-day budget.",
            "none",
            Query(f"max(slo:current_burn_rate:ratio{{{_OF}}})"),
            empty="no objectives",
            steps=((None, GREEN), (1, ORANGE), (6, RED)),
            decimals=2,
            width=6,
            height=5,
        ),
        figure(
            "Alerts firing",
            "Firing pages and tickets of the selected objectives.",
            "none",
            Query(f'count(ALERTS{{{_OF}, alertstate="firing"}}) or vector(0)'),
            empty="none",
            steps=((None, GREEN), (1, RED)),
            width=6,
            height=5,
        ),
        figure(
            "Objectives",
            "Number of selected objectives.",
            "none",
            Query(f"count({_each('slo:objective:ratio')})"),
            empty="no objectives",
            width=6,
            height=5,
        ),
        bars(
            "Budget left",
            "Share of the period's budget. Below zero, it is overspent.",
            "percentunit",
            Query(_each("slo:period_error_budget_remaining:ratio", "min"), _NAME, instant=True),
            empty="no objectives",
            steps=((None, RED), (0.1, ORANGE), (0.5, GREEN)),
            high=1,
            decimals=2,
            width=12,
        ),
        bars(
            "Objective",
            "The required share of good events.",
            "percentunit",
            Query(_each("slo:objective:ratio"), _NAME, instant=True),
            empty="no objectives",
            high=1,
            decimals=4,
            width=12,
        ),
    ),
)

_BURN = Row(
    "Burning",
    (
        lines(
            "Budget left over time",
            "Of the whole period that ends at each moment.",
            "percentunit",
            Query(_each("slo:period_error_budget_remaining:ratio", "min"), _NAME),
            empty="no objectives",
            steps=((0.0, RED),),
            high=1,
            decimals=2,
        ),
        lines(
            "Burn rate",
            "Bad events against what is allowed, over five minutes: at 1 the budget lasts exactly for "
            "the period.",
            "none",
            Query(_each("slo:current_burn_rate:ratio"), _NAME),
            empty="no objectives",
            steps=((1.0, ORANGE), (14.4, RED)),
            low=0,
        ),
        lines(
            "Burn rate over the period",
            "The same over the whole period: above 1 the objective is missed.",
            "none",
            Query(_each("slo:period_burn_rate:ratio"), _NAME),
            empty="no objectives",
            steps=((1.0, RED),),
            low=0,
        ),
        states(
            "Alerts",
            "When a page or a ticket fired.",
            FIRING,
            Query(
                f'max by (cluster, namespace, alertname, sloth_slo, severity) (ALERTS{{{_OF}, alertstate="firing"}})',
                "{{cluster}} {{namespace}} {{sloth_slo}}: {{severity}}",
            ),
            empty="no alerts",
            height=8,
        ),
    ),
)

_WINDOWS = Row(
    "Bad events by window",
    tuple(
        lines(
            title,
            f"Share of bad events over {text}; the alerts compare two such windows with what is allowed.",
            "percentunit",
            *(Query(_each(f"slo:sli_error:ratio_rate{w}"), f"{_NAME}, {w}") for w in windows),
            empty="no events",
            low=0,
            width=12,
        )
        for title, text, windows in (
            ("For pages", "minutes to hours", ("5m", "30m", "1h", "6h")),
            ("For tickets", "hours to days", ("2h", "1d", "3d")),
        )
    ),
)

BOARD = Board(
    uid="understudy-slo",
    title="Understudy / Objectives and error budgets",
    text="Error budgets and burn rates by the recording rules of `understudy slo generate`.",
    choices=(SERVICE, SLO),
    rows=(_BUDGETS, _BURN, _WINDOWS),
    since="now-6h",
)
