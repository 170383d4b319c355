"""The items of a record log: names, records and labels, filtered; and records as blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import orjson

from understudy.monitor.archive.lines import read_label, read_names, read_record
from understudy.monitor.archive.reading import Line, RecordLogFiles
from understudy.monitor.archive.repeats import Repeats
from understudy.monitor.config.model import Config
from understudy.monitor.errors import ReplayError
from understudy.monitor.evidence.blocks import Builder, RecordBlock
from understudy.monitor.evidence.decoding import Decoder
from understudy.monitor.evidence.settings import Settings
from understudy.monitor.labels.label import Label
from understudy.monitor.records.handoff import Names
from understudy.monitor.records.log import Damage
from understudy.monitor.records.record import OPEN, Record, decode_batch

Progress: TypeAlias = Callable[[int], None]
"""Called with the number of bytes read since the last call."""
_OTHER = ("other", "", "auto")


@dataclass(frozen=True, slots=True)
class RecordFilter:
    """Selects records by start time (unix seconds) and model; None matches any."""

    since: float | None = None
    until: float | None = None
    model: str | None = None
    version: str | None = None

    def time(self, at: float) -> bool:
        """Whether unix time ``at`` is selected."""
        return (self.since is None or at >= self.since) and (self.until is None or at < self.until)

    def named(self, name: str, version: str) -> bool:
        """Whether a model is selected."""
        return self.model in (None, name) and self.version in (None, version)


@dataclass(frozen=True, slots=True)
class RecordItem:
    """A record; ``line`` is its line in the log."""

    line: bytes
    names: Names
    record: Record
    id: str | None = None
    """The same for a record that was written twice; None if it has no id."""

    @property
    def model(self) -> tuple[str, str, str]:
        """(name, version, protocol)"""
        models = self.names.models
        return models[self.record.model] if self.record.model < len(models) else _OTHER


@dataclass(frozen=True, slots=True)
class LabelItem:
    """A label, with the unix time when it was received."""

    line: bytes
    received: float
    label: Label


@dataclass(frozen=True, slots=True)
class NamesItem:
    """The names that the following records index."""

    line: bytes
    names: Names


@dataclass(slots=True)
class Log:
    """Reads a log any number of times. ``broken`` counts lines that cannot be parsed: they are
    skipped with ``skip_broken``, otherwise they raise ReplayError. ``repeated`` counts records that
    were written twice, which are given once."""

    files: RecordLogFiles
    wanted: RecordFilter = field(default_factory=RecordFilter)
    skip_broken: bool = False
    broken: int = 0
    repeated: int = 0

    def restart(self) -> None:
        """Reset the counts, before the log is read again."""
        self.broken = self.repeated = 0
        self.files.damage = Damage()

    def items(
        self, progress: Progress | None = None
    ) -> Iterator[RecordItem | LabelItem | NamesItem]:
        """The selected items of the log; labels are selected by time only. Raises ReplayError."""
        names = Names()
        repeats = Repeats()
        wanted = self.wanted
        since = float("-inf") if wanted.since is None else wanted.since
        until = float("inf") if wanted.until is None else wanted.until
        read = 0
        for number, line in enumerate(self.files.lines(since, until), start=1):
            read += line.size
            if progress is not None and number % 512 == 0:
                progress(read)
                read = 0
            try:
                item = _item(line, names)
            except ReplayError as error:
                if not self.skip_broken:
                    raise ReplayError(f"{line.where}: {error}") from error
                self.broken += 1
                continue
            if isinstance(item, NamesItem):
                if item.names == names:
                    continue
                names = item.names
            elif isinstance(item, LabelItem):
                if not wanted.time(item.received):
                    continue
            elif repeats.includes(item.id):
                self.repeated += 1
                continue
            elif not (wanted.time(item.record.started) and wanted.named(*item.model[:2])):
                continue
            yield item
        if progress is not None:
            progress(read)

    def blocks(
        self, config: Config | None = None, progress: Progress | None = None
    ) -> Iterator[RecordBlock]:
        """Decoded records of finished requests, as blocks; ``config`` declares protocols and JSON
        mappings."""
        document: dict[str, Any] = {}
        if config is not None:
            document = config.model_dump(mode="json", by_alias=True)
        decoder = Decoder(Settings.from_json(document))
        builder = Builder("log", "log", 1, most_records=2048)
        for item in self.items(progress):
            if isinstance(item, RecordItem) and item.record.outcome != OPEN:
                decoded = decoder.decode(item.model, item.record)
                yield from builder.add(item.names, item.record, *decoded, 0.0)
        yield from builder.flush(0.0, everything=True)


def _item(line: Line, names: Names) -> RecordItem | LabelItem | NamesItem:
    try:
        data: Any = orjson.loads(line.data)
    except orjson.JSONDecodeError as error:
        raise ReplayError(f"not valid JSON: {error}") from error
    if not isinstance(data, dict):
        raise ReplayError("must be an object")
    if "names" in data:
        return NamesItem(line.data, read_names(data["names"]))
    if "label" in data:
        return LabelItem(line.data, *read_label(data["label"]))
    if "record" not in data:
        raise ReplayError("must hold names, a record or a label")
    if not isinstance(data["record"], dict):
        raise ReplayError("record: must be an object")
    (record,) = decode_batch(read_record(data["record"]))
    return RecordItem(line.data, names, record, data["record"].get("id"))
