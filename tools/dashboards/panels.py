"""Panels as this project makes them: every one has a description, a unit and words for "nothing".

Thin functions over the builders of ``grafana-foundation-sdk``. Sizes are in the dashboard's grid,
which is 24 wide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    heatmap,
    stat,
    statetimeline,
    timeseries,
)
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import prometheus as prom
from grafana_foundation_sdk.cog import builder
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import heatmap as heat_options
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

DATASOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
GREEN, YELLOW, ORANGE, RED, BLUE, GREY = (
    "green", "yellow", "orange", "red", "blue", "#808080",
)  # fmt: skip
Panel = builder.Builder[model.Panel]
Steps = Sequence[tuple[float | None, str]]
"""Thresholds: from which value which colour; the first one has no value."""
PLAIN: Steps = ((None, GREEN),)


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a panel. ``legend`` may use ``{{label}}``; ``instant`` asks for the end only."""

    expr: str
    legend: str = "__auto"
    instant: bool = False
    heat: bool = False


def _targets(panel: Any, queries: Sequence[Query]) -> None:
    for number, query in enumerate(queries):
        target = (
            prom.Dataquery()
            .expr(query.expr)
            .legend_format(query.legend)
            .datasource(DATASOURCE)
            .ref_id(chr(ord("A") + number))
        )
        target = target.instant() if query.instant else target.range()
        target.format(PromQueryFormat.HEATMAP if query.heat else PromQueryFormat.TIME_SERIES)
        panel.with_target(target)


def _common(
    panel: Any, title: str, text: str, empty: str, queries: Sequence[Query], size: tuple[int, int]
) -> None:
    panel.title(title).description(text).datasource(DATASOURCE)
    panel.span(size[0]).height(size[1])
    if hasattr(panel, "no_value"):
        panel.no_value(empty)
    _targets(panel, queries)


_SHARE_DECIMALS = 1
"""Grafana's own decimals of a percentage near 100."""


def _steps(steps: Steps) -> build.ThresholdsConfig:
    return (
        build.ThresholdsConfig()
        .mode(model.ThresholdsMode.ABSOLUTE)
        .steps([model.Threshold(value=value, color=color) for value, color in steps])
    )


def _mapped(words: Mapping[float, tuple[str, str]]) -> list[model.ValueMapping]:
    result = {
        f"{value:g}": model.ValueMappingResult(text=text, color=color, index=index)
        for index, (value, (text, color)) in enumerate(words.items())
    }
    return [model.ValueMap(options=result)]


def _measured(
    panel: Any,
    unit: str,
    decimals: int | None,
    words: Mapping[float, tuple[str, str]] | None = None,
) -> None:
    """The unit of a panel, and how its values are written. Of a share, only 1 itself is 100 %: what
    Grafana would round to it is ``> 99.99 %``."""
    panel.unit(unit)
    if decimals is not None:
        panel.decimals(decimals)
    mappings = _mapped(words) if words else []
    if unit == "percentunit":
        places = _SHARE_DECIMALS if decimals is None else decimals
        nearly = 1.0 - 10.0 ** -(places + 2)
        result = model.ValueMappingResult(text=f"> {100.0 * nearly:.{places}f} %")
        rounded = model.DashboardRangeMapOptions(
            from_val=round(0.5 + nearly / 2.0, 12), to=1.0 - 1e-12, result=result
        )
        mappings.append(model.RangeMap(options=rounded))
    if mappings:
        panel.mappings(mappings)


def _legend() -> common.VizLegendOptions:
    return (
        common.VizLegendOptions()
        .display_mode(options.LegendDisplayMode.LIST)
        .placement(options.LegendPlacement.BOTTOM)
        .show_legend(True)
    )


def _last() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False)


def _by_steps() -> build.FieldColor:
    return build.FieldColor().mode(model.FieldColorModeId.THRESHOLDS)


def lines(
    title: str,
    text: str,
    unit: str,
    *queries: Query,
    empty: str = "no data",
    width: int = 12,
    height: int = 8,
    stacked: bool = False,
    steps: Steps = (),
    low: float | None = None,
    high: float | None = None,
    log: bool = False,
    stepped: bool = False,
    colors: Mapping[str, str] | None = None,
    decimals: int | None = None,
) -> Panel:
    """Curves over time.

    ``steps`` are drawn as dashed lines; ``colors`` are by regular expression of the name.
    """
    panel = timeseries.Panel()
    _common(panel, title, text, empty, queries, (width, height))
    _measured(panel, unit, decimals)
    panel.line_width(1.5).fill_opacity(35 if stacked else 6)
    panel.show_points(options.VisibilityMode.NEVER)
    panel.legend(_legend())
    panel.tooltip(
        common.VizTooltipOptions()
        .mode(options.TooltipDisplayMode.MULTI)
        .sort(options.SortOrder.DESCENDING)
    )
    if stacked:
        panel.stacking(common.StackingConfig().mode(options.StackingMode.NORMAL).group("A"))
    if stepped:
        panel.line_interpolation(options.LineInterpolation.STEP_AFTER)
    if log:
        panel.scale_distribution(
            common.ScaleDistributionConfig().type(options.ScaleDistribution.LOG).log(10)
        )
    if low is not None:
        panel.min(low)
    if high is not None:
        panel.max(high)
    if steps:
        panel.thresholds(_steps(((None, "transparent"), *steps)))
        panel.thresholds_style(
            common.GraphThresholdsStyleConfig().mode(options.GraphThresholdsStyleMode.DASHED)
        )
    for pattern, color in (colors or {}).items():
        panel.override_by_regexp(pattern, [_colored(color)])
    return panel


def leading(to: str, title: str, *panels: Any) -> tuple[Panel, ...]:
    """Panels with a link to the dashboard ``to``, for the same time and choices."""
    for panel in panels:
        link = build.DashboardLink(title).type(model.DashboardLinkType.LINK)
        panel.links([link.url(f"/d/{to}?${{__url_time_range}}&${{__all_variables}}")])
    return panels


def third(
    title: str,
    text: str,
    unit: str,
    *queries: Query,
    empty: str,
    stacked: bool = False,
    steps: Steps = (),
    high: float | None = None,
    stepped: bool = False,
    colors: Mapping[str, str] | None = None,
) -> Panel:
    """Curves of what cannot be negative, from zero on; three of them are as wide as the board."""
    return lines(
        title, text, unit, *queries, empty=empty, width=8, stacked=stacked, steps=steps, low=0,
        high=high, stepped=stepped, colors=colors,
    )  # fmt: skip


def _colored(color: str) -> model.DynamicConfigValue:
    return model.DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": color})


def figure(
    title: str,
    text: str,
    unit: str,
    *queries: Query,
    empty: str = "no data",
    width: int = 4,
    height: int = 4,
    steps: Steps = PLAIN,
    words: Mapping[float, tuple[str, str]] | None = None,
    names: bool = False,
    decimals: int | None = None,
) -> Panel:
    """The last value, large; ``words`` replace values, ``names`` shows the series' names too."""
    panel = stat.Panel()
    _common(panel, title, text, empty, queries, (width, height))
    _measured(panel, unit, decimals, words)
    panel.thresholds(_steps(steps))
    panel.color_scheme(_by_steps())
    panel.graph_mode(
        options.BigValueGraphMode.AREA if not words else options.BigValueGraphMode.NONE
    )
    panel.color_mode(options.BigValueColorMode.VALUE)
    panel.text_mode(
        options.BigValueTextMode.VALUE_AND_NAME if names else options.BigValueTextMode.VALUE
    )
    panel.reduce_options(_last())
    return panel


def bars(
    title: str,
    text: str,
    unit: str,
    *queries: Query,
    empty: str = "no data",
    width: int = 8,
    height: int = 8,
    steps: Steps = PLAIN,
    low: float = 0.0,
    high: float | None = None,
    decimals: int | None = None,
) -> Panel:
    """The last value of each series as a horizontal bar."""
    panel = bargauge.Panel()
    _common(panel, title, text, empty, queries, (width, height))
    _measured(panel, unit, decimals)
    panel.thresholds(_steps(steps)).min(low)
    if high is not None:
        panel.max(high)
    panel.color_scheme(_by_steps())
    panel.orientation(options.VizOrientation.HORIZONTAL)
    panel.display_mode(options.BarGaugeDisplayMode.BASIC)
    panel.reduce_options(_last())
    return panel


def states(
    title: str,
    text: str,
    words: Mapping[float, tuple[str, str]],
    *queries: Query,
    empty: str = "no data",
    width: int = 12,
    height: int = 6,
) -> Panel:
    """What was the case when: a row for each series, in the words and colours of its values."""
    panel = statetimeline.Panel()
    _common(panel, title, text, empty, queries, (width, height))
    panel.unit("none").mappings(_mapped(words)).thresholds(_steps(((None, GREY),)))
    panel.color_scheme(_by_steps())
    panel.merge_values(True).row_height(0.85).show_value(options.VisibilityMode.AUTO)
    panel.legend(_legend())
    panel.tooltip(common.VizTooltipOptions().mode(options.TooltipDisplayMode.SINGLE))
    return panel


def heat(
    title: str,
    text: str,
    unit: str,
    buckets: str,
    *,
    empty: str = "no data",
    width: int = 24,
    height: int = 9,
    scheme: str = "Spectral",
    counts: str = "ops",
) -> Panel:
    """Buckets of a histogram over time, by their edges, whose unit is ``unit``; what is in them has
    the unit ``counts``."""
    panel = heatmap.Panel()
    query = Query(buckets, "{{le}}", heat=True)
    _common(panel, title, text, empty, (query,), (width, height))
    panel.calculate(False)
    panel.color(
        heatmap.HeatmapColorOptions()
        .mode(heat_options.HeatmapColorMode.SCHEME)
        .scheme(scheme)
        .scale(heat_options.HeatmapColorScale.EXPONENTIAL)
        .exponent(0.5)
        .steps(64)
        .reverse(scheme == "Spectral")
        .fill("dark-orange")
    )
    panel.y_axis(heatmap.YAxisConfig().unit(unit).axis_placement(options.AxisPlacement.LEFT))
    panel.cell_gap(1).filter_values(heatmap.FilterValueRange().le(1e-9))
    panel.cell_values(heatmap.CellValues().unit(counts))
    panel.rows_frame(heatmap.RowsHeatmapOptions().layout(options.HeatmapCellLayout.AUTO))
    panel.mode(options.TooltipDisplayMode.SINGLE).show_y_histogram().show_color_scale(True)
    panel.exemplars_color("rgba(255,0,255,0.7)").show_legend()
    return panel
