"""Charts that come from a file: they show the numbers they hold, load nothing and evaluate nothing.

A Vega-Lite specification may name addresses to load, and expressions to evaluate where it is drawn. What somebody
else's run folder holds is drawn only where it does neither. Whether a word is data or an expression depends on the key
it stands under; there are more such keys in every version, so the keys are listed under which text does no harm.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

_WORDS = (
    # the chart and its parts
    "$schema name title subtitle text description type field fields aggregate timeUnit op sort order color column row "
    "facet x y shape equal oneOf values "
    # scales, axes, legends
    "domain range scheme interpolate nice orient anchor align baseline band format formatType direction symbolType "
    "titleAlign labelAlign gridAlign titleAnchor labelAnchor labelBaseline titleBaseline titleOrient labelOrient "
    "labelOverlap frame position bounds resolve stack "
    # how it looks
    "background fill stroke font fontStyle fontWeight titleFont labelFont titleFontStyle titleFontWeight "
    "labelFontStyle labelFontWeight subtitleFont subtitleFontWeight subtitleColor gridColor domainColor tickColor "
    "labelColor titleColor fillColor strokeColor symbolFillColor symbolStrokeColor category views cursor dir "
    "strokeCap strokeJoin line point content blend"
)
_TEXT = frozenset(_WORDS.split())
"""Keys under which a text names a column, a colour, a font or a choice, or is shown as it is."""

_DROPPED = frozenset({"params", "usermeta", "href"})
"""What a drawing can do without: what a click changes, hints for other programs, links."""

_PICTURES = ("data:image/png;base64,", "data:image/jpeg;base64,", "data:image/webp;base64,")
_DEEPEST = 40


def inert_chart(specification: dict[str, Any]) -> dict[str, Any]:
    """Return a Vega-Lite specification without what reacts to clicks, if what is left loads and evaluates nothing.

    Raises:
        ValueError: names what it would load or evaluate.
    """
    return cast("dict[str, Any]", _inert(specification, "", specification, 0))


def _inert(node: Any, key: str, whole: dict[str, Any], depth: int) -> Any:
    if depth > _DEEPEST:
        raise ValueError("it goes too deep")
    if isinstance(node, list):
        return [_inert(item, key, whole, depth + 1) for item in cast("list[Any]", node)]
    if isinstance(node, dict):
        return _inert_mapping(cast("dict[str, Any]", node), whole, depth)
    if not isinstance(node, str) or key in _TEXT:
        return node
    if (key == "mark" and node.isalpha()) or (key == "url" and node.startswith(_PICTURES)):
        return node
    raise ValueError(f"it has {key!r}")


def _inert_mapping(node: dict[str, Any], whole: dict[str, Any], depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in _unconditional(node).items():
        if key in _DROPPED:
            continue
        if key == "url" and isinstance(value, dict):
            _check_pictures(cast("dict[str, Any]", value), whole)
        if key in ("data", "datasets"):
            found[key] = _rows_only(key, value)
        else:
            found[key] = _inert(value, key, whole, depth + 1)
    return found


def _rows_only(key: str, data: Any) -> Any:
    """Return the data of a chart, if they are rows, or the name of rows that stand elsewhere in it."""
    if data is None and key == "data":
        return None
    named = cast("dict[str, Any]", data) if isinstance(data, dict) else {"url": data}
    if key == "data":
        if named.keys() - {"values", "name"} or not isinstance(named.get("name", ""), str):
            raise ValueError("it loads its data or makes them up")
        named = {name: rows for name, rows in named.items() if name == "values"}
    for rows in named.values():
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in cast("list[Any]", rows)):
            raise ValueError("its data are no rows")
    return cast("Any", data)


def _unconditional(node: dict[str, Any]) -> dict[str, Any]:
    """Return what a channel is while nothing is hidden by a click."""
    condition: Any = node.get("condition")
    if isinstance(condition, list) and len(cast("list[Any]", condition)) == 1:
        condition = cast("list[Any]", condition)[0]
    if not isinstance(condition, dict) or "param" not in condition:
        return node
    shown = {key: value for key, value in cast("dict[str, Any]", condition).items() if key not in ("param", "empty")}
    return {key: value for key, value in node.items() if key not in ("condition", "value")} | shown


def _check_pictures(channel: dict[str, Any], whole: dict[str, Any]) -> None:
    """Refuse pictures that do not lie in the data themselves."""
    name = channel.get("field")
    plain = str(name).isidentifier() and not channel.keys() - {"field", "type", "title"}
    if not plain or not all(str(row.get(str(name))).startswith(_PICTURES) for row in _rows(whole)):
        raise ValueError("it loads pictures")


def _rows(node: Any) -> Iterator[dict[str, Any]]:
    """Yield the rows of all data of a chart."""
    if isinstance(node, dict):
        for key, value in cast("dict[str, Any]", node).items():
            if key == "datasets" and isinstance(value, dict):
                for rows in cast("dict[str, Any]", value).values():
                    yield from (row for row in rows if isinstance(row, dict))
            elif key == "values" and isinstance(value, list):
                yield from (row for row in cast("list[Any]", value) if isinstance(row, dict))
            else:
                yield from _rows(value)
    elif isinstance(node, list):
        for item in cast("list[Any]", node):
            yield from _rows(item)
