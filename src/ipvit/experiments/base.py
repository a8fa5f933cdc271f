"""The seam: what an experiment is, what it is given and what it gives back."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, PrivateAttr
from torch import Tensor

from ipvit.analysis.aggregate import SHARED_MASK
from ipvit.core.digests import digest_of_json
from ipvit.metrics.accuracy import topk_correct
from ipvit.models.backend import COMPUTES

if TYPE_CHECKING:
    import polars as pl

    from ipvit.analysis.charts import Figure
    from ipvit.data.dataset import Dataset
    from ipvit.data.loader import Alteration
    from ipvit.models.model import Model
    from ipvit.preprocessing import View


AUTHORS_BATCH = 256
"""Images that share one mask in the authors' code, which draws a mask per batch."""


@dataclasses.dataclass(frozen=True)
class Requirements:
    """What an experiment needs; checked before a run starts.

    Attributes:
        capabilities: what the model must be able to do: ``logits``, ``tokens``, ``attention``, ``gradients``, ...
        labels: the data must have labels that map to the model's outputs.
        masks: the data must have foreground masks.
        donors: so many images of the data set, the same for every batch, whose pixels occlude others.
        fields: columns that the data must have for every image, for example ``texture``.
    """

    capabilities: frozenset[str] = frozenset({"logits"})
    labels: bool = True
    masks: bool = False
    donors: int = 0
    fields: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Condition:
    """One setting of an experiment; a subclass's fields are columns of the records and identify the result."""

    @functools.cached_property
    def key(self) -> str:
        """Digest (16 hex digits) of the fields."""
        return digest_of_json(dataclasses.asdict(self), 16)


@dataclasses.dataclass(frozen=True)
class Batch:
    """Some images for one model, and what is to be measured on them.

    Attributes:
        images: ``(B, 3, H, W)`` float in [0, 1], at the model's input size, on the model's device.
        labels: ``(B,)`` int64, outputs of the model; -1 where there is none.
        ids: the images' ids.
        positions: ``(B,)`` positions of the images in the data set.
        conditions: the conditions still to be measured.
        seed: of the study.
        masks: ``(B, H, W)`` bool foreground masks, or None.
        regions: ``(B, K, H, W)`` uint8, the objects that make up the foreground, or None: 0 is background,
            :data:`ipvit.data.loader.VOID` neither, other numbers tell objects apart. K is 2 for data that numbers
            classes and instances, in this order, else 1.
        fields: further columns of the data set, ``(B,)`` each.
        classes: the data set's own classes.
        prepared: what :meth:`Experiment.prepare` returned.
        donors: ``(K, 3, H, W)`` images whose pixels may occlude others, where the experiment asked for them.
        donor_ids: their ids.
    """

    images: Tensor
    labels: Tensor
    ids: tuple[str, ...]
    positions: np.ndarray
    conditions: tuple[Any, ...]
    seed: int
    masks: Tensor | None = None
    regions: Tensor | None = None
    fields: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    donors: Tensor | None = None
    donor_ids: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    prepared: Any = None

    def __len__(self) -> int:
        return len(self.ids)

    def mask_owners(self, *, shared: bool) -> tuple[str, ...]:
        """Return whose random mask each image gets: its own, or one of every 256 images as in the authors' code."""
        if not shared:
            return self.ids
        return tuple(f"images {position // AUTHORS_BATCH}" for position in self.positions.tolist())

    def mask_columns(self, *, shared: bool) -> dict[str, np.ndarray]:
        """Return the column of the records that says which images share a mask; none where each has its own."""
        return {SHARED_MASK: (self.positions // AUTHORS_BATCH).astype(np.int32)} if shared else {}

    def part(self, start: int, stop: int) -> Batch:
        """Return images ``start`` to ``stop`` as a batch of their own."""
        return dataclasses.replace(
            self,
            images=self.images[start:stop],
            labels=self.labels[start:stop],
            ids=self.ids[start:stop],
            positions=self.positions[start:stop],
            masks=None if self.masks is None else self.masks[start:stop],
            regions=None if self.regions is None else self.regions[start:stop],
            fields={name: column[start:stop] for name, column in self.fields.items()},
        )


@dataclasses.dataclass(frozen=True)
class Bench:
    """What an experiment may use to get ready for a model before anything is measured.

    Attributes:
        folder: of the run; what is kept below it, under a name made of all that determines it, is there next time.
        data: the images that will be measured.
        seed: of the study.
        precision: of the autocast that is on.
        device: where the model is.
        batch_size: images at a time.
        workers: decoding processes.
        unreadable: id and reason of images that could not be read; to be filled, so that the manifest names them.
        notes: what a reader must know, in sentences; to be filled, so that the manifest has them.
    """

    folder: Path
    data: Dataset
    seed: int
    precision: str
    device: torch.device
    batch_size: int
    workers: int
    unreadable: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Records:
    """What was measured on a batch under one condition: one value per image and column."""

    condition: Condition
    columns: Mapping[str, Tensor | np.ndarray]


@dataclasses.dataclass(frozen=True)
class ExampleImage:
    """A picture for the report: ``(3, H, W)`` in [0, 1] and what it shows."""

    caption: str
    image: Tensor


class Experiment(BaseModel):
    """One experiment of the paper: what to do to a batch, what to measure, how to tabulate and draw it.

    A subclass's fields are its parameters, with the paper's protocol as defaults; the options of the command line and
    the keys of a study file are made from them. ``name``, ``title``, ``reproduces`` and ``question`` describe it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: ClassVar[str]
    version: ClassVar[int] = 1
    """Raised whenever the same parameters would give other numbers: old records are then measured again."""
    title: ClassVar[str]
    reproduces: ClassVar[str] = ""
    """Table or figure of the paper; empty for an experiment that is not the paper's."""
    question: ClassVar[str] = ""
    compare_by: ClassVar[tuple[str, ...]] = ()
    """Condition columns that the paired comparison of two models keeps apart."""
    compare: ClassVar[str] = "correct"
    """Column of the records that the paired comparison is about."""
    reads: ClassVar[tuple[str, ...] | None] = None
    """Columns of the records that :meth:`tables` and :meth:`comparable` look at, beside ``model``, ``image`` and
    ``label``; None for all. Not inherited: a subclass may look at more."""

    measures: ClassVar[tuple[str, ...]] = ()
    """Columns of the records whose values are averaged; those that are not finite are left out, and told of."""

    _only: frozenset[str] | None = PrivateAttr(default=None)

    @classmethod
    def heading(cls) -> str:
        """Return the title, and what of the paper it reproduces."""
        return f"{cls.title} ({cls.reproduces})" if cls.reproduces else cls.title

    def limited_to(self, models: Sequence[str] | None) -> Self:
        """Return the experiment for some of a study's models, given by label or name; None for all."""
        copy = self.model_copy()
        copy._only = None if models is None else frozenset(models)
        return copy

    def opening_data(self, *, root: str | None, decoder: str, classes: str | None) -> Self:
        """Return the experiment with the study's options for opening data; see :func:`ipvit.data.load_dataset`.

        For an experiment that opens further data itself.
        """
        return self

    def concerns(self, model: Model) -> bool:
        """Tell whether a model of the study is to be measured at all."""
        names = {model.name} if model.origin is None else {model.name, model.origin[0]}
        return self._only is None or not names.isdisjoint(self._only)

    @property
    def needs(self) -> Requirements:
        """What model and data must offer."""
        return Requirements()

    def whole_passes(self, model: Model) -> bool:
        """Tell whether only what another program than torch may compute is asked of a model: logits and attention."""
        return self.needs.capabilities <= COMPUTES

    def view(self, model: Model) -> View:
        """Return how pictures become the model's input; the model's own view unless the protocol is another."""
        return model.preprocessing.view

    def check(self, model: Model) -> None:
        """Raise :class:`ipvit.errors.InputError` when this experiment cannot run on this model."""

    def check_all(self, models: Sequence[Model]) -> None:
        """Raise :class:`ipvit.errors.InputError` when this experiment cannot run on these models together."""

    def on(self, data: Dataset) -> Experiment:
        """Return the experiment as it is run on a data set: itself, unless the data decides something.

        Raises:
            ipvit.errors.InputError: it cannot run on this data.
        """
        return self

    def subject(self, data: Dataset, limit: int | None) -> Dataset:
        """Return what is measured one by one: the images of the data set, unless it is something made of many images.

        An experiment on episodes, for example, returns a data set of episodes: with ids of its own that say what
        determines them, the fingerprint of the images, and blank pictures. It is shared out, stored and resumed as
        images are, and reaches :meth:`prepare` as ``bench.data``.

        Args:
            data: the images.
            limit: how many of them the study uses; None for all.

        Raises:
            ipvit.errors.InputError: it cannot be made of this data.
        """
        return data

    def alteration(self, condition: Condition) -> Alteration | None:
        """Return what a worker process makes of each picture for a condition; None for the picture as it is.

        The condition's ``batch.images`` are then the altered pictures. For work on single images that belongs on the
        CPU; equal alterations are made once for all models with the same view.
        """
        return None

    def covers(self, condition: Condition, data: Dataset) -> np.ndarray | None:
        """Return which images of the data a condition is measured on, ``(len(data),)`` bool; None: on all."""
        return None

    def conditions(self, model: Model) -> Sequence[Condition]:
        """Return every condition to measure for a model."""
        raise NotImplementedError

    def classes(self, model: Model) -> Sequence[str] | None:
        """Return the names of what the labels of a batch count: the model's outputs unless something else answers."""
        return model.classes

    def prepare(self, model: Model, bench: Bench) -> Any:
        """Make what has to be there before a model can be measured; it reaches :meth:`measure` as ``batch.prepared``.

        Called once per model, and only where something is missing; gradients are on. What it depends on beside the
        model, the seed and the precision must be a field of the conditions.
        """
        return None

    def measure(self, model: Model, batch: Batch) -> Iterable[Records]:
        """Measure ``batch.conditions`` on a batch, one :class:`Records` per condition."""
        raise NotImplementedError

    def tables(self, records: pl.DataFrame) -> dict[str, pl.DataFrame]:
        """Return the tables, the main one first, from one row per image, condition and model."""
        raise NotImplementedError

    def comparable(self, records: pl.DataFrame) -> pl.DataFrame:
        """Return the rows of the records, with the column ``compare``, on which two models are compared."""
        return records

    def figures(self, tables: dict[str, pl.DataFrame]) -> dict[str, Figure]:
        """Return the figures from the tables."""
        return {}

    def figures_across(self, tables: dict[str, pl.DataFrame]) -> dict[str, Figure]:
        """Return figures over several data sets, from the tables of as many runs with a further column ``data_set``."""
        return {}

    def examples(self, model: Model, batch: Batch) -> Iterator[ExampleImage]:
        """Yield pictures that show what the conditions look like."""
        yield from ()

    def summary(self, tables: dict[str, pl.DataFrame]) -> list[str]:
        """Return sentences that say what the numbers show, computed from the tables."""
        return []


def classify(model: Model, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Run the model on images in [0, 1] and return the columns of a classification record; see :func:`judge`."""
    return judge(model(images), labels)


def judge(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Return the columns of a classification record from logits ``(B, C)`` and labels ``(B,)``.

    Returns:
        ``prediction`` (the class of the largest logit; -1 where the logits are not finite), ``confidence`` (its
        softmax probability), ``label_probability`` (the label's; NaN without label), ``correct`` and ``correct5``.
    """
    finite = torch.isfinite(logits).all(dim=1)
    probability = logits.softmax(dim=1)
    of_label = probability.gather(1, labels.clamp(min=0).unsqueeze(1)).squeeze(1)
    confidence = probability.amax(dim=1)
    nan = torch.full_like(confidence, float("nan"))
    return {
        "prediction": torch.where(finite, logits.argmax(dim=1), -1).to(torch.int32),
        "confidence": torch.where(finite, confidence, nan),
        "label_probability": torch.where(finite & (labels >= 0), of_label, nan),
        "correct": topk_correct(logits, labels, 1) & finite,
        "correct5": topk_correct(logits, labels, 5) & finite,
    }
