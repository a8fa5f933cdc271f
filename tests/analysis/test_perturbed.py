"""What is retained, condition by condition and over curves: held against plain loops over the records."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import polars as pl
import pytest

import ipvit
from helpers.small_runs import small_occlusion, told_by
from helpers.tiny import tiny_model
from ipvit.analysis.perturbed import clean_condition, curves, means, of_combination, perturbed
from ipvit.analysis.reduction import Values
from ipvit.metrics import Pair, drop_difference, retained_accuracy, retained_difference

CLEAN = {"level": 0.0}


def values(cells: Mapping[tuple[object, ...], list[float]], names: tuple[str, ...] = ("level",)) -> Values:
    """Return the values of one model: by the condition's key, one number for each image."""
    n = len(next(iter(cells.values())))
    images = pl.Series([f"i{number:03d}" for number in range(n)])
    whole = tuple(cells)
    return Values(
        images, names, whole, np.array([cells[key] for key in whole], dtype=float),
        tuple(frozenset({0}) for _ in whole), tuple(None for _ in whole), proportions=True,
    )  # fmt: skip


def right(n: int, of: int = 40) -> list[float]:
    return [1.0] * n + [0.0] * (of - n)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two networks of four classes that are right on most clean images, since these are labelled by the first."""
    return labelled_run(tmp_path_factory.mktemp("run"), [small_occlusion(), ipvit.Shuffle(grids=("2x2", "4x4"))])


def labelled_run(out, experiments, n: int = 30):
    """Measure two networks, of which the first is right on all images as they are, the second on few."""
    models = [tiny_model(0, name="a"), tiny_model(1, name="b")]
    return ipvit.run(experiments, models=models, data=told_by(models[0], n), out=out, workers=0, progress=False)


def shares(records: pl.DataFrame, model: str, **where: object) -> np.ndarray:
    """The share of runs in which each image is right, by a plain loop."""
    rows = records.filter(pl.col("model") == model, *(pl.col(name) == value for name, value in where.items()))
    found: dict[str, list[bool]] = {}
    for row in rows.to_dicts():
        found.setdefault(row["image"], []).append(row["correct"])
    return np.array([np.mean(found[image]) for image in sorted(found)])


def test_tables_say_what_is_retained_and_what_guessing_gives(run):
    records = run.records("occlusion")
    for row in run.tables["occlusion"].to_dicts():
        assert row["chance"] == 25.0
        clean = shares(records, row["model"], information_loss=0.0)
        here = shares(records, row["model"], information_loss=row["information_loss"])
        expected = retained_accuracy(clean, here, 0.25)
        if row["information_loss"] == 0:
            assert row["retained"] == (None if math.isnan(expected.value) else 100.0) and row["retained_low"] is None
        elif math.isnan(expected.value):
            assert row["retained"] is None
        else:
            assert (row["retained"], row["retained_low"], row["retained_high"]) == pytest.approx(
                (100 * expected.value, 100 * expected.low, 100 * expected.high)
            )
    assert run.tables["occlusion"].filter(model="a")["retained"].null_count() == 0, "right on all clean images"


def test_the_area_is_that_of_the_trapezoids_over_the_levels_divided_by_their_span(run):
    table = run.tables["occlusion"].filter(model="a").sort("information_loss")
    levels, top1 = table["information_loss"].to_numpy(), table["top1"].to_numpy()
    (area,) = run.tables["occlusion-area"].filter(model="a").to_dicts()
    assert area["levels"] == "0 0.3 0.5 0.9" and area["n_images"] == 30
    expected = np.trapezoid(top1, levels) / (levels[-1] - levels[0])
    assert area["area_top1"] == pytest.approx(expected)
    assert area["area_retained"] == pytest.approx(100 * (expected - 25) / (top1[0] - 25))
    retained = np.trapezoid(table["retained"].to_numpy(), levels) / (levels[-1] - levels[0])
    assert area["area_retained"] == pytest.approx(retained), "the area under the curve of what is retained"
    assert area["area_retained_low"] < area["area_retained"] < area["area_retained_high"]


def test_the_area_over_cells_is_over_their_logarithm(run):
    table = run.tables["shuffle"].filter(model="a").sort("cells")
    along = np.log(table["cells"].to_numpy())
    (area,) = run.tables["shuffle-area"].filter(model="a")["area_top1"]
    assert area == pytest.approx(np.trapezoid(table["top1"].to_numpy(), along) / (along[-1] - along[0]))


def test_the_differences_have_those_of_the_drops(run):
    records, frame = run.records("occlusion"), run.differences["occlusion"]
    pairs = {
        (model, level): Pair(
            shares(records, model, information_loss=0.0), shares(records, model, information_loss=level), 0.25
        )
        for model in ("a", "b")
        for level in (0.3, 0.5, 0.9)
    }
    for row in frame.to_dicts():
        level = row["information_loss"]
        if level == 0:
            assert row["drop_difference"] is None and row["drop_p_holm"] is None
            continue
        drop = drop_difference(pairs["a", level], pairs["b", level])
        assert (row["drop_difference"], row["drop_difference_low"]) == pytest.approx(
            (100 * drop.difference, 100 * drop.low)
        )
        assert row["drop_p"] == pytest.approx(drop.p)
        assert row["drop_p_holm"] >= row["drop_p"]
        kept = retained_difference(pairs["a", level], pairs["b", level])
        if math.isnan(kept.difference):
            assert row.get("retained_difference") is None
        else:
            assert row["retained_difference"] == pytest.approx(100 * kept.difference)


def test_a_model_at_chance_retains_no_number():
    found = values({(0.0,): right(10), (0.5,): right(9)})
    model = perturbed(found, {1: 1.0}, 0, 0.25)
    assert model is not None and math.isnan(model.retained.value)


def test_only_images_under_all_conditions_count():
    cells: dict[tuple[object, ...], list[float]] = {
        (0.0,): right(40),
        (0.5,): [1.0] * 20 + [math.nan] * 20,
        (1.0,): [math.nan] * 10 + [0.0] * 30,
    }
    found = values(cells)
    (curve,) = curves(found, CLEAN, ("level",))
    model = of_combination(found, curve, 0.1)
    assert model is not None and model.n_images == 10
    assert model.pair.perturbed.tolist() == [pytest.approx(0.25 * 1 + 0.5 * 1 + 0.25 * 0)] * 10


def test_two_models_are_compared_on_the_images_of_both():
    first = perturbed(values({(0.0,): right(40), (1.0,): right(20)}), {1: 1.0}, 0, 0.1)
    some = values({(0.0,): right(30, 30), (1.0,): right(10, 30)})
    second = perturbed(some, {1: 1.0}, 0, 0.1)
    assert first is not None and second is not None
    a, b = first.beside(second)
    assert len(a.clean) == len(b.clean) == 30


def test_the_clean_condition_is_that_of_the_same_setting():
    names = ("mode", "level")
    found = values({("x", 0.0): right(40), ("y", 0.0): right(30), ("y", 0.5): right(5), ("z", 0.5): right(5)}, names)
    assert clean_condition(found, 2, CLEAN) == 1
    assert clean_condition(found, 3, CLEAN) is None, "two, and neither is nearer"
    assert clean_condition(found, 3, {}) is None


def test_without_an_order_it_is_the_mean_over_all_perturbations():
    found = values({("whole",): right(40), ("left",): right(10), ("right",): right(30)}, ("place",))
    (mean,) = means(found, {"place": "whole"}, ("place",))
    model = of_combination(found, mean, 0.1)
    assert model is not None and model.retained.value == pytest.approx((0.5 - 0.1) / 0.9)


def test_a_curve_of_one_level_has_no_area():
    assert curves(values({(0.0,): right(40)}), CLEAN, ("level",)) == []
    assert curves(values({(0.5,): right(40), (0.7,): right(40)}), CLEAN, ("level",)) == [], (
        "and none without a clean one"
    )
