"""What AutoAttack warns of, as sentences with numbers: signs that an accuracy under attack is too high."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from ipvit.experiments.attack.conditions import size_in_words
from ipvit.experiments.attack.names import APGD, APGD_DLR, APGD_T, CHECK, FAB_T, FGSM, PGD, RANDOM, SQUARE, attack_title

CHECKS = "checks"
"""Part of a reduction: what was measured on the unchanged images."""
WEAKER = "weaker"
"""Part of a reduction: how many images an attack breaks that a stronger one leaves."""

_GRADIENT = (PGD, APGD, APGD_DLR, APGD_T, FAB_T)
_STRONGER: Mapping[str, tuple[str, ...]] = {
    RANDOM: (FGSM, SQUARE, *_GRADIENT),
    FGSM: _GRADIENT,
    SQUARE: _GRADIENT,
    PGD: (APGD,),
}
"""Attacks, and those that should break all that each breaks: noise is no attack, one step is less than several, and
asking for answers alone is less than following gradients."""
_SAME_LOGITS = 0.1
_KEYS = ("epsilon", "norm", "unit")


def check_columns() -> tuple[str, ...]:
    """Return the columns of the records that the check has."""
    return ("repeat_difference", "probabilities", "same_logits", "zero_ce")


def of_checks(records: pl.DataFrame) -> pl.DataFrame:
    """Reduce the check of one model: one row, or none where nothing was checked."""
    rows = records.filter(pl.col("attack") == CHECK)
    if not rows.height or "repeat_difference" not in rows.columns:
        return pl.DataFrame(schema={"model": pl.String})
    return rows.group_by("model", maintain_order=True).agg(
        pl.len().alias("n_images"),
        pl.col("repeat_difference").max(),
        (pl.col("repeat_difference") > 0).sum().alias("differing"),
        pl.col("probabilities").sum(),
        pl.col("same_logits").mean(),
        pl.col("zero_ce").sum(),
    )


def of_weaker(records: pl.DataFrame) -> pl.DataFrame:
    """Count, for each budget, the images of one model that an attack breaks and one that should be stronger leaves."""
    names = set(records["attack"].to_list())
    keys = [name for name in _KEYS if name in records.columns]
    found: list[pl.DataFrame] = []
    for weak, several in _STRONGER.items():
        for strong in several:
            if weak not in names or strong not in names:
                continue
            one, other = (
                records.filter(pl.col("attack") == name).select("model", "image", "correct", *_found(keys))
                for name in (weak, strong)
            )
            both = one.join(other, on=["model", "image", "size"], suffix="_strong")
            pairs = both.group_by("model", "size", maintain_order=True).agg(
                pl.len().alias("n_images"), (~pl.col("correct") & pl.col("correct_strong")).sum().alias("missed")
            )
            found.append(pairs.with_columns(weak=pl.lit(weak), strong=pl.lit(strong)))
    filled = [frame.filter(pl.col("missed") > 0) for frame in found]
    return pl.concat(filled) if filled else pl.DataFrame(schema={"model": pl.String})


def _found(keys: list[str]) -> list[pl.Expr]:
    def words(row: dict[str, Any]) -> str:
        return size_in_words(row["epsilon"], row.get("norm"), row.get("unit"))

    return [pl.struct(keys).map_elements(words, return_dtype=pl.String).alias("size")]


def warnings(checks: pl.DataFrame, weaker: pl.DataFrame, main: pl.DataFrame) -> Iterator[tuple[str, str]]:
    """Yield model and sentence for everything that says an accuracy under attack may be too high.

    Args:
        checks: from :func:`of_checks`, of all models.
        weaker: from :func:`of_weaker`, of all models.
        main: the table of accuracies by attack and budget.
    """
    for row in checks.iter_rows(named=True):
        yield from ((row["model"], f"{row['model']}: {text}") for text in _of_check(row))
    for row in weaker.iter_rows(named=True):
        yield (
            row["model"],
            f"{row['model']}: {attack_title(row['weak'])} breaks {row['missed']} of {row['n_images']} images at "
            f"ε = {row['size']} that {attack_title(row['strong'])} leaves right, which should be stronger.",
        )
    yield from _rising(main)


def _of_check(row: Mapping[str, Any]) -> Iterator[str]:
    images = row["n_images"]
    if row["differing"]:
        yield (
            f"two passes over the same images differ on {row['differing']} of {images}, in a logit by up to "
            f"{row['repeat_difference']:.3g}: the network draws random numbers, and rand is the attack for it."
        )
    if row["probabilities"] == images:
        yield (
            f"the outputs of all {images} images are not negative and sum up to one: they are probabilities, on which "
            "cross-entropy and DLR climb badly; return logits."
        )
    if row["zero_ce"]:
        yield (
            f"the gradient of cross-entropy is zero in every pixel of {row['zero_ce']} of {images} images: attacks "
            "that follow it are blind there."
        )
    if row["same_logits"] > _SAME_LOGITS:
        yield (
            f"{100 * row['same_logits']:.0f} % of the logits stay exactly the same when every value moves by a "
            "250th of a grey level: inputs or logits are rounded, and gradients may be hidden."
        )


def _rising(main: pl.DataFrame) -> Iterator[tuple[str, str]]:
    """Yield where accuracy rises with the budget."""
    settings = [name for name in main.columns if name in ("norm", "unit", "steps", "queries", "restarts")]
    for (model, attack, *_), rows in main.group_by(["model", "attack", *settings], maintain_order=True):
        ordered = rows.filter(pl.col("top1").is_not_null()).sort("epsilon").to_dicts()
        for less, more in itertools.pairwise(ordered):
            if attack != RANDOM and more["top1"] > less["top1"]:
                small, large = (size_in_words(r["epsilon"], r.get("norm"), r.get("unit")) for r in (less, more))
                yield (
                    str(model),
                    f"{model}: under {attack_title(str(attack))} accuracy rises from {less['top1']:.1f} to "
                    f"{more['top1']:.1f} % as ε grows from {small} to {large}.",
                )
