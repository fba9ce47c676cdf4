"""How panels look, once for all boards.

Each has a title that is a question or a plain noun, a unit and a description; no colour without a meaning.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.models import common as look
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat, QueryEditorMode

from tools.boards.events import SOURCE, events

TAG: Final = "login-stream"
STAT_HEIGHT: Final = 4
GRAPH_HEIGHT: Final = 8
NO_DATA: Final = "no data"
COUNT: Final = "locale"
"""The unit of what is counted one by one: 1,538, not 2 K."""

ANSWERS: Final[Mapping[int, tuple[str, str]]] = {0: ("away", "red"), 1: ("answers", "green")}

PanelT = TypeVar("PanelT", stat.Panel, timeseries.Panel, statetimeline.Panel, heatmap.Panel, table.Panel)


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL expression and the name of its series, which may hold labels: ``{{instance}}``."""

    expression: str
    legend: str = ""


def number(
    title: str,
    query: Query,
    *,
    unit: str,
    description: str,
    width: int = 3,
    bad_from: float | None = None,
    good_from: float | None = None,
    decimals: int | None = None,
) -> stat.Panel:
    """One number, without its course, which would run through it; one line a series where they have names.

    ``bad_from`` or ``good_from``: where its colour changes, if that means something.
    """
    panel = (
        stat.Panel()
        .graph_mode(look.BigValueGraphMode.NONE)
        .color_mode(look.BigValueColorMode.VALUE)
        .text_mode(look.BigValueTextMode.VALUE_AND_NAME if query.legend else look.BigValueTextMode.AUTO)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(_thresholds(bad_from, good_from))
        .color_scheme(dashboard.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
    )
    if query.legend:
        panel.orientation(look.VizOrientation.HORIZONTAL)
        panel.text(common.VizTextDisplayOptions().title_size(14).value_size(18))
    if decimals is not None:
        panel.decimals(decimals)
    return _dressed(panel, title=title, unit=unit, description=description, width=width, height=STAT_HEIGHT).with_target(
        _target(query, 0)
    )


def graph(
    title: str,
    *queries: Query,
    unit: str,
    description: str,
    width: int = 12,
    height: int = GRAPH_HEIGHT,
    stacked: bool = False,
    limit: float | None = None,
    top: float | None = None,
    values: bool = False,
    nothing: str = NO_DATA,
) -> timeseries.Panel:
    """Lines over time; ``stacked`` where their sum means something, ``limit`` where one value does.

    ``top``: the axis reaches up to it, so that what is far from it looks far from it. ``values``: a table beside the graph, for
    more lines than a legend under it can name. ``nothing``: what stands there when no series is, if that is good.
    """
    panel = (
        timeseries.Panel()
        .min(0)
        .line_width(1)
        .fill_opacity(30 if stacked else 0)
        .show_points(look.VisibilityMode.AUTO)
        .legend(_legend(values=values))
        .tooltip(common.VizTooltipOptions().mode(look.TooltipDisplayMode.MULTI).sort(look.SortOrder.DESCENDING))
    )
    if stacked:
        panel.stacking(common.StackingConfig().mode(look.StackingMode.NORMAL))
    if top is not None:
        panel.axis_soft_max(top)
    if limit is not None:
        panel.thresholds(_thresholds(limit, None))
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(look.GraphThresholdsStyleMode.LINE))
    _dressed(panel, title=title, unit=unit, description=description, width=width, height=height).no_value(nothing)
    for place, query in enumerate(queries):
        panel.with_target(_target(query, place))
    return panel


def states(
    title: str, *queries: Query, names: Mapping[int, tuple[str, str]], description: str, width: int = 12
) -> statetimeline.Panel:
    """One bar a series over time, for values that stand for states: ``names`` has the word and the colour of each."""
    panel = (
        statetimeline.Panel()
        .mappings([model.ValueMap({str(value): model.ValueMappingResult(*name) for value, name in names.items()})])
        .show_value(look.VisibilityMode.NEVER)
        .line_width(0)
        .fill_opacity(80)
        .row_height(0.8)
        .legend(_legend(values=False))
    )
    _dressed(panel, title=title, unit="none", description=description, width=width)
    for place, query in enumerate(queries):
        panel.with_target(_target(query, place))
    return panel


def heat(title: str, query: Query, *, unit: str, description: str, width: int = 12) -> heatmap.Panel:
    """A histogram over time: how many took how long."""
    panel = (
        heatmap.Panel()
        .color(heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").steps(64))
        .y_axis(heatmap.YAxisConfig().unit(unit))
    )
    target = _target(query, 0).format(PromQueryFormat.HEATMAP)
    return _dressed(panel, title=title, unit=unit, description=description, width=width).with_target(target)


def listing(
    title: str,
    query: Query,
    *,
    unit: str,
    description: str,
    columns: Mapping[str, str],
    width: int = 12,
    height: int = GRAPH_HEIGHT,
    nothing: str = NO_DATA,
) -> table.Panel:
    """What is so at this moment, one line a series. ``columns``: the labels, and ``Value``, in their order, with their headings.

    ``nothing``: what stands there when no series is, if that is good.
    """
    panel = (
        table.Panel()
        .with_transformation(
            model.DataTransformerConfig(id_val="filterFieldsByName", options={"include": {"names": list(columns)}}),
        )
        .with_transformation(
            model.DataTransformerConfig(
                id_val="organize",
                options={
                    "excludeByName": {},
                    "indexByName": {name: place for place, name in enumerate(columns)},
                    "renameByName": dict(columns),
                },
            )
        )
    )
    target = _target(query, 0).instant().format(PromQueryFormat.TABLE)
    _dressed(panel, title=title, unit=unit, description=description, width=width, height=height).no_value(nothing)
    return panel.with_target(target)


def board(uid: str, title: str, description: str) -> dashboard.Dashboard:
    """An empty board: its data source is a variable, its siblings are links, nobody changes it in the browser.

    Outages and starts are marked in all its graphs.
    """
    built = (
        dashboard.Dashboard(f"Login stream: {title}")
        .uid(f"login-stream-{uid}")
        .description(description)
        .tags([TAG])
        .readonly()
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .refresh("10s")
        .time("now-1h", "now")
        .timezone("browser")
        .link(
            dashboard.DashboardLink("Boards").type(model.DashboardLinkType.DASHBOARDS).tags([TAG]).as_dropdown(True).keep_time(True)
        )
        .with_variable(
            dashboard.DatasourceVariable("datasource")
            .label("Data source")
            .type("prometheus")
            .current(model.VariableOption(text="Prometheus", value="prometheus"))
        )
    )
    for event in events():
        built.annotation(event)
    return built


def choice(name: str, label: str, query: str) -> dashboard.QueryVariable:
    """A variable that narrows a board down: some of the values of a label, at first all."""
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .query({"query": query, "refId": name})
        .datasource(SOURCE)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(model.VariableOption(selected=True, text="All", value="$__all"))
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.NATURAL_ASC)
    )


def row(title: str) -> dashboard.Row:
    """A line that begins a group of panels."""
    return dashboard.Row(title)


def quantiles(metric: str, matchers: str = "", by: str = "", *, of: str) -> list[Query]:
    """p50, p99 and p99.9 of a histogram, over all processes together. ``of``: what they are shares of, for the legend."""
    labels = f"le, {by}" if by else "le"
    rate = f"sum by ({labels}) (rate({metric}_bucket{{{matchers}}}[$__rate_interval]))"
    name = f": {{{{{by}}}}}" if by else ""
    return [
        Query(f"histogram_quantile({quantile}, {rate})", f"{percent} % of {of}{name}")
        for quantile, percent in ((0.5, "50"), (0.99, "99"), (0.999, "99.9"))
    ]


def _dressed(panel: PanelT, *, title: str, unit: str, description: str, width: int, height: int = GRAPH_HEIGHT) -> PanelT:
    panel.title(title).description(description).unit(unit).no_value(NO_DATA).datasource(SOURCE).span(width).height(height)
    if unit == COUNT:
        panel.decimals(0)  # `increase` estimates
    return panel


def _legend(*, values: bool) -> common.VizLegendOptions:
    legend = common.VizLegendOptions().show_legend(True)
    if values:
        legend.display_mode(look.LegendDisplayMode.TABLE).placement(look.LegendPlacement.RIGHT).calcs(["lastNotNull", "max"])
    else:
        legend.display_mode(look.LegendDisplayMode.LIST).placement(look.LegendPlacement.BOTTOM).calcs([])
    return legend


def _target(query: Query, place: int) -> prometheus.Dataquery:
    return (
        prometheus.Dataquery()
        .ref_id(chr(ord("A") + place))
        .datasource(SOURCE)
        .editor_mode(QueryEditorMode.CODE)
        .expr(query.expression)
        .legend_format(query.legend)
        .range()
    )


def _thresholds(bad_from: float | None, good_from: float | None) -> dashboard.ThresholdsConfig:
    """Green, and red from somewhere on; or red, and green from somewhere on; or no colour at all."""
    steps = [model.Threshold(color="text", value=None)]
    if bad_from is not None:
        steps = [model.Threshold(color="green", value=None), model.Threshold(color="red", value=bad_from)]
    if good_from is not None:
        steps = [model.Threshold(color="red", value=None), model.Threshold(color="green", value=good_from)]
    return dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps)
