"""From files to a baseline: a first look at all of them decides, a second one counts, and where
rows have a time two more find their cycles, and what is left without these."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.common.codecs.llm.columns import ANSWER_HASH, HASHES
from understudy.monitor.baseline.builder import SAMPLE, Builder
from understudy.monitor.baseline.calibration.regions import MOST_ROWS
from understudy.monitor.baseline.cycles import Rows, learn_cycles
from understudy.monitor.baseline.files import Reader, Table
from understudy.monitor.baseline.identifiers import MOST_DISTINCT
from understudy.monitor.baseline.kinds import instant
from understudy.monitor.baseline.labelled import THRESHOLD
from understudy.monitor.baseline.model import Baseline, Role
from understudy.monitor.errors import BaselineError

_SEED = 20090101


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """What a baseline is to be made of; names are those of columns."""

    model: str = ""
    model_version: str = ""
    target: str | None = None
    predictions: tuple[str, ...] = ()
    time: str | None = None
    ignore: frozenset[str] = frozenset()
    categorical: frozenset[str] = frozenset()
    declared: frozenset[str] = frozenset()
    """Features to watch although they look like an identifier, a timestamp or a counter."""
    most_categories: int = MOST_DISTINCT
    """A column with more categories is taken for an identifier."""
    regions: bool = False
    """Whether the features are asked what a score means where; takes minutes."""
    threshold: float = THRESHOLD
    """Score above which a prediction is positive."""
    delimiter: str | None = None
    """Of CSV files; by default detected."""

    def roles(self) -> dict[str, Role]:
        """Roles of the columns other than features, by name."""
        roles: dict[str, Role] = dict.fromkeys(self.predictions, "prediction")
        if self.target is not None:
            roles[self.target] = "target"
        return roles


def build(
    paths: Sequence[Path],
    wanted: BuildOptions,
    skip_broken: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Baseline, int]:
    """The baseline, and how many lines were left out.

    ``progress`` is called with what was read and what there is in all, every look counted. Raises
    BaselineError for files that cannot be used, naming file and line.
    """
    readers = [Reader(path, skip_broken, wanted.delimiter) for path in paths]
    looks = 2 if wanted.time is None else 4
    total = looks * sum(reader.size for reader in readers)
    read = 0

    def seen(amount: int) -> None:
        nonlocal read
        read += amount
        if progress is not None:
            progress(min(read, total), total)

    for reader in readers:
        reader.progress = seen
    sample = _sample(readers, MOST_ROWS if wanted.regions else SAMPLE)
    _check(wanted, sample.columns, paths)
    builder = Builder(
        wanted.model,
        wanted.model_version,
        ", ".join(path.name for path in paths),
        wanted.roles(),
        wanted.categorical,
        regions=wanted.regions,
        threshold=wanted.threshold,
        declared=wanted.declared,
        most_categories=wanted.most_categories,
    )
    features = _kept(wanted, sample)
    builder.begin(list(features), list(features.values()), _times(wanted, sample))
    for reader in readers:
        for table in reader.tables():
            columns = _kept(wanted, table)
            builder.add(list(columns), list(columns.values()), _times(wanted, table))
    baseline = builder.finish()
    skipped = sum(reader.skipped for reader in readers)
    if wanted.time is not None:
        baseline.seasons = learn_cycles(baseline, lambda: _rows(readers, wanted))
    return baseline, skipped


def _rows(readers: Sequence[Reader], wanted: BuildOptions) -> Iterator[Rows]:
    for reader in readers:
        for table in reader.tables():
            columns = _kept(wanted, table)
            yield list(columns), list(columns.values()), _times(wanted, table) or []


def _kept(wanted: BuildOptions, table: Table) -> dict[str, list[Any]]:
    out = wanted.ignore | ({wanted.time} if wanted.time else set())
    if ANSWER_HASH in table.columns:
        out |= HASHES  # they are not watched
    return {name: cells for name, cells in table.columns.items() if name not in out}


def _times(wanted: BuildOptions, table: Table) -> list[float] | None:
    if wanted.time is None:
        return None
    cells = table.columns.get(wanted.time, [None] * table.rows)
    moments = [instant(cell) for cell in cells]
    return [float("nan") if moment is None else moment for moment in moments]


def _sample(readers: Sequence[Reader], most: int) -> Table:
    """Rows drawn evenly from all files (Vitter's algorithm R), so that a file in order of time does
    not decide by its first days."""
    chance = random.Random(_SEED)  # noqa: S311  # the same file gives the same baseline
    rows: list[dict[str, Any]] = []
    count = 0
    names: dict[str, None] = {}
    for reader in readers:
        for table in reader.tables():
            names.update(dict.fromkeys(table.columns))
            for index in range(table.rows):
                count += 1
                if len(rows) < most:
                    rows.append({n: cells[index] for n, cells in table.columns.items()})
                elif (drawn := chance.randrange(count)) < most:
                    rows[drawn] = {n: cells[index] for n, cells in table.columns.items()}
    if not rows:
        raise BaselineError(f"{readers[-1].path}: it has no rows")
    return Table({name: [row.get(name) for row in rows] for name in names})


def _check(wanted: BuildOptions, columns: Mapping[str, Any], paths: Sequence[Path]) -> None:
    named: list[tuple[str, Collection[str]]] = [
        ("--target", [wanted.target] if wanted.target else []),
        ("--prediction", wanted.predictions),
        ("--time", [wanted.time] if wanted.time else []),
        ("--ignore", wanted.ignore),
        ("--categorical", wanted.categorical),
        ("--declare", wanted.declared),
    ]
    for option, names in named:
        for name in names:
            if name not in columns:
                raise BaselineError(
                    f"{paths[0]}: there is no column {name!r} ({option}); there are "
                    f"{', '.join(list(columns)[:30])}"
                )
