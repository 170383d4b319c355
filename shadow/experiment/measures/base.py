"""What every measure shares: two tests of one hypothesis, an interval, a state."""

from __future__ import annotations

import base64
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from understudy.shadow.experiment.hypothesis import Hypothesis
from understudy.shadow.sequential.asymptotic import asymptotic_precision
from understudy.shadow.sequential.common import Interval, logmeanexp
from understudy.shadow.sequential.normal_mixture import log_normal_mixture
from understudy.shadow.sequential.time_blocks import BlockJudgement, TimeBlocks
from understudy.shadow.state import Config, Converter, Count, Saved, Stateful, Transient, Two

Array = npt.NDArray[np.float64]
MAX_LOG_E = 700.0
"""Evidence beyond this is e^700: enough for any budget, and finite as a number."""


@dataclass(frozen=True, slots=True)
class NullBoundary:
    """The edge of a null hypothesis: challenger = ``ratio`` * champion + ``shift``.

    ``alternative`` is the side of the alternative hypothesis: "less" or "greater".
    """

    ratio: float
    shift: float
    alternative: str


@dataclass(frozen=True, slots=True)
class Contrast:
    """How blocks of time see a null hypothesis: ``null`` is about the means of a ``column`` of
    :class:`TimeBlocks`."""

    column: int
    null: NullBoundary


def nulls(hypothesis: Hypothesis) -> tuple[NullBoundary, NullBoundary]:
    """The null to reject for a pass, and the null whose rejection proves harm.

    A guardrail passes when "worse by the margin or more" is rejected, and is broken when "worse by
    the margin at most" is. A success passes when "better by the margin at most" is rejected, and is
    harmful when "not worse" is.
    """
    worse, better = ("greater", "less") if hypothesis.lower_is_better else ("less", "greater")
    sign = 1.0 if hypothesis.lower_is_better else -1.0
    margin = hypothesis.margin.value
    to_pass = sign * (margin if hypothesis.role == "guardrail" else -margin)
    to_harm = sign * (margin if hypothesis.role == "guardrail" else 0.0)
    if hypothesis.margin.relative:
        return NullBoundary(1.0 + to_pass, 0.0, better), NullBoundary(1.0 + to_harm, 0.0, worse)
    return NullBoundary(1.0, to_pass, better), NullBoundary(1.0, to_harm, worse)


class Measure(Stateful, ABC):
    """The evidence about one hypothesis, from pairs (shadow) or from split traffic.

    ``log_pass`` and ``log_harm`` are natural logs of e-values at this moment. Batches hold records
    in their order of arrival, without NaN. Split traffic changes its shares now and then:
    :meth:`begin_epoch` restarts counts where the method would otherwise mix times in which the
    shares differed; the evidence so far is kept, since e-values of successive epochs multiply.

    The tests take requests to be independent within an arm, beyond what both arms go through
    together. Every measure therefore feeds :attr:`time_blocks` beside its tests. While these find
    that requests of one arm depend on each other, no evidence counts beyond that of the blocks, and
    intervals are as wide as blocks make them. Blocks go on over epochs: an outage of an earlier
    epoch is one observation in a later one as well.
    """

    block_columns: ClassVar[int] = 1

    hypothesis: Config[Hypothesis]
    paired: Config[bool]
    to_pass: Config[NullBoundary]
    to_harm: Config[NullBoundary]
    n: Saved[Two[Count]]
    """Values of champion and challenger."""
    outside: Saved[Count]
    """Values left out because they lay outside the declared bounds."""
    _carried: Saved[Two[float]]
    """Evidence of the epochs before this one: to pass, of harm."""
    time_blocks: Saved[TimeBlocks]
    _precision: Config[float]
    _found: Transient[tuple[float, float] | None]
    """Evidence of this epoch by request, until the next update."""
    _judged: Transient[dict[int, list[tuple[Contrast, BlockJudgement]]]]
    """By side, what blocks say, until the next update."""

    def __init__(self, hypothesis: Hypothesis, paired: bool) -> None:
        self.hypothesis = hypothesis
        self.paired = paired
        self.to_pass, self.to_harm = nulls(hypothesis)
        self.n = [0, 0]
        self.outside = 0
        self._carried = [0.0, 0.0]
        self.time_blocks = TimeBlocks(self.block_columns)
        self._precision = asymptotic_precision(hypothesis.planned, min(2.0 * hypothesis.alpha, 0.9))
        self._found = None
        self._judged = {}

    def _restored(self) -> None:
        self._forget()

    def _forget(self) -> None:
        """Evidence has to be computed again."""
        self._found = None
        self._judged.clear()

    @abstractmethod
    def update_pairs(self, champion: Array, challenger: Array) -> None:
        """Both arms' values for the same requests."""

    @abstractmethod
    def update_split(self, arms: Array, values: Array, share: Array) -> None:
        """Values by arm (0 or 1); ``share`` is the challenger's probability for each record."""

    def update_units(self, arms: Array, sums: Array, counts: Array, share: Array) -> None:
        """Complete units of assignment. By default one record stands for each: its mean."""
        self.update_split(arms, sums / counts, share)

    @abstractmethod
    def _log_es(self) -> tuple[float, float]:
        """Evidence of this epoch: to pass, of harm."""

    @abstractmethod
    def estimates(self) -> tuple[float | None, float | None]:
        """Of champion and challenger, in this epoch."""

    @abstractmethod
    def difference(self, alpha: float) -> Interval:
        """Confidence sequence for challenger minus champion, in this epoch."""

    def ratio(self, alpha: float) -> Interval | None:
        """The same for challenger over champion; None where a ratio means nothing."""
        return None

    @property
    def note(self) -> str:
        """Why the evidence may not be believed yet, or what to know about it; "" if nothing."""
        return "; ".join(filter(None, (self.dependence, self._note())))

    def _note(self) -> str:
        """The same, beside the dependence of requests."""
        return ""

    @property
    def log_pass(self) -> float:
        """Evidence that the hypothesis holds."""
        return self._evidence(0)

    @property
    def log_harm(self) -> float:
        """Evidence of harm."""
        return self._evidence(1)

    def _evidence(self, side: int) -> float:
        if self._found is None:
            self._found = self._log_es()
        by_request = _bounded(self._carried[side] + self._found[side])
        if self.dependent:
            return min(by_request, self._by_blocks(side))
        discount = max(self._discount(side), self._few() if side else 1.0)
        return by_request / discount if by_request > 0.0 else by_request

    def _discount(self, side: int) -> float:
        """Evidence by request is divided by it while V may still be chance: an e-value to the power
        1/V is what normal sums of V times the variance allow."""
        return min((j.discount for _, j in self.judged(side)), default=1.0)

    def _few(self) -> float:
        """What the evidence of harm is divided by while the events behind it are few."""
        return 1.0

    def level(self, alpha: float) -> float:
        """The level of an interval by request that excludes what evidence would reject at
        ``alpha``: evidence divided by V reaches ln(1/alpha) where it reached V times that."""
        if self.dependent:
            return alpha
        return float(alpha ** max(self._discount(side) for side in (0, 1)))

    # Dependence ---------------------------------------------------------------------------------

    def _contrasts(self, side: int) -> list[Contrast]:
        """How blocks see the null to reject for a pass (side 0), or for harm (1)."""
        return [Contrast(0, self.to_harm if side else self.to_pass)]

    def _events(self) -> float | None:
        """Effective records behind the variance; None: those of values 0 and 1 are counted."""
        return None

    def _suspect(self) -> bool:
        """Whether successive records are known to correlate."""
        return False

    def judged(self, side: int) -> list[tuple[Contrast, BlockJudgement]]:
        """What blocks say about a side (0: pass, 1: harm)."""
        judgements = self._judged.get(side)
        if judgements is None:
            judgements = self._judged[side] = []
            for contrast in self._contrasts(side):
                judgement = self.time_blocks.judge(
                    contrast.column,
                    contrast.null.ratio,
                    contrast.null.shift,
                    paired=self.paired,
                    events=self._events(),
                    suspect=self._suspect(),
                )
                if judgement is not None:
                    judgements.append((contrast, judgement))
        return judgements

    @property
    def dependent(self) -> bool:
        """Whether requests of one arm depend on each other, so that blocks of time decide."""
        return any(j.dependent for side in (0, 1) for _, j in self.judged(side))

    def _by_blocks(self, side: int) -> float:
        """Evidence of a side by blocks of time, the mean over its contrasts.

        Harm that began late, and lasts, makes all of time correlate. So harm is also looked for in
        the last half alone.
        """
        logs = []
        for contrast, j in self.judged(side):
            whole = (j.records, j.centre, j.deviation) if j.decides else None
            parts = [self._log_normal(contrast.null, whole)]
            if side:
                null = contrast.null
                recent = self.time_blocks.recent(
                    contrast.column, null.ratio, null.shift, paired=self.paired
                )
                parts.append(self._log_normal(null, recent))
            logs.append(float(logmeanexp(np.array(parts))))
        return float(logmeanexp(np.array(logs))) if logs else 0.0

    def _log_normal(self, null: NullBoundary, estimate: tuple[int, float, float] | None) -> float:
        """Evidence against a null hypothesis from records, centre and deviation (equation 134 of
        arXiv:2103.06476)."""
        if estimate is None:
            return 0.0
        n, centre, deviation = estimate
        s = n * centre / deviation
        if null.alternative == "less":
            s = -s
        return float(log_normal_mixture(s, n, 1.0 / self._precision, sided=1))

    def _widest(self) -> BlockJudgement:
        return max((j for side in (0, 1) for _, j in self.judged(side)), key=lambda j: j.inflation)

    def widened(self, interval: Interval, centre: float | None) -> Interval:
        """An interval about ``centre`` as wide as blocks make it, while requests depend.

        The interval has to be one at the :meth:`level` of alpha.
        """
        if not self.dependent or centre is None or interval.is_empty:
            return interval
        j = self._widest()
        if not j.decides:
            return Interval()
        factor = max(1.0, j.widening)
        return interval.shift(-centre).scale(factor).shift(centre)

    @property
    def dependence(self) -> str:
        """What was found of the dependence of requests; "" while they are independent."""
        if not self.dependent:
            return ""
        j = self._widest()
        text = (
            "requests of one arm are not independent (correlation over about "
            f"{math.ceil(j.inflation):,} requests): judged by blocks of {j.size:,} requests"
        )
        return text if j.decides else f"{text}, of which there are not enough yet"

    def begin_epoch(self) -> None:
        """The shares have changed. Methods that only need each record's own share go on."""

    def _carry(self) -> None:
        """Store the evidence of this epoch as two numbers, before counts restart."""
        to_pass, harm = self._log_es()
        self._forget()
        self._carried = [_bounded(self._carried[0] + to_pass), _bounded(self._carried[1] + harm)]

    def merge(self, other: Self) -> Self:
        """The state of both together."""
        if type(other) is not type(self) or other.hypothesis != self.hypothesis:
            raise ValueError("measures of different hypotheses cannot be merged")
        both = self._new()
        both.n = [a + b for a, b in zip(self.n, other.n, strict=True)]
        both.outside = self.outside + other.outside
        both._carried = [a + b for a, b in zip(self._carried, other._carried, strict=True)]
        both.time_blocks = self.time_blocks.merge(other.time_blocks)
        self._merge_into(both, other)
        return both

    def _new(self) -> Self:
        """The same measure without evidence."""
        return type(self)(self.hypothesis, self.paired)

    @abstractmethod
    def _merge_into(self, both: Self, other: Self) -> None:
        """Fill in the processes of ``both``."""

    def _count_pairs(self, pairs: int) -> None:
        self._forget()
        self.n[0] += pairs
        self.n[1] += pairs

    def _count_split(self, arms: Array) -> tuple[int, int]:
        """Count records of split traffic; how many of champion and challenger there are."""
        self._forget()
        challenger = int(arms.sum())
        champion = arms.size - challenger
        self.n[0] += champion
        self.n[1] += challenger
        return champion, challenger


def _bounded(log_e: float) -> float:
    return min(max(log_e, -MAX_LOG_E), MAX_LOG_E)


def _pack(values: list[float]) -> str:
    """The values that wait for thresholds or edges, which are floats of 32 bits already."""
    return base64.b64encode(np.asarray(values, dtype="<f4").tobytes()).decode("ascii")


def _unpack(name: str, text: Any, _: Any) -> list[float]:
    """Undo :func:`_pack`. Raises ValueError."""
    numbers: list[float] = np.frombuffer(
        base64.b64decode(text, validate=True), dtype="<f4"
    ).tolist()
    return numbers


class InitialValues(Stateful):
    """The first values of both arms, until there are ``enough`` to choose the thresholds."""

    enough: Config[int]
    arms: Saved[Two[Annotated[list[float], Converter(_pack, _unpack)]]]

    def __init__(self, enough: int) -> None:
        self.enough = enough
        self.arms = [[], []]

    def add(self, arms: Array, values: Array) -> int:
        """Store as many of the values as are needed, in their order; returns their number."""
        needed = self.enough - len(self)
        rounded, arms = values[:needed].astype(np.float32), arms[:needed]
        for side in (0, 1):
            self.arms[side] += rounded[arms == side].tolist()
        return int(rounded.size)

    @property
    def complete(self) -> bool:
        """Whether there are enough."""
        return len(self) >= self.enough

    def __len__(self) -> int:
        return len(self.arms[0]) + len(self.arms[1])

    def release(self) -> tuple[Array, Array]:
        """Return arms and values, and delete them."""
        sizes = [len(part) for part in self.arms]
        values = np.array([*self.arms[0], *self.arms[1]])
        self.arms = [[], []]
        return np.repeat(np.array((0.0, 1.0)), sizes), values

    def by_arm(self) -> Iterator[tuple[int, Array, Array]]:
        """Side, arms and values of each arm, which stay stored."""
        for side, waiting in enumerate(self.arms):
            yield side, np.full(len(waiting), float(side)), np.array(waiting)


def log_calibrated(p: float) -> float:
    """ln of an e-value made of an anytime p-value.

    (1 - p + p ln p)/(p ln^2 p), the calibrator of Vovk & Wang, "E-values" (Ann. Stat. 2021), eq. 2.
    """
    log_p = math.log(max(p, 1e-300))
    if log_p > -1e-3:
        return -math.log(2.0)  # the limit: the terms below would cancel
    return math.log1p(-p + p * log_p) - log_p - 2.0 * math.log(-log_p)
