"""Predictions of the champion that may get a label: what is kept of them until then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from understudy.monitor.codecs import Table
from understudy.monitor.config.model import Config
from understudy.monitor.config.performance import Performance
from understudy.monitor.evidence.redaction import redaction_of
from understudy.monitor.labels.store import Prediction
from understudy.monitor.records.record import OK, ROLE_PRIMARY, Record

PREFIX = "@"
"""Before the name of a feature among the outputs of a prediction that waits for its label: the
feedback store keeps outputs only, and a label has to find its segment."""


class PendingPredictions:
    """Of the models whose performance is declared; ``offer`` is where predictions go."""

    def __init__(self, config: Config) -> None:
        self.offer: Callable[[Prediction], None] | None = None
        self.champion = ""
        self._judged: dict[tuple[str, str], Performance] = {}
        self._segments: tuple[str, ...] = ()
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Go on under another configuration."""
        self.champion = config.champion.name
        self._redaction = redaction_of(config)
        self._segments = tuple(config.monitoring.segments)
        judged = {(m.name, m.version): m.performance for m in config.models if m.performance}
        self._judged = judged if config.monitoring.enabled else {}

    def wants(self, model: str) -> bool:
        """Whether predictions of a model may get labels."""
        return any(name == model for name, _ in self._judged)

    def take(
        self, key: tuple[str, str], record: Record, arm: str, of_request: object, answer: object
    ) -> None:
        """Take one record of the model ``key``, (name, version)."""
        judged = self._judged.get(key)
        if (
            judged is None
            or self.offer is None
            or record.role != ROLE_PRIMARY
            or record.outcome != OK
            or arm != self.champion
            or not isinstance(of_request, Table)
            or not isinstance(answer, Table)
            or answer.rows != of_request.rows
            or judged.prediction not in answer.names
        ):
            return
        width = len(answer.names)
        columns = {name: answer.values[place::width] for place, name in enumerate(answer.names)}
        every = of_request.names if judged.slices else self._segments
        shown = tuple(name for name in every if not self._redaction.hides(name))
        columns |= kept_with(shown, of_request.names, of_request.values)
        request_id = record.request_id.decode("latin-1")
        self.offer(Prediction(request_id, arm, False, key[0], 0.0, record.started, columns))


def kept_with(
    features: Sequence[str], names: Sequence[str], values: Sequence[Any]
) -> dict[str, list[object]]:
    """What has to be kept with predictions so that their labels find their segments: the cells of
    the declared ``features``, by name with a prefix. ``values`` are the rows of a request, row by
    row, in the order of ``names``."""
    width = len(names)
    return {
        f"{PREFIX}{feature}": list(values[list(names).index(feature) :: width])
        for feature in features
        if feature in names
    }
