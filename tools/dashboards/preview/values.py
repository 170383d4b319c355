"""Numbers in units, values in words, and colours, as a panel wants them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

Json = Mapping[str, Any]
COLORS = {
    "green": "#56a64b", "light-green": "#96d98d", "yellow": "#e0b400", "orange": "#ff9830",
    "red": "#f2495c", "dark-red": "#c4162a", "blue": "#5794f2", "light-blue": "#8ab8ff",
    "super-light-blue": "#aecbf5", "purple": "#b877d9", "dark-purple": "#8f3bb8",
    "transparent": "none",
}  # fmt: skip
PALETTE = (
    "#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#705da0",
    "#37872d", "#fade2a", "#447ebc", "#c15c17", "#890f02", "#0a437c", "#6d1f62", "#584477",
)  # fmt: skip


def color(name: str) -> str:
    """A colour by its name, or as it is."""
    return COLORS.get(name, name)


def _scaled(value: float, steps: Sequence[tuple[float, str]], digits: int | None) -> str:
    size = abs(value)
    for factor, unit in steps:
        if size >= factor * 0.99999:
            return f"{_plain(value / factor, digits)}{unit}"
    factor, unit = steps[-1]
    return f"{_plain(value / factor, digits)}{unit}"


def _plain(value: float, digits: int | None = None) -> str:
    if digits is not None:
        return f"{value:.{digits}f}"
    if value == 0:
        return "0"
    text = f"{value:.3g}"
    if "e" in text:
        return text if abs(value) < 1e-4 or abs(value) >= 1e9 else f"{value:.0f}"
    return text


_SECONDS = (
    (86400.0, " d"),
    (3600.0, " h"),
    (60.0, " min"),
    (1.0, " s"),
    (1e-3, " ms"),
    (1e-6, " µs"),
)
_BYTES = ((2.0**40, " TiB"), (2.0**30, " GiB"), (2.0**20, " MiB"), (2.0**10, " KiB"), (1.0, " B"))
_SHORT = ((1e9, " Bil"), (1e6, " Mil"), (1e3, " K"), (1.0, ""))


def text_of(value: float, unit: str, digits: int | None = None) -> str:
    """A value with its unit, short."""
    if unit == "percentunit":
        return f"{_plain(value * 100, digits)} %"
    if unit == "s":
        return "0 s" if value == 0 else _scaled(value, _SECONDS, digits)
    if unit in ("bytes", "Bps"):
        return _scaled(value, _BYTES, digits) + ("/s" if unit == "Bps" else "")
    if unit in ("reqps", "ops"):
        small = abs(value) < 1
        number = _plain(value, digits) if small else _scaled(value, _SHORT, digits)
        return f"{number} {'req/s' if unit == 'reqps' else 'ops/s'}"
    if unit == "short" and abs(value) >= 1:
        return _scaled(value, _SHORT, digits)
    return _plain(value, digits)


def defaults(panel: Json) -> Json:
    """The settings of a panel's fields."""
    values: Json = panel["fieldConfig"]["defaults"]
    return values


def shown(panel: Json, value: float) -> tuple[str, str | None]:
    """The words for a value and their colour, if they have one."""
    settings = defaults(panel)
    for mapping in settings.get("mappings", []):
        if mapping["type"] == "range":
            within = mapping["options"]["from"] <= value <= mapping["options"]["to"]
            result = mapping["options"]["result"] if within else None
        else:
            result = mapping["options"].get(f"{value:g}")
        if result is not None:
            tone = result.get("color")
            return result["text"], color(tone) if tone is not None else None
    return text_of(value, settings.get("unit", "none"), settings.get("decimals")), None


def by_thresholds(panel: Json, value: float) -> str:
    """The colour of the highest step that a value reaches."""
    steps = defaults(panel).get("thresholds", {}).get("steps", [])
    reached = [one["color"] for one in steps if one["value"] is None or value >= one["value"]]
    return color(reached[-1] if reached else "green")


def lines_at(panel: Json) -> list[tuple[float, str]]:
    """Thresholds that are drawn as lines: where, and in which colour."""
    if defaults(panel).get("custom", {}).get("thresholdsStyle", {}).get("mode") != "dashed":
        return []
    steps = defaults(panel)["thresholds"]["steps"]
    return [(one["value"], color(one["color"])) for one in steps if one["value"] is not None]


def color_of(panel: Json, name: str, number: int) -> str:
    """The colour of a curve: its override's, or the next of the palette."""
    for override in panel["fieldConfig"].get("overrides", []):
        matcher = override["matcher"]
        if matcher["id"] == "byRegexp" and re.search(matcher["options"], name):
            for one in override["properties"]:
                if one["id"] == "color":
                    return color(one["value"]["fixedColor"])
    return PALETTE[number % len(PALETTE)]
