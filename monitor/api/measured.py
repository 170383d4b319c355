"""What was measured, for charts and tables: arms now, their history, events, distributions."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Response

from understudy.monitor.api.answers import Refused, answer
from understudy.monitor.api.language_models import language_models
from understudy.monitor.health.drift.watch import ModelWatch
from understudy.monitor.health.gauges import ACCURACY, NAMES
from understudy.monitor.history.series import UNITS, course
from understudy.monitor.pipeline.plane import EvaluationPlane
from understudy.monitor.records.redaction import Redaction
from understudy.monitor.routing.serving import MINUTE, NOT_ERRORS, ArmService
from understudy.monitor.stats.distribution import Distribution, summary

_LONGEST = 31 * 86_400.0
_MOST_SERIES = 12
_MOST_SERVING = 20
TONES = {"ok": "good", "no_traffic": "neutral"}
"""How a state of an arm is shown; every other one is bad."""


def add_measured(app: FastAPI, plane: EvaluationPlane) -> None:
    """Add the routes."""

    @app.get("/v1/arms", tags=["status"])
    async def arms(
        text: Annotated[str, Query(max_length=256, description="Part of an arm's name.")] = "",
        sort: Annotated[Literal["trouble", "name"], Query(description="Order.")] = "trouble",
        limit: Annotated[int, Query(ge=1, le=1000, description="Maximum number.")] = 100,
    ) -> Response:
        """A row for each arm: its role now, what it should serve and does, and requests, errors and
        latencies of the last minute. `tone` is good, neutral, warn or bad; the rows in trouble come
        first. `tones` counts all arms, and `serving` are those that serve clients or should, the
        largest share of a model first; `text` does not change these. `language_models` are times,
        tokens and goodput of the arm's language models."""
        snapshot = await plane.fresh_snapshot()
        service, windows = plane.service(snapshot), plane.windows.copy()
        tokens = language_models(plane)

        def rows() -> list[dict[str, Any]]:
            durations = windows.sketches("duration", MINUTE)
            seconds = windows.covered(MINUTE)
            return _rows(service.arms, durations, seconds, tokens)

        every = await asyncio.to_thread(rows)
        found = [row for row in every if text.lower() in row["arm"].lower()]
        serving = [row for row in every if row["planned"] or row["served"]]
        serving.sort(key=lambda row: -(row["served"] or row["planned"]))
        if sort == "name":
            found.sort(key=lambda row: row["arm"])
        problems = plane.problems(snapshot)
        return answer(
            {
                "time": time.time(),
                "window_seconds": windows.covered(MINUTE),
                "ready": not problems,
                "problems": problems,
                "warnings": plane.warnings(service, snapshot),
                "matching": len(found),
                "total": len(every),
                "tones": Counter(row["tone"] for row in every),
                "serving": [
                    {key: row[key] for key in ("arm", "planned", "served", "tone")}
                    for row in serving[:_MOST_SERVING]
                ],
                "arms": found[:limit],
            }
        )

    @app.get("/v1/history", tags=["status"])
    async def history(
        series: Annotated[
            str, Query(max_length=512, description=f"Names, by commas: {', '.join(UNITS)}.")
        ] = "rate,error_rate,p50,p99",
        since: Annotated[
            float | None,
            Query(alias="from", description="Unix seconds, or if negative, seconds before `to`."),
        ] = None,
        until: Annotated[float | None, Query(alias="to", description="Default: now.")] = None,
        step: Annotated[
            float | None, Query(gt=0, le=_LONGEST, description="Seconds; default: by the range.")
        ] = None,
        model: Annotated[str | None, Query(max_length=256, description="Only of this.")] = None,
        arm: Annotated[str | None, Query(max_length=256, description="Only of this.")] = None,
        role: Annotated[
            Literal["primary", "mirror"] | None,
            Query(description="Requests of clients, or mirrored ones."),
        ] = None,
        column: Annotated[str | None, Query(max_length=256, description="Of a model.")] = None,
        fit: Annotated[
            bool, Query(description="Begin no earlier than what is kept, in finer steps.")
        ] = False,
    ) -> Response:
        """Series over time by model, arm and role, as far back as `history.max_size` allows: the
        last hour by default. A value is null where nothing was observed. Names of what is watched
        (statistic, spread, location, psi; accuracy, accuracy_low, accuracy_high,
        estimated_accuracy) give series by model and column, a value for each minute at most."""
        names = [name for name in (part.strip() for part in series.split(",")) if name]
        known = (*UNITS, *NAMES, *ACCURACY)
        wrong = [name for name in names if name not in known]
        if wrong or not 0 < len(names) <= _MOST_SERIES:
            raise Refused(422, f"series: {', '.join(wrong) or series!r}: 1 to {_MOST_SERIES} of "
                               f"{', '.join(known)}")  # fmt: skip
        end = time.time() if until is None else until
        begin = end - 3600.0 if since is None else since if since >= 0 else end + since
        if not 0.0 <= begin < end <= 1e11 or end - begin > _LONGEST:
            raise Refused(422, "from, to: `from` must be before `to`, by 31 days at most")
        return answer(
            await asyncio.to_thread(
                lambda: course(
                    plane.history,
                    names,
                    begin,
                    end,
                    step,
                    model=model,
                    arm=arm,
                    role=role,
                    column=column,
                    fit=fit,
                ).to_dict()
            )
        )

    @app.get("/v1/events", tags=["status"])
    async def events(
        after: Annotated[int, Query(ge=0, description="Only later ones: an `id`.")] = 0,
        limit: Annotated[int, Query(ge=1, le=1000, description="The newest so many.")] = 100,
    ) -> Response:
        """What happened lately, oldest first: changes of findings, steps of experiments, arms that
        changed their state, versions of models that answers say, and readiness. `last` is the id of
        the newest one."""
        found = described(plane, plane.events.after(after, limit))
        return answer({"events": found, "last": plane.events.last})

    @app.get("/v1/distributions", tags=["silent failure"])
    async def distributions(
        model: Annotated[str, Query(max_length=256, description="By default the only one.")] = "",
        version: Annotated[str, Query(max_length=63, description="By default the only one.")] = "",
        column: Annotated[
            str | None, Query(max_length=256, description="Only of this; default: all.")
        ] = None,
        limit: Annotated[int, Query(ge=1, le=1000, description="Maximum number.")] = 20,
    ) -> Response:
        """Shares of a model's columns in the baseline and in the window of recent rows, the largest
        drift first: for numbers by bins with their upper ends, for categories by name. Columns that
        a rule of `records.redact` hides have no values here."""
        loop = plane.pipeline.findings_loop
        fitting = [
            (key, watch)
            for key, watch in (loop.watches.watches.items() if loop is not None else ())
            if model in ("", key[0]) and version in ("", key[1])
        ]
        if len(fitting) != 1:
            there = loop.watches.watches if loop is not None else ()
            names = ", ".join(" ".join(key).strip() for key in there) or "none"
            raise Refused(
                404 if not fitting else 409,
                f"{len(fitting)} models fit; with a baseline there are: {names}",
            )
        ((name, its), watch) = fitting[0]
        columns = distributions_of(watch, plane.redaction, column)
        return answer({"model": name, "version": its, "matching": len(columns),
                       "columns": columns[:limit]})  # fmt: skip


def described(plane: EvaluationPlane, events: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Events with the titles of their findings, as far as these are still known."""
    loop = plane.pipeline.findings_loop
    titles = {
        one.id: one.signal.title for one in (loop.service.ledger.all() if loop is not None else ())
    }
    return [
        {**event, "title": titles.get(event["finding"])}
        if event["kind"] == "finding"
        else {**event}
        for event in events
    ]


# Arms ---------------------------------------------------------------------------------------------


def _rows(
    arms: Iterable[ArmService],
    durations: Mapping[tuple[tuple[str, str], ...], Distribution],
    seconds: float,
    tokens: Mapping[str, list[dict[str, Any]]],
) -> list[dict[str, Any]]:
    whole: dict[tuple[str, str], Distribution] = {}
    errors: dict[tuple[str, str], int] = {}
    for labels, distribution in durations.items():
        have = dict(labels)
        key = have.get("arm", ""), have.get("role", "")
        whole.setdefault(key, Distribution()).add(distribution)
        if have.get("outcome", "") not in NOT_ERRORS:
            errors[key] = errors.get(key, 0) + distribution.count
    rows = []
    for arm in arms:
        measured = "mirror" if arm.role in ("mirrored", "unused") else "primary"
        key = arm.arm, measured
        figures = summary(whole.get(key, Distribution()), seconds)
        failed = errors.get(key, 0)
        rows.append(
            {
                "arm": arm.arm,
                **arm.to_dict(),
                "mirror_breaker": dict(arm.mirror_breaker),
                "planned": arm.planned,
                "served": max((s.served for s in arm.shares if s.served is not None), default=None),
                "measured": measured,
                "requests": figures["count"],
                "errors": failed,
                "error_rate": failed / figures["count"] if figures["count"] else None,
                **{name: figures[name] for name in ("rate", "p50", "p99", "p99_9", "max")},
                "tone": tone_of(arm),
                "language_models": tokens.get(arm.arm, []),
            }
        )
    order = {"bad": 0, "warn": 1, "neutral": 2, "good": 2}
    rows.sort(key=lambda row: order[row["tone"]])  # otherwise as they are configured
    return rows


def tone_of(arm: ArmService) -> str:
    """Whether something is wrong with an arm: good, neutral, warn or bad."""
    if arm.diverted:
        return "bad"
    tone = TONES.get(arm.state, "bad")
    return "warn" if tone != "bad" and (arm.not_sent or arm.refused) else tone


# Distributions ------------------------------------------------------------------------------------


def distributions_of(
    watch: ModelWatch, redaction: Redaction, column: str | None = None
) -> list[dict[str, Any]]:
    """The series of a model, the largest drift first."""
    encoder, window = watch.encoder, watch.window
    statistic = watch.cusum.evidence().statistic
    alarmed = watch.drifted()
    now, missing = window.counts(), window.missing()
    found = []
    for number, name in enumerate(encoder.series):
        of = encoder.names[encoder.column_of[number]]
        if column is not None and column not in (name, of):
            continue
        hidden = redaction.hides(of)
        groups = max(len(window.uppers[number]), len(window.labels[number]))
        rows = int(now[number].sum())
        before = window.baseline[number]
        score = max(float(statistic[number]), float(statistic[len(encoder.series) + number]))
        found.append(
            {
                "series": name,
                "column": of,
                "role": encoder.columns[encoder.column_of[number]].role,
                "kind": "number" if window.uppers[number] else "category",
                "statistic": round(score, 4),
                "drifted": bool(alarmed[number]),
                "rows": rows,
                "missing": int(missing[number]),
                "hidden": hidden,
                "uppers": [] if hidden else list(window.uppers[number]),
                "labels": [] if hidden else list(window.labels[number]),
                "baseline": [] if hidden else _shares(before[:groups]),
                "window": [] if hidden else _shares(now[number][:groups]),
            }
        )
    return sorted(found, key=lambda one: (not one["drifted"], -one["statistic"]))


def _shares(counts: Any) -> list[float]:
    total = float(counts.sum())
    return [round(float(one) / total, 6) if total else 0.0 for one in counts]
