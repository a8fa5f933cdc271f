"""Section 3.2: shape bias, and what Geirhos et al. publish of the benchmark."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from ipvit.analysis.paper_numbers import PaperNumber, TableCell, measured, network, targets
from ipvit.experiments.shared_numbers import table_3

_FREE = frozenset({"stimuli"})
_OUTPUT = TableCell("shape-bias", "shape_bias", {"token": "output"}, implied={"token": {}}, free=_FREE)


def paper_numbers() -> Iterator[PaperNumber]:
    """Yield the numbers of the paper that this experiment measures."""
    for row in table_3():
        cell = TableCell("shape-bias", "shape_bias", {"token": row.token}, free=_FREE) if row.distilled else _OUTPUT
        yield row.number("shape bias", row.shape_bias, 0.005, (cell,), "cue-conflict")
    key = "fig6_shape_bias"
    entry = targets()[key]
    for title, value in measured(entry).items():
        yield PaperNumber(
            key,
            "Figure 6",
            title,
            "shape bias",
            value,
            entry["tol"],
            entry["src"],
            (_OUTPUT,),
            "cue-conflict",
            network=network(title),
        )
    yield from _references()


def _references() -> Iterator[PaperNumber]:
    key = "shape_bias_reference"
    entry = targets()[key]
    number = functools.partial(
        PaperNumber,
        key,
        "Geirhos et al.",
        what="shape bias",
        uncertainty=0.00005,
        source=entry["src"],
        data="cue-conflict",
    )
    for title, value, name in (
        ("ResNet50", entry["resnet50_mean_agg"], "resnet50"),
        ("ResNet50-SIN", entry["resnet50_sin_mean_agg"], "resnet50_sin"),
        ("AlexNet", entry["alexnet_tv"]["bias"], "torchvision:alexnet"),
        ("VGG16", entry["vgg16_tv"]["bias"], "torchvision:vgg16"),
    ):
        yield number(title, value=value, cells=(_OUTPUT,), network=name)
    another = "its trials were decided by another rule than the mean over a category's classes"
    yield number("ResNet50, raw trials", value=entry["resnet50_csv"]["bias"], why_not=another)
    yield number("ResNet50-SIN, raw trials", value=entry["resnet50_sin_csv"]["bias"], why_not=another)
    missing = "a network of Geirhos et al. that the paper does not use"
    yield number("ResNet50, SIN and IN", value=entry["resnet50_sin_in"], why_not=missing)
    yield number("ResNet50, SIN and IN, then IN", value=entry["resnet50_sin_in_ft"], why_not=missing)
    people = "people, not a network"
    yield number("10 people", value=entry["humans_pooled"]["bias"], why_not=people)
    for category, value in entry["human_per_class"].items():
        yield number(f"10 people, {category}", value=value, why_not=people)
