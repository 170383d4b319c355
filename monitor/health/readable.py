"""Whether the requests and answers of a model can be read at present.

What cannot be read is forwarded and otherwise not monitored: no rule and no test sees it. So it is
a problem by itself, and needs no baseline.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

import numpy as np

from understudy.common.codecs import Reason
from understudy.monitor.evidence.batch import ColumnBatch, Floats
from understudy.monitor.evidence.block_columns import READ, REASONS
from understudy.monitor.evidence.columns import Column, listed
from understudy.monitor.findings.finding import Signal, Size
from understudy.monitor.health.untested import Untested
from understudy.shadow.state import Config, Count, Saved, Stateful, Transient

LAST = 100
"""Requests, or answers of one arm, that are judged by: the newest."""
SHARE = 0.1
"""Of these, the share of unreadable ones that is a problem, unless the configuration has another
one."""
_MOST_ARMS = 64
_CRITICAL = 0.5
_EXAMPLES = 5
_MOST_DETAILS = 3
_NOT_CAPTURED = (
    "Raise `capture.max_body` (of mirrored requests `mirror.max_response`): larger payloads are "
    "not captured."
)
_OPAQUE = ", or `opaque_answers: true` of its experiment"
_FORMAT = (
    "Name the wire format in `models[].protocol` (with `json` for plain JSON), and look at "
    "/v1/records for examples: a client or the schema may have changed."
)
_WORDS = {
    Reason.NOT_CAPTURED: ("too large", _NOT_CAPTURED),
    Reason.EMPTY: ("empty", _FORMAT),
    Reason.NOT_JSON: ("not JSON", _FORMAT),
    Reason.NOT_CSV: ("not CSV", _FORMAT),
    Reason.SHARED_MEMORY: (
        "in shared memory",
        "Have clients send the tensors themselves: memory that client and model server share "
        "cannot be seen.",
    ),
    Reason.TRUNCATED: ("truncated", _NOT_CAPTURED),
    Reason.WRONG_SHAPE: ("of another shape than their format has", _FORMAT),
    Reason.BINARY: (
        "binary",
        "Have clients send JSON and ask for JSON instead of binary tensors.",
    ),
    Reason.TOO_LARGE: ("too large when decompressed", "Have clients send smaller batches."),
    Reason.UNSUPPORTED_ENCODING: (
        "in an unsupported content encoding",
        "Have clients use gzip, deflate or no content encoding.",
    ),
    Reason.UNKNOWN_PROTOCOL: ("in an unknown format", _FORMAT),
    Reason.ERROR_RESPONSE: ("errors", "Look at the log of the model server."),
    Reason.ROWS_DIFFER: (
        "another number of rows than their requests",
        "Have the model answer one row for each row of a request: rows cannot be matched to "
        "predictions or labels otherwise.",
    ),
    Reason.INTERNAL: ("not decoded because of an internal error", "Look at the log of Understudy."),
}
"""By reason: what they are, and what to do."""


class _Window(Stateful):
    """The newest requests, or answers of one arm."""

    codes: Saved[list[int]]
    """Of at most ``LAST``: ``READ``, or 1 + the index in ``REASONS``."""
    _seen: Saved[Count]
    _last: Saved[Count]
    """How many were seen up to the last unreadable one; 0 without."""
    _read: Saved[Count]
    """How many were seen up to the last readable one; 0 without."""
    since: Saved[float]
    """When the first one came after ``LAST`` readable ones, in unix seconds."""
    details: Saved[dict[int, str]]
    """By code, what was found in the last unreadable one with it."""
    examples: Transient[deque[str]]

    def __init__(self) -> None:
        self.codes = []
        self._seen = self._last = self._read = 0
        self.since = 0.0
        self.details = {}
        self.examples = deque(maxlen=_EXAMPLES)

    def add(self, codes: Floats, details: Column, batch: ColumnBatch) -> None:
        """``codes`` and ``details`` have one entry for each row of ``batch``; codes are NaN where
        there was nothing to read."""
        rows = np.flatnonzero(~np.isnan(codes))
        if not rows.size:
            return
        unread = np.flatnonzero(codes[rows] != READ)
        read = np.flatnonzero(codes[rows] == READ)
        if read.size:
            self._read = self._seen + 1 + int(read[-1])
        if unread.size:
            numbers = self._seen + 1 + unread
            before = np.concatenate(([self._last], numbers[:-1]))
            first = np.flatnonzero((numbers - before > LAST) | (before == 0))
            if first.size:
                self.since = float(batch.at[rows[unread[first[-1]]]])
            self._last = int(numbers[-1])
            self.examples.extend(
                batch.ids[row].decode("latin-1") for row in rows[unread[-_EXAMPLES:]].tolist()
            )
            of_code = dict(zip(codes[rows[unread]].tolist(), rows[unread].tolist(), strict=True))
            for code, row in of_code.items():
                detail = details[row]
                self.details[int(code)] = detail if isinstance(detail, str) else ""
        self._seen += len(rows)
        newest = codes[rows[-LAST:]].astype(np.int64).tolist()
        self.codes = (self.codes + newest)[-LAST:]

    @property
    def unread(self) -> int:
        """How many could not be read since the last one that could."""
        return self._seen - self._read

    @property
    def reasons(self) -> Counter[Reason]:
        """Number of unreadable ones by reason."""
        return Counter(REASONS[code - 1] for code in self.codes if code != READ)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A part of the exchanges of a model that cannot be read at present: ``part`` is "request" or
    "answer", ``arm`` the one that answered (of requests ""), ``count`` how many of the ``last``
    ones, ``unread`` how many since one that could. ``reasons`` are counted among the last ones, the
    commonest first, and ``detail`` says what was found in the newest with the first reason.
    ``limit`` is the share that is a problem."""

    part: str
    arm: str
    count: int
    last: int
    unread: int
    reasons: tuple[tuple[Reason, int], ...]
    detail: str
    limit: float
    since: float
    examples: tuple[str, ...]

    @property
    def reason(self) -> Reason:
        """The commonest one."""
        return self.reasons[0][0]

    @property
    def share(self) -> float:
        """Of the last ones."""
        return self.count / self.last

    @property
    def words(self) -> str:
        """How many can be read, and why the others cannot."""
        of_arm = f" of {self.arm!r}" if self.arm else ""
        used = "used" if self.reason is Reason.ROWS_DIFFER else "read"
        if self.count == self.last:
            found = f"0 of {self.unread:,} {self.part}s{of_arm} could be {used}"
        else:
            read = self.last - self.count
            found = f"{read} of the last {self.last} {self.part}s{of_arm} could be {used}"
        return f"{found} ({self._why})"

    @property
    def _why(self) -> str:
        if len(self.reasons) > 1:
            parts = (f"{n} {_WORDS[one][0]}" for one, n in self.reasons[:_MOST_DETAILS])
            return ", ".join(parts)
        what = _WORDS[self.reason][0]
        return f"{what}: {self.detail}" if self.detail else what

    def signal(self, model: str, version: str) -> Signal:
        """As a finding."""
        where = "requests" if self.part == "request" else f"answers/{self.arm}"
        return Signal(
            key=f"blind/{model}/{version}//{where}",
            kind="blind",
            model=model,
            version=version,
            segment="",
            severity="critical" if self.share >= _CRITICAL else "warning",
            title=f"Blind: {self.words}",
            since=self.since,
            size=Size(
                f"share of {self.part}s that cannot be read", "", 0.0, self.share, None, None
            ),
            rule=f"at least {self.limit:.3g} of the last {LAST} {self.part}s cannot be read",
            guarantee="none: a limit, not a statistical test",
            examples=self.examples,
            advice=f"{_WORDS[self.reason][1]} If they are not meant to be read, declare it: "
            f"`read: false` of the model{_OPAQUE if self.part == 'answer' else ''}.",
        )

    def untested(self) -> Untested:
        """What is not tested because of it."""
        if self.part == "request":
            words = f"drift and quality of inputs are blind: {self.words}"
            return Untested("inputs", "unreadable", words, self.last - self.count, self.last)
        words = f"predictions, performance and comparisons are blind: {self.words}"
        return Untested("answers", "unreadable", words, self.last - self.count, self.last)


class Readability(Stateful):
    """The newest requests and answers of one model."""

    answers: Config[bool]
    """Whether answers are to be read."""
    share: Config[float]
    """Of the last ``LAST``, the share of unreadable ones that is a problem."""
    windows: Saved[dict[tuple[str, str], _Window]]
    """By part ("request" or "answer") and arm; requests are of the arm ""."""

    def __init__(self) -> None:
        self.answers = True
        self.share = SHARE
        self.windows = {}

    def add(self, batch: ColumnBatch) -> None:
        """Take rows of the type ``REQUESTS``."""
        self._add("request", "", batch.floats("request"), batch)
        answers = batch.floats("answer")
        arms = np.array(listed(batch.column("arm")), dtype=object)
        for arm in sorted(set(arms.tolist())):
            self._add("answer", arm, np.where(arms == arm, answers, np.nan), batch)

    def _add(self, part: str, arm: str, codes: Floats, batch: ColumnBatch) -> None:
        window = self.windows.get((part, arm))
        if window is None:
            if len(self.windows) > _MOST_ARMS:
                return
            window = self.windows[part, arm] = _Window()
        name = f"{part}_detail"
        # Evidence from before an upgrade has no details.
        details = batch.column(name) if name in batch.names else [None] * len(batch)
        window.add(codes, details, batch)

    def unreadable(self) -> Iterator[Unreadable]:
        """What cannot be read at present."""
        for (part, arm), window in sorted(self.windows.items()):
            reasons = window.reasons
            count = reasons.total()
            if count < max(1, ceil(self.share * LAST)) or not (self.answers or part == "request"):
                continue
            ordered = sorted(reasons.items(), key=lambda one: (-one[1], one[0]))
            yield Unreadable(
                part,
                arm,
                count,
                len(window.codes),
                window.unread,
                tuple(ordered),
                window.details.get(1 + REASONS.index(ordered[0][0]), ""),
                self.share,
                window.since,
                tuple(reversed(window.examples)),
            )
