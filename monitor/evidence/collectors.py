"""The first stage of all experiments: which of them a record belongs to, and who gets its label."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from understudy.monitor.codecs import Table
from understudy.monitor.evidence.arms import SplitShares
from understudy.monitor.evidence.collector import EvidenceCollector
from understudy.monitor.evidence.mirrored import columns_of
from understudy.monitor.labels.store import Joined, Prediction
from understudy.monitor.records.handoff import Names
from understudy.monitor.records.record import OK, ROLE_PRIMARY, Record

View = dict[str, list[tuple[EvidenceCollector, SplitShares | None]]]
"""By model: the experiments that its records belong to."""


class EvidenceCollectors:
    """``by_name`` are those of the experiments; ``first_model`` is that of experiments which name
    none."""

    def __init__(self, by_name: Mapping[str, EvidenceCollector], first_model: str) -> None:
        self.by_name = dict(by_name)
        self.first_model = first_model
        self.offer: Callable[[Prediction], None] | None = None
        """Where predictions go that may get a label."""
        self.origin = (0, 0)
        """Where the next record comes from: offset of its block, place in it."""

    def model_of(self, gathering: EvidenceCollector) -> str:
        """The model that an experiment is about."""
        return gathering.declared.model or self.first_model

    def view(self, names: Names) -> View:
        """Which experiments the records of a batch belong to."""
        found: View = {}
        divided = {split.experiment: split for split in names.splits}
        for name, gathering in self.by_name.items():
            split = divided.get(name)
            division = None
            if split is not None and all(arm in names.arms for arm in gathering.order):
                weights = tuple(split.weights[names.arms.index(arm)] for arm in gathering.order)
                division = SplitShares(names.arms, weights, split.since, split.epoch)
            found.setdefault(self.model_of(gathering), []).append((gathering, division))
        return found

    def take(
        self, view: View, model: str, record: Record, arm: str, of_request: object, answer: object
    ) -> None:
        """Take a record of ``model``."""
        offered = False
        for gathering, division in view.get(model, ()):
            gathering.copies.origin = self.origin
            gathering.take(record, arm, division, of_request, answer)
            if gathering.wants_labels and not offered and isinstance(answer, Table):
                offered = gathering.concerns(arm) and record.outcome == OK
                if offered:
                    self._offer(gathering, division, model, record, arm, answer)

    def _offer(
        self,
        gathering: EvidenceCollector,
        division: SplitShares | None,
        model: str,
        record: Record,
        arm: str,
        answer: Table,
    ) -> None:
        if self.offer is not None:
            self.offer(
                Prediction(
                    record.request_id.decode("latin-1"),
                    arm,
                    record.role != ROLE_PRIMARY,
                    model,
                    gathering.share_of(record, arm, division),
                    record.started,
                    columns_of(answer),
                )
            )

    def take_label(self, joined: Joined) -> None:
        """Take a label that was joined to a prediction."""
        for gathering in self.by_name.values():
            if joined.model == self.model_of(gathering):
                gathering.take_label(joined)
