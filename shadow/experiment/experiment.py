"""One experiment: the champion, its challengers, and the check of the traffic split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Self

import numpy as np
import numpy.typing as npt

from understudy.shadow.experiment.challenger import ChallengerEvidence
from understudy.shadow.experiment.decision import SPLIT, Decision, correct_promotions, decide
from understudy.shadow.experiment.rules import Rules
from understudy.shadow.experiment.split import OpenPairs, Unanswered, honoured, mismatch
from understudy.shadow.sequential import SplitCheck
from understudy.shadow.state import Config, Converter, Saved, Stateful

_Latched = dict[str, dict[str, Decision]]


def _dump_latched(latched: _Latched) -> dict[str, Any]:
    return {
        mode: {
            name: {"verdict": d.verdict, "reasons": list(d.reasons), "cause": d.cause}
            for name, d in decisions.items()
        }
        for mode, decisions in latched.items()
    }


def _load_latched(name: str, state: Any, latched: _Latched) -> _Latched:
    return {
        mode: {
            challenger: Decision(
                saved["verdict"], tuple(saved["reasons"]), cause=saved.get("cause", "")
            )
            for challenger, saved in state[mode].items()
        }
        for mode in latched
    }


class Experiment(Stateful):
    """All evidence of one experiment; the clock is passed in.

    ``challengers`` are the names of the arms beside the champion, ``by_unit`` whether whole units
    (users, sessions) are assigned instead of requests. Verdicts of harm stay; a promotion stays
    unless harm shows later. That the split was not honoured holds as long as the counts say so.
    """

    name: Config[str]
    rules: Config[Rules]
    contests: Saved[dict[str, ChallengerEvidence]]
    split: Saved[SplitCheck | None]
    _latched: Saved[Annotated[_Latched, Converter(_dump_latched, _load_latched)]]
    """Final verdicts, by mode and challenger."""

    def __init__(
        self, name: str, challengers: Sequence[str], rules: Rules, *, by_unit: bool = False
    ) -> None:
        self.name = name
        self.rules = rules
        self.contests = {
            c: ChallengerEvidence(c, rules.hypotheses, by_unit=by_unit) for c in challengers
        }
        self.split = None
        self._latched = {"shadow": {}, "split": {}}

    def _restored(self) -> None:
        # What is no longer declared is left out.
        if self.split is not None and len(self.split.shares) != len(self.contests) + 1:
            self.split = None
        for mode, decisions in self._latched.items():
            known = {
                name: d
                for name, d in decisions.items()
                if name in self.contests and d.verdict != "invalid"
            }
            self._latched[mode] = known

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
        """Start a new epoch: the weights have changed."""
        for contest in self.contests.values():
            contest.begin_epoch()

    @property
    def split_honoured(self) -> bool:
        """False once the counts of the arms cannot be explained by the configured shares."""
        return honoured(self.split)

    def restart_split(self) -> None:
        """Drop the evidence of split traffic, including the counts of the split."""
        self.split = None
        self._latched["split"].clear()
        for contest in self.contests.values():
            contest.restart_split()

    def decide(
        self,
        mode: str,
        seconds: float,
        unanswered: Unanswered | OpenPairs | None = None,
        lasted: Mapping[str, float] | None = None,
    ) -> dict[str, Decision]:
        """The verdict on each challenger; ``seconds`` since the experiment began.

        ``lasted`` is how long each challenger has had traffic (None: all the time), in seconds.
        ``unanswered`` are the assigned (in shadow: mirrored) requests whose answers are missing
        now: where the arms differ in them, the challenger is not promoted.
        """
        alpha = self.rules.alpha
        fresh = [
            decide(
                self.rules,
                c.evidence(mode, alpha),
                c.requests(mode),
                seconds,
                c.counted_in(mode),
                c.account(mode),
                seconds if lasted is None else lasted[name],
            )
            for name, c in self.contests.items()
        ]
        latched = self._latched[mode]
        by_challenger: dict[str, Decision] = {}
        arms = ("the champion", *self.contests)
        for number, (name, decision) in enumerate(
            zip(self.contests, correct_promotions(self.rules, fresh), strict=True), start=1
        ):
            if mode == "split" and self.split is not None and not self.split_honoured:
                reason = mismatch(self.split, arms, self.contests[name].counted_in(mode))
                by_challenger[name] = replace(
                    decision, verdict="invalid", reasons=(reason,), cause=SPLIT
                )
                continue
            missing = ""
            if unanswered is not None and unanswered.differs(number):
                missing = (
                    f"{unanswered.describe(arms)}; no promotion before they have finished or failed"
                )
            before = latched.get(name)
            if before is not None and _outranks(before.verdict, decision.verdict):
                decision = replace(
                    decision, verdict=before.verdict, reasons=before.reasons, cause=before.cause
                )
            elif decision.verdict == "rollback" or (decision.verdict == "promote" and not missing):
                latched[name] = replace(decision, evidence=())
            if missing and decision.verdict != "rollback":
                others = decision.reasons if decision.verdict == "continue" else ()
                decision = replace(decision, verdict="continue", reasons=(missing, *others))
            by_challenger[name] = decision
        return by_challenger

    def merge(self, other: Self) -> Self:
        """The combined evidence of two replicas. Verdicts are computed again."""
        by_unit = any(c.by_unit for c in self.contests.values())
        both = type(self)(self.name, list(self.contests), self.rules, by_unit=by_unit)
        for name, contest in self.contests.items():
            both.contests[name] = contest.merge(other.contests[name])
        if self.split is not None and other.split is not None:
            both.split = self.split.merge(other.split)
        else:
            both.split = self.split or other.split
        return both


_RANK = {"continue": 0, "promote": 1, "rollback": 2}


def _outranks(before: str, now: str) -> bool:
    return _RANK[before] > _RANK[now]
