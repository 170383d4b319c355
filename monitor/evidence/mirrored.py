"""Mirrored requests: pairs and compares the answers of champion and challengers."""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.common.arrays import distinct
from understudy.common.codecs import Table
from understudy.common.codecs.llm.columns import ANSWER_HASH, NOT_COMPARED
from understudy.monitor.config.experiment import Compare
from understudy.monitor.evidence.arms import Arms
from understudy.monitor.evidence.block_columns import BlockColumns, Indices, Mask, Part
from understudy.monitor.evidence.columns import Column, cells_at, listed
from understudy.monitor.evidence.joiner import Deadlines, PairJoiner
from understudy.monitor.evidence.observe import NAN, Censored, Observer
from understudy.monitor.records.handoff import Names
from understudy.monitor.records.record import ROLE_MIRROR, ROLE_PRIMARY, TIMEOUT, Record
from understudy.shadow import comparison
from understudy.shadow.assignment import point, threshold
from understudy.shadow.experiment.fates import (
    ABANDONED,
    ANSWER_TOO_LARGE,
    ANSWERED,
    CANCELLED,
    DIVERTED,
    FAILED,
    LATE,
    OUTSIDE,
    PENDING,
    REPORTED,
    UNPAIRED,
    UNREADABLE,
    patience,
)

_CHAMPION, _CHALLENGER, _REPEAT = 0, 1, 2
_MOST_INPUTS = 2048
_MOST_WAITING = 20_000
Redact = Callable[[Mapping[str, list[object]]], dict[str, object]]
Pairs = tuple[Any, list[bytes], Any, list[Column]]
"""Times, keys of requests, sides and columns."""


Exchange = tuple[Names, Record]
"""A request and its answer, without headers and payloads, and the names that the record uses."""


@dataclass(frozen=True, slots=True)
class Compared:
    """The answers of champion and challenger to one request, both readable, were compared.

    ``at`` is the unix time at which the later one ended; ``difference`` is text for people, without
    the values of redacted columns, and empty where they agree."""

    experiment: str
    at: float
    agree: bool
    difference: str
    champion: Exchange
    challenger: Exchange


@dataclass(slots=True)
class Half:
    """One answer of a pair; ``values`` are in the order of the observer's columns, ``fate`` is one
    of :mod:`understudy.shadow.experiment.fates`."""

    started: float
    ended: float
    fate: int
    timed_out: bool
    size: int
    """Of the answer, in bytes."""
    values: tuple[Any, ...]
    answer: Table | None
    origin: tuple[int, int]
    """Position of its record in the input: offset of the block, index in the block."""
    request_id: bytes
    exchange: Exchange | None = None
    """Only where comparisons are passed on."""

    @property
    def due(self) -> float:
        """Unix time from which the other answer is late, if it takes no longer than this one."""
        return self.started + patience(self.ended - self.started, REPORTED)


class MirrorComparison:
    """Pairs the answers to a request and compares them.

    The time of a pair is the unix time at which its last answer ended. ``redact`` removes the
    values of redacted columns from what is stored for display.
    """

    compared: Callable[[Compared], None] | None = None
    """Called with comparisons: of answers that differ, and with ``pass_equal`` with all."""
    pass_equal = False

    def __init__(
        self,
        experiment: str,
        compare: Compare,
        arms: Arms,
        challengers: Sequence[str],
        observer: Observer,
        redact: Redact,
    ) -> None:
        self._experiment = experiment
        self._arms = arms
        self.waiting: dict[str, PairJoiner[Half]] = {
            name: PairJoiner(_MOST_WAITING, partial(self._unpaired, name)) for name in challengers
        }
        self._deadlines = {name: Deadlines(joiner) for name, joiner in self.waiting.items()}
        """Of the challenger's answers, after the champion's have come."""
        self.restoring: Mapping[str, Set[tuple[int, int]]] | None = None
        """During a restore: positions of the records that were waiting, by challenger."""
        self._pairs: dict[str, list[tuple[Any, ...]]] = {}
        """Pairs whose halves arrived in different blocks, or whose answers differ."""
        self._notes: dict[str, list[tuple[Any, ...]]] = {}
        self._observer = observer
        names = observer.columns
        self._disagreement = names.index("disagreement") if "disagreement" in names else None
        self._redact = redact
        self._keep = compare.keep
        self._noise_below = threshold(compare.noise) if arms.repeat else 0
        self._worst: dict[str, list[tuple[float, float, bytes]]] = {
            name: [] for name in challengers
        }
        self._inputs: dict[bytes, Table] = {}
        self._newest = 0.0
        self._patience = arms.wait(challengers)
        self._agree, self._agree_text = (
            comparison.Rules(
                compare.absolute,
                compare.relative,
                compare.ulp,
                (*compare.ignore, *more),
                tuple(compare.unordered),
                compare.top_k,
            )
            for more in ((), NOT_COMPARED)
        )
        """The second is for answers of language models, whose sizes and times always differ."""

    # In -----------------------------------------------------------------------------------------

    def take(self, block: BlockColumns) -> Iterator[tuple[str, Pairs]]:
        """Take a block and yield, by challenger, its complete pairs with equal answers.

        All other answers wait for their counterpart.
        """
        champion = (block.role == ROLE_PRIMARY) & (
            block.arm == block.arm_index(self._arms.champion)
        )
        champion &= block.finished
        mirrored = block.role == ROLE_MIRROR
        self._newest = max(self._newest, float(block.at.max(initial=0.0)))
        repeats = self._records_of(block, mirrored, self._arms.repeat)
        for challenger in self.waiting:
            found = Censored(block, self._arms.limits_of(challenger))
            ours = self._mirrored(block, challenger, np.flatnonzero(champion))
            theirs = self._records_of(block, mirrored, challenger)
            if self.restoring is not None:
                known = self.restoring.get(challenger, ())
                ours, theirs, waiting_repeats = (
                    _waiting_only(records, block.offset, known)
                    for records in (ours, theirs, repeats)
                )
                self._wait(found, challenger, ours, theirs, waiting_repeats)
                continue
            first, second, alone = self._pair_up(block, challenger, ours, theirs, repeats)
            equal_pairs, answered = _equal_answers(block.response, found.fate, first, second)
            complete = equal_pairs | ~answered
            differing = [*first[~complete].tolist(), *second[~complete].tolist()]
            if differing:
                alone[differing] = True
                first, second, answered = first[complete], second[complete], answered[complete]
            if len(first):
                if self.compared is not None and self.pass_equal:
                    self._pass_equal(block, first[answered], second[answered], self.compared)
                pairs = self._pairs_of(found, challenger, first, second, answered)
                if pairs[1]:
                    yield challenger, pairs
            if repeats.size or alone.any():
                self._wait(found, challenger, ours[alone[ours]], theirs[alone[theirs]], repeats)

    def _pass_equal(
        self, block: BlockColumns, first: Indices, second: Indices, take: Callable[[Compared], None]
    ) -> None:
        for ours, theirs in zip(first.tolist(), second.tolist(), strict=True):
            at = float(max(block.at[ours], block.at[theirs]))
            halves = ((block.names, block.records[one]) for one in (ours, theirs))
            take(Compared(self._experiment, at, True, "", *halves))

    @staticmethod
    def _records_of(block: BlockColumns, mask: Mask, arm: str) -> Indices:
        """Records of an arm; empty for an arm without a name."""
        return np.flatnonzero(mask & (block.arm == block.arm_index(arm)) & bool(arm))

    def _mirrored(self, block: BlockColumns, challenger: str, champion: Indices) -> Indices:
        """The champion's requests that are mirrored to the challenger: none where it serves
        clients."""
        rate = self._arms.mirror_rate.get(challenger, 0.0)
        index = block.arm_index(challenger)
        if index < 0:
            return champion[:0]  # its worker does not know the challenger yet
        if any(index < len(s.weights) and s.weights[index] > 0.0 for s in block.names.splits):
            return champion[:0]
        if rate >= 1.0:
            return champion
        limit, salt, keys = threshold(rate), self._arms.salt, block.keys
        chosen = [point(salt, keys[record]) < limit for record in champion.tolist()]
        return champion[np.array(chosen, np.bool_)]

    def _pair_up(
        self,
        block: BlockColumns,
        challenger: str,
        ours: Indices,
        theirs: Indices,
        repeats: Indices,
    ) -> tuple[Indices, Indices, Mask]:
        """Records of pairs that are complete in this block, and the mask of unpaired records."""
        keys, waiting = block.keys, self.waiting[challenger]
        alone = np.zeros(block.count, np.bool_)
        alone[ours] = alone[theirs] = True
        champion = {keys[record]: record for record in ours.tolist()}
        other = {keys[record]: record for record in theirs.tolist()}
        if len(champion) < len(ours) or len(other) < len(theirs):
            # A source other than the proxy used an id twice: join one by one, in order of arrival.
            return ours[:0], theirs[:0], alone
        repeated = {keys[record] for record in repeats.tolist()}
        both = [
            (record, counterpart)
            for key, record in champion.items()
            if (counterpart := other.get(key)) is not None
            and key not in waiting
            and key not in repeated
            and not self._is_repeated(key)
        ]
        pairs = np.array(both, np.intp).reshape(-1, 2)
        alone[pairs] = False
        return pairs[:, 0], pairs[:, 1], alone

    def _is_repeated(self, key: bytes) -> bool:
        """Whether the champion answers this request twice, to measure its noise."""
        return bool(self._noise_below) and point(self._arms.salt, key) < self._noise_below

    def _pairs_of(
        self, found: Censored, challenger: str, first: Indices, second: Indices, answered: Mask
    ) -> Pairs:
        block = found.block
        ours, theirs = found.fate[first], found.fate[second]
        there = ~_never_sent(ours, theirs)
        if not there.all():
            first, second, answered = first[there], second[there], answered[there]
            ours, theirs = ours[there], theirs[there]
        largest = self._arms.largest_answers.get(challenger, math.inf)
        sizes = block.response_size[first]
        timed_out = found.outcome[second] == TIMEOUT
        ours, theirs = fates_of_pair(ours, theirs, timed_out, sizes, largest)
        evaluated = (ours < DIVERTED) & (theirs < DIVERTED)
        columns: list[Column] = [
            evaluated.astype(np.float64),
            ours.astype(np.float64),
            theirs.astype(np.float64),
        ]
        # The champion's agreement with itself is unknown for a request that it answered once.
        own = np.where(_has_content(ours, theirs) & (not self._arms.repeat), 0.0, np.nan)
        differs = np.where(answered, 0.0, np.nan)
        for records, disagreement in ((first, own), (second, differs)):
            values = self._observer.values(found, records)
            if self._disagreement is not None:
                values[self._disagreement] = disagreement
            columns += values
        at = np.maximum(block.at[first], block.at[second])
        keys = [block.keys[record] for record in first.tolist()]
        return at, keys, np.zeros(len(first), np.int16), columns

    def _wait(
        self, found: Censored, challenger: str, ours: Indices, theirs: Indices, repeats: Indices
    ) -> None:
        """Join records one by one, in order of arrival."""
        block = found.block
        records = np.concatenate((ours, theirs, repeats))
        if not records.size:
            return
        sides = np.repeat((_CHAMPION, _CHALLENGER, _REPEAT), (len(ours), len(theirs), len(repeats)))
        order = np.argsort(records, kind="stable")
        records, sides = records[order], sides[order]
        if self._keep:
            inputs = block.request.decoded(records[sides == _CHAMPION])
            for record, table in zip(records[sides == _CHAMPION].tolist(), inputs, strict=True):
                if table is not None:
                    self._remember(block.keys[record], table)
        values = zip(*map(listed, self._observer.values(found, records)), strict=True)
        answers = block.response.decoded(records)
        started, ended = block.started[records].tolist(), block.at[records].tolist()
        fates = found.fate[records].tolist()
        timed_out = (found.outcome[records] == TIMEOUT).tolist()
        sizes = block.response_size[records].tolist()
        joiner = self.waiting[challenger]
        for index, (record, side) in enumerate(zip(records.tolist(), sides.tolist(), strict=True)):
            key = block.keys[record]
            half = Half(
                started[index],
                ended[index],
                fates[index],
                timed_out[index],
                sizes[index],
                next(values),
                answers[index] if fates[index] == ANSWERED else None,
                (block.offset, record),
                block.ids[record],
                (block.names, block.records[record]) if self.compared is not None else None,
            )
            halves = joiner.add(key, side, half, 3 if self._is_repeated(key) else 2)
            if halves is None:
                if side == _CHAMPION and half.fate != OUTSIDE:
                    self._deadlines[challenger].add(half.due, key)
            elif {_CHAMPION, _CHALLENGER} <= halves.keys():
                self._pair(challenger, key, halves)

    # Pairs --------------------------------------------------------------------------------------

    def _unpaired(
        self,
        challenger: str,
        key: bytes,
        halves: Mapping[int, Half],
        at: float | None = None,
    ) -> None:
        """A record whose counterpart did not arrive in time: the other side is not known.

        ``at`` is the unix time at which it was given up; by default now, as the records say.
        """
        sides = {side: halves[side] for side in (_CHAMPION, _CHALLENGER) if side in halves}
        if not sides or self.restoring is not None:
            return
        half = next(iter(sides.values()))
        values = (NAN,) * len(half.values)
        unknown = replace(half, fate=UNPAIRED, timed_out=False, size=0, values=values, answer=None)
        self._pair(
            challenger,
            key,
            {_CHAMPION: unknown, _CHALLENGER: unknown, **halves},
            self._newest if at is None else at,
        )

    def _pair(
        self,
        challenger: str,
        key: bytes,
        halves: Mapping[int, Half],
        at: float | None = None,
    ) -> None:
        champion, other, repeat = halves[_CHAMPION], halves[_CHALLENGER], halves.get(_REPEAT)
        if _never_sent(np.array(champion.fate), np.array(other.fate)):
            return
        own = differs = NAN
        ended = max(half.ended for half in halves.values()) if at is None else at
        largest = self._arms.largest_answers.get(challenger, math.inf)
        ours, theirs = (
            int(fate[0])
            for fate in fates_of_pair(
                np.array([champion.fate]),
                np.array([other.fate]),
                np.array([other.timed_out]),
                np.array([champion.size]),
                largest,
            )
        )
        if _has_content(np.array(ours), np.array(theirs)) and (
            not self._arms.repeat or self._is_repeated(key)
        ):
            own = 0.0
        if champion.answer is not None and other.answer is not None:
            note: dict[str, Any] = {}
            difference = self._compare(champion.answer, other.answer)
            differs = 0.0 if difference is None or difference.agree else 1.0
            if repeat is not None and repeat.answer is not None:
                noise = self._compare(champion.answer, repeat.answer)
                own = 0.0 if noise is None or noise.agree else 1.0
                note["noise"] = [
                    sorted(one.fields) if one is not None else [] for one in (difference, noise)
                ]
            elif self._arms.repeat:
                own = NAN
            if difference is not None and not difference.agree:
                rank = (-difference.severity, ended, key)
                if self._may_be_worst(challenger, rank):
                    inputs = self._inputs.get(key)
                    note["worst"] = [
                        difference.severity,
                        champion.started,
                        champion.request_id.decode("latin-1"),
                        self._explained(difference),
                        self._redact(columns_of(inputs)) if inputs is not None else {},
                        self._redact(columns_of(champion.answer)),
                        self._redact(columns_of(other.answer)),
                    ]
            if note:
                self._note(challenger, ended, key, note)
            if champion.exchange is not None and other.exchange is not None:
                self._pass(difference, ended, champion.exchange, other.exchange)
        first, second = list(champion.values), list(other.values)
        if self._disagreement is not None:
            first[self._disagreement], second[self._disagreement] = own, differs
        evaluated = float(ours < DIVERTED and theirs < DIVERTED)
        fates = (float(ours), float(theirs))
        self._pairs.setdefault(challenger, []).append(
            (ended, key, 0, evaluated, *fates, *first, *second)
        )

    def _pass(
        self,
        difference: comparison.Comparison | None,
        at: float,
        champion: Exchange,
        challenger: Exchange,
    ) -> None:
        agree = difference is None or difference.agree
        if self.compared is not None and (self.pass_equal or not agree):
            text = "" if difference is None or agree else self._explained(difference)
            self.compared(Compared(self._experiment, at, agree, text, champion, challenger))

    def _explained(self, difference: comparison.Comparison) -> str:
        """The differences as text, with redacted values removed."""
        fields = {}
        for name, field in difference.fields.items():
            if field.example is not None:
                first, second = (self._redact({name: [cell]})[name] for cell in field.example)
                field = replace(field, example=(first, second))
            fields[name] = field
        return replace(difference, fields=fields).explain()

    def _compare(self, first: Table, second: Table) -> comparison.Comparison | None:
        """Compare two answers; None when they are equal in every cell."""
        if first.names == second.names and first.rows == second.rows:
            cells = zip(first.values, second.values, strict=True)
            if all(type(a) is type(b) and bool(a == b) for a, b in cells):
                return None
        agree = self._agree_text if ANSWER_HASH in first.names else self._agree
        return comparison.compare(columns_of(first), columns_of(second), agree)

    def _may_be_worst(self, challenger: str, rank: tuple[float, float, bytes]) -> bool:
        """Whether this disagreement may be among the worst over all processes."""
        worst = self._worst[challenger]
        if len(worst) >= self._keep:
            if not self._keep:
                return False
            if all(other[0] <= rank[0] and other[1:] < rank[1:] for other in worst):
                return False
        insort(worst, rank)
        del worst[self._keep :]
        return True

    def _remember(self, key: bytes, inputs: Table) -> None:
        """Keep the inputs of recent requests, to show those whose answers differ."""
        if len(self._inputs) >= _MOST_INPUTS:
            for old in list(self._inputs)[: _MOST_INPUTS // 2]:
                del self._inputs[old]
        self._inputs[key] = inputs

    # Out ----------------------------------------------------------------------------------------

    def _note(self, challenger: str, at: float, key: bytes, note: dict[str, Any]) -> None:
        self._notes.setdefault(challenger, []).append((at, key, 0, note))

    def drain_pairs(self) -> dict[str, list[tuple[Any, ...]]]:
        """The pairs that :meth:`take` did not yield, by challenger: time, id, side, whether it is a
        new request, values of the champion and of the challenger."""
        pairs, self._pairs = self._pairs, {}
        return pairs

    def drain_notes(self) -> dict[str, list[tuple[Any, ...]]]:
        """Notes on single comparisons, by challenger: time, id, side, note."""
        notes, self._notes = self._notes, {}
        return notes

    def expire(self, complete: float | None = None) -> None:
        """Report mirrored requests that should have finished, once each, and give up answers that
        waited for longer than any request may take.

        All records up to the unix time ``complete`` have arrived; by default, up to the newest.
        """
        now = self._newest if complete is None else complete
        before = now - self._patience
        for name, joiner in self.waiting.items():
            self._report_pending(name, now)
            for key, halves in joiner.oldest():
                ended = max(half.ended for half in halves.values())
                if ended >= before:
                    break
                self._unpaired(name, key, joiner.give_up(key), ended + self._patience)

    def _report_pending(self, challenger: str, now: float) -> None:
        joiner = self.waiting[challenger]
        for due, key in self._deadlines[challenger].passed(now):
            halves = joiner.halves(key)
            half = halves.get(_CHAMPION)
            if half is None or _CHALLENGER in halves or half.due != due:
                continue
            unknown = (NAN,) * (2 * len(half.values))
            self._pairs.setdefault(challenger, []).append(
                (due, key, 0, 0.0, float(half.fate), float(PENDING), *unknown)
            )

    def waiting_for(self) -> dict[str, list[tuple[int, int]]]:
        """Positions of the records that wait for their counterpart, by challenger."""
        return {
            name: [half.origin for _, halves in joiner.oldest() for half in halves.values()]
            for name, joiner in self.waiting.items()
        }


def _waiting_only(
    records: Indices, offset: int, known: Set[tuple[int, int]] | tuple[()]
) -> Indices:
    """The records that were waiting when the state was saved."""
    waited = [(offset, record) in known for record in records.tolist()]
    return records[np.array(waited, np.bool_)]


def _never_sent(ours: NDArray[Any], theirs: NDArray[Any]) -> Mask:
    """Where a client left before its request had arrived: it was no request, for neither arm."""
    never: Mask = (ours == OUTSIDE) | ((ours == ABANDONED) & (theirs == CANCELLED))
    return never


def fates_of_pair(
    ours: NDArray[Any],
    theirs: NDArray[Any],
    timed_out: Mask,
    sizes: NDArray[Any],
    largest: float,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The fates of both sides of pairs, as each depends on the other.

    Where both were late (``timed_out``: the challenger was), the limit ended both alike. An answer
    that is too large to be read is the challenger's failure if the champion's (``sizes`` in bytes)
    was not.
    """
    both_late = (ours == LATE) & timed_out
    alone = (theirs == ANSWER_TOO_LARGE) & (sizes <= largest)
    return np.where(both_late, FAILED, ours), np.where(alone, FAILED, theirs)


def _has_content(ours: NDArray[Any], theirs: NDArray[Any]) -> Mask:
    """Where both answers have, or may have, a content that can be compared."""
    content: Mask = np.ones(np.shape(ours), np.bool_)
    for fate in (ours, theirs):
        content &= (fate == ANSWERED) | (fate >= UNREADABLE)
    return content


def _equal_answers(
    response: Part, fate: NDArray[Any], first: Indices, second: Indices
) -> tuple[Mask, Mask]:
    """Masks over pairs of one-row answers: equal in every cell; both answered."""
    answered = (fate[first] == ANSWERED) & (fate[second] == ANSWERED)
    equal_pairs = np.zeros(len(first), np.bool_)
    same = answered & (response.grid[first] == response.grid[second])
    if response.many is not None:
        same &= (response.many[first] == 1) & (response.many[second] == 1)
    for number in distinct(response.grid[first][same]).tolist():
        indices = np.flatnonzero(same & (response.grid[first] == number))
        equal = np.ones(len(indices), np.bool_)
        rows = response.first[first[indices]], response.first[second[indices]]
        for column in response.columns(number):
            a, b = (cells_at(column, of_side) for of_side in rows)
            if isinstance(a, np.ndarray):
                equal &= a == b
            else:
                cells = zip(a, b, strict=True)
                equal &= np.array([type(x) is type(y) and bool(x == y) for x, y in cells], np.bool_)
        equal_pairs[indices] = equal
    return equal_pairs, answered


def columns_of(table: Table) -> dict[str, list[object]]:
    """The columns of a decoded payload, by name."""
    width = len(table.names)
    return {name: table.values[i::width] for i, name in enumerate(table.names)}
