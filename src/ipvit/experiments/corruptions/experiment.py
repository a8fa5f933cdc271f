"""Common corruptions: noise, blur, weather and digital artefacts (section 3.4, the paper's table of mCE)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
import polars as pl
import torch
from pydantic import Field, PrivateAttr, field_validator

from ipvit.data.corrupted import Corruption, OwnCorruption, frost_pictures
from ipvit.data.imagenet_c import CLEAN, ImageNetC
from ipvit.errors import InputError, did_you_mean
from ipvit.experiments.base import Batch, Condition, ExampleImage, Experiment, Records, classify
from ipvit.experiments.corruptions import analysis as corruption_tables
from ipvit.experiments.corruptions import charts as corruption_charts
from ipvit.experiments.corruptions.analysis import ALEXNET, COPY, FILES, HERE, HERE_JPEG
from ipvit.models.labels import imagenet_classes
from ipvit.models.model import Model
from ipvit.own_code import check_name
from ipvit.perturb.corruptions import CORRUPTIONS, EXTRA, SEVERITIES

if TYPE_CHECKING:
    from ipvit.analysis.charts import Figure
    from ipvit.data.dataset import Dataset
    from ipvit.preprocessing import View

NOT_COMPARABLE = (
    "The corruptions were made here, not read from the published ImageNet-C (other random numbers, other frost "
    "pictures, another decoder): do not compare these numbers with published ones."
)


@dataclasses.dataclass(frozen=True)
class CorruptionCondition(Condition):
    """One corruption at one severity, made here; ``clean`` at 0 is the picture as it is."""

    corruption: str
    severity: int
    made: str
    frost: str


@dataclasses.dataclass(frozen=True)
class FileCondition(Condition):
    """The files of an ImageNet-C folder as they are; which corruption one has is a column of the data."""

    made: str


class Corruptions(Experiment):
    """Corrupt images in fifteen ways, five times harder each, and compare the errors with AlexNet's."""

    name: ClassVar[str] = "corruptions"
    version: ClassVar[int] = 1
    title: ClassVar[str] = "Common corruptions"
    reproduces: ClassVar[str] = "Table of mCE, section 3.4"
    question: ClassVar[str] = "How much accuracy is left under noise, blur, weather and digital artefacts?"
    compare_by: ClassVar[tuple[str, ...]] = ("made", "frost", "corruption", "severity")
    reads: ClassVar[tuple[str, ...] | None] = (
        "corruption", "severity", "made", "frost", "imagenet", "correct", "correct5",
    )  # fmt: skip

    corruptions: Annotated[tuple[str, ...], Field(min_length=1)] = CORRUPTIONS
    """The fifteen that count for mCE; further ones: speckle_noise gaussian_blur spatter saturate, or a FILE.py:FUNCTION
    of your own."""
    severities: Annotated[tuple[Annotated[int, Field(ge=1, le=5)], ...], Field(min_length=1)] = (1, 2, 3, 4, 5)
    """From 1 to 5; mCE needs all."""
    jpeg: bool = True
    """Store what is corrupted here as JPEG of quality 85 first, as the files of ImageNet-C are."""
    frost: str | None = None
    """Folder of the original's frost pictures, frost1.png to frost5.jpg; drawn ones otherwise."""
    normaliser: str = "alexnet"
    """What corruption errors are divided by: alexnet (published errors on ImageNet) or one of the models."""

    @field_validator("corruptions")
    @classmethod
    def _known_and_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        known = (*CORRUPTIONS, *EXTRA)
        own = tuple(dict.fromkeys(name for name in value if name not in known))
        for name in own:
            check_name("corruption", name, known)
            OwnCorruption.at(name, 1)  # it is there and can be imported
        return tuple(name for name in known if name in value) + own

    @field_validator("severities")
    @classmethod
    def _in_order_and_once(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(set(value)))

    def on(self, data: Dataset) -> Experiment:
        """Return this experiment, or the one that reads its corrupted pictures from an ImageNet-C folder."""
        return _OnFiles(**self.model_dump()).of(data) if isinstance(data, ImageNetC) else self

    def check_all(self, models: Sequence[Model]) -> None:
        """Raise InputError when the normaliser is not among the models, or the frost folder cannot be used."""
        frost_pictures(self.frost)
        names = [model.name for model in models]
        if self.normaliser.lower() != ALEXNET.lower() and self.normaliser not in names:
            known = ["alexnet", *names]
            raise InputError(
                f"corruptions: the normaliser {self.normaliser!r} is not one of the models; give alexnet or one of "
                f"{', '.join(names)}.{did_you_mean(self.normaliser, known)}"
            )

    def conditions(self, model: Model) -> Sequence[Condition]:
        """Return the clean image, then corruption x severity."""
        made, pictures = HERE_JPEG if self.jpeg else HERE, frost_pictures(self.frost)
        corrupted = [
            CorruptionCondition(name, severity, made, pictures if name == "frost" else "")
            for name in self._makers()
            for severity in self.severities
        ]
        return [CorruptionCondition(CLEAN, 0, "", ""), *corrupted]

    def alteration(self, condition: Condition) -> Corruption | OwnCorruption | None:
        """Return the corruption that a worker makes of each picture."""
        assert isinstance(condition, CorruptionCondition)
        if condition.corruption == CLEAN:
            return None
        return self._makers()[condition.corruption](condition.severity)

    def _makers(self) -> dict[str, Callable[[int], Corruption | OwnCorruption]]:
        """Return by the name in tables what makes each corruption at a severity."""
        makers: dict[str, Callable[[int], Corruption | OwnCorruption]] = {}
        for name in self.corruptions:
            if name not in (*CORRUPTIONS, *EXTRA):
                own = OwnCorruption.at(name, 1, self.jpeg)
                makers[own.name] = lambda severity, own=own: dataclasses.replace(own, severity=severity)
            else:
                frost = self.frost if name == "frost" else None
                makers[name] = lambda severity, name=name, frost=frost: Corruption(name, severity, self.jpeg, frost)
        return makers

    def measure(self, model: Model, batch: Batch) -> Iterator[Records]:
        """Classify the pictures that the workers corrupted."""
        imagenet = np.full(len(batch), _answers_imagenet(model))
        for condition in batch.conditions:
            yield Records(condition, {**classify(model, batch.images, batch.labels), "imagenet": imagenet})

    def tables(self, records: pl.DataFrame) -> dict[str, pl.DataFrame]:
        """Return accuracy per corruption and severity, per family, corruption errors, and the means over all fifteen.

        ``corruptions-mce`` has three measures of its own names each: ``mce`` (divided by the reference's errors),
        ``relative_mce`` (what corruption adds to the clean error, divided by the same of the reference) and
        ``mean_error`` (divided by nothing).
        """
        return corruption_tables.make_tables(records, self.normaliser)

    def figures(self, tables: dict[str, pl.DataFrame]) -> dict[str, Figure]:
        """Return accuracy over severity, per family and per corruption, corruption errors, and mCE beside the paper."""
        return corruption_charts.draw(tables)

    def examples(self, model: Model, batch: Batch) -> Iterator[ExampleImage]:
        """Yield the first image under every corruption at a middle severity."""
        yield ExampleImage("clean", batch.images[0])
        pixels = (batch.images[0] * 255).round().to(torch.uint8).cpu()
        severity = self.severities[len(self.severities) // 2]
        for name, make in self._makers().items():
            made = make(severity)(pixels, batch.ids[0], batch.seed)
            yield ExampleImage(f"{name.replace('_', ' ')}, severity {severity}", made.float() / 255)

    def summary(self, tables: dict[str, pl.DataFrame]) -> list[str]:
        """Say each network's mCE, or what it lacks, and what the numbers may be compared with."""
        sentences = []
        for row in tables["corruptions-mce"].iter_rows(named=True):
            mine = pl.col("model").eq(row["model"]) & pl.col("made").eq(row["made"])
            missing = corruption_tables.missing_cells(tables["corruptions"].filter(mine))
            sentences.append(_sentence(row, missing) + _hardest(tables["corruptions-ce"].filter(mine)))
            sentences += _uneven(row, tables["corruptions"].filter(mine))
        if not (tables["corruptions-mce"]["made"] == FILES).all():
            sentences.append(NOT_COMPARABLE)
        return sentences


class _OnFiles(Corruptions):
    """The same on pictures that are corrupted already."""

    _names: np.ndarray = PrivateAttr()
    _made: str = PrivateAttr(FILES)

    def of(self, data: ImageNetC) -> _OnFiles:
        """Take the names of a data set; InputError when it lacks what is asked for."""
        names = {name for name, _ in data.cells}
        missing = [name for name in self.corruptions if name not in names]
        for name in self.corruptions:
            if name in names:
                missing += [f"{name}/{level}" for level in self.severities if (name, level) not in data.cells]
        if missing:
            there = [name for name in data.corruptions if name in names]
            levels = [str(level) for level in SEVERITIES if all((name, level) in data.cells for name in there)]
            raise InputError(
                f"{data.name} has no images of {', '.join(missing)}; ask for what is there: --corruptions "
                f"{' '.join(there)}" + (f" --severities {' '.join(levels)}" if levels else "")
            )
        self._names = np.array([*data.corruptions, CLEAN])  # clean photos have -1, the last
        self._made = FILES if data.published else COPY
        return self

    def view(self, model: Model) -> View:
        """Return the whole picture at the model's input size: the files are cropped already."""
        return dataclasses.replace(model.preprocessing.view, crop_pct=1.0, crop_mode="squash")

    def covers(self, condition: Condition, data: Dataset) -> np.ndarray:
        """Return the files of the corruptions and severities that are asked for, and the clean photos."""
        wanted = np.isin(self._names[data.fields["corruption"]], self.corruptions)
        return (wanted & np.isin(data.fields["severity"], self.severities)) | (data.fields["severity"] == 0)

    def conditions(self, model: Model) -> Sequence[Condition]:
        """Return a single condition: the files as they are."""
        return [FileCondition(self._made)]

    def alteration(self, condition: Condition) -> None:
        """Return None: nothing is to be done to the files."""

    def measure(self, model: Model, batch: Batch) -> Iterator[Records]:
        """Classify the files, and name their corruption."""
        for records in super().measure(model, batch):
            name = self._names[batch.fields["corruption"]]
            yield Records(records.condition, {**records.columns, "corruption": name})

    def examples(self, model: Model, batch: Batch) -> Iterator[ExampleImage]:
        """Yield the first image."""
        name = str(self._names[batch.fields["corruption"][0]]).replace("_", " ")
        yield ExampleImage(f"{name}, severity {batch.fields['severity'][0]}", batch.images[0])


def _answers_imagenet(model: Model) -> bool:
    """Whether a network chooses among ImageNet's thousand classes, as the AlexNet whose errors are published."""
    return model.classes is not None and set(model.classes) == set(imagenet_classes())


def _sentence(row: dict[str, Any], missing: Sequence[str]) -> str:
    """Say one network's overall numbers, or why there is no mCE."""
    errors = {"mean error": row["mean_error"], "clean": row["clean_error"]}  # no mean of the four extra ones alone
    said = ", ".join(f"{name} {error:.1f} %" for name, error in errors.items() if error is not None)
    plain = f"{row['model']} ({row['made']}): {said or 'no mean error'}"
    if row["mce"] is not None:
        ends = "" if row["mce_low"] is None else f" [{row['mce_low']:.1f}, {row['mce_high']:.1f}]"
        return f"{plain}, mCE {row['mce']:.1f} %{ends} ({row['reference']} is 100)."
    if missing:
        more = ", ..." if len(missing) > 3 else ""
        return f"{plain}; no mCE, which needs all fifteen at all severities: without {', '.join(missing[:3])}{more}."
    if row["reference"] is None:
        return f"{plain}; no mCE: AlexNet's errors are for ImageNet's classes, give one of the networks as normaliser."
    return f"{plain}; no mCE: {row['reference']} makes no error on some corruption, or was not measured on all."


def _uneven(row: dict[str, Any], cells: pl.DataFrame) -> list[str]:
    """Say that means mix different photos, as on a folder of which a part is missing."""
    counts = cells.filter(pl.col("severity") > 0).sort("n_images", maintain_order=True)
    if counts["n_images"].n_unique() < 2:
        return []
    least, most = counts.row(0, named=True), counts["n_images"][-1]
    return [
        f"{row['model']} ({row['made']}): not every corruption was measured on the same photos, "
        f"{least['corruption']} at {least['severity']} on {least['n_images']} of {most}; the means mix them."
    ]


def _hardest(rows: pl.DataFrame) -> str:
    worst = rows.sort("mean_error", descending=True, maintain_order=True)
    if worst.height < 2:
        return ""
    name, error = worst["corruption"][0].replace("_", " "), worst["mean_error"][0]
    return f" Hardest is {name} with {error:.1f} % errors."
