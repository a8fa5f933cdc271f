"""Tables, figures and sentences of the attacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import altair as alt
import polars as pl

from ipvit.analysis import charts
from ipvit.analysis.aggregate import PAPER, accuracy_table, varying
from ipvit.analysis.chart_parts import inline, theme

if TYPE_CHECKING:
    from ipvit.analysis.charts import Figure

PIXEL_SETTINGS = ("steps", "step_size", "restarts", "random_start")
PATCH_SETTINGS = ("shape", "placement", "grid", "scale", "target")
MAIN, PATCHES, TRANSFER = "attack", "attack-patch", "attack-transfer"

CONTENT = ":"
"""In ``training``, what follows tells patches read from files apart by their content; runs are averaged over it."""

_NAMES = {"fgsm": "FGSM", "pgd": "PGD"}
_PATCH, _NOISE, _NOTHING = "trained", "noise", "none"
_TOP1 = {"correct": "top1"}
_CELL = 74  # pixels of a cell of the transfer matrix


def tables(records: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Return the tables for which there are records, from one row per image, attack and model."""
    found = {}
    if records["attack"].is_in(list(_NAMES)).any():
        found[MAIN] = _by_epsilon(records)
    patches = records.filter(pl.col("attack").is_in(["patch", "noise"]))
    if patches.height:
        patches = _with_source(patches, records)
        settings = varying(patches, [*PATCH_SETTINGS, "training"], within=("attack", "model", "source"))
        clean = _clean_like(patches, records)
        found[PATCHES] = _by_area(patches, clean, settings)
        if (patches["source"] != patches["model"]).any() and (patches["attack"] == "patch").any():
            found[TRANSFER] = _transfer(patches, clean, settings)
    return found or {MAIN: _by_epsilon(records)}


def _by_epsilon(records: pl.DataFrame) -> pl.DataFrame:
    rows = records.filter(pl.col("attack").is_in(["clean", *_NAMES]))
    settings = varying(rows, PIXEL_SETTINGS, within=("attack",))
    by = ["model", "attack", *settings, "epsilon"]
    table = accuracy_table(rows, by, _TOP1)
    blind = rows.group_by(by).agg((100 * pl.col("flat").fill_null(False).mean()).alias("no_gradient"))
    table = table.join(blind, on=by, how="left", nulls_equal=True, maintain_order="left")
    if table["no_gradient"].sum() == 0:
        table = table.drop("no_gradient")
    order = pl.col("attack").replace_strict({"clean": 0, "fgsm": 1, "pgd": 2}, return_dtype=pl.Int8)
    return table.sort(order, *settings, "epsilon", maintain_order=True).drop("n_runs", "top1_std")


def _with_source(patches: pl.DataFrame, records: pl.DataFrame) -> pl.DataFrame:
    """Name the network that each patch was trained on; the control has the network it is shown to."""
    names = {weights[:16]: name for weights, name in records.select("weights", "model").unique().iter_rows()}
    own = pl.col("source").is_in(["", "own"])
    known = pl.col("source").replace_strict(names, default=pl.col("trained_on"), return_dtype=pl.String)
    training = pl.col("training").str.split(CONTENT).list.first()
    return patches.with_columns(pl.when(own).then("model").otherwise(known).alias("source"), training)


def _clean_like(patches: pl.DataFrame, records: pl.DataFrame) -> pl.DataFrame:
    """Return the unchanged images that the patches were measured on."""
    clean = records.filter(pl.col("attack") == "clean")
    return clean.join(
        patches.select("model", "image").unique(), on=["model", "image"], how="semi", maintain_order="left"
    )


def _by_area(patches: pl.DataFrame, clean: pl.DataFrame, settings: list[str]) -> pl.DataFrame:
    """Accuracy per model and size: without a patch, with noise, with the patch trained on the model itself."""
    own = patches.filter(pl.col("source") == pl.col("model"))
    words = pl.col("attack").replace_strict({"patch": _PATCH, "noise": _NOISE}).alias("patch")
    by = ["model", *settings, "area", "patch"]
    table = _accuracy_and_success(own.with_columns(words), clean, by)
    bare = accuracy_table(clean, ["model"], _TOP1).drop("n_runs").with_columns(
        pl.lit(_NOTHING).alias("patch"), pl.lit(0.0).alias("area")
    )  # fmt: skip
    table = pl.concat([bare, table], how="diagonal_relaxed").select(table.columns)
    order = pl.col("patch").replace_strict({_NOTHING: 0, _NOISE: 1, _PATCH: 2}, return_dtype=pl.Int8)
    place = pl.col("model").replace_strict(_numbers(patches["model"]), return_dtype=pl.Int32)
    return table.sort(place, *settings, "area", order, nulls_last=False, maintain_order=True)


def _transfer(patches: pl.DataFrame, clean: pl.DataFrame, settings: list[str]) -> pl.DataFrame:
    """Accuracy of every network with the patches of every network."""
    trained = patches.filter(pl.col("attack") == "patch")
    by = ["source", "model", *settings, "area"]
    table = _accuracy_and_success(trained, clean, by).drop("covered")
    numbers = _numbers(patches["model"])
    places = [pl.col(name).replace_strict(numbers, default=len(numbers), return_dtype=pl.Int32) for name in by[:2]]
    return table.sort("area", *settings, *places, maintain_order=True).rename({"source": "trained_on"})


def _numbers(models: pl.Series) -> dict[str, int]:
    """Number models in the order in which they appear."""
    return {name: number for number, name in enumerate(models.unique(maintain_order=True))}


def _accuracy_and_success(patches: pl.DataFrame, clean: pl.DataFrame, by: list[str]) -> pl.DataFrame:
    """Accuracy, and success: the share of the images right without a patch that the patch does its work on."""
    table = accuracy_table(patches, by, _TOP1)
    right = clean.filter(pl.col("correct")).select("model", "image")
    judged = patches.join(right, on=["model", "image"], how="semi", maintain_order="left").filter(~pl.col("of_target"))
    extra = patches.group_by(by).agg(pl.col("covered").cast(pl.Float64).mean())
    if judged.height:
        success = accuracy_table(judged, by, {"hit": "success"}).drop("n_images", "n_runs", "success_std")
        extra = extra.join(success, on=by, how="left", nulls_equal=True)
    return table.join(extra, on=by, how="left", nulls_equal=True, maintain_order="left")


def figures(tables: dict[str, pl.DataFrame]) -> dict[str, Figure]:
    """Return the figures of the tables that there are."""
    found: dict[str, Figure] = {}
    paper = tables.get(f"{MAIN}{PAPER}")
    if MAIN in tables and (tables[MAIN]["attack"] != "clean").any():
        found[MAIN] = _over_epsilon(tables[MAIN], paper)
    if PATCHES in tables:
        found[PATCHES] = _over_area(tables[PATCHES], paper)
    if TRANSFER in tables:
        found[TRANSFER] = _matrix(tables[TRANSFER])
    return found


def _over_epsilon(table: pl.DataFrame, paper: pl.DataFrame | None) -> Figure:
    """One panel per attack; every curve begins at the clean image."""
    settings = [name for name in PIXEL_SETTINGS if name in table.columns]
    clean = table.filter(pl.col("attack") == "clean")
    attacked = table.filter(pl.col("attack") != "clean")
    curves = attacked.select("model", "attack", *settings).unique(maintain_order=True)
    starts = curves.join(clean.drop("attack", *settings), on="model", maintain_order="left")
    whole = pl.concat([starts, attacked], how="diagonal_relaxed")
    if paper is not None:
        rows = paper.filter(pl.col("attack").is_in(attacked["attack"].unique().to_list()))
        whole = pl.concat([whole, rows.select("model", "attack", "epsilon", "top1")], how="diagonal_relaxed")
    panel = pl.col("attack").replace_strict(_NAMES).alias("panel")
    return charts.curve(
        whole.with_columns(panel, _series(["model"], settings)),
        charts.Encoding(
            x="epsilon",
            y="top1",
            series="series",
            facet="panel",
            x_title="ε: most that a pixel changes (255ths)",
            y_title="Top-1 accuracy (%)",
            y_domain=(0, 100),
        ),
        title="Accuracy under attack",
    )


def _over_area(table: pl.DataFrame, paper: pl.DataFrame | None) -> Figure:
    """Two curves per model: the trained patch and noise of the same size; both begin without a patch.

    On a grid a patch is as large as whole cells, so it stands at the share that it really covers.
    """
    settings = [name for name in (*PATCH_SETTINGS, "training") if name in table.columns]
    bare = table.filter(pl.col("patch") == _NOTHING)
    patched = table.filter(pl.col("patch") != _NOTHING)
    curves = patched.select("model", *settings, "patch").unique(maintain_order=True)
    starts = curves.join(bare.drop(*settings, "patch"), on="model", maintain_order="left")
    whole = pl.concat([starts, patched], how="diagonal_relaxed")
    whole = whole.sort(pl.col("patch") == _NOISE, maintain_order=True)  # the models have their colours first
    whole = whole.with_columns(
        pl.when(pl.col("patch") == _NOISE).then(pl.lit("noise")).alias("patch"),
        pl.coalesce("covered", "area").alias("area"),
    )
    if paper is not None:
        rows = paper.filter(pl.col("attack") == "patch").select("model", "area", "top1")
        whole = pl.concat([whole, rows], how="diagonal_relaxed")
    return charts.curve(
        whole.with_columns(_series(["model", "patch"], settings)),
        charts.Encoding(
            x="area",
            y="top1",
            series="series",
            x_title="Size of the patch (share of the image)",
            y_title="Top-1 accuracy (%)",
            x_format=".1~%",
            y_domain=(0, 100),
        ),
        title="Accuracy with an adversarial patch, and with noise in its place",
    )


def _matrix(table: pl.DataFrame) -> Figure:
    """The trained-on network down, the attacked one across, one panel per size and other setting."""
    settings = [name for name in (*PATCH_SETTINGS, "training") if name in table.columns]
    panel = pl.concat_str(
        [(100 * pl.col("area")).round(1).cast(pl.String).str.strip_suffix(".0") + " % of the image",
         *(pl.col(name).cast(pl.String) for name in settings)],
        separator=", ", ignore_nulls=True,
    )  # fmt: skip
    rows = table.with_columns(panel.alias("panel"), (pl.col("top1") < 45).alias("dark"))
    names = list(dict.fromkeys([*rows["trained_on"], *rows["model"]]))
    tips = [
        alt.Tooltip("trained_on:N", title="patch trained on"), alt.Tooltip("model:N", title="attacked"),
        alt.Tooltip("top1:Q", title="top-1 (%)", format=".1f"), alt.Tooltip("top1_low:Q", format=".1f"),
        alt.Tooltip("top1_high:Q", format=".1f"), alt.Tooltip("n_images:Q", title="images", format=",d"),
    ]  # fmt: skip
    base = alt.Chart(inline(rows)).encode(
        x=alt.X(
            "model:N", sort=names, title="Attacked network", axis=alt.Axis(labelAngle=-35, domain=False, ticks=False)
        ),
        y=alt.Y("trained_on:N", sort=names, title="Patch trained on", axis=alt.Axis(domain=False, ticks=False)),
        tooltip=tips,
    )
    cells = base.mark_rect(stroke="white", strokeWidth=2).encode(
        color=alt.Color("top1:Q", title="Top-1 (%)", scale=alt.Scale(scheme="blues", reverse=True, domain=[0, 100]))
    )
    ink: Any = alt.when("datum.dark").then(alt.value("white")).otherwise(alt.value("#1f2328"))
    words = base.mark_text(fontSize=12).encode(text=alt.Text("top1:Q", format=".1f"), color=ink)
    width, height = _CELL * rows["model"].n_unique(), 0.6 * _CELL * rows["trained_on"].n_unique()
    panels = rows["panel"].unique(maintain_order=True).to_list()
    return (
        alt.layer(cells, words)
        .properties(width=width, height=height)
        .facet(facet=alt.Facet("panel:N", sort=panels, title=None), columns=3)
        .properties(title="Top-1 accuracy (%) with the patch of another network", data=inline(rows))
        .configure(**theme())
    )


def _series(names: list[str], settings: list[str]) -> pl.Expr:
    parts = [pl.col(name) for name in names]
    for name in settings:
        said = pl.lit(f"{name.replace('_', ' ')} ") + pl.col(name).cast(pl.String)
        parts.append(pl.when(pl.col(name).cast(pl.String) != "").then(said))
    return pl.concat_str(parts, separator=", ", ignore_nulls=True).alias("series")


def summary(tables: dict[str, pl.DataFrame]) -> list[str]:
    """Say what each attack leaves of each model's accuracy."""
    sentences = []
    if MAIN in tables:
        sentences += _of_pixels(tables[MAIN])
    if PATCHES in tables:
        sentences += _of_patches(tables[PATCHES])
    if TRANSFER in tables:
        sentences += _of_transfer(tables[TRANSFER])
    return sentences


def _of_pixels(table: pl.DataFrame) -> list[str]:
    sentences = []
    for (model,), frame in table.group_by(["model"], maintain_order=True):
        clean = frame.filter(pl.col("attack") == "clean")["top1"].to_list()
        attacked = frame.filter(pl.col("attack") != "clean").to_dicts()
        if not clean or not attacked:
            continue
        left = [f"{row['top1']:.1f} % ({_NAMES[row['attack']]}, ε = {row['epsilon']:g}/255)" for row in attacked]
        sentences.append(f"{model}: of {clean[0]:.1f} % top-1, attacks leave {', '.join(left)}.")
        blind = max(row.get("no_gradient") or 0 for row in attacked)
        if blind:
            sentences.append(
                f"{model} has no gradient at all on {blind:.1f} % of the images: there FGSM and PGD are blind, and "
                "that it stays right says nothing."
            )
    return sentences


def _of_patches(table: pl.DataFrame) -> list[str]:
    settings = [name for name in (*PATCH_SETTINGS, "training") if name in table.columns]
    sentences = []
    for key, frame in table.filter(pl.col("patch") != _NOTHING).group_by(["model", *settings], maintain_order=True):
        trained, noise = (frame.filter(pl.col("patch") == name).to_dicts() for name in (_PATCH, _NOISE))
        if trained and [row["area"] for row in trained] == [row["area"] for row in noise]:
            words = "".join(f", {value}" for value in key[1:] if value)
            sizes = ", ".join(f"{row['covered']:.0%}" for row in trained)
            left, control = (", ".join(f"{row['top1']:.1f}" for row in rows) for rows in (trained, noise))
            sentences.append(
                f"{key[0]}{words}: a patch on {sizes} of the image leaves {left} % top-1, noise in its place "
                f"{control} %."
            )
    return sentences


def _of_transfer(table: pl.DataFrame) -> list[str]:
    others = table.filter((pl.col("trained_on") != pl.col("model")) & (pl.col("area") == pl.col("area").max()))
    settings = [name for name in (*PATCH_SETTINGS, "training") if name in table.columns]
    sentences = []
    for key, frame in others.group_by(["trained_on", *settings], maintain_order=True):
        words = "".join(f", {value}" for value in key[1:] if value)
        left = ", ".join(f"{row['model']} {row['top1']:.1f} %" for row in frame.to_dicts())
        sentences.append(
            f"Patches trained on {key[0]}{words}, {frame['area'][0]:.0%} of the image, leave {left} top-1."
        )
    return sentences
