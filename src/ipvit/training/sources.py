"""Opening the images of a training, and finding images that are in both of its sets."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ipvit.data.checks import check_one_label
from ipvit.data.copies import copies
from ipvit.data.dataset import Dataset
from ipvit.data.loading import load_dataset
from ipvit.data.published import SETS, in_common, protocol
from ipvit.data.subset import Subset, subset_indices
from ipvit.data.synthetic import trifeature
from ipvit.errors import InputError
from ipvit.training.config import SetConfig

Part = Literal["train", "val"]

_DUPLICATES = 0.01
"""Share of the validation images that may be in both: published sets have a few pictures twice."""


def open_data(source: str | SetConfig, size: int, part: Part) -> Dataset:
    """Return a labelled data set; the procedural set is drawn at ``size``.

    Args:
        source: its name, or name, root, split, decoder, classes and limit.
        size: height and width in pixels.
        part: what it is for. Where no split is named, a set that has several gives the one for fitting or the one for
            choosing, never the one that numbers are reported on where there is another.

    Raises:
        InputError: if there is no such set or an image in it has no label.
    """
    entry = SetConfig(name=source) if isinstance(source, str) else source
    data = _opened(entry, size, part)
    return data if entry.limit is None else Subset(data, subset_indices(data, entry.limit))


def _opened(entry: SetConfig, size: int, part: Part) -> Dataset:
    if entry.name.startswith("demo:trifeature"):
        return trifeature.parse(entry.name, size)
    data = load_dataset(
        entry.name,
        root=entry.root,
        split=entry.split or _split(entry.name, part),
        decoder=entry.decoder,
        classes=entry.classes,
    )
    check_one_label(data)
    if data.classes is None or (np.asarray(data.labels) < 0).any():
        raise InputError(f"{entry.name}: training needs a label for every image")
    return data


def _split(name: str, part: Part) -> str:
    scheme = name.partition(":")[0]
    if scheme not in SETS:
        return "train" if part == "train" else "validation"
    published = protocol(name)
    if part in SETS[scheme].splits or published is None:
        return part
    return published[0 if part == "train" else 1].rpartition("/")[2]


def refuse_overlap(train: Dataset, val: Dataset) -> str:
    """Look for validation images among the training images, by their content.

    Returns:
        A note about a few copies, such as published sets have; empty where there are none.

    Raises:
        InputError: too many are in both, so that the score after an epoch would be of images trained on.
    """
    if train.fingerprint == val.fingerprint:
        what = f"the same {len(val):,} images" if len(train) == len(val) else "parts of the same images"
        raise InputError(
            f"train and val are {what} ({val.name}): choose the best epoch on images that are not trained on"
        )
    both = copies(train, val)
    if not both and (known := in_common(train, val)):
        both = [""] * known
    if not both:
        return ""
    example = f", for example {both[0]}" if both[0] else ""
    said = f"{len(both):,} of the {len(val):,} images of {val.name} are in {train.name} too{example}"
    if len(both) > _DUPLICATES * len(val):
        raise InputError(f"{said}: choose the best epoch on images that are not trained on")
    return f"{said}; the score after each epoch counts them"
