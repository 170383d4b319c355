"""Findings over the API: show, acknowledge, close, silence."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, FastAPI, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from understudy.monitor.api.answers import answer, refusal
from understudy.monitor.api.records import Wanted, recent
from understudy.monitor.config.runbooks import PUBLIC, alert_name, runbook_url
from understudy.monitor.errors import FindingError, FindingStateError, UnknownFindingError
from understudy.monitor.findings.finding import Finding, rank
from understudy.monitor.findings.incident import Incident
from understudy.monitor.findings.service import FindingsService
from understudy.monitor.findings.silences import LONGEST_SECONDS, MAX_PATTERN, Silence
from understudy.monitor.findings.words import moment
from understudy.monitor.pipeline.plane import EvaluationPlane

_MOST_CHANGES = 200
_Id = Annotated[str, Path(max_length=64, examples=["20261123T221530-7"])]


class Note(BaseModel):
    """Who, and why; stored with the finding."""

    model_config = ConfigDict(extra="forbid")

    who: str = Field(min_length=1, max_length=256, examples=["ada@example.org"])
    why: str = Field(default="", max_length=2000, examples=["the sensor was replaced"])


class Closing(Note):
    """Why a finding that is still firing is closed."""

    new_normal: bool = Field(
        default=False,
        description="The change is permanent: take a new baseline of the model.",
    )


class NewSilence(Note):
    """Which findings are silenced, and for how long."""

    pattern: str = Field(
        min_length=1,
        max_length=MAX_PATTERN,
        description="Pattern of the finding's key; `*` matches any text, `?` one character.",
        examples=["drift/delays/*"],
    )
    seconds: float = Field(gt=0, le=LONGEST_SECONDS, examples=[3600])


def add_findings(app: FastAPI, plane: EvaluationPlane, service: FindingsService) -> None:
    """Add the routes below /v1/findings, /v1/incidents and /v1/silences."""
    findings = APIRouter(prefix="/v1/findings", tags=["findings"])
    _show(findings, plane, service)
    _change(findings, service)
    app.include_router(findings)
    incidents = APIRouter(prefix="/v1/incidents", tags=["findings"])
    _incidents(incidents, service)
    app.include_router(incidents)
    silences = APIRouter(prefix="/v1/silences", tags=["findings"])
    _silences(silences, service)
    app.include_router(silences)

    @app.exception_handler(UnknownFindingError)
    async def unknown(_: Request, error: UnknownFindingError) -> Response:
        return refusal(404, str(error))

    @app.exception_handler(FindingStateError)
    async def impossible(_: Request, error: FindingStateError) -> Response:
        return refusal(409, str(error))

    @app.exception_handler(FindingError)
    async def invalid(_: Request, error: FindingError) -> Response:
        return refusal(422, str(error))


def document(finding: Finding, now: float, runbooks: str = PUBLIC) -> dict[str, Any]:
    """A finding for the API: times as unix seconds and as text. ``runbooks`` is the URL of the
    pages about alerts."""
    return {
        **finding.to_dict(),
        "silent": finding.open and finding.silent(now),
        "age_seconds": max(
            0.0, (now if finding.closed is None else finding.closed) - finding.opened
        ),
        "opened_at": moment(finding.opened),
        "since_at": moment(finding.signal.since) if finding.signal.since is not None else None,
        "links": {
            "self": f"/v1/findings/{finding.id}",
            "records": f"/v1/findings/{finding.id}/records",
            "timeline": f"/v1/findings/{finding.id}/timeline",
            "page": f"/?finding={finding.id}",
            "runbook": runbook_url(runbooks, alert_name(finding.signal.kind)),
        },
    }


def _show(router: APIRouter, plane: EvaluationPlane, service: FindingsService) -> None:
    ledger = service.ledger

    @router.get("")
    async def list_(
        state: Annotated[Literal["open", "closed", "all"], Query(description="Which.")] = "open",
        model: Annotated[
            str | None, Query(max_length=256, description="Only of this model.")
        ] = None,
        severity: Annotated[
            Literal["info", "warning", "critical"], Query(description="Minimum severity.")
        ] = "info",
        limit: Annotated[int, Query(ge=1, le=2000, description="Maximum number.")] = 100,
    ) -> Response:
        """Findings: open ones by severity, then closed ones, the last first.
        `open` counts all that are open, by severity; `not_tested` lists what is declared and
        cannot have a finding at present, with the reason."""
        now = time.time()
        findings = {"open": ledger.open, "closed": ledger.closed, "all": ledger.all}[state]()
        chosen = [
            finding
            for finding in findings
            if model in (None, finding.signal.model) and finding.severity >= rank(severity)
        ]
        counts = {"critical": 0, "warning": 0, "info": 0}
        for finding in ledger.open():
            counts[finding.signal.severity] += 1
        return answer(
            {
                "findings": [document(finding, now) for finding in chosen[:limit]],
                "matching": len(chosen),
                "open": counts,
                "forgotten": ledger.forgotten,
                "channels": service.notifier.summary(),
                "not_tested": [one for one in _untested(plane) if model in (None, one["model"])],
            }
        )

    @router.get("/history")
    async def history(
        before: Annotated[
            int | None, Query(ge=1, description="`next` of the page before; without it the newest.")
        ] = None,
        finding: Annotated[
            str | None, Query(max_length=64, description="Only of this finding or incident.")
        ] = None,
        model: Annotated[
            str | None, Query(max_length=256, description="Only of this model.")
        ] = None,
        limit: Annotated[int, Query(ge=1, le=1000, description="Changes of a page, about.")] = 100,
    ) -> Response:
        """Every change of every finding, the newest first, as far back as
        `monitoring.history_size` and `monitoring.history_days` keep it on disk. `next` begins the
        next page; it is null on the last one."""
        kept = service.history
        changes: list[dict[str, Any]] = []
        following = None
        if kept is not None:
            # Reads files: not in the event loop.
            changes, following = await asyncio.to_thread(kept.page, before, limit, finding, model)
        retention = kept.retention if kept is not None else None
        return answer(
            {
                "changes": [
                    {**one, "at_time": moment(one["at"]) if one["at"] is not None else None}
                    for one in changes
                ],
                "next": following,
                "max_bytes": retention.max_bytes if retention is not None else 0,
                "max_days": retention.max_days if retention is not None else 0,
            }
        )

    @router.get("/{id}")
    async def show(id: _Id) -> Response:
        """One finding: what, since when, how large, which features, and what to look at next. Also
        an old one, as far back as the history reaches."""
        finding = await asyncio.to_thread(service.find, id)
        return answer(document(finding, time.time(), service.notifier.runbooks))

    @router.get("/{id}/records")
    async def records(
        id: _Id,
        raw: Annotated[bool, Query(description="Include payloads, redacted.")] = False,
    ) -> Response:
        """The finding's example requests, as `/v1/records` shows them, as far as they are still
        kept."""
        wanted = ledger.find(id).signal.examples
        chosen = Wanted(ids=frozenset(wanted))
        available = recent(plane, plane.settings.keep, raw, chosen)[0] if wanted else []
        available_ids = {record["request_id"] for record in available}
        return answer(
            {"records": available, "gone": [one for one in wanted if one not in available_ids]}
        )

    @router.get("/{id}/timeline")
    async def timeline(id: _Id) -> Response:
        """Every change of one finding, the oldest first, as far back as the history reaches: how
        severe and how large it was, and who did what."""
        finding = await asyncio.to_thread(service.find, id)
        kept = service.history
        changes: list[dict[str, Any]] = []
        if kept is not None:
            changes, _ = await asyncio.to_thread(kept.page, None, _MOST_CHANGES, finding.id)
        return answer({"changes": [_revision(one) for one in reversed(changes)]})


def _revision(change: dict[str, Any]) -> dict[str, Any]:
    finding = change["finding"]
    notes = [one for one in finding["notes"] if one["at"] == change["at"]]
    return {
        "at": change["at"],
        "at_time": moment(change["at"]) if change["at"] is not None else None,
        "event": change["event"],
        "change": change["change"],
        "revision": finding["revision"],
        "severity": finding["severity"],
        "title": finding["title"],
        "size": finding["size"],
        "who": notes[-1]["who"] if notes else None,
        "why": notes[-1]["why"] if notes else None,
    }


def _untested(plane: EvaluationPlane) -> list[dict[str, Any]]:
    loop = plane.pipeline.findings_loop
    return loop.watches.untested() if loop is not None else []


def _change(router: APIRouter, service: FindingsService) -> None:
    @router.post("/{id}/acknowledge")
    async def acknowledge(id: _Id, note: Note) -> Response:
        """Acknowledge a finding: no reminders until it gets worse."""
        return answer(document(service.acknowledge(id, note.who, note.why), time.time()))

    @router.post("/{id}/close")
    async def close(id: _Id, closing: Closing) -> Response:
        """Close a finding that is still firing. It reopens when it recurs after it went away, or
        when it gets worse."""
        closed = service.close(id, closing.who, closing.why, closing.new_normal)
        return answer(document(closed, time.time()))


def incident_document(incident: Incident, now: float) -> dict[str, Any]:
    """An incident for the API, with its findings."""
    ended = now if incident.closed is None else incident.closed
    return {
        **incident.to_dict(),
        "age_seconds": max(0.0, ended - incident.opened),
        "opened_at": moment(incident.opened),
        "since_at": moment(incident.since) if incident.since is not None else None,
        "findings": [document(finding, now) for finding in incident.findings],
        "links": {"self": f"/v1/incidents/{incident.id}"},
    }


def _incidents(router: APIRouter, service: FindingsService) -> None:
    ledger = service.ledger

    @router.get("")
    async def list_(
        state: Annotated[Literal["open", "closed", "all"], Query(description="Which.")] = "open",
        model: Annotated[
            str | None, Query(max_length=256, description="Only of this model.")
        ] = None,
        severity: Annotated[
            Literal["info", "warning", "critical"], Query(description="Minimum severity.")
        ] = "info",
        limit: Annotated[int, Query(ge=1, le=1000, description="Maximum number.")] = 100,
    ) -> Response:
        """Incidents with their findings: findings of a model that opened close together. Open ones
        first, by severity, then closed ones, the last first."""
        now = time.time()
        chosen = [
            incident
            for incident in ledger.all_incidents()
            if (state == "all" or incident.open == (state == "open"))
            and model in (None, incident.lead.signal.model)
            and incident.severity >= rank(severity)
        ]
        shown = [incident_document(incident, now) for incident in chosen[:limit]]
        return answer({"incidents": shown, "matching": len(chosen)})

    @router.get("/{id}")
    async def show(id: _Id) -> Response:
        """One incident with its findings."""
        return answer(incident_document(ledger.incident(id), time.time()))

    @router.post("/{id}/acknowledge")
    async def acknowledge(id: _Id, note: Note) -> Response:
        """Acknowledge all open findings of an incident: no reminders until one gets worse or
        another one joins."""
        incident = service.acknowledge_incident(id, note.who, note.why)
        return answer(incident_document(incident, time.time()))


def _silences(router: APIRouter, service: FindingsService) -> None:
    @router.get("")
    async def list_() -> Response:
        """The active silences."""
        return answer({"silences": [_silence(one) for one in service.silences()]})

    @router.post("", status_code=201)
    async def silence(new: NewSilence) -> Response:
        """Silence findings whose key matches a pattern, for a while. They still open and close,
        without notifications."""
        return answer(_silence(service.silence(new.pattern, new.seconds, new.who, new.why)), 201)

    @router.delete("/{id}")
    async def end(id: Annotated[str, Path(max_length=64, examples=["s1"])]) -> Response:
        """End a silence early."""
        return answer(_silence(service.end_silence(id)))


def _silence(silence: Silence) -> dict[str, Any]:
    return {
        "id": silence.id,
        "pattern": silence.pattern,
        "until": silence.until,
        "until_at": moment(silence.until),
        "who": silence.who,
        "why": silence.why,
        "at": silence.at,
    }
