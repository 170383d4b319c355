"""Blocks to evidence without a look at single records, for what is most of the traffic.

It puts on sheets what :meth:`Preparation.take` would have put there, record by record, which the
tests compare. What it does not do says :func:`applies`; single records that need more than columns
(answers that wait for their counterpart, answers that differ) go the other way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitor.codecs import Table
from monitor.evaluation.preparation import Preparation
from monitor.evaluation.rows import ANSWERS, REQUESTS, ROWS, STARTED, UNDECODABLE
from monitor.evaluation.sheets import Column, Floats, Sheet, column_of
from monitor.experiments.contestant import Division
from monitor.experiments.gathering import ASSIGNED, PAIRS, Gathering
from monitor.experiments.gatherings import View
from monitor.experiments.observe import ERRORS, NO_COPY, NOT_COUNTED
from monitor.record import OK, OUTCOMES, ROLE_MIRROR, ROLE_PRIMARY, TIMEOUT, Record
from monitor.transport.blocks import Grid, RecordBlock
from shadow.assignment import point, threshold

Places = NDArray[np.intp]
Mask = NDArray[np.bool_]
_OUTCOMES = range(len(OUTCOMES))
_IS_ERROR = np.array([outcome in ERRORS for outcome in _OUTCOMES], np.float64)
_COUNTS = np.array(
    [
        [outcome not in NOT_COUNTED for outcome in _OUTCOMES],
        [outcome not in NO_COPY for outcome in _OUTCOMES],
    ]
)
"""By role and outcome: whether a record says anything about its arm."""


def applies(block: RecordBlock, preparation: Preparation, view: View, model: str) -> bool:
    """Whether a block can be taken by columns: one row to a request, and nobody who waits for
    labels or asks the champion twice."""
    if block.request_rows is not None or block.response_rows is not None:
        return False
    offers = preparation.offers
    if offers is not None and offers.offer is not None and offers.wants(model):
        return False
    return not any(
        gathering.wants_labels or gathering.arms.again or gathering.copies.restoring is not None
        for gathering, _ in view.get(model, ())
    )


class _Part:
    """Features or predictions of a block: ``grid`` by record (below 0: the reason why there is
    none), ``row`` in that grid."""

    def __init__(self, count: int, places: NDArray[np.int16] | None, grids: Sequence[Grid]) -> None:
        self.grids = grids
        self.grid = np.zeros(count, np.int64) if places is None else places.astype(np.int64)
        self.row = np.zeros(count, np.intp)
        for number in range(len(grids)):
            here = np.flatnonzero(self.grid == number)
            self.row[here] = np.arange(len(here))
        self._columns: dict[int, list[Column]] = {}

    def columns(self, grid: int) -> list[Column]:
        """All columns of a grid."""
        found = self._columns.get(grid)
        if found is None:
            found = self._columns[grid] = list(_columns(self.grids[grid]))
        return found

    def of(self, grid: int, records: Places) -> list[Column]:
        """The columns of a grid, of some records."""
        rows = self.row[records]
        return [_taken(column, rows) for column in self.columns(grid)]

    def table(self, record: int) -> Table | None:
        """What was decoded of one record."""
        grid = int(self.grid[record])
        if grid < 0:
            return None
        row = int(self.row[record])
        cells = [
            column[row].item() if isinstance(column, np.ndarray) else column[row]
            for column in self.columns(grid)
        ]
        return Table(self.grids[grid].names, 1, cells)


def _columns(grid: Grid) -> Iterator[Column]:
    if grid.matrix is not None:
        yield from grid.matrix
        return
    for column in grid.columns:
        numbers: Any = column.numbers
        if column.kinds is None and numbers is not None and numbers.dtype != np.uint8:
            yield numbers
        else:
            yield column_of(column.values())


def _taken(column: Column, rows: Places) -> Column:
    if isinstance(column, np.ndarray):
        return column[rows]
    return [column[row] for row in rows.tolist()]


class Taken:
    """One block by columns."""

    def __init__(self, block: RecordBlock, offset: int, champion: str) -> None:
        numbers = block.numbers
        self.block = block
        self.offset = offset
        self.count = block.count
        self.arms = block.names.arms
        self.champion = self.arms.index(champion) if champion in self.arms else -1
        self.arm = numbers["arm"]
        self.role = numbers["role"]
        self.outcome = numbers["outcome"]
        self.assigned = numbers["assigned"]
        self.started: Floats = numbers["started"]
        self.seconds: Floats = numbers["duration_ns"] * 1e-9
        self.at: Floats = self.started + self.seconds
        self.ids = block.texts["request_id"].values()
        self.request = _Part(block.count, block.request, block.features)
        self.response = _Part(block.count, block.response, block.predictions)
        self.counts: Mask = _COUNTS[self.role, self.outcome]
        self._records: list[Any] | None = None

    def sheet(
        self,
        kind: tuple[str, ...],
        names: tuple[str, ...],
        records: Places,
        columns: list[Column],
        side: Any = None,
    ) -> Sheet:
        """A row for each of some records."""
        ids = self.ids
        return Sheet(
            kind,
            names,
            self.at[records],
            [ids[place] for place in records.tolist()],
            (self.role[records] if side is None else side).astype(np.int16),
            columns,
        )

    def record(self, place: int) -> Record:
        """One record as such."""
        if self._records is None:
            self._records = [None] * self.count
        one = Record()
        numbers = self.block.numbers
        one.model = self.block.model
        for name in ("arm", "status", "role", "outcome", "assigned", "duration_ns"):
            setattr(one, name, int(numbers[name][place]))
        one.started = float(self.started[place])
        one.request_id = self.ids[place]
        return one


def take(
    preparation: Preparation, view: View, key: tuple[str, str], block: RecordBlock, offset: int
) -> None:
    """Take a block of the model ``key``, (name, version), that lies at ``offset``."""
    taken = Taken(block, offset, preparation.rows.champion)
    for sheet in _rows(taken, key):
        preparation.rows.add(sheet)
    for gathering, division in view.get(key[0], ()):
        if division is not None:
            _take_assigned(taken, gathering, division)
        _take_pairs(taken, gathering)


# Rows ---------------------------------------------------------------------------------------------


def _rows(taken: Taken, key: tuple[str, str]) -> Iterator[Sheet]:
    asked, said = taken.request, taken.response
    primary = taken.role == ROLE_PRIMARY
    answered = taken.outcome == OK
    here = np.flatnonzero(primary)
    if here.size:
        broken = (asked.grid[here] < 0).astype(np.float64)
        yield taken.sheet((REQUESTS, *key), ("broken",), here, [broken])
    whole = primary & answered & (taken.arm == taken.champion)
    whole &= (asked.grid >= 0) & (said.grid >= 0)
    for first, second in _pairs_of(asked.grid[whole], said.grid[whole]):
        records = np.flatnonzero(whole & (asked.grid == first) & (said.grid == second))
        names = asked.grids[first].names
        kind: tuple[str, ...] = (ROWS, *key, taken.arms[taken.champion], str(len(names)))
        columns = [
            taken.started[records], *asked.of(first, records), *said.of(second, records)
        ]  # fmt: skip
        every = (STARTED, *names, *said.grids[second].names)
        yield taken.sheet(kind, every, records, columns)
    alone = primary & ~whole & (asked.grid >= 0)
    for number in np.unique(asked.grid[alone]).tolist():
        records = np.flatnonzero(alone & (asked.grid == number))
        names = asked.grids[number].names
        kind = (ROWS, *key, "", str(len(names)))
        columns = [taken.started[records], *asked.of(number, records)]
        yield taken.sheet(kind, (STARTED, *names), records, columns)
    rest = answered & ~whole
    for arm in np.unique(taken.arm[rest]).tolist():
        of_arm = rest & (taken.arm == arm)
        for number in np.unique(said.grid[of_arm]).tolist():
            if number >= 0:
                records = np.flatnonzero(of_arm & (said.grid == number))
                kind = (ANSWERS, *key, _arm(taken, arm))
                columns = [taken.started[records], *said.of(number, records)]
                names = (STARTED, *said.grids[number].names)
                yield taken.sheet(kind, names, records, columns)
    yield from _undecodable(taken, key, "request", primary, asked)
    yield from _undecodable(taken, key, "response", rest, said)


def _undecodable(
    taken: Taken, key: tuple[str, str], what: str, of: Mask, part: _Part
) -> Iterator[Sheet]:
    gone = of & (part.grid < 0)
    if not gone.any():
        return
    for arm, number in _pairs_of(taken.arm[gone], part.grid[gone]):
        records = np.flatnonzero(gone & (taken.arm == arm) & (part.grid == number))
        reason = taken.block.undecodable[-1 - number].reason
        kind = (UNDECODABLE, *key, _arm(taken, arm), what, str(reason))
        yield taken.sheet(kind, (), records, [])


def _pairs_of(first: NDArray[Any], second: NDArray[Any]) -> list[tuple[int, int]]:
    """The pairs that occur."""
    if not len(first):
        return []
    if (first == first[0]).all() and (second == second[0]).all():
        return [(int(first[0]), int(second[0]))]
    return sorted(set(zip(first.tolist(), second.tolist(), strict=True)))


def _arm(taken: Taken, arm: int) -> str:
    return taken.arms[arm] if arm < len(taken.arms) else "other"


# Experiments --------------------------------------------------------------------------------------


def _values(taken: Taken, gathering: Gathering, records: Places) -> dict[str, Column]:
    """Columns of observed values, as :class:`Observer` has them; what is not there is NaN."""
    found: dict[str, Column] = {}
    outcome = taken.outcome[records]
    nothing = np.full(len(records), np.nan)
    for name in gathering.columns:
        if name == "error":
            found[name] = _IS_ERROR[outcome]
        elif name == "timeout":
            found[name] = (outcome == TIMEOUT).astype(np.float64)
        elif name == "latency":
            found[name] = taken.seconds[records]
        elif name == "cost":
            found[name] = _cost(taken, gathering, records)
        elif name.startswith("field:"):
            found[name] = _field(taken, name[6:], records)
        else:
            found[name] = nothing
    return found


def _cost(taken: Taken, gathering: Gathering, records: Places) -> Floats:
    found = np.full(len(records), np.nan)
    for place, arm in enumerate(taken.arms):
        cost = gathering.declared.cost.get(arm)
        if cost is not None:
            mine = taken.arm[records] == place
            seconds = taken.seconds[records][mine]
            found[mine] = cost.per_request + cost.per_second * seconds
    return found


def _field(taken: Taken, name: str, records: Places) -> Column:
    said = taken.response
    cells: list[Any] = [np.nan] * len(records)
    grids = np.where(taken.outcome[records] == OK, said.grid[records], -1)
    for number in np.unique(grids).tolist():
        if number < 0 or name not in said.grids[number].names:
            continue
        places = np.flatnonzero(grids == number)
        column = said.columns(number)[said.grids[number].names.index(name)]
        of_records = _taken(column, said.row[records[places]])
        if isinstance(of_records, np.ndarray) and len(places) == len(records):
            values: Floats = of_records.astype(np.float64)
            return np.where(np.isfinite(values), values, np.nan)
        for place, cell in zip(places.tolist(), of_records, strict=True):
            cells[place] = _cell(cell)
    return column_of(cells)


def _cell(cell: Any) -> Any:
    if isinstance(cell, str):
        return [cell]
    if isinstance(cell, (int, float, np.integer, np.floating)) and np.isfinite(cell):
        return float(cell)
    return np.nan


def _take_assigned(taken: Taken, gathering: Gathering, division: Division) -> None:
    sides = np.full(256, -1, np.int64)
    arms = np.full(256, -1, np.int64)
    for number, name in enumerate(division.arms[:255], start=1):
        if name in gathering.order:
            sides[number] = gathering.order.index(name)
            arms[number] = number - 1
    mine = (taken.role == ROLE_PRIMARY) & (sides[taken.assigned] >= 0)
    records = np.flatnonzero(mine)
    if not records.size:
        return
    assigned = taken.assigned[records]
    served = taken.arm[records] == arms[assigned]
    counted = served & taken.counts[records]
    values = _values(taken, gathering, records)
    count = len(records)
    epoch = division.epoch
    settled = max(division.since, epoch + gathering.declared.settle)
    columns: list[Column] = [
        taken.started[records],
        taken.seconds[records],
        served.astype(np.float64),
        counted.astype(np.float64),
        np.full(count, epoch),
        np.full(count, settled),
    ]
    if gathering.by_unit:
        units = taken.block.texts["unit"].values()
        columns.append([units[place].decode("latin-1") for place in records.tolist()])
    else:
        columns.append([""] * count)
    columns += [np.full(count, weight) for weight in division.weights]
    for name in gathering.columns:
        column = values[name]
        if isinstance(column, np.ndarray):
            columns.append(np.where(counted, column, np.nan))
        else:
            told = zip(column, counted.tolist(), strict=True)
            columns.append(column_of([cell if said else np.nan for cell, said in told]))
    gathering.add(
        taken.sheet(
            (ASSIGNED, gathering.declared.name),
            gathering.assigned_names(len(division.weights)),
            records,
            columns,
            sides[assigned],
        )
    )


def _take_pairs(taken: Taken, gathering: Gathering) -> None:
    champion = (taken.role == ROLE_PRIMARY) & (taken.arm == taken.champion) & taken.counts
    copies = gathering.copies
    arms = gathering.arms
    for challenger in gathering.declared.challengers:
        first = np.flatnonzero(champion)
        rate = arms.mirror_rate.get(challenger, 0.0)
        limit = threshold(rate)
        if rate < 1.0:
            chosen = [point(arms.salt, taken.ids[place]) < limit for place in first.tolist()]
            first = first[np.array(chosen, np.bool_)] if chosen else first
        place_of = taken.arms.index(challenger) if challenger in taken.arms else -1
        second = np.flatnonzero(
            (taken.role == ROLE_MIRROR) & (taken.arm == place_of) & taken.counts
        )
        waiting = copies.waiting[challenger]
        ids = taken.ids
        mine = {ids[place]: place for place in first.tolist()}
        theirs = {ids[place]: place for place in second.tolist()}
        plain = len(mine) == len(first) and len(theirs) == len(second)
        both: list[tuple[int, int]] = []
        alone: list[int] = []
        for one, place in mine.items():
            other = theirs.pop(one, None)
            if other is None or one in waiting:
                alone.append(place)
                if other is not None:
                    alone.append(other)
            else:
                both.append((place, other))
        if not plain:
            # An id that a client chose twice: in their order, as they come.
            both, alone = [], [*first.tolist(), *second.tolist()]
        else:
            alone += theirs.values()
        if both:
            pairs = np.array(both, np.intp)
            _add_pairs(taken, gathering, challenger, pairs[:, 0], pairs[:, 1])
        for place in sorted(alone):
            _wait(taken, gathering, challenger, place)


def _wait(taken: Taken, gathering: Gathering, challenger: str, place: int) -> None:
    """A record whose counterpart is not in its block."""
    copies = gathering.copies
    copies.origin = (taken.offset, place)
    record = taken.record(place)
    copies.take_one(
        challenger,
        record,
        taken.arms[record.arm],
        taken.request.table(place) if record.role == ROLE_PRIMARY else None,
        taken.response.table(place),
    )


def _add_pairs(
    taken: Taken, gathering: Gathering, challenger: str, first: Places, second: Places
) -> None:
    copies = gathering.copies
    alike, answered = _alike(taken.response, taken.outcome, first, second)
    differ = np.flatnonzero(answered & ~alike)
    for number in differ.tolist():
        for place in (int(first[number]), int(second[number])):
            _wait(taken, gathering, challenger, place)
    if len(differ):
        kept = np.flatnonzero(alike | ~answered)
        first, second, answered = first[kept], second[kept], answered[kept]
    if not len(first):
        return
    columns: list[Column] = [np.ones(len(first))]
    own = np.where(answered, 0.0, np.nan)
    for records in (first, second):
        values: Mapping[str, Column] = {
            **_values(taken, gathering, records), "disagreement": own
        }  # fmt: skip
        columns += [values[name] for name in gathering.columns]
    sheet = taken.sheet(
        (PAIRS, gathering.declared.name, challenger),
        gathering.pairs_names(),
        first,
        columns,
        np.zeros(len(first), np.int16),
    )
    sheet.at = np.maximum(taken.at[first], taken.at[second])
    copies.newest(float(sheet.at.max()))
    gathering.add(sheet)


def _alike(said: _Part, outcome: NDArray[Any], first: Places, second: Places) -> tuple[Mask, Mask]:
    """Which pairs of answers are the same in every cell, and of which there are both answers."""
    answered = (outcome[first] == OK) & (outcome[second] == OK)
    answered &= (said.grid[first] >= 0) & (said.grid[second] >= 0)
    alike = np.zeros(len(first), np.bool_)
    same = answered & (said.grid[first] == said.grid[second])
    for number in np.unique(said.grid[first][same]).tolist():
        places = np.flatnonzero(same & (said.grid[first] == number))
        equal = np.ones(len(places), np.bool_)
        for column in said.columns(number):
            if isinstance(column, np.ndarray):
                rows = said.row
                equal &= column[rows[first[places]]] == column[rows[second[places]]]
            else:
                a = _taken(column, said.row[first[places]])
                b = _taken(column, said.row[second[places]])
                equal &= np.array(
                    [type(x) is type(y) and bool(x == y) for x, y in zip(a, b, strict=True)],
                    np.bool_,
                )
        alike[places] = equal
    return alike, answered
