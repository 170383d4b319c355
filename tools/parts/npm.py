"""Schemas of Grafana's dashboards for the tests, from npm's packages.

``python -m tools.parts.npm`` installs the packages below ``~/.cache/understudy``, where other clones find
them too, and makes JSON Schemas of Grafana's own TypeScript types. Without npm, or offline, the schemas
are missing and the tests that need them are skipped, saying so.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tools.parts.debian import CACHE

PACKAGES = (
    "@grafana/schema@11.6.0",
    "ts-json-schema-generator@2.4.0",
    "typescript@5.6.3",
)
INSTALL = ("npm", "install", "--no-audit", "--no-fund", "--ignore-scripts")
HOME = CACHE / "npm-schemas-1"
"""The number is incremented when the content changes."""
_RAW = "node_modules/@grafana/schema/dist/esm/raw"
_DASHBOARD = "dashboard/x/dashboard_types.gen.d.ts"
_PANELS = {
    "timeseries": ("TimeSeries", "Options", "FieldConfig"),
    "stat": ("Stat", "Options"),
    "bargauge": ("BarGauge", "Options"),
    "heatmap": ("Heatmap", "Options", "FieldConfig"),
    "statetimeline": ("StateTimeline", "Options", "FieldConfig"),
}


def schema(name: str) -> dict[str, Any]:
    """A schema, such as ``dashboard`` or ``stat-Options``; skips the test if it is missing."""
    path = HOME / f"{name}.json"
    if not path.exists():
        pytest.skip(
            f"NOT TESTED: the schema of {name} is missing; `make parts` generates it with npm"
        )
    result: dict[str, Any] = json.loads(path.read_text())
    return result


def _make(folder: Path) -> str | None:
    """Install the packages and generate the schemas; return the reason of a failure, or None."""
    steps = [[*INSTALL, *PACKAGES]]
    generate = ["node", "node_modules/ts-json-schema-generator/bin/ts-json-schema-generator.js"]
    wanted = [("dashboard", _DASHBOARD, "Dashboard")]
    for kind, (title, *types) in _PANELS.items():
        file = f"composable/{kind}/panelcfg/x/{title}PanelCfg_types.gen.d.ts"
        wanted += [(f"{kind}-{one}", file, one) for one in types]
    steps += [
        [
            *generate,
            "--no-type-check",
            "--path",
            f"{_RAW}/{file}",
            "--type",
            one,
            "-o",
            f"{name}.json",
        ]
        for name, file, one in wanted
    ]
    (folder / "package.json").write_text("{}")
    for step in steps:
        reason = run(step, folder)
        if reason is not None:
            return reason
    shutil.rmtree(folder / "node_modules")
    return None


def run(command: Sequence[str], folder: Path) -> str | None:
    """Run a command of Node.js in a folder; return the reason of a failure, or None."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        return f"{command[0]} takes too long"
    if done.returncode != 0:
        return (done.stderr.strip() or "it failed").splitlines()[-1]
    return None


def keep(home: Path, what: str, make: Callable[[Path], str | None]) -> int:
    """Let ``make`` fill a folder and keep it as ``home``, unless that exists; ``what`` names the
    content. ``make`` returns the reason of a failure, which is a notice and not an error."""
    if home.exists():
        return 0
    if shutil.which("npm") is None or shutil.which("node") is None:
        print(f"NOTICE: npm is not installed; tests that need {what} are skipped")
        return 0
    print(f"making {what} from npm's packages …", flush=True)
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as fresh:
        made = Path(fresh) / "made"
        made.mkdir()
        reason = make(made)
        if reason is not None:
            print(f"NOTICE: {what} cannot be made ({reason}); the tests that need it are skipped")
            return 0
        try:
            made.rename(home)
        except OSError:
            pass  # another clone was faster
    return 0


def main() -> int:
    """Generate the schemas if they are missing; a failure is a notice, not an error."""
    return keep(HOME, "schemas of Grafana's dashboards", _make)


if __name__ == "__main__":
    sys.exit(main())
