"""Figures as wide as one and as both columns of a paper, with text that can be read there."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import vl_convert

from ipvit.core.files import write_atomic
from ipvit.report.figures import layers_of, number_clips, specification_of, with_short_labels
from ipvit.report.tables.names import shortened

WIDTHS = {"1col": 3.3, "2col": 6.9}
"""Inches that a figure is wide, by the ending of its name: in conferences' and journals' two-column pages a column is
3.2 to 3.5 inches wide, and the page 6.8 to 7.2."""
SMALLEST_TEXT = 7.0
"""Points of the smallest text."""
_PIXELS = 96  # an inch of SVG
_TEXT = SMALLEST_TEXT / 72 * _PIXELS
_ATTEMPTS = 4
_LEAST_PANEL = 70  # pixels
_CHARACTER = 0.56  # mean width of a character, of its size


def save_for_paper(chart: Any, stem: Path) -> list[Path]:
    """Write a chart as ``STEM-1col`` and ``STEM-2col``, each ``.svg`` and ``.pdf``; return the paths.

    Args:
        chart: an altair chart.
        stem: path without suffix.
    """
    paths: list[Path] = []
    whole = specification_of(chart)
    for ending, inches in WIDTHS.items():
        svg = at_width(whole, inches)
        pdf = vl_convert.svg_to_pdf(_in_points(svg))
        for kind, data in (("svg", number_clips(svg).encode()), ("pdf", pdf)):
            path = stem.with_name(f"{stem.name}-{ending}.{kind}")
            write_atomic(path, data)
            paths.append(path)
    return paths


def at_width(specification: dict[str, Any], inches: float) -> str:
    """Return a chart as SVG that is no wider than so many inches.

    Panels are laid out below each other where they do not fit side by side; no text is smaller than
    :data:`SMALLEST_TEXT` points.
    """
    wanted = inches * _PIXELS
    chart = _with_small_text(with_short_labels(specification, 20 if inches < 5 else 34), wanted)
    inner = chart.get("spec", chart)
    across = 1
    if "facet" in chart:
        panels = _panels(chart)
        across = max(1, min(int(chart.get("columns") or 3), panels, int(wanted // 125)))
        chart["columns"] = across
    width = inner.get("width")
    if not isinstance(width, int | float):
        return _svg(chart)
    height, first = inner.get("height"), float(width)
    width = max(_LEAST_PANEL, (wanted - 50) / across - 14)
    pictures = bool(_pictures(chart))
    width = min(width, first) if pictures else width
    svg = ""
    for _ in range(_ATTEMPTS):
        _resize(chart, inner, width, first, height)
        svg = _svg(chart)
        over = _width(svg) - wanted
        if -6 < over <= 0 or (over <= 0 and width >= first and across == 1 and pictures):
            break
        width = max(_LEAST_PANEL, width - (over + 2) / across)
    return svg


def _resize(chart: dict[str, Any], inner: dict[str, Any], width: float, first: float, height: Any) -> None:
    inner["width"] = width
    pictures = _pictures(chart)
    rows = any(_is_category(layer) for layer in layers_of(chart))
    if isinstance(height, int | float):
        share = width / first
        # rows keep their height, pictures their shape, and curves become a little taller than they would
        curves = max(80.0, height * min(1.0, share**0.6))
        inner["height"] = height * share if pictures else height * 0.8 if rows else curves
    for mark in pictures:
        side = mark.setdefault("_side", mark["width"])
        mark["width"] = mark["height"] = side * width / first


def _pictures(chart: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the marks that are pictures."""
    marks = [layer["mark"] for layer in layers_of(chart) if isinstance(layer["mark"], dict)]
    return [mark for mark in marks if mark.get("type") == "image"]


def _with_small_text(chart: dict[str, Any], wanted: float) -> dict[str, Any]:
    """Give all text the size of a paper's, break titles, and list names in as many columns as fit."""
    config = chart.setdefault("config", {})
    config["padding"] = 2
    axis = {"labelFontSize": _TEXT, "titleFontSize": _TEXT + 0.6, "titlePadding": 4, "tickSize": 3, "labelLimit": 0}
    config["axis"] = config.get("axis", {}) | axis
    legend = config.get("legend", {}) | {"labelFontSize": _TEXT, "titleFontSize": _TEXT, "symbolSize": 50}
    names = [name for layer in layers_of(chart) for name in _legend_names(layer)]
    longest = max((len(name) for name in names), default=1)
    legend["columns"] = max(1, int(wanted // (longest * _TEXT * _CHARACTER + 34)))
    legend["labelLimit"] = 0
    config["legend"] = legend
    _shorten_legends(chart, list(dict.fromkeys(names)), int((wanted - 80) / (_TEXT * _CHARACTER)))
    config["header"] = config.get("header", {}) | {"labelFontSize": _TEXT + 0.6}
    config["title"] = config.get("title", {}) | {"fontSize": _TEXT + 1.4, "offset": 6, "subtitleFontSize": _TEXT}
    for key in ("title", "subtitle"):
        title = chart.get("title")
        text = title.get("text" if key == "title" else "subtitle") if isinstance(title, dict) else title
        if isinstance(text, str):
            lines = textwrap.wrap(text, max(16, int(wanted / (_TEXT * 1.15 * 0.6))))
            if isinstance(title, dict):
                title["text" if key == "title" else "subtitle"] = lines
            elif key == "title":
                chart["title"] = lines
    for layer in layers_of(chart):
        for channel in layer.get("encoding", {}).values():
            if isinstance(channel, dict) and isinstance(channel.get("title"), str) and "legend" not in channel:
                channel["title"] = textwrap.wrap(channel["title"], 34) or None
        if isinstance(layer["mark"], dict) and layer["mark"].get("type") == "text":
            layer["mark"]["fontSize"] = _TEXT
        if isinstance(layer["mark"], dict) and isinstance(layer["mark"].get("size"), int | float):
            layer["mark"]["size"] = 0.6 * layer["mark"]["size"]
    return chart


def _shorten_legends(chart: dict[str, Any], names: list[str], longest: int) -> None:
    """Cut names that are longer than a legend may be, in all channels alike, so that they stay one legend."""
    disabled = chart["config"]["legend"].get("disable")
    if disabled or max(map(len, names), default=0) <= longest:
        return
    short = dict(zip(names, shortened(names, longest), strict=True))
    for layer in layers_of(chart):
        for name in ("color", "shape", "strokeDash"):
            channel = layer.get("encoding", {}).get(name)
            if isinstance(channel, dict) and channel.get("scale"):
                words = f"{json.dumps(short)}[datum.label] || datum.label"
                channel["legend"] = (channel.get("legend") or {}) | {"labelExpr": words}


def _legend_names(layer: dict[str, Any]) -> Iterator[str]:
    colour = layer.get("encoding", {}).get("color")
    domain = colour.get("scale", {}).get("domain") if isinstance(colour, dict) and colour.get("scale") else None
    yield from (name for name in domain or () if isinstance(name, str))


def _panels(chart: dict[str, Any]) -> int:
    facet = chart["facet"]
    named = facet.get("sort") or facet.get("facet", {}).get("sort")
    return len(named) if isinstance(named, list) else 3


def _is_category(layer: dict[str, Any]) -> bool:
    channel = layer.get("encoding", {}).get("y")
    return isinstance(channel, dict) and channel.get("type") in ("nominal", "ordinal")


def _svg(chart: dict[str, Any]) -> str:
    return vl_convert.vegalite_to_svg(json.dumps(_plain(chart)), allowed_base_urls=[])


def _plain(node: Any) -> Any:
    """Return the same without our own remarks."""
    if isinstance(node, dict):
        return {key: _plain(value) for key, value in node.items() if key != "_side"}
    return [_plain(value) for value in node] if isinstance(node, list) else node


def _in_points(svg: str) -> str:
    """Return a drawing whose units are points and no longer pixels, as those of a PDF are, and that loads nothing."""
    svg = re.sub(r' (?:xlink:)?href="(?!data:|#)[^"]*"', "", svg)
    return re.sub(
        r'(<svg[^>]*?) width="([\d.]+)" height="([\d.]+)"',
        lambda m: f'{m[1]} width="{float(m[2]) * 72 / _PIXELS:g}" height="{float(m[3]) * 72 / _PIXELS:g}"',
        svg,
        count=1,
    )


def _width(svg: str) -> float:
    found = re.search(r'<svg[^>]*? width="([\d.]+)', svg)
    return float(found[1]) if found else 0.0
