"""Table, figure and sentences of PatchDrop as a defence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import polars as pl

from ipvit.analysis import charts
from ipvit.analysis.aggregate import accuracy_table, varying
from ipvit.analysis.answers import Fall, told
from ipvit.experiments.attack.conditions import size_in_words
from ipvit.experiments.attack.names import (
    AGAINST_NETWORK,
    AGAINST_VOTE,
    AS_IT_IS,
    BY_NETWORK,
    BY_VOTE,
    CLEAN,
    VOTE,
)
from ipvit.experiments.attack.tables.parts import TOP1, in_percent, share_without_gradient

if TYPE_CHECKING:
    from ipvit.analysis.charts import Figure

DEFENCE = "attack-vote"
_DEFENCE = ("grid", "share", "votes", "norm", "unit")
"""Columns of what the defence is, and of the budget."""
_EFFORT = ("steps", "draws")
"""Columns of what the attack takes: shown where studies in one folder took different numbers."""
_ORDER = (AS_IT_IS, AGAINST_NETWORK, AGAINST_VOTE)


def of_votes(records: pl.DataFrame) -> pl.DataFrame:
    """Average a network and its vote, of one model, on the images as they are and on what attacks made of them."""
    rows = records.filter(pl.col("attack") == VOTE)
    if not rows.height:
        return pl.DataFrame(schema={"model": pl.String})
    same = rows.row(0, named=True)
    plain = records.filter(pl.col("attack") == CLEAN).with_columns(
        pl.lit(AS_IT_IS).alias("shown"),
        pl.lit(BY_NETWORK).alias("answered_by"),
        *(pl.lit(same[name], dtype=rows.schema[name]).alias(name) for name in _DEFENCE),
        *(pl.lit(0, dtype=rows.schema[name]).alias(name) for name in _EFFORT),
    )
    rows = pl.concat([plain, rows], how="diagonal_relaxed")
    by = ["model", *_DEFENCE, "epsilon", "shown", "answered_by", *_EFFORT]
    table = accuracy_table(rows, by, TOP1).drop("n_runs", "top1_std")
    return share_without_gradient(table, rows, by)


def vote_table(votes: pl.DataFrame) -> pl.DataFrame:
    """Return the table of all models."""
    model = {name: place for place, name in enumerate(votes["model"].unique(maintain_order=True))}
    shown = {name: place for place, name in enumerate(_ORDER)}
    order = [pl.col("model").replace_strict(model), *_DEFENCE, "epsilon", pl.col("shown").replace_strict(shown)]
    table = votes.sort(*order, "answered_by", *_EFFORT, maintain_order=True)
    attacked = votes.filter(pl.col("shown") != AS_IT_IS)
    told = varying(attacked, _EFFORT, within=("model", *_DEFENCE, "epsilon", "shown", "answered_by"))
    table = table.drop(name for name in _EFFORT if name not in told)
    return table if table["norm"].is_in(["l2", "l1"]).any() else table.drop("norm", "unit")


def over_budget(table: pl.DataFrame) -> Figure:
    """Draw a panel for each model: the network, and its vote against the attack that does not and that does know it."""
    effort = [pl.concat_str(pl.lit(f", {name} "), name) for name in _EFFORT if name in table.columns]
    words = pl.concat_str(pl.lit("the "), "answered_by", pl.lit(", images made "), "shown", *effort)
    attacked = table.filter(pl.col("shown") != AS_IT_IS).with_columns(words.alias("series"))
    curves = attacked.select("model", "answered_by", "series").unique(maintain_order=True)
    starts = curves.join(table.filter(pl.col("shown") == AS_IT_IS), on=["model", "answered_by"]).unique(
        ["model", "series"]
    )
    whole = pl.concat([starts.select(attacked.columns), attacked])
    return charts.curve(
        whole,
        charts.Encoding(
            x="epsilon",
            y="top1",
            series="series",
            facet="model",
            x_title="ε: most that the image changes" if "norm" in table.columns else "ε (255ths)",
            y_title="Top-1 accuracy (%)",
            y_domain=(0, 100),
        ),
        title="PatchDrop as a defence: who is asked about which images",
    )


def vote_lead(table: pl.DataFrame) -> Iterator[str]:
    """Say what is left of each model's vote under the attack that knows of it, at the largest budget."""
    clean = {row["model"]: row for row in _of(table, AS_IT_IS, BY_NETWORK).to_dicts()}
    known = _strongest(_of(table, AGAINST_VOTE, BY_VOTE)).to_dicts()
    if known:
        size = size_in_words(known[0]["epsilon"], known[0].get("norm"), known[0].get("unit"))
        falls = [Fall.of(row["model"], clean.get(row["model"]), row) for row in known]
        yield told(falls, f"with PatchDrop's vote under an attack that knows of it, at ε = {size}")


def _strongest(rows: pl.DataFrame) -> pl.DataFrame:
    """Return those of the largest budget, and of these the ones of most steps and draws."""
    for name in ("epsilon", *_EFFORT):
        if name in rows.columns:
            rows = rows.filter(pl.col(name) == pl.col(name).max())
    return rows


def vote_sentences(table: pl.DataFrame) -> Iterator[tuple[str, str]]:
    """Say what the vote costs without an attack, and what it is worth under each."""
    for (model,), rows in table.group_by(["model"], maintain_order=True):
        first = rows.row(0, named=True)
        looks = f"{first['votes']} looks without {100 * first['share']:g} % of {first['grid']} patches"
        clean = {by: in_percent(_of(rows, AS_IT_IS, by)) for by in (BY_NETWORK, BY_VOTE)}
        yield (
            str(model),
            f"{model}: the vote of {looks} has {clean[BY_VOTE]} top-1 without an attack, the network "
            f"{clean[BY_NETWORK]}.",
        )
        keys = [name for name in ("epsilon", "steps") if name in rows.columns]
        for _, at in rows.filter(pl.col("epsilon") > 0).group_by(keys, maintain_order=True):
            row: dict[str, Any] = at.row(0, named=True)
            size = size_in_words(row["epsilon"], row.get("norm"), row.get("unit"))
            size += f" with {row['steps']} steps" if "steps" in row else ""
            same, known = (_of(at, shown, BY_VOTE) for shown in (AGAINST_NETWORK, AGAINST_VOTE))
            yield (
                str(model),
                f"{model}: at ε = {size} the network keeps {in_percent(_of(at, AGAINST_NETWORK, BY_NETWORK))}; its "
                f"vote {in_percent(same)} against the same images, and {in_percent(known)} against an attack that "
                f"knows of it{_doubt(same, known)}.",
            )


def _doubt(same: pl.DataFrame, known: pl.DataFrame) -> str:
    """Say that the attack that knows of the vote is the weaker one; it could have made the other's images."""
    weaker = same.height and known.height and known["top1"][0] > same["top1"][0]
    return ", which is too weak: give it more steps or draws" if weaker else ""


def _of(rows: pl.DataFrame, shown: str, answered_by: str) -> pl.DataFrame:
    return rows.filter(pl.col("shown") == shown, pl.col("answered_by") == answered_by)
