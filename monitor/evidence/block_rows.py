"""Blocks to evidence without a look at single records, for what is most of the traffic.

It puts on sheets what :meth:`StageOne.take` would have put there, record by record, which the
tests compare. What it does not do says :func:`applies`; single records that need more than columns
(answers that wait for their counterpart, answers that differ) go the other way.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from understudy.monitor.evidence.batch import ColumnBatch
from understudy.monitor.evidence.block_columns import BlockColumns, Mask, Part, arm_of, pairs_of
from understudy.monitor.evidence.blocks import RecordBlock
from understudy.monitor.evidence.collectors import View
from understudy.monitor.evidence.pairs import take_assigned, take_pairs
from understudy.monitor.evidence.rows import ANSWERS, REQUESTS, ROWS, STARTED, UNDECODABLE
from understudy.monitor.evidence.stage_one import StageOne
from understudy.monitor.records.record import OK, ROLE_PRIMARY


def applies(block: RecordBlock, preparation: StageOne, view: View, model: str) -> bool:
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


def take(
    preparation: StageOne, view: View, key: tuple[str, str], block: RecordBlock, offset: int
) -> None:
    """Take a block of the model ``key``, (name, version), that lies at ``offset``."""
    taken = BlockColumns(block, offset, preparation.rows.champion)
    for sheet in _rows(taken, key):
        preparation.rows.add(sheet)
    for gathering, division in view.get(key[0], ()):
        if division is not None:
            take_assigned(taken, gathering, division)
        take_pairs(taken, gathering)


def _rows(taken: BlockColumns, key: tuple[str, str]) -> Iterator[ColumnBatch]:
    asked, said = taken.request, taken.response
    primary = taken.role == ROLE_PRIMARY
    answered = taken.outcome == OK
    here = np.flatnonzero(primary)
    if here.size:
        broken = (asked.grid[here] < 0).astype(np.float64)
        yield taken.sheet((REQUESTS, *key), ("broken",), here, [broken])
    whole = primary & answered & (taken.arm == taken.champion)
    whole &= (asked.grid >= 0) & (said.grid >= 0)
    for first, second in pairs_of(asked.grid[whole], said.grid[whole]):
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
                kind = (ANSWERS, *key, arm_of(taken, arm))
                columns = [taken.started[records], *said.of(number, records)]
                names = (STARTED, *said.grids[number].names)
                yield taken.sheet(kind, names, records, columns)
    yield from _undecodable(taken, key, "request", primary, asked)
    yield from _undecodable(taken, key, "response", rest, said)


def _undecodable(
    taken: BlockColumns, key: tuple[str, str], what: str, of: Mask, part: Part
) -> Iterator[ColumnBatch]:
    gone = of & (part.grid < 0)
    if not gone.any():
        return
    for arm, number in pairs_of(taken.arm[gone], part.grid[gone]):
        records = np.flatnonzero(gone & (taken.arm == arm) & (part.grid == number))
        reason = taken.block.undecodable[-1 - number].reason
        kind = (UNDECODABLE, *key, arm_of(taken, arm), what, str(reason))
        yield taken.sheet(kind, (), records, [])
