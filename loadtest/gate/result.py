"""The results of a gate, by stage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from understudy.loadtest.engine.outcome import Outcome
from understudy.loadtest.gate.verdict import Criterion

Verdict = Literal["passed", "failed", "invalid", "shown"]
EXIT_CODES = {"passed": 0, "shown": 0, "failed": 1, "invalid": 2}
FORMAT = "understudy-gate"


@dataclass(slots=True)
class StageResult:
    """The result of a stage. ``why`` lists the reasons for a verdict other than "passed"; ``data``
    is specific to the kind of the stage; ``windows`` are the faults, (start, end, name) in seconds
    from the start of the stage."""

    name: str
    kind: str
    verdict: Verdict
    why: list[str] = field(default_factory=list)
    criteria: list[Criterion] = field(default_factory=list)
    outcome: Outcome | None = None
    data: dict[str, Any] = field(default_factory=dict)
    windows: list[tuple[float, float, str]] = field(default_factory=list)
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        outcome = self.outcome
        result: dict[str, Any] = {
            "name": self.name,
            "kind": self.kind,
            "verdict": self.verdict,
            "why": self.why,
            "seconds": self.seconds,
            "criteria": [one.to_dict() for one in self.criteria],
            **self.data,
        }
        if self.windows:
            result["windows"] = [list(window) for window in self.windows]
        if outcome is not None:
            width = max(0.25, outcome.seconds / 240.0)
            result["load"] = outcome.summary()
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

    @property
    def verdict(self) -> Verdict:
        """Failed if a stage failed; else invalid if a stage is invalid or the gate ended early."""
        verdicts = {stage.verdict for stage in self.stages}
        if "failed" in verdicts:
            return "failed"
        return "invalid" if "invalid" in verdicts or self.broken or not verdicts else "passed"

    @property
    def exit_code(self) -> int:
        """0 passed, 1 failed, 2 inconclusive."""
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
            "broken": self.broken,
            "notes": self.notes,
            "environment": self.environment,
            "stages": [stage.to_dict() for stage in self.stages],
        }
