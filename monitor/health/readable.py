"""Whether the requests and answers of a model can be read at present.

What cannot be read is forwarded and otherwise not monitored: no rule and no test sees it. So it is
a problem by itself, and needs no baseline.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from understudy.common.codecs import Reason
from understudy.monitor.evidence.batch import ColumnBatch, Floats
from understudy.monitor.evidence.block_columns import READ, REASONS
from understudy.monitor.evidence.columns import listed
from understudy.monitor.findings.finding import Signal, Size
from understudy.monitor.health.untested import Untested
from understudy.shadow.state import Config, Count, Saved, Stateful, Transient

LAST = 100
"""Requests, or answers of one arm, that are judged by: the newest."""
FEWEST = 10
"""Of these, unreadable ones that are a problem."""
_MOST_ARMS = 64
_CRITICAL = 0.5
_EXAMPLES = 5
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
    since: Saved[float]
    """When the first one came after ``LAST`` readable ones, in unix seconds."""
    examples: Transient[deque[str]]

    def __init__(self) -> None:
        self.codes = []
        self._seen = self._last = 0
        self.since = 0.0
        self.examples = deque(maxlen=_EXAMPLES)

    def add(self, codes: Floats, batch: ColumnBatch) -> None:
        """``codes`` has one entry for each row of ``batch``; NaN where there was nothing to
        read."""
        rows = np.flatnonzero(~np.isnan(codes))
        if not rows.size:
            return
        unread = np.flatnonzero(codes[rows] != READ)
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
        self._seen += len(rows)
        newest = codes[rows[-LAST:]].astype(np.int64).tolist()
        self.codes = (self.codes + newest)[-LAST:]

    @property
    def reasons(self) -> Counter[Reason]:
        """Number of unreadable ones by reason."""
        return Counter(REASONS[code - 1] for code in self.codes if code != READ)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A part of the exchanges of a model that cannot be read at present: ``part`` is "request" or
    "answer", ``arm`` the one that answered (of requests ""), ``count`` how many of the ``last``
    ones, ``reason`` the commonest one."""

    part: str
    arm: str
    count: int
    last: int
    reason: Reason
    since: float
    examples: tuple[str, ...]

    @property
    def words(self) -> str:
        """How many cannot be read, and why."""
        of_arm = f" of {self.arm!r}" if self.arm else ""
        what = _WORDS[self.reason][0]
        used = "used" if self.reason is Reason.ROWS_DIFFER else "read"
        return (
            f"{self.count} of the last {self.last} {self.part}s{of_arm} cannot be {used} ({what})"
        )

    def signal(self, model: str, version: str) -> Signal:
        """As a finding. That of requests has the key of the rule about their rate."""
        share = self.count / self.last
        rule = "undecodable" if self.part == "request" else f"unreadable answers/{self.arm}"
        return Signal(
            key=f"quality/{model}/{version}//{rule}{'/' if self.part == 'request' else ''}",
            kind="quality",
            model=model,
            version=version,
            segment="",
            severity="critical" if share >= _CRITICAL else "warning",
            title=f"Not monitored: {self.words}",
            since=self.since,
            size=Size(f"share of {self.part}s that cannot be read", "", 0.0, share, None, None),
            rule=f"at least {FEWEST} of the last {LAST} {self.part}s cannot be read",
            guarantee="none: a limit, not a statistical test",
            examples=self.examples,
            advice=f"{_WORDS[self.reason][1]} If they are not meant to be read, declare it: "
            f"`read: false` of the model{_OPAQUE if self.part == 'answer' else ''}.",
        )

    def untested(self) -> Untested:
        """What is not tested because of it."""
        if self.part == "request":
            words = f"drift and quality of inputs: {self.words}"
            return Untested("inputs", "unreadable", words, self.last - self.count, self.last)
        words = f"predictions, performance and comparisons: {self.words}"
        return Untested("answers", "unreadable", words, self.last - self.count, self.last)


class Readability(Stateful):
    """The newest requests and answers of one model."""

    answers: Config[bool]
    """Whether answers are to be read."""
    windows: Saved[dict[tuple[str, str], _Window]]
    """By part ("request" or "answer") and arm; requests are of the arm ""."""

    def __init__(self) -> None:
        self.answers = True
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
        window.add(codes, batch)

    def unreadable(self) -> Iterator[Unreadable]:
        """What cannot be read at present."""
        for (part, arm), window in sorted(self.windows.items()):
            reasons = window.reasons
            count = reasons.total()
            if count >= FEWEST and (self.answers or part == "request"):
                reason = max(reasons, key=lambda one: (reasons[one], one))
                last, examples = len(window.codes), tuple(reversed(window.examples))
                yield Unreadable(part, arm, count, last, reason, window.since, examples)
