"""Which output of a model each class of some data is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipvit.data.labels import map_classes
from ipvit.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ipvit.data.dataset import Items
    from ipvit.models.model import Model


def outputs_for(items: Items, model: Model, notes: list[str] | None = None) -> NDArray[np.int64]:
    """Return the model's output for every class of some data, ``(classes,)``.

    See :func:`ipvit.data.labels.map_classes`.

    Args:
        items: data with classes.
        model: whose outputs are meant.
        notes: a rule that had to be used is added here, in a sentence.

    Raises:
        InputError: the data has no classes, or they do not fit the outputs.
    """
    if items.classes is None:
        raise InputError(f"{items.name} has no class folders, so its images have no labels")
    return map_classes(
        items.classes,
        items.aliases,
        model.classes,
        data_name=items.name,
        model_name=model.name,
        n_outputs=model.n_outputs if model.classes is None else None,
        notes=notes,
    )
