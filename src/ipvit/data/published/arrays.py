"""Sets of small images in binary files: CIFAR-10 and -100, MNIST, QuickDraw. Nothing in a file is executed.

CIFAR's "python version" consists of pickles, which can run any program when they are read in the usual way. Here they
are read by an unpickler that can only make numpy arrays; the "binary version" beside them is preferred.
"""

from __future__ import annotations

import dataclasses
import gzip
import pickle
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ipvit.data.published.layouts import LayoutNotFoundError, below, first, lines
from ipvit.data.published.parts import ArrayListing
from ipvit.errors import InputError, error_line

_SIDE = 32
_IMAGE = 3 * _SIDE * _SIDE  # bytes of a CIFAR image: red, green and blue plane

QUICKDRAW_PER_CLASS = 1000
"""Drawings used of each class of QuickDraw, evenly spaced over its file; the classes have 100,000 and more."""

_IDX_BYTES = 8  # code of unsigned bytes in MNIST's files


def cifar10(root: Path, split: str) -> ArrayListing:
    """CIFAR-10: the binary version (``data_batch_1.bin`` ...) or the python version."""
    parts = [f"data_batch_{n}" for n in range(1, 6)] if split == "trainval" else ["test_batch"]
    binary = _Binary("cifar-10-batches-bin", "batches.meta.txt", skip=1)
    return _cifar(root, split, parts, binary, _Python("cifar-10-batches-py", "batches.meta", "labels", "label_names"))


def cifar100(root: Path, split: str) -> ArrayListing:
    """CIFAR-100 with its 100 fine classes: the binary version (``train.bin``) or the python version (``train``)."""
    parts = ["train" if split == "trainval" else "test"]
    binary = _Binary("cifar-100-binary", "fine_label_names.txt", skip=2)
    return _cifar(root, split, parts, binary, _Python("cifar-100-python", "meta", "fine_labels", "fine_label_names"))


@dataclasses.dataclass(frozen=True)
class _Binary:
    """The binary version: its folder, its list of class names, and the label bytes of a record."""

    folder: str
    names: str
    skip: int


@dataclasses.dataclass(frozen=True)
class _Python:
    """The python version: its folder, its file of class names, the key of the labels and that of the names."""

    folder: str
    meta: str
    labels: str
    names: str


def _cifar(root: Path, split: str, parts: list[str], binary: _Binary, python: _Python) -> ArrayListing:
    try:
        base = below(root, (binary.folder, ""), f"{parts[0]}.bin")
    except LayoutNotFoundError:
        base = below(root, (python.folder, ""), python.meta)  # "train" may be a folder of class folders
        loaded = [_pickled(first(base, [part]), python.labels) for part in parts]
        classes = _names(first(base, [python.meta]), python.names)
    else:
        loaded = [_binary(first(base, [f"{part}.bin"]), binary.skip) for part in parts]
        classes = tuple(lines(first(base, [binary.names])))
    images = np.concatenate([pixels for pixels, _ in loaded])
    return _part(images, np.concatenate([labels for _, labels in loaded]), classes, split, base)


def _binary(path: Path, skip: int) -> tuple[np.ndarray, np.ndarray]:
    """Read records of one or two label bytes, the last of which counts, and an image."""
    data = np.fromfile(path, np.uint8)
    if data.size % (skip + _IMAGE):
        raise InputError(f"{str(path)!r} is cut short: {data.size} bytes are no multiple of {skip + _IMAGE}")
    records = data.reshape(-1, skip + _IMAGE)
    return records[:, skip:].reshape(-1, 3, _SIDE, _SIDE), records[:, skip - 1].astype(np.int64)


def _pickled(path: Path, key: str) -> tuple[np.ndarray, np.ndarray]:
    content = _unpickled(path)
    pixels, labels = content.get(b"data", content.get("data")), content.get(key.encode(), content.get(key))
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[1:] != (_IMAGE,):
        raise InputError(f"{str(path)!r} is not a batch of CIFAR: it holds no images of {_IMAGE} bytes")
    if not isinstance(labels, list) or len(labels) != len(pixels):
        raise InputError(f"{str(path)!r} is not a batch of CIFAR: it lacks {key!r}")
    return pixels.reshape(-1, 3, _SIDE, _SIDE), np.array(labels, dtype=np.int64)


def _names(path: Path, key: str) -> tuple[str, ...]:
    content = _unpickled(path)
    names = content.get(key.encode(), content.get(key))
    if not isinstance(names, list):
        raise InputError(f"{str(path)!r} lacks {key!r}")
    return tuple(name.decode() if isinstance(name, bytes) else str(name) for name in names)


class _OnlyArrays(pickle.Unpickler):
    """An unpickler that refuses every class and function but the building blocks of numpy's arrays."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        home = module_name.replace("numpy._core", "numpy.core")
        if (home, global_name) == ("numpy.core.multiarray", "_reconstruct"):
            return np.zeros(0).__reduce__()[0]  # the same function; its home has moved between versions
        if (home, global_name) == ("_codecs", "encode"):  # how Python 3 writes bytes in old pickles
            return _latin
        if (home, global_name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, global_name)
        raise pickle.UnpicklingError(f"{module_name}.{global_name} is no part of a picture")


def _latin(text: str, _: str) -> bytes:
    return text.encode("latin1")


_UNREADABLE = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    OverflowError,
    MemoryError,
    RecursionError,
)


def _unpickled(path: Path) -> dict[Any, Any]:
    """Read a dictionary of arrays, lists and texts; anything else in the file is an InputError."""
    try:
        with path.open("rb") as file:
            content = _OnlyArrays(file, encoding="bytes").load()
    except _UNREADABLE as error:
        raise InputError(
            f"{str(path)!r} cannot be read safely as a file of CIFAR: {error_line(error)}; take the binary version"
        ) from None
    if not isinstance(content, dict):
        raise InputError(f"{str(path)!r} is not a file of CIFAR: it holds no dictionary")
    return content


def mnist(root: Path, split: str) -> ArrayListing:
    """MNIST: ``train-images-idx3-ubyte`` and the like, packed (``.gz``) or not."""
    stem = "train" if split == "trainval" else "t10k"
    base = root
    for folder in ("MNIST/raw", "raw", ""):
        if list((root / folder).glob(f"{stem}-images*idx3*")):
            base = root / folder
            break
    images, labels = (_idx(base, f"{stem}-{what}") for what in ("images?idx3-ubyte", "labels?idx1-ubyte"))
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise InputError(f"{str(base)!r}: the images {images.shape} and labels {labels.shape} of MNIST do not fit")
    return _part(images[:, None], labels.astype(np.int64), tuple("0123456789"), split, base)


def _idx(base: Path, pattern: str) -> np.ndarray:
    found = sorted([*base.glob(pattern), *base.glob(f"{pattern}.gz")])
    if not found:
        raise LayoutNotFoundError(pattern.replace("?", "-"))
    path = found[0]
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        if data[:2] != b"\0\0" or data[2] != _IDX_BYTES:
            raise ValueError("it does not begin as such a file does")
        shape = np.frombuffer(data, ">i4", count=data[3], offset=4)
        return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)
    except (OSError, ValueError, IndexError, EOFError, zlib.error) as error:
        raise InputError(f"{str(path)!r} is not an idx file of bytes: {error}") from None


def quickdraw(root: Path, _split: str) -> ArrayListing:
    """Return QuickDraw's bitmaps, ``CLASS.npy`` of ``(N, 784)``: white strokes on black, up to 1,000 of a class."""
    files = sorted(root.glob("*.npy"))
    if not files:
        raise LayoutNotFoundError("CLASS.npy")
    classes = tuple(path.stem.removeprefix("full_numpy_bitmap_") for path in files)
    images, labels, ids = [], [], []
    for label, path in enumerate(files):
        drawings = _drawings(path)
        rows = np.unique(np.linspace(0, len(drawings) - 1, min(len(drawings), QUICKDRAW_PER_CLASS)).round().astype(int))
        images.append(np.array(drawings[rows]).reshape(-1, 1, 28, 28))
        labels.append(np.full(len(rows), label))
        ids += [f"{classes[label]}/{row}" for row in rows.tolist()]
    return ArrayListing(np.concatenate(images), np.concatenate(labels), classes, tuple(ids))


def _drawings(path: Path) -> np.ndarray:
    try:
        drawings = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        raise InputError(f"{str(path)!r} is not a numpy file of numbers; take the published one") from None
    if drawings.dtype != np.uint8 or drawings.ndim != 2 or drawings.shape[1] != 28 * 28 or not len(drawings):
        raise InputError(f"{str(path)!r} holds {drawings.dtype} {drawings.shape}, not drawings of 28 x 28 bytes")
    return drawings


def _part(images: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], split: str, base: Path) -> ArrayListing:
    if not len(labels) or labels.min() < 0 or labels.max() >= len(classes):
        raise InputError(f"{str(base)!r} holds labels beyond its {len(classes)} classes")
    half = "train" if split == "trainval" else "test"
    return ArrayListing(images, labels, classes, tuple(f"{half}/{row:05d}" for row in range(len(labels))))
