"""One experiment: the champion, its challengers, and the check that the split was honoured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from understudy.shadow.experiment.contest import Contest
from understudy.shadow.experiment.decision import Decision, across, judge
from understudy.shadow.experiment.rules import Rules
from understudy.shadow.sequential import SplitCheck

ALPHA_SPLIT = 0.001
"""A split that is honoured is called dishonoured with at most this probability."""


class Experiment:
    """All evidence of one experiment; the clock is passed in.

    ``challengers`` are the names of the arms beside the champion, ``by_unit`` whether whole units
    (users, sessions) are assigned instead of requests. Verdicts of harm, and of an invalid split,
    stay; a promotion stays unless harm shows later.
    """

    def __init__(
        self, name: str, challengers: Sequence[str], rules: Rules, *, by_unit: bool = False
    ) -> None:
        self.name = name
        self.rules = rules
        self.contests = {c: Contest(c, rules.hypotheses, by_unit=by_unit) for c in challengers}
        self.split: SplitCheck | None = None
        self._latched: dict[str, dict[str, Decision]] = {"shadow": {}, "split": {}}

    def assigned(self, counts: npt.ArrayLike, shares: Sequence[float]) -> None:
        """Units that were assigned to champion and challengers, under configured ``shares``.

        Arms without a share are left out. ``shares`` sum to 1.
        """
        n = np.asarray(counts, dtype=np.float64)
        theta = np.asarray(shares, dtype=np.float64)
        live = theta > 0.0
        if np.count_nonzero(live) < 2:
            return
        if self.split is None:
            self.split = SplitCheck(np.full(theta.size, 1.0 / theta.size))
        # An arm that gets nothing is kept in place with a share too small to be evidence.
        theta = np.where(live, theta, 1e-12)
        self.split.update_counts(np.where(live, n, 0.0), theta / theta.sum())

    def begin_epoch(self) -> None:
        """The weights have changed."""
        for contest in self.contests.values():
            contest.begin_epoch()

    @property
    def split_honoured(self) -> bool:
        """False once the counts of the arms cannot be explained by the configured shares."""
        return self.split is None or not self.split.rejects(ALPHA_SPLIT)

    def decide(self, mode: str, seconds: float) -> dict[str, Decision]:
        """The verdict on each challenger; ``seconds`` since the experiment began."""
        alpha = self.rules.alpha
        fresh = [
            judge(self.rules, c.evidence(mode, alpha), c.requests(mode), seconds)
            for c in self.contests.values()
        ]
        latched = self._latched[mode]
        found: dict[str, Decision] = {}
        for name, decision in zip(self.contests, across(self.rules, fresh), strict=True):
            if mode == "split" and not self.split_honoured:
                decision = replace(decision, verdict="invalid", reasons=(self._dishonoured(),))
            before = latched.get(name)
            if before is not None and _outranks(before.verdict, decision.verdict):
                decision = replace(decision, verdict=before.verdict, reasons=before.reasons)
            elif decision.verdict != "continue":
                latched[name] = replace(decision, evidence=())
            found[name] = decision
        return found

    def _dishonoured(self) -> str:
        assert self.split is not None
        counts = ", ".join(f"{n:,}" for n in self.split.counts)
        gaps = ", ".join(f"{d * 100:+.2f} pp" for d in self.split.deviation())
        return (
            f"sample ratio mismatch: the arms got {counts} units, {gaps} off the configured "
            "shares; no other measurement can be trusted"
        )

    def merge(self, other: Self) -> Self:
        """The evidence of two replicas. Verdicts are taken anew."""
        by_unit = any(c.by_unit for c in self.contests.values())
        both = type(self)(self.name, list(self.contests), self.rules, by_unit=by_unit)
        for name, contest in self.contests.items():
            both.contests[name] = contest.merge(other.contests[name])
        if self.split is not None and other.split is not None:
            both.split = self.split.merge(other.split)
        else:
            both.split = self.split or other.split
        return both

    def to_dict(self) -> dict[str, Any]:
        """As JSON; name and rules are the configuration's."""
        return {
            "contests": {name: contest.to_dict() for name, contest in self.contests.items()},
            "split": self.split.to_dict() if self.split is not None else None,
            "latched": {
                mode: {
                    name: {"verdict": d.verdict, "reasons": list(d.reasons)}
                    for name, d in decisions.items()
                }
                for mode, decisions in self._latched.items()
            },
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a saved state of the same experiment.

        Raises ValueError, KeyError or TypeError for another shape.
        """
        for name, contest in self.contests.items():
            if name in state["contests"]:
                contest.restore(state["contests"][name])
        if state["split"] is not None:
            split = SplitCheck.from_dict(state["split"])
            if len(split.shares) == len(self.contests) + 1:
                self.split = split
        for mode, decisions in self._latched.items():
            for name, saved in state["latched"][mode].items():
                if name in self.contests:
                    decisions[name] = Decision(saved["verdict"], tuple(saved["reasons"]))


_RANK = {"continue": 0, "promote": 1, "rollback": 2, "invalid": 3}


def _outranks(before: str, now: str) -> bool:
    return _RANK[before] > _RANK[now]
