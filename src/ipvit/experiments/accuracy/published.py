"""timm's accuracies on ImageNet's validation images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ipvit.analysis.published_tables import (
    PublishedNetwork,
    PublishedNumber,
    PublishedTable,
    TablePlace,
    trained,
)
from ipvit.analysis.verdicts import NotComparableError
from ipvit.core.files import path_parts
from ipvit.core.manifest import UsedModel, UsedPreprocessing
from ipvit.data.recognition import IMAGENET, SIZES
from ipvit.experiments.accuracy.experiment import MEAN, OUTPUT
from ipvit.experiments.shared_numbers import CLEAN
from ipvit.models.names import weights_in_words
from ipvit.models.published.tables import TimmResult, timm_results
from ipvit.perturb.corruptions import CORRUPTIONS, EXTRA


class TimmResults(PublishedTable):
    """Top-1 and top-5 accuracy of timm's networks at the size of input that they were measured with."""

    name = "timm"
    source = "timm's results on ImageNet, 2026-08"
    data = IMAGENET
    n_images = SIZES[IMAGENET]

    def check(self, data: str, tables: Mapping[str, Any]) -> None:
        """Refuse what was not measured on clean images."""
        corrupted = next((part for part in path_parts(data) if part in (*CORRUPTIONS, *EXTRA)), "")
        if data.startswith("imagenet-c:") or corrupted:
            raise NotComparableError(f"the data {data!r} are corrupted: timm's results are on clean images")
        if not any(place.table in tables.get(place.experiment, {}) for place in _clean("top1")):
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
        weights = "published" if parsed.weights is None else weights_in_words(parsed)
        return PublishedNetwork(f"{result.network} at {result.img_size} pixels", numbers, weights)


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
