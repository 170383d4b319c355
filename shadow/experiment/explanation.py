"""Why a decision is what it is, and what to do now: one explanation, which every view shows.

Pure: what is known beside the evidence is passed in as a :class:`Situation`. How many requests are
still missing is read off the evidence so far. The log of an e-value is about normal, with a mean
that grows evenly with the records and a variance of twice the mean (as a log-likelihood ratio); so
the growth so far predicts the rest, with a range, and at little evidence no upper end is known.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from understudy.shadow.experiment.challenger import Evidence
from understudy.shadow.experiment.decision import (
    HARM,
    LIMIT,
    NO_IMPROVEMENT,
    OPERATOR,
    SPLIT,
    Decision,
    why_blind,
)
from understudy.shadow.experiment.rules import Rules

_LEAST_EVIDENCE = 1.0
"""A log e-value below this says too little about its growth."""
_Z = 1.2816
"""Of the range of an estimate: four of five cases."""

OUTCOMES = {
    HARM: "roll back: harm",
    NO_IMPROVEMENT: "stop: no improvement",
    LIMIT: "stop: limit reached",
    OPERATOR: "ended by a person",
}
"""A rollback in three words, by its cause: want of improvement is not harm."""
_HEADLINES = {
    HARM: ("Roll back: the challenger is worse", "bad"),
    NO_IMPROVEMENT: (
        "Stop: the target improvement has been ruled out; no harm is proven",
        "neutral",
    ),
    LIMIT: ("Stop: the limit was reached without a decision; no harm is proven", "neutral"),
    OPERATOR: ("A person ended the experiment", "neutral"),
    SPLIT: ("Invalid: the arms did not get the shares that were configured", "bad"),
}
_LOOK = {
    "error": "compare the failed requests of both arms by outcome and status, in the log of the "
    "model server and with `understudy records show`",
    "timeout": "compare the load and the time limits of both model servers",
    "latency": "compare load, CPU and batching of both model servers, and exclude their start",
    "disagreement": "read the worst disagreements in the report",
    "cost": "check the costs that are declared for both arms",
}
_LOOK_LABELS = (
    "compare the wrong predictions of both arms, by segment, and the delay of their labels"
)
_LOOK_OUTPUT = "compare the outputs of both arms in the report, and the inputs they got"
_NO_DATA = {
    "labels": "post labels to /v1/feedback; `label` in the configuration says how they are read",
    "pairs": "both arms have to answer the same mirrored requests with readable outputs",
}


@dataclass(frozen=True, slots=True)
class Arm:
    """``counted`` units of an arm, and how many its share lets ``expect`` (None in the shadow)."""

    name: str
    counted: int
    expected: float | None = None


@dataclass(frozen=True, slots=True)
class Situation:
    """What is known of one challenger beside its evidence.

    ``requests`` are its own in the ``mode`` of its stage, ``rate`` how many come per second at
    present (None: not known, as in a file). ``arms`` is the champion and then the challengers,
    counted in ``unit``. ``phase`` is that of the rollout; ``missing_requests`` and
    ``missing_seconds`` what the present stage takes at least from now on.
    """

    experiment: str
    challenger: str
    mode: str
    requests: int
    rate: float | None = None
    arms: tuple[Arm, ...] = ()
    unit: str = "requests"
    phase: str = "running"
    missing_requests: int = 0
    missing_seconds: float = 0.0
    seconds: float = math.inf
    """How long the challenger has had traffic."""
    left_out: int = 0
    """Requests that were not evaluated."""
    unanswered: str = ""
    """In a split: assigned requests that have no answer yet, by arm; "" without any."""


@dataclass(frozen=True, slots=True)
class Remaining:
    """The challenger's own requests until the last claim is about to be proven, from now on.

    ``least`` and ``most`` hold in about four of five cases; ``most`` is None where no upper end is
    known yet. The same in ``seconds`` at the present rate, None without one. Where units are
    assigned, it is units that are counted.
    """

    metric: str
    likely: float
    least: float
    most: float | None
    rate: float | None
    unit: str = "requests"

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        rate = self.rate
        return {
            "metric": self.metric,
            "requests": {
                "likely": math.ceil(self.likely),
                "least": math.floor(self.least),
                "most": math.ceil(self.most) if self.most is not None else None,
            },
            "seconds": {
                "likely": self.likely / rate,
                "least": self.least / rate,
                "most": self.most / rate if self.most is not None else None,
            }
            if rate
            else None,
        }

    def __str__(self) -> str:
        least = _about(self.least)
        ends = f"{least} to {_about(self.most)}" if self.most is not None else f"at least {least}"
        text = f"about {_about(self.likely)} more {self.unit} ({ends})"
        if self.rate is None:
            return text
        if not self.rate:
            return f"{text}; none arrive at present"
        return f"{text}, {_lasting(self.likely / self.rate)} at the present rate"


@dataclass(frozen=True, slots=True)
class Explanation:
    """``headline`` is the decision in one line, with its ``tone`` (good, bad, neutral, open);
    ``outcome`` the same in two or three words. ``why`` gives its grounds, ``next`` what to look at,
    to do, or to wait for. ``remaining`` is None where it cannot be told, or nothing is missing."""

    outcome: str
    headline: str
    tone: str
    why: tuple[str, ...]
    next: tuple[str, ...]
    remaining: Remaining | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "outcome": self.outcome,
            "headline": self.headline,
            "tone": self.tone,
            "why": list(self.why),
            "next": list(self.next),
            "remaining": self.remaining.to_dict() if self.remaining is not None else None,
        }


def outcome_of(verdict: str, cause: str) -> str:
    """The decision in two or three words: a rollback names its cause."""
    return OUTCOMES.get(cause, "roll back") if verdict == "rollback" else verdict


def tone_of(verdict: str, cause: str) -> str:
    """How a view shows a decision: good, bad, neutral or open."""
    if verdict in ("promote", "continue"):
        return {"promote": "good", "continue": "open"}[verdict]
    return _HEADLINES.get(cause, ("", "bad"))[1]


def explain(rules: Rules, decision: Decision, situation: Situation) -> Explanation:
    """Why the decision is what it is, and what to look at, do or wait for."""
    verdict, cause = decision.verdict, decision.cause
    why, following = list(decision.reasons), list(_next(rules, decision, situation))
    remaining = None
    if verdict == "continue" and cause != LIMIT:
        why = [*_open_grounds(decision, situation)]
        remaining = slowest(rules, decision, situation)
    if verdict != "continue" or situation.requests:
        why += _counted(situation)
    return Explanation(
        outcome_of(verdict, cause),
        _headline(decision, situation),
        tone_of(verdict, cause),
        tuple(why),
        tuple(following),
        remaining,
    )


def _headline(decision: Decision, situation: Situation) -> str:
    verdict, cause = decision.verdict, decision.cause
    if verdict == "continue":
        if not situation.requests:
            return "Nothing could be compared yet" if situation.left_out else "No traffic yet"
        return "Undecided at its limit" if cause == LIMIT else "Not decided yet"
    if verdict == "promote":
        if any(i.status == "passed" and i.hypothesis.role == "success" for i in decision.evidence):
            return "Promote: the challenger is better"
        return "Promote: the challenger is not worse than its margins allow"
    if cause in _HEADLINES:
        return _HEADLINES[cause][0]
    return "Roll back" if verdict == "rollback" else "Invalid: the comparison cannot be trusted"


def _open_grounds(decision: Decision, situation: Situation) -> Iterator[str]:
    if not situation.requests and not situation.left_out:
        yield "the challenger has had no requests"
        return
    yield from decision.reasons
    proven = [i.name for i in decision.evidence if i.status == "passed"]
    if proven:
        yield f"already proven: {', '.join(proven)}"


def _counted(situation: Situation) -> list[str]:
    """Expected and counted units by arm."""
    if situation.mode == "shadow":
        missing = situation.left_out
        others = f"; {missing:,} requests were not evaluated" if missing else ""
        return [f"pairs compared: {situation.requests:,}{others}"]
    waiting = [situation.unanswered] if situation.unanswered else []
    if not situation.arms:
        return waiting
    parts = []
    for arm in situation.arms:
        expected = f" of {arm.expected:,.0f} expected" if arm.expected is not None else ""
        parts.append(f"{arm.name} {arm.counted:,}{expected}")
    return [f"{situation.unit} counted: {', '.join(parts)}", *waiting]


def _next(rules: Rules, decision: Decision, situation: Situation) -> Iterator[str]:
    verdict, cause = decision.verdict, decision.cause
    if verdict == "continue":
        yield from _limited(situation) if cause == LIMIT else _missing(rules, decision, situation)
    elif verdict == "promote":
        yield from _promotion(situation)
    elif cause == HARM:
        for item in decision.evidence:
            if item.status == "harmed":
                yield f"{item.name}: {_look(item)}"
        yield "take the challenger down, fix it, and start a new experiment under a new name"
    elif cause == NO_IMPROVEMENT:
        yield "keep the champion: the challenger may be as good, but not better by the target"
        yield (
            "to look for a smaller improvement, start a new experiment with a smaller `effect`; "
            "`understudy experiment plan` says how many requests it takes"
        )
    elif cause == LIMIT:
        yield from _limited(situation)
    elif cause == SPLIT:
        yield (
            "find out why units of one arm are missing or come twice: overrides, retries, a cache "
            "or a router in front, clients that do not come back"
        )
        yield (
            "fix it, then restart the evidence of split traffic: understudy experiment resume "
            f"{situation.experiment}"
            if situation.phase == "paused"
            else "fix it and start a new experiment: no number of this one can be trusted"
        )
    elif cause == OPERATOR:
        yield "the audit log says who ended it, and why"


def _limited(situation: Situation) -> Iterator[str]:
    yield (
        "the evidence is not enough either way: raise `max_duration` or `max_requests`, or accept "
        "a larger margin or effect"
    )


def _promotion(situation: Situation) -> Iterator[str]:
    name = situation.experiment
    if situation.phase == "promoted":
        yield (
            f"make {situation.challenger} the champion in the configuration, then remove the "
            "experiment"
        )
    elif situation.phase == "waiting":
        yield f"approve it: understudy experiment promote {name} --why '…'"
    elif situation.phase == "paused":
        yield f"the rollout is paused: understudy experiment resume {name}"
    else:
        yield from _stage(situation)
        yield "the rollout moves on by itself where its stages allow"


def _stage(situation: Situation) -> Iterator[str]:
    if situation.missing_requests:
        need = f"the stage takes {situation.missing_requests:,} more {situation.unit}"
        if situation.rate:
            need += f", {_lasting(situation.missing_requests / situation.rate)} at the present rate"
        yield need
    if situation.missing_seconds > 0.0:
        yield f"the stage lasts {_lasting(situation.missing_seconds)} more"


def _missing(rules: Rules, decision: Decision, situation: Situation) -> Iterator[str]:
    if situation.phase == "waiting":
        yield (
            "the stage waits for approval: understudy experiment promote "
            f"{situation.experiment} --why '…'"
        )
    elif situation.phase == "paused":
        yield f"the rollout is paused: understudy experiment resume {situation.experiment}"
    if not situation.requests:
        yield (
            "check that requests reach the service, and that the challenger takes part in them "
            "(its share, or its mirror)"
        )
        return
    if situation.rate == 0.0:
        yield "no requests arrive at present: check the traffic and the challenger's breaker"
    for item in decision.evidence:
        if item.status == "no data":
            need = _NO_DATA.get(item.hypothesis.metric.needs) or item.note
            need = need or "check that its values are recorded"
            yield f"{item.name} has no data: {need}"
        elif item.status == "blind" and min(item.records) == 0:
            yield f"{item.name} is blind: {why_blind(item)}"
        elif item.status in ("undecided", "futile", "blind") and item.decides:
            yield _still(rules, item, situation)
    if situation.seconds < rules.min_seconds:
        left = rules.min_seconds - situation.seconds
        yield f"`minimum_duration` is reached in {_lasting(left)}"
    if situation.requests < rules.minimum:
        missing = rules.minimum - situation.requests
        yield f"{missing:,} more {situation.unit} until `minimum` is reached"
    yield from _stage(situation)


def _still(rules: Rules, item: Evidence, situation: Situation) -> str:
    needed = 1.0 / rules.alpha
    have = f"evidence {math.exp(min(max(item.log_pass, 0.0), 700.0)):.3g} of {needed:.3g}"
    text = f"to be proven: {item.hypothesis.describe()} ({have})"
    remaining = remaining_of(rules, item, situation)
    if remaining is not None:
        return f"{text}: {remaining}"
    reason = item.note or "there is too little evidence to tell from"
    return f"{text}: cannot be told yet when ({reason})"


def remaining_of(rules: Rules, item: Evidence, situation: Situation) -> Remaining | None:
    """Requests until one claim is about to be proven; None where it cannot be told."""
    log_e, n = item.log_pass, item.records[1]
    if n == 0 or log_e < _LEAST_EVIDENCE or not situation.requests:
        return None
    goal = -math.log(rules.alpha) - log_e
    per = situation.requests  # a metric with few values, such as labels, grows with them
    if goal <= 0.0:
        return Remaining(item.name, 0.0, 0.0, 0.0, situation.rate, situation.unit)
    least, most = _range(log_e, goal)
    return Remaining(
        item.name,
        per * goal / log_e,
        per * least,
        per * most if most is not None else None,
        situation.rate,
        situation.unit,
    )


def _range(log_e: float, goal: float) -> tuple[float, float | None]:
    """Ends of the time until ``goal`` more evidence, in units of the time so far.

    After t, the gain is normal with mean L t and variance 2 L (t^2 + t): the growth is known to
    2 L, the rest is noise. The ends solve (L t - goal)^2 = z^2 2 L (t^2 + t).
    """
    spread = 2.0 * log_e * _Z * _Z
    a = log_e * log_e - spread
    b = -(2.0 * log_e * goal + spread)
    c = goal * goal
    root = math.sqrt(max(b * b - 4.0 * a * c, 0.0))
    # The small root is stable as 2c / (-b + root), whatever the sign of a.
    return 2.0 * c / (-b + root), ((-b + root) / (2.0 * a) if a > 0.0 else None)


def slowest(rules: Rules, decision: Decision, situation: Situation) -> Remaining | None:
    """What is still missing until a promotion; None where any of it cannot be told.

    With ``promote: any`` the quickest success counts, otherwise all of them.
    """
    needed = [i for i in decision.evidence if i.decides and not i.hypothesis.watches]
    successes = [i for i in needed if i.hypothesis.role == "success"]
    estimates = [
        remaining_of(rules, i, situation) for i in needed if i.hypothesis.role == "guardrail"
    ]
    if successes:
        of_successes = [remaining_of(rules, i, situation) for i in successes]
        if rules.promote == "any":
            known = [r for r in of_successes if r is not None]
            of_successes = [min(known, key=lambda r: r.likely)] if known else [None]
        estimates += of_successes
    missing = max(rules.minimum - situation.requests, 0)
    if missing:
        still = (missing, missing, missing, situation.rate, situation.unit)
        estimates.append(Remaining("minimum", *still))
    if any(r is None for r in estimates):
        return None
    return max((r for r in estimates if r is not None), key=lambda r: r.likely, default=None)


def _look(item: Evidence) -> str:
    metric = item.hypothesis.metric
    if metric.needs == "labels":
        return _LOOK_LABELS
    return _LOOK.get(item.hypothesis.column, _LOOK_OUTPUT)


def _about(number: float) -> str:
    """Two digits: the estimate is not better than that."""
    if number < 100:
        return f"{math.ceil(number):,}"
    digits = 10 ** (math.floor(math.log10(number)) - 1)
    return f"{round(number / digits) * digits:,}"


def _lasting(seconds: float) -> str:
    for size, name in ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if seconds >= 2.0 * size:
            return f"about {seconds / size:.2g} {name}"
    return f"about {max(1, round(seconds))} seconds"
