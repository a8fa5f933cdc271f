"""Which answer of a model each class of some data is, and among which answers it chooses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ipvit.data.checks import check_one_label
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
        InputError: the data has no classes, they do not fit the outputs, or one is none of the answers; or its images
            have several labels, of which this knows one.
    """
    check_one_label(items)
    return _answers_of_classes(items, model, notes)


def _answers_of_classes(items: Items, model: Model, notes: list[str] | None) -> NDArray[np.int64]:
    if model.answer_space is None:
        return map_classes(**_sides(items, model), notes=notes)
    place = {columns: number for number, columns in enumerate(model.answer_space.columns)}
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
    if model.answer_space is not None:
        return _answers_of_classes(items, model, notes)
    columns = outputs_of_classes(**_sides(items, model), notes=notes)
    if all(len(numbers) == 1 for numbers in columns):
        return np.array([number for (number,) in columns], dtype=np.int64)
    right = np.zeros((len(columns), model.n_outputs), dtype=bool)
    for row, numbers in enumerate(columns):
        right[row, list(numbers)] = True
    return right


def right_of_images(
    of_class: NDArray[Any], labels: NDArray[np.int64], sets: Sequence[Sequence[int]] | None, n_answers: int
) -> NDArray[Any]:
    """Return the right answers of images.

    Args:
        of_class: from :func:`right_answers`.
        labels: ``(B,)`` class of each image, -1 where there is none.
        sets: in place of these the classes of each image, where they may be several or none.
        n_answers: how many answers there are.

    Returns:
        ``(B,)`` int64 with -1 where there is none, or ``(B, answers)`` booleans where several may be right.
    """
    if sets is not None:
        rows = as_booleans(of_class, n_answers)
        return np.stack([rows[list(classes)].any(axis=0) for classes in sets])
    found = of_class[labels.clip(min=0)]
    return np.where(labels < 0, -1, found) if found.ndim == 1 else found & (labels >= 0)[:, None]


def sets_as_text(items: Items) -> str:
    """Return what says which classes each of some images has where these may be several or none; else nothing.

    The fingerprint of data that bring such sets need not tell of them.
    """
    sets = getattr(items, "label_sets", None)
    return "" if sets is None else repr([tuple(map(int, one)) for one in sets])


def as_booleans(of_class: NDArray[Any], n_answers: int) -> NDArray[np.bool_]:
    """Return the right answers of classes, see :func:`right_answers`, as ``(classes, answers)`` booleans."""
    if of_class.ndim == 2:
        return of_class
    right = np.zeros((len(of_class), n_answers), dtype=bool)
    right[np.arange(len(of_class)), of_class] = True
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

    Raises:
        InputError: the data have one class, so that there is nothing to choose.
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
    if len(columns) == 1:
        raise InputError(
            f"{items.name} has one class, {items.classes[0]!r}: among the data's classes every answer would be right; "
            "--answers all chooses among all outputs"
        )
    of_several = [name for name, numbers in zip(items.aliases or (), columns, strict=False) if len(numbers) > 1]
    aggregate = "max" if (getattr(items, "aggregate", "") or stated_aggregate(of_several)) == "max" else "mean"
    single = classes is not None and all(len(numbers) == 1 for numbers in columns)
    names = tuple(classes[numbers[0]] for numbers in columns) if single and classes else tuple(items.classes)
    return AnswerSpace(names, columns, outputs, aggregate)


def _among_data(items: Items, answers: Answers | None) -> bool:
    return (answers or getattr(items, "answers", "all")) == "data" and items.classes is not None


def _sides(items: Items, model: Model) -> dict[str, Any]:
    """Return what is mapped to what: the data's classes and all outputs of the model."""
    if items.classes is None:
        raise InputError(f"{items.name} has no class folders, so its images have no labels")
    space = model.answer_space
    names = model.classes if space is None else model.output_classes
    return {
        "data_classes": items.classes,
        "aliases": items.aliases,
        "model_classes": names,
        "data_name": items.name,
        "model_name": model.name,
        "n_outputs": None if names is not None else model.n_outputs if space is None else space.outputs,
    }
