"""Error rates on corrupted photos, and how sure they are: the three error measures that go by similar names."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from ipvit.analysis.reduction import Reduction, Values
from ipvit.data.formats.imagenet_c import CLEAN
from ipvit.experiments.corruptions.experiment import ALEXNET, is_keyed
from ipvit.experiments.corruptions.variants import FAMILY, OWN_FAMILY, Variant, corruption_place
from ipvit.metrics.bootstrap import corrected_interval, resampled_means
from ipvit.metrics.intervals import wilson
from ipvit.metrics.mce import ALEXNET_CLEAN_ERROR, ALEXNET_ERROR, corruption_error, mce, mean_error, relative_mce
from ipvit.perturb.corruptions import CORRUPTIONS, SEVERITIES

_RESAMPLES = 1000

Errors = Mapping[str, Mapping[int, float]]


@dataclasses.dataclass(frozen=True)
class ModelErrors:
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

    @classmethod
    def of(cls, errors: np.ndarray, cells: Sequence[tuple[str, int]], *, imagenet: bool) -> ModelErrors:
        """Return a network from its errors.

        Args:
            errors: ``(photos, cells)``, 1 for wrong and 0 for right; NaN where nothing was measured.
            cells: corruption and severity of each column.
            imagenet: whether it answers ImageNet's classes.
        """
        measured = ~np.isnan(errors)
        clean = errors[:, cells.index((CLEAN, 0))] if (CLEAN, 0) in cells else np.empty(0)
        return cls(
            np.nanmean(errors, axis=0),
            resampled_means(errors, _RESAMPLES, with_pseudo_counts=True),
            resampled_means(errors, _RESAMPLES),
            cells,
            imagenet,
            (int(np.nansum(clean)), int((~np.isnan(clean)).sum())),
            int(measured.any(axis=1).sum()),
            {
                name: int(measured[:, [cell[0] == name for cell in cells]].any(axis=1).sum())
                for name in {cell[0] for cell in cells}
            },
        )

    def for_ratios(self) -> ModelErrors:
        """Return the network with samples of which ratios to another network on the same photos can be taken."""
        return dataclasses.replace(self, resampled=self.unsteadied)

    @property
    def corruptions(self) -> list[str]:
        """Those measured, in the order of the paper."""
        return sorted({name for name, _ in self.cells if name != CLEAN}, key=corruption_place)

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


def error_tables(
    reductions: Sequence[Reduction], variants: Sequence[Variant], imagenet: Mapping[str, bool], normaliser: str
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the errors per corruption, and over all of them.

    Args:
        reductions: of all models; their values say what is right, by ``made``, ``frost``, ``corruption`` and
            ``severity``, and are numbered by photo.
        variants: the ways in which pictures were made.
        imagenet: by model, whether it answers ImageNet's classes, for which AlexNet's errors are published; not for
            keyed pictures.
        normaliser: what errors are divided by: ``alexnet`` or a model.
    """
    by_corruption: list[dict[str, Any]] = []
    overall: list[dict[str, Any]] = []
    for variant in variants:
        networks = _networks(reductions, variant, imagenet)
        for model, network in networks.items():
            published = network.imagenet and not is_keyed(variant.made)
            reference = _Reference.alexnet() if published else None
            if normaliser.lower() != ALEXNET.lower():
                reference = _Reference.network(normaliser, networks.get(normaliser))
            reference_name = None if reference is None else reference.name
            place = {"model": model, "made": variant.label, "reference": reference_name}
            by_corruption += [place | row for row in _by_corruption(network, reference)]
            overall.append(place | _overall(network, reference))
    return _frame(by_corruption), _frame(overall)


def _networks(
    reductions: Sequence[Reduction], variant: Variant, imagenet: Mapping[str, bool]
) -> dict[str, ModelErrors]:
    """Return the networks on the pictures of a variant, all on one numbering of photos, so that they resample alike."""
    tables = {r.model: table for r in reductions if r.values and (table := _wrong(r.values, variant)) is not None}
    photos = sorted(set[str]().union(*(seen for seen, _, _ in tables.values())))
    number = pl.Enum(photos)
    networks: dict[str, ModelErrors] = {}
    for model, (seen, cells, wrong) in tables.items():
        errors = np.full((len(photos), len(cells)), np.nan)
        errors[seen.cast(number).to_physical().to_numpy()] = wrong
        networks[model] = ModelErrors.of(errors, cells, imagenet=imagenet[model])
    return networks


def _wrong(values: Values, variant: Variant) -> tuple[pl.Series, list[tuple[str, int]], np.ndarray] | None:
    """Return the photos that one network saw, the cells (corruption and severity), and ``(photos, cells)`` errors."""
    rows: dict[tuple[str, int], int] = {}
    for row, key in enumerate(values.keys):
        place = dict(zip(values.names, key, strict=True))
        if variant.holds(**place):
            rows[place["corruption"], place["severity"]] = row
    if not rows:
        return None
    cells = sorted(rows, key=lambda cell: (corruption_place(cell[0]), cell[1]))
    wrong = 1 - values.means[[rows[cell] for cell in cells]].T
    seen = np.flatnonzero(~np.isnan(wrong).all(axis=1))
    return values.images[seen], cells, wrong[seen]


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
    def network(cls, name: str, network: ModelErrors | None) -> _Reference | None:
        if network is None:
            return None
        network = network.for_ratios()
        return cls(name, lambda sample: network.errors(sample, network.corruptions), network.clean, measured=True)

    def beside(self, network: ModelErrors) -> ModelErrors:
        """Return a network whose errors can be divided by this reference's."""
        return network.for_ratios() if self.measured else network


def _by_corruption(network: ModelErrors, reference: _Reference | None) -> Iterator[dict[str, Any]]:
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
    known: Mapping[int, float] = {} if reference is None else reference.errors(sample).get(name, {})
    return {name: {s: known[s] for s in severities}} if set(severities) <= set(known) else None


def _overall(network: ModelErrors, reference: _Reference | None) -> dict[str, Any]:
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
