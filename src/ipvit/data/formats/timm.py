"""Whatever ``timm.data.create_dataset`` takes by name: ``torch/...``, ``hfds/...``, ``tfds/...``."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ipvit.core.files import user_path
from ipvit.core.text.text_files import read_text
from ipvit.data.checks import check_labels
from ipvit.data.dataset import BaseDataset, Dataset, UnreadableImageError, fingerprint
from ipvit.data.fingerprints import BYTES, sums_of_files
from ipvit.data.formats.hub import SCHEME, open_hub
from ipvit.data.formats.shards import ShardDataset, local_shards
from ipvit.data.formats.stream import StreamDataset
from ipvit.errors import InputError, did_you_mean, error_line

SCHEMES = ("hfds/", "hfids/", "tfds/", "torch/", "wds/")


def open_timm(name: str, root: str | None, split: str, classes: str | None) -> Dataset:
    """Open a data set of timm's by name.

    Args:
        name: ``hfds/owner/name``, ``torch/cifar10``, ``wds/...``.
        root: the folder with the data.
        split: for example ``train`` or ``validation``; for ``wds/`` also ``SHARDS|NUMBER``.
        classes: what the integer labels are, where the data does not say: a label space that timm knows
            (``imagenet-1k``) or a file with one class name per line.

    Raises:
        InputError: timm cannot open it, or its labels cannot be listed.
    """
    from timm.data.dataset_factory import create_dataset

    names = _class_names(classes) if classes else None
    if name.startswith(SCHEME):
        return open_hub(name, root, split, names)
    if root is None and name.startswith(("torch/", "wds/")):
        raise InputError(f"{name!r} needs the folder that the data lies in: --data-root FOLDER")
    if name.startswith("torch/"):
        _check_split(name, root, split)
    try:
        source: Any = create_dataset(name, root=root, split=split, download=False)
    except Exception as error:  # noqa: BLE001 - what it calls raises errors of many types
        raise InputError(
            f"timm cannot open the data set {name!r} (split {split!r}): {error_line(error, 300)}"
        ) from None
    source.transform = None
    shards = local_shards(getattr(source, "reader", None))
    if shards is not None:
        return ShardDataset(name, shards[0], shards[1], names, shards[2])
    if hasattr(source, "__iter__"):
        return StreamDataset(name, source, f"{Path(root or '').resolve()} {split}", names)
    return TimmDataset(name, source, f"{Path(root or '').resolve()} {split}", names)


_TRAIN, _EVALUATION = ("train", "training"), ("val", "valid", "validation", "eval", "evaluation", "test")
"""timm's words for the two parts of torchvision's small sets; any other word would mean the second one."""

_OF_TWO_PARTS = ("cifar10", "cifar100", "mnist", "kmnist", "fashion_mnist", "qmnist")


def _check_split(name: str, root: str | None, split: str) -> None:
    kind = name.split("/", 2)[-1].lower()
    known = (*_TRAIN, *_EVALUATION)
    if kind in ("image_folder", "folder"):
        folder = Path(root or "")
        there = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
        words = {split}.union(*(words for words in (_TRAIN, _EVALUATION[:-1]) if split in words))
        # without such a folder timm would take those of other splits for classes
        if words & {*there} or (split in known and not {*known} & {*there}):
            return
        raise InputError(f"{name!r} has no split {split!r}; folders of {str(folder)!r}: {', '.join(there[:10])}")
    if kind in _OF_TWO_PARTS and split not in known:
        raise InputError(f"{name!r} has no split {split!r}; it has train and test.{did_you_mean(split, known)}")


def _class_names(classes: str) -> tuple[str, ...]:
    from timm.data.imagenet_info import ImageNetInfo

    path = user_path(classes)
    if path.is_file():
        names = [line.strip() for line in read_text(path).rstrip().split("\n")]
        if "" in names:
            raise InputError(f"{classes}, line {names.index('') + 1}: empty; a line is the name of one output")
        return tuple(names)
    try:
        return tuple(ImageNetInfo(classes).label_names())
    except AssertionError:
        raise InputError(f"{classes!r} is neither a file of class names nor a label space of timm's") from None


class TimmDataset(BaseDataset):
    """A map-style data set of timm's; see :class:`ipvit.data.dataset.Dataset` for the attributes.

    Args:
        name: as the user gave it.
        source: timm's data set, without transforms.
        split: root and split, for the fingerprint.
        names: class names in the order of the labels, or None for the data set's own.

    Raises:
        InputError: its labels cannot be listed.
    """

    def __init__(self, name: str, source: Any, split: str, names: tuple[str, ...] | None) -> None:
        self.name = name
        self._source = source
        self.labels, own = _labels(source, name)
        self.classes = names or own or tuple(str(i) for i in range(int(self.labels.max(initial=-1)) + 1))
        self.ids = [f"{i:08d}" for i in range(len(self.labels))]
        check_labels(name, self.labels, self.classes)
        self.fingerprint = self._identified()

    def fingerprint_of_all_bytes(self) -> str:
        """Return the fingerprint under the scheme that reads every byte of every file; where there are no files, ours.

        Arrays are read as a whole in any case, and so are pictures that only decoding gives.
        """
        return f"{BYTES}:{self._identified(all_bytes=True)}" if self._files() else self.fingerprint

    def _identified(self, *, all_bytes: bool = False) -> str:
        return fingerprint("timm", list(self.ids), self.labels, list(self.classes or ()), self._content(all_bytes))

    def _files(self) -> list[Path]:
        """Return the file of each image; none where the data set has no list of them."""
        entries = getattr(self._source, "samples", None) or getattr(self._source, "imgs", None) or []
        if all(isinstance(entry, tuple) and isinstance(entry[0], str | Path) for entry in entries):
            return [Path(entry[0]) for entry in entries]
        return []

    def _content(self, all_bytes: bool) -> object:
        """Return what determines the pictures: the files' bytes, the array they are in, or each as it is decoded."""
        if files := self._files():
            sizes = [path.stat().st_size if path.is_file() else 0 for path in files]
            return sums_of_files(files, sizes, all_bytes=all_bytes).now
        data: Any = getattr(self._source, "data", None)
        if isinstance(data, torch.Tensor):
            data = data.numpy()
        if isinstance(data, np.ndarray) and len(data) == len(self):
            return np.ascontiguousarray(data)
        return self._each()

    def _each(self) -> np.ndarray:
        sums = np.zeros(len(self), dtype=np.uint64)
        for index in range(len(self)):
            pixels = self._pixels(index)
            data = pixels.tobytes() if isinstance(pixels, np.ndarray) else str(pixels).encode()
            sums[index] = int.from_bytes(hashlib.sha256(data).digest()[:8], "little")
        return sums

    def read(self, index: int) -> Tensor:
        """Decode image ``index``: ``(3, H, W)`` uint8."""
        try:
            picture, _ = self._source[index]
            return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)
        except (OSError, ValueError, SyntaxError) as error:
            raise UnreadableImageError(str(error) or type(error).__name__) from None


def _labels(source: Any, name: str) -> tuple[np.ndarray, tuple[str, ...] | None]:
    for attribute in ("targets", "labels", "_labels", "_targets"):
        values = getattr(source, attribute, None)
        if values is not None:
            classes = getattr(source, "classes", None)
            return np.asarray(values, dtype=np.int64), None if classes is None else tuple(map(str, classes))
    raise InputError(f"the labels of {name!r} cannot be listed without reading every image")
