"""Passes posted records to the evaluation, like records of workers; duplicates count once."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from understudy.monitor.errors import IngestError
from understudy.monitor.ingest.cloudevents import Event, Pairs, item_of_pair
from understudy.monitor.ingest.records import MOST_ITEMS, Item, KnownModels, item_of
from understudy.monitor.records.handoff import Names

MAX_KNOWN_IDS = 100_000
"""Number of request ids kept to detect duplicates."""
MAX_POST_BYTES = 32 * 1024 * 1024
"""Payloads of one post. They may be longer than its body, which has each name only once."""

RECORDS, EXTERNAL_PROCESSOR = "records", "ext-proc"
SOURCES = (RECORDS, EXTERNAL_PROCESSOR)
"""What posts records: any client, or `understudy ingest ext-proc`."""

Sink = Callable[[Names, int, bytes], None]


@dataclass(slots=True)
class IngestResult:
    """Outcome of a post: counts, and ``refused`` as pairs of index (from 0) and reason."""

    accepted: int = 0
    duplicates: int = 0
    waiting: int = 0
    refused: list[tuple[int, str]] = field(default_factory=list)


class RecordPost:
    """Posted records that arrive one after another; invalid ones are refused, the others wait in
    ``items``. ``now`` is unix seconds."""

    def __init__(self, declared: KnownModels, now: float) -> None:
        self.items: list[Item] = []
        self.result = IngestResult()
        self._declared = declared
        self._now = now
        self._index = 0
        self._bytes = 0

    def add(self, data: object) -> None:
        """Convert one item. Raises IngestError when the post is too large as a whole."""
        index = self._index
        if index >= MOST_ITEMS:
            raise IngestError(f"more than {MOST_ITEMS:,} items: send them in several calls")
        self._index += 1
        try:
            item = item_of(data, self._declared, self._now)
        except IngestError as error:
            self.result.refused.append((index, str(error)))
            return
        self._bytes += len(item.request or b"") + len(item.response or b"")
        if self._bytes > MAX_POST_BYTES:
            raise IngestError(
                f"the payloads of the items take more than {MAX_POST_BYTES:,} bytes: send them in"
                " several calls"
            )
        self.items.append(item)


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

    def post(self) -> RecordPost:
        """A post of records, to be filled and handed to :meth:`records`."""
        return RecordPost(self.declared, self._clock())

    def records(self, post: RecordPost, source: str = RECORDS, dropped: int = 0) -> IngestResult:
        """Accept the valid items of a post; ``dropped`` more were lost before it was sent."""
        if dropped:
            self.outcomes[source, "dropped"] += dropped
        return self._take(source, post.items, post.result)

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
