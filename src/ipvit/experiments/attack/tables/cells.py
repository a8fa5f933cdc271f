"""Table, figure and sentences of replaced cells: by how many, and by how they are chosen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import polars as pl

from ipvit.analysis import charts
from ipvit.analysis.aggregate import accuracy_table, varying
from ipvit.analysis.answers import Fall, told
from ipvit.core.text.words import counted
from ipvit.experiments.attack.names import CELLS, CHOSEN, CLEAN
from ipvit.experiments.attack.tables.parts import TOP1, in_percent, share_without_gradient

if TYPE_CHECKING:
    from ipvit.analysis.charts import Figure

REPLACED = "attack-cells"
NONE = "none"
"""Row of the images as they are."""


def of_cells(records: pl.DataFrame) -> pl.DataFrame:
    """Average replaced cells of one model, after the same images as they are."""
    rows = records.filter(pl.col("attack") == CELLS)
    if not rows.height:
        return pl.DataFrame(schema={"model": pl.String})
    clean = records.filter(pl.col("attack") == CLEAN).with_columns(
        choice=pl.lit(NONE),
        cells=pl.lit(0, dtype=rows.schema["cells"]),
        grid=pl.lit(rows["grid"][0]),
        steps=pl.lit(0, dtype=rows.schema["steps"]),
    )
    rows = pl.concat([clean, rows], how="diagonal_relaxed")
    by = ["model", "grid", "cells", "choice", "steps"]
    table = accuracy_table(rows, by, TOP1).drop("n_runs", "top1_std")
    return share_without_gradient(table, rows, by)


def cell_table(cells: pl.DataFrame) -> pl.DataFrame:
    """Return the table of all models; steps have a column where studies in one folder took different numbers."""
    choice = pl.col("choice").replace_strict({name: place for place, name in enumerate((NONE, *CHOSEN))})
    number = {name: place for place, name in enumerate(cells["model"].unique(maintain_order=True))}
    model = pl.col("model").replace_strict(number)
    table = cells.sort(model, "grid", "cells", choice, "steps", maintain_order=True)
    return table if varying(cells, ["steps"], within=("model", "grid", "choice", "cells")) else table.drop("steps")


def over_cells(table: pl.DataFrame) -> Figure:
    """Draw a panel for each model, and in it a curve for each way of choosing; all begin at the image as it is."""
    attacked = table.filter(pl.col("choice") != NONE)
    keys = [name for name in ("choice", "steps") if name in table.columns]
    curves = attacked.select("model", "grid", *keys).unique(maintain_order=True)
    starts = curves.join(table.filter(pl.col("choice") == NONE).drop(keys), on=["model", "grid"])
    whole = pl.concat([starts.select(table.columns), attacked])
    panel = pl.concat_str("model", pl.lit(", "), "grid", pl.lit(" cells")).alias("panel")
    return charts.curve(
        whole.with_columns(panel, _way(whole).alias("choice"), pl.col("cells").cast(pl.String)),
        charts.Encoding(
            x="cells",
            y="top1",
            series="choice",
            facet="panel",
            x_title="Replaced cells",
            y_title="Top-1 accuracy (%)",
            y_domain=(0, 100),
        ),
        title="Accuracy with some cells of the image replaced",
    )


def _way(table: pl.DataFrame) -> pl.Expr:
    """Return how cells were chosen, in words, and in how many steps they were painted where that differs."""
    steps = [pl.lit(", "), "steps", pl.lit(" steps")] if "steps" in table.columns else []
    return pl.concat_str(pl.col("choice").replace_strict(CHOSEN), *steps)


def cell_lead(table: pl.DataFrame) -> Iterator[str]:
    """Say what is left of each model where most cells are replaced in most steps, found by search and at random."""
    if "steps" in table.columns:
        table = table.filter((pl.col("choice") == NONE) | (pl.col("steps") == pl.col("steps").max()))
    most = max(table["cells"])
    clean = {row["model"]: row for row in table.filter(pl.col("choice") == NONE).to_dicts()}
    for choice in ("greedy", "random"):
        rows = table.filter(pl.col("choice") == choice, pl.col("cells") == most).to_dicts()
        if rows:
            falls = [Fall.of(row["model"], clean.get(row["model"]), row) for row in rows]
            yield told(falls, f"with {counted(most, 'cell')} replaced, {CHOSEN[choice]}")


def cell_sentences(table: pl.DataFrame) -> Iterator[tuple[str, str]]:
    """Say what is left of each model, by how cells are chosen."""
    for (model, grid), rows in table.group_by(["model", "grid"], maintain_order=True):
        clean = in_percent(rows.filter(pl.col("choice") == NONE))
        attacked = rows.filter(pl.col("choice") != NONE)
        counts = ", ".join(map(str, attacked["cells"].unique(maintain_order=True)))
        left = [
            f"{way} {in_percent(chosen)}"
            for (way,), chosen in attacked.group_by(_way(attacked).alias("way"), maintain_order=True)
        ]
        yield str(model), f"{model}: of {clean} top-1, {counts} of {grid} cells replaced leave: {'; '.join(left)}."
