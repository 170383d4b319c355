"""``understudy experiment watch``: a live view of the intervals."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from understudy.common.live import show
from understudy.common.screen import (
    Console,
    ConsoleOptions,
    Group,
    Padding,
    RenderableType,
    RenderResult,
    Table,
    Text,
)
from understudy.monitor.cli.client import Client, path_of
from understudy.monitor.experiments.text import scale_of
from understudy.monitor.experiments.text import shown as shown_value

_WIDTH = 44
_NARROW = 36
_TONES = {"good": "bold green", "bad": "bold red", "neutral": "bold yellow", "open": "bold"}
_STYLES = {
    "passed": "green",
    "harmed": "red",
}


def run(
    client: Client,
    name: str,
    console: Console,
    seconds: float,
    once: bool,
    report: Callable[[Mapping[str, Any]], None] | None = None,
) -> str:
    """Draw until the user ends it, or until every challenger's rollout has; the last decision.

    With ``report``, each document goes there and nothing is drawn.
    """
    reach: dict[tuple[str, str], float] = {}
    decision = ""

    def frame() -> tuple[RenderableType, bool]:
        nonlocal decision
        document = client.get(path_of(name))
        decision = str(document["challengers"][0]["decision"])
        over = all(
            one["phase"] in ("promoted", "rolled_back", "aborted")
            for one in document["challengers"]
        )
        if report is not None:
            report(document)
            return "", over
        return view(document, reach), over

    if report is None:
        show(frame, seconds, console, once=once)
        return decision
    while not (frame()[1] or once):
        time.sleep(seconds)
    return decision


def view(document: Mapping[str, Any], reach: dict[tuple[str, str], float]) -> RenderableType:
    """One frame. ``reach`` keeps the scale of each metric between frames, so it changes rarely."""
    parts: list[RenderableType] = []
    for one in document["challengers"]:
        parts.append(_head(document, one))
        parts.append(Metrics(document, one, reach))
        parts += [Padding(Text(line, style="dim"), (0, 0, 0, 2)) for line in one["why"][:4]]
        parts += [Text(f"  → {line}") for line in one["next"][:4]]
    return Group(*parts)


def _head(document: Mapping[str, Any], one: Mapping[str, Any]) -> Text:
    requests = one["requests"]
    mine = requests["served"] if one["mode"] == "split" else requests["pairs"]
    text = Text.assemble(
        (f"{document['name']}  {one['name']} against {document['champion']}  ", "bold"),
        (one["headline"], _TONES.get(one["tone"], "")),
        f"  {one['phase'].replace('_', ' ')}, stage {one['stage']['name']} "
        f"({one['stage']['number']} of {one['stage']['of']}), "
        f"{mine:,} {one['counted_in']} of its own",
    )
    if not document["split"]["honoured"]:
        text.append("  sample ratio mismatch", style="bold red")
    return text


class Metrics:
    """The metrics of a challenger: a line for each where the screen is wide enough, else two."""

    def __init__(
        self,
        document: Mapping[str, Any],
        one: Mapping[str, Any],
        reach: dict[tuple[str, str], float],
    ) -> None:
        self._alpha = document["alpha"]
        self._one = one
        self._reach = reach

    def __rich_console__(self, console: Any, options: ConsoleOptions) -> RenderResult:
        wide = self._table()
        if wide.fits(console, options.max_width):
            yield wide
            return
        for item in self._one["metrics"]:
            champion, challenger, difference, evidence, status = self._cells(item, _NARROW)
            line = Text.assemble((item["metric"], "bold"), "  ", status)
            line.append(f"  champion {champion}, challenger {challenger}", "dim")
            yield line
            picture = Text.assemble("  ", difference, "  ", evidence)
            picture.no_wrap, picture.overflow = True, "ellipsis"
            yield picture

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, 1))
        for column in ("metric", "champion", "challenger"):
            table.add_column(column, justify="left" if column == "metric" else "right")
        table.add_column("worse or better by", justify="center")
        table.add_column("evidence")
        table.add_column("status")
        for item in self._one["metrics"]:
            table.add_row(item["metric"], *self._cells(item, _WIDTH))
        return table

    def _cells(self, item: Mapping[str, Any], width: int) -> tuple[str, str, Text, Text, Text]:
        factor, unit = scale_of(item["metric"])
        return (
            shown_value(item["champion"], factor, unit),
            shown_value(item["challenger"], factor, unit),
            bar(item, (self._one["name"], item["metric"]), self._reach, width),
            progress(item["log_e"], item["odds"], self._alpha),
            Text(item["status"], style=_STYLES.get(item["status"], "")),
        )


def bar(
    item: Mapping[str, Any],
    key: tuple[str, str],
    reach: dict[tuple[str, str], float],
    width: int = _WIDTH,
) -> Text:
    """The interval of the difference around zero: ``├`` and ``┤`` are its ends, ``●`` the estimate,
    ``│`` zero."""
    low, high = item["difference"]
    if low is None or high is None:
        return Text("·" * (width // 2) + "│" + "·" * (width - width // 2 - 1), style="dim")
    widest = max(abs(low), abs(high)) or 1e-12
    # Powers of two, so that the scale changes rarely and the interval visibly moves.
    wanted = 2.0 ** math.ceil(math.log2(widest))
    scale = reach[key] = min(reach.get(key, wanted), max(wanted, reach.get(key, wanted) / 4))
    scale = reach[key] = max(scale, wanted / 2)

    def at(value: float) -> int:
        share = 0.5 + 0.5 * min(max(value / scale, -1.0), 1.0)
        return round(share * (width - 1))

    cells = [" "] * width
    for x in range(at(low), at(high) + 1):
        cells[x] = "─"
    cells[at(0.0)] = "│"
    cells[at(low)], cells[at(high)] = "├", "┤"
    if item["champion"] is not None and item["challenger"] is not None:
        cells[at(item["challenger"] - item["champion"])] = "●"
    return Text("".join(cells), style="red" if item["status"] == "harmed" else "")


def progress(log_e: float, odds: str, alpha: float) -> Text:
    """A bar of the evidence relative to 1/alpha, on a log scale, and its odds."""
    share = min(max(log_e / -math.log(alpha), 0.0), 1.0)
    filled = round(share * 10)
    text = Text("█" * filled + "░" * (10 - filled), style="green" if share >= 1.0 else "")
    return text.append(f" {odds.partition(' if ')[0]}", style="dim")
