"""What follows from accuracies under attack."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import polars as pl

from ipvit.analysis import charts
from ipvit.analysis.aggregate import PAPER, accuracy_table, varying
from ipvit.analysis.answers import Fall, told
from ipvit.analysis.base import Analysis, by_model
from ipvit.analysis.columns import COMMON, RUN, SHARED_MASK, Column
from ipvit.analysis.reduction import Reduction, joined
from ipvit.analysis.sentences import is_missing
from ipvit.experiments.attack.conditions import size_in_words
from ipvit.experiments.attack.names import (
    CELL_SETTINGS,
    CELLS,
    CHECK,
    CLEAN,
    NOISE,
    ORDER,
    OWN,
    PATCH,
    PATCH_SETTINGS,
    PIXEL_SETTINGS,
    RANDOM,
    TITLES,
    VOTE,
    VOTE_SETTINGS,
    WORST,
    attack_title,
)
from ipvit.experiments.attack.tables.cells import REPLACED, cell_lead, cell_sentences, cell_table, of_cells, over_cells
from ipvit.experiments.attack.tables.parts import TOP1, series, share_without_gradient, without_zeros
from ipvit.experiments.attack.tables.patches import (
    NOTHING,
    OF_NOISE,
    PATCHES,
    TRAINED,
    TRANSFER,
    by_area,
    of_patches,
    over_area,
    patch_lead,
    patch_sentences,
    patch_settings,
    transfer_matrix,
    transfer_sentences,
    transfer_table,
    with_source,
)
from ipvit.experiments.attack.tables.transfer import (
    SHOWN,
    SHOWN_CELLS,
    made_elsewhere,
    of_shown,
    of_shown_cells,
    shown_cell_matrix,
    shown_cell_sentences,
    shown_cell_table,
    shown_matrix,
    shown_sentences,
    shown_table,
)
from ipvit.experiments.attack.tables.votes import DEFENCE, of_votes, over_budget, vote_lead, vote_sentences, vote_table
from ipvit.experiments.attack.warnings import CHECKS, WEAKER, check_columns, of_checks, of_weaker, warnings

if TYPE_CHECKING:
    from ipvit.analysis.charts import Figure

MAIN = "attack"
WARNINGS = "attack-warnings"
_BARE = "without a patch"

COLUMNS = {
    **COMMON,
    "epsilon": Column(level=True),
    "area": Column(unit="share", level=True),
    "success": Column(title="success (%)", unit="percent", digits=1),
    "no_gradient": Column(title="no gradient (%)", unit="percent"),
}
UNPERTURBED = {"attack": CLEAN}
NORM, UNIT = "norm", "unit"
"""Columns of what epsilon limits, and of its unit; FGSM and PGD have neither."""

_BY = ("attack", "epsilon", "area", NORM, UNIT, *PIXEL_SETTINGS, *PATCH_SETTINGS, *CELL_SETTINGS)
_MEASURED = ("correct", "flat", "covered", "hit", "of_target", "trained_on", "source_right", *check_columns())


class AttackAnalysis(Analysis):
    """Accuracy by attack and epsilon, by replaced cells, of a vote, by patch and size with the control; transfer."""

    further: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "patch": ("patch",),
        "transfer": (),
        "cells": (),
        "vote": (),
        "transfer-pixels": ("made_on", "n_judged"),
        "transfer-cells": ("made_on", "n_judged"),
        "warnings": ("warning",),
    }
    columns: dict[str, Column] = COLUMNS
    compare_by: tuple[str, ...] | None = _BY
    clean: dict[str, Any] = UNPERTURBED
    curve_over: tuple[tuple[str, ...], ...] = (("epsilon",), ("area",))
    profile_by: tuple[str, ...] = ("attack",)
    record_columns: tuple[str, ...] | None = (*_BY, *VOTE_SETTINGS, RUN, "source", "training", *_MEASURED)
    patches: bool = False
    """Whether the study asked for patches."""
    worst: bool = False
    """Whether the study asked for the worst of all attacks within a budget."""

    def reduce(self, records: pl.DataFrame) -> Reduction:
        """Average per attack; networks are compared under attacks that were made for each.

        Patches of other networks, and noise, have tables of their own.
        """
        own = records.filter(~made_elsewhere())
        parts = {MAIN: _of_epsilons(own, worst=self.worst)}
        parts |= {SHOWN: of_shown(records), SHOWN_CELLS: of_shown_cells(records)}
        parts |= {CHECKS: of_checks(records), WEAKER: of_weaker(own)}
        parts |= {REPLACED: of_cells(own), DEFENCE: of_votes(own)}
        records = own.filter(pl.col("attack") != CHECK)
        patched = records.filter(pl.col("attack").is_in([PATCH, NOISE]))
        if patched.height:
            clean = records.filter(pl.col("attack") == CLEAN)
            clean = clean.join(patched.select("image").unique(), on="image", how="semi", maintain_order="left")
            parts[PATCHES] = of_patches(patched, clean)
            parts[_BARE] = accuracy_table(clean, ["model"], TOP1).drop("n_runs")
        compared = records.filter(pl.col("source").is_in(["", OWN]) & ~pl.col("attack").is_in([NOISE, VOTE]))
        if patched.height:  # each network has patches of its own, and images alone do not say how these vary
            compared = compared.with_columns(pl.when(pl.col("attack") == PATCH).then(-1).alias(SHARED_MASK))
        return self.reduced(records, parts, compared=compared)

    def tables(self, reductions: Sequence[Reduction]) -> dict[str, pl.DataFrame]:
        """Return the tables for which there are records."""
        main, found = joined(reductions, MAIN), dict[str, pl.DataFrame]()
        if (main["attack"] != CLEAN).any():
            found[MAIN] = _by_epsilon(main)
        cells, votes, patches = (joined(reductions, name) for name in (REPLACED, DEFENCE, PATCHES))
        names = {reduction.weights[:16]: reduction.model for reduction in reductions}
        if cells.height:
            found[REPLACED] = without_zeros(cell_table(cells))
        if votes.height:
            found[DEFENCE] = without_zeros(vote_table(votes))
        if patches.height:
            patches = with_source(patches, names)
            settings = patch_settings(patches)
            found[PATCHES] = by_area(patches, joined(reductions, _BARE), settings)
            if (patches["source"] != patches["model"]).any() and (patches["attack"] == PATCH).any():
                found[TRANSFER] = transfer_table(patches, settings)
        shown, shown_cells = joined(reductions, SHOWN), joined(reductions, SHOWN_CELLS)
        if shown.height:
            found[SHOWN] = shown_table(shown, main, names)
        if shown_cells.height:
            found[SHOWN_CELLS] = shown_cell_table(shown_cells, cells, names)
        found = found or {MAIN: _by_epsilon(main)}
        said = [*warnings(joined(reductions, CHECKS), joined(reductions, WEAKER), main.filter(pl.col("epsilon") > 0))]
        if said:
            found[WARNINGS] = pl.DataFrame(said, schema=["model", "warning"], orient="row")
        return found

    def figures(self, tables: dict[str, pl.DataFrame]) -> dict[str, Figure]:
        """Return accuracy over epsilon (figure 13), over the patch's size (figure 12), and the transfer matrix."""
        found: dict[str, Figure] = {}
        paper = tables.get(f"{MAIN}{PAPER}")
        if MAIN in tables and (tables[MAIN]["attack"] != CLEAN).any():
            found[MAIN] = _over_epsilon(tables[MAIN], paper)
        if REPLACED in tables:
            found[REPLACED] = over_cells(tables[REPLACED])
        if DEFENCE in tables:
            found[DEFENCE] = over_budget(tables[DEFENCE])
        if PATCHES in tables:
            found[PATCHES] = over_area(tables[PATCHES], paper)
        if TRANSFER in tables:
            found[TRANSFER] = transfer_matrix(tables[TRANSFER])
        if SHOWN in tables:
            found[SHOWN] = shown_matrix(tables[SHOWN])
        if SHOWN_CELLS in tables:
            found[SHOWN_CELLS] = shown_cell_matrix(tables[SHOWN_CELLS])
        return found

    def lead(self, tables: dict[str, pl.DataFrame]) -> str:
        """Say what each attack leaves of each model where it may change most."""
        said = [*_pixel_lead(tables[MAIN])] if MAIN in tables else []
        said += cell_lead(tables[REPLACED]) if REPLACED in tables else []
        said += vote_lead(tables[DEFENCE]) if DEFENCE in tables else []
        return " ".join([*said, *(patch_lead(tables[PATCHES]) if PATCHES in tables else ())])

    def value_title(self, column: str, value: Any) -> str:
        """Return what an attack is called."""
        return attack_title(str(value)) if column == "attack" else super().value_title(column, value)

    def conditions_in(self, name: str, table: pl.DataFrame) -> pl.DataFrame | None:
        """Return the rows with what tells attacks apart; patches have a table of their own."""
        if name == PATCHES:
            words = {TRAINED: PATCH, NOTHING: CLEAN, OF_NOISE: ""}
            named = table.with_columns(pl.col("patch").replace_strict(words).alias("attack"))
            return named.drop("training", strict=False)
        return table if name == MAIN else None

    def answer(self, tables: dict[str, pl.DataFrame]) -> dict[str, str]:
        """Say what each attack leaves of each model's accuracy."""
        return by_model(_sentences(tables))

    def summary(self, tables: dict[str, pl.DataFrame]) -> list[str]:
        """Return the same, attack by attack, and what patches do to other networks."""
        sentences = [text for _, text in _sentences(tables)]
        sentences += transfer_sentences(tables)
        sentences += shown_sentences(tables[SHOWN]) if SHOWN in tables else []
        sentences += shown_cell_sentences(tables[SHOWN_CELLS]) if SHOWN_CELLS in tables else []
        sentences += tables[WARNINGS]["warning"].to_list() if WARNINGS in tables else []
        if self.patches and PATCHES not in tables:
            sentences.append(
                "No image was left to measure patches on: all were for training. Measure on more images, or train on "
                "others (patch_data) or fewer (patch_images)."
            )
        return sentences


def _of_epsilons(records: pl.DataFrame, *, worst: bool) -> pl.DataFrame:
    """Average the attacks on every pixel, of one model."""
    rows = records.filter(~pl.col("attack").is_in([PATCH, NOISE, CHECK, CELLS, VOTE]))
    if worst:
        rows = pl.concat([rows, _worst(rows)], how="diagonal_relaxed")
    by = ["model", "attack", *(name for name in (NORM, UNIT, *PIXEL_SETTINGS) if name in rows.columns), "epsilon"]
    table = accuracy_table(rows, by, TOP1).drop("n_runs", "top1_std")
    return share_without_gradient(table, rows, by)


def _worst(rows: pl.DataFrame) -> pl.DataFrame:
    """Return a row per image and budget: right where it is right under every attack; only images that all have."""
    attacked = rows.filter(pl.col("attack") != CLEAN)
    settings = [name for name in PIXEL_SETTINGS if name in rows.columns]
    size = ["epsilon", *(name for name in (NORM, UNIT) if name in rows.columns)]
    if NORM in size and attacked.height:  # attacks in linf alone have neither a norm nor a unit
        one = attacked.select(pl.col(name).drop_nulls().first() for name in size[1:])
        attacked = attacked.with_columns(pl.col(name).fill_null(one[name][0]) for name in size[1:])
    every = attacked.select("attack", *settings, *size).unique().group_by(size).agg(pl.len().alias("asked"))
    per_image = attacked.group_by("model", "image", "label", *size, maintain_order=True).agg(
        pl.len().alias("ran"), pl.col("correct").all(), pl.col("flat").fill_null(False).all()
    )
    whole = per_image.join(every, on=size, how="left", nulls_equal=True, maintain_order="left")
    return whole.filter(pl.col("ran") == pl.col("asked")).drop("ran", "asked").with_columns(attack=pl.lit(WORST))


def _by_epsilon(table: pl.DataFrame) -> pl.DataFrame:
    settings = varying(table, PIXEL_SETTINGS, within=("attack",))
    if NORM in table.columns and table[NORM].is_in(["l2", "l1"]).any():
        settings += [name for name in (NORM, UNIT) if name in table.columns]
    table = table.drop(name for name in (NORM, UNIT, *PIXEL_SETTINGS) if name in table.columns and name not in settings)
    table = without_zeros(table)
    own = [name for name in table["attack"].unique(maintain_order=True) if name not in (CLEAN, *TITLES)]
    order = {name: number for number, name in enumerate((*ORDER, *own, WORST, RANDOM))}
    place = pl.col("attack").replace_strict(order, return_dtype=pl.Int32)
    return table.sort(place, *settings, "epsilon", maintain_order=True)


def _over_epsilon(table: pl.DataFrame, paper: pl.DataFrame | None) -> Figure:
    """One panel per attack; every curve begins at the clean image."""
    settings = [name for name in PIXEL_SETTINGS if name in table.columns]
    in_norm = [name for name in (NORM, UNIT) if name in table.columns]
    clean = table.filter(pl.col("attack") == "clean")
    attacked = table.filter(pl.col("attack") != "clean")
    curves = attacked.select("model", "attack", *in_norm, *settings).unique(maintain_order=True)
    starts = curves.join(clean.drop("attack", *in_norm, *settings), on="model", maintain_order="left")
    whole = pl.concat([starts, attacked], how="diagonal_relaxed")
    if paper is not None:
        rows = paper.filter(pl.col("attack").is_in(attacked["attack"].unique().to_list()))
        whole = pl.concat([whole, rows.select("model", "attack", "epsilon", "top1")], how="diagonal_relaxed")
    panel = pl.concat_str(pl.col("attack").replace(TITLES), *in_norm, separator=", ", ignore_nulls=True).alias("panel")
    return charts.curve(
        whole.with_columns(panel, series(["model"], settings)),
        charts.Encoding(
            x="epsilon",
            y="top1",
            series="series",
            facet="panel",
            x_title="ε: most that the image changes" if in_norm else "ε: most that a pixel changes (255ths)",
            y_title="Top-1 accuracy (%)",
            y_domain=(0, 100),
        ),
        title="Accuracy under attack",
    )


def _sentences(tables: dict[str, pl.DataFrame]) -> list[tuple[str, str]]:
    """Return model and sentence, attack by attack."""
    cells = cell_sentences(tables[REPLACED]) if REPLACED in tables else ()
    votes = vote_sentences(tables[DEFENCE]) if DEFENCE in tables else ()
    return [*_pixel_sentences(tables), *cells, *votes, *patch_sentences(tables)]


def _pixel_sentences(tables: dict[str, pl.DataFrame]) -> Iterator[tuple[str, str]]:
    """Say what each attack leaves, each by its name: of one that has no result nothing is said but that."""
    table = tables.get(MAIN, pl.DataFrame(schema={"model": pl.String, "attack": pl.String}))
    every = [name for name in table["attack"].unique(maintain_order=True) if name != CLEAN]
    for (model,), frame in table.group_by(["model"], maintain_order=True):
        clean = next(iter(frame.filter(pl.col("attack") == CLEAN).to_dicts()), None)
        attacked = frame.filter(pl.col("attack") != CLEAN)
        if clean is None or attacked.is_empty():
            continue
        made: list[str] = []
        for name in every:
            rows = attacked.filter(pl.col("attack") == name).to_dicts()
            made.append(f"{attack_title(name)} {_leaves(rows)}" if rows else f"{attack_title(name)} has no result")
        yield str(model), f"{model}: of {clean['top1']:.1f} % top-1, {'; '.join(made)}."
        blind = max(row.get("no_gradient") or 0 for row in attacked.to_dicts())
        if blind:
            yield (
                str(model),
                f"{model} has no gradient at all on {blind:.1f} % of the images: there attacks that follow gradients "
                "are blind, and that it stays right says nothing.",
            )


def _leaves(rows: Sequence[dict[str, Any]]) -> str:
    """Say what one attack leaves at each epsilon."""
    left = [f"{row['top1']:.1f} %" if not is_missing(row["top1"]) else "nothing known" for row in rows]
    return f"leaves {', '.join(f'{value} ({_budget(row)})' for value, row in zip(left, rows, strict=True))}"


def _budget(row: dict[str, Any]) -> str:
    settings = [f"{name.replace('_', ' ')} {row[name]}" for name in PIXEL_SETTINGS if row.get(name)]
    return ", ".join([f"ε = {size_in_words(row['epsilon'], row.get(NORM), row.get(UNIT))}", *settings])


def _pixel_lead(table: pl.DataFrame) -> Iterator[str]:
    """Say what each attack leaves of each model at the largest epsilon of all."""
    models = table["model"].unique(maintain_order=True).to_list()
    clean = {row["model"]: row for row in table.filter(pl.col("attack") == CLEAN).to_dicts()}
    for (name,), frame in table.filter(pl.col("attack") != CLEAN).group_by(["attack"], maintain_order=True):
        shared = set[float].intersection(*(set(rows["epsilon"]) for _, rows in frame.group_by("model")))
        if not shared:
            continue
        most = max(shared)
        falls: list[Fall] = []
        for model in models:
            rows = frame.filter(pl.col("model") == model, pl.col("epsilon") == most).to_dicts()
            weakest = min(rows, key=lambda row: row["top1"]) if rows else {"top1": None}
            falls.append(Fall.of(model, clean.get(model), weakest))
        row = next((row for row in frame.to_dicts() if row.get(NORM)), dict[str, Any]())
        size = size_in_words(most, row.get(NORM), row.get(UNIT))
        yield told(falls, f"under {attack_title(str(name))} at ε = {size}")
