"""``check_dataset``: does a data set keep what the loader, limits and the identity of results rely on?"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from ipvit.data.dataset import Dataset, Decoder, Items, UnreadableImageError, lacking
from ipvit.data.subset import subset_indices
from ipvit.errors import error_line
from ipvit.testing.contract import ContractError, no_error, randomness_untouched, require, require_refusal, seeded

READ = 12
"""Images that are read, of a larger data set: the first, the last and some between them."""


def check_dataset(data: Dataset) -> None:
    """Hold a data set to what :class:`ipvit.data.dataset.Dataset` says.

    Looked at are ids, labels, classes and fields, the fingerprint, limits, and up to twelve images with their masks,
    read twice, in another order and from a copy as worker processes get it.

    Args:
        data: opened, for example by :func:`ipvit.load_dataset`.

    Raises:
        ContractError: a promise is not kept; the message says which.
    """
    name = type(data).__name__
    missing = lacking(data)
    require(not missing, f"{name} lacks {', '.join(missing)}; ipvit.BaseDataset has defaults for most of a data set")
    check_items(name, data)
    _check_fields(name, data)
    _check_limits(name, data)
    with seeded(0):
        pictures = _check_reading(name, data)
        check_fingerprint(name, data)
        if not data.sequential:  # else a single process reads it
            _check_copy(name, data, pictures)


def check_items(name: str, data: Items) -> None:
    """Check what pictures and other items have in common: ids, labels and classes.

    Args:
        name: what messages call them.
        data: the items.

    Raises:
        ContractError: a promise is not kept.
    """
    count = len(data)
    require(count, f"{name} has no images")
    require(isinstance(data.name, str) and data.name, f"{name}.name is {data.name!r}; it must be a text for tables")
    require(
        len(data.ids) == count and len(data.labels) == count,
        f"{name} has {count} images, {len(data.ids)} ids and {len(data.labels)} labels; each image needs one of both",
    )
    wrong = next((one for one in data.ids if not isinstance(one, str) or not one), None)
    require(wrong is None, f"{name}.ids holds {wrong!r}; an id is a text that names the image for good")
    seen: set[str] = set()
    twice = next((one for one in data.ids if one in seen or seen.add(one)), None)
    require(twice is None, f"{name}.ids holds {twice!r} twice; every image needs an id of its own")
    labels = np.asarray(data.labels)
    require(
        labels.ndim == 1 and labels.dtype.kind in "iu",
        f"{name}.labels is an array {labels.shape} of {labels.dtype}; it must be ({count},) of integers",
    )
    _check_classes(name, data, labels)


def check_fingerprint(name: str, data: Items) -> None:
    """Check that a fingerprint is a text, and the same twice.

    Args:
        name: what messages call the items.
        data: the items.

    Raises:
        ContractError: it is not.
    """
    with no_error(f"{name}.fingerprint"):
        digest, again = data.fingerprint, data.fingerprint
    require(
        isinstance(digest, str) and digest.strip(),
        f"{name}.fingerprint is {digest!r}; it must be a text, see ipvit.data.dataset.fingerprint",
    )
    require(digest == again, f"{name}.fingerprint is another one the second time; it identifies results")


def _check_classes(name: str, data: Items, labels: np.ndarray) -> None:
    classes, aliases = data.classes, data.aliases
    require(labels.min() >= -1, f"{name}.labels holds {labels.min()}; -1 stands for an image without class")
    if classes is None:
        require(labels.max() == -1, f"{name}.labels holds {labels.max()} and classes is None; name the classes")
        require(aliases is None, f"{name}.aliases are second names of classes, and classes is None")
        return
    require(
        isinstance(classes, tuple) and all(isinstance(one, str) for one in classes),
        f"{name}.classes is {classes!r}; it must be a tuple of names",
    )
    require(len(set(classes)) == len(classes), f"{name}.classes holds a name twice; outputs are found by the names")
    require(
        labels.max() < len(classes),
        f"{name}.labels holds {labels.max()} and there are {len(classes)} classes, numbered from 0",
    )
    require(
        aliases is None or len(aliases) == len(classes),
        f"{name}.aliases has {len(aliases or ())} names for {len(classes)} classes; one each, or None",
    )


def _check_fields(name: str, data: Dataset) -> None:
    for field, column in data.fields.items():
        require(
            isinstance(field, str) and np.shape(column)[:1] == (len(data),),
            f"{name}.fields[{field!r}] has the shape {np.shape(column)}; it must have one value for each image",
        )
    require(isinstance(data.has_masks, bool), f"{name}.has_masks is {data.has_masks!r}; it must be true or false")
    require(
        data.void is None or (isinstance(data.void, int) and 0 <= data.void <= 255),
        f"{name}.void is {data.void!r}; it must be a number of pixels in masks, from 0 to 255, or None",
    )
    require(
        data.decoder in get_args(Decoder), f"{name}.decoder is {data.decoder!r}; known: {', '.join(get_args(Decoder))}"
    )


def _check_limits(name: str, data: Dataset) -> None:
    """A limit is a fixed choice of images, and a larger one adds to it."""
    count = len(data)
    smaller: set[int] = set()
    for limit in sorted({1, 2, max(1, count // 3), max(1, count // 2), max(1, count - 1), count, count + 1}):
        with no_error(f"{name}: choosing {limit} images"):
            chosen, again = subset_indices(data, limit), subset_indices(data, limit)
        positions = [int(position) for position in chosen]
        require(
            positions == sorted(set(positions)) and set(positions) <= set(range(count)),
            f"{name}.choose({limit}) must return positions of images, in their order and each once",
        )
        require(positions == again.tolist(), f"{name}.choose({limit}) returns other images the second time")
        require(len(positions) >= min(limit, count), f"{name}.choose({limit}) returns {len(positions)} images")
        require(
            smaller <= set(positions),
            f"{name}.choose({limit}) leaves out images that a smaller limit chose; a larger limit only adds",
        )
        smaller = set(positions)
    require(len(smaller) == count, f"{name}.choose({count + 1}) returns {len(smaller)} of {count} images")


def _check_reading(name: str, data: Dataset) -> dict[int, Tensor | None]:
    """Read some images, again in another order, and their masks; return the images by their positions."""
    count = len(data)
    indices = np.unique(np.linspace(0, count - 1, min(READ, count)).astype(int)).tolist()
    if data.sequential:
        indices = list(range(len(indices)))
    doing = f"{name}.read"
    with randomness_untouched(doing):
        pictures = {index: _read(name, data, index) for index in indices}
    for index, picture in pictures.items():
        if picture is not None:
            _check_mask(name, data, index, picture)
    for index in reversed([] if data.sequential else indices):
        again = _read(name, data, index)
        same = _same(pictures[index], again)
        require(same, f"{doing}({index}) is another picture when it is read again in another order")
    return pictures


def _read(name: str, data: Dataset, index: int) -> Tensor | None:
    """Return an image, None where it cannot be read."""
    try:
        picture = data.read(index)
    except UnreadableImageError:
        return None
    except Exception as error:
        raise ContractError(
            f"{name}.read({index}) raises {error_line(error, named=True)}; an image that cannot be read must raise an "
            "ipvit.data.dataset.UnreadableImageError, and the run goes on without it"
        ) from error
    right = isinstance(picture, Tensor) and picture.dtype == torch.uint8 and picture.ndim == 3 and len(picture) == 3
    what = f"{tuple(picture.shape)} of {picture.dtype}" if isinstance(picture, Tensor) else type(picture).__name__
    require(right and picture.numel(), f"{name}.read({index}) returns {what}; it must return (3, H, W) uint8")
    return picture.clone()


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    return one is other if one is None or other is None else torch.equal(one, other)


def _check_mask(name: str, data: Dataset, index: int, picture: Tensor) -> None:
    doing = f"{name}.read_mask({index})"
    if not data.has_masks:
        require_refusal(lambda: data.read_mask(index), f"{doing} of data without masks")
        return
    with no_error(doing):
        try:
            mask, again = data.read_mask(index).clone(), data.read_mask(index)
        except UnreadableImageError:  # the run goes on without the image
            return
    shape = tuple(mask.shape)
    require(
        mask.dtype == torch.uint8 and (len(shape) == 2 or (len(shape) == 3 and shape[0] == 2)),
        f"{doing} returns {shape} of {mask.dtype}; it must return (H, W) or (2, H, W) uint8",
    )
    height, width = picture.shape[-2:]
    off = abs(shape[-2] * width - shape[-1] * height)
    require(
        off <= max(height, width, *shape[-2:]),
        f"{doing} is {shape[-2]} x {shape[-1]} and its image {height} x {width}; they must have the same proportions",
    )
    require(torch.equal(mask, again), f"{doing} is another mask when it is read again")


def _check_copy(name: str, data: Dataset, pictures: Mapping[int, Tensor | None]) -> None:
    """Worker processes get a copy."""
    with no_error(f"{name}: pickling it for worker processes"):
        copy = pickle.loads(pickle.dumps(data))  # noqa: S301 - it was made in the line itself
    same = list(copy.ids) == list(data.ids) and np.array_equal(copy.labels, data.labels)
    require(
        same and copy.fingerprint == data.fingerprint,
        f"{name} has other ids, labels or another fingerprint in a worker process; what determines it must be pickled",
    )
    for index, picture in list(pictures.items())[:2]:
        same = _same(picture, _read(name, copy, index))
        require(same, f"{name}.read({index}) is another picture in a worker process")
