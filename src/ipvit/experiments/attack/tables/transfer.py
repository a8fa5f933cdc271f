"""Tables and figure of transfer: what is made on one network, patches or images, shown to another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import altair as alt
import polars as pl

from ipvit.analysis.aggregate import accuracy_table, varying
from ipvit.analysis.chart_parts import inline, theme
from ipvit.experiments.attack.conditions import size_in_words
from ipvit.experiments.attack.names import (
    CHECK,
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

SHOWN = "attack-transfer-pixels"
_CELL = 74  # pixels of a cell of the matrix
_SIZE = ("epsilon", "norm", "unit")


def made_elsewhere() -> pl.Expr:
    """Tell records of images that were made on another network within a budget."""
    return (pl.col("source").fill_null("") != "") & ~pl.col("attack").is_in([PATCH, NOISE])


def of_shown(records: pl.DataFrame) -> pl.DataFrame:
    """Average what one model makes of images that were made on others.

    ``success`` is the share of wrong answers among the images that both networks are right about without an attack.
    Every image was made once for each source, so images are independent, and intervals are over images.
    """
    rows = records.filter(made_elsewhere())
    if not rows.height:
        return pl.DataFrame(schema={"model": pl.String})
    by = ["model", "source", "attack", *(name for name in (*_SIZE, *PIXEL_SETTINGS) if name in rows.columns)]
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
    source = pl.col("source").replace_strict(names, default=pl.col("trained_on"), return_dtype=pl.String)
    others = shown.with_columns(source.alias("made_on")).drop("source", "trained_on")
    own = main.filter(~pl.col("attack").is_in([CLEAN, CHECK, WORST, RANDOM])).with_columns(made_on=pl.col("model"))
    whole = pl.concat([own.drop("no_gradient", strict=False), others], how="diagonal_relaxed")
    settings = varying(whole, PIXEL_SETTINGS, within=("attack",))
    if "norm" in whole.columns and whole["norm"].is_in(["l2", "l1"]).any():
        settings += [name for name in ("norm", "unit") if name in whole.columns]
    measures = [name for name in (*_TOP1, *_SUCCESS) if name in whole.columns]
    number = {name: place for place, name in enumerate(main["model"].unique(maintain_order=True))}
    places = [pl.col(name).replace_strict(number, default=len(number)) for name in ("made_on", "model")]
    table = whole.select("made_on", "model", "attack", *settings, "epsilon", *measures)
    attacks = {name: place for place, name in enumerate(TITLES)}
    order = pl.col("attack").replace_strict(attacks, default=len(attacks))
    return table.sort(order, "attack", *settings, "epsilon", *places, maintain_order=True)


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
