"""Plans of gates, and gates that run them."""

from __future__ import annotations

import textwrap
from pathlib import Path

from click.testing import CliRunner, Result

from tests.support.load_server import written
from understudy.monitor.cli.main import main


def gate(*arguments: object, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(main, ["gate", *map(str, arguments)], env=env)


def plan(folder: Path, text: str) -> Path:
    return written(folder, "gate.yaml", textwrap.dedent(text))
