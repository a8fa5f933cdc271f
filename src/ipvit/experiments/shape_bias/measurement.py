"""Measuring which category networks take cue-conflict images for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ipvit.core.queued.readback import read_back
from ipvit.data.dataset import Dataset
from ipvit.data.labels import outputs_of_classes
from ipvit.data.subset import Subset, subset_indices
from ipvit.errors import InputError
from ipvit.experiments.base import Batch, ExampleImage, Measurement, Records
from ipvit.experiments.shape_bias.experiment import ShapeBiasCondition, Ties
from ipvit.models.label_spaces import ENTRY_LEVEL_CATEGORIES, CategoryMap
from ipvit.models.model import Model
from ipvit.perturb.tensors import from_numpy

_EXAMPLES = 8


class ShapeBiasMeasurement(Measurement):
    """Shape bias in one run.

    Args:
        ties: which of equally probable categories counts.
        stimuli: the images, where they are not the study's.
        aliases: second names of their classes, or None.
    """

    def __init__(self, ties: Ties, stimuli: Dataset | None = None, aliases: Sequence[str] | None = None) -> None:
        self.ties: Ties = ties
        self._stimuli, self._aliases = stimuli, aliases

    def items(self, data: Dataset, limit: int | None) -> Dataset:
        """Return the stimuli where they are not the study's images; a limited study uses as many of them."""
        return data if self._stimuli is None else Subset(self._stimuli, subset_indices(self._stimuli, limit))

    def conditions(self, model: Model) -> Sequence[ShapeBiasCondition]:
        """Return one answer, or those of the class token, the distillation or shape token and their mean."""
        tokens = ["output"]
        if model.can("token_heads"):
            tokens = ["class", model.distillation_token, "mean"]
        return [ShapeBiasCondition(token, self.ties) for token in tokens]

    def measure(self, model: Model, batch: Batch) -> Iterator[Records]:
        """Decide for a category: softmax over the fine classes, mean within each category, the largest."""
        cues = {cue: _names(batch, cue) for cue in ("shape", "texture")}
        categories = categories_of(model, batch.classes, self._aliases)
        found = list(self._logits(model, batch))
        arrays = read_back([{"logits": logits} for _, logits in found])
        for (condition, _), columns in zip(found, arrays, strict=True):
            decisions = decide(from_numpy(columns["logits"]), categories, condition.ties)
            yield Records(condition, {**cues, "decision": decisions})

    def examples(self, model: Model, batch: Batch) -> Iterator[ExampleImage]:
        """Yield images with a conflict and what the model takes them for."""
        shapes, textures = _names(batch, "shape"), _names(batch, "texture")
        rows = np.flatnonzero(shapes != textures)
        rows = rows[:: max(1, len(rows) // _EXAMPLES)][:_EXAMPLES]
        categories = categories_of(model, batch.classes, self._aliases)
        condition, logits = next(self._logits(model, batch))
        decisions = decide(logits, categories, condition.ties)
        for row in rows:
            caption = f"{shapes[row]} in the texture of {textures[row]}: {decisions[row]} for {model.name}"
            yield ExampleImage(caption, batch.images[row])

    def _logits(self, model: Model, batch: Batch) -> Iterator[tuple[ShapeBiasCondition, Tensor]]:
        by_token = model.logits_by_token(batch.images) if model.can("token_heads") else None
        for condition in batch.conditions:
            yield condition, model(batch.images) if by_token is None else by_token[condition.token]


def decide(logits: Tensor, categories: CategoryMap, ties: str = "first") -> np.ndarray:
    """Return the name of the category each image is taken for; empty where the logits are not finite.

    Args:
        logits: ``(B, C)`` over the fine classes.
        categories: the classes of each category; the mean of their probabilities counts.
        ties: ``first`` or ``last`` of equally probable categories.
    """
    finite = torch.isfinite(logits).all(dim=1).cpu()
    shares = categories(torch.where(finite[:, None], logits.cpu(), 0).double().softmax(dim=1))
    best = shares == shares.amax(dim=1, keepdim=True)
    places = torch.arange(shares.shape[1], device=shares.device).expand_as(shares)
    chosen = torch.where(best, places, shares.shape[1]).amin(dim=1)
    if ties == "last":
        chosen = torch.where(best, places, -1).amax(dim=1)
    names = np.array([*categories.names, ""])
    return names[torch.where(finite, chosen, len(categories.names)).cpu().numpy()]


def categories_of(model: Model, classes: Sequence[str] | None, aliases: Sequence[str] | None) -> CategoryMap:
    """Return the data's own categories where they are outputs of the model, else the benchmark's 16 of ImageNet.

    Args:
        model: whose outputs are pooled.
        classes: the data's classes.
        aliases: their second names, which may be outputs of the model or their numbers, several for one class; or None.

    Raises:
        InputError: the data has no classes, or they are neither of the two.
    """
    if classes is None:
        raise InputError("shape-bias: the data does not name its categories")
    known = set(model.classes or ())
    second_names_count = any(name in known or name.replace(",", "").isdecimal() for name in aliases or ())
    if second_names_count:
        columns = outputs_of_classes(
            classes,
            aliases,
            model.classes,
            data_name="the stimuli",
            model_name=model.name,
            n_outputs=model.n_outputs,
        )
        return CategoryMap(tuple(classes), columns, model.n_outputs)
    if set(classes) <= known:
        return CategoryMap.for_classes(model.classes, {name: (name,) for name in classes})
    if set(classes) <= set(ENTRY_LEVEL_CATEGORIES):
        return CategoryMap.for_classes(model.classes)
    strange = sorted(set(classes) - set(ENTRY_LEVEL_CATEGORIES))
    raise InputError(
        f"shape-bias: the category {strange[0]!r} is neither an output of {model.name} nor one of the benchmark's: "
        f"{', '.join(ENTRY_LEVEL_CATEGORIES)}; a classes.txt with lines 'category<TAB>output' says which output it is"
    )


def _names(batch: Batch, cue: str) -> np.ndarray:
    column = np.asarray(batch.fields[cue])
    return column.astype(str) if column.dtype.kind in "UO" else np.array(batch.classes or ())[column]
