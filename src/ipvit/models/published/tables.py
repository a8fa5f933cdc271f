"""Tables of results that others publish and this package ships: timm's accuracies, RobustBench's on ImageNet-C.

The files beside this module state their source and date in their first lines. They are read when first asked for,
without torch or timm.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import gzip
from collections.abc import Iterator, Mapping
from pathlib import Path

from ipvit.models.names import ModelName

_TIMM = Path(__file__).with_name("timm-imagenet.csv.gz")
_ROBUSTBENCH = Path(__file__).with_name("robustbench-imagenet-c.csv")
_ROBUSTBENCH_LINF = Path(__file__).with_name("robustbench-imagenet-linf.csv")


@dataclasses.dataclass(frozen=True)
class TimmResult:
    """One line of timm's table of results on ImageNet's 50,000 validation images.

    Attributes:
        network: timm's name, the tag of the weights behind the dot.
        img_size: height and width of the input, in pixels.
        crop_pct: share of the resized picture's side that was cropped.
        interpolation: how pictures were resized.
        top1: accuracy in percent, to three decimals.
        top5: likewise.
        default: timm loads these weights for the name without a tag.
    """

    network: str
    img_size: int
    crop_pct: float
    interpolation: str
    top1: float
    top5: float
    default: bool


def timm_results(parsed: ModelName) -> tuple[TimmResult, ...]:
    """Return timm's results of a network, the smallest input first; none for names that are not timm's, or not there.

    Args:
        parsed: ``resnet50.a1_in1k``, ``timm:resnet50`` (the weights that timm loads for it) or
            ``hf-hub:timm/resnet50.a1_in1k``.

    >>> [(result.img_size, result.top1) for result in timm_results(ModelName.parse("resnet50.a1_in1k"))]
    [(224, 80.382), (288, 81.24)]
    """
    name = parsed.name
    if parsed.scheme == "hf-hub":
        owner, _, name = name.rpartition("/")
        if owner != "timm":
            return ()
    elif parsed.scheme not in ("", "timm"):
        return ()
    return _timm().get(name, ())


@functools.cache
def _timm() -> Mapping[str, tuple[TimmResult, ...]]:
    """Return the results by name, with and without tag."""
    found: dict[str, tuple[TimmResult, ...]] = {}
    for row in rows_of(gzip.decompress(_TIMM.read_bytes()).decode()):
        result = TimmResult(
            row["network"],
            int(row["img_size"]),
            float(row["crop_pct"]),
            row["interpolation"],
            float(row["top1"]),
            float(row["top5"]),
            row["default"] == "1",
        )
        names = {result.network, result.network.partition(".")[0]} if result.default else {result.network}
        for name in names:
            found[name] = (*found.get(name, ()), result)
    return found


@dataclasses.dataclass(frozen=True)
class CorruptionAccuracies:
    """What RobustBench states of one network on the published files of ImageNet-C.

    Attributes:
        clean: top-1 accuracy in [0, 1] on the clean images.
        accuracies: top-1 accuracy in [0, 1] by corruption and severity.
    """

    clean: float
    accuracies: Mapping[str, Mapping[int, float]]

    @property
    def errors(self) -> dict[str, dict[int, float]]:
        """Top-1 errors in [0, 1] by corruption and severity, as :func:`ipvit.metrics.mce` takes them."""
        return {
            name: {severity: 1 - accuracy for severity, accuracy in by_severity.items()}
            for name, by_severity in self.accuracies.items()
        }


@functools.cache
def robustbench_corruptions() -> Mapping[str, CorruptionAccuracies]:
    """Return RobustBench's accuracies on 5,000 photos of ImageNet-C, by its names of the networks; AlexNet is one."""
    found: dict[str, dict[str, dict[int, float]]] = {}
    for row in rows_of(_ROBUSTBENCH.read_text("utf-8")):
        by_severity = {severity: float(row[str(severity)]) for severity in range(1, 6) if row[str(severity)]}
        found.setdefault(row["network"], {})[row["corruption"]] = by_severity
    return {name: CorruptionAccuracies(rows.pop("clean")[1], rows) for name, rows in found.items()}


@dataclasses.dataclass(frozen=True)
class RobustAccuracy:
    """What RobustBench states of one network on ImageNet, in percent.

    Attributes:
        architecture: in RobustBench's words.
        clean: top-1 accuracy.
        autoattack: top-1 accuracy under AutoAttack in linf at 4/255.
    """

    architecture: str
    clean: float
    autoattack: float


@functools.cache
def robustbench_linf() -> Mapping[str, RobustAccuracy]:
    """Return RobustBench's accuracies under AutoAttack on 5,000 photos of ImageNet, by its names of the networks."""
    return {
        row["network"]: RobustAccuracy(row["architecture"], float(row["clean"]), float(row["autoattack"]))
        for row in rows_of(_ROBUSTBENCH_LINF.read_text("utf-8"))
    }


def rows_of(text: str) -> Iterator[dict[str, str]]:
    """Return the rows of a table with a heading, without the lines of its source."""
    return csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
