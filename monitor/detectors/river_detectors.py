"""Detectors of the river library, behind the interface of the others.

They corroborate; the alarm with a stated run length is that of the CUSUMs and e-detectors. They
take one value at a time (0.2 to 0.7 microseconds each, KSWIN some 400), so they run on declared
series only. ADWIN (Bifet & Gavalda 2007), KSWIN (Raab et al. 2020) and Page-Hinkley (Page 1954)
take any values; DDM (Gama et al. 2004), EDDM (Baena-García et al. 2006) and HDDM_A, HDDM_W
(Frías-Blanco et al. 2015) take errors, 0 or 1.

river is an extra: ``pip install 'understudy-serving[river]'``. It is imported when the first
detector is made.
"""

from __future__ import annotations

import importlib
from collections import deque
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.config.extensions import DETECTORS
from understudy.monitor.detectors.evidence import Evidence
from understudy.monitor.errors import MissingExtraError
from understudy.shadow.state import SAME, Config, FieldError, Saved, Stateful, Transient

Floats = NDArray[np.float64]
KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "adwin": ("river.drift", ("ADWIN",)),
    "kswin": ("river.drift", ("KSWIN",)),
    "page_hinkley": ("river.drift", ("PageHinkley",)),
    "ddm": ("river.drift.binary", ("DDM",)),
    "eddm": ("river.drift.binary", ("EDDM",)),
    # Their names have changed between releases of river.
    "hddm_a": ("river.drift.binary", ("HDDM_A", "HDDMA")),
    "hddm_w": ("river.drift.binary", ("HDDM_W", "HDDMW")),
}
OF_ERRORS = frozenset(name for name, kind in DETECTORS.items() if kind.errors_only)
"""These take 0 and 1."""
_REMEMBERED = 1000
_NEW = 32
"""Newest values, whose mean is compared with that of all the others for the direction."""


class RiverDetector(Stateful):
    """One detector of a ``kind`` of :data:`KINDS` for each of S series, batches (n, S).

    ``options`` are river's own, such as ``delta`` of ADWIN; ``seed`` is 0 where there is one. The
    statistic is 1 while there has been drift in the last batch, else 0: river's detectors answer
    yes or no, and restart after a yes. NaN and infinities are ignored.

    Raises ValueError for an unknown kind or option and for values other than 0 and 1 where errors
    are wanted, and MissingExtraError where river is not installed.
    """

    kind: Saved[Annotated[str, SAME]]
    series: Config[int]
    options: Config[dict[str, Any]]
    _class: Config[Any]
    _memory: Config[int]
    """What a window may hold: KSWIN never looks further back."""
    _values: Saved[list[deque[float]]]
    """The newest values since the last drift, 1,000 at most of each series. river's detectors
    cannot be written down otherwise without pickle; those with a longer memory begin with these
    when they are restored."""
    _detectors: Transient[list[Any]]
    _sums: Transient[list[float]]
    _counts: Transient[list[int]]

    def __init__(self, kind: str, series: int, **options: Any) -> None:
        if kind not in KINDS:
            raise ValueError(f"there is no detector {kind!r}; there are {', '.join(KINDS)}")
        self.kind = kind
        self.series = series
        self.options = dict(options)
        if kind == "kswin":
            self.options.setdefault("seed", 0)
        self._class = _find(kind)
        try:
            self._detectors = [self._fresh() for _ in range(series)]
        except TypeError as error:
            raise ValueError(f"{kind}: {error}") from error
        window = int(self.options.get("window_size", 100))
        self._memory = window if kind == "kswin" else _REMEMBERED
        self._values = [deque(maxlen=self._memory) for _ in range(series)]
        self._sums = [0.0] * series
        self._counts = [0] * series

    def _restored(self) -> None:
        values = self._values
        if len(values) != self.series:
            raise FieldError("values", f"must be of {self.series} series, not of {len(values)}")
        self._values = [deque(maxlen=self._memory) for _ in range(self.series)]
        self.reset(np.ones(self.series, np.bool_))
        for number, one in enumerate(values):
            for value in one:
                self._one(number, value)

    def _fresh(self) -> Any:
        return self._class(**self.options)

    def update(self, x: Floats) -> Evidence:
        """Take the rows of a batch, in their order."""
        if x.ndim != 2 or x.shape[1] != self.series:
            raise ValueError(f"a batch has shape (rows, {self.series}), not {x.shape}")
        here = np.isfinite(x)
        if self.kind in OF_ERRORS and not np.isin(x[here], (0.0, 1.0)).all():
            raise ValueError(f"{self.kind} takes errors, 0 or 1")
        crossed = np.full(self.series, -1, np.intp)
        direction = np.zeros(self.series, np.int8)
        for number in range(self.series):
            indices = np.flatnonzero(here[:, number])
            for row, value in zip(indices.tolist(), x[indices, number].tolist(), strict=True):
                side = self._one(number, value)
                if side is not None and crossed[number] < 0:
                    crossed[number] = row
                    direction[number] = side
        drifted = (crossed >= 0).astype(np.float64)
        return Evidence(drifted, np.ones(self.series), crossed, direction)

    def _one(self, number: int, value: float) -> int | None:
        """Take a value of a series; the direction of the drift that it shows, if any."""
        detector = self._detectors[number]
        # Errors are counted as whole numbers by some of them.
        detector.update(int(value) if self.kind in OF_ERRORS else value)
        values = self._values[number]
        values.append(value)
        self._sums[number] += value
        self._counts[number] += 1
        if not detector.drift_detected:
            return None
        side = self._direction(number)
        self._forget(number)
        return side

    def _direction(self, number: int) -> int:
        """Are the newest values above those before them?"""
        newest = list(self._values[number])[-_NEW:]
        older = self._counts[number] - len(newest)
        if older <= 0:
            return 0
        before = (self._sums[number] - sum(newest)) / older
        after = sum(newest) / len(newest)
        return (after > before) - (after < before)

    def _forget(self, number: int) -> None:
        # The detector itself keeps or drops its window as its authors have it.
        self._sums[number], self._counts[number] = 0.0, 0
        self._values[number].clear()

    def reset(self, series: NDArray[np.bool_]) -> None:
        """Restart some of the series, a mask (S,)."""
        for number in np.flatnonzero(series):
            self._forget(int(number))
            self._detectors[number] = self._fresh()


def of_one_series(kind: str, options: Mapping[str, Any], baseline_points: float) -> RiverDetector:
    """A detector of one series with the ``options`` of the configuration."""
    return RiverDetector(kind, 1, **options)


def _find(kind: str) -> Any:
    module, names = KINDS[kind]
    try:
        result = importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"the detector {kind} is river's: pip install 'understudy-serving[river]'"
        ) from error
    for name in names:
        if hasattr(result, name):
            return getattr(result, name)
    raise MissingExtraError(f"this release of river has no {names[0]}: pip install -U river")
