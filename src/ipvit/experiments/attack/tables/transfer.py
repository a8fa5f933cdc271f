"""Tables and figure of transfer: what is made on one network, patches or images, shown to another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import altair as alt
import polars as pl

from ipvit.analysis.aggregate import accuracy_table, varying
from ipvit.analysis.chart_parts import inline, theme
from ipvit.core.text.words import counted
from ipvit.experiments.attack.conditions import size_in_words
from ipvit.experiments.attack.names import (
    CELLS,
    CHECK,
    CHOSEN,
    CLEAN,
    NOISE,
    PATCH,
    PIXEL_SETTINGS,
    RANDOM,
    TITLES,
    WORST,
    attack_title,
)

if TYPE_CHECKING:
    from ipvit.analysis.charts import Figure

SHOWN, SHOWN_CELLS = "attack-transfer-pixels", "attack-transfer-cells"
_CELL = 74  # pixels of a cell of the matrix
_SIZE = ("epsilon", "norm", "unit")
_CELLS = ("grid", "choice", "cells")
_SHORT = {"random": "at random", "gradient": "by gradient", "greedy": "by search", "attention": "drawing attention"}
"""How replaced cells are chosen, short enough for a panel of two networks."""


def made_elsewhere() -> pl.Expr:
    """Tell records of images that were made on another network; patches of others have tables of their own."""
    return (pl.col("source").fill_null("") != "") & ~pl.col("attack").is_in([PATCH, NOISE])


def of_shown(records: pl.DataFrame) -> pl.DataFrame:
    """Average what one model makes of images that were made on others within a budget."""
    rows = records.filter(made_elsewhere(), pl.col("attack") != CELLS)
    return _averaged(records, rows, ["attack", *(name for name in (*_SIZE, *PIXEL_SETTINGS) if name in rows.columns)])


def of_shown_cells(records: pl.DataFrame) -> pl.DataFrame:
    """Average what one model makes of images in which cells were replaced on others."""
    return _averaged(records, records.filter(made_elsewhere(), pl.col("attack") == CELLS), [*_CELLS, "steps"])


def _averaged(records: pl.DataFrame, rows: pl.DataFrame, by: list[str]) -> pl.DataFrame:
    """Average some rows of one model by what they have in common and by the network that images were made on.

    ``success`` is the share of wrong answers among the images that both networks are right about without an attack.
    Every image was made once for each source, so images are independent, and intervals are over images.
    """
    if not rows.height:
        return pl.DataFrame(schema={"model": pl.String})
    by = ["model", "source", *by]
    table = accuracy_table(rows, by, {"correct": "top1"}).drop("n_runs", "top1_std")
    right = records.filter(pl.col("attack") == CLEAN, pl.col("correct")).select("image")
    judged = rows.filter(pl.col("source_right")).join(right, on="image", how="semi", maintain_order="left")
    if judged.height:
        wrong = judged.with_columns(~pl.col("correct"))
        success = accuracy_table(wrong, by, {"correct": "success"}).drop("n_runs", "success_std")
        success = success.rename({"n_images": "n_judged"})
        table = table.join(success, on=by, how="left", nulls_equal=True, maintain_order="left")
    names = rows.group_by(by).agg(pl.col("trained_on").first())
    return table.join(names, on=by, how="left", nulls_equal=True, maintain_order="left")


def shown_table(shown: pl.DataFrame, main: pl.DataFrame, names: Mapping[str, str]) -> pl.DataFrame:
    """Return accuracy by the network that images were made on and the one that is shown them; also of its own.

    Args:
        shown: from :func:`of_shown`, of all models.
        main: accuracies under attacks on the models themselves.
        names: models by the first digits of their weights.
    """
    own = main.filter(~pl.col("attack").is_in([CLEAN, CHECK, WORST, RANDOM]))
    whole = _beside_own(shown, own, names)
    settings = varying(whole, PIXEL_SETTINGS, within=("attack",))
    if "norm" in whole.columns and whole["norm"].is_in(["l2", "l1"]).any():
        settings += [name for name in ("norm", "unit") if name in whole.columns]
    attacks = {name: place for place, name in enumerate(TITLES)}
    order = pl.col("attack").replace_strict(attacks, default=len(attacks))
    table = whole.select("made_on", "model", "attack", *settings, "epsilon", *_measures(whole))
    return table.sort(order, "attack", *settings, "epsilon", *_places(main["model"]), maintain_order=True)


def shown_cell_table(shown: pl.DataFrame, cells: pl.DataFrame, names: Mapping[str, str]) -> pl.DataFrame:
    """Return the same of replaced cells.

    Args:
        shown: from :func:`of_shown_cells`, of all models.
        cells: accuracies with cells that were replaced on the models themselves.
        names: models by the first digits of their weights.
    """
    whole = _beside_own(shown, cells.filter(pl.col("choice").is_in(list(CHOSEN))), names)
    choice = pl.col("choice").replace_strict({name: place for place, name in enumerate(CHOSEN)})
    steps = varying(whole, ["steps"], within=("made_on", "model", *_CELLS))
    table = whole.select("made_on", "model", *_CELLS, *steps, *_measures(whole))
    return table.sort("cells", choice, *steps, *_places(cells["model"]), "grid", maintain_order=True)


def _beside_own(shown: pl.DataFrame, own: pl.DataFrame, names: Mapping[str, str]) -> pl.DataFrame:
    """Put what was made on others below what was made on the models themselves."""
    source = pl.col("source").replace_strict(names, default=pl.col("trained_on"), return_dtype=pl.String)
    others = shown.with_columns(source.alias("made_on")).drop("source", "trained_on")
    mine = own.with_columns(made_on=pl.col("model")).drop("no_gradient", strict=False)
    return pl.concat([mine, others], how="diagonal_relaxed")


def _measures(table: pl.DataFrame) -> list[str]:
    return [name for name in (*_TOP1, *_SUCCESS) if name in table.columns]


def _places(models: pl.Series) -> list[pl.Expr]:
    """Return the order of the two networks of a pair: that of the models."""
    number = {name: place for place, name in enumerate(models.unique(maintain_order=True))}
    return [pl.col(name).replace_strict(number, default=len(number)) for name in ("made_on", "model")]


_TOP1 = ("n_images", "top1", "top1_low", "top1_high")
_SUCCESS = ("n_judged", "success", "success_low", "success_high")


def shown_matrix(table: pl.DataFrame) -> Figure:
    """Return a panel for every attack and budget."""

    def words(row: dict[str, Any]) -> str:
        return f"{attack_title(row['attack'])}, ε = {size_in_words(row['epsilon'], row.get('norm'), row.get('unit'))}"

    keys = [name for name in ("attack", *_SIZE) if name in table.columns]
    panel = pl.struct(keys).map_elements(words, return_dtype=pl.String)
    return matrix(table.with_columns(panel.alias("panel")), "made_on", "Images made on", "of images made on another")


def shown_sentences(table: pl.DataFrame) -> Iterator[str]:
    """Say of how many images that fool one network each other one is fooled, at the largest budget."""
    others = table.filter(pl.col("made_on") != pl.col("model"), pl.col("epsilon") == pl.col("epsilon").max())
    for (source, attack), rows in others.group_by(["made_on", "attack"], maintain_order=True):
        first = rows.row(0, named=True)
        size = size_in_words(first["epsilon"], first.get("norm"), first.get("unit"))
        left = ", ".join(f"{row['model']} {row['top1']:.1f} %" for row in rows.to_dicts())
        yield f"Images made on {source} by {attack_title(str(attack))} at ε = {size} leave {left} top-1."


def shown_cell_matrix(table: pl.DataFrame) -> Figure:
    """Return a panel for every number of cells and way of choosing them; grids are named where they differ."""
    number = pl.concat_str("cells", pl.when(pl.col("cells") == 1).then(pl.lit(" cell")).otherwise(pl.lit(" cells")))
    grid = [pl.lit(", "), pl.col("grid")] if table["grid"].n_unique() > 1 else []
    steps = [pl.lit(", "), pl.col("steps"), pl.lit(" steps")] if "steps" in table.columns else []
    panel = pl.concat_str(number, pl.lit(", "), pl.col("choice").replace_strict(_SHORT), *steps)
    ending = "with cells that were replaced on another network"
    rows = table.with_columns(panel.alias("panel"), pl.concat_str("made_on", *grid).alias("made_on"))
    return matrix(rows, "made_on", "Cells replaced on", ending)


def shown_cell_sentences(table: pl.DataFrame) -> Iterator[str]:
    """Say what cells that were replaced on one network leave of each other one, where most are replaced."""
    most = pl.col("cells") == pl.col("cells").max()
    if "steps" in table.columns:
        most &= pl.col("steps") == pl.col("steps").max()
    others = table.filter(pl.col("made_on") != pl.col("model"), most)
    for (source, choice), rows in others.group_by(["made_on", "choice"], maintain_order=True):
        first = rows.row(0, named=True)
        left = ", ".join(f"{row['model']} {row['top1']:.1f} %" for row in rows.to_dicts())
        what = f"{counted(first['cells'], 'cell')} of {first['grid']}, {CHOSEN[str(choice)]}"
        yield f"Images made on {source} with {what}, leave {left} top-1."


def matrix(rows: pl.DataFrame, made_on: str, title: str, ending: str) -> Figure:
    """Return the network that something was made on down, the attacked one across, one panel for each ``panel``.

    Args:
        rows: with ``model``, ``top1`` with its interval, ``n_images`` and ``panel``.
        made_on: column of the first network.
        title: of the axis of that.
        ending: of the figure's title.
    """
    rows = rows.with_columns((pl.col("top1") < 45).alias("dark"))
    names = list(dict.fromkeys([*rows[made_on], *rows["model"]]))
    tips = [
        alt.Tooltip(f"{made_on}:N", title=title.lower()),
        alt.Tooltip("model:N", title="attacked"),
        alt.Tooltip("top1:Q", title="top-1 (%)", format=".1f"),
        alt.Tooltip("top1_low:Q", format=".1f"),
        alt.Tooltip("top1_high:Q", format=".1f"),
        alt.Tooltip("n_images:Q", title="images", format=",d"),
    ]
    base = alt.Chart(inline(rows)).encode(
        x=alt.X(
            "model:N", sort=names, title="Attacked network", axis=alt.Axis(labelAngle=-35, domain=False, ticks=False)
        ),
        y=alt.Y(f"{made_on}:N", sort=names, title=title, axis=alt.Axis(domain=False, ticks=False)),
        tooltip=tips,
    )
    cells = base.mark_rect(stroke="white", strokeWidth=2).encode(
        color=alt.Color("top1:Q", title="Top-1 (%)", scale=alt.Scale(scheme="blues", reverse=True, domain=[0, 100]))
    )
    ink: Any = alt.when("datum.dark").then(alt.value("white")).otherwise(alt.value("#1f2328"))
    words = base.mark_text(fontSize=12).encode(text=alt.Text("top1:Q", format=".1f"), color=ink)
    width, height = _CELL * rows["model"].n_unique(), 0.6 * _CELL * rows[made_on].n_unique()
    panels = rows["panel"].unique(maintain_order=True).to_list()
    layers: Any = alt.layer(cells, words)  # Altair's own methods give it no full type
    return (
        layers.properties(width=width, height=height)
        .facet(facet=alt.Facet("panel:N", sort=panels, title=None), columns=3)
        .properties(title=f"Top-1 accuracy (%) {ending}", data=inline(rows))
        .configure(**theme())
    )
