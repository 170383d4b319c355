"""The live view of ``understudy top``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from understudy.common.live import show
from understudy.common.screen import (
    ConsoleOptions,
    Group,
    RenderableType,
    RenderResult,
    Table,
    Text,
    console,
    shortened,
)
from understudy.common.terminal import echo, echo_lines
from understudy.common.units import percent
from understudy.monitor.cli.client import Client
from understudy.monitor.cli.findings_text import not_tested
from understudy.monitor.errors import ApiError, UnderstudyError
from understudy.monitor.findings import words

TIMEOUT_SECONDS = 3.0
_WINDOWS = (("10s", "10 s"), ("1m", "1 min"), ("5m", "5 min"), ("start", "start"))


class Unreachable(UnderstudyError):
    """The control API did not return a status document."""


def fetch(client: Client) -> dict[str, Any]:
    """The status document of the service. Raises Unreachable, which says what to do."""
    try:
        status = client.get("/v1/status", TIMEOUT_SECONDS)
        if not isinstance(status, dict) or "arms" not in status:
            raise ValueError("not a status document")
    except ApiError as error:
        raise Unreachable(str(error)) from error
    except ValueError as error:
        raise Unreachable(
            f"{client.url} is not the control API of an Understudy service ({error}): name the"
            " address of 'control.listen' with --url"
        ) from error
    return status


def duration(seconds: float | None) -> str:
    """Three digits and a unit."""
    if seconds is None:
        return "–"
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms" if seconds < 0.0995 else f"{seconds * 1e3:.0f} ms"
    return f"{seconds:.3g} s" if seconds < 99.5 else f"{seconds:.0f} s"


def _rate(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:,.0f}"


def _share(value: float | None) -> str:
    return "–" if value is None else percent(value)


def _counts(values: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in values.items()) or "none"


_COLUMNS = ("per s", "errors", "p50", "p99", "p99.9", "max", "in flight")
_LEAST_NAME = 10
_DROPPED_FIRST = ("max", "p50", "in flight")
"""What gives way on a narrow screen."""


class Arms:
    """Rates, errors and latencies by arm and window: all columns that the screen has room for."""

    def __init__(self, arms: Sequence[Mapping[str, Any]]) -> None:
        self._arms = arms

    def __rich_console__(self, console: Any, options: ConsoleOptions) -> RenderResult:
        names = [f"{arm['arm']} ({_KINDS[arm['measured']]})" for arm in self._arms]
        longest = max(map(len, names), default=0)
        dropped: tuple[str, ...] = ()
        for _ in (*_DROPPED_FIRST, ""):
            rest = self._table(names, dropped, 1).__rich_measure__(
                console, options.update(width=10_000)
            )
            room = options.max_width - rest.maximum + 1
            if room >= min(longest, _LEAST_NAME):
                break
            dropped = _DROPPED_FIRST[: len(dropped) + 1]
        yield self._table(names, dropped, max(_LEAST_NAME, min(longest, room)))

    def _table(self, names: Sequence[str], dropped: Sequence[str], width: int) -> Table:
        table = Table(box=None, pad_edge=False)
        table.add_column("arm")
        table.add_column("window")
        for column in _COLUMNS:
            if column not in dropped:
                table.add_column(column, justify="right")
        for number, (name, arm) in enumerate(zip(names, self._arms, strict=True)):
            if number:
                table.add_row("")
            first = True
            for key, text in _WINDOWS:
                window = arm["windows"].get(key)
                if window is None:
                    continue
                cells: dict[str, Text | str] = {
                    "per s": _rate(window["rate"]),
                    "errors": Text(_share(window["error_rate"]), "red" if window["errors"] else ""),
                    "p50": duration(window["p50"]),
                    "p99": duration(window["p99"]),
                    "p99.9": duration(window["p99_9"]),
                    "max": duration(window["max"]),
                    "in flight": f"{arm['in_flight']:,}" if first else "",
                }
                table.add_row(
                    Text(_fitting(arm["arm"], name, width), "bold") if first else "",
                    text,
                    *(cells[column] for column in _COLUMNS if column not in dropped),
                )
                first = False
        return table


def _fitting(name: str, with_kind: str, width: int) -> str:
    return with_kind if len(with_kind) <= width else shortened(name, width)


def _language_models(arms: Sequence[Mapping[str, Any]]) -> list[RenderableType]:
    """Times, tokens and goodput of language models in the last minute, by model and arm."""
    rows = [one for arm in arms for one in arm.get("language_models", ())]
    if not rows:
        return []
    table = Table(box=None, pad_edge=False)
    table.add_column("language model")
    table.add_column("arm")
    for column in _TOKEN_COLUMNS:
        table.add_column(column, justify="right")
    reasons = []
    for one in rows:
        name = f"{one['model']} {one['version']}".strip()
        goodput, output = one["goodput"], one["output_tokens_per_second"]
        broken = one["stream_error"] + one["truncated"]
        table.add_row(
            Text(shortened(name, _LONGEST_NAME), "bold"),
            Text(shortened(one["arm"], _LONGEST_NAME)),
            duration(one["ttft"]["p50"]),
            duration(one["ttft"]["p99"]),
            duration(one["tpot"]["p50"]),
            duration(one["tpot"]["p99"]),
            "–" if output is None else _rate(output),
            "–"
            if goodput is None
            else f"{_rate(goodput['rate'])} ({percent(goodput['share'], 3)})",
            Text(f"{broken:,}", "red" if broken else ""),
        )
        line = Text.assemble((f"{name} on {one['arm']}", "bold"), ", 1 min: finish reasons ")
        line.append(_counts(one["finish_reasons"]))
        for outcome in ("stream_error", "truncated"):
            if one[outcome]:
                line.append(f"; {outcome.replace('_', ' ')} {one[outcome]:,}", "red")
        reasons.append(line)
    return [table, *reasons, Text("")]


_TOKEN_COLUMNS = ("ttft p50", "p99", "per token p50", "p99", "tokens/s", "good per s", "broken")
_LONGEST_NAME = 24
_KINDS = {"primary": "clients", "mirror": "mirrored"}
_STATES = {"ok": "green", "no_traffic": "dim"}


def _service(status: Mapping[str, Any]) -> list[Text]:
    """Who serves, and how well."""
    lines = []
    for arm in status["arms"]:
        line = Text.assemble((arm["arm"], "bold"), f": {arm['description']}")
        served = [share["served"] for share in arm["shares"] if share["served"] is not None]
        if arm["role"] in ("serving", "standby") and served:
            line.append(f", serves {', '.join(map(_share, served))}")
        line.append("; ")
        line.append(arm["state"].replace("_", " "), _STATES.get(arm["state"], "red"))
        if arm["serving_breaker"]:
            line.append(f"; breaker {_counts(arm['serving_breaker'])}")
        if arm["diverted_1m"]:
            line.append(f"; {arm['diverted_1m']:,} diverted in the last minute", "red")
        lines.append(line)
    return lines


def _mirrors(status: Mapping[str, Any]) -> list[Text]:
    lines = []
    for arm in status["arms"]:
        mirror = arm.get("mirror")
        if not mirror or not (mirror["rate"] or mirror["outcomes"]):
            continue
        breaker = mirror["breaker"]
        broken = any(state != "closed" for state in breaker)
        line = Text("mirror ")
        line.append(arm["arm"], "bold")
        line.append(f": {_counts(mirror['outcomes'])}; queue {mirror['queue']:,}; breaker ")
        line.append(_counts(breaker), "red" if broken else "green")
        lines.append(line)
    return lines


def _records(status: Mapping[str, Any]) -> Text:
    records = status["records"]
    dropped = records["dropped"]
    line = Text(f"records: {records['eligible']:,} eligible, {records['sent']:,} sent, ")
    line.append(f"{sum(dropped.values()):,} dropped", "yellow" if dropped else "")
    if dropped:
        line.append(f" ({_counts(dropped)})", "yellow")
    if records["lost"]:
        line.append(f", {records['lost']:,} lost", "yellow")
    undecodable = sum(item["count"] for item in status["undecodable"])
    if undecodable:
        line.append(f"; {undecodable:,} payloads not decoded", "yellow")
    return line


def _predictions(status: Mapping[str, Any]) -> list[Text]:
    lines = []
    for item in status["predictions"][:8]:
        text = f"{item['arm']} {item['model']}.{item['prediction']}: {item['count']:,} values"
        if item["mean"] is not None:
            text += f", mean {item['mean']:.4g}"
        if item["classes"]:
            total = sum(item["classes"].values())
            top = list(item["classes"].items())[:4]
            text += ", " + ", ".join(f"{name} {percent(n / total, 3)}" for name, n in top)
        lines.append(Text(text))
    return lines


def _experiments(status: Mapping[str, Any]) -> list[Text]:
    styles = {"good": "green", "bad": "red", "neutral": "yellow"}
    lines = []
    for one in status.get("experiments", ()):
        for challenger in one["challengers"]:
            text = Text(f"experiment {one['name']}, {challenger['name']}: ")
            text.append(challenger["outcome"], styles.get(challenger["tone"], ""))
            text.append(
                f", {challenger['phase'].replace('_', ' ')} at {percent(challenger['weight'])}",
                "dim",
            )
            lines.append(text)
    return lines


_SEVERITIES = {"critical": "bold red", "warning": "yellow", "info": "cyan"}


def _findings(status: Mapping[str, Any]) -> list[Text]:
    """What is open, the worst first."""
    found = status.get("findings") or {}
    if not found.get("open"):
        return [Text("findings: nothing is open", "dim")] if status.get("watched") else []
    lines = []
    for one in found["incidents"]:
        line = Text(f"{one['severity']}: ", _SEVERITIES.get(one["severity"], ""))
        line.append(one["headline"], "bold")
        line.append(f" (for {words.span(one['age_seconds'])}", "dim")
        line.append(", acknowledged)" if one["acknowledged"] else ")", "dim")
        lines.append(line)
    rest = found["open_incidents"] - len(found["incidents"])
    if rest > 0:
        lines.append(Text(f"and {rest:,} more: understudy findings list", "dim"))
    return lines


def _labelled(status: Mapping[str, Any]) -> list[Text]:
    """Accuracy by labels, with what it assumes."""
    lines = []
    for one in status.get("watched", ()):
        if one.get("accuracy") is None:
            continue
        text = f"{one['model']}: accuracy {_share(one['accuracy'])} by {one['labels']:,} labels"
        line = Text("; ".join([text, *one.get("assumptions", ())]))
        if one.get("judged") is False:
            line.append("; not judged", "yellow")
        lines.append(line)
    return lines


def _readiness(status: Mapping[str, Any]) -> tuple[str, str]:
    """The word, and its style."""
    if not status["ready"]:
        return "not ready", "red"
    return ("degraded", "yellow") if status["warnings"] else ("ready", "green")


def render(status: Mapping[str, Any], url: str) -> RenderableType:
    """One frame of the view."""
    head = Text("Understudy ", "bold")
    head.append(*_readiness(status))
    minutes, seconds = divmod(int(status["run_seconds"]), 60)
    head.append(
        f"  {url}  running {minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
        f"  configuration {status['config']['generation']}",
        "dim",
    )
    troubles = list(status["problems"])
    if status["config"]["error"]:
        troubles.append(f"the last configuration was refused: {status['config']['error']}")
    if status["state"]["error"]:
        troubles.append(f"the state cannot be saved: {status['state']['error']}")
    workers = status["workers"]
    restarts = sum(worker["restarts"] for worker in workers)
    memory = sum(worker["memory_bytes"] or 0 for worker in workers) / 2**20
    foot = Text(f"workers: {len(workers)}, {memory:.0f} MiB, ")
    foot.append(f"{restarts} restarts", "yellow" if restarts else "")
    foot.append(f"; client connections {status['connections']['open']:,}")
    if status["rejected"]:
        foot.append(f"; rejected: {_counts(status['rejected'])}", "yellow")
    return Group(
        head,
        *(Text(f"! {trouble}", "red") for trouble in troubles),
        *not_tested(status),
        *(Text(f"! {warning}", "yellow") for warning in status["warnings"]),
        *_service(status),
        *_findings(status),
        *_experiments(status),
        Text(""),
        Arms(status["arms"]),
        Text(""),
        *_language_models(status["arms"]),
        *_mirrors(status),
        *_labelled(status),
        _records(status),
        *_predictions(status),
        foot,
    )


def run(client: Client, *, once: bool = False, as_json: bool = False, interval: float = 1.0) -> int:
    """Show the status every ``interval`` seconds, or once. Returns the exit code.

    Without a terminal, or with ``NO_COLOR`` set, there is no colour; when the output is not a
    terminal one frame is printed as if ``once`` had been given.
    """
    try:
        status = fetch(client)
    except Unreachable as error:
        echo(f"understudy top: {error}", err=True)
        return error.exit_code
    if as_json:
        echo_lines(json.dumps(status, indent=2))
        return 0
    first: list[RenderableType] = [render(status, client.url)]

    def frame() -> tuple[RenderableType, bool]:
        if first:
            return first.pop(), False
        try:
            return render(fetch(client), client.url), False
        except Unreachable as error:
            return Text(str(error), "red"), False

    screen = console()
    show(frame, interval, screen, once=once or not screen.is_terminal)
    return 0
