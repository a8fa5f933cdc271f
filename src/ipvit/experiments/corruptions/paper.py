"""Section 3.4: common corruptions, and what other publications state of the same files."""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType

from ipvit.analysis.paper_numbers import Conditions, PaperNumber, TableCell, measured, network, targets

_FILES: Conditions = MappingProxyType({"made": "ImageNet-C files"})
_DATA = "imagenet-c"
_FREE = frozenset({"corruptions", "severities", "jpeg", "frost"})


def paper_numbers() -> Iterator[PaperNumber]:
    """Yield the numbers of the paper that this experiment measures."""
    yield from _mce()
    yield from _resnet50()
    yield from _alexnet()


def _mce() -> Iterator[PaperNumber]:
    key = "mce"
    entry = targets()[key]
    cell = TableCell("corruptions", "mce", {**_FILES, "reference": "AlexNet"}, "corruptions-mce", free=_FREE)
    for title, value in measured(entry).items():
        model = "ResNet50-AugMix" if title == "AugMix-R50" else title
        yield PaperNumber(
            key,
            "Table 4 (mCE)",
            title,
            "mCE (%)",
            value,
            0.05,
            entry["src"],
            (cell,),
            _DATA,
            network=network(title),
            drawn={"model": model, **_FILES},
        )


def _resnet50() -> Iterator[PaperNumber]:
    key = "resnet50_ce_examples"
    entry = targets()[key]
    for corruption, (accuracy, error) in entry["acc_ce"].items():
        for words, measure, value in (
            ("mean error (%)", "mean_error", 100 - accuracy),
            ("corruption error (%)", "ce", error),
        ):
            cell = TableCell("corruptions", measure, {**_FILES, "corruption": corruption}, "corruptions-ce", free=_FREE)
            yield PaperNumber(
                key,
                "Rusak et al.",
                "ResNet50",
                f"{words}, {corruption}",
                round(value, 2),
                0.005,
                entry["src"],
                (cell,),
                _DATA,
                network="resnet50",
            )


def _alexnet() -> Iterator[PaperNumber]:
    key = "alexnet_err"
    entry = targets()[key]
    for corruption, errors in measured(entry).items():
        for severity, error in enumerate(errors, start=1):
            place = {**_FILES, "corruption": corruption, "severity": severity}
            cell = TableCell("corruptions", "top1", place, free=_FREE | {"normaliser"})
            yield PaperNumber(
                key,
                "Hendrycks et al.",
                "AlexNet",
                f"top-1 (%), {corruption}, severity {severity}",
                round(100 - 100 * error, 3),
                0.0005,
                entry["src"],
                (cell,),
                _DATA,
                network="torchvision:alexnet",
            )
