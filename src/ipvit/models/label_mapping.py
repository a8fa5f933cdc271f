"""Which answer of a model each class of some data is, and among which answers it chooses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ipvit.data.labels import map_classes, outputs_of_classes, stated_aggregate
from ipvit.errors import InputError
from ipvit.models.answers import AnswerSpace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ipvit.core.run_config import Answers
    from ipvit.data.dataset import Items
    from ipvit.models.model import Model


def outputs_for(items: Items, model: Model, notes: list[str] | None = None) -> NDArray[np.int64]:
    """Return the model's answer for every class of some data, ``(classes,)``: an output, unless it chooses otherwise.

    See :func:`ipvit.data.labels.map_classes`, and :meth:`ipvit.models.model.Model.answering`.

    Args:
        items: data with classes.
        model: whose outputs are meant.
        notes: a rule that had to be used is added here, in a sentence.

    Raises:
        InputError: the data has no classes, they do not fit the outputs, or one is none of the answers.
    """
    if model.answers is None:
        return map_classes(**_sides(items, model), notes=notes)
    place = {columns: number for number, columns in enumerate(model.answers.columns)}
    outputs = outputs_of_classes(**_sides(items, model), notes=notes)
    assert items.classes is not None
    for name, columns in zip(items.classes, outputs, strict=True):
        if columns not in place:
            raise InputError(
                f"the class {name!r} of {items.name} is none of the {len(place)} answers of {model.name}; --answers "
                "all chooses among all of its outputs"
            )
    return np.array([place[columns] for columns in outputs], dtype=np.int64)


def right_answers(items: Items, model: Model, notes: list[str] | None = None) -> NDArray[Any]:
    """Return which answers of the model are right for every class of some data.

    Returns:
        ``(classes,)`` int64, or ``(classes, answers)`` booleans where a class is several outputs.

    Raises:
        InputError: as :func:`outputs_for`.
    """
    if model.answers is not None:
        return outputs_for(items, model, notes)
    columns = outputs_of_classes(**_sides(items, model), notes=notes)
    if all(len(numbers) == 1 for numbers in columns):
        return np.array([number for (number,) in columns], dtype=np.int64)
    right = np.zeros((len(columns), model.n_outputs), dtype=bool)
    for row, numbers in enumerate(columns):
        right[row, list(numbers)] = True
    return right


def answering(model: Model, items: Items, answers: Answers | None) -> Model:
    """Return the model as it answers some data: among all of its outputs, or among those of the data's classes.

    Args:
        model: which is returned as it is where it has no classifier, or its outputs are not those of the data.
        items: the data.
        answers: what was asked for; None is what the data's protocol says, else all.
    """
    space = space_for(model, items, answers)
    return model if space is None else model.answering(space)


def space_for(model: Model, items: Items, answers: Answers | None) -> AnswerSpace | None:
    """Return the answers that :func:`answering` lets a model choose among; None for all outputs."""
    if not _among_data(items, answers) or not model.can("logits"):
        return None
    return space_of(items, model.classes, model.name, answers, n_outputs=model.n_outputs)


def space_of(
    items: Items, classes: Sequence[str] | None, name: str, answers: Answers | None, *, n_outputs: int | None = None
) -> AnswerSpace | None:
    """Return the classes of some data as answers made of outputs; None where all outputs are chosen among.

    Args:
        items: the data.
        classes: names of the outputs, or None.
        name: of what has these outputs.
        answers: see :func:`answering`.
        n_outputs: how many outputs there are, where their names are unknown.
    """
    if not _among_data(items, answers):
        return None
    assert items.classes is not None
    sides: dict[str, Any] = {"data_name": items.name, "model_name": name, "n_outputs": n_outputs}
    try:
        columns = outputs_of_classes(items.classes, items.aliases, classes, **sides)
    except InputError:  # an experiment that needs labels refuses them
        return None
    outputs = len(classes) if classes is not None else n_outputs or 0
    if len(columns) == outputs:
        return None
    aggregate = "max" if (getattr(items, "aggregate", "") or stated_aggregate(items.aliases)) == "max" else "mean"
    single = classes is not None and all(len(numbers) == 1 for numbers in columns)
    names = tuple(classes[numbers[0]] for numbers in columns) if single and classes else tuple(items.classes)
    return AnswerSpace(names, columns, outputs, aggregate)


def _among_data(items: Items, answers: Answers | None) -> bool:
    return (answers or getattr(items, "answers", "all")) == "data" and items.classes is not None


def _sides(items: Items, model: Model) -> dict[str, Any]:
    """Return what is mapped to what: the data's classes and all outputs of the model."""
    if items.classes is None:
        raise InputError(f"{items.name} has no class folders, so its images have no labels")
    space = model.answers
    names = model.classes if space is None else model.output_classes
    return {
        "data_classes": items.classes,
        "aliases": items.aliases,
        "model_classes": names,
        "data_name": items.name,
        "model_name": model.name,
        "n_outputs": None if names is not None else model.n_outputs if space is None else space.outputs,
    }
