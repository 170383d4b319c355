"""Passes posted records to the evaluation, like records of workers; duplicates count once."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from understudy.monitor.errors import IngestError
from understudy.monitor.ingest.cloudevents import Event, Pairs, item_of_pair
from understudy.monitor.ingest.records import Item, KnownModels, item_of
from understudy.monitor.records.handoff import Names

MAX_KNOWN_IDS = 100_000
"""Number of request ids kept to detect duplicates."""

Sink = Callable[[Names, int, bytes], None]


@dataclass(slots=True)
class IngestResult:
    """Outcome of a post: counts, and ``refused`` as pairs of index (from 0) and reason."""

    accepted: int = 0
    duplicates: int = 0
    waiting: int = 0
    refused: list[tuple[int, str]] = field(default_factory=list)


class IngestService:
    """``sink`` takes batches like those of a worker; ``clock`` returns unix seconds."""

    def __init__(
        self, declared: KnownModels, sink: Sink, clock: Callable[[], float] = time.time
    ) -> None:
        self.declared = declared
        self.outcomes: Counter[tuple[str, str]] = Counter()
        """(source, outcome)"""
        self.pairs = Pairs()
        self._sink = sink
        self._clock = clock
        self._known_ids: OrderedDict[tuple[str, str], None] = OrderedDict()

    def records(self, posted: Sequence[object]) -> IngestResult:
        """Accept posted items; invalid ones are refused, the others are accepted."""
        result = IngestResult()
        items: list[Item] = []
        now = self._clock()
        for index, data in enumerate(posted):
            try:
                item = item_of(data, self.declared, now)
            except IngestError as error:
                result.refused.append((index, str(error)))
                continue
            items.append(item)
        return self._take("records", items, result)

    def events(self, events: Sequence[Event]) -> IngestResult:
        """Accept CloudEvents; the first of a pair waits for the second."""
        result = IngestResult()
        items: list[Item] = []
        now = self._clock()
        for index, event in enumerate(events):
            halves = self.pairs.add(event, now)
            if halves is None:
                result.waiting += 1
                continue
            try:
                item = item_of_pair(*halves, self.declared, now)
            except IngestError as error:
                result.refused.append((index, str(error)))
                continue
            items.append(item)
        return self._take("cloudevents", items, result)

    def _take(self, source: str, items: Sequence[Item], result: IngestResult) -> IngestResult:
        """Send the items that are not duplicates, and count."""
        new_items = [item for item in items if not self._is_known(item)]
        result.accepted = len(new_items)
        result.duplicates = len(items) - len(new_items)
        self._count(source, result)
        self._send(new_items)
        return result

    def _is_known(self, item: Item) -> bool:
        if not item.request_id:
            return False
        key = (item.arm, item.request_id)
        if key in self._known_ids:
            return True
        self._known_ids[key] = None
        if len(self._known_ids) > MAX_KNOWN_IDS:
            self._known_ids.popitem(last=False)
        return False

    def _count(self, source: str, result: IngestResult) -> None:
        self.outcomes[source, "taken"] += result.accepted
        self.outcomes[source, "duplicate"] += result.duplicates
        self.outcomes[source, "refused"] += len(result.refused)

    def _send(self, items: Sequence[Item]) -> None:
        if not items:
            return
        models = list(dict.fromkeys(item.model for item in items))
        arms = self.declared.arms
        names = Names(0, tuple(models), tuple(arms))
        data = b"".join(
            item.encode(models.index(item.model), arms.index(item.arm)) for item in items
        )
        self._sink(names, len(items), data)
