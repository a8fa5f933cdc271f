"""What follows from attention maps and distances."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
import polars as pl

from ipvit.analysis import charts
from ipvit.analysis.aggregate import mean_table
from ipvit.analysis.base import Analysis
from ipvit.analysis.columns import COMMON, Column, measured
from ipvit.analysis.heatmaps import mosaic
from ipvit.analysis.reduction import Reduction, in_study_order, joined
from ipvit.core.files import path_component
from ipvit.experiments.attention.high_norm import HIGH_NORM
from ipvit.experiments.places import WHOLE

if TYPE_CHECKING:
    from ipvit.analysis.charts import Figure


def _of_patches(name: str, title: str, limits: tuple[float | None, float | None]) -> Column:
    """Return the column of a quantity that patches have which attend to others."""
    alone = f"values of {name} are left out of the means: not finite, or of patches that attend to themselves only."
    return measured(name, title=title, range=limits).model_copy(update={"missing": alone})


COLUMNS = {
    **COMMON,
    "information_loss": Column(unit="share", level=True),
    "place": Column(level=True),
    "distance": _of_patches("distance", "distance (pixels)", (0, None)),
    "prefix_share": _of_patches("prefix_share", "attention of the patches on prefix tokens", (0, 1)),
    "norm_ratio": measured("norm_ratio", title="largest patch norm over the median", range=(1, None)),
    "high_patches": measured("high_patches", title="patches above 4 median norms", range=(0, None)),
    "inside": Column(title="attention on the image", range=(0, 1)),
}
CLEAN = {"information_loss": 0.0, "place": WHOLE}
_BY = ("model", "information_loss", "place", "scale", "block", "head")
_PLACES = ("place", "scale")
_MEASURES = ("distance", "prefix_share", "inside")
_OF_BLOCKS = ("norm_ratio", "high_patches")
_LATER = ("prefix_share", *_OF_BLOCKS, "high")
_SEEN = ("model", "information_loss", "place", "scale", "block")


class AttentionAnalysis(Analysis):
    """Mean maps and attention distances; blocks and heads of two networks have no counterparts to compare."""

    further: ClassVar[Mapping[str, tuple[str, ...]]] = {"heads": (), "maps": ()}
    columns: dict[str, Column] = COLUMNS
    metric: str = ""
    clean: dict[str, Any] = CLEAN
    record_columns: tuple[str, ...] | None = (*_BY[1:], "rows", "map", *_MEASURES, *_OF_BLOCKS, "norms")

    def reduce(self, records: pl.DataFrame) -> Reduction:
        """Average distances per block and per head, and the maps of each head."""
        absent = {"place": pl.String, "scale": pl.Float64, "inside": pl.Float64}  # where nothing was shrunk
        absent |= {**dict.fromkeys(("prefix_share", *_OF_BLOCKS), pl.Float64), "norms": pl.Binary}  # of older parts
        records = records.with_columns(
            pl.lit(None, dtype).alias(name) for name, dtype in absent.items() if name not in records.columns
        )
        records = records.with_columns(pl.col("place").fill_null(WHOLE), pl.col("scale").fill_null(1.0))
        parts = {
            self.name: mean_table(records, _BY[:-1], (*_MEASURES, *_OF_BLOCKS), self.columns),
            f"{self.name}-heads": mean_table(records, _BY, _MEASURES, self.columns),
            f"{self.name}-maps": _mean_maps(records),
        }
        return self.reduced(records, parts)

    def tables(self, reductions: Sequence[Reduction]) -> dict[str, pl.DataFrame]:
        """Return the mean attention distance per block and per head, and the mean maps as JSON lists of cells.

        Where the image was shrunk into places, ``inside`` is the share of the attention that falls on it. ``high`` of
        the maps is the share of the images in which a patch has an outlying norm.
        """
        blocks = joined(reductions, self.name)
        shrunk = bool((blocks["place"] != WHOLE).any())
        tables = {self.name: blocks} | {
            name: table
            for name in (f"{self.name}-heads", f"{self.name}-maps")
            if (table := joined(reductions, name)).height
        }
        return {name: _sorted(table, shrunk) for name, table in tables.items()}

    def figures(self, tables: dict[str, pl.DataFrame]) -> dict[str, Figure]:
        """Return the grid of mean maps per model and level, heads by blocks, and the attention distances."""
        figures: dict[str, Figure] = {}
        if (maps := tables.get(f"{self.name}-maps")) is not None:
            for (model, name, seen), frame in _described(maps).group_by(["model", "name", "seen"], maintain_order=True):
                figures[f"{self.name}-{path_component(str(model))}-{name}"] = mosaic(
                    [(f"block {row['block']}", f"{row['head']}", _map(row)) for row in frame.iter_rows(named=True)],
                    title=f"{model}: attention to the patches, {seen}",
                    marks=[_marks(row) for row in frame.iter_rows(named=True)],
                    mark_title="high-norm patches, darker where in more images",
                    row_title="",
                    column_title="head",
                )
        figures[f"{self.name}-distance"] = charts.dots(
            _described(tables[f"{self.name}-heads"]),
            charts.Encoding(
                x="block",
                y="distance",
                facet="seen",
                x_title="Block (from 0)",
                y_title="Mean attention distance (pixels)",
                interval=False,
            ),
            title="Attention distance of every head",
        )
        return figures

    def sentences(self, tables: dict[str, pl.DataFrame]) -> Iterator[tuple[str, str]]:
        """Say how far each model's heads look, and how much of the attention falls on a shrunk image."""
        clean = tables[self.name].filter(pl.col("information_loss") == pl.col("information_loss").min())
        placed = clean.clear()
        if "place" in clean.columns:
            placed, clean = clean.filter(pl.col("place") != WHOLE), clean.filter(pl.col("place") == WHOLE)
        for (model,), frame in clean.group_by(["model"], maintain_order=True):
            known = frame.filter(pl.col("distance").is_finite())
            if known.is_empty():
                yield str(model), f"In {model} only the class token attends in these blocks: patches look nowhere else."
                continue
            per_block = known.group_by("block").agg(pl.col("distance").mean()).sort("block").rows()
            (first, near), (last, far) = per_block[0], per_block[-1]
            yield (
                str(model),
                f"In {model} a patch looks {near:.0f} pixels away on average in block {first} and {far:.0f} in "
                f"block {last}.",
            )
        yield from _outliers(clean)
        for (model,), frame in placed.group_by(["model"], maintain_order=True):
            deepest = frame.filter(pl.col("block") == pl.col("block").max())
            inside, area = cast("float", deepest["inside"].mean()), cast("float", frame["scale"].mean()) ** 2
            yield (
                str(model),
                f"With the image shrunk to {100 * area:.0f} % of the canvas, {100 * inside:.0f} % of the attention of "
                f"{model}'s block {deepest['block'][0]} falls on it.",
            )


def _outliers(clean: pl.DataFrame) -> Iterator[tuple[str, str]]:
    """Say of each model whether patches have outlying norms, and how much attention goes to prefix tokens."""
    if "norm_ratio" not in clean.columns:
        return
    known = clean.filter(pl.col("norm_ratio").is_finite())
    for (model,), frame in known.group_by(["model"], maintain_order=True):
        most = frame.sort("high_patches", "norm_ratio").row(-1, named=True)
        if most["high_patches"] == 0:
            said = (
                f"No patch of {model} has more than 4 times the median norm of its image; the largest ratio is "
                f"{most['norm_ratio']:.1f} on average, in block {most['block']}"
            )
        else:
            said = (
                f"Patches of {model} have outlying norms: in block {most['block']} the largest is "
                f"{most['norm_ratio']:.3g} times the median of its image, and {most['high_patches']:.2g} an image "
                "exceed 4 times"
            )
        share = most.get("prefix_share")  # absent where no patch attends to another
        if share is not None and math.isfinite(share):
            said += f"; {100 * share:.0f} % of the patches' attention goes to prefix tokens there"
        yield str(model), f"{said}."


def _shares_of_high(records: pl.DataFrame) -> dict[tuple[Any, ...], str]:
    """Return by image as it was seen and by block, in which share of the images each patch is an outlier, as JSON."""
    found: dict[tuple[Any, ...], str] = {}
    measured = records.filter(pl.col("norms").is_not_null() & (pl.col("norms").bin.size() > 0))
    for key, group in measured.group_by(_SEEN, maintain_order=True):
        ratios = np.stack([np.frombuffer(cell, np.float16) for cell in group["norms"]])
        ratios = ratios[np.isfinite(ratios).all(axis=1)]
        if len(ratios):
            found[key] = json.dumps([round(share, 6) for share in (ratios > HIGH_NORM).mean(axis=0).tolist()])
    return found


def _mean_maps(records: pl.DataFrame) -> pl.DataFrame:
    """Return the mean of the finite maps of each head, as a JSON list of cells."""
    high = _shares_of_high(records)
    by = [*_BY, "rows"]
    maps: list[dict[str, Any]] = []
    for key, group in records.group_by(by, maintain_order=True):
        seen = np.stack([np.frombuffer(cell, np.float16) for cell in group["map"]]).astype(np.float64)
        seen = seen[np.isfinite(seen).all(axis=1)]
        if len(seen):
            cells = json.dumps([round(cell, 6) for cell in seen.mean(axis=0)])
            maps.append(dict(zip(by, key, strict=True)) | {"map": cells, "high": high.get(key[: len(_SEEN)])})
    return pl.DataFrame(maps, infer_schema_length=None)


def _sorted(table: pl.DataFrame, shrunk: bool) -> pl.DataFrame:
    """Sort a table, without the columns that only say that nothing was shrunk or that no norm was measured."""
    table = table.with_columns(pl.selectors.float().fill_nan(None))  # `inside` and norms that no part has
    if not shrunk:
        table = table.drop(name for name in table.columns if name in _PLACES or name.startswith("inside"))
    table = table.drop(name for name in table.columns if name.startswith(_LATER) and table[name].is_null().all())
    return in_study_order(table, [name for name in _BY if name in table.columns])


def _described(table: pl.DataFrame) -> pl.DataFrame:
    """Add what the image of a row was (``seen``), in words, and shorter for the name of a file (``name``)."""
    lost = (pl.col("information_loss") * 100).round().cast(pl.Int64)
    seen, name = pl.format("{} % dropped", lost), lost.cast(pl.String)
    if "place" in table.columns:
        side = (pl.col("scale") * 100).round().cast(pl.Int64)
        whole = pl.col("place") == WHOLE
        seen = pl.when(whole).then(seen).otherwise(pl.format("image at {} % of its size, {}", side, "place"))
        name = pl.when(whole).then(name).otherwise(pl.format("{}-{}", "place", side))
    return table.with_columns(seen.alias("seen"), name.alias("name"))


def _marks(row: dict[str, Any]) -> np.ndarray | None:
    return None if row.get("high") is None else np.array(json.loads(row["high"])).reshape(row["rows"], -1)


def _map(row: dict[str, Any]) -> np.ndarray:
    return np.array(json.loads(row["map"])).reshape(row["rows"], -1)
