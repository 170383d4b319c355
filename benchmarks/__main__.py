"""``python -m benchmarks``: run benchmarks by name, or all of them."""

from __future__ import annotations

import importlib
import sys

import click

NAMES = {
    "drift-cost": "benchmarks.drift.cost",
    "drift-distances": "benchmarks.drift.distances",
    "drift-employment": "benchmarks.drift.employment",
    "drift-faults": "benchmarks.drift.faults",
    "drift-labels": "benchmarks.drift.labels",
    "drift-means": "benchmarks.drift.means",
    "drift-memory": "benchmarks.drift.memory",
    "drift-rates": "benchmarks.drift.rates",
    "drift-real": "benchmarks.drift.real",
    "drift-rivals": "benchmarks.drift.slow_rivals",
    "drift-segments": "benchmarks.drift.segments",
    "drift-streams": "benchmarks.drift.dependence",
    "fuzz-answers": "benchmarks.fuzz.answers",
    "fuzz-codecs": "benchmarks.fuzz.codecs",
    "fuzz-forms": "benchmarks.fuzz.forms",
    "fuzz-requests": "benchmarks.fuzz.requests",
    "grpc": "benchmarks.grpc",
    "kafka-blocks": "benchmarks.kafka.blocks",
    "kafka-chaos": "benchmarks.kafka.chaos",
    "kafka-evaluate": "benchmarks.kafka.evaluate",
    "kafka-publish": "benchmarks.kafka.publish",
    "load-capacity": "benchmarks.load.capacity",
    "load-engine": "benchmarks.load.engine",
    "load-faults": "benchmarks.load.faults",
    "load-statistics": "benchmarks.load.statistics",
    "otel": "benchmarks.telemetry.otel",
    "proxy": "benchmarks.proxy",
    "proxy-evaluation": "benchmarks.proxy.evaluation",
    "proxy-hostile": "benchmarks.proxy.hostile",
    "scrape": "benchmarks.telemetry.scrape",
    "sequential-acceptance": "benchmarks.sequential.acceptance",
    "sequential-costs": "benchmarks.sequential.costs",
    "sequential-decisions": "benchmarks.sequential.decisions",
    "sequential-experiment": "benchmarks.sequential.experiment",
    "slo-alerts": "benchmarks.slo.alerts",
    "soak": "benchmarks.soak.run",
    "verdicts": "benchmarks.verdicts.run",
}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1)
@click.option("--quick", is_flag=True, help="A short form: rougher figures, the same claims.")
@click.option("--list", "list_", is_flag=True, help="List the benchmarks and end.")
def main(names: tuple[str, ...], quick: bool, list_: bool) -> None:
    """Run the benchmarks NAMES, or all; results go to benchmarks/results/.

    \b
    Examples:
      python -m benchmarks proxy --quick
      python -m benchmarks
    """
    if list_:
        for name, module in NAMES.items():
            text = (importlib.import_module(module).__doc__ or "").splitlines()[0]
            click.echo(f"{name:<20} {text}")
        return
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise click.UsageError(f"no benchmark {unknown[0]!r}; there are {', '.join(NAMES)}")
    for name in names or NAMES:
        click.echo(f"== {name}", err=True)
        result = importlib.import_module(NAMES[name]).run(quick)
        path = result.write()
        click.echo(result.markdown())
        click.echo(f"written to {path}", err=True)


if __name__ == "__main__":
    sys.exit(main())
