"""What follows from the accuracies of few-shot episodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import polars as pl

from ipvit.analysis import charts
from ipvit.analysis.aggregate import varying, with_paper
from ipvit.analysis.base import Analysis, by_model
from ipvit.analysis.columns import COMMON, Column
from ipvit.analysis.reduction import Reduction, joined
from ipvit.analysis.sentences import ends
from ipvit.metrics.intervals import episode_interval

if TYPE_CHECKING:
    from ipvit.analysis.charts import Figure

_SETTINGS = ("class_queries", "stored", "patches")
"""Columns of the records that a table has only where one classifier is there with several values of them."""
_DRAWN = ("data_set", "kind", "pool_images", "pool")
"""What episodes are drawn from, and how."""
_LEFT_OUT = ("classes", "classes_left_out", "left_out")

COLUMNS = {**COMMON, "accuracy": Column(unit="percent")}


class FewShotAnalysis(Analysis):
    """Mean accuracy over episodes per kind of episode, classifier and number of blocks."""

    further: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "": ("data_set", "weight", "n_episodes"),
        "episodes": ("data_set", "n_episodes", "ways", "chance", "shots", "classes", "classes_left_out", "left_out"),
    }
    better: ClassVar[Literal["higher", "lower", ""]] = "higher"
    columns: dict[str, Column] = COLUMNS
    metric: str = "accuracy"
    compare_by: tuple[str, ...] | None = ("kind", "classifier", "blocks", "patches")

    def reduce(self, records: pl.DataFrame) -> Reduction:
        """Average over episodes per condition, and keep what the episodes were."""
        settings = [name for name in _SETTINGS if name in records.columns]
        by = ["model", *_DRAWN, "classifier", "blocks", "weight", *settings]
        rows = [
            dict(zip(by, key, strict=True)) | _accuracy(group)
            for key, group in records.group_by(by, maintain_order=True)
        ]
        once = records.unique([*_DRAWN, "image"], keep="first", maintain_order=True)
        left_out = [name for name in _LEFT_OUT if name in records.columns]
        parts = {
            self.name: pl.DataFrame(rows, infer_schema_length=None),
            "episodes": once.select("model", *_DRAWN, "image", "ways", "support", *left_out),
        }
        return self.reduced(records, parts)

    def tables(self, reductions: Sequence[Reduction]) -> dict[str, pl.DataFrame]:
        """Return the tables of the experiment.

        ``fewshot`` has a row per model, kind of episode, classifier and number of blocks: ``accuracy`` in percent with
        the ends of its 95 % interval (over episodes, see :func:`ipvit.metrics.episode_interval`) and its standard
        deviation over episodes; ``weight`` is C of the logistic regression or the penalty of the ridge regression.
        ``fewshot-episodes`` says what the episodes were: their mean ways and support images per class, the accuracy of
        guessing, the number of images and classes that they were drawn from, and which classes were left out because
        they have too few images.
        """
        main, drawn = joined(reductions, self.name), joined(reductions, "episodes")
        settings = ["weight", *varying(main, _SETTINGS, ("model", "kind", "classifier"))]
        pools = ["pool_images", "pool"] if main["pool"].n_unique() > 1 else []
        order = ["data_set", "kind", *pools]
        place = {model: number for number, model in enumerate(main["model"].unique(maintain_order=True))}
        of_model = pl.col("model").replace_strict(place, return_dtype=pl.Int32)
        main = main.sort(*order, of_model, "classifier", "blocks", *settings, maintain_order=True)
        measured = main.columns[main.columns.index("accuracy") :]
        keys = [name for name in ("model", *order, "classifier", "blocks", *settings) if name != "pool"]
        return {self.name: main.select(*keys, *measured), f"{self.name}-episodes": _episodes(drawn, order)}

    def figures(self, tables: dict[str, pl.DataFrame]) -> dict[str, Figure]:
        """Return bars: a panel per kind of episode, a group per classifier, a bar per model and number of blocks."""
        table = tables[self.name]
        sets = table["data_set"].unique().to_list()
        shown = with_paper(table, tables, self.name).filter(pl.col("data_set").is_in(sets))
        shown = shown.with_columns(_series()).with_columns(
            _with_settings("classifier", shown, ("weight", "patches", "stored")),
            _with_settings("kind", shown, ("class_queries", "pool_images", *(["data_set"] if len(sets) > 1 else []))),
        )
        return {
            self.name: charts.bars(
                shown.sort("kind", "classifier", maintain_order=True),
                charts.Encoding(
                    x="classifier",
                    y="accuracy",
                    series="series",
                    facet="kind",
                    x_title="Classifier",
                    y_title="Accuracy (%), mean over episodes",
                    y_domain=(0, 100),
                    n="n_episodes",
                ),
                title=f"Few-shot learning: {sets[0]}" if len(sets) == 1 else "Few-shot learning",
            )
        }

    def figures_across(self, tables: dict[str, pl.DataFrame]) -> dict[str, Figure]:
        """Return bars over the data sets that episodes are drawn from (figure 16).

        There is a panel per kind of episode and classifier.
        """
        table = tables[self.name]
        sets = table["data_set"].unique(maintain_order=True).to_list()
        shown = with_paper(table, tables, self.name).filter(pl.col("data_set").is_in(sets)).with_columns(_series())
        shown = shown.with_columns(
            _with_settings("classifier", shown, ("weight", "patches", "stored")),
            _with_settings("kind", shown, ("class_queries",)),
        )
        panel = pl.format("{}, {}", "kind", "classifier") if shown["classifier"].n_unique() > 1 else pl.col("kind")
        place = {name: number for number, name in enumerate(sets)}
        return {
            f"{self.name}-sources": charts.bars(
                shown.with_columns(panel.alias("panel")).sort(
                    "panel", pl.col("data_set").replace_strict(place, return_dtype=pl.Int32), maintain_order=True
                ),
                charts.Encoding(
                    x="data_set",
                    y="accuracy",
                    series="series",
                    facet="panel",
                    x_title="Source of the episodes",
                    y_title="Accuracy (%), mean over episodes",
                    y_domain=(0, 100),
                    n="n_episodes",
                ),
                title="Few-shot learning",
            )
        }

    def answer(self, tables: dict[str, pl.DataFrame]) -> dict[str, str]:
        """Say what each model reaches per kind of episode, and by what."""
        by = ["model", "data_set", "kind"]
        rows = tables[self.name].group_by(by, maintain_order=True)
        return by_model((str(model), _best(part, lone=True)) for (model, _, _), part in rows)

    def summary(self, tables: dict[str, pl.DataFrame]) -> list[str]:
        """Say per kind of episode which network, classifier and number of blocks is best; then what was left out."""
        main = tables[self.name]
        lone = main["model"].n_unique() == 1
        sentences = [_best(rows, lone=lone) for _, rows in main.group_by(["data_set", "kind"], maintain_order=True)]
        return sentences + _left_out(tables[f"{self.name}-episodes"])


def _episodes(drawn: pl.DataFrame, order: Sequence[str]) -> pl.DataFrame:
    """Return what the episodes were, each counted once: all models are asked the same ones."""
    once = drawn.unique([*order, "image"], keep="first", maintain_order=True)
    ways = pl.col("ways").cast(pl.Float64)
    table = once.group_by(order, maintain_order=True).agg(
        n_episodes=pl.len(),
        ways=ways.mean(),
        shots=(pl.col("support") / ways).mean(),
        chance=(100 / ways).mean(),
        n_images=pl.col("pool_images").first(),
        **{name: pl.col(name).first() for name in _LEFT_OUT if name in once.columns},
    )
    return table.sort(order).drop("pool_images", "pool", strict=False)


def _accuracy(group: pl.DataFrame) -> dict[str, Any]:
    values = group["accuracy"].cast(pl.Float64)
    queries = cast("float", group["queries"].cast(pl.Float64).mean())
    low, high = episode_interval(values.to_numpy() / 100, queries)
    return {
        "accuracy": values.mean(),
        "accuracy_low": 100 * low,
        "accuracy_high": 100 * high,
        "accuracy_std": values.std(),
        "n_episodes": group.height,
    }


def _series() -> pl.Expr:
    """Name bars by model and number of blocks."""
    together = pl.format("{}, last {} blocks", "model", "blocks")
    return pl.when(pl.col("blocks") > 1).then(together).otherwise("model").alias("series")


def _with_settings(column: str, table: pl.DataFrame, settings: Sequence[str]) -> pl.Expr:
    """Return a column with the settings behind its text that vary where it is the same; the paper's rows have none."""
    parts: list[pl.Expr] = []
    for name in (name for name in settings if name in table.columns):
        varies = pl.col(name).is_not_null() & (pl.col(name).drop_nulls().n_unique().over(column) > 1)
        value = pl.col(name).cast(pl.String).str.strip_suffix(".0")
        text = pl.format("; {} {}", pl.lit(name.replace("_", " ")), value)
        parts.append(pl.when(varies).then(text).otherwise(pl.lit("")))
    return pl.concat_str(column, *parts)


def _best(rows: pl.DataFrame, *, lone: bool) -> str:
    """Say what is best among the rows of one kind of episode; ``lone``: they are all of one network."""
    best = rows.sort("accuracy", descending=True, maintain_order=True).row(0, named=True)
    verb = "reaches" if lone else "is best with"
    how = f"reading {_blocks(best['blocks'])} with {_WORDS[best['classifier']]}"
    more = f", the best of {rows.height} ways" if lone and rows.height > 1 else ""
    return (
        f"{best['data_set']}, {best['kind']}: {best['model']} {verb} {best['accuracy']:.1f} %"
        f"{ends(best, 'accuracy', 1)}, {how}{more}."
    )


def _left_out(episodes: pl.DataFrame) -> list[str]:
    """Say which classes have too few images to be drawn."""
    if "classes_left_out" not in episodes.columns:
        return []
    n = pl.col("classes") + pl.col("classes_left_out")
    lacking = episodes.filter(pl.col("classes_left_out") > 0).with_columns(n.alias("n"))
    return [
        f"{row['data_set']}, {row['kind']}: {row['classes_left_out']} of {row['n']} classes have too few images and "
        f"are never drawn ({row['left_out']})."
        for row in lacking.to_dicts()
    ]


_WORDS = {"logistic": "logistic regression", "centroid": "nearest centroids", "ridge": "ridge regression"}


def _blocks(n: int) -> str:
    return "the last block" if n == 1 else f"the last {n} blocks"
