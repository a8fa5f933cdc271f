"""Missing, or merely black? Whether the ranking of models under occlusion survives what dropped patches become.

S. Jain et al., "Missingness bias in model debugging", ICLR 2022: a network that was never trained on black patches says
under them as much about black patches as about missing ones.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from ipvit.analysis.answers import joined_names
from ipvit.analysis.columns import COMMON, Column
from ipvit.analysis.reduction import Reduction, Values
from ipvit.errors import InputError
from ipvit.experiments.occlusion.experiment import FILLS, TOKENS
from ipvit.metrics.bootstrap import resampled_means
from ipvit.metrics.calibration import Floats
from ipvit.metrics.ranking import kendall_tau, ranks_from_best
from ipvit.results import Run

FILE = "missingness"
OF = "occlusion"
"""The experiment whose records these are."""
RESAMPLES = 1000
_SPLITS = 200  # of the images into two halves

COLUMNS: dict[str, Column] = {
    **COMMON,
    "rank": Column(unit="count"),
    "rank_low": Column(title="rank from", unit="count"),
    "rank_high": Column(title="to", unit="count"),
    "fill_a": Column(title="fill"),
    "fill_b": Column(title="beside"),
    "n_models": Column(title="models", unit="count"),
    "tau": Column(title="Kendall's tau", digits=2, range=(-1, 1)),
    "tau_self": Column(title="of a fill with itself", digits=2),
}
"""What the columns of the tables mean."""


@dataclasses.dataclass(frozen=True)
class Missingness:
    """What several fills say of the same models.

    Attributes:
        ranks: one row for each fill and model: what it retains on average over the levels, and its rank.
        taus: one row for each pair of fills: Kendall's tau over the models measured with both, and ``tau_self``, what
            it is of either fill with itself on the other half of the images, on average over splits: no more can be
            expected of two fills.
        levels: information losses that are averaged over.
        sentences: what follows.
        notes: what a reader must know.
    """

    ranks: pl.DataFrame
    taus: pl.DataFrame
    levels: tuple[float, ...]
    sentences: Sequence[str]
    notes: Sequence[str]


def missingness(run: Run, seed: int = 0) -> Missingness:
    """Return what the fills of a run say; nothing is measured.

    Args:
        run: with occlusion at equal levels, with several fills.
        seed: of the bootstrap over the images.

    Raises:
        InputError: fewer than two models or two fills can be set side by side.
    """
    reductions = [one for one in run.reductions(OF) if one.values is not None] if OF in run.analyses else []
    chances = run.analyses[OF].chances(reductions) if reductions else {}
    found = {one.model: _Measured.of(one, chances.get(one.model)) for one in reductions}
    notes = [f"{model} is left out: {one.refused}." for model, one in found.items() if one.refused]
    models = {model: one for model, one in found.items() if not one.refused}
    levels, fills = _shared(models)
    if len(models) < 2 or len(fills) < 2 or not levels:
        raise InputError(
            f"{str(run.out)!r} has {len(models)} models and {len(fills)} fills at equal levels; a ranking needs two "
            "models above chance, and two fills to set it beside" + (f" ({' '.join(notes)})" if notes else "")
        )
    sample = _resampled(models, levels, fills, seed)
    ranks = _ranks(sample)
    taus = _taus(sample)
    return Missingness(ranks, taus, levels, list(_sentences(sample, ranks, taus)), [*notes, *_notes(sample, levels)])


@dataclasses.dataclass(frozen=True)
class _Measured:
    """One model: the numbers of the conditions in its values, by fill and level."""

    values: Values
    rows: Mapping[tuple[str, float], int]
    clean: int
    chance: float
    refused: str = ""

    @classmethod
    def of(cls, reduction: Reduction, chance: float | None) -> _Measured:
        values = reduction.values
        assert values is not None
        rows: dict[tuple[str, float], int] = {}
        clean = -1
        for row, key in enumerate(values.keys):
            place = dict(zip(values.names, key, strict=True))
            level = float(place["information_loss"])
            if place["mode"] != "random":
                continue
            if level == 0:
                clean = row
            else:
                rows[TOKENS if place.get("removal") == TOKENS else str(place["fill"]), level] = row
        refused = ""
        if clean < 0:
            refused = "there is no clean accuracy"
        elif chance is None:
            refused = "what guessing gives is not known"
        elif float(np.nanmean(values.means[clean])) <= chance:
            refused = "it does no better than guessing on clean images"
        return cls(values, rows, clean, chance or 0.0, refused)

    @property
    def fills(self) -> list[str]:
        return list(dict.fromkeys(fill for fill, _ in self.rows))


def _shared(models: Mapping[str, _Measured]) -> tuple[tuple[float, ...], list[str]]:
    """Return the levels that all models have with all of their fills, and all fills, tokens last."""
    sets = [{level for f, level in one.rows if f == fill} for one in models.values() for fill in one.fills]
    levels = tuple(sorted(set[float].intersection(*sets))) if sets else ()
    fills = dict.fromkeys(fill for one in models.values() for fill in one.fills)
    order = [*FILLS, *(fill for fill in fills if fill not in (*FILLS, TOKENS)), TOKENS]
    return levels, [fill for fill in order if fill in fills]


@dataclasses.dataclass(frozen=True)
class _Sample:
    """Scores of M models with F fills, on all images and on bootstrap samples of them; NaN where not measured.

    Attributes:
        models: their names.
        fills: likewise.
        top1: ``(1 + B, M, F)`` accuracies averaged over the levels; the first is of all images.
        retained: ``(1 + B, M, F)``.
        halves: ``(2, S, M, F)`` what is retained on one half of the images and on the other, for several splits.
        n_images: measured with all models.
    """

    models: list[str]
    fills: list[str]
    top1: Floats
    retained: Floats
    halves: Floats
    n_images: int

    def both(self, a: int, b: int) -> np.ndarray:
        """Return which models were measured with both of two fills."""
        return np.isfinite(self.retained[0, :, a]) & np.isfinite(self.retained[0, :, b])


def _resampled(models: Mapping[str, _Measured], levels: Sequence[float], fills: list[str], seed: int) -> _Sample:
    images = sorted(set[str].intersection(*(set(one.values.images) for one in models.values())))
    columns: list[Floats] = []
    for one in models.values():
        at = {image: place for place, image in enumerate(one.values.images)}
        order = [at[image] for image in images]
        columns.append(one.values.means[one.clean][order])
        for fill in fills:
            rows = [one.rows[fill, level] for level in levels if (fill, level) in one.rows]
            there = len(rows) == len(levels)
            columns.append(one.values.means[rows][:, order].mean(axis=0) if there else np.full(len(images), np.nan))
    whole = np.column_stack(columns)
    measured = np.isfinite(whole[:, np.isfinite(whole).any(axis=0)]).all(axis=1)
    whole = whole[measured]
    with np.errstate(invalid="ignore"):
        means = np.concatenate([whole.mean(axis=0, keepdims=True), resampled_means(whole, RESAMPLES, seed)])
    chance = np.array([one.chance for one in models.values()])[:, None]
    rng, middle = np.random.default_rng(seed), len(whole) // 2
    orders = [rng.permutation(len(whole)) for _ in range(_SPLITS)]
    parts = [(whole[order[:middle]].mean(axis=0), whole[order[middle:]].mean(axis=0)) for order in orders]
    halves = np.array(parts).swapaxes(0, 1)
    shape = (len(models), 1 + len(fills))
    scores = means.reshape(-1, *shape)
    retained, apart = _retained(scores, chance), _retained(halves.reshape(2, -1, *shape), chance)
    return _Sample(list(models), fills, scores[..., 1:], retained, apart, len(whole))


def _retained(scores: Floats, chance: Floats) -> Floats:
    """Return what is retained ``(..., M, F)`` of clean accuracies, the first of ``(..., M, 1 + F)``."""
    above = scores[..., :1] - chance
    return np.where(above > 0, (scores[..., 1:] - chance) / np.where(above > 0, above, 1.0), np.nan)


def _ends(samples: Floats) -> tuple[float, float]:
    low, high = np.nanquantile(samples, [0.025, 0.975])
    return float(low), float(high)


def _ranks(sample: _Sample) -> pl.DataFrame:
    rows: list[dict[str, Any]] = []
    for f, fill in enumerate(sample.fills):
        there = np.flatnonzero(np.isfinite(sample.retained[0, :, f]))
        ranks = ranks_from_best(np.nan_to_num(sample.retained[:, there, f], nan=-np.inf))
        for place, m in enumerate(there.tolist()):
            row: dict[str, Any] = {"fill": fill, "model": sample.models[m]}
            for name, scores in (("top1", sample.top1), ("retained", sample.retained)):
                low, high = _ends(100 * scores[1:, m, f])
                row |= {name: 100 * float(scores[0, m, f]), f"{name}_low": low, f"{name}_high": high}
            low, high = _ends(ranks[1:, place].astype(np.float64))
            row |= {"rank": int(ranks[0, place]), "rank_low": math.floor(low), "rank_high": math.ceil(high)}
            rows.append(row | {"n_models": len(there), "n_images": sample.n_images})
    return pl.DataFrame(rows, infer_schema_length=None, orient="row")


def _taus(sample: _Sample) -> pl.DataFrame:
    rows: list[dict[str, Any]] = []
    for a, b in itertools.combinations(range(len(sample.fills)), 2):
        both = sample.both(a, b)
        row: dict[str, Any] = {"fill_a": sample.fills[a], "fill_b": sample.fills[b]}
        row |= dict.fromkeys(("tau", "tau_low", "tau_high", "tau_self"))
        first, second = (sample.retained[:, both, fill] for fill in (a, b))
        if both.sum() >= 2 and np.isfinite(found := kendall_tau(first, second))[0]:
            low, high = _ends(found[1:])
            row["tau"] = float(found[0])
            row |= {"tau_low": min(low, row["tau"]), "tau_high": max(high, row["tau"])}
            row["tau_self"] = min(_with_itself(sample.halves[..., both, fill]) for fill in (a, b))
        rows.append(row | {"n_models": int(both.sum()), "n_images": sample.n_images})
    return pl.DataFrame(rows, infer_schema_length=None, orient="row").with_columns(pl.col("^tau.*$").cast(pl.Float64))


def _with_itself(halves: Floats) -> float:
    """Return Kendall's tau between the halves of the images ``(2, S, M)`` under one fill, on average."""
    return float(np.nanmean(kendall_tau(halves[0], halves[1])))


def _sentences(sample: _Sample, ranks: pl.DataFrame, taus: pl.DataFrame) -> Sequence[str]:
    """Say whether the ranking survives the fill, and which model is first under which."""
    known = taus.filter(pl.col("tau").is_not_null())
    if known.is_empty():
        return ["No ranking: no two models were measured with two fills."]
    least = known.row(int(known["tau"].arg_min() or 0), named=True)
    ends = f"{least['tau']:z.2f} [{least['tau_low']:z.2f}, {least['tau_high']:z.2f}]"
    where = f"{least['fill_a']} and {least['fill_b']}"
    compared = [fill for fill in sample.fills if fill in {*known["fill_a"], *known["fill_b"]}]
    what = f"The ranking of {len(sample.models)} models by what they retain"
    lowest = f"Kendall's tau is lowest between {where}, {ends}"
    if least["tau"] > 1 - 1e-9:
        said = f"{what} survives the fill: it is the same under {joined_names(compared)}."
        if (low := float(known["tau_low"].to_numpy().min())) < 1 - 1e-9:
            said += f" On other images it may differ: the lowest end of an interval of Kendall's tau is {low:z.2f}."
    elif least["tau_high"] >= least["tau_self"]:
        said = (
            f"{what} differs between fills by no more than it does between samples of images: {lowest}; of a fill with "
            f"itself, on one half of the images and on the other, it is {least['tau_self']:z.2f}."
        )
    else:
        said = (
            f"{what} does not survive the fill: {lowest}; of a fill with itself, on one half of the images and on the "
            f"other, it is {least['tau_self']:z.2f}."
        )
    best = ranks.filter(pl.col("rank") == 1, pl.col("fill").is_in(compared))
    first = best.group_by("model", maintain_order=True).agg("fill")
    firsts = [f"{model} under {', '.join(fills)}" for model, fills in first.iter_rows()]
    return [said, f"First is {'; '.join(firsts)}."]


def _notes(sample: _Sample, levels: Sequence[float]) -> list[str]:
    shares = ", ".join(f"{100 * level:g} %" for level in levels)
    notes = [
        f"Retained accuracy is averaged over information losses of {shares}, on the {sample.n_images:,} images "
        f"that all models were measured on; intervals are of {RESAMPLES:,} bootstrap samples of these."
    ]
    for f, fill in enumerate(sample.fills):
        without = [model for m, model in enumerate(sample.models) if not np.isfinite(sample.retained[0, m, f])]
        if without:
            notes.append(f"Not measured with {fill}: {', '.join(without)}; its taus are over the other models.")
    if len(sample.models) < 5:
        notes.append(
            f"{len(sample.models)} models have few orders, so Kendall's tau moves in large steps: it is of these "
            "models and says little of others."
        )
    return notes
