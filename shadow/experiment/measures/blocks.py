"""AUC and calibration error: figures of many labels at once, compared block by block.

Neither is a mean over records. So each arm's labelled predictions are cut into blocks, each block
gives one figure between 0 and 1, and the means over blocks are compared by the asymptotic
confidence sequence (arXiv:2103.06476). A figure is itself an average, so its tails are light and
the gate opens with about 30 blocks. In the shadow both arms' blocks hold the same requests, which
takes out most of the noise; in a split the blocks of the arms are matched in the order in which
they end, and where one arm has several, their mean is.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar, Self

import numpy as np
import numpy.typing as npt

from understudy.shadow.experiment.hypothesis import Hypothesis
from understudy.shadow.experiment.measures.base import Array, _pack, _unpack
from understudy.shadow.experiment.measures.mean import Mean
from understudy.shadow.sequential import Gate, asymptotic_precision
from understudy.shadow.state import Converter, Count, Saved, Two

Indices = npt.NDArray[np.intp]
_BANDS = 10
_BLOCK = 250
_EFFECTIVE = 10.0
"""Of the gate, in blocks: a third of their number where figures are about normal."""
_CLASS = 10
"""Labels of each class in a block of the AUC, at least."""
_LEAST_PLANNED = 30.0
_MOST = 200
"""Labels of each class in a block of the AUC, at most: of a class that is frequent the first."""


class Blocks(Mean):
    """Blocks of labelled predictions; values are rows (score, label), the label 0 or 1.

    ``n`` counts blocks that were compared.
    """

    labels: ClassVar[int]
    """Labels per block, about."""
    _waiting: Saved[Two[float]]
    """Sums of the figures of blocks whose counterpart has not ended, by arm."""
    _blocks: Saved[Two[Count]]
    """Their number."""

    def __init__(self, hypothesis: Hypothesis, paired: bool) -> None:
        super().__init__(hypothesis, True)  # blocks are matched in a split as well
        self._gate = Gate(_EFFECTIVE)
        planned = max(hypothesis.planned / self.labels, _LEAST_PLANNED)
        self._precision = asymptotic_precision(planned, min(2.0 * hypothesis.alpha, 0.9))
        self._waiting = [0.0, 0.0]
        self._blocks = [0, 0]

    def update_pairs(self, champion: Array, challenger: Array) -> None:
        self._take([(0, champion), (1, challenger)])

    def update_split(self, arms: Array, values: Array, share: Array) -> None:
        sides = [np.flatnonzero(arms == side) for side in (0, 1)]
        self._take([(side, values[sides[side]]) for side in (0, 1)], sides)

    def _take(self, parts: Sequence[tuple[int, Array]], places: Sequence[Indices] = ()) -> None:
        """Add values by arm; ``places`` are theirs among all records, for the order of the blocks.

        Without places both arms' values are of the same requests: their blocks end together.
        """
        ended = []
        for side, values in parts:
            for at, figure in self._figures(side, values):
                ended.append((int(places[side][at]) if places else at, side, figure))
        for _, side, figure in sorted(ended):
            self._waiting[side] += figure
            self._blocks[side] += 1
            if min(self._blocks):
                means = [
                    np.array([total / n])
                    for total, n in zip(self._waiting, self._blocks, strict=True)
                ]
                self._waiting, self._blocks = [0.0, 0.0], [0, 0]
                super().update_pairs(means[0], means[1])

    @abstractmethod
    def _figures(self, side: int, values: Array) -> Iterator[tuple[int, float]]:
        """Blocks of an arm that end with one of these values: its index, and the figure."""

    def _closed(self) -> str:
        ready, reason = self._readiness()
        return "" if ready else f"; {reason}"

    def begin_epoch(self) -> None:
        """Blocks go on: each arm's figures depend on its own records only."""

    def _merge_into(self, both: Self, other: Self) -> None:
        """Blocks that are open are left out: each replica's next ones start empty."""
        super()._merge_into(both, other)


class AucBlocks(Blocks):
    """Area under the ROC curve: how often a positive one scores above a negative one; ties count
    half. A block ends when it has 10 labels of each class: its size depends on the labels only, so
    its figure is unbiased."""

    kind = "auc-blocks"
    labels = 10 * _CLASS

    _scores: Saved[Two[Two[Annotated[list[float], Converter(_pack, _unpack)]]]]
    """Of the open block: by arm, of negatives and of positives."""

    def __init__(self, hypothesis: Hypothesis, paired: bool) -> None:
        super().__init__(hypothesis, paired)
        self._scores = [[[], []], [[], []]]

    def _figures(self, side: int, values: Array) -> Iterator[tuple[int, float]]:
        scores = values[:, 0].astype(np.float32).tolist()
        for at, (score, label) in enumerate(zip(scores, values[:, 1].tolist(), strict=True)):
            classes = self._scores[side]
            of = classes[int(label > 0.5)]
            if len(of) < _MOST:
                of.append(score)
            if min(map(len, classes)) >= _CLASS:
                negatives, positives = map(np.array, classes)
                self._scores[side] = [[], []]
                above = (positives[:, None] > negatives).mean()
                ties = (positives[:, None] == negatives).mean()
                yield at, float(above + 0.5 * ties)

    def _note(self) -> str:
        """What a block is, and why there is no evidence yet."""
        of = f"at least {_CLASS} labels of each class"
        return f"mean over {self.n[1]} blocks with {of}{self._closed()}"


class CalibrationBlocks(Blocks):
    """Expected calibration error: over 10 equal bands of the score, the mean distance between the
    score and the share of positives. Even a calibrated model has one above 0 in a block of 250
    labels; it is the same for both arms."""

    kind = "calibration-blocks"
    labels = _BLOCK

    _gaps: Saved[Two[list[float]]]
    """Of the open block: by arm, sums of label minus score in each band."""
    _labels: Saved[Two[Count]]

    def __init__(self, hypothesis: Hypothesis, paired: bool) -> None:
        super().__init__(hypothesis, paired)
        self._gaps = [[0.0] * _BANDS, [0.0] * _BANDS]
        self._labels = [0, 0]

    def update_pairs(self, champion: Array, challenger: Array) -> None:
        # A pair counts in both arms or in neither, so that their blocks stay the same requests.
        keep = _is_probability(champion) & _is_probability(challenger)
        self.outside += int(keep.size - np.count_nonzero(keep))
        super().update_pairs(champion[keep], challenger[keep])

    def update_split(self, arms: Array, values: Array, share: Array) -> None:
        keep = _is_probability(values)
        self.outside += int(keep.size - np.count_nonzero(keep))
        super().update_split(arms[keep], values[keep], share[keep])

    def _figures(self, side: int, values: Array) -> Iterator[tuple[int, float]]:
        begin = 0
        while begin < len(values):
            end = min(len(values), begin + _BLOCK - self._labels[side])
            score, label = values[begin:end].T
            band = np.minimum((score * _BANDS).astype(int), _BANDS - 1)
            gaps = np.bincount(band, weights=label - score, minlength=_BANDS)
            self._gaps[side] = (np.array(self._gaps[side]) + gaps).tolist()
            self._labels[side] += end - begin
            begin = end
            if self._labels[side] == _BLOCK:
                figure = float(np.abs(self._gaps[side]).sum()) / _BLOCK
                self._gaps[side] = [0.0] * _BANDS
                self._labels[side] = 0
                yield end - 1, figure

    def _note(self) -> str:
        """What a block is, and why there is no evidence yet."""
        of = f"{_BLOCK} labels, in {_BANDS} bands of the score"
        return f"mean over {self.n[1]} blocks of {of}{self._closed()}"


def _is_probability(values: Array) -> npt.NDArray[np.bool_]:
    return (values[:, 0] >= 0.0) & (values[:, 0] <= 1.0)
