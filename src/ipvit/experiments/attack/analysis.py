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
    CHECK,
    CLEAN,
    CONTENT,
    NOISE,
    ORDER,
    OWN,
    PATCH,
    PATCH_SETTINGS,
    PIXEL_SETTINGS,
    RANDOM,
    TITLES,
    WORST,
    attack_title,
)
from ipvit.experiments.attack.transfer import (
    SHOWN,
    made_elsewhere,
    matrix,
    of_shown,
    shown_matrix,
    shown_sentences,
    shown_table,
)
from ipvit.experiments.attack.warnings import CHECKS, WEAKER, check_columns, of_checks, of_weaker, warnings

if TYPE_CHECKING:
    from ipvit.analysis.charts import Figure

MAIN, PATCHES, TRANSFER = "attack", "attack-patch", "attack-transfer"
WARNINGS = "attack-warnings"
_BARE = "without a patch"

_PATCH, _NOISE, _NOTHING = "trained", "noise", "none"
_TOP1 = {"correct": "top1"}
_WHICH = "which patch"

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

_BY = ("attack", "epsilon", "area", NORM, UNIT, *PIXEL_SETTINGS, *PATCH_SETTINGS)
_MEASURED = ("correct", "flat", "covered", "hit", "of_target", "trained_on", "source_right", *check_columns())


class AttackAnalysis(Analysis):
    """Accuracy by attack and epsilon, by patch and size with the control, and the transfer of patches."""

    further: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "patch": ("patch",),
        "transfer": (),
        "transfer-pixels": ("made_on", "n_judged"),
        "warnings": ("warning",),
    }
    columns: dict[str, Column] = COLUMNS
    compare_by: tuple[str, ...] | None = _BY
    clean: dict[str, Any] = UNPERTURBED
    curve_over: tuple[tuple[str, ...], ...] = (("epsilon",), ("area",))
    profile_by: tuple[str, ...] = ("attack",)
    record_columns: tuple[str, ...] | None = (*_BY, RUN, "source", "training", *_MEASURED)
    patches: bool = False
    """Whether the study asked for patches."""
    worst: bool = False
    """Whether the study asked for the worst of all attacks within a budget."""

    def reduce(self, records: pl.DataFrame) -> Reduction:
        """Average per attack; networks are compared under attacks that were made for each.

        Patches of other networks, and noise, have tables of their own.
        """
        own = records.filter(~made_elsewhere())
        parts = {MAIN: _of_epsilons(own, worst=self.worst), SHOWN: of_shown(records)}
        parts |= {CHECKS: of_checks(records), WEAKER: of_weaker(own)}
        records = own.filter(pl.col("attack") != CHECK)
        patched = records.filter(pl.col("attack").is_in([PATCH, NOISE]))
        if patched.height:
            clean = records.filter(pl.col("attack") == CLEAN)
            clean = clean.join(patched.select("image").unique(), on="image", how="semi", maintain_order="left")
            parts[PATCHES] = _of_patches(patched, clean)
            parts[_BARE] = accuracy_table(clean, ["model"], _TOP1).drop("n_runs")
        compared = records.filter(pl.col("source").is_in(["", OWN]) & (pl.col("attack") != NOISE))
        if patched.height:  # each network has patches of its own, and images alone do not say how these vary
            compared = compared.with_columns(pl.when(pl.col("attack") == PATCH).then(-1).alias(SHARED_MASK))
        return self.reduced(records, parts, compared=compared)

    def tables(self, reductions: Sequence[Reduction]) -> dict[str, pl.DataFrame]:
        """Return the tables for which there are records."""
        main, found = joined(reductions, MAIN), dict[str, pl.DataFrame]()
        if (main["attack"] != CLEAN).any():
            found[MAIN] = _by_epsilon(main)
        patches = joined(reductions, PATCHES)
        if patches.height:
            patches = _with_source(patches, {reduction.weights[:16]: reduction.model for reduction in reductions})
            settings = _patch_settings(patches)
            found[PATCHES] = _by_area(patches, joined(reductions, _BARE), settings)
            if (patches["source"] != patches["model"]).any() and (patches["attack"] == PATCH).any():
                found[TRANSFER] = _transfer(patches, settings)
        shown = joined(reductions, SHOWN)
        if shown.height:
            found[SHOWN] = shown_table(
                shown, main, {reduction.weights[:16]: reduction.model for reduction in reductions}
            )
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
        if PATCHES in tables:
            found[PATCHES] = _over_area(tables[PATCHES], paper)
        if TRANSFER in tables:
            found[TRANSFER] = _matrix(tables[TRANSFER])
        if SHOWN in tables:
            found[SHOWN] = shown_matrix(tables[SHOWN])
        return found

    def lead(self, tables: dict[str, pl.DataFrame]) -> str:
        """Say what each attack leaves of each model where it may change most."""
        said = [*_pixel_lead(tables[MAIN])] if MAIN in tables else []
        return " ".join([*said, *(_patch_lead(tables[PATCHES]) if PATCHES in tables else ())])

    def value_title(self, column: str, value: Any) -> str:
        """Return what an attack is called."""
        return attack_title(str(value)) if column == "attack" else super().value_title(column, value)

    def conditions_in(self, name: str, table: pl.DataFrame) -> pl.DataFrame | None:
        """Return the rows with what tells attacks apart; patches have a table of their own."""
        if name == PATCHES:
            words = {_PATCH: PATCH, _NOTHING: CLEAN, _NOISE: ""}
            named = table.with_columns(pl.col("patch").replace_strict(words).alias("attack"))
            return named.drop("training", strict=False)
        return table if name == MAIN else None

    def answer(self, tables: dict[str, pl.DataFrame]) -> dict[str, str]:
        """Say what each attack leaves of each model's accuracy."""
        return by_model([*_pixel_sentences(tables), *_patch_sentences(tables)])

    def summary(self, tables: dict[str, pl.DataFrame]) -> list[str]:
        """Return the same, attack by attack, and what patches do to other networks."""
        sentences = [text for _, text in (*_pixel_sentences(tables), *_patch_sentences(tables))]
        sentences += _transfer_sentences(tables)
        sentences += shown_sentences(tables[SHOWN]) if SHOWN in tables else []
        sentences += tables[WARNINGS]["warning"].to_list() if WARNINGS in tables else []
        if self.patches and PATCHES not in tables:
            sentences.append(
                "No image was left to measure patches on: all were for training. Measure on more images, or train on "
                "others (patch_data) or fewer (patch_images)."
            )
        return sentences


def _of_epsilons(records: pl.DataFrame, *, worst: bool) -> pl.DataFrame:
    """Average the attacks on every pixel, of one model."""
    rows = records.filter(~pl.col("attack").is_in([PATCH, NOISE, CHECK]))
    if worst:
        rows = pl.concat([rows, _worst(rows)], how="diagonal_relaxed")
    by = ["model", "attack", *(name for name in (NORM, UNIT, *PIXEL_SETTINGS) if name in rows.columns), "epsilon"]
    table = accuracy_table(rows, by, _TOP1).drop("n_runs", "top1_std")
    blind = rows.group_by(by).agg((100 * pl.col("flat").fill_null(False).mean()).alias("no_gradient"))
    return _beside(table, blind, by)


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


def _of_patches(patches: pl.DataFrame, clean: pl.DataFrame) -> pl.DataFrame:
    """Average patches and their control, of one model.

    ``success`` is the share of the images right without a patch that the patch does its work on. All images of a run
    have one patch: intervals are over images and patches, and there are none with a single patch.
    """
    which = pl.concat_str(pl.col(RUN), pl.col("training").cast(pl.String), separator=" ").alias(_WHICH)
    patches = patches.with_columns(which, pl.col("training").str.split(CONTENT).list.first())
    by = ["model", "attack", "source", *PATCH_SETTINGS, "training", "area"]
    table = accuracy_table(patches, by, _TOP1, shared=_WHICH)
    right = clean.filter(pl.col("correct")).select("image")
    judged = patches.join(right, on="image", how="semi", maintain_order="left").filter(~pl.col("of_target"))
    extra = patches.group_by(by).agg(pl.col("covered").cast(pl.Float64).mean(), pl.col("trained_on").first())
    if judged.height:
        success = accuracy_table(judged, by, {"hit": "success"}, shared=_WHICH).drop(
            "n_images", "n_runs", "success_std"
        )
        extra = _beside(extra, success, by)
    return _beside(table, extra, by)


def _beside(table: pl.DataFrame, other: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """Return a table with the columns of another one beside its own; a key that nobody has may be of any type."""
    mine = [pl.col(name).cast(other.schema[name]) for name in by if table.schema[name] == pl.Null]
    theirs = [pl.col(name).cast(table.schema[name]) for name in by if other.schema[name] == pl.Null]
    table, other = table.with_columns(mine), other.with_columns(theirs)
    return table.join(other, on=by, how="left", nulls_equal=True, maintain_order="left")


def _patch_settings(patches: pl.DataFrame) -> list[str]:
    """Return what tells patches apart; a target always does, as it says what the attack is."""
    found = varying(patches, [*PATCH_SETTINGS, "training"], within=("attack", "model", "source"))
    targeted = (patches["target"].fill_null("") != "").any()
    return [name for name in (*PATCH_SETTINGS, "training") if name in found or (name == "target" and targeted)]


def _by_epsilon(table: pl.DataFrame) -> pl.DataFrame:
    settings = varying(table, PIXEL_SETTINGS, within=("attack",))
    if NORM in table.columns and table[NORM].is_in(["l2", "l1"]).any():
        settings += [name for name in (NORM, UNIT) if name in table.columns]
    table = table.drop(name for name in (NORM, UNIT, *PIXEL_SETTINGS) if name in table.columns and name not in settings)
    if table["no_gradient"].sum() == 0:
        table = table.drop("no_gradient")
    own = [name for name in table["attack"].unique(maintain_order=True) if name not in (CLEAN, *TITLES)]
    order = {name: number for number, name in enumerate((*ORDER, *own, WORST, RANDOM))}
    place = pl.col("attack").replace_strict(order, return_dtype=pl.Int32)
    return table.sort(place, *settings, "epsilon", maintain_order=True)


def _with_source(patches: pl.DataFrame, names: dict[str, str]) -> pl.DataFrame:
    """Name the network that each patch was trained on; the control has the network it is shown to."""
    own = pl.col("source").is_in(["", OWN])
    known = pl.col("source").replace_strict(names, default=pl.col("trained_on"), return_dtype=pl.String)
    return patches.with_columns(pl.when(own).then("model").otherwise(known).alias("source")).drop("trained_on")


def _by_area(patches: pl.DataFrame, bare: pl.DataFrame, settings: list[str]) -> pl.DataFrame:
    """Accuracy per model and size: without a patch, with noise, with the patch trained on the model itself."""
    words = pl.col("attack").replace_strict({PATCH: _PATCH, NOISE: _NOISE}).alias("patch")
    own = patches.filter(pl.col("source") == pl.col("model")).with_columns(words)
    table = own.select("model", *settings, "area", "patch", *_measures(own))
    bare = bare.with_columns(pl.lit(_NOTHING).alias("patch"), pl.lit(0.0).alias("area"))
    table = pl.concat([bare, table], how="diagonal_relaxed").select(table.columns)
    order = pl.col("patch").replace_strict({_NOTHING: 0, _NOISE: 1, _PATCH: 2}, return_dtype=pl.Int8)
    place = pl.col("model").replace_strict(_numbers(patches["model"]), return_dtype=pl.Int32)
    return table.sort(place, *settings, "area", order, nulls_last=False, maintain_order=True)


def _transfer(patches: pl.DataFrame, settings: list[str]) -> pl.DataFrame:
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
        whole.with_columns(panel, _series(["model"], settings)),
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
            group="model",
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
        [
            (100 * pl.col("area")).round(1).cast(pl.String).str.strip_suffix(".0") + " % of the image",
            *(pl.col(name).cast(pl.String) for name in settings),
        ],
        separator=", ",
        ignore_nulls=True,
    )
    rows = table.with_columns(panel.alias("panel"))
    return matrix(rows, "trained_on", "Patch trained on", "with the patch of another network")


def _series(names: list[str], settings: list[str]) -> pl.Expr:
    parts = [pl.col(name) for name in names]
    for name in settings:
        said = pl.lit(f"{name.replace('_', ' ')} ") + pl.col(name).cast(pl.String)
        parts.append(pl.when(pl.col(name).cast(pl.String) != "").then(said))
    return pl.concat_str(parts, separator=", ", ignore_nulls=True).alias("series")


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


def _patch_lead(table: pl.DataFrame) -> Iterator[str]:
    """Say what trained patches leave at the largest size of all."""
    trained = table.filter(pl.col("patch") == _PATCH)
    clean = {row["model"]: row for row in table.filter(pl.col("patch") == _NOTHING).to_dicts()}
    shared = [set(rows["area"]) for _, rows in trained.group_by("model")]
    sizes = set[float].intersection(*shared) if shared else set[float]()
    if sizes:
        most = max(sizes)
        rows = trained.filter(pl.col("area") == most).sort("top1").unique("model", keep="first", maintain_order=True)
        falls = [Fall.of(row["model"], clean.get(row["model"]), row) for row in rows.to_dicts()]
        yield told(falls, f"with a trained patch on {100 * most:.0f} % of the image")


def _patch_sentences(tables: dict[str, pl.DataFrame]) -> Iterator[tuple[str, str]]:
    if PATCHES not in tables:
        return
    table = tables[PATCHES]
    settings = [name for name in (*PATCH_SETTINGS, "training") if name in table.columns]
    for key, frame in table.filter(pl.col("patch") != _NOTHING).group_by(["model", *settings], maintain_order=True):
        trained, noise = (frame.filter(pl.col("patch") == name).to_dicts() for name in (_PATCH, _NOISE))
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


def _transfer_sentences(tables: dict[str, pl.DataFrame]) -> Iterator[str]:
    if TRANSFER not in tables:
        return
    table = tables[TRANSFER]
    others = table.filter((pl.col("trained_on") != pl.col("model")) & (pl.col("area") == pl.col("area").max()))
    settings = [name for name in (*PATCH_SETTINGS, "training") if name in table.columns]
    for key, frame in others.group_by(["trained_on", *settings], maintain_order=True):
        words = "".join(f", {value}" for value in key[1:] if value)
        left = ", ".join(f"{row['model']} {row['top1']:.1f} %" for row in frame.to_dicts())
        yield f"Patches trained on {key[0]}{words}, {100 * frame['area'][0]:.0f} % of the image, leave {left} top-1."
