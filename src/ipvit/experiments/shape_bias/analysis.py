"""What follows from decisions for shape or texture, with what people decided."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import polars as pl

from ipvit.analysis import charts
from ipvit.analysis.aggregate import varying
from ipvit.analysis.answers import each, joined_names
from ipvit.analysis.base import Analysis
from ipvit.analysis.category_chart import category_chart
from ipvit.analysis.columns import COMMON, Column
from ipvit.analysis.profile import Question, measured_question
from ipvit.analysis.reduction import Reduction, joined
from ipvit.analysis.sentences import ends
from ipvit.metrics.shape_bias import CueDecisions, shape_bias, shape_bias_by_category

if TYPE_CHECKING:
    from ipvit.analysis.charts import Figure

PEOPLE = "people"
PEOPLE_SOURCE = "Geirhos et al. 2019"
PEOPLE_COUNTS = CueDecisions(images=12_000, shape=9236, texture=398)
"""Decisions of ten people on 1,200 images with a conflict each, counted in the trials that Geirhos et al. publish."""
PEOPLE_BY_CATEGORY = {
    "airplane": 0.893,
    "bear": 0.935,
    "bicycle": 0.997,
    "bird": 0.968,
    "boat": 0.872,
    "bottle": 0.987,
    "car": 0.974,
    "cat": 0.959,
    "chair": 0.991,
    "clock": 0.996,
    "dog": 0.941,
    "elephant": 0.963,
    "keyboard": 0.942,
    "knife": 0.891,
    "oven": 0.968,
    "truck": 0.983,
}
"""Their shape bias on the images of each shape, from the same trials."""

_MEASURED = "measured"
SETTINGS = ("token", "ties")
"""Columns of the records that tell a network's answers apart."""
COLUMNS = {
    **COMMON,
    "shape_bias": Column(range=(0, 1)),
    "shape": Column(unit="count"),
    "texture": Column(unit="count"),
    "neither": Column(unit="count"),
    "decision": Column(missing="decisions were not finite numbers; they count for neither shape nor texture."),
}


class ShapeBiasAnalysis(Analysis):
    """The share of decisions for shape among those for shape or texture, over all images and per category."""

    further: ClassVar[Mapping[str, tuple[str, ...]]] = {"": ("mean_of_categories",), "categories": ("category",)}
    columns: dict[str, Column] = COLUMNS
    among: str = (
        "Decisions are among categories, each with the mean probability of its outputs, and not among outputs: "
        "--answers does not change them."
    )
    metric: str = "shape_bias"
    compare_by: tuple[str, ...] | None = SETTINGS
    record_columns: tuple[str, ...] | None = (*SETTINGS, "shape", "texture", "decision")

    def reduce(self, records: pl.DataFrame) -> Reduction:
        """Count decisions per answer of the network, over all images and for each category of shapes."""
        by = ["model", *SETTINGS]
        overall: list[dict[str, Any]] = []
        categories: list[dict[str, Any]] = []
        for key, group in records.group_by(by, maintain_order=True):
            columns = [group[name].to_numpy() for name in ("decision", "shape", "texture")]
            place = dict(zip(by, key, strict=True))
            found = shape_bias_by_category(*columns)
            known = [counts.value for counts in found.values() if not math.isnan(counts.value)]
            mean = {"mean_of_categories": float(np.mean(known)) if known else None}
            overall.append(place | _row(shape_bias(*columns)) | mean)
            categories += [place | {"category": name} | _row(counts) for name, counts in found.items()]
        parts = {self.name: _frame(overall), f"{self.name}-categories": _frame(categories)}
        return self.reduced(records, parts, compared=_per_image(records))

    def tables(self, reductions: Sequence[Reduction]) -> dict[str, pl.DataFrame]:
        """Return the pooled shape bias per model, and that of each category of shapes.

        On the benchmark's categories, what people decided stands below.
        """
        overall, categories = joined(reductions, self.name), joined(reductions, f"{self.name}-categories")
        several = varying(overall, SETTINGS)
        hidden = [name for name in SETTINGS if name not in several]
        overall, categories = overall.drop(hidden), categories.drop(hidden)
        shown = set(categories["category"])
        if shown <= set(PEOPLE_BY_CATEGORY):
            overall = _with_people(overall, [_people()])
            biases = [{"category": name, "shape_bias": bias} for name, bias in PEOPLE_BY_CATEGORY.items()]
            categories = _with_people(categories, [row for row in biases if row["category"] in shown])
        return {self.name: overall, f"{self.name}-categories": categories}

    def figures(self, tables: dict[str, pl.DataFrame]) -> dict[str, Figure]:
        """Return the shape bias of each model, and figure 6: that of each category."""
        overall, categories = (_with_series(tables[name]) for name in (self.name, f"{self.name}-categories"))
        return {
            f"{self.name}-categories": category_chart(
                categories,
                overall,
                charts.Encoding(
                    x="shape_bias",
                    y="category",
                    series="series",
                    x_title="Share of decisions for shape (0: texture always decides, 1: shape always decides)",
                    x_format=".2f",
                    x_domain=(0, 1),
                ),
                title="Shape bias by category",
            ),
            self.name: charts.dots(
                overall,
                charts.Encoding(
                    x="shape_bias",
                    y="series",
                    series="series",
                    x_title="Shape bias: decisions for shape among those for shape or texture",
                    x_format=".2f",
                    x_domain=(0, 1),
                ),
                title="Shape bias over all images",
            ),
        }

    def summary(self, tables: dict[str, pl.DataFrame]) -> list[str]:
        """Say how often each model goes by the shape, and how often people do."""
        sentences = super().summary(tables)
        if "source" in tables[self.name].columns:
            sentences.append(
                f"People go by the shape in {100 * PEOPLE_COUNTS.value:.1f} % of such decisions ({PEOPLE_SOURCE}: 10 "
                "people, 1,200 images)."
            )
        return sentences

    def questions(self, reductions: Sequence[Reduction], tables: Mapping[str, pl.DataFrame]) -> list[Question]:
        """Return the shape bias of each model's own answers; it is neither good nor bad."""
        rows: dict[str, dict[str, Any]] = {}
        places: set[tuple[str, str]] = set()
        for reduction in reductions:
            for row in reduction.parts[self.name].to_dicts():
                if row["token"] in ("output", "mean"):
                    places.add((row["token"], str(row["ties"])))
                    if row["model"] in rows:
                        return []  # with several rules for ties there is no one number
                    rows[row["model"]] = row
        what = "share of the decisions for shape among those for shape or texture (%)"
        several = {r.model: {"token": rows[r.model]["token"]} for r in reductions if r.model in rows}
        scored = [
            measured_question(
                self,
                [r],
                rows,
                "shape_bias",
                what=what,
                better="",
                factor=100,
                condition=several[r.model],
                place={"token": "output"},
            )
            for r in reductions
            if r.model in rows
        ]
        if not scored:
            return []
        scores = tuple(score for question in scored for score in question.scores)
        return [dataclasses.replace(scored[0], scores=scores)]

    def lead(self, tables: dict[str, pl.DataFrame]) -> str:
        """Say how often each model goes by the shape where shape and texture disagree."""
        rows = [r for r in _with_series(tables[self.name]).to_dicts() if r.get("source", _MEASURED) == _MEASURED]
        rows = [r for r in rows if r.get("token", "output") in ("output", "mean")] or rows  # a network's own answers
        known = [r for r in rows if r["shape_bias"] is not None]
        values = [(r["series"], r["shape_bias"], f"{100 * r['shape_bias']:.0f} %") for r in known]
        silent = [r["series"] for r in rows if r["shape_bias"] is None]
        parts = [f"Of the decisions for shape or texture, shape has: {each(values)}"] if values else []
        if silent:
            parts.append(f"{joined_names(silent)} {'decides' if len(silent) == 1 else 'decide'} for neither, ever")
        return f"{'; '.join(parts)}." if parts else ""

    def sentences(self, tables: dict[str, pl.DataFrame]) -> Iterator[tuple[str, str]]:
        """Say how often each model goes by the shape."""
        for row in _with_series(tables[self.name]).to_dicts():
            if row.get("source", _MEASURED) != _MEASURED:
                continue
            if row["shape_bias"] is None:
                yield row["model"], f"{row['series']} never decides for shape or texture where the two disagree."
                continue
            yield (
                row["model"],
                f"{row['series']} goes by the shape in {row['shape']:,} and by the texture in {row['texture']:,} of "
                f"{row['n_images']:,} images: a shape bias of {row['shape_bias']:.3f}"
                f"{ends(row, 'shape_bias', 3)}.",
            )


def _per_image(records: pl.DataFrame) -> pl.DataFrame:
    """Return one value per image with a conflict whose mean is the shape bias, and which varies as it does.

    The shape bias is a ratio over images, shape / (shape + texture); its linear expansion is a mean over images, so
    that two models can be compared image by image.
    """
    shape = (pl.col("decision") == pl.col("shape")).cast(pl.Float64)
    either = shape + (pl.col("decision") == pl.col("texture"))
    bias = shape.sum() / either.sum()
    value = bias + (shape - bias * either) / either.mean()
    conflicts = records.filter(pl.col("shape") != pl.col("texture"))
    return conflicts.with_columns(value.over(SETTINGS).alias("shape_bias"))


def _row(counts: CueDecisions) -> dict[str, Any]:
    known = not math.isnan(counts.value)
    low, high = counts.interval() if known else (None, None)
    return {
        "n_images": counts.images,
        "shape_bias": counts.value if known else None,
        "shape_bias_low": low,
        "shape_bias_high": high,
        "shape": counts.shape,
        "texture": counts.texture,
        "neither": counts.neither,
    }


def _frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    frame = pl.DataFrame(rows, infer_schema_length=None)
    floats = [name for name in frame.columns if name.startswith("shape_bias") or name == "mean_of_categories"]
    return frame.with_columns(pl.col(name).cast(pl.Float64) for name in floats)


def _people() -> dict[str, Any]:
    """Return what people decided over all images."""
    return {
        "shape_bias": PEOPLE_COUNTS.value,
        "shape": PEOPLE_COUNTS.shape,
        "texture": PEOPLE_COUNTS.texture,
        "neither": PEOPLE_COUNTS.neither,
        "mean_of_categories": float(np.mean(list(PEOPLE_BY_CATEGORY.values()))),
    }


def _with_people(table: pl.DataFrame, people: list[dict[str, Any]]) -> pl.DataFrame:
    """Put what people decided below what was measured, and say which is which."""
    reference = pl.DataFrame([{"model": PEOPLE, "source": PEOPLE_SOURCE} | row for row in people])
    place = table.columns.index("n_images")
    measured = table.select(*table.columns[:place], pl.lit(_MEASURED).alias("source"), *table.columns[place:])
    return pl.concat([measured, reference], how="diagonal_relaxed")


def _with_series(table: pl.DataFrame) -> pl.DataFrame:
    """Name a model's answers after their tokens, where it has several."""
    words = [pl.col(name) for name in SETTINGS if name in table.columns]
    series = pl.concat_str([pl.col("model"), *words], separator=", ", ignore_nulls=True)
    return table.with_columns(series.str.strip_suffix(", output").alias("series"))
