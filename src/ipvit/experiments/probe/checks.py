"""What is refused of the images that heads are fitted on and chosen by, before anything is read or written."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ipvit.data.checks import check_one_label
from ipvit.data.dataset import Dataset, Items
from ipvit.data.labels import map_classes
from ipvit.data.published import in_common
from ipvit.data.subset import subset_indices
from ipvit.errors import InputError
from ipvit.perturb.seeding import keys


def check_data(train: Dataset, val: Dataset | None, measured: Items, limit: int | None, share: float | None) -> None:
    """Refuse images that cannot be fitted on, or that heads must not have seen, where a head is fitted.

    Args:
        train: the training data.
        val: the validation data, or None: a share of the training data chooses, or nothing is chosen.
        measured: what the heads will be measured on.
        limit: so many training images.
        share: of the training images that choose; None where no head is fitted.

    Raises:
        InputError: one of them has no classes, they have images in common, or too little is left.
    """
    if share is None:
        return
    for data in (train, val):
        if data is not None:
            check_one_label(data)
    _check_apart(train, measured, "the data of the run", "heads are not measured on what they saw")
    labels = np.asarray(train.labels)
    where = subset_indices(train, limit)
    chooses = np.zeros(len(where), dtype=bool)
    if val is not None:
        _check_apart(val, measured, "the data of the run", "what is reported must not choose the hyper-parameters")
        _check_apart(val, train, "the training data", "images that a head is fitted on say nothing about its choice")
        outputs = val_classes(train, val)
        some = (outputs[np.asarray(val.labels).clip(min=0)] >= 0) & (np.asarray(val.labels) >= 0)
    elif share > 0:
        chooses = held_out([train.ids[int(index)] for index in where], labels[where], share)
        some = chooses & (labels[where] >= 0)
    else:
        some = np.ones(1, dtype=bool)
    check_fitted(labels[where][~chooses], some)


def val_classes(train: Dataset, val: Dataset) -> NDArray[np.int64]:
    """Return the training data's class for every class of the validation data.

    Raises:
        InputError: they have none, or others.
    """
    if val.classes is None or train.classes is None:
        raise InputError(f"probe: the validation data {val.name} has no classes")
    name = f"a head fitted on {train.name}"
    return map_classes(val.classes, val.aliases, train.classes, data_name=val.name, model_name=name)


def check_fitted(labels: NDArray[np.int64], chooses: NDArray[np.bool_]) -> None:
    """Refuse too few images.

    Args:
        labels: of the images that heads are fitted on; -1 where there is none.
        chooses: of images that may choose, which of them do.

    Raises:
        InputError: fewer than two classes to tell apart, or nothing to choose by.
    """
    if len(np.unique(labels[labels >= 0])) < 2:
        raise InputError("probe: the training images that are left must be of at least two classes")
    if not chooses.any():
        raise InputError("probe: no image is left to choose hyper-parameters on; give val, or more training images")


def _check_apart(data: Dataset, other: Items, what: str, why: str) -> None:
    """Refuse data that have images in common with others."""
    if n := in_common(data, other):
        raise InputError(f"probe: {n:,} images of {data.name} are in {what}, {other.name}, too; {why}")


def held_out(ids: Sequence[str], labels: NDArray[np.int64], share: float) -> NDArray[np.bool_]:
    """Return which images choose hyper-parameters: a share of every class, at least one and never all of them.

    The choice follows from the images' ids alone. A class with a single image keeps it for the fit.
    """
    rank = np.argsort(keys(ids, "validation"), kind="stable")
    chosen = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels[labels >= 0]):
        members = rank[labels[rank] == label]
        chosen[members[: min(max(1, round(share * len(members))), len(members) - 1)]] = True
    return chosen
