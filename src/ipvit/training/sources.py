"""Opening the images of a training, and finding images that are in both of its sets."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from ipvit.data.checks import check_one_label
from ipvit.data.dataset import Dataset, UnreadableImageError
from ipvit.data.loading import load_dataset
from ipvit.data.published import SETS, in_common, protocol
from ipvit.data.synthetic import trifeature
from ipvit.errors import InputError
from ipvit.training.config import SetConfig

Part = Literal["train", "val"]

_SizedFile = tuple[Path, int]

_MOST_COMPARED = 50_000
"""Images up to which two sets whose images are no files of their own are compared pixel by pixel."""

_SAMPLE = 64
"""Bytes from the middle of a file, which tell most files of one size apart."""

_DUPLICATES = 0.01
"""Share of the validation images that may be in both: published sets have a few pictures twice."""


def open_data(source: str | SetConfig, size: int, part: Part) -> Dataset:
    """Return a labelled data set; the procedural set is drawn at ``size``.

    Args:
        source: its name, or name, root, split, decoder and classes.
        size: height and width in pixels.
        part: what it is for. Where no split is named, a set that has several gives the one for fitting or the one for
            choosing, never the one that numbers are reported on where there is another.

    Raises:
        InputError: if there is no such set or an image in it has no label.
    """
    entry = SetConfig(name=source) if isinstance(source, str) else source
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
        raise InputError(
            f"train and val are the same {len(val):,} images ({val.name}): choose the best epoch on images that are "
            "not trained on"
        )
    both = _copies(train, val)
    if not both and (known := in_common(train, val)):
        both = [(known, "")] * known
    if not both:
        return ""
    example = f", for example {both[0][1]}" if both[0][1] else ""
    said = f"{len(both):,} of the {len(val):,} images of {val.name} are in {train.name} too{example}"
    if len(both) > _DUPLICATES * len(val):
        raise InputError(f"{said}: choose the best epoch on images that are not trained on")
    return f"{said}; the score after each epoch counts them"


def _copies(train: Dataset, val: Dataset) -> list[tuple[object, str]]:
    """Return the validation images that are in the training set byte by byte, or pixel by pixel."""
    if isinstance(train, trifeature.Trifeature) and isinstance(val, trifeature.Trifeature):
        return []  # each set is drawn from numbers of its own
    files = _files(train), _files(val)
    if files[0] is not None and files[1] is not None:
        return [(0, val.ids[row]) for row in in_both(files[0], files[1])]
    if len(train) + len(val) > _MOST_COMPARED or train.sequential or val.sequential:
        return []
    known: dict[bytes, list[int]] = defaultdict(list)
    for index, digest in _pixels(val):
        known[digest].append(index)
    found = {index for _, digest in _pixels(train) for index in known.get(digest, ())}
    return [(0, val.ids[index]) for index in sorted(found)]


def _files(data: Dataset) -> list[_SizedFile] | None:
    """Return the files of a data set with their sizes where its images are whole files below a folder."""
    root = getattr(data, "root", None)
    if not isinstance(root, Path) or not root.is_dir() or getattr(data, "boxes", None) is not None:
        return None
    try:
        return [((path := root / name), path.stat().st_size) for name in data.ids]
    except OSError:
        return None


def in_both(files: Sequence[_SizedFile], others: Sequence[_SizedFile]) -> list[int]:
    """Return which of the others are among the files. Few are read whole: sizes and samples tell most apart."""
    rows = list(range(len(others)))
    for key in (_size, _sample, _digest):
        wanted = {row: key(others[row]) for row in rows}
        there = [key(file) for file in files]
        alike = set(wanted.values()).intersection(there)
        files = [file for file, found in zip(files, there, strict=True) if found in alike]
        rows = [row for row in rows if wanted[row] in alike]
    return rows


def _size(file: _SizedFile) -> object:
    return file[1]


def _sample(file: _SizedFile) -> object:
    path, size = file
    with path.open("rb") as opened:
        opened.seek(size // 2)
        return size, opened.read(_SAMPLE)


def _digest(file: _SizedFile) -> object:
    return hashlib.sha256(file[0].read_bytes()).digest()


def _pixels(data: Dataset) -> Iterable[tuple[int, bytes]]:
    for index in range(len(data)):
        try:
            pixels = data.read(index).numpy()
        except UnreadableImageError:
            continue  # named when it is its turn
        yield index, hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).digest()
