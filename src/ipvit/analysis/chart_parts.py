"""What the charts have in common: the encoding of columns, the house style, scales, tooltips and the legend.

Colours, dashes and markers are the models' own, see :mod:`ipvit.analysis.looks`; dashes and markers repeat what the
colours say, for print and for colour-blind readers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast

import altair as alt
import polars as pl

from ipvit.analysis.looks import COLOURS, Look, current_looks

Figure = alt.LayerChart | alt.FacetChart
"""What an experiment draws."""

Scale = Literal["linear", "log", "ordinal"]

FONT = "Liberation Sans, Arial, Helvetica, sans-serif"  # metric-compatible: text is measured alike everywhere
VALUE_FORMAT = ".1f"  # of a measured quantity, where the encoding says nothing else
WIDTH, HEIGHT = 520, 300
FACET_WIDTH, FACET_HEIGHT = 250, 210
_CHARACTER = 5.8  # mean width of a legend character, pixels


class Axis(NamedTuple):
    """What stands on one axis of a chart."""

    field: str
    title: str
    format: str | None
    domain: tuple[float, float] | None


@dataclass(frozen=True)
class Encoding:
    """Which columns of a table a chart draws, and how.

    The measured quantity is ``y``, or ``x`` in :func:`ipvit.analysis.charts.dots` with named rows. Its confidence
    interval is read from the columns ``QUANTITY_low`` and ``QUANTITY_high``, where the table has them.

    Attributes:
        x: column of the horizontal axis.
        y: column of the vertical axis.
        series: column with one colour, dash and marker per value.
        group: column that says whose a series is, such as the model of a patch and of noise: the series of one group
            share their colour; ``model`` by default, where each series is of one model.
        facet: column with one panel per value, for example the PatchDrop mode.
        x_title: title of the axis; the column's name with spaces by default.
        y_title: title of the axis; the column's name with spaces by default.
        x_format: d3 format of x, for example ``".0%"`` for a share; ``".1f"`` by default where x is measured.
        y_format: d3 format of y; ``".1f"`` by default where y is measured.
        x_domain: ends of a numeric horizontal axis; by default the data's.
        y_domain: ends of a numeric vertical axis; by default the data's.
        x_scale: ``linear``, ``log`` or ``ordinal`` (evenly spaced values): the horizontal axis of a curve.
        n: column with the number of images, shown in the tooltip where it exists.
        interval: whether to draw the interval; False where a chart has too many points for error bars.
    """

    x: str
    y: str
    series: str = "model"
    group: str | None = None
    facet: str | None = None
    x_title: str | None = None
    y_title: str | None = None
    x_format: str | None = None
    y_format: str | None = None
    x_domain: tuple[float, float] | None = None
    y_domain: tuple[float, float] | None = None
    x_scale: Scale = "linear"
    n: str = "n_images"
    interval: bool = True

    @property
    def horizontal(self) -> Axis:
        """The horizontal axis."""
        return Axis(self.x, self.x_title or words(self.x), self.x_format, self.x_domain)

    @property
    def vertical(self) -> Axis:
        """The vertical axis."""
        return Axis(self.y, self.y_title or words(self.y), self.y_format, self.y_domain)


class Drawn(NamedTuple):
    """The rows of a chart, and the columns of its interval: both ends, or None."""

    rows: pl.DataFrame
    ends: tuple[str, str] | None


def theme() -> dict[str, Any]:
    """Return the house style as a Vega-Lite ``config``."""
    ink, soft, grid = "#1f2328", "#57606a", "#d8dee4"
    return {
        "font": FONT,
        "background": "white",
        "padding": 8,
        "view": {"stroke": None},
        "title": {"fontSize": 14, "fontWeight": 600, "anchor": "start", "color": ink, "offset": 12, "limit": 0},
        "axis": {
            "labelFontSize": 11.5,
            "titleFontSize": 12,
            "titleFontWeight": "normal",
            "titlePadding": 8,
            "labelColor": soft,
            "titleColor": ink,
            "domainColor": soft,
            "tickColor": soft,
            "tickSize": 4,
            "gridColor": grid,
            "gridOpacity": 0.7,
            "labelLimit": 260,
        },
        "axisXQuantitative": {"grid": False},
        "axisBand": {"grid": False},
        "axisPoint": {"grid": False},
        "legend": {
            "labelFontSize": 11.5,
            "labelColor": ink,
            "labelLimit": 0,
            "title": None,
            "symbolSize": 90,
            "symbolStrokeWidth": 0.5,
            "rowPadding": 4,
            "columnPadding": 16,
        },
        "header": {"labelFontSize": 12, "labelFontWeight": 600, "labelColor": ink, "title": None, "labelLimit": 0},
        "range": {"category": list(COLOURS)},
    }


class Theme:
    """Colour, dash, shape and the legend's selection for the values of one column, in the order of the report's models.

    Every series of a model has its colour. Several series of one model differ in their dash where they are lines, in
    their marker where they are points alone, and in how light they are where they are bars.

    Args:
        frame: the rows that are drawn; its column ``model``, where there is one, says whose a series is.
        series: column with one look per value.
        group: column that says whose a series is; ``model`` by default.
        marks: what tells several series of one model apart.
    """

    def __init__(
        self,
        frame: pl.DataFrame,
        series: str,
        group: str | None = None,
        marks: Literal["lines", "points", "bars"] = "lines",
    ) -> None:
        looks = current_looks()
        names = frame[series].cast(pl.String).drop_nulls().unique(maintain_order=True).to_list()
        owners = _owners(frame, series, group)
        if owners is None:
            self.names, found = names, [Look.neutral(number, len(names)) for number in range(len(names))]
        else:
            for name in names:  # new ones are numbered as they appear
                looks.place(owners[name])
            self.names = sorted(names, key=lambda name: looks.place(owners[name]))
            models = [looks.model(owners[name]) for name in self.names]
            within = [models[:number].count(model) for number, model in enumerate(models)]
            found = [looks.of(model).varied(number, marks) for model, number in zip(models, within, strict=True)]
        self.selection = alt.selection_point(
            name="shown",
            fields=[series],
            bind="legend",
            toggle="true",
            value=cast(Any, [{series: name} for name in self.names]),
        )
        colours, shapes, dashes = ([look[part] for look in found] for part in range(3))
        self.colour = alt.Color(field=series, type="nominal", scale=self._scale(colours), sort=self.names, title=None)
        self.shape = alt.Shape(field=series, type="nominal", scale=self._scale(shapes), sort=self.names, title=None)
        self.dash = alt.StrokeDash(
            field=series,
            type="nominal",
            scale=self._scale([list(dash) for dash in dashes]),
            sort=self.names,
            title=None,
        )

    def _scale(self, values: list[Any]) -> alt.Scale:
        return alt.Scale(domain=self.names, range=values)

    def shown(self, opacity: float) -> Any:
        """The opacity of a series that the legend shows; 0 for a hidden one."""
        return alt.when(self.selection).then(alt.value(opacity)).otherwise(alt.value(0))

    def legend_columns(self, width: int) -> int:
        """How many names fit side by side in ``width`` pixels."""
        longest = max((len(name) for name in self.names), default=1)
        return max(1, min(len(self.names), int(width // (longest * _CHARACTER + 36))))


def _owners(frame: pl.DataFrame, series: str, group: str | None) -> dict[str, str] | None:
    """Return whose each series is: of one model; None where a series is of several, and so of none."""
    whose = group or ("model" if "model" in frame.columns else series)
    if whose == series:
        names = frame[series].cast(pl.String).drop_nulls().unique(maintain_order=True)
        return {name: name for name in names}
    pairs = frame.select(pl.col(series).cast(pl.String), pl.col(whose).cast(pl.String).alias("_owner"))
    pairs = pairs.filter(pl.col(series).is_not_null()).unique(maintain_order=True)
    if pairs[series].n_unique() < pairs.height and group is None:
        return None
    return {name: owner or name for name, owner in pairs.unique(series, keep="first", maintain_order=True).iter_rows()}


def bands(base: alt.Chart, drawn: Drawn, x: str, value: alt.Y, look: Theme) -> list[alt.Chart]:
    """Confidence bands; error bars where a single x value gives a band no width; nothing without an interval."""
    if drawn.ends is None:
        return []
    if drawn.rows[x].n_unique() <= 1:
        return error_bars(base, drawn.ends, value, look, 1.8)
    low, high = drawn.ends
    area = base.transform_filter(present(low, high)).mark_area(clip=True, fillOpacity=min(0.16, 1 / len(look.names)))
    return [area.encode(y=end_like(low, value), y2=alt.Y2(field=high), color=look.colour, opacity=look.shown(1.0))]


def error_bars(
    base: alt.Chart, ends: tuple[str, str] | None, value: alt.X | alt.Y, look: Theme, stroke: float
) -> list[alt.Chart]:
    """Error bars along the measured axis, ``stroke`` pixels wide, in the colours of the series."""
    if ends is None:
        return []
    low, high = ends
    rule = base.transform_filter(present(low, high)).mark_rule(strokeWidth=stroke)
    if isinstance(value, alt.X):
        rule = rule.encode(x=end_like(low, value), x2=alt.X2(field=high))
    else:
        rule = rule.encode(y=end_like(low, value), y2=alt.Y2(field=high))
    return [rule.encode(color=look.colour, opacity=look.shown(0.8))]


def finish(
    layers: list[alt.Chart],
    data: pl.DataFrame,
    look: Theme,
    *,
    title: str | alt.TitleParams | None,
    facet: str | None = None,
    columns: int = 3,
    width: int | None = None,
    height: int | None = None,
    legend: bool = True,
) -> Figure:
    """Stack the layers, split them into panels, place the legend and apply the house style."""
    width = width or (FACET_WIDTH if facet else WIDTH)
    # the legend belongs to the first layer: a selection bound to it from any other layer would not hear its clicks
    layers = [layers[0].properties(name="first").add_params(look.selection), *layers[1:]]
    chart: Any = alt.layer(*layers).properties(width=width, height=height or (FACET_HEIGHT if facet else HEIGHT))
    across = 1
    if facet is not None:
        panels = data[facet].unique(maintain_order=True).to_list()
        columns = min(columns, len(panels))
        across = columns
        chart = chart.facet(facet=alt.Facet(field=facet, type="nominal", sort=panels, title=None), columns=columns)
        chart = chart.properties(data=inline(data))
    if title is not None:
        chart = chart.properties(title=title)
    config = theme()
    config["legend"] |= {"orient": "bottom", "columns": look.legend_columns(width * across + 40)}
    config["legend"]["disable"] = not legend or len(look.names) < 2
    return chart.configure(**config)


def prepare(frame: pl.DataFrame, encoding: Encoding, measured: Axis) -> Drawn:
    """Select the columns that a chart uses and the rows that have a value; non-finite numbers become null.

    A text column ``interval`` for tooltips is added where the table has the ends of the measured axis' interval.
    """
    ends = _ends(frame, measured.field) if encoding.interval else None
    wanted = (encoding.x, encoding.y, *(ends or ()), encoding.series, encoding.facet, encoding.n)
    names = list(dict.fromkeys(name for name in wanted if name is not None and name in frame.columns))
    data = frame.select(names).with_columns(
        pl.when(pl.col(name).is_finite()).then(pl.col(name)).alias(name)
        for name in names
        if frame.schema[name].is_float()
    )
    data = data.with_columns(pl.col(encoding.series).cast(pl.String))
    if ends is not None:
        number = measured.format or VALUE_FORMAT
        factor = 100 if number.endswith("%") else 1
        low, high = ((pl.col(end) * factor).round(digits_of(number)).cast(pl.String) for end in ends)
        data = data.with_columns(pl.concat_str([low, pl.lit(" to "), high]).alias("interval"))
    return Drawn(data.filter(pl.col(measured.field).is_not_null()), ends)


def _ends(frame: pl.DataFrame, measure: str) -> tuple[str, str] | None:
    """Name the columns of the interval, unless one is missing or empty."""
    low, high = f"{measure}_low", f"{measure}_high"
    there = all(end in frame.columns and frame[end].null_count() < frame.height for end in (low, high))
    return (low, high) if there else None


class _Rows(alt.InlineData):
    """A table's rows, which all parts of a chart share: Altair copies what it finds and checks each row."""

    _class_is_valid_at_instantiation = False  # to be checked with the whole chart

    def __deepcopy__(self, _: object) -> _Rows:
        return self


def inline(data: pl.DataFrame) -> alt.InlineData:
    """The rows inside the chart, in their order and without Altair's limit of 5000."""
    return _Rows(values=data.to_dicts())


def value_channel(axis: Axis, zero: bool = False) -> alt.Y:
    """The vertical axis of a measured quantity."""
    scale = alt.Scale(zero=zero, nice=True) if axis.domain is None else alt.Scale(domain=list(axis.domain))
    return alt.Y(field=axis.field, type="quantitative", title=axis.title, scale=scale)


def numeric_scale(domain: tuple[float, float] | None, padding: int, **options: Any) -> alt.Scale:
    """A scale over the data's range, or over a given one; ``options`` are those of :class:`altair.Scale`."""
    if domain is None:
        return alt.Scale(zero=False, nice=False, padding=padding, **options)
    return alt.Scale(domain=list(domain), **options)


def end_like(low: str, like: Any) -> Any:
    """The same channel for the low end of the interval: title and scale as the value's."""
    copied = like.copy(deep=True)
    copied["field"] = low
    return copied


def present(low: str, high: str) -> Any:
    """A filter: this row has an interval."""
    return {"and": [{"field": low, "valid": True}, {"field": high, "valid": True}]}


def tooltips(
    frame: pl.DataFrame, encoding: Encoding, place: Axis | None, measured: Axis, ends: tuple[str, str] | None
) -> list[alt.Tooltip]:
    """What is shown under the pointer: where, the value, its interval and the number of images."""
    tips = [alt.Tooltip(field=encoding.series, type="nominal", title=words(encoding.series))]
    if encoding.facet is not None and encoding.facet not in (encoding.series, place.field if place else None):
        tips.append(alt.Tooltip(field=encoding.facet, type="nominal", title=words(encoding.facet)))
    if place is not None:
        kind = "quantitative" if frame.schema[place.field].is_numeric() else "nominal"
        number = place.format or alt.Undefined
        tips.append(alt.Tooltip(field=place.field, type=kind, title=place.title, format=number))
    number = measured.format or VALUE_FORMAT
    tips.append(alt.Tooltip(field=measured.field, type="quantitative", title=measured.title, format=number))
    if ends is not None:
        tips.append(alt.Tooltip(field="interval", type="nominal", title="95 % interval"))
    if encoding.n in frame.columns:
        tips.append(alt.Tooltip(field=encoding.n, type="quantitative", title="images", format=",d"))
    return tips


def words(column: str) -> str:
    """A column's name as text."""
    return column.replace("_", " ")


def digits_of(number: str) -> int:
    """Decimals of a d3 format such as ``.1f`` or ``.0%``; 2 where it does not say."""
    digits = "".join(c for c in number.partition(".")[2] if c.isdigit())
    return int(digits) if digits else 2


def fits(values: pl.Series, width: int = WIDTH) -> bool:
    """Whether the labels of an axis of ``width`` pixels fit side by side."""
    labels = [str(value) for value in values.unique().to_list()]
    return len(labels) * (max(map(len, labels), default=0) * _CHARACTER + 8) <= width
