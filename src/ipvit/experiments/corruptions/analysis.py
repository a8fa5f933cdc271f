"""Tables of the corruptions: accuracies, and the three error measures that go by similar names."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from ipvit.analysis.aggregate import accuracy_table
from ipvit.data.corrupted import DRAWN
from ipvit.data.imagenet_c import CLEAN, KNOWN
from ipvit.metrics.bootstrap import corrected_interval, resampled_means
from ipvit.metrics.intervals import wilson
from ipvit.metrics.mce import ALEXNET_CLEAN_ERROR, ALEXNET_ERROR, corruption_error, mce, mean_error, relative_mce
from ipvit.perturb.corruptions import CORRUPTIONS, FAMILIES, SEVERITIES

ALEXNET = "AlexNet"
FILES, COPY, HERE, HERE_JPEG = "ImageNet-C files", "ipvit corrupt files", "on the fly", "on the fly, JPEG 85"
"""How the corrupted pictures came to be; only the first is what published numbers rest on."""

FAMILY = {name: family for family, names in FAMILIES.items() for name in names}
OWN_FAMILY = "own"
"""Family of the corruptions that the user wrote."""
_ORDER = {name: place for place, name in enumerate((CLEAN, *KNOWN))}
_BY = ["model", "made"]
_RESAMPLES = 1000

Errors = Mapping[str, Mapping[int, float]]


def make_tables(records: pl.DataFrame, normaliser: str) -> dict[str, pl.DataFrame]:
    """Return the tables, see :meth:`ipvit.experiments.corruptions.experiment.Corruptions.tables`."""
    rows = _with_variants(records)
    if "label" in rows.columns and rows["label"].max() != -1:
        rows = rows.filter(pl.col("label") >= 0)  # an image without label is neither right nor wrong
    by_corruption, overall = _error_tables(rows, normaliser)
    accuracies = accuracy_table(rows, [*_BY, "corruption", "severity"])
    place = pl.col("corruption").replace_strict(_ORDER, default=len(_ORDER), return_dtype=pl.Int32)
    models = {name: i for i, name in enumerate(rows["model"].unique(maintain_order=True))}
    model = pl.col("model").replace_strict(models, return_dtype=pl.Int32)
    return {
        "corruptions": accuracies.sort(model, "made", place, "corruption", "severity"),
        "corruptions-family": _families(rows).sort(model, "made", maintain_order=True),
        "corruptions-ce": by_corruption,
        "corruptions-mce": overall,
    }


def _place(name: str) -> tuple[int, str]:
    """Where a corruption stands among the others: the user's own come last, by name."""
    return _ORDER.get(name, len(_ORDER)), name


def missing_cells(frame: pl.DataFrame) -> list[str]:
    """Return what a mean corruption error still needs, from the rows of the main table for one model.

    >>> rows = [(name, s) for name in CORRUPTIONS for s in SEVERITIES if (name, s) not in {("fog", 2), ("snow", 5)}]
    >>> missing_cells(pl.DataFrame(rows, schema=["corruption", "severity"], orient="row"))
    ['snow at 5', 'fog at 2']
    """
    there = set(frame.select("corruption", "severity").iter_rows())
    missing = {name: [s for s in SEVERITIES if (name, s) not in there] for name in CORRUPTIONS}
    whole = [name for name, severities in missing.items() if len(severities) == len(SEVERITIES)]
    parts = [f"{name} at {', '.join(map(str, s))}" for name, s in missing.items() if s and name not in whole]
    return whole + parts


def _with_variants(records: pl.DataFrame) -> pl.DataFrame:
    """Return rows whose ``made`` tells apart all that must not be mixed, each such set with its clean images.

    ``image`` becomes the photo, of which files hold many versions.
    """
    rows = records.with_columns(pl.col(pl.Categorical).cast(pl.String))
    photo = pl.col("image").str.replace(r"^[^/]*/[^/]*/", "")
    is_file = pl.col("made").is_in([FILES, COPY])
    rows = rows.with_columns(pl.when(is_file).then(photo).otherwise(pl.col("image")).alias("image"))
    if "frost" not in rows.columns:
        rows = rows.with_columns(pl.lit("").alias("frost"))
    rows = rows.with_columns(pl.col("frost").fill_null(""))
    clean, corrupted = rows.filter(pl.col("corruption") == CLEAN), rows.filter(pl.col("corruption") != CLEAN)
    parts = []
    for (made,), group in corrupted.group_by(["made"], maintain_order=True):
        pictures = sorted(set(group["frost"].unique()) - {""}, key=lambda name: (name != DRAWN, name))
        for frost in pictures or [""]:
            label = made if frost in ("", DRAWN) else f"{made}, frost pictures {frost}"
            part = group.filter(pl.col("frost").is_in(["", frost]))
            parts.append(pl.concat([clean, part], how="diagonal_relaxed").with_columns(pl.lit(label).alias("made")))
    return pl.concat(parts) if parts else clean


def _families(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the accuracy over the corruptions of a family, per severity; the clean image begins every family."""
    families = rows.filter(pl.col("corruption") != CLEAN).with_columns(
        pl.col("corruption").replace_strict(FAMILY, default=OWN_FAMILY, return_dtype=pl.String).alias("family"),
        pl.col("corruption").alias("run"),  # several answers on one image, as several runs are
    )
    known = [name for name in (*FAMILIES, OWN_FAMILY) if name in set(families["family"])]
    clean = rows.filter(pl.col("corruption") == CLEAN).with_columns(pl.lit(CLEAN).alias("run"))
    parts = [
        accuracy_table(
            pl.concat(
                [clean.with_columns(pl.lit(name).alias("family")), families.filter(pl.col("family") == name)],
                how="diagonal_relaxed",
            ),
            [*_BY, "family", "severity"],
        ).sort("severity")
        for name in known
    ]
    if not parts:
        return accuracy_table(clean.with_columns(pl.lit(CLEAN).alias("family")), [*_BY, "family", "severity"])
    table = pl.concat(parts, how="diagonal_relaxed").rename({"n_runs": "n_corruptions"})
    return table.drop("top1_std", "top5_std")


@dataclasses.dataclass(frozen=True)
class _Network:
    """Error rates of one network: by corruption and severity, on all photos and on bootstrap samples of them."""

    rates: np.ndarray
    resampled: np.ndarray
    unsteadied: np.ndarray
    cells: Sequence[tuple[str, int]]
    imagenet: bool
    clean_images: tuple[int, int]
    n_images: int
    photos: Mapping[str, int]
    """By corruption, those seen at some severity of it."""

    def for_ratios(self) -> _Network:
        """Return the network with samples of which ratios to another network on the same photos can be taken."""
        return dataclasses.replace(self, resampled=self.unsteadied)

    @property
    def corruptions(self) -> list[str]:
        """Those measured, in the order of the paper."""
        return sorted({name for name, _ in self.cells if name != CLEAN}, key=_place)

    def errors(self, sample: int | None, names: Sequence[str]) -> dict[str, dict[int, float]]:
        """Errors of some corruptions, on all photos or on one sample."""
        row = (self.rates if sample is None else self.resampled[sample]).tolist()
        found: dict[str, dict[int, float]] = {name: {} for name in names}
        for (name, severity), value in zip(self.cells, row, strict=True):
            if name in found:
                found[name][severity] = value
        return found

    def clean(self, sample: int | None) -> float | None:
        """The error on clean images, on all photos or on one sample."""
        if (CLEAN, 0) not in self.cells:
            return None
        row = self.rates if sample is None else self.resampled[sample]
        return float(row[self.cells.index((CLEAN, 0))])


def _error_tables(rows: pl.DataFrame, normaliser: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    by_corruption, overall = [], []
    for (made,), group in rows.group_by(["made"], maintain_order=True):
        networks = _networks(group)
        for model, network in networks.items():
            reference = _Reference.alexnet() if network.imagenet else None
            if normaliser.lower() != ALEXNET.lower():
                reference = _Reference.network(normaliser, networks.get(normaliser))
            place = {"model": model, "made": made, "reference": None if reference is None else reference.name}
            by_corruption += [place | row for row in _by_corruption(network, reference)]
            overall.append(place | _overall(network, reference))
    return _frame(by_corruption), _frame(overall)


def _networks(group: pl.DataFrame) -> dict[str, _Network]:
    """Return the networks of a set of records, all on the same numbering of photos, so that they resample alike."""
    photos = sorted(group["image"].unique())
    number = pl.Enum(photos)
    networks = {}
    for (model,), frame in group.group_by(["model"], maintain_order=True):
        cells = sorted(set(frame.select("corruption", "severity").iter_rows()), key=lambda c: (_place(c[0]), c[1]))
        names = [f"{name}/{severity}" for name, severity in cells]
        row = frame["image"].cast(number).to_physical().to_numpy()
        cell = frame.select(pl.concat_str("corruption", pl.lit("/"), "severity").cast(pl.Enum(names)).to_physical())
        errors = np.full((len(photos), len(cells)), np.nan)
        errors[row, cell.to_series().to_numpy()] = ~frame["correct"].to_numpy()
        clean = errors[:, cells.index((CLEAN, 0))] if (CLEAN, 0) in cells else np.empty(0)
        networks[model] = _Network(
            np.nanmean(errors, axis=0),
            resampled_means(errors, _RESAMPLES, steadied=True),
            resampled_means(errors, _RESAMPLES),
            cells,
            bool(frame["imagenet"].all()),
            (int(np.nansum(clean)), int((~np.isnan(clean)).sum())),
            int((~np.isnan(errors)).any(axis=1).sum()),
            {
                name: int((~np.isnan(errors[:, [cell[0] == name for cell in cells]])).any(axis=1).sum())
                for name in {cell[0] for cell in cells}
            },
        )
    return networks


@dataclasses.dataclass(frozen=True)
class _Reference:
    """What corruption errors are divided by: published constants, or another network on the same photos."""

    name: str
    errors: Callable[[int | None], Errors]
    clean: Callable[[int | None], float | None]
    measured: bool = False

    @classmethod
    def alexnet(cls) -> _Reference:
        return cls(ALEXNET, lambda _: ALEXNET_ERROR, lambda _: ALEXNET_CLEAN_ERROR)

    @classmethod
    def network(cls, name: str, network: _Network | None) -> _Reference | None:
        if network is None:
            return None
        network = network.for_ratios()
        return cls(name, lambda sample: network.errors(sample, network.corruptions), network.clean, measured=True)

    def beside(self, network: _Network) -> _Network:
        """Return a network whose errors can be divided by this reference's."""
        return network.for_ratios() if self.measured else network


def _by_corruption(network: _Network, reference: _Reference | None) -> Iterator[dict[str, Any]]:
    rated = network if reference is None else reference.beside(network)
    corrected = reference is not None and reference.measured
    for name in network.corruptions:
        severities = [severity for corruption, severity in network.cells if corruption == name]

        def error(sample: int | None, name: str = name) -> float:
            return mean_error(network.errors(sample, [name]))

        def divided(sample: int | None, name: str = name, severities: Sequence[int] = severities) -> float:
            wanted = _same_severities(reference, sample, name, severities)
            return math.nan if wanted is None else corruption_error(rated.errors(sample, [name]), wanted)[name]

        yield {
            "family": FAMILY.get(name, OWN_FAMILY),
            "corruption": name,
            "severities": " ".join(map(str, severities)),
            "n_images": network.photos[name],
            **_interval("mean_error", error),
            **_interval("ce", divided, corrected),
        }


def _same_severities(
    reference: _Reference | None, sample: int | None, name: str, severities: Sequence[int]
) -> Errors | None:
    known = {} if reference is None else reference.errors(sample).get(name, {})
    return {name: {s: known[s] for s in severities}} if set(severities) <= set(known) else None


def _overall(network: _Network, reference: _Reference | None) -> dict[str, Any]:
    counted = [name for name in network.corruptions if name in CORRUPTIONS]
    severities = sorted({severity for name, severity in network.cells if name in counted})
    complete = set(network.cells) >= {(name, severity) for name in CORRUPTIONS for severity in SEVERITIES}
    complete = complete and reference is not None and set(CORRUPTIONS) <= set(reference.errors(None))

    rated = network if reference is None else reference.beside(network)
    corrected = reference is not None and reference.measured

    def absolute(sample: int | None) -> float:
        return mean_error(network.errors(sample, counted))

    def divided(sample: int | None) -> float:
        assert reference is not None
        return mce(rated.errors(sample, CORRUPTIONS), _the_fifteen(reference, sample))

    def relative(sample: int | None) -> float:
        clean, of_reference = rated.clean(sample), None if reference is None else reference.clean(sample)
        if reference is None or clean is None or of_reference is None:
            return math.nan
        return relative_mce(rated.errors(sample, CORRUPTIONS), clean, _the_fifteen(reference, sample), of_reference)

    wrong, n_clean = network.clean_images
    low, high = wilson(wrong, n_clean)
    return {
        "n_images": network.n_images,
        **_interval("mce", divided if complete else _unknown, corrected),
        **_interval("relative_mce", relative if complete else _unknown, corrected),
        **_interval("mean_error", absolute if counted else _unknown),
        "clean_error": 100 * wrong / n_clean if n_clean else math.nan,
        "clean_error_low": 100 * low,
        "clean_error_high": 100 * high,
        "n_corruptions": len(counted),
        "severities": " ".join(map(str, severities)),
    }


def _the_fifteen(reference: _Reference, sample: int | None) -> dict[str, Mapping[int, float]]:
    errors = reference.errors(sample)
    return {name: errors[name] for name in CORRUPTIONS}


def _interval(name: str, measure: Callable[[int | None], float], corrected: bool = False) -> dict[str, float]:
    """Return a measure on all photos and the 95 % percentile interval over the bootstrap samples.

    Args:
        name: of the measure.
        measure: on one sample, or on all photos (None).
        corrected: take the bias-corrected interval, for ratios of two networks.
    """
    value = _or_nan(measure, None)
    ends = (math.nan, math.nan)
    if not math.isnan(value):
        samples = np.array([_or_nan(measure, sample) for sample in range(_RESAMPLES)])
        ends = (
            corrected_interval(samples, value) if corrected else np.quantile(samples, (0.025, 0.975))
        )  # NaN where some sample leaves nothing to divide by
    return {name: value, f"{name}_low": float(ends[0]), f"{name}_high": float(ends[1])}


def _unknown(_: int | None) -> float:
    return math.nan


def _or_nan(measure: Callable[[int | None], float], sample: int | None) -> float:
    try:
        return measure(sample)
    except ValueError:  # the reference makes no error, or corruption adds none to it
        return math.nan


def _frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    frame = pl.DataFrame(rows, infer_schema_length=None)
    numbers = [name for name in frame.columns if frame.schema[name].is_float()]
    return frame.with_columns(pl.col(name).fill_nan(None) for name in numbers)
