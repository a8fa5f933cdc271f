"""Shape bias on cue-conflict images (section 3.2, figure 6, table 3)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import polars as pl
import torch

from ipvit.analysis import charts
from ipvit.analysis.aggregate import varying
from ipvit.analysis.category_chart import category_chart
from ipvit.data import load_dataset
from ipvit.data.subset import Subset, subset_indices
from ipvit.errors import InputError
from ipvit.experiments.base import Batch, Condition, ExampleImage, Experiment, Records, Requirements
from ipvit.metrics.shape_bias import CueDecisions, shape_bias, shape_bias_by_category
from ipvit.models.labels import ENTRY_LEVEL_CATEGORIES, CategoryMap
from ipvit.models.model import Model

if TYPE_CHECKING:
    from torch import Tensor

    from ipvit.analysis.charts import Figure
    from ipvit.data.dataset import Dataset
    from ipvit.preprocessing import View

Ties = Literal["first", "last"]

PEOPLE = "people"
PEOPLE_SOURCE = "Geirhos et al. 2019"
PEOPLE_COUNTS = CueDecisions(images=12_000, shape=9236, texture=398)
"""Decisions of ten people on 1,200 images with a conflict each, counted in the trials that Geirhos et al. publish."""
PEOPLE_BY_CATEGORY = {
    "airplane": 0.893, "bear": 0.935, "bicycle": 0.997, "bird": 0.968, "boat": 0.872, "bottle": 0.987, "car": 0.974,
    "cat": 0.959, "chair": 0.991, "clock": 0.996, "dog": 0.941, "elephant": 0.963, "keyboard": 0.942, "knife": 0.891,
    "oven": 0.968, "truck": 0.983,
}  # fmt: skip
"""Their shape bias on the images of each shape, from the same trials."""

_EXAMPLES = 8


@dataclasses.dataclass(frozen=True)
class ShapeBiasCondition(Condition):
    """One answer of the network; ``output`` is its only one, ``mean`` the mean of a distilled network's two."""

    token: str
    ties: str


class ShapeBias(Experiment):
    """Show shapes in the texture of something else and count which of the two decides."""

    name: ClassVar[str] = "shape-bias"
    version: ClassVar[int] = 1
    title: ClassVar[str] = "Shape bias"
    reproduces: ClassVar[str] = "Figure 6 and Table 3"
    question: ClassVar[str] = "When shape and texture disagree, which of the two does a network go by?"
    compare: ClassVar[str] = "shape_bias"
    compare_by: ClassVar[tuple[str, ...]] = ("token", "ties")

    ties: Ties = "first"
    """Of equally probable categories, take the first in the alphabet (texture-vs-shape) or the last
    (model-vs-human)."""
    stimuli: str | None = None
    """Cue-conflict images beside those of the study, for example ``cue-conflict:PATH``; by default the study's own
    images are the stimuli."""

    @property
    def needs(self) -> Requirements:
        """Logits, and the shape and texture of every image."""
        return Requirements(labels=False, fields=("shape", "texture"))

    def subject(self, data: Dataset, limit: int | None) -> Dataset:
        """Return the stimuli where they are not the study's images; a limited study uses as many of them."""
        if self.stimuli is None:
            return data
        stimuli = load_dataset(self.stimuli)
        return Subset(stimuli, subset_indices(stimuli, limit))

    def view(self, model: Model) -> View:
        """Return the whole picture scaled to the model's input: the benchmark's 224 pixels are neither cut nor scaled.

        Networks with another input size get the whole picture, scaled.
        """
        return dataclasses.replace(model.preprocessing.view, crop_pct=1.0, crop_mode="squash")

    def whole_passes(self, model: Model) -> bool:
        """See :class:`Experiment`; the answers of single tokens are read inside the network."""
        return super().whole_passes(model) and "token_heads" not in model.capabilities

    def conditions(self, model: Model) -> Sequence[ShapeBiasCondition]:
        """Return one answer, or those of the class token, the distillation or shape token and their mean."""
        tokens = ["output"]
        if "token_heads" in model.capabilities:
            tokens = ["class", model.distillation_token, "mean"]
        return [ShapeBiasCondition(token, self.ties) for token in tokens]

    def measure(self, model: Model, batch: Batch) -> Iterator[Records]:
        """Decide for a category: softmax over the fine classes, mean within each category, the largest."""
        cues = {cue: _names(batch, cue) for cue in ("shape", "texture")}
        categories = _categories(model, batch)
        for condition, logits in self._logits(model, batch):
            decisions = decide(logits, categories, condition.ties)
            yield Records(condition, {**cues, "decision": decisions})

    def tables(self, records: pl.DataFrame) -> dict[str, pl.DataFrame]:
        """Return the pooled shape bias per model, and that of each category of shapes.

        On the benchmark's categories, what people decided stands below.
        """
        by = ["model", *varying(records, ["token", "ties"])]
        overall, categories = [], []
        for key, group in records.group_by(by, maintain_order=True):
            columns = [group[name].to_numpy() for name in ("decision", "shape", "texture")]
            place = dict(zip(by, key, strict=True))
            found = shape_bias_by_category(*columns)
            known = [counts.value for counts in found.values() if not math.isnan(counts.value)]
            mean = {"mean_of_categories": float(np.mean(known)) if known else None}
            overall.append(place | _row(shape_bias(*columns)) | mean)
            categories += [place | {"category": name} | _row(counts) for name, counts in found.items()]
        tables = {"shape-bias": _frame(overall), "shape-bias-categories": _frame(categories)}
        if set(records["shape"]) <= set(PEOPLE_BY_CATEGORY):
            tables = _with_people(tables)
        return tables

    def comparable(self, records: pl.DataFrame) -> pl.DataFrame:
        """Return one value per image with a conflict whose mean is the shape bias, and which varies as it does.

        The shape bias is a ratio over images, shape / (shape + texture); its linear expansion is a mean over images, so
        that two models can be compared image by image.
        """
        shape = (pl.col("decision") == pl.col("shape")).cast(pl.Float64)
        either = shape + (pl.col("decision") == pl.col("texture"))
        bias = shape.sum() / either.sum()
        value = bias + (shape - bias * either) / either.mean()
        within = [name for name in ("model", *self.compare_by) if name in records.columns]
        return records.filter(pl.col("shape") != pl.col("texture")).with_columns(value.over(within).alias("shape_bias"))

    def figures(self, tables: dict[str, pl.DataFrame]) -> dict[str, Figure]:
        """Return the shape bias of each model, and figure 6: that of each category."""
        overall, categories = (_with_series(table) for table in tables.values())
        return {
            "shape-bias-categories": category_chart(
                categories, overall, x="shape_bias", rows="category", title="Shape bias by category"
            ),
            "shape-bias": charts.estimates(
                overall,
                "shape_bias",
                "series",
                x_title="Shape bias: decisions for shape among those for shape or texture",
                title="Shape bias over all images",
                x_format=".2f",
                x_domain=(0, 1),
            ),
        }

    def examples(self, model: Model, batch: Batch) -> Iterator[ExampleImage]:
        """Yield images with a conflict and what the model takes them for."""
        shapes, textures = _names(batch, "shape"), _names(batch, "texture")
        rows = np.flatnonzero(shapes != textures)
        rows = rows[:: max(1, len(rows) // _EXAMPLES)][:_EXAMPLES]
        categories = _categories(model, batch)
        condition, logits = next(self._logits(model, batch))
        decisions = decide(logits, categories, condition.ties)
        for row in rows:
            caption = f"{shapes[row]} in the texture of {textures[row]}: {decisions[row]} for {model.name}"
            yield ExampleImage(caption, batch.images[row])

    def summary(self, tables: dict[str, pl.DataFrame]) -> list[str]:
        """Say how often each model goes by the shape."""
        sentences = []
        for row in _with_series(tables["shape-bias"]).to_dicts():
            if row.get("source", "measured") != "measured":
                continue
            if row["shape_bias"] is None:
                sentences.append(f"{row['series']} never decides for shape or texture where the two disagree.")
                continue
            sentences.append(
                f"{row['series']} goes by the shape in {row['shape']:,} and by the texture in {row['texture']:,} of "
                f"{row['n_images']:,} images: a shape bias of {row['shape_bias']:.3f} "
                f"(95 % interval {row['shape_bias_low']:.3f} to {row['shape_bias_high']:.3f})."
            )
        if "source" in tables["shape-bias"].columns:
            sentences.append(
                f"People go by the shape in {PEOPLE_COUNTS.value:.1%} of such decisions ({PEOPLE_SOURCE}: 10 people, "
                "1,200 images)."
            )
        return sentences

    def _logits(self, model: Model, batch: Batch) -> Iterator[tuple[ShapeBiasCondition, Tensor]]:
        by_token = model.logits_by_token(batch.images) if "token_heads" in model.capabilities else None
        for condition in batch.conditions:
            yield condition, model(batch.images) if by_token is None else by_token[condition.token]


def decide(logits: Tensor, categories: CategoryMap, ties: str = "first") -> np.ndarray:
    """Return the name of the category each image is taken for; empty where the logits are not finite.

    Args:
        logits: ``(B, C)`` over the fine classes.
        categories: the classes of each category; the mean of their probabilities counts.
        ties: ``first`` or ``last`` of equally probable categories.
    """
    finite = torch.isfinite(logits).all(dim=1).cpu()
    shares = categories(torch.where(finite[:, None], logits.cpu(), 0).double().softmax(dim=1))
    best = shares == shares.amax(dim=1, keepdim=True)
    places = torch.arange(shares.shape[1], device=shares.device).expand_as(shares)
    chosen = torch.where(best, places, shares.shape[1]).amin(dim=1)
    if ties == "last":
        chosen = torch.where(best, places, -1).amax(dim=1)
    names = np.array([*categories.names, ""])
    return names[torch.where(finite, chosen, len(categories.names)).cpu().numpy()]


def _categories(model: Model, batch: Batch) -> CategoryMap:
    """Return the data's own categories where they are outputs of the model, else the benchmark's 16 of ImageNet."""
    assert batch.classes is not None
    if model.classes is not None and set(batch.classes) <= set(model.classes):
        return CategoryMap.for_classes(model.classes, {name: (name,) for name in batch.classes})
    if set(batch.classes) <= set(ENTRY_LEVEL_CATEGORIES):
        return CategoryMap.for_classes(model.classes)
    strange = sorted(set(batch.classes) - set(ENTRY_LEVEL_CATEGORIES))
    raise InputError(
        f"shape-bias: the category {strange[0]!r} is neither an output of {model.name} nor one of the benchmark's: "
        + ", ".join(ENTRY_LEVEL_CATEGORIES)
    )


def _names(batch: Batch, cue: str) -> np.ndarray:
    if batch.classes is None:
        raise InputError("shape-bias: the data does not name its categories")
    column = np.asarray(batch.fields[cue])
    return column.astype(str) if column.dtype.kind in "UO" else np.array(batch.classes)[column]


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


def _with_people(tables: dict[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """Put what people decided below what was measured, and say which is which."""
    by_category = PEOPLE_BY_CATEGORY
    pooled = {
        "shape_bias": PEOPLE_COUNTS.value, "shape": PEOPLE_COUNTS.shape, "texture": PEOPLE_COUNTS.texture,
        "neither": PEOPLE_COUNTS.neither, "mean_of_categories": float(np.mean(list(by_category.values()))),
    }  # fmt: skip
    shown = set(tables["shape-bias-categories"]["category"])
    rows = [
        [pooled],
        [{"category": name, "shape_bias": value} for name, value in by_category.items() if name in shown],
    ]
    merged = {}
    for (name, table), people in zip(tables.items(), rows, strict=True):
        reference = pl.DataFrame([{"model": PEOPLE, "source": PEOPLE_SOURCE} | row for row in people])
        measured = table.insert_column(table.columns.index("n_images"), pl.lit("measured").alias("source"))
        merged[name] = pl.concat([measured, reference], how="diagonal_relaxed")
    return merged


def _with_series(table: pl.DataFrame) -> pl.DataFrame:
    """Name a model's answers after their tokens, where it has several."""
    words = [pl.col(name) for name in ("token", "ties") if name in table.columns]
    series = pl.concat_str([pl.col("model"), *words], separator=", ", ignore_nulls=True)
    return table.with_columns(series.str.strip_suffix(", output").alias("series"))
