"""RobustBench's corruption errors on the published files of ImageNet-C."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from ipvit.analysis.published_tables import (
    PublishedNetwork,
    PublishedNumber,
    PublishedTable,
    TablePlace,
    half_interval,
    trained,
)
from ipvit.analysis.verdicts import NotComparableError
from ipvit.core.manifest import UsedModel
from ipvit.data.formats.imagenet_c import CLEAN, PREFIX
from ipvit.data.recognition import IMAGENET_C
from ipvit.experiments.corruptions.experiment import ALEXNET, FILES
from ipvit.metrics.mce import ALEXNET_ERROR, corruption_error, mce
from ipvit.models.names import ModelName, weights_in_words
from ipvit.models.published.tables import CorruptionAccuracies, robustbench_corruptions
from ipvit.models.zoo.paper import paper_name
from ipvit.perturb.corruptions import CORRUPTIONS, SEVERITIES

_PHOTOS = "2f1fd0aa050d2393d0d1ff5aa3da5cf25831254f1cb59266e3162a1e2c61adc8"
"""SHA-256 of the sorted names of RobustBench's 5,000 photos, one a line: its ``imagenet_test_image_ids.txt``."""

_RESNET50 = ("torchvision:resnet50", "timm:resnet50", "paper:resnet50")


@dataclasses.dataclass(frozen=True)
class _Network:
    """How a network of RobustBench is loaded here.

    Attributes:
        architectures: names, without options and tag, that have its architecture.
        loaded_as: names that load its very weights.
        sha256: first hex digits of the digests of its published files.
    """

    architectures: tuple[str, ...] = _RESNET50
    loaded_as: tuple[str, ...] = ()
    sha256: tuple[str, ...] = ()


_NETWORKS: Mapping[str, _Network] = {
    "AlexNet": _Network(
        ("torchvision:alexnet",), ("torchvision:alexnet", "torchvision:alexnet?weights=IMAGENET1K_V1"), ("7be5be79",)
    ),
    "Standard_R50": _Network(
        _RESNET50,
        ("torchvision:resnet50?weights=IMAGENET1K_V1", "paper:resnet50", "timm:resnet50.tv_in1k"),
        ("0676ba61", "19c8e357"),
    ),
    "Geirhos2018_SIN": _Network(("paper:resnet50_sin",), ("paper:resnet50_sin",), ("c8e5653e",)),
    "Geirhos2018_SIN_IN": _Network(sha256=("2a0d100e",)),
    "Geirhos2018_SIN_IN_IN": _Network(sha256=("ca06340c",)),
    "Hendrycks2020AugMix": _Network(("paper:resnet50_augmix",)),
    "Hendrycks2020Many": _Network(),
    "Erichson2022NoisyMix": _Network(),
    "Erichson2022NoisyMix_new": _Network(),
    "Salman2020Do_50_2_Linf": _Network(("torchvision:wide_resnet50_2", "timm:wide_resnet50_2")),
    "Tian2022Deeper_DeiT-S": _Network(("timm:deit_small_patch16_224", "paper:deit_small")),
    "Tian2022Deeper_DeiT-B": _Network(("timm:deit_base_patch16_224", "paper:deit_base")),
}
"""By RobustBench's names. Its DeiT, and all without ``loaded_as``, have weights that no name here loads: they are given
as a file. Where several have an architecture, a file that is none of theirs is set beside the first."""


class RobustBench(PublishedTable):
    """Errors of eleven networks and AlexNet by corruption and severity, corruption errors, and mCE."""

    name, experiment = "robustbench", "corruptions"
    source = "RobustBench, 2025-03"
    data = IMAGENET_C
    n_images = 5_000
    remarks = (
        "RobustBench measured on 5,000 of the 50,000 photos: the ± is what other photos may change, at most.",
        "Its mCE is divided by AlexNet's errors on those photos, ours by the published ones on all: up to 0.04 points. "
        "Corruption errors (CE) are divided by the latter on both sides.",
    )

    def check(self, data: str, tables: Mapping[str, Any]) -> None:
        """Refuse what was not measured on the published files of ImageNet-C."""
        found = tables.get("corruptions", {}).get("corruptions")
        right = f"ipvit corruptions --data {PREFIX}PATH measures the published files"
        if found is None:
            raise NotComparableError(f"corruptions were not measured; {right}")
        made = found["made"].unique().to_list()
        if FILES not in made:
            others = " and ".join(sorted(f"'{name}'" for name in made))
            raise NotComparableError(
                f"the corruptions were made by ipvit ({others}), with other random numbers and frost pictures than "
                f"ImageNet-C's: not comparable; {right}"
            )

    def network(self, model: UsedModel) -> PublishedNetwork:
        """Return RobustBench's network by the name that a model was loaded by, or the digest of its file."""
        parsed = trained(model)
        name = _robustbench_name(parsed, model.weights_sha256)
        is_published = parsed.weights is None or _has_digest(_NETWORKS[name], model.weights_sha256)
        if (size := model.preprocessing.size) != (224, 224):
            raise NotComparableError(f"RobustBench fed {name} with 224 pixels, here it is {size[0]}")
        numbers = tuple(_numbers(robustbench_corruptions()[name], robustbench_corruptions()["AlexNet"]))
        return PublishedNetwork(name, numbers, "published" if is_published else weights_in_words(parsed))

    def are_same_images(self, n_images: int, images: Callable[[], Iterable[str]]) -> bool:
        """Tell whether images are versions of RobustBench's 5,000 photos."""
        if n_images != self.n_images:
            return False
        photos = {"/".join(image.split("/")[-2:]) for image in images()}  # behind corruption and severity
        return hashlib.sha256("\n".join(sorted(photos)).encode()).hexdigest() == _PHOTOS


def _robustbench_name(parsed: ModelName, sha256: str | None) -> str:
    """Return what RobustBench calls a network.

    Raises:
        NotComparableError: it has none of that name, or of other weights.
    """
    plain = _spelled(parsed)
    architecture = plain.partition(".")[0]
    alike = [name for name, network in _NETWORKS.items() if architecture in network.architectures]
    if not alike:
        known = ", ".join(_NETWORKS)
        raise NotComparableError(f"RobustBench has no {parsed.name} on ImageNet-C; it has {known}")
    options = dict(parsed.options)
    weights = options.pop("weights", None)
    if options:
        raise NotComparableError(f"with {', '.join(options)} it is another network than RobustBench's {alike[0]}")
    if parsed.weights is not None:
        stem = PurePosixPath(parsed.weights.replace("\\", "/")).name.partition(".")[0]
        by_digest = [name for name in _NETWORKS if _has_digest(_NETWORKS[name], sha256)]
        return next(iter([*by_digest, *(name for name in alike if name == stem), *alike]))
    asked = plain if weights is None else f"{plain}?weights={weights}"
    for name in alike:
        if asked in _NETWORKS[name].loaded_as:
            return name
    loads = [other for name in alike for other in _NETWORKS[name].loaded_as]
    right = f"give {' or '.join(loads)}" if loads else f"give {parsed.name}@FILE with those of {alike[0]}"
    raise NotComparableError(f"these are other weights than those that RobustBench measured; {right}")


def _spelled(parsed: ModelName) -> str:
    """Return scheme and name in one way each, timm's with its scheme."""
    if parsed.scheme == "paper":
        return f"paper:{paper_name(parsed.name)}"
    scheme = {"hf-hub": "timm", "": "timm"}.get(parsed.scheme, parsed.scheme)
    return f"{scheme}:{parsed.name.removeprefix('timm/')}"


def _has_digest(network: _Network, sha256: str | None) -> bool:
    return sha256 is not None and any(sha256.startswith(digits) for digits in network.sha256)


def _numbers(published: CorruptionAccuracies, alexnet: CorruptionAccuracies) -> Iterator[PublishedNumber]:
    errors = published.errors
    halves = {name: _half_intervals(by_severity) for name, by_severity in errors.items()}
    # at most: the errors on all versions of a photo may rise and fall together
    at_most = {name: sum(halves[name]) / sum(ALEXNET_ERROR[name].values()) for name in errors}
    divided = {"made": FILES, "reference": ALEXNET}
    yield PublishedNumber(
        "mCE (%)",
        round(mce(errors, alexnet.errors), 2),
        sum(at_most.values()) / len(at_most),
        (TablePlace("corruptions", "corruptions-mce", "mce", divided),),
    )
    clean = {"made": FILES, "corruption": CLEAN, "severity": 0}
    yield PublishedNumber(
        "clean top-1 error (%)",
        round(100 - 100 * published.clean, 2),
        half_interval(published.clean, RobustBench.n_images),
        (TablePlace("corruptions", "corruptions", "top1", clean, complement=True),),
    )
    for name, value in corruption_error(errors).items():
        conditions = {**divided, "corruption": name, "severities": " ".join(map(str, SEVERITIES))}
        place = TablePlace("corruptions", "corruptions-ce", "ce", conditions)
        yield PublishedNumber(f"CE (%), {name}", round(value, 2), at_most[name], (place,))
    for name in CORRUPTIONS:
        for severity, half in zip(SEVERITIES, halves[name], strict=True):
            yield PublishedNumber(
                f"top-1 error (%), {name}, severity {severity}",
                round(100 * errors[name][severity], 2),
                half,
                (_error_place(name, severity),),
                (name, severity),
            )


def _half_intervals(by_severity: Mapping[int, float]) -> list[float]:
    return [half_interval(error, RobustBench.n_images) for error in by_severity.values()]


def _error_place(name: str, severity: int) -> TablePlace:
    conditions = {"made": FILES, "corruption": name, "severity": severity}
    return TablePlace("corruptions", "corruptions", "top1", conditions, complement=True)
