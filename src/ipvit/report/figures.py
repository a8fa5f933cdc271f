"""Figures: as files (SVG, PNG, PDF), and as drawings inside the page whose marks say what they show.

Both are drawn from the same specification, without a browser or a network.
"""

from __future__ import annotations

import html
import itertools
import json
import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import vl_convert

from ipvit.core.files import write_atomic
from ipvit.errors import harmless
from ipvit.report.tables.files import json_number
from ipvit.report.tables.names import shortened

NARROW = 300
"""Pixels of a plot on a narrow screen."""
LONGEST_LABEL = 46
"""Characters of the name of a row; a longer one is cut in the middle."""
_NARROW_LABEL = 20
_NAMES = 100  # pixels of it for the names of rows
_CHARACTER = 7.6  # pixels of a character of a title

_NOWHERE: list[str] = []  # is what a drawing may load from

_MARK, _LINE = "\ue000", "\ue001"  # private characters around what a mark says of itself, until it is an attribute
_SAYS = re.compile(f' aria-label="{_MARK}([^"]*?){_MARK}([^"]*?)"')
_NEEDLESS = re.compile(
    r' (?:font-family|version|xmlns|xmlns:xlink|aria-roledescription|role|pointer-events)="[^"]*"'
    r'| (?:fill-)?opacity="1"'
)
_BOXES = re.compile(r'<path class="(?:foreground|background)" aria-hidden="true" d="[^"]*"(?: [a-z-]+="[^"]*")*/>')
_PLACES = re.compile(r' (?:d|transform|x2|y2|width|height)="[^"]*"')


def specification_of(chart: Any) -> dict[str, Any]:
    """Return what Vega-Lite draws of an altair chart, which Altair checks; a specification is returned as it is.

    To check a chart takes as long as to draw it, so what is drawn in several ways is written down once.
    """
    return chart if isinstance(chart, dict) else without_nan(chart.to_dict())


def save_figure(chart: Any, stem: Path, formats: Sequence[str] = ("svg",)) -> list[Path]:
    """Write a chart as ``STEM.svg`` and so on; return the paths.

    Args:
        chart: an altair chart, or its specification.
        stem: path without suffix.
        formats: any of ``svg``, ``png`` (two pixels per point), ``pdf``.
    """
    converters = {
        "svg": lambda svg: number_clips(svg).encode(),
        "png": lambda svg: vl_convert.svg_to_png(svg, scale=2),
        "pdf": vl_convert.svg_to_pdf,
    }
    unknown = set(formats) - set(converters)
    if unknown:
        raise ValueError(f"unknown figure format {unknown.pop()!r}; known: {', '.join(converters)}")
    svg = _svg(_as_file(chart))
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in formats]
    for path, kind in zip(paths, formats, strict=True):
        write_atomic(path, converters[kind](svg))
    return paths


def svg_file(chart: Any) -> bytes:
    """Return a chart as the content of an SVG file."""
    return number_clips(_svg(_as_file(chart))).encode()


def _as_file(chart: Any) -> str:
    return json.dumps(with_short_labels(specification_of(chart)))


def _svg(specification: str) -> str:
    return vl_convert.vegalite_to_svg(specification, allowed_base_urls=_NOWHERE)


def inline_svg(chart: Any, prefix: str, *, narrow: bool = False) -> str:
    """Return a chart as an SVG element for a page.

    Every mark carries ``data-series``, the number of the name in the legend it belongs to (the names are the element's
    ``data-names``, a JSON list), and marks with a tooltip carry it as ``aria-label``, one line per entry.

    Args:
        chart: an altair chart, or its specification.
        prefix: of the element's ids, so that several drawings on a page do not share them.
        narrow: lay it out for a screen of 400 pixels.
    """
    specification = with_short_labels(specification_of(chart), _NARROW_LABEL if narrow else LONGEST_LABEL)
    if narrow:
        specification = _narrowed(specification)
    if isinstance(title := specification.get("title"), str) and "facet" not in specification:
        specification["title"] = textwrap.wrap(title, max(36, int(_width(specification) / _CHARACTER)))
    for layer in layers_of(specification):
        _let_speak(layer)
    svg = _svg(json.dumps(specification))
    # what the page's style sheet says anyway, and boxes that nobody sees
    svg = _BOXES.sub("", _NEEDLESS.sub("", svg))
    svg = re.sub(r'<rect width="[^"]*" height="[^"]*" fill="white"/>', "", svg, count=1)
    svg = _PLACES.sub(lambda place: re.sub(r"(\d+\.\d)\d+", r"\1", place[0]), svg)
    names: dict[str, int] = {}
    svg = _SAYS.sub(lambda match: _attributes(match, names), number_clips(svg, prefix))
    listed = html.escape(json.dumps([html.unescape(name) for name in names], ensure_ascii=False))
    return svg.replace("<svg ", f'<svg data-names="{listed}" ', 1)


def with_short_labels(specification: dict[str, Any], longest: int = LONGEST_LABEL) -> dict[str, Any]:
    """Return the same chart with the names of rows cut in the middle where they are long, and still distinct.

    It may be changed: all but its rows is a copy.
    """
    specification = _copy(specification)
    rows = [row for layer in layers_of(specification) for row in _rows_of(layer, specification)]
    for layer in layers_of(specification):
        channel = layer.get("encoding", {}).get("y")
        if not _is_category(channel) or not isinstance(channel.get("field"), str):
            continue
        names = list(dict.fromkeys(str(row[channel["field"]]) for row in rows if row.get(channel["field"]) is not None))
        if max(map(len, names), default=0) > longest:
            short = {name: cut for name, cut in zip(names, shortened(names, longest), strict=True) if cut != name}
            axis = channel.get("axis") or {}
            channel["axis"] = axis | {"labelExpr": f"{json.dumps(short)}[datum.label] || datum.label", "labelLimit": 0}
    return specification


def _rows_of(layer: dict[str, Any], specification: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows that a part of a chart draws, where they lie in it."""
    data = layer.get("data") or specification.get("data") or {}
    values = specification.get("datasets", {}).get(data.get("name"), data.get("values", []))
    return values if isinstance(values, list) else []


def is_narrow(chart: Any) -> bool:
    """Whether a chart fits a narrow screen as it is, or cannot be made to fit (a mosaic of pictures)."""
    specification = specification_of(chart)
    pictures = any(layer["mark"] == "image" or _kind(layer) == "image" for layer in layers_of(specification))
    return pictures or (_width(specification) <= NARROW and "facet" not in specification)


def without_nan(node: Any) -> Any:
    """The same specification with None for numbers that JSON does not know, and no character that XML does not."""
    if isinstance(node, dict):
        return {key: without_nan(value) for key, value in node.items()}
    if isinstance(node, list):
        return [without_nan(value) for value in node]
    if isinstance(node, str):
        return harmless(node)
    return json_number(node)


def number_clips(svg: str, prefix: str = "") -> str:
    """Count the clip paths from 0 in every file; Vega counts them over the life of the process."""
    numbers: dict[str, int] = {}
    return re.sub(
        r'(id="|url\(#)(clip|gradient_)(\d+)',
        lambda m: f"{m[1]}{prefix}{m[2]}{numbers.setdefault(m[2] + m[3], len(numbers))}",
        svg,
    )


def layers_of(node: Any) -> Iterator[dict[str, Any]]:
    """Every part of a specification that draws marks."""
    if isinstance(node, dict):
        if "mark" in node:
            yield node
        for key in ("layer", "spec", "hconcat", "vconcat", "concat"):
            yield from layers_of(node.get(key))
    elif isinstance(node, list):
        for item in node:
            yield from layers_of(item)


def _kind(layer: dict[str, Any]) -> str:
    mark = layer["mark"]
    return mark if isinstance(mark, str) else mark.get("type", "")


def _let_speak(layer: dict[str, Any]) -> None:
    """Let every mark of a layer say its series and its tooltip, in its description."""
    encoding = layer.get("encoding", {})
    channels = [encoding.get(name) for name in ("color", "detail", "shape")]
    series = next((c["field"] for c in channels if isinstance(c, dict) and isinstance(c.get("field"), str)), None)
    tips = encoding.get("tooltip") or []
    tips = [tip for tip in (tips if isinstance(tips, list) else [tips]) if isinstance(tip.get("field"), str)]
    if series is None and not tips:
        return
    name = f"('' + {_datum(series)})" if series else "''"
    lines = [f"'{_LINE}' + {json.dumps(str(tip.get('title') or tip['field']))} + ': ' + {_shown(tip)}" for tip in tips]
    text = " + ".join([f"'{_MARK}'", name, f"'{_MARK}'", *lines])
    layer["transform"] = [*layer.get("transform", []), {"calculate": text, "as": "_says"}]
    layer["encoding"] = encoding | {"description": {"field": "_says", "type": "nominal"}}


def _datum(field: str) -> str:
    return f"datum[{json.dumps(field)}]"


def _shown(tip: dict[str, Any]) -> str:
    value = _datum(tip["field"])
    if tip.get("type") != "quantitative":
        return f"(isValid({value}) ? '' + {value} : '')"
    return f"(isValid({value}) ? format({value}, {json.dumps(tip.get('format') or ',.4~f')}) : '')"


def _attributes(match: re.Match[str], names: dict[str, int]) -> str:
    says = match[2].lstrip(_LINE).replace(_LINE, "\n")
    series = f' data-series="{names.setdefault(match[1], len(names))}"' if match[1] else ""
    return series + (f' aria-label="{says}" role="img"' if says else ' aria-hidden="true"')


def _copy(node: Any) -> Any:
    """Return a copy of a specification that shares its rows, of which there may be many."""
    if isinstance(node, dict):
        return {key: value if key in ("datasets", "values") else _copy(value) for key, value in node.items()}
    return [_copy(value) for value in node] if isinstance(node, list) else node


def _narrowed(chart: dict[str, Any]) -> dict[str, Any]:
    """Lay a chart out for a screen of 400 pixels: panels below each other, a legend in one column, titles in lines."""
    inner = chart.get("spec", chart)
    if isinstance(inner.get("width"), int | float):
        named = any(_is_category(layer.get("encoding", {}).get("y")) for layer in layers_of(chart))
        inner["width"] = min(inner["width"], NARROW - _NAMES if named else NARROW)
    if "facet" in chart:
        chart["columns"] = 1
    legend = chart.setdefault("config", {}).setdefault("legend", {})
    legend["columns"] = 1
    chart["config"].setdefault("axis", {})["labelLimit"] = _NAMES + 20
    for channel in itertools.chain.from_iterable(layer.get("encoding", {}).values() for layer in layers_of(chart)):
        if isinstance(channel, dict) and isinstance(channel.get("title"), str):
            channel["title"] = textwrap.wrap(channel["title"], 42) or None
    return chart


def _is_category(channel: Any) -> bool:
    return isinstance(channel, dict) and channel.get("type") in ("nominal", "ordinal")


def _width(specification: dict[str, Any]) -> float:
    width = specification.get("spec", specification).get("width", 0)
    return width if isinstance(width, int | float) else 0
