"""``load_dataset``: from a name to the images behind it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import cast, get_args

import numpy as np

from ipvit.core.files import user_path
from ipvit.core.plugins import OWN_FILE, import_own, users_code
from ipvit.data.checks import check_labels
from ipvit.data.dataset import BaseDataset, Dataset, Decoder, lacking
from ipvit.errors import InputError, did_you_mean

DEMO = "demo:"


def load_dataset(
    name: str | Path | Dataset,
    *,
    root: str | Path | None = None,
    split: str = "validation",
    decoder: Decoder = "fast",
    classes: str | None = None,
    labels: str | None = None,
    subset: str | None = None,
) -> Dataset:
    """Open a data set by name.

    Args:
        name: a folder of class folders, a tar file of class folders, ``demo:trifeature`` (the procedural set, see
            :mod:`ipvit.data.synthetic.trifeature`), ``cue-conflict:PATH``, ``voc2012:PATH``, ``masks:IMAGES,MASKS``,
            ``imagenet-c:PATH``, a natural shift of ImageNet (``imagenet-v2:PATH``, see
            :mod:`ipvit.data.published.natural_shifts`; ``imagenet-v2:hfds/owner/name`` in a table), another published
            set with its split (``cub:PATH/train``, see
            :mod:`ipvit.data.published`), ``path/to/file.py:NAME`` for a subclass of :class:`BaseDataset` of yours or a
            function that returns a data set, or anything ``timm.data.create_dataset`` takes (``torch/cifar10``,
            ``hfds/owner/name``). A data set stays itself.
        root: where timm's data sets lie on disk.
        split: for timm's data sets, VOC 2012 and published sets.
        decoder: ``fast`` (torchvision) or ``pil`` (Pillow, as timm reads), for images in folders.
        classes: what the integer labels of timm's data sets are, where the data does not say: ``imagenet-1k`` or a file
            with one class name per line.
        labels: ``real`` for ReaL's labels of ImageNet's validation images, several or none an image.
        subset: ``robustbench`` for the 5,000 of ImageNet's validation images that RobustBench measures on.

    Raises:
        InputError: there is no such data, or it cannot be used.
    """
    opened = _open(name, root, split, decoder, classes, labels)
    if subset is not None:
        from ipvit.data.published.subsets import named_subset

        opened = named_subset(opened, subset)
    if isinstance(name, str | Path):
        place = None if root is None else str(root)
        given = {"name": str(name), "root": place, "split": split, "decoder": decoder}
        with contextlib.suppress(AttributeError):  # an object of the user's own may take no more attributes
            opened.origin = {**given, "classes": classes, "labels": labels, "subset": subset}  # pyright: ignore[reportAttributeAccessIssue]
    return opened


def _open(
    name: str | Path | Dataset,
    root: str | Path | None,
    split: str,
    decoder: Decoder,
    classes: str | None,
    labels: str | None,
) -> Dataset:
    if decoder not in get_args(Decoder):
        raise InputError(f"unknown decoder {decoder!r}; known: {', '.join(get_args(Decoder))}")
    if labels is not None:
        from ipvit.data.published.real import REAL, RealLabels

        if labels != REAL:
            raise InputError(f"unknown labels {labels!r}; known: {REAL}")
        return RealLabels(load_dataset(name, root=root, split=split, decoder=decoder, classes=classes))
    if not isinstance(name, str | Path):
        return _whole(name, "the data is of type")
    text = str(name)
    if not text.strip():
        raise InputError("the name of the data is empty; '.' is the current folder")
    if text.startswith(DEMO):
        from ipvit.data.synthetic import trifeature

        return trifeature.parse(text)
    if OWN_FILE in text:
        return _own(text)
    scheme, _, place = text.partition(":")
    if place and scheme in _SCHEMES:
        return _SCHEMES[scheme](place, split, decoder)
    from ipvit.data import published
    from ipvit.data.formats.hub import SCHEME as TABLES
    from ipvit.data.published.natural_shifts import SHIFTS

    if scheme in SHIFTS and place.startswith(TABLES):
        return _shift_in_table(scheme, place, root, split, classes)
    if place and scheme in SHIFTS:
        return SHIFTS[scheme](place, split, decoder)
    if place and scheme in published.SETS:
        return published.open_set(scheme, place, split, decoder)
    from ipvit.data.formats.folder import FolderDataset, TarDataset
    from ipvit.data.formats.timm import SCHEMES, open_timm

    path = user_path(text)
    if path.is_dir():
        opened = FolderDataset(text, decoder)
        names = opened.classes or ()
        if len(names) > 1 and published.SPLIT_NAMES.issuperset(names):
            raise InputError(
                f"{text!r} holds the splits {', '.join(names)}, not classes; give {text}/{names[-1]}, or folder:{text} "
                "to keep one numbering of classes over all of them"
            )
        return opened
    if path.is_file() and path.suffix == ".tar":
        return TarDataset(text, decoder)
    if text.startswith(SCHEMES):
        return open_timm(text, None if root is None else str(root), split, classes)
    if path.exists():
        raise InputError(f"the data {text!r} is a file; give a folder of class folders or a .tar of them")
    raise InputError(
        f"there is no data {text!r}.{_close(path, text)} Known: a folder, a .tar, demo:trifeature, FILE.py:FACTORY, "
        f"{', '.join(scheme + ':...' for scheme in (*_SCHEMES, *SHIFTS, *published.SETS))}, "
        f"{', '.join(scheme + '...' for scheme in SCHEMES)}"
    )


def _shift_in_table(scheme: str, place: str, root: str | Path | None, split: str, classes: str | None) -> Dataset:
    """Open a natural shift that lies in a table of the Hugging Face hub."""
    from ipvit.data.published.shift_tables import IN_TABLES, as_shift, split_variant

    if scheme not in IN_TABLES:
        raise InputError(f"{scheme} is read from its own distribution, {scheme}:PATH, not from a table")
    table, variant = split_variant(scheme, place)
    return as_shift(scheme, load_dataset(table, root=root, split=split, classes=classes), variant)


def _own(text: str) -> Dataset:
    """Call a class or function in the user's own file."""
    factory = import_own(text)
    with users_code(text):
        made = factory()
    return _whole(made, f"{text} returned")


def _whole(data: object, what: str) -> Dataset:
    """Return an object that is a data set, or say what it lacks to be one."""
    if isinstance(data, np.ndarray) or (type(data).__module__, type(data).__name__) == ("torch", "Tensor"):
        raise InputError(f"{what} {type(data).__name__}: give ipvit.MemoryDataset(images, labels, classes)")
    if missing := lacking(data):
        advice = "" if isinstance(data, BaseDataset) else "; ipvit.BaseDataset has defaults for most of it"
        raise InputError(
            f"{what} {type(data).__name__}, which is no ipvit.data.Dataset: it lacks {', '.join(missing)}{advice}"
        )
    data = cast("Dataset", data)
    if not len(data.ids) == len(set(data.ids)) == len(data.labels):
        raise InputError(
            f"{what} {type(data).__name__} with {len(data.labels)} labels and {len(set(data.ids))} different ids for "
            f"{len(data)} images; every image needs a label and an id of its own"
        )
    check_labels(data.name, data.labels, data.classes)
    return data


def _cue_conflict(place: str, _split: str, decoder: Decoder) -> Dataset:
    from ipvit.data.formats.cue_conflict import CueConflictDataset

    return CueConflictDataset(place, decoder)


def _voc(place: str, split: str, decoder: Decoder) -> Dataset:
    from ipvit.data.formats.voc import VOCSegmentation

    return VOCSegmentation(place, split, decoder)


def _imagenet_c(place: str, _split: str, decoder: Decoder) -> Dataset:
    from ipvit.data.formats.imagenet_c import ImageNetC

    return ImageNetC(place, decoder)


def _masks(place: str, _split: str, decoder: Decoder) -> Dataset:
    from ipvit.data.formats import masks

    return masks.parse(place, decoder)


_SCHEMES: dict[str, Callable[[str, str, Decoder], Dataset]] = {
    "cue-conflict": _cue_conflict,
    "voc2012": _voc,
    "masks": _masks,
    "imagenet-c": _imagenet_c,
}
"""What opens the data whose name begins with the word and a colon, from the place behind it, split and decoder."""


def _close(path: Path, text: str) -> str:
    parent = path.parent if path.parent.is_dir() else Path()
    siblings = [str(parent / entry.name) for entry in parent.iterdir() if entry.is_dir()]
    return did_you_mean(text, [*siblings, "demo:trifeature"])
