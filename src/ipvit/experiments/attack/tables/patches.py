"""Tables, figures and sentences of the adversarial patch: by size with its control, and its transfer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from ipvit.analysis import charts
from ipvit.analysis.aggregate import accuracy_table, varying
from ipvit.analysis.answers import Fall, told
from ipvit.analysis.columns import RUN
from ipvit.analysis.sentences import is_missing
from ipvit.experiments.attack.names import CONTENT, NOISE, OWN, PATCH, PATCH_SETTINGS
from ipvit.experiments.attack.tables.parts import TOP1, beside, series
from ipvit.experiments.attack.tables.transfer import matrix

if TYPE_CHECKING:
    from ipvit.analysis.charts import Figure

PATCHES, TRANSFER = "attack-patch", "attack-transfer"

TRAINED, OF_NOISE, NOTHING = "trained", "noise", "none"
_WHICH = "which patch"


def of_patches(patches: pl.DataFrame, clean: pl.DataFrame) -> pl.DataFrame:
    """Average patches and their control, of one model.

    ``success`` is the share of the images right without a patch that the patch does its work on. All images of a run
    have one patch: intervals are over images and patches, and there are none with a single patch.
    """
    which = pl.concat_str(pl.col(RUN), pl.col("training").cast(pl.String), separator=" ").alias(_WHICH)
    patches = patches.with_columns(which, pl.col("training").str.split(CONTENT).list.first())
    by = ["model", "attack", "source", *PATCH_SETTINGS, "training", "area"]
    table = accuracy_table(patches, by, TOP1, shared=_WHICH)
    right = clean.filter(pl.col("correct")).select("image")
    judged = patches.join(right, on="image", how="semi", maintain_order="left").filter(~pl.col("of_target"))
    extra = patches.group_by(by).agg(pl.col("covered").cast(pl.Float64).mean(), pl.col("trained_on").first())
    if judged.height:
        success = accuracy_table(judged, by, {"hit": "success"}, shared=_WHICH).drop(
            "n_images", "n_runs", "success_std"
        )
        extra = beside(extra, success, by)
    return beside(table, extra, by)


def patch_settings(patches: pl.DataFrame) -> list[str]:
    """Return what tells patches apart; a target always does, as it says what the attack is."""
    found = varying(patches, [*PATCH_SETTINGS, "training"], within=("attack", "model", "source"))
    targeted = (patches["target"].fill_null("") != "").any()
    return [name for name in (*PATCH_SETTINGS, "training") if name in found or (name == "target" and targeted)]


def with_source(patches: pl.DataFrame, names: dict[str, str]) -> pl.DataFrame:
    """Name the network that each patch was trained on; the control has the network it is shown to."""
    own = pl.col("source").is_in(["", OWN])
    known = pl.col("source").replace_strict(names, default=pl.col("trained_on"), return_dtype=pl.String)
    return patches.with_columns(pl.when(own).then("model").otherwise(known).alias("source")).drop("trained_on")


def by_area(patches: pl.DataFrame, bare: pl.DataFrame, settings: list[str]) -> pl.DataFrame:
    """Accuracy per model and size: without a patch, with noise, with the patch trained on the model itself."""
    words = pl.col("attack").replace_strict({PATCH: TRAINED, NOISE: OF_NOISE}).alias("patch")
    own = patches.filter(pl.col("source") == pl.col("model")).with_columns(words)
    table = own.select("model", *settings, "area", "patch", *_measures(own))
    bare = bare.with_columns(pl.lit(NOTHING).alias("patch"), pl.lit(0.0).alias("area"))
    table = pl.concat([bare, table], how="diagonal_relaxed").select(table.columns)
    order = pl.col("patch").replace_strict({NOTHING: 0, OF_NOISE: 1, TRAINED: 2}, return_dtype=pl.Int8)
    place = pl.col("model").replace_strict(_numbers(patches["model"]), return_dtype=pl.Int32)
    return table.sort(place, *settings, "area", order, nulls_last=False, maintain_order=True)


def transfer_table(patches: pl.DataFrame, settings: list[str]) -> pl.DataFrame:
    """Accuracy of every network with the patches of every network."""
    table = patches.filter(pl.col("attack") == PATCH)
    table = table.select("source", "model", *settings, "area", *_measures(table)).drop("covered")
    numbers = _numbers(patches["model"])
    places = [
        pl.col(name).replace_strict(numbers, default=len(numbers), return_dtype=pl.Int32)
        for name in ("source", "model")
    ]
    return table.sort("area", *settings, *places, maintain_order=True).rename({"source": "trained_on"})


def _measures(table: pl.DataFrame) -> list[str]:
    """Return the columns of what was measured."""
    measures = table.columns[table.columns.index("n_images") : table.columns.index("covered") + 1]
    return [*measures, *(name for name in ("success", "success_low", "success_high") if name in table.columns)]


def _numbers(models: pl.Series) -> dict[str, int]:
    """Number models in the order in which they appear."""
    return {name: number for number, name in enumerate(models.unique(maintain_order=True))}


def over_area(table: pl.DataFrame, paper: pl.DataFrame | None) -> Figure:
    """Two curves per model: the trained patch and noise of the same size; both begin without a patch.

    On a grid a patch is as large as whole cells, so it stands at the share that it really covers.
    """
    settings = [name for name in (*PATCH_SETTINGS, "training") if name in table.columns]
    bare = table.filter(pl.col("patch") == NOTHING)
    patched = table.filter(pl.col("patch") != NOTHING)
    curves = patched.select("model", *settings, "patch").unique(maintain_order=True)
    starts = curves.join(bare.drop(*settings, "patch"), on="model", maintain_order="left")
    whole = pl.concat([starts, patched], how="diagonal_relaxed")
    whole = whole.sort(pl.col("patch") == OF_NOISE, maintain_order=True)  # the models have their colours first
    whole = whole.with_columns(
        pl.when(pl.col("patch") == OF_NOISE).then(pl.lit("noise")).alias("patch"),
        pl.coalesce("covered", "area").alias("area"),
    )
    if paper is not None:
        rows = paper.filter(pl.col("attack") == "patch").select("model", "area", "top1")
        whole = pl.concat([whole, rows], how="diagonal_relaxed")
    return charts.curve(
        whole.with_columns(series(["model", "patch"], settings)),
        charts.Encoding(
            x="area",
            y="top1",
            series="series",
            group="model",
            x_title="Size of the patch (share of the image)",
            y_title="Top-1 accuracy (%)",
            x_format=".1~%",
            y_domain=(0, 100),
        ),
        title="Accuracy with an adversarial patch, and with noise in its place",
    )


def transfer_matrix(table: pl.DataFrame) -> Figure:
    """The trained-on network down, the attacked one across, one panel per size and other setting."""
    settings = [name for name in (*PATCH_SETTINGS, "training") if name in table.columns]
    panel = pl.concat_str(
        [
            (100 * pl.col("area")).round(1).cast(pl.String).str.strip_suffix(".0") + " % of the image",
            *(pl.col(name).cast(pl.String) for name in settings),
        ],
        separator=", ",
        ignore_nulls=True,
    )
    rows = table.with_columns(panel.alias("panel"))
    return matrix(rows, "trained_on", "Patch trained on", "with the patch of another network")


def patch_lead(table: pl.DataFrame) -> Iterator[str]:
    """Say what trained patches leave at the largest size of all."""
    trained = table.filter(pl.col("patch") == TRAINED)
    clean = {row["model"]: row for row in table.filter(pl.col("patch") == NOTHING).to_dicts()}
    shared = [set(rows["area"]) for _, rows in trained.group_by("model")]
    sizes = set[float].intersection(*shared) if shared else set[float]()
    if sizes:
        most = max(sizes)
        rows = trained.filter(pl.col("area") == most).sort("top1").unique("model", keep="first", maintain_order=True)
        falls = [Fall.of(row["model"], clean.get(row["model"]), row) for row in rows.to_dicts()]
        yield told(falls, f"with a trained patch on {100 * most:.0f} % of the image")


def patch_sentences(tables: dict[str, pl.DataFrame]) -> Iterator[tuple[str, str]]:
    """Say what trained patches, and noise in their place, leave of each model."""
    if PATCHES not in tables:
        return
    table = tables[PATCHES]
    settings = [name for name in (*PATCH_SETTINGS, "training") if name in table.columns]
    for key, frame in table.filter(pl.col("patch") != NOTHING).group_by(["model", *settings], maintain_order=True):
        trained, noise = (frame.filter(pl.col("patch") == name).to_dicts() for name in (TRAINED, OF_NOISE))
        if trained and [row["area"] for row in trained] == [row["area"] for row in noise]:
            words = "".join(f", {value}" for value in key[1:] if value)
            sizes = ", ".join(f"{100 * row['covered']:.0f} %" for row in trained)
            left, control = (", ".join(f"{row['top1']:.1f} %" for row in rows) for rows in (trained, noise))
            yield (
                str(key[0]),
                f"{key[0]}{words}: a patch on {sizes} of the image leaves {left} top-1, noise in its place {control}."
                f"{_success(trained, noise)}",
            )


def _success(trained: Sequence[dict[str, Any]], noise: Sequence[dict[str, Any]]) -> str:
    """Say how often a targeted patch makes the network see its class; nothing for others, whose success is an error."""
    target = trained[0].get("target")
    if not target:
        return ""
    shown, control = (
        ", ".join("unknown" if is_missing(row["success"]) else f"{row['success']:.1f} %" for row in rows)
        for rows in (trained, noise)
    )
    return f" Images of other classes are taken for {target}, its target, in {shown}, with noise in {control}."


def transfer_sentences(tables: dict[str, pl.DataFrame]) -> Iterator[str]:
    """Say what patches leave of other networks than those they were trained on, at the largest size."""
    if TRANSFER not in tables:
        return
    table = tables[TRANSFER]
    others = table.filter((pl.col("trained_on") != pl.col("model")) & (pl.col("area") == pl.col("area").max()))
    settings = [name for name in (*PATCH_SETTINGS, "training") if name in table.columns]
    for key, frame in others.group_by(["trained_on", *settings], maintain_order=True):
        words = "".join(f", {value}" for value in key[1:] if value)
        left = ", ".join(f"{row['model']} {row['top1']:.1f} %" for row in frame.to_dicts())
        yield f"Patches trained on {key[0]}{words}, {100 * frame['area'][0]:.0f} % of the image, leave {left} top-1."
