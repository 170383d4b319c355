"""From evidence to a verdict, with its reasons.

Errors that are bounded, at every stopping time and however often somebody looks:

* A challenger for which some needed claim is false is promoted with probability at most alpha: all
  claims have to be shown at level alpha (an intersection-union test, Berger 1982, needs no further
  correction). With ``promote: any`` the successes are corrected by closed testing on their e-values
  with the shares of alpha as weights. With several challengers what each has shown least is again
  an e-value, and these are corrected in the same way.
* A challenger that harms nothing is rolled back by the statistics with probability at most alpha:
  evidence of harm is corrected over the metrics by closed testing (Vovk & Wang; arXiv:2504.11759).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from understudy.shadow.experiment.challenger import Evidence, e_value
from understudy.shadow.experiment.hypothesis import Statistic
from understudy.shadow.experiment.margin import Unit
from understudy.shadow.experiment.odds import null_of_harm, null_to_pass, odds
from understudy.shadow.experiment.rules import Rules
from understudy.shadow.sequential import familywise

VERDICTS = ("promote", "rollback", "continue", "invalid")
HARM, NO_IMPROVEMENT, LIMIT, SPLIT, OPERATOR = (
    "harm",
    "no_improvement",
    "limit",
    "split",
    "operator",
)
CAUSES = (HARM, NO_IMPROVEMENT, LIMIT, SPLIT, OPERATOR)
"""Why a verdict is what it is, where the verdict alone leaves that open: a ``rollback`` because
harm is proven, because the target improvement has been ruled out, because a limit was reached
without a decision, or because a person ended it; ``invalid`` because of the split."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict; ``strength`` is the smallest log e-value among the requirements of a promotion.

    ``cause`` is one of :data:`CAUSES`, or "" where the verdict says it all.
    """

    verdict: str
    reasons: tuple[str, ...]
    evidence: tuple[Evidence, ...] = ()
    strength: float = 0.0
    cause: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "decision": self.verdict,
            "cause": self.cause,
            "reasons": list(self.reasons),
            "metrics": [item.to_dict() for item in self.evidence],
        }


def decide(
    rules: Rules,
    evidence: Sequence[Evidence],
    requests: int,
    seconds: float,
    unit: str = "requests",
    left_out: Sequence[str] = (),
) -> Decision:
    """The verdict on one challenger from the evidence of one mode.

    ``requests`` are the challenger's own, counted in ``unit`` ("requests" or "units"); ``seconds``
    is how long the experiment has run. ``left_out`` says which requests were not evaluated, and
    why. Without a request it is always "continue".
    """
    if requests == 0:
        return Decision("continue", (*left_out,) or ("no traffic yet",), tuple(evidence))
    goal = -math.log(rules.alpha)
    shown = [replace(item, status="shown") for item in evidence if not item.decides]
    evidence = [item for item in evidence if item.decides]
    shares = [item.hypothesis.alpha for item in evidence]
    harm = familywise([item.log_harm for item in evidence], shares)
    wins = _adjusted_wins(rules, evidence)
    tested = [
        replace(item, status=_status(item, float(h) >= goal, w >= goal))
        for item, h, w in zip(evidence, harm, wins, strict=True)
    ]
    strength = _strength(rules, tested, wins)
    marked = [*tested, *shown]
    harmed = [item for item in marked if item.status == "harmed"]
    if harmed:
        reasons = tuple(_harm(item) for item in harmed)
        return Decision("rollback", reasons, tuple(marked), strength, HARM)
    successes = [item for item in marked if item.hypothesis.role == "success"]
    futile = [item for item in successes if item.status == "futile"]
    if futile and (rules.promote == "all" or len(futile) == len(successes)):
        reasons = tuple(_futile(item) for item in futile)
        return Decision("rollback", reasons, tuple(marked), strength, NO_IMPROVEMENT)
    waiting = _too_early(rules, requests, seconds, unit)
    if rules.shadow_only:
        waiting += _doubtful(shown, goal)
    if strength >= goal and not waiting:
        passed = tuple(_passed(item) for item in marked if item.status == "passed")
        return Decision("promote", (*passed, *left_out), tuple(marked), strength)
    if seconds >= rules.max_seconds or requests >= rules.max_requests:
        limit = "time" if seconds >= rules.max_seconds else "request"
        open_ = ", ".join(
            i.name for i in marked if i.status not in ("passed", "ok so far", "shown")
        )
        reason = f"the {limit} limit was reached without a decision on: {open_}"
        verdict = "rollback" if rules.at_end == "rollback" else "continue"
        return Decision(verdict, (reason,), tuple(marked), strength, LIMIT)
    reasons = (*left_out, *waiting, *_undecided(rules, marked)) or ("no decision yet",)
    return Decision("continue", reasons, tuple(marked), strength)


def correct_promotions(rules: Rules, decisions: Sequence[Decision]) -> list[Decision]:
    """The same with several challengers: promotions have to survive the correction for their
    number. At most one is promoted, the one with the strongest evidence."""
    if len(decisions) < 2:
        return list(decisions)
    goal = -math.log(rules.alpha)
    adjusted = familywise([d.strength for d in decisions])
    corrected = [
        replace(
            d,
            verdict="continue",
            reasons=("evidence suffices for one challenger, but not yet among several",),
        )
        if d.verdict == "promote" and float(a) < goal
        else d
        for d, a in zip(decisions, adjusted, strict=True)
    ]
    promoted = [i for i, d in enumerate(corrected) if d.verdict == "promote"]
    for i in sorted(promoted, key=lambda i: -_rank(corrected[i]))[1:]:
        corrected[i] = replace(
            corrected[i], verdict="continue", reasons=("another challenger has stronger evidence",)
        )
    return corrected


def _rank(decision: Decision) -> float:
    """Evidence of being better, or of not being worse where nothing has to be better."""
    successes = [i.log_pass for i in decision.evidence if i.hypothesis.role == "success"]
    return min(successes, default=decision.strength)


def _adjusted_wins(rules: Rules, evidence: Sequence[Evidence]) -> list[float]:
    """Evidence to pass, per metric; corrected over the successes where any of them will do."""
    wins = [item.log_pass for item in evidence]
    which = [i for i, item in enumerate(evidence) if item.hypothesis.role == "success"]
    if rules.promote == "any" and len(which) > 1:
        shares = [evidence[i].hypothesis.alpha for i in which]
        for i, e in zip(which, familywise([wins[i] for i in which], shares), strict=True):
            wins[i] = float(e)
    return wins


def _strength(rules: Rules, marked: Sequence[Evidence], wins: Sequence[float]) -> float:
    needed = [
        win
        for item, win in zip(marked, wins, strict=True)
        if not item.hypothesis.watches and item.hypothesis.role == "guardrail"
    ]
    successes = [
        win for item, win in zip(marked, wins, strict=True) if item.hypothesis.role == "success"
    ]
    if successes:
        needed += successes if rules.promote == "all" else [max(successes)]
    # What only watches is not needed, but it has to be able to see.
    needed += [0.0 for item in marked if item.status == "blind" and item.hypothesis.watches]
    return min(needed, default=0.0)


def _status(item: Evidence, harmed: bool, passed: bool) -> str:
    watches = item.hypothesis.watches
    if harmed:
        return "harmed"
    if item.incomplete and item.hypothesis.needs_answers and (not passed or watches):
        return "blind"
    if min(item.records) == 0:
        return "no data"
    if passed and not watches:
        return "passed"
    if watches:
        return "ok so far"
    return "futile" if _is_futile(item) else "undecided"


def _is_futile(item: Evidence) -> bool:
    """The interval rules out the target improvement."""
    h = item.hypothesis
    if h.role != "success" or h.effect is None or h.effect.value == 0.0:
        return False
    interval = item.ratio if h.effect.relative else item.difference
    if interval is None or interval.is_empty:
        return False
    shift = 1.0 if h.effect.relative else 0.0
    best = shift - interval.lower if h.lower_is_better else interval.upper - shift
    return best < h.effect.value


def _harm(item: Evidence) -> str:
    h = item.hypothesis
    beyond = f" by more than {h.margin}" if h.role == "guardrail" and h.margin.value else ""
    text = f"{item.name} is worse{beyond}: {_values(item)} (e-value {_e(item.log_harm)}: "
    text += f"{odds(item.log_harm, null_of_harm(h))})"
    note = item.note if h.watches else item.dependence
    return f"{text}; {note}" if note else text


def _passed(item: Evidence) -> str:
    h = item.hypothesis
    strength = f"e-value {_e(item.log_pass)}: {odds(item.log_pass, null_to_pass(h))}"
    text = f"{h.describe()}: {_values(item)} ({strength})"
    return f"{text}; {item.dependence}" if item.dependence else text


def _futile(item: Evidence) -> str:
    return (
        f"{item.name}: the target improvement of {item.hypothesis.effect} has been ruled out "
        f"({_values(item)})"
    )


def _too_early(rules: Rules, requests: int, seconds: float, unit: str) -> list[str]:
    """What a promotion has to wait for, whatever the evidence says."""
    reasons = []
    if requests < rules.minimum:
        least = f"{rules.minimum:,} {unit}"
        reasons.append(f"the challenger has served {requests:,} of at least {least}")
    if seconds < rules.min_seconds:
        reasons.append(
            f"the experiment has run for {seconds:.0f} s of at least {rules.min_seconds:.0f} s: "
            "some faults show only after a while"
        )
    return reasons


def _doubtful(shown: Sequence[Evidence], goal: float) -> list[str]:
    """Metrics that this mode cannot decide, and that look worse in it."""
    return [
        f"{item.name} looks worse in mirrored requests ({_values(item)}); these share their load "
        "with the champion, so let split traffic decide (mode split or canary)"
        for item in shown
        if item.log_harm >= goal
    ]


def _undecided(rules: Rules, marked: Sequence[Evidence]) -> list[str]:
    reasons = []
    for item in marked:
        if item.status == "no data":
            note = f" ({item.note})" if item.note else ""
            reasons.append(f"{item.name}: no data yet{note}")
        elif item.status == "blind":
            reasons.append(f"{item.name}: blind: {item.note}")
        elif item.status in ("undecided", "futile"):
            note = f"; {item.note}" if item.note else ""
            reasons.append(
                f"{item.name}: not enough evidence yet ({_values(item)}, e-value "
                f"{_e(item.log_pass)}, {math.exp(-math.log(rules.alpha)):.3g} required){note}"
            )
    return reasons


def _values(item: Evidence) -> str:
    champion, challenger = item.estimates
    h = item.hypothesis
    if h.metric.statistic is Statistic.DISTRIBUTION:
        return f"distance {challenger:.3g}" if challenger is not None else "no estimate"
    if h.metric.statistic is Statistic.TAIL:
        return "requests beyond the champion's quantiles"
    if champion is None or challenger is None:
        return "no estimate"
    return f"{_value(challenger, h.metric.unit)} against {_value(champion, h.metric.unit)}"


def _value(value: float, unit: Unit) -> str:
    if unit is Unit.POINTS:
        return f"{value * 100:.3g} %"
    return f"{value * 1e3:.4g} ms" if unit is Unit.SECONDS else f"{value:.4g}"


def _e(log_e: float) -> str:
    return f"{e_value(log_e):.3g}"
