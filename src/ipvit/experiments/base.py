"""The seam: what an experiment is, what it is given and what it gives back. Nothing here needs torch."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from ipvit.analysis.columns import SHARED_MASK
from ipvit.core.digests import digest_of_json
from ipvit.core.text.validation_messages import explain
from ipvit.errors import ParametersError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ipvit.analysis.base import Analysis
    from ipvit.core.preprocessing import View
    from ipvit.core.run_config import Answers
    from ipvit.data.dataset import Dataset, Items
    from ipvit.data.loader import ImageTransform
    from ipvit.models.answers import AnswerSpace
    from ipvit.models.model import Model


AUTHORS_BATCH = 256
"""Images that share one mask in the authors' code, which draws a mask per batch."""


@dataclasses.dataclass(frozen=True)
class Requirements:
    """What an experiment needs; checked before a run starts.

    Attributes:
        capabilities: what the model must be able to do: ``logits``, ``tokens``, ``attention``, ``gradients``, ...
        optional: what the experiment also uses where the model can do it.
        dispensable: of the optional, what a backend may take away; the experiment notes what it then leaves out.
        labels: the data must have labels that map to the model's outputs.
        masks: the data must have foreground masks.
        donors: so many images of the data set, the same for every batch, whose pixels occlude others.
        fields: columns that the data must have for every image, for example ``texture``.
    """

    capabilities: frozenset[str] = frozenset({"logits"})
    optional: frozenset[str] = frozenset()
    dispensable: frozenset[str] = frozenset()
    labels: bool = True
    masks: bool = False
    donors: int = 0
    fields: tuple[str, ...] = ()

    def of(self, model: Model) -> frozenset[str]:
        """Return the capabilities that are used of a model."""
        return self.capabilities | frozenset(filter(model.can, self.optional))


@dataclasses.dataclass(frozen=True)
class Condition:
    """One setting of an experiment; a subclass's fields are columns of the records and identify the result."""

    @functools.cached_property
    def key(self) -> str:
        """Digest (16 hex digits) of the fields."""
        return digest_of_json(dataclasses.asdict(self), 16)


@dataclasses.dataclass(frozen=True)
class SetCondition(Condition):
    """A condition on one of several data sets that an experiment measures in one run.

    Attributes:
        set: what the set is called.
        set_digest: of what is measured and how it may be answered. Of the records of a set a run shows those under the
            digest of its own; others are of images or classes that the set had before.
    """

    set: str
    set_digest: str


@dataclasses.dataclass(frozen=True)
class Batch:
    """Some images for one model, or other items, and what is to be measured on them.

    Attributes:
        images: ``(B, 3, H, W)`` float in [0, 1], at the model's input size, on the model's device. ``(B, 0, 0, 0)``
            where the items are not pictures: no model takes that, and no arithmetic with three channels.
        labels: ``(B,)`` int64, the right answers of the model, which are its outputs unless it chooses among others;
            -1 where there is none. Where an image may have several right answers, ``(B, answers)`` booleans.
        ids: of the items.
        positions: ``(B,)`` positions in the data set, or among the other items.
        conditions: the conditions still to be measured.
        seed: of the study.
        masks: ``(B, H, W)`` bool foreground masks, or None.
        regions: ``(B, K, H, W)`` uint8, the objects that make up the foreground, or None: 0 is background,
            :data:`ipvit.data.loader.VOID` neither, other numbers tell objects apart. K is 2 for data that numbers
            classes and instances, in this order, else 1.
        fields: further columns of the data set, ``(B,)`` each.
        classes: the data set's own classes.
        prepared: what :meth:`Measurement.prepare` returned.
        room: images that one pass may take, of several conditions; see :func:`ipvit.experiments.scoring.classify_each`.
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
    fields: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict[str, np.ndarray])
    donors: Tensor | None = None
    donor_ids: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    prepared: Any = None
    room: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    def mask_seeds(self, *, shared: bool) -> tuple[str, ...]:
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
            room=self.room * (stop - start) // max(1, len(self)),  # a part is for want of memory, which passes share
        )


@dataclasses.dataclass(frozen=True)
class BindContext:
    """What an experiment may use when it is bound to models and data.

    Attributes:
        open_data: opens further data by its name, with the study's root, decoder and class names unless others are
            given; see :func:`ipvit.data.load_dataset`.
        answers: among which answers the study's models choose, as the user said; None: as the data's protocol says.
        device: where the models will be; None where no run has said it.
    """

    open_data: Callable[..., Dataset]
    answers: Answers | None = None
    device: torch.device | None = None


@dataclasses.dataclass(frozen=True)
class PrepareContext:
    """What an experiment may use to get ready for a model before anything is measured.

    Attributes:
        folder: of the run; what is kept below it, under a name made of all that determines it, is there next time.
        items: what will be measured, from :meth:`Measurement.items`: the images, unless it is something else.
        seed: of the study.
        precision: of the autocast that is on.
        device: where the model is.
        batch_size: images at a time.
        workers: decoding processes.
        unreadable: id and reason of images that could not be read; to be filled, so that the manifest names them.
        notes: what a reader must know, in sentences; to be filled, so that the manifest has them.
    """

    folder: Path
    items: Items
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


class Measurement:
    """What is measured in one run: an experiment that has been bound to models and data.

    An object of a subclass may keep what the run shares: caches, loaded networks, trained patches. An experiment that
    keeps nothing is its own measurement and overrides these methods itself.
    """

    def view(self, model: Model) -> View | None:
        """Return how pictures become the model's input where these data demand it; None: as the experiment says."""
        return None

    def conditions(self, model: Model) -> Sequence[Condition]:
        """Return every condition to measure for a model."""
        raise NotImplementedError

    def applicable_images(self, condition: Any, data: Items) -> np.ndarray | None:
        """Return which images, or other items, a condition is measured on, ``(len(data),)`` bool; None: on all."""
        return None

    def notes(self, model: Model) -> Sequence[str]:
        """Return what a reader must know of how a model is measured, in sentences that begin with the experiment."""
        return ()

    def image_transform(self, condition: Any) -> ImageTransform | None:
        """Return what a worker process makes of each picture for a condition; None for the picture as it is.

        The condition's ``batch.images`` are then the transformed pictures. For work on single images that belongs on
        the CPU; equal transforms are made once for all models with the same view.
        """
        return None

    def items(self, data: Dataset, limit: int | None) -> Items:
        """Return what is measured one by one: the images of the data set, unless it is something else.

        These are the images of another data set, or items that are made of many images and are no pictures themselves,
        such as episodes: with ids of their own that say what determines them, and the fingerprint of the images. They
        are shared out, stored and resumed as images are, and reach :meth:`prepare` as ``context.items``. For items
        that are no pictures nothing is decoded: ``batch.images`` is empty, and masks, donors and image transforms are
        refused.

        Args:
            data: the images.
            limit: how many of them the study uses; None for all.

        Raises:
            ipvit.errors.InputError: it cannot be made of this data.
        """
        return data

    def classes(self, model: Model) -> Sequence[str] | None:
        """Return the names of what the labels of a batch count: the model's outputs unless something else answers."""
        return model.classes

    def answer_space(self, model: Model) -> AnswerSpace | None:
        """Return what the answers are made of, where they are not all outputs of what answers."""
        return model.answer_space

    @property
    def prepares(self) -> bool:
        """Whether :meth:`prepare` makes something, so that how long a run takes shows only in doing it."""
        return type(self).prepare is not Measurement.prepare

    def needs_preparation(self, condition: Any) -> bool:
        """Return whether a condition can only be measured with what :meth:`prepare` makes."""
        return self.prepares

    def prepare(self, model: Model, context: PrepareContext) -> Any:
        """Make what has to be there before a model can be measured; it reaches :meth:`measure` as ``batch.prepared``.

        Called once per model, and only where something is missing; gradients are on. What it depends on beside the
        model, the seed and the precision must be a field of the conditions.
        """
        return None

    def measure(self, model: Model, batch: Batch) -> Iterable[Records]:
        """Measure ``batch.conditions`` on a batch, one :class:`Records` per condition."""
        raise NotImplementedError

    def examples(self, model: Model, batch: Batch) -> Iterator[ExampleImage]:
        """Yield pictures that show what the conditions look like."""
        yield from ()


class Experiment(BaseModel, Measurement):
    """One question: what to do to a batch of images, and what to measure.

    A subclass's fields are its parameters, with the paper's protocol as defaults; the options of the command line and
    the keys of a study file are made from them. It is frozen: what a run keeps belongs to what :meth:`bind` returns.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: ClassVar[str]
    version: ClassVar[int] = 1
    """Raised whenever the same parameters would give other numbers: old records are then measured again."""
    title: ClassVar[str]
    reproduces: ClassVar[str] = ""
    """Table or figure of the paper; empty for an experiment that is not the paper's."""
    question: ClassVar[str] = ""
    own_answers: ClassVar[bool] = False
    """It decides itself among which answers networks choose: they come to it with all of their outputs."""
    only_categories: ClassVar[bool] = False
    """It lets networks choose among categories of the data only, whatever a study's ``answers`` are."""

    if not TYPE_CHECKING:  # type checkers know the fields of a subclass as its parameters

        def __init__(self, **parameters: Any) -> None:
            try:
                super().__init__(**parameters)
            except ValidationError as error:
                raise ParametersError(type(self).__name__, explain(error, type(self))) from None

    @classmethod
    def heading(cls) -> str:
        """Return the title, and what of the paper it reproduces."""
        return f"{cls.title} ({cls.reproduces})" if cls.reproduces else cls.title

    @property
    def requirements(self) -> Requirements:
        """What model and data must offer."""
        return Requirements()

    def view(self, model: Model) -> View:
        """Return how pictures become the model's input; the model's own view unless the protocol is another."""
        return model.preprocessing.view

    def bind(self, models: Sequence[Model], data: Dataset, context: BindContext) -> Measurement:
        """Return the experiment as it is measured on these models and this data, once for a run.

        Args:
            models: all models of the run that can do what is required.
            data: the images.
            context: how to open further data.

        Raises:
            ipvit.errors.InputError: the parameters do not fit one of the models, or the data.
        """
        return self

    def analysis(self) -> Analysis:
        """Return what follows from the records."""
        from ipvit.analysis.base import Analysis

        return Analysis.of(self)
