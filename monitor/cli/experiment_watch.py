"""``understudy experiment watch``: a live view of the intervals."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from understudy.common.screen import Console, Group, Live, RenderableType, Table, Text
from understudy.monitor.cli.client import Client, path_of
from understudy.monitor.experiments.text import scale_of, shown

_WIDTH = 44
_TONES = {"good": "bold green", "bad": "bold red", "neutral": "bold yellow", "open": "bold"}
_STYLES = {
    "passed": "green",
    "harmed": "red",
}


def run(client: Client, name: str, console: Console, seconds: float, once: bool) -> str:
    """Draw until interrupted, or until every challenger's rollout has ended; the last decision."""
    reach: dict[tuple[str, str], float] = {}
    with Live(console=console, auto_refresh=False, transient=False) as live:
        while True:
            document = client.get(path_of(name))
            live.update(view(document, reach), refresh=True)
            over = all(
                one["phase"] in ("promoted", "rolled_back", "aborted")
                for one in document["challengers"]
            )
            if once or over:
                return str(document["challengers"][0]["decision"])
            time.sleep(seconds)


def view(document: Mapping[str, Any], reach: dict[tuple[str, str], float]) -> RenderableType:
    """One frame. ``reach`` keeps the scale of each metric between frames, so it changes rarely."""
    parts: list[RenderableType] = []
    for one in document["challengers"]:
        parts.append(_head(document, one))
        parts.append(_metrics(document, one, reach))
        parts += [Text(f"  {line}", style="dim") for line in one["why"][:4]]
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


def _metrics(
    document: Mapping[str, Any], one: Mapping[str, Any], reach: dict[tuple[str, str], float]
) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1))
    for column in ("metric", "champion", "challenger"):
        table.add_column(column, justify="left" if column == "metric" else "right")
    table.add_column("worse or better by", justify="center", width=_WIDTH)
    table.add_column("evidence", width=32, no_wrap=True)
    table.add_column("status")
    for item in one["metrics"]:
        factor, unit = scale_of(item["metric"])
        table.add_row(
            item["metric"],
            shown(item["champion"], factor, unit),
            shown(item["challenger"], factor, unit),
            bar(item, (one["name"], item["metric"]), reach),
            progress(item["log_e"], item["odds"], document["alpha"]),
            Text(item["status"], style=_STYLES.get(item["status"], "")),
        )
    return table


def bar(item: Mapping[str, Any], key: tuple[str, str], reach: dict[tuple[str, str], float]) -> Text:
    """The interval of the difference around zero: ``├`` and ``┤`` are its ends, ``●`` the estimate,
    ``│`` zero."""
    low, high = item["difference"]
    if low is None or high is None:
        return Text("·" * (_WIDTH // 2) + "│" + "·" * (_WIDTH - _WIDTH // 2 - 1), style="dim")
    widest = max(abs(low), abs(high)) or 1e-12
    # Powers of two, so that the scale changes rarely and the interval visibly moves.
    wanted = 2.0 ** math.ceil(math.log2(widest))
    scale = reach[key] = min(reach.get(key, wanted), max(wanted, reach.get(key, wanted) / 4))
    scale = reach[key] = max(scale, wanted / 2)

    def at(value: float) -> int:
        share = 0.5 + 0.5 * min(max(value / scale, -1.0), 1.0)
        return round(share * (_WIDTH - 1))

    cells = [" "] * _WIDTH
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
