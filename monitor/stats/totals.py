"""Counts of earlier runs, on disk: counters go on over a restart of the whole service.

The workers' numbers are in memory that outlives them, but not the machine, and a new run starts
with new files. So the evaluation plane writes totals to ``statistics.json`` in the state folder:
those of earlier runs, and those of the present run so far. The next run adds up both, or takes the
numbers of the run before from its files, where these are still there: they are newer.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from understudy.common.durable import read_document, replace_document, set_aside
from understudy.monitor.stats.buckets import BUCKETS
from understudy.monitor.stats.distribution import Words
from understudy.monitor.stats.reader import (
    Series,
    Snapshot,
    StatsReader,
    WorkerFile,
    add_sketch,
    labels_of,
    other_series,
)
from understudy.monitor.stats.shared import SKETCH_BUCKETS, SKETCH_WORDS, IsLive

log = logging.getLogger(__name__)

FILE_NAME = "statistics.json"
VERSION = 1
_EARLIER = re.compile(r"earlier-([0-9a-z]+)-(\d+)\.stats")
_MOST_RUNS = 64
"""Names of added runs that are remembered: a crash may leave files of theirs behind."""
_MOST = 1 << 62
_ELIGIBLE: Series = ("records_eligible", ())
_SENT: Series = ("records_sent", ())
_LOST: Series = ("records_lost", ())
_WORKER_LOST: Series = ("records_dropped", (("reason", "worker_lost"),))

Received = Callable[[str], int | None]
"""How many records of a run are part of the saved state; None if that is not known."""


def earlier_name(run: str, slot: int) -> str:
    """The name of the file of a worker of an earlier run."""
    return f"earlier-{run}-{slot}.stats"


class Statistics:
    """The numbers of all workers, with those of earlier runs.

    ``received`` settles the accounts of an earlier run: its records that were sent, but are not
    part of the saved state, are lost. Series that ``is_live`` does not know, of an earlier run,
    are counted as ``other``.
    """

    def __init__(
        self,
        run_dir: Path,
        path: Path | None = None,
        run: str = "",
        received: Received = lambda _: None,
        is_live: Callable[[], IsLive] = lambda: _is_any,
    ) -> None:
        self.failures = 0
        self.error: str | None = None
        """Why the totals could not be written the last time."""
        self._run_dir = run_dir
        self._path = path
        self._run = run
        self._received = received
        self._is_live = is_live
        self._reader = StatsReader(run_dir)
        self._earlier = Snapshot(0.0)
        self._added: list[str] = []
        """Runs that are part of ``_earlier``, the newest last."""
        self._files: dict[str, dict[Path, WorkerFile]] = {}
        """Files of earlier runs that are not part of ``_earlier`` yet."""
        self._done: list[Path] = []
        """Files that can be deleted once the totals are on disk."""
        self._saved: tuple[int, int] | None = None
        self._lock = threading.Lock()
        self._loaded = False
        self._load()

    @property
    def added(self) -> tuple[str, ...]:
        """Earlier runs whose processes have ended and whose accounts are settled."""
        return tuple(self._added)

    def read(self) -> Snapshot:
        """Totals now. Never raises because of what a file holds."""
        with self._lock:
            return self._read()

    def _read(self) -> Snapshot:
        self._look_for_earlier()
        total = self._reader.read()
        present = frozenset(total.counters)
        together = Snapshot(0.0)
        together.add(self._earlier)
        for run in list(self._files):
            for file in self._files[run].values():
                file.add_to(together, alive=False)
        is_live = self._is_live()
        for series, value in together.counters.items():
            known = series in present or is_live(dict(series[1]))
            name = series if known else other_series(series)
            total.counters[name] = total.counters.get(name, 0) + value
        for series, words in together.sketches.items():
            known = series in total.sketches or is_live(dict(series[1]))
            add_sketch(total.earlier_sketches, series if known else other_series(series), words)
        return total

    # Earlier runs -------------------------------------------------------------------------------

    def _look_for_earlier(self) -> None:
        """Read files of earlier runs, and add up those whose workers have ended."""
        try:
            names = os.listdir(self._run_dir)
        except OSError:
            names = []
        for name in names:
            match = _EARLIER.fullmatch(name)
            path = self._run_dir / name
            if match is None or path in self._done:
                continue
            run = match[1]
            if run in self._added:
                self._done.append(path)
            else:
                files = self._files.setdefault(run, {})
                files.setdefault(path, WorkerFile(path, int(match[2])))
        for run, files in list(self._files.items()):
            for file in files.values():
                file.refresh(self._earlier)
            if not any(file.usable and file.alive for file in files.values()):
                whole = Snapshot(0.0)
                for file in files.values():
                    file.add_to(whole, alive=False)
                self._add(run, whole)
                self._done += files
                del self._files[run]

    def _add(self, run: str, whole: Snapshot) -> None:
        """Add an earlier run whose processes have ended."""
        counters = whole.counters
        sent = counters.get(_SENT, 0)
        received = self._received(run)
        if received is not None:
            missing = sent - received - counters.get(_LOST, 0)
            if missing > 0:
                counters[_LOST] = counters.get(_LOST, 0) + missing
        dropped = sum(n for (name, _), n in counters.items() if name == "records_dropped")
        left = counters.get(_ELIGIBLE, 0) - sent - dropped
        if left > 0:
            counters[_WORKER_LOST] = counters.get(_WORKER_LOST, 0) + left
        self._earlier.add(whole)
        self._added = [*self._added, run][-_MOST_RUNS:]
        self._saved = None

    # The file -----------------------------------------------------------------------------------

    def _load(self) -> None:
        if self._path is None:
            return
        self._loaded = True
        try:
            data = orjson.loads(read_document(self._path))
            if data["version"] != VERSION:
                raise ValueError(f"unknown version {data['version']!r}")
            earlier, present = _totals(data["earlier"]), _totals(data["present"])
            run, added = str(data["run"]), [str(one) for one in data["added"]]
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno == errno.ELOOP:
                aside = set_aside(self._path)
                log.error("%s: not followed, the link is kept as %s", self._path, aside)
                return
            # Try again before it is overwritten.
            self._loaded = False
            if self.error is None:
                log.error("%s: cannot be read: %s", self._path, error)
            self.error = f"{self._path}: {error}"
            return
        except Exception as error:  # whatever the file holds
            aside = set_aside(self._path)
            log.error(
                "%s: cannot be used: %r; counters start from zero, the file is kept as %s",
                self._path,
                error,
                aside,
            )
            return
        self._earlier.add(earlier)
        self._added = [*added, *self._added][-_MOST_RUNS:]
        if run == self._run or run in added:
            return
        if not any(self._run_dir.glob(earlier_name(run, 0).replace("-0.", "-*."))):
            self._add(run, present)

    def save(self, last: bool = False) -> bool:
        """Write the totals if they changed; with ``last`` the workers have ended, and their files
        are deleted. False when it failed."""
        if self._path is None:
            return True
        with self._lock:
            if not self._loaded:
                self._load()
            now = self._reader.read()
            state = sum(now.counters.values()), len(self._added)
            changed = state != self._saved
            document = self._document(now) if changed else b""
            done = list(self._done)
        if not self._loaded:
            return False
        try:
            if changed:
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                replace_document(self._path, document)
            for path in (*done, *(self._run_dir.glob("worker-*.stats") if last else ())):
                path.unlink(missing_ok=True)
        except OSError as error:
            self.failures += 1
            if self.error is None:
                log.error("%s: counters cannot be saved: %s", self._path, error)
            self.error = f"{self._path}: {error}"
            return False
        with self._lock:
            self.error = None
            self._saved = state
            self._done = [path for path in self._done if path not in done]
        return True

    def _document(self, now: Snapshot) -> bytes:
        return orjson.dumps(
            {
                "version": VERSION,
                "run": self._run,
                "added": self._added,
                "earlier": _dumped(self._earlier, self._is_live()),
                "present": _dumped(now, _is_any),
            }
        )


def _is_any(_: Mapping[str, str]) -> bool:
    return True


def _dumped(totals: Snapshot, is_live: IsLive) -> dict[str, Any]:
    """Plain data; series of what is gone are added to ``other``, so that the size is bounded."""

    def kept_as(series: Series) -> Series:
        return series if is_live(dict(series[1])) else other_series(series)

    kept = Snapshot(0.0)
    for series, value in totals.counters.items():
        name = kept_as(series)
        kept.counters[name] = kept.counters.get(name, 0) + value
    for series, words in totals.sketches.items():
        add_sketch(kept.sketches, kept_as(series), words)
    sketches = []
    for (title, labels), words in kept.sketches.items():
        filled = np.flatnonzero(words[SKETCH_BUCKETS:])
        sketches.append(
            [
                title,
                dict(labels),
                words[:SKETCH_BUCKETS].tolist(),
                filled.tolist(),
                words[SKETCH_BUCKETS:][filled].tolist(),
            ]
        )
    counters = [[title, dict(labels), value] for (title, labels), value in kept.counters.items()]
    return {"counters": counters, "sketches": sketches}


def _totals(data: Mapping[str, Any]) -> Snapshot:
    """Undo :func:`_dumped`. Raises ValueError, KeyError or TypeError for other data."""
    result = Snapshot(0.0)
    for name, labels, value in data["counters"]:
        result.counters[_series(name, labels)] = _count(value)
    for name, labels, head, filled, counts in data["sketches"]:
        words: Words = np.zeros(SKETCH_WORDS, np.uint64)
        words[:SKETCH_BUCKETS] = _counts(head, SKETCH_BUCKETS)
        where = [int(index) for index in filled]
        if any(not 0 <= index < BUCKETS for index in where):
            raise ValueError("a bucket that does not exist")
        words[[SKETCH_BUCKETS + index for index in where]] = _counts(counts, len(where))
        result.sketches[_series(name, labels)] = words
    return result


def _series(name: Any, labels: Any) -> Series:
    return str(name), labels_of({str(key): str(value) for key, value in dict(labels).items()})


def _counts(values: Sequence[Any], length: int) -> Words:
    if len(values) != length:
        raise ValueError(f"{len(values)} numbers instead of {length}")
    return np.array([_count(value) for value in values], np.uint64)


def _count(value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value < _MOST:
        raise ValueError(f"{value!r} is not a count")
    return value
