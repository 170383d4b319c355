"""The results of a gate, by stage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from understudy.loadtest.engine.outcome import Outcome
from understudy.loadtest.gate import stream_times
from understudy.loadtest.gate.verdict import Criterion, Verdict

EXIT_CODES: dict[Verdict, int] = {
    "passed": 0, "shown": 0, "failed": 1, "invalid": 2, "not measured": 2
}  # fmt: skip
FORMAT = "understudy-gate"
NOTHING_JUDGED = (
    "no stage is judged, so nothing can pass: give a stage objectives, or add --no-verdict to only "
    "show results"
)


@dataclass(slots=True)
class StageResult:
    """The result of a stage. ``why`` lists the reasons for a verdict other than "passed"; ``data``
    is specific to the kind of the stage, ``facts`` are its main figures as texts; ``windows`` are
    the faults, (start, end, name) in seconds from the start of the stage.

    ``late``: the load generator was at fault, so that another attempt may succeed. ``earlier`` is
    the first attempt of a stage that was repeated, and ``repeated`` what was changed for the
    second."""

    name: str
    kind: str
    verdict: Verdict
    why: list[str] = field(default_factory=list)
    criteria: list[Criterion] = field(default_factory=list)
    outcome: Outcome | None = None
    data: dict[str, Any] = field(default_factory=dict)
    windows: list[tuple[float, float, str]] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)
    seconds: float = 0.0
    late: bool = False
    repeated: str = ""
    earlier: StageResult | None = None

    @property
    def attempts(self) -> list[StageResult]:
        """All attempts, the last one last."""
        return [*(self.earlier.attempts if self.earlier is not None else ()), self]

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        outcome = self.outcome
        result: dict[str, Any] = {
            "name": self.name,
            "kind": self.kind,
            "verdict": self.verdict,
            "why": self.why,
            "facts": self.facts,
            "seconds": self.seconds,
            "late": self.late,
            "criteria": [one.to_dict() for one in self.criteria],
            **self.data,
        }
        if self.earlier is not None:
            result["repeated"] = self.repeated
            result["earlier"] = self.earlier.to_dict()
        if self.windows:
            result["windows"] = [list(window) for window in self.windows]
        if outcome is not None:
            width = max(0.25, outcome.seconds / 240.0)
            result["load"] = outcome.summary()
            if outcome.streams:
                result["streams"] = stream_times.summary(outcome)
            result["series"] = {"width": width, "points": outcome.series(width)}
            result["histogram"] = outcome.latencies.to_dict()
        return result


@dataclass(slots=True)
class Result:
    """The result of a gate. ``notes`` lists what was skipped, and why; ``begun`` is in unix
    seconds."""

    target: str
    plan: str
    begun: float
    environment: dict[str, Any]
    stages: list[StageResult] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    broken: str = ""
    """Why the gate ended early, or empty."""
    judged: bool = True
    """Whether a verdict was asked for; without one, results are only shown."""

    @property
    def verdict(self) -> Verdict:
        """Failed if a stage failed; passed if a stage passed and all the others passed or were
        only shown. "not measured": a stage had no objective or no good answer, or no stage was
        judged. Else invalid: a stage is, or the gate ended early."""
        verdicts = {stage.verdict for stage in self.stages}
        if "failed" in verdicts:
            return "failed"
        if "not measured" in verdicts or not verdicts:
            return "not measured"
        if "invalid" in verdicts or self.broken:
            return "invalid"
        if "passed" in verdicts:
            return "passed"
        return "not measured" if self.judged else "shown"

    @property
    def why(self) -> str:
        """Why the gate as a whole has no verdict, where no stage says it; else an empty text."""
        if self.broken:
            return self.broken
        if self.verdict == "not measured" and {one.verdict for one in self.stages} <= {"shown"}:
            return NOTHING_JUDGED
        return ""

    @property
    def exit_code(self) -> int:
        """0 passed (or shown, where no verdict was asked for), 1 failed, 2 no verdict."""
        return EXIT_CODES[self.verdict]

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "format": FORMAT,
            "version": 1,
            "target": self.target,
            "plan": self.plan,
            "begun": self.begun,
            "verdict": self.verdict,
            "why": self.why,
            "broken": self.broken,
            "notes": self.notes,
            "environment": self.environment,
            "stages": [stage.to_dict() for stage in self.stages],
        }
