"""What follows from the Jaccard index of every head on every image."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, cast

import polars as pl

from ipvit.analysis import charts
from ipvit.analysis.aggregate import mean_table, varying
from ipvit.analysis.answers import each
from ipvit.analysis.base import Analysis
from ipvit.analysis.columns import COMMON, Column
from ipvit.analysis.profile import Question, measured_question
from ipvit.analysis.reduction import Reduction, joined
from ipvit.analysis.sentences import is_missing
from ipvit.experiments.segment.experiment import BEST, CENTRE, EVERYTHING, MEAN
from ipvit.perturb.seeding import keys

if TYPE_CHECKING:
    from ipvit.analysis.charts import Figure

ORACLE = "best head (oracle)"
CHOSEN = "chosen head"
AVERAGE = "mean of heads"
NO_NETWORK = "no network"
WITHOUT = {EVERYTHING: "everything foreground", CENTRE: "centre box"}
SETTINGS = ("block", "protocol")
MEASURES = ("jaccard", "jaccard_instance")
COLUMNS = {
    **COMMON,
    "jaccard": Column(title="Jaccard (%)", unit="percent", range=(0, 100)),
    "jaccard_instance": Column(title="Jaccard of one object (%)", unit="percent", range=(0, 100)),
    "block": Column(special={"-1": "last"}),
    "finite": Column(
        average="flag", missing="results rest on attention that was not finite; they are left out of the means."
    ),
}
_BY = ("model", "token", "threshold", *SETTINGS)


class SegmentAnalysis(Analysis):
    """The Jaccard index (%) of each way to make one mask of many heads, of every head, and without a network."""

    further: ClassVar[Mapping[str, tuple[str, ...]]] = {"heads": ()}
    better: ClassVar[Literal["higher", "lower", ""]] = "higher"
    columns: dict[str, Column] = COLUMNS
    metric: str = "jaccard"
    compare_by: tuple[str, ...] | None = ("token", "threshold", "mask", "protocol")
    record_columns: tuple[str, ...] | None = ("token", "threshold", *SETTINGS, "head", *MEASURES, "finite")

    def reduce(self, records: pl.DataFrame) -> Reduction:
        """Average over the images that have an object, per token, threshold, block and protocol.

        Two models are compared by what the best head for each object and the mean of the heads reach on every image.
        """
        measures = [name for name in MEASURES if name in records.columns]
        scores = records.with_columns(pl.col(name).cast(pl.Float64) * 100 for name in measures)
        ways = {BEST: ORACLE, MEAN: AVERAGE}
        compared = scores.filter(pl.col("head").is_in(list(ways)) & (pl.col("token") != ""))
        compared = compared.with_columns(pl.col("head").replace_strict(ways).alias("mask"))
        seen = scores.filter(pl.col("jaccard").is_not_nan() & pl.col("jaccard").is_not_null())
        parts = {} if seen.is_empty() else self._parts(seen, measures)
        return self.reduced(records, parts, compared=compared)

    def _parts(self, seen: pl.DataFrame, measures: list[str]) -> dict[str, pl.DataFrame]:
        """Return the rows of one model: its masks, its heads, and the masks without a network."""
        networks = seen.filter(pl.col("token") != "")
        numbered = networks.filter(pl.col("head").str.contains(r"^\d+$"))
        rows = pl.concat(
            [
                networks.filter(pl.col("head") == BEST).with_columns(mask=pl.lit(ORACLE), head=pl.lit("")),
                _chosen(numbered, list(_BY)),
                networks.filter(pl.col("head") == MEAN).with_columns(mask=pl.lit(AVERAGE), head=pl.lit("")),
            ],
            how="diagonal_relaxed",
        )
        order = pl.col("mask").replace_strict({ORACLE: 0, CHOSEN: 1, AVERAGE: 2}, return_dtype=pl.Int32)
        heads = numbered.with_columns(pl.col("head").cast(pl.Int32))
        without = seen.filter(pl.col("token") == "").with_columns(
            pl.lit(NO_NETWORK).alias("model"),
            pl.lit(None, dtype=pl.Float64).alias("threshold"),
            pl.col("head").replace_strict(WITHOUT, default="").alias("mask"),
            pl.lit("").alias("head"),
        )
        by = [*_BY, "mask", "head"]
        return {
            self.name: _means(rows.sort(*_BY, order, maintain_order=True), by, measures),
            f"{self.name}-heads": _means(heads.sort(*_BY, "head", maintain_order=True), [*_BY, "head"], measures),
            NO_NETWORK: _means(without, by, measures),
        }

    def tables(self, reductions: Sequence[Reduction]) -> dict[str, pl.DataFrame]:
        """Return the Jaccard index (%) of each way to make one mask of many heads, and of every head by itself.

        Returns:
            ``segment``: the oracle of the paper's protocol (for each object the head that fits it best); the chosen
            head, one for all images, chosen on one half of them and measured on the other, and the other way round;
            the mean of the heads; and what one has without a network. ``segment-heads``: every head.
        """
        found = [reduction for reduction in reductions if reduction.parts]
        main, heads = joined(found, self.name), joined(found, f"{self.name}-heads")
        if main.is_empty():
            return {}
        several = varying(pl.concat([main, heads], how="diagonal_relaxed"), SETTINGS)
        # the masks without a network are the same for every model of one input size
        whole = pl.concat([main, joined(found[:1], NO_NETWORK)], how="diagonal_relaxed")
        hidden = [*(name for name in SETTINGS if name not in several), "n_runs"]  # nothing is random
        return {self.name: whole.drop(hidden), f"{self.name}-heads": heads.drop(hidden)}

    def figures(self, tables: dict[str, pl.DataFrame]) -> dict[str, Figure]:
        """Return the masks and the heads at the threshold nearest to 0.9, and the masks over several thresholds."""
        if not tables:
            return {}
        table = _with_series(tables[self.name])
        usual = _usual(table)
        at = table.filter(pl.col("threshold").is_null() | (pl.col("threshold") == usual))
        heads = _with_series(tables[f"{self.name}-heads"]).filter(pl.col("threshold") == usual)
        highest = cast("float", at["jaccard_high"].fill_nan(None).max() or at["jaccard"].max())
        found: dict[str, Figure] = {
            self.name: charts.dots(
                at,
                charts.Encoding(
                    x="jaccard",
                    y="series",
                    series="mask",
                    x_title="Jaccard index (%)",
                    y_title=" ",
                    x_domain=(0, min(100, 10 * math.ceil(highest / 10))),
                ),
                title=f"Masks that hold {100 * usual:.0f} % of the attention",
            ),
            f"{self.name}-heads": charts.dots(
                heads.with_columns(pl.col("head").cast(pl.String)),  # a name, not a quantity
                charts.Encoding(
                    x="head", y="jaccard", series="series", x_title="Head (from 0)", y_title="Jaccard index (%)"
                ),
                title=f"Every head, {100 * usual:.0f} % of its attention",
            ),
        }
        if table["threshold"].n_unique() > 2:
            found[f"{self.name}-threshold"] = charts.curve(
                table.filter(pl.col("threshold").is_not_null()),
                charts.Encoding(
                    x="threshold",
                    y="jaccard",
                    series="series",
                    facet="mask",
                    x_title="Share of the attention inside the mask",
                    y_title="Jaccard index (%)",
                    x_format=".0%",
                ),
                title="Masks over the threshold",
            )
        return found

    def summary(self, tables: dict[str, pl.DataFrame]) -> list[str]:
        """Say how well attention finds the objects, and how well one does without a network."""
        if not tables:
            return ["No image has an object in its mask."]
        without = tables[self.name].filter(pl.col("model") == NO_NETWORK).select("mask", "jaccard").iter_rows()
        return [
            *super().summary(tables),
            "Without a network: " + ", ".join(f"{mask} {value:.1f} %" for mask, value in without) + ".",
        ]

    def questions(self, reductions: Sequence[Reduction], tables: Mapping[str, pl.DataFrame]) -> list[Question]:
        """Return the Jaccard index of the mean of the heads at the usual threshold, token by token."""
        if not tables:
            return []
        table = tables[self.name].filter(pl.col("model") != NO_NETWORK, pl.col("mask") == AVERAGE)
        usual = _usual(table)
        found: list[Question] = []
        for (token,), frame in table.filter(pl.col("threshold") == usual).group_by(["token"], maintain_order=True):
            if frame["model"].n_unique() < frame.height:
                continue  # read in several ways
            found.append(
                measured_question(
                    self,
                    reductions,
                    {row["model"]: row for row in frame.to_dicts()},
                    "jaccard",
                    key=f"{self.name}-{token}",
                    title=f"objects, {token} token",
                    what=f"Jaccard index (%) of the mean of the heads at {100 * usual:.0f} % of the attention",
                    condition={"token": token, "threshold": usual, "mask": AVERAGE},
                )
            )
        return found

    def lead(self, tables: dict[str, pl.DataFrame]) -> str:
        """Say how well the mean of the heads finds the objects, beside a box that looks at no image."""
        if not tables:
            return ""
        table = _with_series(tables[self.name])
        usual = _usual(table)
        rows = table.filter(pl.col("threshold") == usual, pl.col("mask") == AVERAGE).to_dicts()
        values = [(r["series"], r["jaccard"], f"{r['jaccard']:.0f} %") for r in rows if not is_missing(r["jaccard"])]
        box = table.filter(pl.col("model") == NO_NETWORK, pl.col("mask") == WITHOUT[CENTRE])["jaccard"]
        beside = f"; a box in the centre, without a network, reaches {box[0]:.0f} %" if len(box) else ""
        if not values:
            return ""
        start = f"Jaccard index of the heads' mean with the objects, at {100 * usual:.0f} % of the attention"
        return f"{start}: {each(values)}{beside}."

    def sentences(self, tables: dict[str, pl.DataFrame]) -> Iterator[tuple[str, str]]:
        """Say how well the attention of each model finds the objects."""
        if not tables:
            return
        table = _with_series(tables[self.name])
        usual = _usual(table)
        rows = table.filter(pl.col("threshold") == usual)
        for (model, series), frame in rows.group_by(["model", "series"], maintain_order=True):
            value = dict(frame.select("mask", "jaccard").iter_rows())
            chosen = (
                f"one head chosen on the other half of the images reaches {value[CHOSEN]:.1f}, "
                if CHOSEN in value
                else ""
            )
            yield (
                str(model),
                f"{series}: at {100 * usual:.0f} % of the attention, {chosen}the mean of the heads "
                f"{value[AVERAGE]:.1f}, the best head for each object (an oracle) {value[ORACLE]:.1f} % Jaccard.",
            )


def _means(rows: pl.DataFrame, by: list[str], measures: list[str]) -> pl.DataFrame:
    """Average over images; an empty frame where a model's attention was never finite."""
    return mean_table(rows, by, measures, COLUMNS) if rows.height else pl.DataFrame()


def _chosen(numbered: pl.DataFrame, settings: list[str]) -> pl.DataFrame:
    """Keep for every image the head that is best on the images of the other half."""
    half = pl.Series(keys(numbered["image"].to_list(), "halves of segment") % 2 == 1)
    found: list[pl.DataFrame] = []
    for _, group in numbered.with_columns(half=half).group_by(settings, maintain_order=True):
        sides = [group.filter(pl.col("half") == side) for side in (False, True)]
        if any(side.is_empty() for side in sides):
            continue
        kept: list[pl.DataFrame] = []
        heads: list[str] = []
        for side, other in (sides, reversed(sides)):
            means = (
                other.group_by("head").agg(pl.col("jaccard").mean()).sort("jaccard", "head", descending=[True, False])
            )
            heads.append(means["head"][0])
            kept.append(side.filter(pl.col("head") == heads[-1]))
        names = ", ".join(sorted(set(heads), key=int))
        found.append(pl.concat(kept).with_columns(mask=pl.lit(CHOSEN), head=pl.lit(names)))
    columns = numbered.clear().with_columns(half=pl.lit(False), mask=pl.lit(""), head=pl.lit(""))
    return pl.concat(found, how="diagonal_relaxed") if found else columns


def _usual(table: pl.DataFrame) -> float:
    """Return the threshold nearest to the paper's."""
    return min(table["threshold"].drop_nulls().unique().sort(), key=lambda value: abs(value - 0.9))


def _with_series(table: pl.DataFrame) -> pl.DataFrame:
    """Name rows after model and token, and after block and protocol where there are several."""
    others = {
        "block": pl.when(pl.col("block") >= 0).then(pl.format("block {}", "block")),
        "protocol": pl.col("protocol"),
    }
    others = [words for name, words in others.items() if name in table.columns]
    words = [pl.col("model"), pl.col("token").replace({"": None}), *others]
    series = pl.concat_str(words, separator=", ", ignore_nulls=True)
    return table.with_columns(series.alias("series"))
