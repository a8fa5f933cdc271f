"""Tables, figures and sentences of the few-shot experiment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import polars as pl

from ipvit.data.transfer import SPLIT_NAMES
from ipvit.experiments import charts
from ipvit.experiments.aggregate import varying, with_paper
from ipvit.metrics.intervals import mean_interval

if TYPE_CHECKING:
    from ipvit.experiments.charts import Figure

NAME = "fewshot"

PAPER_NAMES = {
    "omniglot": "Omniglot",
    "aircraft": "Aircraft",
    "cub": "CUB",
    "dtd": "DTD",
    "quickdraw": "QuickDraw",
    "fungi": "Fungi",
    "flowers102": "Flower",
    "gtsrb": "GTSRB",
    "coco-crops": "MS-COCO",
    "mnist": "MNIST",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
}
"""Published sets by the names that figure 16 gives them."""

_SETTINGS = ("class_queries", "weight", "stored", "patches")


def data_set(name: str) -> str:
    """Return what figure 16 calls a data set, or a short form of its own name.

    >>> data_set("cub:birds/all"), data_set("here/photos/val.tar"), data_set("folder:photos/test")
    ('CUB', 'photos/val.tar', 'photos')
    """
    scheme, _, place = name.partition(":")
    if scheme in PAPER_NAMES:
        return PAPER_NAMES[scheme]
    if scheme == "folder":
        return PurePath(place).parent.name or place
    if scheme == "demo":
        return name
    path = PurePath(name)
    return "/".join(path.parts[-2:]) if path.stem in SPLIT_NAMES else path.name


def tables(records: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Return the tables of the experiment.

    ``fewshot`` has a row per model, kind of episode, classifier and number of blocks: ``accuracy`` in percent with the
    ends of its 95 % interval (Student's t over episodes) and its standard deviation over episodes. ``fewshot-episodes``
    says what the episodes were: their mean ways and support images per class, the accuracy of guessing, and the number
    of images that they were drawn from.
    """
    settings = varying(records, _SETTINGS, ("model", "kind", "classifier"))
    pools = ["pool_images", "pool"] if records["pool"].n_unique() > 1 else []
    order = ["data_set", "kind", *pools]
    by = ["model", *order, "classifier", "blocks", *settings]
    rows = [
        dict(zip(by, key, strict=True)) | _accuracy(group) for key, group in records.group_by(by, maintain_order=True)
    ]
    place = {model: number for number, model in enumerate(records["model"].unique(maintain_order=True))}
    main = pl.DataFrame(rows, infer_schema_length=None).with_columns(
        pl.col("model").replace_strict(place, return_dtype=pl.Int32).alias("_place")
    )
    main = main.sort([*order, "_place", "classifier", "blocks", *settings], maintain_order=True)
    main = main.drop("_place", "pool", strict=False)
    ways = pl.col("ways").cast(pl.Float64)
    once = records.unique([*order, "image"], keep="first", maintain_order=True)
    episodes = once.group_by(order, maintain_order=True).agg(
        n_episodes=pl.len(),
        ways=ways.mean(),
        shots=(pl.col("support") / ways).mean(),
        chance=(100 / ways).mean(),
        n_images=pl.col("pool_images").first(),
    )
    return {NAME: main, f"{NAME}-episodes": episodes.sort(order).drop(pools)}


def _accuracy(group: pl.DataFrame) -> dict[str, Any]:
    values = group["accuracy"].cast(pl.Float64)
    low, high = mean_interval(values.to_numpy())
    return {
        "accuracy": values.mean(),
        "accuracy_low": low,
        "accuracy_high": high,
        "accuracy_std": values.std(),
        "n_episodes": group.height,
    }


def figures(tables: dict[str, pl.DataFrame]) -> dict[str, Figure]:
    """Return bars: a panel per kind of episode, a group per classifier, a bar per model and number of blocks."""
    table = tables[NAME]
    sets = table["data_set"].unique().to_list()
    shown = with_paper(table, tables, NAME).filter(pl.col("data_set").is_in(sets))
    together = pl.format("{}, last {} blocks", "model", "blocks")
    shown = shown.with_columns(pl.when(pl.col("blocks") > 1).then(together).otherwise("model").alias("series"))
    shown = shown.with_columns(
        _with_settings("classifier", shown, ("weight", "patches", "stored")),
        _with_settings("kind", shown, ("class_queries", "pool_images", *(["data_set"] if len(sets) > 1 else []))),
    )
    return {
        NAME: charts.bars(
            shown.sort("kind", "classifier", maintain_order=True),
            x="classifier",
            y="accuracy",
            low="accuracy_low",
            high="accuracy_high",
            series="series",
            facet="kind",
            x_title="Classifier",
            y_title="Accuracy (%), mean over episodes",
            title=f"Few-shot learning: {sets[0]}" if len(sets) == 1 else "Few-shot learning",
            y_domain=(0, 100),
            n="n_episodes",
        )
    }


def _with_settings(column: str, table: pl.DataFrame, settings: Sequence[str]) -> pl.Expr:
    """Return a column with the settings behind its text that vary where it is the same; the paper's rows have none."""
    parts = []
    for name in (name for name in settings if name in table.columns):
        varies = pl.col(name).is_not_null() & (pl.col(name).drop_nulls().n_unique().over(column) > 1)
        value = pl.col(name).cast(pl.String).str.strip_suffix(".0")
        text = pl.format("; {} {}", pl.lit(name.replace("_", " ")), value)
        parts.append(pl.when(varies).then(text).otherwise(pl.lit("")))
    return pl.concat_str(column, *parts)


def summary(tables: dict[str, pl.DataFrame]) -> list[str]:
    """Say per kind of episode which network, classifier and number of blocks is best."""
    sentences = []
    for (data, kind), rows in tables[NAME].group_by(["data_set", "kind"], maintain_order=True):
        best = rows.sort("accuracy", descending=True, maintain_order=True).row(0, named=True)
        sentences.append(
            f"{data}, {kind}: {best['model']} is best with {best['accuracy']:.1f} % "
            f"({best['accuracy_low']:.1f} to {best['accuracy_high']:.1f}), reading "
            f"{_blocks(best['blocks'])} with {_WORDS[best['classifier']]}."
        )
    return sentences


_WORDS = {"logistic": "logistic regression", "centroid": "nearest centroids", "ridge": "ridge regression"}


def _blocks(n: int) -> str:
    return "the last block" if n == 1 else f"the last {n} blocks"
