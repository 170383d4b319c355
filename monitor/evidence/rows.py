"""Evidence about models from a block: decoded rows, and counts of undecodable payloads."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from understudy.common.arrays import distinct
from understudy.common.codecs import Reason
from understudy.common.codecs.llm.columns import ANSWER_HASH, HASHES
from understudy.monitor.evidence.batch import ColumnBatch
from understudy.monitor.evidence.block_columns import (
    ROWS_DIFFER,
    BlockColumns,
    Indices,
    Mask,
    Part,
    distinct_pairs,
)
from understudy.monitor.evidence.columns import Column
from understudy.monitor.records.record import CHARGED, OK, OURS, ROLE_PRIMARY, SIDES

ROWS, ANSWERS, REQUESTS, UNDECODABLE = "rows", "answers", "requests", "undecodable"
"""Types of rows: features with the champion's answers if any; answers alone; whether each request
and its answer were decoded, with the arm that answered, its time, whether it failed, and what was
found in a payload that was not decoded, also of mirrored requests; and why a payload was not."""
_OF_REQUESTS = ("request", "answer", "arm", "seconds", "failed", "request_detail", "answer_detail")
_CHARGED = tuple(CHARGED)
_NOT_TRIED = tuple(outcome for outcome, side in SIDES.items() if side == OURS)
"""Mirrored requests that ended so say nothing about the arm."""
STARTED = "started"
"""The first column of rows and answers: unix time of the request."""


def rows_of(block: BlockColumns) -> Iterator[ColumnBatch]:
    """All evidence about models, without that of experiments.

    The champion's answers are in the rows of their requests when both have as many rows.
    """
    request, response = block.request, block.response
    primary = (block.role == ROLE_PRIMARY) & block.finished
    answered = block.outcome == OK
    tried = block.finished & ~np.isin(block.outcome, _NOT_TRIED)
    here = np.flatnonzero(primary | tried)
    both = (request.grid >= 0) & (response.grid >= 0)
    even = np.ones(block.count, np.bool_)
    if request.many is not None or response.many is not None:
        one = np.ones(1, np.int64)
        even = (one if request.many is None else request.many) == (
            one if response.many is None else response.many
        )
    if here.size:
        # A mirrored request is the champion's.
        asked = np.where(primary[here], block.codes(request, here), np.nan)
        told = np.where(answered[here], block.codes(response, here), np.nan)
        told[(primary & answered & both & ~even)[here]] = ROWS_DIFFER
        arms: Column = [block.names.arm(arm) for arm in block.arm[here].tolist()]
        seconds = block.seconds[here]
        failed = np.isin(block.outcome[here], _CHARGED).astype(np.float64)
        details = [block.details(part, here) for part in (request, response)]
        cells: list[Column] = [asked, told, arms, seconds, failed, *details]
        yield block.batch((REQUESTS, *block.key), _OF_REQUESTS, here, cells)
    whole = primary & answered & (block.arm == block.champion) & both & even
    for first, second in distinct_pairs(request.grid[whole], response.grid[whole]):
        records = np.flatnonzero(whole & (request.grid == first) & (response.grid == second))
        names = request.grids[first].names
        kind: tuple[str, ...] = (ROWS, *block.key, block.arms[block.champion], str(len(names)))
        answers, columns = _answers(response, second, records)
        cells = [*request.of(first, records), *columns]
        every = (STARTED, *names, *answers)
        yield _with_started(block, kind, every, request.rows(records)[0], cells)
    alone = primary & ~whole & (request.grid >= 0)
    for number in distinct(request.grid[alone]).tolist():
        records = np.flatnonzero(alone & (request.grid == number))
        names = request.grids[number].names
        kind = (ROWS, *block.key, "", str(len(names)))
        cells = request.of(number, records)
        yield _with_started(block, kind, (STARTED, *names), request.rows(records)[0], cells)
    rest = answered & ~whole
    for arm, number in distinct_pairs(block.arm[rest], response.grid[rest]):
        if number >= 0:
            records = np.flatnonzero(rest & (block.arm == arm) & (response.grid == number))
            kind = (ANSWERS, *block.key, block.names.arm(arm))
            answers, cells = _answers(response, number, records)
            names = (STARTED, *answers)
            yield _with_started(block, kind, names, response.rows(records)[0], cells)
    yield from _undecodable(block, "request", primary, request)
    yield from _undecodable(block, "response", rest, response)


def _answers(part: Part, grid: int, records: Indices) -> tuple[tuple[str, ...], list[Column]]:
    """Names and columns of answers, without the hashes of single texts: they are there to compare
    two answers, and have no distribution."""
    names, columns = part.grids[grid].names, part.of(grid, records)
    if ANSWER_HASH not in names:
        return names, columns
    shown = [(n, c) for n, c in zip(names, columns, strict=True) if n not in HASHES]
    return tuple(name for name, _ in shown), [column for _, column in shown]


def _with_started(
    block: BlockColumns,
    kind: tuple[str, ...],
    names: tuple[str, ...],
    records: Indices,
    cells: list[Column],
) -> ColumnBatch:
    return block.batch(kind, names, records, [block.started[records], *cells])


def _undecodable(block: BlockColumns, what: str, of: Mask, part: Part) -> Iterator[ColumnBatch]:
    gone = of & (part.grid < 0)
    for arm, number in distinct_pairs(block.arm[gone], part.grid[gone]):
        records = np.flatnonzero(gone & (block.arm == arm) & (part.grid == number))
        reason = block.block.undecodable[-1 - number].reason
        if reason is Reason.NOT_READ:
            continue
        kind = (UNDECODABLE, *block.key, block.names.arm(arm), what, str(reason))
        yield block.batch(kind, (), records, [])


def parts_of(
    batch: ColumnBatch,
) -> tuple[tuple[str, ...], list[Column], tuple[str, ...], list[Column]]:
    """Names and columns of the features in a batch of rows, and of the answers."""
    end = 1 + int(batch.kind[4])
    return batch.names[1:end], batch.columns[1:end], batch.names[end:], batch.columns[end:]
