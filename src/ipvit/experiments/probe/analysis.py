"""What follows from the answers of linear heads on the tokens of blocks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import polars as pl

from ipvit.analysis import charts
from ipvit.analysis.aggregate import PAPER, accuracy_table, varying
from ipvit.analysis.base import Analysis, by_model
from ipvit.analysis.looks import COLOURS
from ipvit.analysis.reduction import Reduction, in_study_order, joined
from ipvit.analysis.sentences import ends
from ipvit.experiments.probe.experiment import OWN
from ipvit.features.linear_heads import TOLERANCE
from ipvit.metrics.paired import mcnemar, paired_proportions

if TYPE_CHECKING:
    from ipvit.analysis.charts import Figure

SINGLE = ("class", "pooled")
"""Kinds of tokens that networks themselves classify by."""

_BY = ("model", "head", "tokens", "n_blocks", "block", "blocks")
_SETTINGS = ("norm", "fit")
"""Columns of the records that a table has only where one head is there with several values of them."""
_REMARKS = ("train_images", "validation", "chosen", "at_edge", "steps", "gradient", "converged", "file")


class ProbeAnalysis(Analysis):
    """Accuracy by block and head, and what several blocks or tokens gain together."""

    further: ClassVar[Mapping[str, tuple[str, ...]]] = {"gain": ("difference", "p_mcnemar"), "heads": ()}
    compare_by: tuple[str, ...] | None = ("head", "tokens", "blocks")
    record_columns: tuple[str, ...] | None = (*_BY, *_SETTINGS, *_REMARKS, "correct", "correct5")
    train: str = ""
    """Name of the data that heads were fitted on; it decides which of the paper's numbers the figures show beside."""

    def reduce(self, records: pl.DataFrame) -> Reduction:
        """Average per head, compare several blocks with the last one alone, and keep what every head states."""
        settings = [name for name in _SETTINGS if name in records.columns]
        by = [*_BY, *settings]
        fitted = records.filter(pl.col("head") != OWN)
        remarks = [pl.col(name).first() for name in _REMARKS if name in fitted.columns]
        parts = {
            self.name: accuracy_table(records, by),
            "gain": pl.DataFrame(list(_gains(fitted.filter(pl.col("label") >= 0), settings)), infer_schema_length=None),
            "heads": fitted.group_by(by, maintain_order=True).agg(remarks),
        }
        return self.reduced(records, parts)

    def tables(self, reductions: Sequence[Reduction]) -> dict[str, pl.DataFrame]:
        """Return the tables of the experiment.

        ``probe`` has a row per model and head; ``probe-gain`` what more blocks or tokens gain over the last block's own
        token, in percentage points on the same images, with paired intervals; ``probe-heads`` what was chosen on how
        many percent right of the validation images, whether it lies ``at_edge`` of what there was to choose from, after
        how many ``steps`` the fit ended with which largest component of the ``gradient``, and where the head is.
        """
        main, gains, heads = (joined(reductions, part) for part in (self.name, "gain", "heads"))
        settings = varying(main, _SETTINGS, ("model", "head"))
        by = [*_BY, *settings]
        same = [name for name in _SETTINGS if name in main.columns and name not in settings]
        left_out = ("block", "n_blocks", *same)
        main = in_study_order(main, by)
        found = {self.name: main.drop(*left_out, "n_runs", "top1_std", "top5_std")}
        if not gains.is_empty():
            found[f"{self.name}-gain"] = gains.drop(same)
        if not heads.is_empty():
            numbers = [pl.col(name) for name in ("validation", "gradient") if name in heads.columns]
            heads = in_study_order(heads, by).drop(left_out)
            found[f"{self.name}-heads"] = heads.with_columns(
                number.fill_nan(None).cast(pl.Float64) for number in numbers
            )
        return found

    def figures(self, tables: dict[str, pl.DataFrame]) -> dict[str, Figure]:
        """Return a curve over single blocks (figure 15) and, where heads are fitted, bars for the last blocks together.

        The paper's numbers for fitted heads (table 5) stand beside those on data of the same name.
        """
        main, paper = _with_numbers(tables[self.name]), tables.get(f"{self.name}{PAPER}")
        alone = main.filter(pl.col("n_blocks") == 1)
        together = _together(main)
        if paper is not None:
            paper = _once(_with_numbers(paper))
            if not alone.filter(pl.col("head") == OWN).is_empty():
                alone = _beside(alone, paper.filter(pl.col("head") == OWN))
            together = _beside(together, paper.filter(pl.col("head") != OWN, _named(pl.col("data"), self.train)))
        found = {
            f"{self.name}-blocks": charts.curve(
                _with_series(alone).sort("block", maintain_order=True),
                charts.Encoding(
                    x="block",
                    y="top1",
                    series="series",
                    x_title="Block or stage that is read (from 0)",
                    y_title="Top-1 accuracy (%)",
                    y_domain=(0, 100),
                    x_scale="ordinal",
                ),
                title="One block at a time",
            )
        }
        if not together.is_empty():
            found[f"{self.name}-together"] = charts.bars(
                _with_series(together).with_columns(_which()).sort("n_blocks", maintain_order=True),
                charts.Encoding(
                    x="blocks read",
                    y="top1",
                    series="series",
                    x_title="Blocks read together",
                    y_title="Top-1 accuracy (%)",
                    y_domain=(0, 100),
                ),
                title="The last blocks together",
            )
        return found

    def figures_across(self, tables: dict[str, pl.DataFrame]) -> dict[str, Figure]:
        """Return bars over data sets: every network's last block, and its last blocks together (table 5, figure 16)."""
        shown = _together(_with_numbers(tables[self.name]))
        if shown.is_empty():
            return {}
        paper = tables.get(f"{self.name}{PAPER}")
        if paper is not None:
            fitted = _once(_with_numbers(paper.filter(pl.col("head") != OWN)))
            for name in shown["data_set"].unique(maintain_order=True).to_list():
                theirs = fitted.filter(_named(pl.col("data"), name)).with_columns(pl.lit(name).alias("data_set"))
                shown = _beside(shown, theirs)
        shown = _with_series(shown).with_columns(pl.concat_str(["series", _which()], separator=", ").alias("series"))
        several = shown["series"].n_unique() > len(COLOURS)
        if several:  # a panel for each network then, and one colour for alike heads
            alone = pl.col("series").str.strip_prefix(pl.col("model")).str.strip_prefix(", ")
            shown = shown.with_columns(alone.alias("series"))
        return {
            f"{self.name}-transfer": charts.bars(
                shown,
                charts.Encoding(
                    x="data_set",
                    y="top1",
                    series="series",
                    facet="model" if several else None,
                    x_title="Data set",
                    y_title="Top-1 accuracy (%)",
                    y_domain=(0, 100),
                ),
                title="Linear heads on the tokens of the last blocks",
            )
        }

    def answer(self, tables: dict[str, pl.DataFrame]) -> dict[str, str]:
        """Say of each model which block knows most, and what several of them or other tokens gain together."""
        return by_model(
            (model, sentence) for model, rows, gains, _ in self._by_model(tables) for sentence in _known(rows, gains)
        )

    def summary(self, tables: dict[str, pl.DataFrame]) -> list[str]:
        """Say the same, where the best head is, and which heads another fit may make better."""
        return [
            sentence
            for _, rows, gains, heads in self._by_model(tables)
            for sentence in (*_known(rows, gains), *_fits(heads))
        ]

    def _by_model(
        self, tables: dict[str, pl.DataFrame]
    ) -> Iterator[tuple[str, pl.DataFrame, pl.DataFrame, pl.DataFrame]]:
        """Yield every model with its rows of the main table, of the gains and of the heads."""
        none = pl.DataFrame(schema={"model": pl.String})
        gains, heads = (tables.get(f"{self.name}-{part}", none) for part in ("gain", "heads"))
        for (model,), rows in _with_numbers(tables[self.name]).group_by(["model"], maintain_order=True):
            yield str(model), rows, gains.filter(model=model), heads.filter(model=model)


def _known(rows: pl.DataFrame, gains: pl.DataFrame) -> Iterator[str]:
    """Say which single block of a model is read best, and what more of them gain."""
    fitted = rows.filter(pl.col("head") != OWN)
    alone = (rows if fitted.is_empty() else fitted).filter(pl.col("n_blocks") == 1, pl.col("tokens").is_in(SINGLE))
    if not alone.is_empty():
        best = alone.sort("top1", descending=True).row(0, named=True)
        last = alone.sort("block", descending=True).row(0, named=True)
        yield _single_sentence(alone.height, best, last)
    if not gains.is_empty():
        told = gains.filter(pl.col("tokens").is_in(SINGLE) | ~pl.col("blocks").str.contains("-"))
        yield from map(_gain_sentence, told.to_dicts())


def _fits(heads: pl.DataFrame) -> Iterator[str]:
    """Say where the best head of a model is, and which heads may be better when they are fitted in another way."""
    if heads.is_empty():
        return
    chosen = _with_numbers(heads.drop_nulls("validation"))
    if chosen.height:
        yield _best_sentence(chosen)
    yield from _doubts(heads)


def _gains(records: pl.DataFrame, settings: list[str]) -> Iterator[dict[str, Any]]:
    """Compare the fitted heads of one model on its last blocks with that on the last block's own token."""
    last = records.filter(pl.col("block") == pl.col("block").max())
    for key, group in last.group_by(["model", "head", *settings], maintain_order=True):
        alone = group.filter(pl.col("n_blocks") == 1, pl.col("tokens").is_in(SINGLE))
        if alone.is_empty():
            continue
        others = group.filter((pl.col("n_blocks") > 1) | ~pl.col("tokens").is_in(SINGLE))
        columns = ["n_blocks", "tokens", "blocks"]
        for (_, tokens, blocks), part in sorted(others.group_by(columns), key=lambda item: item[0]):
            both = alone.select("image", "correct").join(part.select("image", "correct"), on="image").sort("image")
            before, after = both["correct"].to_numpy(), both["correct_right"].to_numpy()
            gain = paired_proportions(after, before)
            yield {
                **dict(zip(["model", "head", *settings], key, strict=True)),
                "tokens": tokens,
                "blocks": blocks,
                "n_images": both.height,
                "difference": 100 * gain.difference,
                "difference_low": 100 * gain.low,
                "difference_high": 100 * gain.high,
                "p_mcnemar": mcnemar(after, before).p_value,
            }


def _doubts(heads: pl.DataFrame) -> Iterator[str]:
    """Say which heads were not fitted to the end, and which might be better with other hyper-parameters."""
    model = heads["model"][0]
    if "converged" in heads.columns and (open_ended := heads.filter(~pl.col("converged"))).height:
        worst = open_ended.sort("gradient", descending=True, nulls_last=True).row(0, named=True)
        yield (
            f"{model}: the fit of {_share(open_ended.height, heads.height)} has not converged: {worst['tokens']} of "
            f"{_blocks(worst)} stopped after {worst['steps']:,} steps at a gradient of {worst['gradient']:.1e} "
            f"(at most {TOLERANCE:g} is wanted, less with a weak penalty); larger penalties are fitted sooner."
        )
    # a head that makes no mistake has nothing to gain
    edges = (
        heads.filter(pl.col("at_edge") != "", pl.col("validation") < 100) if "at_edge" in heads.columns else heads[:0]
    )
    if edges.height:
        which = (
            edges["at_edge"].value_counts(name="n").sort("n", "at_edge", descending=[True, False])["at_edge"].to_list()
        )
        yield (
            f"{model}: for {_share(edges.height, heads.height)} what was chosen lies at the edge of what there was to "
            f"choose from ({'; '.join(which)}); a better value may lie beyond."
        )


def _share(some: int, of_all: int) -> str:
    return "the head" if of_all == 1 else f"{some} of the {of_all} heads"


def _best_sentence(heads: pl.DataFrame) -> str:
    # of equally good heads the one that reads the fewest vectors, as for best.safetensors
    vectors = pl.col("n_blocks") * (1 + pl.col("tokens").str.contains("+", literal=True).cast(pl.Int64))
    row = heads.sort("validation", vectors, "file", descending=[True, False, False]).row(0, named=True)
    folder = row["file"].rpartition("/")[0]
    return (
        f"{row['model']}: the best head on the validation images ({row['validation']:.1f} % there) reads "
        f"{row['tokens']} of {_blocks(row)}; other experiments take it as probe:RUN/{folder}/best.safetensors."
    )


def _single_sentence(count: int, best: dict[str, Any], last: dict[str, Any]) -> str:
    model = best["model"]
    if count == 1:
        return f"{model}: the last block alone, {last['block']}, gives {last['top1']:.1f} %."
    if best["block"] == last["block"]:
        return f"{model}: of single blocks, the last one, {last['block']}, is read best ({last['top1']:.1f} %)."
    return (
        f"{model}: of single blocks, {best['block']} is read best ({best['top1']:.1f} %); the last one, "
        f"{last['block']}, gives {last['top1']:.1f} %."
    )


def _gain_sentence(row: dict[str, Any]) -> str:
    return (
        f"{row['model']}, {row['head']}: {row['tokens']} of {_blocks(row)} against the last block alone: "
        f"{row['difference']:+z.1f} points{ends(row, 'difference', 1, signed=True)}."
    )


def _blocks(row: dict[str, Any]) -> str:
    return f"{'blocks' if '-' in row['blocks'] else 'block'} {row['blocks']}"


def _with_numbers(table: pl.DataFrame) -> pl.DataFrame:
    """Add the last of the blocks and their number, which their name says: ``8-11`` is 4 blocks up to 11."""
    ends = pl.col("blocks").str.split("-").cast(pl.List(pl.Int64))
    last = ends.list.last()
    return table.with_columns(last.alias("block"), (last - ends.list.first() + 1).alias("n_blocks"))


def _together(table: pl.DataFrame) -> pl.DataFrame:
    """Return the fitted heads on the last block and on the last ones together."""
    return table.filter(pl.col("block") == pl.col("block").max().over("model"), pl.col("head") != OWN)


def _once(paper: pl.DataFrame) -> pl.DataFrame:
    """Return the paper's rows, each head on each data set once: table 5 prints some of what figure 16 draws."""
    printed_first = paper.sort(pl.col("source") != "P", maintain_order=True)
    return printed_first.unique(["model", "head", "tokens", "blocks", "data"], keep="first", maintain_order=True)


def _beside(table: pl.DataFrame, paper: pl.DataFrame) -> pl.DataFrame:
    known = [column for column in paper.columns if column in table.columns]
    return pl.concat([table, paper.select(known)], how="diagonal_relaxed")


def _named(column: pl.Expr, data: str) -> pl.Expr:
    """Tell whether a word in the name of our data begins with the paper's name of its."""
    words = re.findall(r"[a-z0-9]+", data.lower())
    return column.map_elements(
        lambda name: any(word.startswith(re.sub(r"[^a-z0-9]", "", name.lower())) for word in words),
        return_dtype=pl.Boolean,
    )


def _with_series(table: pl.DataFrame) -> pl.DataFrame:
    """Name lines by model and by whatever tells its heads apart."""
    several = table.filter(pl.col("head") != OWN)["head"].n_unique() > 1
    parts = [pl.col("model").cast(pl.String)]
    if several or (table["head"] == OWN).any():
        named = pl.when(pl.col("head") == OWN).then(pl.lit("own head")).otherwise(pl.col("head") if several else None)
        parts.append(named.cast(pl.String))
    parts.append(pl.when(~pl.col("tokens").is_in(SINGLE)).then(pl.col("tokens")))
    return table.with_columns(pl.concat_str(parts, separator=", ", ignore_nulls=True).alias("series"))


def _which() -> pl.Expr:
    n = pl.col("n_blocks")
    all_of_them = pl.when(n == pl.col("block") + 1).then(pl.lit("all")).otherwise(pl.format("last {}", n))
    return pl.when(n == 1).then(pl.lit("last block")).otherwise(all_of_them).alias("blocks read")
