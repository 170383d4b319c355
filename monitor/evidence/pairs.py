"""Evidence of experiments from a block by columns: requests that were divided, and pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.evidence.arms import SplitShares
from understudy.monitor.evidence.batch import Column, Floats, column_of
from understudy.monitor.evidence.block_columns import BlockColumns, Mask, Part, Places, cells_at
from understudy.monitor.evidence.collector import ASSIGNED, PAIRS, EvidenceCollector
from understudy.monitor.evidence.observe import ERRORS
from understudy.monitor.records.record import OK, OUTCOMES, ROLE_MIRROR, ROLE_PRIMARY, TIMEOUT
from understudy.shadow.assignment import point, threshold

_IS_ERROR = np.array([outcome in ERRORS for outcome in range(len(OUTCOMES))], np.float64)


def _values(
    taken: BlockColumns, gathering: EvidenceCollector, records: Places
) -> dict[str, Column]:
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


def _cost(taken: BlockColumns, gathering: EvidenceCollector, records: Places) -> Floats:
    found = np.full(len(records), np.nan)
    for place, arm in enumerate(taken.arms):
        cost = gathering.declared.cost.get(arm)
        if cost is not None:
            mine = taken.arm[records] == place
            seconds = taken.seconds[records][mine]
            found[mine] = cost.per_request + cost.per_second * seconds
    return found


def _field(taken: BlockColumns, name: str, records: Places) -> Column:
    said = taken.response
    cells: list[Any] = [np.nan] * len(records)
    grids = np.where(taken.outcome[records] == OK, said.grid[records], -1)
    for number in np.unique(grids).tolist():
        if number < 0 or name not in said.grids[number].names:
            continue
        places = np.flatnonzero(grids == number)
        column = said.columns(number)[said.grids[number].names.index(name)]
        of_records = cells_at(column, said.row[records[places]])
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


def take_assigned(taken: BlockColumns, gathering: EvidenceCollector, division: SplitShares) -> None:
    """Give an experiment the requests that were divided by ``division``."""
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


def take_pairs(taken: BlockColumns, gathering: EvidenceCollector) -> None:
    """Bring requests and their copies together; who has no counterpart here waits."""
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


def _wait(taken: BlockColumns, gathering: EvidenceCollector, challenger: str, place: int) -> None:
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
    taken: BlockColumns,
    gathering: EvidenceCollector,
    challenger: str,
    first: Places,
    second: Places,
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


def _alike(said: Part, outcome: NDArray[Any], first: Places, second: Places) -> tuple[Mask, Mask]:
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
                a = cells_at(column, said.row[first[places]])
                b = cells_at(column, said.row[second[places]])
                equal &= np.array(
                    [type(x) is type(y) and bool(x == y) for x, y in zip(a, b, strict=True)],
                    np.bool_,
                )
        alike[places] = equal
    return alike, answered
