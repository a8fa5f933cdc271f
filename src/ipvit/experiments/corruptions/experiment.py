"""Common corruptions: noise, blur, weather and digital artefacts (section 3.4, the paper's table of mCE)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from ipvit.core.plugins import check_name
from ipvit.experiments.base import BindContext, Condition, Experiment, Measurement
from ipvit.perturb.corruptions import CORRUPTIONS, EXTRA, KEYED, KEYED_VERSION, RANDOM

if TYPE_CHECKING:
    from ipvit.data.dataset import Dataset
    from ipvit.experiments.corruptions.analysis import CorruptionAnalysis
    from ipvit.models.model import Model

ALEXNET = "AlexNet"
"""The network whose published errors corruption errors are divided by, where no other is asked for."""

FILES, COPY, HERE, HERE_JPEG = "ImageNet-C files", "ipvit corrupt files", "on the fly", "on the fly, JPEG 85"
"""How the corrupted pictures came to be; only the first is what published numbers rest on."""

KEYED_ANY = "keyed"
"""What ``made`` begins with where pictures have keyed random numbers, of whatever version."""

KEYED_HERE, KEYED_HERE_JPEG = (f"{KEYED_ANY} {KEYED_VERSION}, {made}" for made in (HERE, HERE_JPEG))
"""With random numbers of our own and their version: the same corruptions, but another benchmark."""


def is_keyed(made: str) -> bool:
    """Tell whether pictures have keyed random numbers: published numbers are not for them."""
    return made.startswith(KEYED_ANY)


@dataclasses.dataclass(frozen=True)
class CorruptionCondition(Condition):
    """One corruption at one severity, made here; ``clean`` at 0 is the picture as it is."""

    corruption: str
    severity: int
    made: str
    frost: str


@dataclasses.dataclass(frozen=True)
class RevisedCondition(CorruptionCondition):
    """A corruption that once came out otherwise; a network's earlier results of it do not count beside later ones."""

    revision: int


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
    corruptions: Annotated[tuple[str, ...], Field(min_length=1)] = CORRUPTIONS
    """The fifteen that count for mCE; further ones: speckle_noise gaussian_blur spatter saturate, or a FILE.py:FUNCTION
    of your own."""
    severities: Annotated[tuple[Annotated[int, Field(ge=1, le=5)], ...], Field(min_length=1)] = (1, 2, 3, 4, 5)
    """From 1 to 5; mCE needs all."""
    jpeg: bool = True
    """Store what is corrupted here as JPEG of quality 85 first, as the files of ImageNet-C are."""
    frost: str | None = None
    """Folder of the original's frost pictures, frost1.png to frost5.jpg; drawn ones otherwise."""
    made: Literal["original", "keyed"] = "original"
    """Whose random numbers: those of the original code, drawn by the workers, or keyed ones, which a GPU makes where
    the images are. Keyed pictures are another benchmark: no mCE over AlexNet's published errors."""
    normaliser: str = "alexnet"
    """What corruption errors are divided by: alexnet (published errors on ImageNet) or one of the models."""

    @field_validator("corruptions")
    @classmethod
    def _known_and_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        known = (*CORRUPTIONS, *EXTRA)
        own = tuple(dict.fromkeys(name for name in value if name not in known))
        for name in own:
            check_name("corruption", name, known)
        return tuple(name for name in known if name in value) + own

    @field_validator("severities")
    @classmethod
    def _in_order_and_once(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(set(value)))

    @model_validator(mode="after")
    def _keyed_or_not(self) -> Self:
        other = [name for name in self.corruptions if name in RANDOM and name not in KEYED]
        other += [name for name in self.corruptions if name not in (*CORRUPTIONS, *EXTRA)]
        if self.made == "keyed" and other:
            raise ValueError(
                f"there is no keyed version of {' and '.join(other)}: leave {'it' if len(other) == 1 else 'them'} "
                "out, or leave out --made keyed"
            )
        return self

    def bind(self, models: Sequence[Model], data: Dataset, context: BindContext) -> Measurement:
        """Return what corrupts the images, or reads corrupted ones where the data are files of ImageNet-C."""
        from ipvit.experiments.corruptions.measurement import bound

        return bound(self, models, data, context.device)

    def analysis(self) -> CorruptionAnalysis:
        """Return accuracies by corruption and severity, corruption errors and mCE."""
        from ipvit.experiments.corruptions.analysis import CorruptionAnalysis

        return CorruptionAnalysis.of(self, normaliser=self.normaliser)
