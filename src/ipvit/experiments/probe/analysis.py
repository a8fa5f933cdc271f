"""Tables, figures and sentences of the probe experiment."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import polars as pl

from ipvit.analysis import charts
from ipvit.analysis.aggregate import PAPER, accuracy_table, varying
from ipvit.analysis.chart_parts import COLOURS
from ipvit.features.linear_heads import TOLERANCE
from ipvit.metrics.paired import mcnemar, paired_proportions

if TYPE_CHECKING:
    from ipvit.analysis.charts import Figure

NAME = "probe"
OWN = "own"
SINGLE = ("class", "pooled")
"""Kinds of tokens that networks themselves classify by."""

_BY = ["model", "head", "tokens", "n_blocks", "block", "blocks"]
_REMARKS = ("train_images", "validation", "chosen", "at_edge", "steps", "gradient", "converged", "file")


def tables(records: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Return the tables of the experiment.

    ``probe`` has a row per model and head; ``probe-gain`` what more blocks or tokens gain over the last block's own
    token, in percentage points on the same images, with paired intervals; ``probe-heads`` what was chosen on how many
    percent right of the validation images, whether it lies ``at_edge`` of what there was to choose from, after how many
    ``steps`` the fit ended with which largest component of the ``gradient``, and where the head is.
    """
    settings = varying(records, ["norm", "fit"], ("model", "head"))
    by = [*_BY, *settings]
    main = accuracy_table(records, by).sort(by, maintain_order=True)
    found = {NAME: main.drop("block", "n_blocks", "n_runs", "top1_std", "top5_std")}
    gains = list(_gains(records.filter(pl.col("label") >= 0), settings))
    if gains:
        found[f"{NAME}-gain"] = pl.DataFrame(gains, infer_schema_length=None)
    fitted = records.filter(pl.col("head") != OWN)
    if not fitted.is_empty():
        known = [name for name in _REMARKS if name in fitted.columns]
        heads = fitted.group_by(by).agg(pl.col(name).first() for name in known).sort(by, maintain_order=True)
        numbers = [name for name in ("validation", "gradient") if name in known]
        found[f"{NAME}-heads"] = heads.drop("block", "n_blocks").with_columns(
            pl.col(name).fill_nan(None).cast(pl.Float64) for name in numbers
        )
    return found


def _gains(records: pl.DataFrame, settings: list[str]) -> Iterator[dict[str, Any]]:
    last = records.filter(pl.col("head") != OWN, pl.col("block") == pl.col("block").max().over("model"))
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


def figures(tables: dict[str, pl.DataFrame], *, data: str) -> dict[str, Figure]:
    """Return a curve over single blocks and, where heads are fitted, bars for the last blocks together.

    Args:
        tables: from :func:`tables`, and the paper's.
        data: name of the training data, which decides what of the paper stands beside.
    """
    main, paper = _with_numbers(tables[NAME]), tables.get(f"{NAME}{PAPER}")
    alone = main.filter(pl.col("n_blocks") == 1)
    together = _together(main)
    if paper is not None:
        paper = _once(_with_numbers(paper))
        if not alone.filter(pl.col("head") == OWN).is_empty():
            alone = _beside(alone, paper.filter(pl.col("head") == OWN))
        together = _beside(together, paper.filter(pl.col("head") != OWN, _named(pl.col("data"), data)))
    found = {
        f"{NAME}-blocks": charts.curve(
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
        found[f"{NAME}-together"] = charts.bars(
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


def transfer(tables: dict[str, pl.DataFrame]) -> dict[str, Figure]:
    """Return bars over data sets: every network's last block, and its last blocks together (table 5, figure 16).

    Args:
        tables: from :func:`tables` for several data sets with a column ``data_set``, and the paper's.
    """
    shown = _together(_with_numbers(tables[NAME]))
    if shown.is_empty():
        return {}
    paper = tables.get(f"{NAME}{PAPER}")
    if paper is not None:
        fitted = _once(_with_numbers(paper.filter(pl.col("head") != OWN)))
        for name in shown["data_set"].unique(maintain_order=True).to_list():
            theirs = fitted.filter(_named(pl.col("data"), name)).with_columns(pl.lit(name).alias("data_set"))
            shown = _beside(shown, theirs)
    shown = _with_series(shown).with_columns(pl.concat_str(["series", _which()], separator=", ").alias("series"))
    several = shown["series"].n_unique() > len(COLOURS)  # a panel for each network then, and one colour for alike heads
    if several:
        alone = pl.col("series").str.strip_prefix(pl.col("model")).str.strip_prefix(", ")
        shown = shown.with_columns(alone.alias("series"))
    return {
        f"{NAME}-transfer": charts.bars(
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


def summary(tables: dict[str, pl.DataFrame]) -> list[str]:
    """Say which block knows most, what the last ones gain together, and where the best head is."""
    sentences = []
    for (model,), rows in _with_numbers(tables[NAME]).group_by(["model"], maintain_order=True):
        of_model = pl.col("model") == model
        fitted = rows.filter(pl.col("head") != OWN)
        alone = (rows if fitted.is_empty() else fitted).filter(pl.col("n_blocks") == 1, pl.col("tokens").is_in(SINGLE))
        if not alone.is_empty():
            best = alone.sort("top1", descending=True).row(0, named=True)
            last = alone.sort("block", descending=True).row(0, named=True)
            sentences.append(_single_sentence(model, alone.height, best, last))
        if f"{NAME}-gain" in tables:
            gains = tables[f"{NAME}-gain"].filter(
                of_model, pl.col("tokens").is_in(SINGLE) | ~pl.col("blocks").str.contains("-")
            )
            sentences += [_gain_sentence(row) for row in gains.to_dicts()]
        if f"{NAME}-heads" in tables:
            of_all = tables[f"{NAME}-heads"].filter(of_model)
            heads = _with_numbers(of_all.drop_nulls("validation"))
            sentences += [_best_sentence(heads)] if heads.height else []
            sentences += _doubts(model, of_all)
    return sentences


def _doubts(model: str, heads: pl.DataFrame) -> Iterator[str]:
    """Say which heads were not fitted to the end, and which might be better with other hyper-parameters."""
    if "converged" in heads.columns and (open_ended := heads.filter(~pl.col("converged"))).height:
        worst = open_ended.sort("gradient", descending=True, nulls_last=True).row(0, named=True)
        yield (
            f"{model}: the fit of {_share(open_ended.height, heads.height)} has not converged: {worst['tokens']} of "
            f"{_blocks(worst)} stopped after {worst['steps']:,} steps at a gradient of {worst['gradient']:.1e} "
            f"({TOLERANCE:g} is wanted); larger penalties are fitted sooner."
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


def _single_sentence(model: Any, count: int, best: dict[str, Any], last: dict[str, Any]) -> str:
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
        f"{row['difference']:+.1f} points [{row['difference_low']:+.1f}, {row['difference_high']:+.1f}]."
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
    text = (
        pl.when(n == 1).then(pl.lit("last block"))
        .when(n == pl.col("block") + 1).then(pl.lit("all"))
        .otherwise(pl.format("last {}", n))
    )  # fmt: skip
    return text.alias("blocks read")
