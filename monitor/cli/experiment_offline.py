"""``understudy experiment plan`` and ``replay``: without a running service."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from understudy.common.terminal import echo
from understudy.monitor.cli.options import FILE, delimiter_option, json_option
from understudy.monitor.errors import ConfigError

if TYPE_CHECKING:
    from understudy.common.screen import Table
    from understudy.monitor.config.experiment import Experiment
    from understudy.shadow.experiment import Hypothesis
    from understudy.shadow.experiment.planning import Array, Plan


def load_experiment(path: Path, name: str | None = None) -> Experiment:
    """Load one experiment from a YAML file.

    The file holds an entry of ``experiments:``, or is a sidecar's configuration with that section;
    ``name`` chooses one of several. Raises ConfigError, which names each invalid key.
    """
    from pydantic import ValidationError

    from understudy.common.problems import problems
    from understudy.monitor.config.experiment import Experiment
    from understudy.monitor.config.load import document, text_of
    from understudy.monitor.config.rules import rules_of
    from understudy.shadow.experiment import ExperimentError

    data = document(text_of(path), str(path))
    if not isinstance(data, dict):
        raise ConfigError(
            str(path), [("", "must hold a mapping with name, challengers, metrics …")]
        )
    if _CONFIGURATION & data.keys():
        return _declared_in(path, name)
    data = {"name": path.stem, "challengers": ["challenger"], **data}
    if data.get("mode", "shadow") == "split":
        data.setdefault("weights", {data["challengers"][0]: 0.5})
    try:
        experiment = Experiment.model_validate(data)
        rules_of(experiment)
    except ValidationError as error:
        raise ConfigError(str(path), problems(error, data, Experiment)) from error
    except ExperimentError as error:
        raise ConfigError(str(path), [(error.path, error.problem)]) from error
    if name is not None and name != experiment.name:
        raise ConfigError(str(path), [("name", f"is {experiment.name!r}, not {name!r} (--name)")])
    return experiment


_CONFIGURATION = {"experiments", "champion", "models", "listen"}
"""Keys of a sidecar's configuration that an experiment does not have."""


def _declared_in(path: Path, name: str | None) -> Experiment:
    """The experiment of that name, or the only one, of a sidecar's configuration."""
    from understudy.monitor.config.load import load

    declared = {one.name: one for one in load(path).experiments}
    if not declared:
        raise ConfigError(str(path), [("experiments", "declares no experiment")])
    if name is None and len(declared) > 1:
        names = ", ".join(declared)
        raise ConfigError(str(path), [("experiments", f"choose one with --name: {names}")])
    if name is not None and name not in declared:
        names = ", ".join(declared)
        raise ConfigError(
            str(path), [("experiments", f"none is named {name!r}; there are: {names}")]
        )
    return declared[name] if name is not None else next(iter(declared.values()))


def share_of(experiment: Experiment) -> float | None:
    """The share of the traffic at which the experiment decides: the largest weight below all of
    the traffic that its first challenger gets; None in the shadow."""
    from understudy.monitor.config.rules import stages_of

    weights = [stage.weight for stage in stages_of(experiment, experiment.challengers[0])]
    return max((weight for weight in weights if 0.0 < weight < 1.0), default=None)


name_option = click.option(
    "--name", help="The experiment of this name, where the file declares several."
)


@contextmanager
def _progress(title: str, total: float | None, quiet: bool) -> Iterator[Any]:
    """A progress bar on standard error, updated by calls with the amount that is done.

    Where standard error is not a terminal, no bar is shown.
    """
    if quiet:
        yield lambda done, what=None: None
        return
    from understudy.common.screen import progress_bar

    with progress_bar() as bar:
        task = bar.add_task(title, total=total)

        def update(done: float, what: str | None = None) -> None:
            bar.update(task, completed=done, description=what or title)

        yield update


def _advance(progress: Callable[[float, str], None], before: int, what: str, done: float) -> None:
    progress(before + done, what)


@click.command("plan")
@click.argument("file", type=FILE)
@name_option
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    help="Requests per second of the model, champion and challenger.",
)
@click.option(
    "--share",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="The challenger's share of split traffic; default: that of the file (of a canary, its "
    "largest stage), or mirrored requests in mode shadow.",
)
@click.option(
    "--power",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.8,
    show_default=True,
    help="Power of the fixed-horizon test that is shown for comparison.",
)
@click.option(
    "--values",
    "measured",
    type=FILE,
    help="Measured values of the champion (.csv, .jsonl or .parquet): one row for each request or "
    "unit, columns named as for replay (latency, reward, field:NAME).",
)
@click.option(
    "--latency",
    type=click.FloatRange(min=0, min_open=True),
    help="The champion's median latency, in seconds. [assumed: 0.05]",
)
@click.option(
    "--spread",
    type=click.FloatRange(min=0.01, max=5),
    help="Standard deviation of the logarithm of latencies. [assumed: 0.5]",
)
@click.option("--mean", type=float, help="Mean of other values, in their unit. [assumed: 1]")
@click.option(
    "--deviation",
    type=click.FloatRange(min=0, min_open=True),
    help="Standard deviation of other values, in their unit. [assumed: 1]",
)
@click.option(
    "--skew",
    type=click.FloatRange(-1000, 1000),
    help="Skewness of other values: above 2 means heavy tails. [assumed: 0]",
)
@click.option(
    "--discordant",
    type=click.FloatRange(0, 1, min_open=True),
    help="Share of pairs in which only one of the two is right.",
)
@click.option(
    "--streams",
    default=1000,
    show_default=True,
    type=click.IntRange(20, 10_000),
    help="Simulated experiments per metric.",
)
@click.option(
    "--limit",
    default=200_000,
    show_default=True,
    type=click.IntRange(100, 10_000_000),
    help="Records after which a simulated experiment gives up.",
)
@click.option("--seed", default=1, show_default=True, help="Seed of the simulation.")
@click.option(
    "--exact",
    is_flag=True,
    help="Feed every record of every simulated experiment to its tests, which takes minutes.",
)
@delimiter_option
@json_option
def plan_command(
    file: Path,
    name: str | None,
    rate: float,
    share: float | None,
    power: float,
    measured: Path | None,
    latency: float | None,
    spread: float | None,
    mean: float | None,
    deviation: float | None,
    skew: float | None,
    discordant: float | None,
    streams: int,
    limit: int,
    seed: int,
    exact: bool,
    delimiter: str | None,
    as_json: bool,
) -> None:
    """Estimate how many requests, and days, the experiment in FILE takes.

    FILE is an entry of `experiments:`, or a sidecar's whole configuration. Simulates each metric
    with the tests that will judge it: a success with a challenger that is
    better by its effect, a guardrail with one that is as good as the champion. The rate of errors
    or accuracy is the metric's base_rate. Means depend on the spread and the tails of the values:
    measure them (--values) or declare them; otherwise the figures depend on an assumption, which is
    printed. AUC, calibration error and ratios are not simulated.

    \b
    Examples:
      understudy experiment plan understudy.yaml --rate 50
      understudy experiment plan understudy.yaml --name candidate-canary --rate 50 --exact
      understudy experiment plan experiment.yaml --rate 50 --values rewards.csv
      understudy experiment plan experiment.yaml --rate 50 --share 0.05 --json
    """
    from understudy.common.screen import Table, console
    from understudy.common.units import percent
    from understudy.monitor.config.rules import rules_of
    from understudy.shadow.experiment import ExperimentError
    from understudy.shadow.experiment.planning import SIMULATED, Traffic, plan

    declared = load_experiment(file, name)
    rules = rules_of(declared)
    if share is None:
        share = share_of(declared)
    assumed = {"latency"} if latency is None and spread is None else set()
    assumed |= {"values"} if mean is None and deviation is None and skew is None else set()
    traffic = Traffic(
        share,
        latency or 0.05,
        spread or 0.5,
        1.0 if mean is None else mean,
        deviation or 1.0,
        skew or 0.0,
        samples_of(measured, rules.hypotheses, delimiter) if measured is not None else {},
        frozenset(assumed),
        discordant,
    )
    proven = [h for h in rules.hypotheses if not h.watches]
    left_out = {h.name: why for h in proven if (why := _not_decided(h, share))}
    needed = [h for h in proven if h.name not in left_out]
    skipped = [h.name for h in needed if h.metric.statistic not in SIMULATED]
    needed = [h for h in needed if h.metric.statistic in SIMULATED]
    plans: list[Plan] = []
    with _progress("simulating", len(needed), as_json) as progress:
        for number, hypothesis in enumerate(needed):
            try:
                plans.append(
                    plan(
                        hypothesis,
                        traffic,
                        # If all claims must be proven, each is tested at the full level; if any
                        # success suffices, each at its share.
                        alpha=None if rules.promote == "any" else rules.alpha,
                        streams=streams,
                        power=power,
                        limit=limit,
                        seed=seed,
                        exact=exact,
                        progress=partial(_advance, progress, number, hypothesis.name),
                    )
                )
            except ExperimentError as error:
                raise ConfigError(str(file), [(error.path, error.problem)]) from error
    own = rate * (share if share is not None else 1.0)
    rows = [_row(one, own) for one in plans]
    whole = {
        "requests": _limited(max((p.p80 for p in plans), default=0.0)),
        "days": _limited(max((p.p80 for p in plans), default=0.0) / own / 86400.0),
    }
    if as_json:
        echo(
            json.dumps(
                {
                    "mode": "split" if share else "shadow",
                    "share": share,
                    "rate": rate,
                    "metrics": rows,
                    "whole_at_80_percent": whole,
                    "not_simulated": skipped,
                    "not_decided": left_out,
                }
            )
        )
        return
    table = Table(title=f"{declared.name}: requests of the challenger until it is proven")
    for name in (
        "metric",
        "to be proven",
        "half of the time",
        "80 % of the time",
        "fixed horizon",
        "days (80 %)",
    ):
        table.add_column(name, justify="left" if name in ("metric", "to be proven") else "right")
    for row, one in zip(rows, plans, strict=True):
        table.add_row(
            row["metric"],
            one.hypothesis.describe(),
            _count(one.median),
            _count(one.p80),
            _count(one.fixed),
            _days(one.p80 / own),
        )
    console().print(table)
    if plans:
        of = "mirrored" if share is None else f"of which {percent(share)} go to the challenger"
        echo(
            f"all of them, 80 % of the time: {_count(max(p.p80 for p in plans))} requests, "
            f"{_days(max(p.p80 for p in plans) / own)} days at {rate:g} requests/s, {of}"
        )
    for one in plans:
        for warning in one.warnings:
            echo(f"{one.hypothesis.name}: {warning}")
    instead = "not simulated; run `understudy experiment replay` on logged records instead"
    for metric, why in {**dict.fromkeys(skipped, instead), **left_out}.items():
        echo(f"{metric}: {why}")


def _not_decided(hypothesis: Hypothesis, share: float | None) -> str:
    """Why traffic of this share does not decide on a metric, and what to do; empty if it does."""
    if share is None and hypothesis.column == "latency":
        return "mirrored requests do not decide on latency; plan split traffic with --share 0.5"
    if share is None and hypothesis.metric.needs == "units":
        return "mirrored requests have no units; plan split traffic with --share 0.5"
    if share is not None and hypothesis.metric.needs == "pairs":
        return "needs both answers to one request: only mirrored requests decide (mode shadow)"
    return ""


def samples_of(
    path: Path, hypotheses: Sequence[Hypothesis], delimiter: str | None = None
) -> dict[str, Array]:
    """Measured values by column of the evidence, of those hypotheses that are planned from them.

    ``delimiter`` is that of a CSV file, by default detected. Raises ConfigError, naming file and
    line.
    """
    import numpy as np

    from understudy.monitor.errors import ReplayError
    from understudy.monitor.experiments.replay import rows_of
    from understudy.shadow.experiment.planning import takes_samples

    wanted = {h.column for h in hypotheses if takes_samples(h)}
    if not wanted:
        problem = "is of no use: all metrics are rates, which are planned from their `base_rate`"
        raise ConfigError(str(path), [("", problem)])
    found: dict[str, list[float]] = {}
    known: dict[str, None] = {}
    try:
        for number, row in rows_of(path, delimiter):
            known |= dict.fromkeys(row)
            for name in wanted & row.keys():
                if row[name] is None or row[name] == "":
                    continue
                try:
                    value = float(row[name])
                except (TypeError, ValueError):
                    value = math.nan
                if not math.isfinite(value):
                    problem = f"line {number}: {name}: {row[name]!r} is not a number"
                    raise ConfigError(str(path), [("", problem)])
                found.setdefault(name, []).append(value)
    except ReplayError as error:
        raise ConfigError(str(path), [("", str(error).removeprefix(f"{path}: "))]) from error
    if not found:
        columns = ", ".join(sorted(wanted))
        problem = f"needs a column of {columns}; has {', '.join(known) or 'no rows'}"
        raise ConfigError(str(path), [("", problem)])
    return {name: np.array(values) for name, values in found.items()}


def _row(one: Plan, own: float) -> dict[str, Any]:
    return {
        "metric": one.hypothesis.name,
        "claim": one.hypothesis.describe(),
        "median": _limited(one.median),
        "p80": _limited(one.p80),
        "mean": _limited(one.mean),
        "reached": one.reached,
        "fixed_horizon": one.fixed,
        "warnings": list(one.warnings),
        "days_median": _limited(one.median / own / 86400.0),
        "days_p80": _limited(one.p80 / own / 86400.0),
    }


def _limited(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _count(value: float) -> str:
    return (
        "beyond the limit" if math.isinf(value) else "–" if math.isnan(value) else f"{value:,.0f}"
    )


def _days(seconds: float) -> str:
    return "–" if not math.isfinite(seconds) else f"{seconds / 86400.0:.2g}"


@click.command("replay")
@click.argument("log", type=FILE)
@click.option(
    "--experiment",
    "file",
    type=FILE,
    required=True,
    help="YAML file with the experiment, or a sidecar's configuration.",
)
@name_option
@delimiter_option
@json_option
def replay_command(
    log: Path, file: Path, name: str | None, delimiter: str | None, as_json: bool
) -> None:
    """Evaluate logged pairs or records in LOG (.csv, .jsonl, .json, .parquet) like live traffic.

    Pairs have the columns champion.error, challenger.error, champion.latency and so on; records of
    split traffic have arm, share, error, latency and so on, and unit where the experiment assigns
    units. time is the clock of a row (unix seconds or ISO 8601). Latency is in seconds; an empty
    cell is a missing value.

    Rows are taken in their order, with the checks of live traffic: of the split, of units, and a
    look after every 256 rows.

    Exits 0 when the decision is promote, 10 continue, 11 rollback, 12 invalid, 2 for bad input.

    \b
    Examples:
      understudy experiment replay pairs.csv --experiment experiment.yaml
      understudy experiment replay records.parquet --experiment experiment.yaml --json
    """
    from understudy.common.screen import console
    from understudy.monitor.experiments.replay import Replay

    replay = Replay(load_experiment(file, name))
    with _progress(f"reading {log.name}", None, as_json) as progress:
        decision = replay.read(log, progress, delimiter)
    document = {
        "rows": replay.rows,
        "decided_after": replay.decided_after,
        "mode": replay.mode,
        **decision.to_dict(),
        **replay.explanation(decision).to_dict(),
    }
    if as_json:
        echo(json.dumps(document))
    else:
        console().print(decision_table(document, f"{log.name}: {replay.rows:,} rows"))
        for line in explained(document):
            echo(line)
    raise SystemExit(EXIT_CODES[decision.verdict])


EXIT_CODES = {"promote": 0, "continue": 10, "rollback": 11, "invalid": 12}


def decision_table(document: dict[str, Any], title: str) -> Table:
    """The metrics of a decision, for a terminal."""
    from understudy.common.screen import Table
    from understudy.monitor.experiments.text import interval, scale_of, shown

    table = Table(
        title=title,
        caption="after each e-value its odds, that is, how rarely such evidence would ever appear "
        "if the challenger did not keep the claim (e-value), or did no harm (of harm)",
    )
    for name in ("metric", "status", "champion", "challenger", "difference", "e-value", "of harm"):
        table.add_column(name, justify="left" if name in ("metric", "status") else "right")
    for item in document["metrics"]:
        factor, unit = scale_of(item["metric"])
        table.add_row(
            item["metric"],
            item["status"],
            shown(item["champion"], factor, unit),
            shown(item["challenger"], factor, unit),
            interval(item["difference"], factor, unit),
            f"{item['e_value']:.3g} ({_odds(item['odds'])})",
            f"{item['e_value_harm']:.3g} ({_odds(item['odds_harm'])})",
        )
    return table


def _odds(text: str) -> str:
    """The odds without their condition, which the caption names."""
    return text.partition(" if ")[0]


def explained(document: dict[str, Any]) -> Iterator[str]:
    """Lines that say what was decided, why, and what to do now."""
    yield f"{document['decision']}: {document['headline']}"
    yield from (f"  {line}" for line in document["why"])
    if document["next"]:
        yield "what now:"
        yield from (f"  {line}" for line in document["next"])
