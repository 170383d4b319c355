"""What is posted goes the way of the workers' records; twice the same is once."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from understudy.monitor.errors import IngestError
from understudy.monitor.ingest.cloudevents import Event, Pairs, item_of_pair
from understudy.monitor.ingest.records import Item, KnownModels, item_of
from understudy.monitor.records.handoff import Names

REMEMBERED = 100_000
"""Request ids by which what comes again is known."""

Sink = Callable[[Names, int, bytes], None]


@dataclass(slots=True)
class Taken:
    """What became of a post: ``refused`` are places, from 0, and reasons."""

    taken: int = 0
    duplicates: int = 0
    waiting: int = 0
    refused: list[tuple[int, str]] = field(default_factory=list)


class IngestService:
    """``sink`` takes batches as from a worker; ``clock`` is unix time."""

    def __init__(
        self, declared: KnownModels, sink: Sink, clock: Callable[[], float] = time.time
    ) -> None:
        self.declared = declared
        self.outcomes: Counter[tuple[str, str]] = Counter()
        """(source, outcome)"""
        self.pairs = Pairs()
        self._sink = sink
        self._clock = clock
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()

    def records(self, posted: Sequence[object]) -> Taken:
        """Items as they were posted; good ones are taken, whatever the others are."""
        taken = Taken()
        items: list[Item] = []
        now = self._clock()
        for place, data in enumerate(posted):
            try:
                item = item_of(data, self.declared, now)
            except IngestError as error:
                taken.refused.append((place, str(error)))
                continue
            items.append(item)
        return self._take("records", items, taken)

    def events(self, events: Sequence[Event]) -> Taken:
        """CloudEvents; a half waits for the other one."""
        taken = Taken()
        items: list[Item] = []
        now = self._clock()
        for place, event in enumerate(events):
            halves = self.pairs.add(event, now)
            if halves is None:
                taken.waiting += 1
                continue
            try:
                item = item_of_pair(*halves, self.declared, now)
            except IngestError as error:
                taken.refused.append((place, str(error)))
                continue
            items.append(item)
        return self._take("cloudevents", items, taken)

    def _take(self, source: str, items: Sequence[Item], taken: Taken) -> Taken:
        """Pass on what is not known yet, and count."""
        fresh = [item for item in items if not self._is_known(item)]
        taken.taken = len(fresh)
        taken.duplicates = len(items) - len(fresh)
        self._count(source, taken)
        self._pass(fresh)
        return taken

    def _is_known(self, item: Item) -> bool:
        if not item.request_id:
            return False
        key = (item.arm, item.request_id)
        if key in self._known:
            return True
        self._known[key] = None
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return False

    def _count(self, source: str, taken: Taken) -> None:
        self.outcomes[source, "taken"] += taken.taken
        self.outcomes[source, "duplicate"] += taken.duplicates
        self.outcomes[source, "refused"] += len(taken.refused)

    def _pass(self, items: Sequence[Item]) -> None:
        if not items:
            return
        models = list(dict.fromkeys(item.model for item in items))
        arms = self.declared.arms
        names = Names(0, tuple(models), tuple(arms))
        data = b"".join(
            item.encode(models.index(item.model), arms.index(item.arm)) for item in items
        )
        self._sink(names, len(items), data)
