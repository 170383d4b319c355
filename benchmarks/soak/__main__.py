"""``python -m benchmarks.soak --minutes 5``: a soak of another length."""

from __future__ import annotations

import click

from benchmarks.soak.run import MINUTES, run


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--minutes", type=click.FloatRange(min=0.5), default=MINUTES, show_default=True)
def main(minutes: float) -> None:
    """Soak the service for MINUTES, with a fault every ten seconds."""
    result = run(minutes=minutes)
    result.write()
    click.echo(result.markdown())


if __name__ == "__main__":
    main()
