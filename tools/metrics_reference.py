"""Writes ``docs/metrics.md``: every Prometheus metric, with the file that computes it.

Metrics are read from the source, since a running service exports only those that it has use for.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SOURCES = (
    ("Requests, arms, workers", "monitor/telemetry/collector.py"),
    ("Who serves", "monitor/telemetry/service.py"),
    ("Predictions and features", "monitor/telemetry/predictions.py"),
    ("Language models", "monitor/telemetry/llm.py"),
    ("Drift, quality, performance", "monitor/telemetry/drift.py"),
    ("Findings", "monitor/telemetry/findings.py"),
    ("Experiments", "monitor/telemetry/experiments.py"),
    ("Labels", "monitor/telemetry/labels.py"),
    ("Objectives", "monitor/telemetry/objectives.py"),
    ("Processes", "monitor/telemetry/processes.py"),
    ("OpenTelemetry", "monitor/telemetry/otlp/emitter.py"),
    ("Kafka, of a sidecar", "monitor/telemetry/kafka.py"),
    ("Kafka, of an evaluator", "monitor/service/evaluator_api.py"),
)
"""Headings and files; a test compares them with what a service exports."""
_TYPES = {
    "counter": "counter",
    "gauge": "gauge",
    "sketches": "histogram",
    "histogram": "histogram",
    "ValueFamily": "histogram",
    "QuantileFamily": "summary",
}
INTRODUCTION = """\
<!-- Written by `make docs` from monitor/telemetry; change the metrics there instead. -->
# Metrics

`/metrics` on the control address exports these metrics, as text, OpenMetrics (with exemplars) or protobuf (with
native histograms). Values of labels come from the configuration, from the columns of a baseline, or from closed
lists. Series appear when there is something to count. The latency histograms have the buckets of
OpenTelemetry's `http.server.request.duration`, those of `objectives`, and native buckets 1.1 % wide.

An evaluator of [Kafka](kafka-evaluation.md) exports the metrics of what it evaluates; its metrics of labels also
have the label `partition`.
"""


@dataclass(frozen=True, slots=True)
class Documented:
    """A metric: ``name`` as it is exported, and its ``labels``."""

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str


Bindings = Mapping[str, ast.expr]


def metrics_of(path: str) -> Iterator[Documented]:
    """The metrics of a source file, in the order of their calls."""
    module = importlib.import_module("understudy." + path.removesuffix(".py").replace("/", "."))
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    yield from _inside(tree, {}, vars(module))


def _inside(node: ast.AST, bound: Bindings, names: Mapping[str, Any]) -> Iterator[Documented]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.For):
            rounds = list(_rounds(child, names)) or [bound]
            for more in rounds:
                yield from _inside(child, {**bound, **more}, names)
            continue
        if isinstance(child, ast.FunctionDef):
            last = child.args.args[len(child.args.args) - len(child.args.defaults) :]
            defaults = zip(last, child.args.defaults, strict=True)
            yield from _inside(child, {**bound, **{a.arg: d for a, d in defaults}}, names)
            continue
        if isinstance(child, ast.Call) and isinstance(child.func, ast.Name):
            kind = _TYPES.get(child.func.id)
            if kind is not None and len(child.args) > 2:
                name, text, third = child.args[:3]
                family = "SERIES_LABELS" if child.func.id == "sketches" else None
                labels = names[family] if family else _tuple(third, bound, names)
                suffix = "_total" if kind == "counter" else ""
                full = f"understudy_{_text(name, bound, names)}{suffix}"
                yield Documented(full, kind, labels, _text(text, bound, names))
        yield from _inside(child, bound, names)


def _rounds(loop: ast.For, names: Mapping[str, Any]) -> Iterator[Bindings]:
    """What the variables of a loop over a tuple of tuples are in each round."""
    rows: list[ast.expr] = []
    if isinstance(loop.iter, ast.Tuple):
        rows = loop.iter.elts
    elif isinstance(loop.iter, ast.Name) and isinstance(names.get(loop.iter.id), tuple):
        rows = [ast.parse(repr(row), mode="eval").body for row in names[loop.iter.id]]
    if not isinstance(loop.target, ast.Tuple):
        return
    for row in rows:
        if isinstance(row, ast.Tuple) and len(row.elts) == len(loop.target.elts):
            pairs = zip(loop.target.elts, row.elts, strict=True)
            yield {key.id: value for key, value in pairs if isinstance(key, ast.Name)}


def _text(node: ast.expr, bound: Bindings, names: Mapping[str, Any]) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part, bound, names) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return _text(node.value, bound, names)
    if isinstance(node, ast.Name) and node.id in bound:
        return _text(bound[node.id], bound, names)
    return str(ast.literal_eval(node))


def _tuple(node: ast.expr, bound: Bindings, names: Mapping[str, Any]) -> tuple[str, ...]:
    if isinstance(node, ast.Name):
        return _tuple(bound[node.id], bound, names) if node.id in bound else tuple(names[node.id])
    assert isinstance(node, ast.Tuple), ast.dump(node)
    labels: list[str] = []
    for one in node.elts:
        inner = _tuple(one.value, bound, names) if isinstance(one, ast.Starred) else None
        labels += (_text(one, bound, names),) if inner is None else inner
    return tuple(labels)


def page() -> str:
    """The text of ``docs/metrics.md``."""
    parts = [INTRODUCTION]
    for title, path in SOURCES:
        parts.append(f"\n## {title}\n\nIn `{path}`.\n\n| metric | type | labels | meaning |")
        parts.append("| --- | --- | --- | --- |")
        for one in metrics_of(path):
            labels = ", ".join(f"`{label}`" for label in one.labels) or "–"
            parts.append(f"| `{one.name}` | {one.kind} | {labels} | {one.text} |")
    return "\n".join(parts) + "\n"
