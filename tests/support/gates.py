"""Plans of gates, and gates that run them."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from tests.support.load_server import written
from understudy.monitor.cli.main import main


def gate(*arguments: object, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(main, ["gate", *map(str, arguments)], env=env)


def plan(folder: Path, text: str) -> Path:
    return written(folder, "gate.yaml", textwrap.dedent(text))


def on_one_line(text: str) -> str:
    return " ".join(text.split())


def measured(folder: Path, url: str, text: str, *more: object) -> tuple[int, str, dict[str, Any]]:
    """Exit code, output on one line and result of a gate with the plan ``text``."""
    data = folder / "result.json"
    data.unlink(missing_ok=True)
    found = gate("--target", url, "--plan", plan(folder, text), "--json-file", data, *more)
    return found.exit_code, on_one_line(found.output), json.loads(data.read_text())
