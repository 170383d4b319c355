"""Declared segments: for each named feature, which groups get worse and how far they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.baseline.kinds import category
from understudy.monitor.evidence.pending import PREFIX
from understudy.monitor.health.performance.segments import (
    GAPS,
    Gap,
    Groups,
    SegmentAlarms,
    WorseSegment,
)
from understudy.shadow.experiment.margin import Margin
from understudy.shadow.state import Config, Derived, Saved, Stateful

Floats = NDArray[np.float64]
_FEWEST = 30
"""Fewest labels of a group that counts in a gap."""
_ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class LargeGap:
    """A gap between a feature's groups that is above the limit with its whole interval."""

    feature: str
    gap: Gap


class DeclaredSegments(Stateful):
    """``features`` are declared. ``run_length`` in labels is that of all segments of all of them,
    ``smallest`` the smallest rise of an error rate that matters, ``allowed`` the largest gap that
    is allowed (None: gaps are shown and raise no alarm)."""

    features: Config[tuple[str, ...]]
    allowed: Config[float | None]
    groups: Saved[dict[str, Groups]]
    alarms: Saved[dict[str, SegmentAlarms]]
    _apart: Derived[dict[tuple[str, str], Gap]]

    def __init__(
        self,
        features: Sequence[str],
        run_length: float,
        smallest: Margin,
        allowed: float | None = None,
    ) -> None:
        self.features = tuple(dict.fromkeys(features))
        self.allowed = allowed
        each = run_length * max(1, len(self.features))
        self.groups = {name: Groups(name) for name in self.features}
        self.alarms = {name: SegmentAlarms(each, smallest) for name in self.features}
        self._apart = {}

    def _restored(self) -> None:
        if self.allowed is not None:
            for name in self.features:
                self._look(name, self.allowed)

    def add(
        self, rows: Sequence[Mapping[str, object]], wrong: Floats, predicted: Floats, labels: Floats
    ) -> None:
        """Labelled rows in their order: the ``rows``' stored outputs, ``wrong`` (n,) 0
        or 1 (NaN: unknown), whether yes was ``predicted`` and is the ``label`` (NaN: means
        nothing)."""
        for name in self.features:
            key = PREFIX + name
            values = [category(row.get(key)) for row in rows]
            indices = self.groups[name].indices(values)
            self.groups[name].add(indices, wrong, predicted, labels)
            self.alarms[name].add(indices, wrong)
            if self.allowed is not None:
                self._look(name, self.allowed)

    def metrics(self, feature: str) -> tuple[str, ...]:
        """The metrics that apply to a feature: without binary labels only the error rate."""
        return GAPS if self.groups[feature].has_yes else ("accuracy", "error_rate")

    def gaps(self, feature: str) -> list[Gap]:
        """The gaps between a feature's groups, one per metric; alpha is split among all of them."""
        names = self.metrics(feature)
        alpha = _ALPHA / len(names) / max(1, len(self.features))
        result = [self.groups[feature].gap(name, alpha, _FEWEST) for name in names]
        return [gap for gap in result if gap is not None]

    def _look(self, feature: str, allowed: float) -> None:
        """Start an alarm when the whole interval of a gap is above ``allowed``; end it when its
        estimate is allowed again."""
        for gap in self.gaps(feature):
            if gap.metric == "accuracy":
                continue  # the error rate has the same gap
            key = (feature, gap.metric)
            if gap.low > allowed or (key in self._apart and gap.value > allowed):
                self._apart[key] = gap
            else:
                self._apart.pop(key, None)

    def worse(self) -> list[tuple[str, WorseSegment]]:
        """Segments whose error rate has risen, with their feature."""
        return [
            (name, one)
            for name in self.features
            for one in self.alarms[name].worse(self.groups[name])
        ]

    def apart(self) -> list[LargeGap]:
        """Gaps that are in alarm."""
        return [LargeGap(feature, gap) for (feature, _), gap in self._apart.items()]

    def summary(self) -> dict[str, Any]:
        """As JSON, by feature: rates of each group, and the gaps."""
        return {
            name: {
                "groups": {
                    metric: [rate.document() for rate in self.groups[name].rates(metric, _ALPHA)]
                    for metric in self.metrics(name)
                },
                "gaps": [gap.document() for gap in self.gaps(name)],
            }
            for name in self.features
        }
