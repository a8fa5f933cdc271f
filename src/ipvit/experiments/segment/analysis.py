"""What becomes of the Jaccard index of every head on every image: tables, figures and sentences."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import polars as pl

from ipvit.analysis import charts
from ipvit.analysis.aggregate import mean_table, varying
from ipvit.perturb.seeding import keys

if TYPE_CHECKING:
    from ipvit.analysis.charts import Figure

ORACLE = "best head (oracle)"
CHOSEN = "chosen head"
AVERAGE = "mean of heads"
NO_NETWORK = "no network"
WITHOUT = {"everything": "everything foreground", "centre": "centre box"}
SETTINGS = ("block", "protocol")
MEASURES = ("jaccard", "jaccard_instance")


def tables(records: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Return the Jaccard index (%) of each way to make one mask of many heads, and of every head by itself.

    Args:
        records: one row per image, model, token, threshold and head; see
            :class:`ipvit.experiments.segment.experiment.Segment`.

    Returns:
        ``segment``: the oracle of the paper's protocol (for each object the head that fits it best); the chosen head,
        one for all images, chosen on one half of them and measured on the other, and the other way round; the mean of
        the heads; and what one has without a network. ``segment-heads``: every head.
    """
    measures = [name for name in MEASURES if name in records.columns]
    seen = records.filter(pl.col("jaccard").is_not_nan() & pl.col("jaccard").is_not_null())
    if seen.is_empty():
        return {}
    seen = seen.with_columns(pl.col(name).cast(pl.Float64) * 100 for name in measures)
    networks = seen.filter(pl.col("token") != "")
    settings = ["model", "token", "threshold", *varying(networks, SETTINGS)]
    numbered = networks.filter(pl.col("head").str.contains(r"^\d+$"))
    parts = [
        networks.filter(pl.col("head") == "best").with_columns(mask=pl.lit(ORACLE), head=pl.lit("")),
        _chosen(numbered, settings),
        networks.filter(pl.col("head") == "mean").with_columns(mask=pl.lit(AVERAGE), head=pl.lit("")),
    ]
    main = pl.concat([mean_table(part, [*settings, "mask", "head"], measures) for part in parts if part.height])
    order = {name: place for place, name in enumerate(records["model"].unique(maintain_order=True))}
    ways = pl.col("mask").replace_strict({ORACLE: 0, CHOSEN: 1, AVERAGE: 2}, return_dtype=pl.Int32)
    models = pl.col("model").replace_strict(order, return_dtype=pl.Int32)
    main = main.sort(models, *settings[1:], ways, maintain_order=True)
    per_head = mean_table(numbered.with_columns(pl.col("head").cast(pl.Int32)), [*settings, "head"], measures)
    whole = pl.concat([main, _baselines(seen, [*settings, "mask", "head"], measures)])
    return {
        "segment": whole.drop("n_runs"),  # nothing is random
        "segment-heads": per_head.sort(models, *settings[1:], "head", maintain_order=True).drop("n_runs"),
    }


def _chosen(numbered: pl.DataFrame, settings: list[str]) -> pl.DataFrame:
    """Keep for every image the head that is best on the images of the other half."""
    half = pl.Series(keys(numbered["image"].to_list(), "halves of segment") % 2 == 1)
    found = []
    for _, group in numbered.with_columns(half=half).group_by(settings, maintain_order=True):
        sides = [group.filter(pl.col("half") == side) for side in (False, True)]
        if any(side.is_empty() for side in sides):
            continue
        kept, heads = [], []
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


def _baselines(seen: pl.DataFrame, by: list[str], measures: list[str]) -> pl.DataFrame:
    """Measure the masks that need no network, once: they are the same for every model of one input size."""
    first = seen["model"][0]
    rows = seen.filter((pl.col("model") == first) & (pl.col("token") == "")).with_columns(
        pl.lit(NO_NETWORK).alias("model"),
        pl.lit(None, dtype=pl.Float64).alias("threshold"),
        pl.col("head").replace_strict(WITHOUT, default="").alias("mask"),
        pl.lit("").alias("head"),
    )
    return mean_table(rows, by, measures) if rows.height else pl.DataFrame()


def figures(tables: dict[str, pl.DataFrame]) -> dict[str, Figure]:
    """Return the masks side by side at the threshold nearest to 0.9, the heads there, and a curve over thresholds."""
    if not tables:
        return {}
    table = _with_series(tables["segment"])
    usual = _usual(table)
    at = table.filter(pl.col("threshold").is_null() | (pl.col("threshold") == usual))
    heads = _with_series(tables["segment-heads"]).filter(pl.col("threshold") == usual)
    highest = at["jaccard_high"].fill_nan(None).max() or at["jaccard"].max()
    found: dict[str, Figure] = {
        "segment": charts.dots(
            at,
            charts.Encoding(
                x="jaccard",
                y="series",
                series="mask",
                x_title="Jaccard index (%)",
                y_title=" ",
                x_domain=(0, min(100, 10 * math.ceil(float(highest) / 10))),  # pyright: ignore[reportArgumentType]
            ),
            title=f"Masks that hold {usual:.0%} of the attention",
        ),
        "segment-heads": charts.dots(
            heads.with_columns(pl.col("head").cast(pl.String)),  # a name, not a quantity
            charts.Encoding(
                x="head", y="jaccard", series="series", x_title="Head (from 0)", y_title="Jaccard index (%)"
            ),
            title=f"Every head, {usual:.0%} of its attention",
        ),
    }
    if table["threshold"].n_unique() > 2:
        found["segment-threshold"] = charts.curve(
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


def summary(tables: dict[str, pl.DataFrame]) -> list[str]:
    """Say how well attention finds the objects, and how well one does without a network."""
    if not tables:
        return ["No image has an object in its mask."]
    table = _with_series(tables["segment"])
    usual = _usual(table)
    sentences = []
    for (series,), frame in table.filter(pl.col("threshold") == usual).group_by(["series"], maintain_order=True):
        value = dict(frame.select("mask", "jaccard").iter_rows())
        chosen = (
            f"one head chosen on the other half of the images reaches {value[CHOSEN]:.1f}, " if CHOSEN in value else ""
        )
        sentences.append(
            f"{series}: at {usual:.0%} of the attention, {chosen}the mean of the heads {value[AVERAGE]:.1f}, the best "
            f"head for each object (an oracle) {value[ORACLE]:.1f} % Jaccard."
        )
    without = table.filter(pl.col("model") == NO_NETWORK).select("mask", "jaccard").iter_rows()
    sentences.append("Without a network: " + ", ".join(f"{mask} {value:.1f} %" for mask, value in without) + ".")
    return sentences


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
