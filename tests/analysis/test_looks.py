import itertools
import json

import numpy as np
import polars as pl
import pytest

from ipvit.analysis import charts
from ipvit.analysis.looks import COLOURS, Look, Looks, using

# what people without one kind of cone see, in linear RGB (Machado, Oliveira and Fernandes 2009, severity 1)
VISION = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def lab(colour: str, vision: str) -> np.ndarray:
    """CIELAB of an sRGB colour as it is seen."""
    srgb = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    x, y, z = _XYZ @ np.clip(np.array(VISION[vision]) @ linear, 0, 1) / _XYZ.sum(axis=1)
    f = [np.cbrt(v) if v > 0.008856 else 7.787 * v + 16 / 116 for v in (x, y, z)]
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("vision", VISION)
def test_any_two_of_the_twelve_colours_differ_for_everybody(vision):
    assert len(set(COLOURS)) == 12
    seen = [lab(colour, vision) for colour in COLOURS]
    assert min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(seen, 2)) >= 16


def test_colours_show_on_white_and_on_dark():
    assert all(38 <= lab(colour, "normal")[0] <= 76 for colour in COLOURS)


def test_in_grey_24_models_differ_in_marker_and_dash():
    looks = [Look.number(place) for place in range(24)]
    assert len({(look.shape, look.dash) for look in looks}) == 24
    assert len({look.shape for look in looks[:8]}) == 8, "where there are no lines, as in a scatter"
    assert len({Look.number(place) for place in range(60)}) == 60


def frame(*models: str, **columns: object) -> pl.DataFrame:
    rows = [{"model": model, "level": level, "top1": 50.0, **columns} for model in models for level in (0.1, 0.9)]
    return pl.DataFrame(rows).with_columns(top1_low=pl.lit(40.0), top1_high=pl.lit(60.0), n_images=pl.lit(10))


def drawn_looks(chart) -> dict[str, tuple[str, ...]]:
    """Colour, marker and dash by the name in the legend, in the legend's order."""
    found: dict[str, dict[str, str]] = {}

    def walk(node):
        if isinstance(node, list):
            for item in node:
                walk(item)
        elif isinstance(node, dict):
            for channel in ("color", "shape", "strokeDash"):
                scale = node.get(channel, {}).get("scale") if isinstance(node.get(channel), dict) else None
                if scale:
                    for name, value in zip(scale["domain"], scale["range"], strict=True):
                        found.setdefault(name, {})[channel] = json.dumps(value)
            for value in node.values():
                walk(value)

    walk(chart.to_dict())
    return {name: tuple(look.get(c, "") for c in ("color", "shape", "strokeDash")) for name, look in found.items()}


def curve(rows: pl.DataFrame, series: str = "model"):
    return charts.curve(rows, charts.Encoding(x="level", y="top1", series=series))


def dots(rows: pl.DataFrame, series: str = "model"):
    return charts.dots(rows.filter(pl.col("level") == 0.1), charts.Encoding(x="top1", y=series, series=series))


def bars(rows: pl.DataFrame, series: str = "model"):
    return charts.bars(rows, charts.Encoding(x="level", y="top1", series=series))


def test_a_model_looks_the_same_in_figures_of_other_models_in_any_order():
    with using(Looks(["c", "a", "b"])):
        all_three, two = drawn_looks(curve(frame("a", "b", "c"))), drawn_looks(curve(frame("b", "c")))
        in_dots, in_bars = drawn_looks(dots(frame("b", "a"))), drawn_looks(bars(frame("b", "a", "c")))
    assert list(all_three) == list(in_bars) == ["c", "a", "b"], "the order is the study's"
    assert list(two) == ["c", "b"] and list(in_dots) == ["a", "b"]
    for other in (two, in_dots, in_bars):
        for name, look in other.items():
            assert all(mine in ("", whole) for mine, whole in zip(look, all_three[name], strict=True))
    assert all_three["c"][0] == json.dumps(COLOURS[0])


@pytest.mark.parametrize(("draw", "tells"), [(curve, 2), (dots, 1), (bars, 0)])
def test_several_series_of_a_model_have_its_colour_and_are_told_apart(draw, tells):
    rows = pl.concat([frame("a", token="cls"), frame("a", token="mean"), frame("b", token="cls")])
    rows = rows.with_columns(series=pl.format("{}, {}", "model", "token"))
    with using(Looks(["b", "a"])):
        looks = drawn_looks(draw(rows, "series"))
    assert list(looks) == ["b, cls", "a, cls", "a, mean"]
    first, second = looks["a, cls"], looks["a, mean"]
    assert first[tells] != second[tells]
    if tells:
        assert first[0] == second[0] == json.dumps(COLOURS[1])


def test_what_is_no_model_has_no_models_colour():
    rows = pl.concat([frame("a", mask="best"), frame("b", mask="best"), frame("a", mask="mean")])
    looks = drawn_looks(dots(rows, "mask"))
    assert len(looks) == 2 and not {json.loads(look[0]) for look in looks.values()} & set(COLOURS)


def test_what_the_study_does_not_know_keeps_its_look_through_a_report():
    with using(Looks(["a"])):
        first = drawn_looks(curve(frame("a", "DeiT-S (paper)")))
        second = drawn_looks(curve(frame("ResNet50 (paper)", "DeiT-S (paper)", "a")))
    assert next(iter(second)) == "a"
    assert first["DeiT-S (paper)"] == second["DeiT-S (paper)"] != second["ResNet50 (paper)"]


def test_a_series_is_of_the_model_with_the_longest_name_that_it_begins_with():
    looks = Looks(["net", "net, small"])
    assert looks.model("net, small, cls") == "net, small" and looks.model("net, cls") == "net"
    assert looks.model("network") == "network"
