"""Flights without end: a steady stream, with a silent failure upstream now and then.

``python -m examples.flights.traffic --models MODELS --target HOST:PORT --control URL``
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path

import click

from examples.flights.acts import Labels, post
from examples.flights.replay import Flight, Traffic, read_flights
from examples.flights.silent import spoil

CHUNK_SECONDS = 10.0


def chunks(flights: list[Flight], size: int) -> Iterator[list[Flight]]:
    """Flights in their order, repeatedly, with new ids each time."""
    round_ = 0
    while True:
        for start in range(0, len(flights) - size + 1, size):
            part = flights[start : start + size]
            yield [
                Flight(f"{one.id}-{round_}", one.date, one.late, one.values) if round_ else one
                for one in part
            ]
        round_ += 1


async def send(
    models: Path, target: str, control: str, rate: float, calm: float, trouble: float
) -> None:
    """Until it is cancelled: ``calm`` seconds as usual, then ``trouble`` seconds of bad inputs."""
    features = json.loads((models / "summary.json").read_text())["features"]
    host, _, port = target.rpartition(":")

    def tell(path: str, data: object) -> None:
        try:
            post(control + path, data)
        except OSError as error:
            click.echo(f"labels: {error}", err=True)

    labels = Labels(tell)
    posting = asyncio.create_task(labels.run())
    traffic = Traffic(host, int(port), labels.departed)
    began = time.monotonic()
    for part in chunks(read_flights(models / "mixed.jsonl"), max(1, int(rate * CHUNK_SECONDS))):
        spoiled = trouble > 0 and (time.monotonic() - began) % (calm + trouble) > calm
        await traffic.run(spoil(part, features) if spoiled else part, rate, CHUNK_SECONDS)
        tally = traffic.tally
        click.echo(
            f"{tally.sent} sent, {len(tally.errors)} errors{', inputs spoiled' if spoiled else ''}"
        )
        tally.errors.clear()
        tally.latencies.clear()
        if posting.done():
            posting.result()


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--models", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--target", required=True, help="HOST:PORT of the sidecar.")
@click.option("--control", required=True, help="URL of its control address, for labels.")
@click.option("--rate", type=click.FloatRange(1, 1000), default=50.0, show_default=True)
@click.option("--calm", type=click.FloatRange(10), default=900.0, show_default=True)
@click.option("--trouble", type=click.FloatRange(0), default=300.0, show_default=True)
def main(models: Path, target: str, control: str, rate: float, calm: float, trouble: float) -> None:
    """Send flights without end; the inputs are wrong for --trouble seconds after each --calm."""
    asyncio.run(send(models, target, control, rate, calm, trouble))


if __name__ == "__main__":
    main()
