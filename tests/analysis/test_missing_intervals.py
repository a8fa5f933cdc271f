"""Sentences where an interval or a p-value is missing, as with one image, or where all images share one mask."""

import itertools
import re

import polars as pl
import pytest

import ipvit
from helpers.paths import KEPT
from helpers.tiny import tiny_model, write_images
from ipvit.analysis.columns import COMMON
from ipvit.report.findings import Unit, findings, for_page, headline
from ipvit.results import Run

ALL = Run(KEPT / "runs" / "all-experiments")
POINTS = Unit(1, " points", COMMON)
UNKNOWN = re.compile(r"\b(nan|None|null|inf)\b")


def row(b: str, ends: tuple[float | None, float | None], p: float | None) -> dict[str, object]:
    found = {"model_a": "a", "model_b": b, "n_images": 9, "difference": 4.0}
    return found | {"difference_low": ends[0], "difference_high": ends[1], "p": p, "p_holm": p}


@pytest.mark.parametrize("models", [("b",), tuple("bcdefghijklmn")], ids=["a pair", "many models"])
@pytest.mark.parametrize("missing", [None, float("nan")])
def test_differences_are_told_whatever_of_them_is_missing(models, missing):
    for ends, p in itertools.product(((1.0, 7.0), (missing, missing)), (0.01, 0.5, missing)):
        frame = pl.DataFrame([row(model, ends, p) for model in models], strict=False, infer_schema_length=None)
        said = [*findings(frame, POINTS), headline(frame, POINTS)]
        assert all(said) and not any(UNKNOWN.search(text) for text in said), said
        shown = for_page(frame, POINTS).rows(named=True)
        assert not any(UNKNOWN.search(text) for line in shown for text in line.values())


def test_what_was_not_tested_is_not_called_insignificant():
    frame = pl.DataFrame([row("b", (None, None), None)])
    assert findings(frame, POINTS) == ["a and b differ by 4.0 points, which was not tested."]
    assert headline(frame, POINTS) == (
        "Largest difference: a over b by 4.0 points; no difference between the models could be tested."
    )
    assert for_page(frame, POINTS)["significant"].to_list() == ["not tested"]
    tested = pl.concat([frame, pl.DataFrame([row("b", (1.0, 7.0), 0.01)])], how="vertical_relaxed")
    assert findings(tested, POINTS)[0].startswith("a lies significantly above b in 1 of 2 conditions")


@pytest.mark.parametrize("name", list(ALL.analyses))
def test_every_experiment_speaks_of_numbers_without_intervals(name):
    analysis = ALL.analyses[name]
    tables = {
        key: table.with_columns(
            pl.lit(None, table.schema[column]).alias(column)
            for column in table.columns
            if column.endswith(("_low", "_high", "_std"))
        )
        for key, table in ALL.tables_of(name).items()
    }
    said = [*analysis.summary(tables), *analysis.answer(tables).values()]
    assert said and not any(UNKNOWN.search(text) for text in said), said
    for figure in analysis.figures(tables).values():
        figure.to_dict()


def test_two_networks_on_few_images_under_the_authors_masks_are_measured_and_told_of(tmp_path):
    models = [tiny_model(seed, name=f"net{seed}") for seed in (0, 1)]
    drop = ipvit.Occlusion(protocol="authors", grid="4x4", levels=(0.0, 0.5), runs=1)
    results = ipvit.run(drop, models=models, data=write_images(tmp_path / "images"), out=tmp_path / "out", workers=0)
    assert "not tested" in results.report().read_text("utf-8")
    shared = results.differences["occlusion"].filter(pl.col("p").is_nan())  # one mask for all images
    assert shared.height and headline(shared, POINTS).endswith("could be tested.")
