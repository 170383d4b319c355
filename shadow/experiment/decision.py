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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from understudy.common.units import percent
from understudy.shadow.experiment.challenger import Evidence, e_value
from understudy.shadow.experiment.fates import SMALL
from understudy.shadow.experiment.hypothesis import Statistic
from understudy.shadow.experiment.margin import Unit
from understudy.shadow.experiment.odds import null_of_harm, null_to_pass, odds
from understudy.shadow.experiment.rules import BUILT_IN, Rules
from understudy.shadow.sequential import familywise, required

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
    lasted: float | None = None,
) -> Decision:
    """The verdict on one challenger from the evidence of one mode.

    ``requests`` are the challenger's own, counted in ``unit`` ("requests" or "units"); ``seconds``
    is how long the experiment has run. ``left_out`` says which requests were not evaluated, and
    why. ``lasted`` is how long the challenger has had traffic (None: all the time), in seconds.
    Without a request it is always "continue".
    """
    if requests == 0:
        return Decision("continue", (*left_out,) or ("no traffic yet",), tuple(evidence))
    goal = -math.log(rules.alpha)
    lasted = seconds if lasted is None else lasted
    evidence = _without_quick_failures(evidence)
    if lasted < rules.min_seconds:
        evidence = [_after_an_outage(item) for item in evidence]
    shown = [replace(item, status="shown") for item in evidence if not item.decides]
    evidence = [item for item in evidence if item.decides]
    shares = [item.hypothesis.alpha for item in evidence]
    harm = familywise([item.log_harm for item in evidence], shares)
    wins = _adjusted_wins(rules, evidence)
    needed = zip(
        _needed_to_pass(rules, evidence, goal),
        required([item.log_harm for item in evidence], goal, shares).tolist(),
        strict=True,
    )
    tested = [
        replace(item, status=_status(item, float(h) >= goal, w >= goal), needed=ends)
        for item, h, w, ends in zip(evidence, harm, wins, needed, strict=True)
    ]
    strength = _strength(rules, tested, wins)
    marked = [*tested, *shown]
    harmed = [item for item in marked if item.status == "harmed"]
    if harmed:
        reasons = tuple(_harm(item) for item in harmed)
        return Decision("rollback", reasons, tuple(marked), strength, HARM)
    successes = [item for item in marked if item.hypothesis.role == "success"]
    futile = [item for item in successes if item.status == "futile"]
    waiting = _too_early(rules, requests, lasted, unit)
    if futile and not waiting and (rules.promote == "all" or len(futile) == len(successes)):
        reasons = tuple(_futile(item) for item in futile)
        return Decision("rollback", reasons, tuple(marked), strength, NO_IMPROVEMENT)
    waiting += _unanswered(rules, marked, requests, unit)
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


_LEAD = 0.01
"""How much more of its requests a champion may fail than the challenger."""


def _without_quick_failures(evidence: Sequence[Evidence]) -> Sequence[Evidence]:
    """No harm by latency where the champion fails many requests that the challenger answers: a
    failure can be quicker than any answer, and a champion that is down would beat them all."""
    usable = next((item for item in evidence if item.name == BUILT_IN), None)
    champion, challenger = usable.estimates if usable is not None else (None, None)
    if champion is None or challenger is None or champion - challenger <= _LEAD:
        return evidence
    why = (
        f"the champion fails {percent(champion - challenger, 3)} more of its requests, and "
        "failures can be quick: no harm is concluded from latency"
    )
    return [
        replace(
            item,
            log_harm=min(item.log_harm, 0.0),
            note="; ".join(filter(None, (item.note, why))),
        )
        if item.hypothesis.column == "latency"
        else item
        for item in evidence
    ]


def _after_an_outage(item: Evidence) -> Evidence:
    """No harm yet where blocks of time decide: in a short experiment an outage is as long as harm
    that lasts. A challenger that answers nothing at all is found by another rule."""
    if not item.dependence:
        return item
    why = "an outage could be as long, so harm is concluded after `minimum_duration`"
    note = f"{item.note}; {why}" if item.note else why
    return replace(item, log_harm=min(item.log_harm, 0.0), note=note)


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


def _needed_to_pass(rules: Rules, evidence: Sequence[Evidence], goal: float) -> list[float]:
    """The log e-value from which on each metric passes, with the others as they are."""
    found = [goal] * len(evidence)
    which = [i for i, item in enumerate(evidence) if item.hypothesis.role == "success"]
    if rules.promote == "any" and len(which) > 1:
        wins = [evidence[i].log_pass for i in which]
        shares = [evidence[i].hypothesis.alpha for i in which]
        for i, log_e in zip(which, required(wins, goal, shares).tolist(), strict=True):
            found[i] = log_e
    return found


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
        return "blind" if item.unread > SMALL else "no data"
    if passed and not watches:
        return "passed"
    if watches:
        return "ok so far"
    return "futile" if _is_futile(item) else "undecided"


def _is_futile(item: Evidence) -> bool:
    """The interval rules out the target improvement, whatever labels are still to come.

    Labels that are known late may be those of errors, in both arms alike: then all of the first
    ones are of successes, and the arms hardly differ.
    """
    h = item.hypothesis
    if h.role != "success" or h.effect is None or h.effect.value == 0.0:
        return False
    interval = item.ratio if h.effect.relative else item.difference
    if interval is None or interval.is_empty:
        return False
    shift = 1.0 if h.effect.relative else 0.0
    best = shift - interval.lower if h.lower_is_better else interval.upper - shift
    return best + _may_gain(item) < h.effect.value


def _may_gain(item: Evidence) -> float:
    """How much better the challenger may be if its requests without a label are as good as they can
    be, and the champion's as bad (Manski 1990): an absolute or relative difference, as the
    effect."""
    h = item.hypothesis
    if max(item.unlabelled) <= SMALL:
        return 0.0
    bounds = (0.0, 1.0) if h.metric.unit is Unit.POINTS else h.bounds
    champion, challenger = item.estimates
    if bounds is None or champion is None or challenger is None:
        return math.inf
    best, worst = bounds if h.lower_is_better else bounds[::-1]
    gain = abs(best - challenger) * item.unlabelled[1] + abs(worst - champion) * item.unlabelled[0]
    if h.effect is None or not h.effect.relative:
        return gain
    return gain / abs(champion) if champion else math.inf


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
    """What any verdict but harm has to wait for, whatever the evidence says."""
    reasons = []
    if requests < rules.minimum:
        least = f"{rules.minimum:,} {unit}"
        reasons.append(f"the challenger has served {requests:,} of at least {least}")
    if seconds < rules.min_seconds:
        reasons.append(
            f"the challenger has had traffic for {seconds:.0f} s of at least "
            f"{rules.min_seconds:.0f} s: some faults show only after a while"
        )
    return reasons


def _unanswered(
    rules: Rules, marked: Sequence[Evidence], requests: int, unit: str
) -> Iterator[str]:
    """Two arms that answer nothing are alike, and neither is fit to serve."""
    usable = next((i for i in marked if i.name == BUILT_IN), None)
    if usable is None or not usable.records[1] or usable.estimates[1] is None:
        return
    answered = round(usable.records[1] * (1.0 - usable.estimates[1]))
    if requests >= rules.minimum and answered < max(rules.minimum, 1):
        yield (
            f"the challenger has answered {answered:,} of {usable.records[1]:,} {unit} in a usable "
            f"way, and {max(rules.minimum, 1):,} are needed"
        )


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
            reasons.append(f"{item.name}: blind: {why_blind(item)}")
        elif item.status in ("undecided", "futile"):
            note = f"; {item.note}" if item.note else ""
            reasons.append(
                f"{item.name}: not enough evidence yet ({_values(item)}, e-value "
                f"{_e(item.log_pass)}, {math.exp(-math.log(rules.alpha)):.3g} required){note}"
            )
    return reasons


def why_blind(item: Evidence) -> str:
    """Why a metric is blind."""
    if item.unread <= SMALL:
        return item.note
    unread = f"{percent(item.unread, 3)} of the answers cannot be read"
    return f"{unread}; {item.note}" if item.note else unread


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
        return percent(value, 3)
    return f"{value * 1e3:.4g} ms" if unit is Unit.SECONDS else f"{value:.4g}"


def _e(log_e: float) -> str:
    return f"{e_value(log_e):.3g}"
