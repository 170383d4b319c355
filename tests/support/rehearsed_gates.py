"""The gate as a command against a running service."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from tests.support.load_server import written
from understudy.monitor.cli.main import main


def gate(folder: Path, url: str, text: str, *more: str) -> tuple[int, dict[str, Any], str]:
    plan = written(folder, "gate.yaml", textwrap.dedent(text))
    data = folder / "r.json"
    arguments = ["gate", "--target", url, "--plan", str(plan), "--json-file", str(data)]
    said = CliRunner().invoke(main, [*arguments, *more])
    result = {s["name"]: s for s in json.loads(data.read_text())["stages"]} if data.exists() else {}
    return said.exit_code, result, said.output
