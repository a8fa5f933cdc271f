"""timm's accuracies on ImageNet's validation images and on natural shifts of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ipvit.analysis.published_tables import (
    PublishedBasis,
    PublishedNetwork,
    PublishedNumber,
    PublishedTable,
    TablePlace,
    trained,
)
from ipvit.analysis.verdicts import NotComparableError
from ipvit.core.files import path_parts
from ipvit.core.manifest import Manifest, UsedModel, UsedPreprocessing
from ipvit.data.recognition import IMAGENET, SIZES
from ipvit.experiments.accuracy.experiment import MEAN, OUTPUT
from ipvit.experiments.shared_numbers import CLEAN
from ipvit.models.names import weights_in_words
from ipvit.models.published.shifts import SETS, PublishedSet, ShiftResult, timm_shift_result
from ipvit.models.published.tables import TimmResult, timm_results
from ipvit.perturb.corruptions import CORRUPTIONS, EXTRA

_SHIFT = "shift"
"""The experiment that measures natural shifts beside clean images, and its table."""


class TimmResults(PublishedTable):
    """Top-1 and top-5 accuracy of timm's networks at the size of input that they were measured with.

    On natural shifts, and on the validation images of the classes of ImageNet-A and -R, it is top-1 over whole sets,
    among the answers of their protocols.
    """

    name = "timm"
    source = "timm's results on ImageNet, 2026-08"
    data = IMAGENET
    n_images = SIZES[IMAGENET]

    def check(self, data: str, tables: Mapping[str, Any]) -> None:
        """Refuse what was not measured on clean images."""
        corrupted = next((part for part in path_parts(data) if part in (*CORRUPTIONS, *EXTRA)), "")
        if data.startswith("imagenet-c:") or corrupted:
            raise NotComparableError(f"the data {data!r} are corrupted: timm's results are on clean images")
        places = (*_clean("top1"), TablePlace(_SHIFT, _SHIFT, "top1"))
        if not any(place.table in tables.get(place.experiment, {}) for place in places):
            names = ", ".join(dict.fromkeys(cell.experiment for cell in CLEAN))
            raise NotComparableError(f"no clean accuracy was measured; one of these measures it: {names}")

    def network(self, model: UsedModel) -> PublishedNetwork:
        """Return timm's result of a network by the name that a model was loaded by, at its size of input."""
        parsed = trained(model)
        results = timm_results(parsed)
        if not results:
            raise NotComparableError(f"timm's results have no {_written(parsed.scheme, parsed.name)}")
        if options := set(parsed.options) - {"img_size"}:
            raise NotComparableError(f"with {', '.join(sorted(options))} it is another network than timm measured")
        result = next((result for result in results if _fed_alike(result, model.preprocessing)), None)
        if result is None:
            stated = " or ".join(f"{r.img_size} pixels, crop {r.crop_pct:g}, {r.interpolation}" for r in results)
            used = model.preprocessing
            raise NotComparableError(
                f"timm measured {results[0].network} with {stated}; here it is {used.size[0]} pixels, crop "
                f"{used.crop_pct:g}, {used.interpolation}"
            )
        numbers = (
            PublishedNumber("top-1 (%)", result.top1, 0.0, _clean("top1")),
            PublishedNumber("top-5 (%)", result.top5, 0.0, _clean("top5")),
        )
        shifts = timm_shift_result(result.network, result.img_size)
        numbers = (*numbers, *(() if shifts is None else _shifts(shifts)))
        weights = "published" if parsed.weights is None else weights_in_words(parsed)
        return PublishedNetwork(f"{result.network} at {result.img_size} pixels", numbers, weights)

    def unknown(self, manifest: Manifest, tables: Mapping[str, Any]) -> list[str]:
        """Say on which sets timm publishes nothing."""
        table = tables.get(_SHIFT, {}).get(_SHIFT)
        names: list[str] = [] if table is None else table["set"].unique(maintain_order=True).to_list()
        return [f"{name}: timm publishes no accuracy on it" for name in names if name not in SETS]


def _shifts(published: ShiftResult) -> Iterator[PublishedNumber]:
    """Yield accuracies on natural shifts, and clean ones among the same answers, where each is a row of its own."""
    clean: dict[str, PublishedNumber] = {}
    for name, known in SETS.items():
        basis = PublishedBasis(name, known.title, known.images, known.n_answers)
        of_set = TablePlace(_SHIFT, _SHIFT, "top1", {"set": name}, n_images="n_shifted", several=True)
        yield PublishedNumber(
            f"top-1 (%), {known.title}", published.top1[known.shifted], 0.0, (of_set, *_clean("top1")), basis=basis
        )
        clean.setdefault(known.clean, _clean_of(name, known, published.top1[known.clean]))
    yield from clean.values()


def _clean_of(name: str, known: PublishedSet, value: float) -> PublishedNumber:
    """Return the accuracy on the clean images of a set's classes; all of them stand in runs without shifts, too."""
    fewer = known.clean_images < SIZES[IMAGENET]
    title = f"{known.title}-clean" if fewer else "clean"
    conditions = {"set": name} if fewer else {"n_answers": known.n_answers}
    place = TablePlace(_SHIFT, _SHIFT, "clean", conditions, n_images="n_clean", several=True, of_data=IMAGENET)
    basis = PublishedBasis(f"{name}-clean" if fewer else IMAGENET, title, known.clean_images, known.n_answers)
    places = (place, *_clean("top1")) if fewer else (place,)
    return PublishedNumber(f"top-1 (%), {title}", value, 0.0, places, basis=basis)


def _written(scheme: str, name: str) -> str:
    return f"{scheme}:{name}" if scheme else name


def _fed_alike(result: TimmResult, used: UsedPreprocessing) -> bool:
    return (
        used.size == (result.img_size, result.img_size)
        and abs(used.crop_pct - result.crop_pct) < 0.002
        and used.interpolation == result.interpolation
    )


def _clean(measure: str) -> tuple[TablePlace, ...]:
    """Return where accuracies on whole images stand; of two heads, those of their mean."""
    others = [TablePlace(cell.experiment, cell.experiment, measure, cell.conditions) for cell in CLEAN[1:]]
    return (
        TablePlace("accuracy", "accuracy", measure, {"token": OUTPUT}, implied=("token",)),
        TablePlace("accuracy", "accuracy", measure, {"token": MEAN}),
        *others,
    )
