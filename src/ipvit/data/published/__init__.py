"""Published sets in the layouts that users have on disk: ``cub:PATH/train``, ``imagenet:PATH/val``.

The word behind the path names a split; without one, the part that numbers are reported on is meant. ``PATH`` is the
folder that the publisher's archive (or torchvision) unpacks into, or the folder above it, or a folder
``train/ val/ test/`` of class folders.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ipvit.core.files import user_path
from ipvit.data.dataset import Dataset, Decoder, Items, known_fingerprints
from ipvit.data.published.folders import SPLIT_NAMES, split_folder
from ipvit.data.published.layouts import LayoutNotFoundError
from ipvit.data.published.parts import FileListing, Listing, divide
from ipvit.data.published.table import SETS, THREE, TWO, PublishedSet, Share, SplitPart, Splits
from ipvit.errors import InputError, did_you_mean

__all__ = ["SETS", "SPLIT_NAMES", "PublishedSet", "in_common", "open_set", "protocol"]


def open_set(name: str, place: str, split: str | None, decoder: Decoder) -> Dataset:
    """Open a published set.

    Args:
        name: a key of :data:`SETS`.
        place: its folder, with ``/SPLIT`` behind it where another part than the reported one is meant.
        split: the same as a word of its own; None or ``validation`` for the reported part.
        decoder: ``fast`` or ``pil``, see :mod:`ipvit.data.decode`.

    Raises:
        InputError: the folder holds no such set, or it has no such split; says where to get it.
    """
    entry = SETS[name]
    root, wanted = _parted(entry, place, split)
    if not root.is_dir():
        raise InputError(f"there is no folder {str(root)!r}; {entry.title} is to be had from {entry.source}")
    part = _read(entry, root, wanted)
    return part.dataset(f"{name}:{root.as_posix()}/{wanted}", decoder)


def protocol(data: str) -> tuple[str, str, str] | None:
    """Return the data names to fit on, to choose on and to report on for a set, or None for other data.

    >>> protocol("cub:birds")
    ('cub:birds/train', 'cub:birds/val', 'cub:birds/test')
    """
    name, _, place = data.partition(":")
    if name not in SETS or not place or SETS[name].protocol is None:
        return None
    root, _ = _parted(SETS[name], place, None)
    fit, choose, report = (f"{name}:{root.as_posix()}/{split}" for split in SETS[name].protocol or ())
    return fit, choose, report


def in_common(first: Items, second: Items) -> int:
    """Return how many images two data sets are known to share: the same data, or two parts of one published set.

    Copies of a file under another name or in another folder are not noticed.
    """
    if known_fingerprints(first) & known_fingerprints(second):
        return len(first)
    folder = _folder(first)
    return len(set(first.ids).intersection(second.ids)) if folder and folder == _folder(second) else 0


def _folder(data: Items) -> Path | None:
    """Return the folder that a part of a published set lies in, below which its ids are unique."""
    name, _, place = data.name.partition(":")
    return Path(place).parent.absolute() if name in SETS and place else None


def _parted(entry: PublishedSet, place: str, split: str | None) -> tuple[Path, str]:
    """Return the folder and the split."""
    path = user_path(place)
    if path.name in entry.splits:
        return path.parent, path.name
    if split is None or split == "validation":
        return path, entry.reported
    if split in entry.splits:
        return path, split
    known = ", ".join(entry.splits)
    raise InputError(f"{entry.name} has no split {split!r}; it has {known}.{did_you_mean(split, entry.splits)}")


def _read(entry: PublishedSet, root: Path, split: str) -> Listing:
    lacking = ""
    try:
        return _assembled(entry, entry.splits[split], functools.partial(entry.read, root))
    except LayoutNotFoundError as error:
        lacking = str(error)
    try:
        return _from_folders(entry, root, split)
    except LayoutNotFoundError:
        raise InputError(
            f"{str(root)!r} holds no {entry.title} ({split}): there is no {lacking}; it needs {entry.layout}, or "
            f"train/, val/ and test/ of class folders; to be had from {entry.source}"
        ) from None


def _from_folders(entry: PublishedSet, root: Path, split: str) -> Listing:
    """Read ``train/ val/ test/``; where there is no ``val/``, a tenth of ``train/`` is held out."""
    there = {name: found for name in ("train", "val", "test") if (found := split_folder(root, name)) is not None}
    if not there:
        raise LayoutNotFoundError("train/")
    splits = _splits_of(entry, there)

    def read(name: str) -> FileListing:
        if name not in there:
            raise LayoutNotFoundError(name)
        return there[name]

    return _assembled(entry, splits[split], read)


def _splits_of(entry: PublishedSet, there: dict[str, FileListing]) -> Splits:
    everything = {"all": tuple(SplitPart(name) for name in there)}
    if entry.splits not in (THREE, TWO):
        return {**entry.splits, **everything}
    if "val" in there:
        return {**THREE, **everything}
    ours = {
        name: tuple(SplitPart("train", piece.share) for piece in TWO[name]) for name in ("train", "val", "trainval")
    }
    return {**TWO, **ours, **everything}


def _assembled(entry: PublishedSet, pieces: tuple[SplitPart, ...], read: Callable[[str], Listing]) -> Listing:
    """Put a split together from the publisher's parts."""
    parts: list[Any] = [_share(entry, read(piece.published), piece.share) for piece in pieces]
    return functools.reduce(lambda first, second: first.joined(second), parts)


def _share(entry: PublishedSet, part: Listing, share: Share) -> Listing:
    if share == "all":
        return part
    if entry.group is not None and isinstance(part, FileListing):
        part = dataclasses.replace(part, groups=tuple(entry.group(path) for path in part.paths))
    most, held = divide(part)
    return part.take(most if share == "most" else held)
