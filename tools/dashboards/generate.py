"""From boards to the JSON files that Grafana provisions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from tools.dashboards.board import MARKS
from tools.dashboards.boards import BOARDS

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "grafana" / "dashboards"


def documents() -> dict[str, dict[str, Any]]:
    """Every dashboard as JSON, by the name of its file."""
    result = {
        f"{board.uid.removeprefix('understudy-')}.json": json.loads(
            JSONEncoder(sort_keys=True).encode(board.build())
        )
        for board in BOARDS
    }
    said = {name: text for name, _, text, _ in MARKS}
    for dashboard in result.values():
        for variable in dashboard["templating"]["list"]:
            for key in ("auto", "auto_count", "auto_min"):
                variable.pop(key, None)  # of intervals, says Grafana's schema
        for mark in dashboard["annotations"]["list"]:
            if mark["name"] in said:
                # The data source's own, which the SDK does not know: without, a mark is mute.
                mark |= {"titleFormat": mark["name"], "textFormat": said[mark["name"]]}
    return result


def texts() -> dict[Path, str]:
    """What belongs into which file."""
    return {
        FOLDER / name: json.dumps(result, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        for name, result in documents().items()
    }
