"""What can be measured one by one: numbered items with ids and labels, and the data sets whose items are pictures."""

from __future__ import annotations

import functools
import hashlib
import itertools
import types
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, Protocol, TypeGuard, runtime_checkable

import numpy as np

from ipvit.core.text.notebook import definition_table, few
from ipvit.core.text.texts import Texts
from ipvit.core.text.words import counted
from ipvit.data.checks import bytes_of, check_labels, masks_of, whole_numbers
from ipvit.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

Decoder = Literal["fast", "pil"]
"""What reads image files: torchvision where it can, or Pillow alone."""

ALL_READ = 256
"""Images of the largest data set whose fingerprint may be made from all of its pixels."""


_AT_ONCE, _ELEMENTS = 4096, 2**16
"""Items, and elements of an array, whose digest is made together."""


class UnreadableImageError(Exception):
    """One image cannot be used (truncated, empty, not an image, too large); the text says why."""


class Items(Protocol):
    """What is measured one by one, in a fixed order: pictures (:class:`Dataset`), or something made of many of them.

    Items have no pixels of their own unless they are a data set: nothing is decoded for them.

    Attributes:
        name: what the user asked for, for tables and messages.
        ids: one unique, stable name per item, for example an image's path below the data set's root.
        labels: ``(N,)`` int64, the position of each item's class in ``classes``; -1 where there is none.
        classes: names of the classes, or None where the items have no labels.
        aliases: a second name per class (same length as ``classes``), or None.
        fields: further columns per item, for example the texture label of a cue-conflict image.
        fingerprint: digest of what determines the items and their labels.
    """

    name: str
    ids: Sequence[str]
    labels: np.ndarray
    classes: tuple[str, ...] | None
    aliases: tuple[str, ...] | None
    fields: Mapping[str, np.ndarray]
    fingerprint: str

    def __len__(self) -> int:
        """Return the number of items."""
        ...


@runtime_checkable
class Dataset(Items, Protocol):
    """Pictures with labels, in a fixed order; :class:`BaseDataset` has defaults for most of it.

    Attributes:
        has_masks: whether :meth:`read_mask` works.
        void: number of the pixels of masks that count for nothing, or None.
        decoder: how the images are resized, see :mod:`ipvit.data.decode`.
        sequential: whether the images can only be read from the front to the back, by one process.

    See :class:`Items` for ``name``, ``ids``, ``labels``, ``classes``, ``aliases``, ``fields`` and ``fingerprint``.
    """

    has_masks: bool
    void: int | None
    decoder: Decoder
    sequential: bool

    @abstractmethod
    def read(self, index: int) -> Tensor:
        """Decode one image: ``(3, H, W)`` uint8, its own size; raises :class:`UnreadableImageError`."""
        ...

    def read_mask(self, index: int) -> Tensor:
        """Decode one image's mask: ``(H, W)`` uint8 in the proportions of the image, or two of them, ``(2, H, W)``.

        0 is background; other numbers tell objects apart. Of two, the first numbers classes, the second instances.
        """
        ...

    def choose(self, limit: int) -> np.ndarray | None:
        """Return the positions of the images that a run of ``limit`` images uses, or None for a choice by the ids."""
        ...


def has_pictures(items: Items) -> TypeGuard[Dataset]:
    """Tell whether items are pictures that can be read."""
    return hasattr(items, "read")


class BaseDataset(Dataset):
    """A data set with a default for all but the pictures: a subclass writes :meth:`read` and states its labels.

    What the images are is stated as attributes of the class, set in a constructor, or given to this one. See
    :class:`Items` and :class:`Dataset` for what each attribute means. Defaults: no ``classes``, ``aliases``,
    ``fields``, masks and ``void`` pixels; ``decoder`` is ``fast``; the images can be read in any order; a limited run
    chooses by the ids.

    The default ``fingerprint`` is made from name, ids, labels, classes, fields and all pixels, which notices every
    change. It is for at most 256 images: a larger data set, or one that is ``sequential``, states its own, from what
    determines its images (:func:`fingerprint`).

    A published protocol may have ``answers`` ``data``, where networks choose among the data's classes and not among all
    of their outputs; ``aggregate`` ``max``, where a class is several outputs and the most probable of them counts and
    not their mean; and ``label_sets``, the right classes of each image where they may be several or none.

    Two attributes are ours more than a subclass's: ``notes``, what a reader should know of the data, in sentences, and
    ``earlier_fingerprint``, what an earlier version of the data set's code called the same data, or empty; records that
    were measured under it are found.

    Args:
        name: for tables and messages; the name of the class by default.
        labels: ``(N,)`` integers; -1 for an image without class.
        classes: names of the classes.
        ids: one unique name per image; ``00000000``, ``00000001``, ... by default.
    """

    classes = None
    aliases = None
    fields: Mapping[str, np.ndarray] = types.MappingProxyType({})
    has_masks = False
    void = None
    decoder = "fast"
    sequential = False
    notes: Sequence[str] = ()
    earlier_fingerprint: str = ""
    answers: str = "all"
    aggregate: str = ""
    label_sets: Sequence[Sequence[int]] | None = None
    origin: Mapping[str, str | None] | None = None
    """What :func:`ipvit.load_dataset` opened it by; None for data that were made in Python."""

    def __init__(
        self,
        name: str | None = None,
        labels: Sequence[int] | np.ndarray | None = None,
        classes: Sequence[str] | None = None,
        *,
        ids: Sequence[str] | None = None,
    ) -> None:
        self.name = name or getattr(self, "name", type(self).__name__)
        if labels is not None:
            self.labels = whole_numbers(labels)
        if classes is not None:
            self.classes = tuple(classes)
        if ids is not None:
            self.ids = list(ids)
        elif not hasattr(self, "ids") and hasattr(self, "labels"):
            self.ids = [f"{i:08d}" for i in range(len(self.labels))]

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        if missing := lacking(self):  # one that is being made
            return f"<{type(self).__name__} without {', '.join(missing)}>"
        classes = "no classes" if self.classes is None else counted(len(self.classes), "class", "classes")
        return f"<{type(self).__name__} {self.name!r}: {counted(len(self), 'image')}, {classes}>"

    def _repr_html_(self) -> str:
        unlabelled = int((np.asarray(self.labels) < 0).sum())
        return definition_table(
            f"Data {self.name}",
            {
                "kind": type(self).__name__,
                "images": f"{len(self):,}",
                "classes": "none" if self.classes is None else few(self.classes),
                "without a class": f"{unlabelled:,}" if unlabelled and self.classes is not None else "",
                "masks": "of the foreground" if self.has_masks else "",
                "further columns": ", ".join(self.fields),
            },
        )

    def read_mask(self, index: int) -> Tensor:
        """Raise InputError: there are no masks."""
        raise InputError(f"{self.name} has no foreground masks")

    def fingerprint_of_all_bytes(self) -> str:
        """Return a fingerprint that notices every change of every file; the usual one where that does already."""
        return self.fingerprint

    def choose(self, limit: int) -> np.ndarray | None:
        """Return None: the ids choose. To override where a photo has several versions, which belong together."""
        return None

    if not TYPE_CHECKING:  # an attribute like the others: a subclass may set it

        @functools.cached_property
        def fingerprint(self) -> str:
            """Digest of everything, pixels included; raises InputError where that would be too much to read."""
            if len(self) > ALL_READ or self.sequential:
                raise InputError(
                    f"{self.name} has {len(self):,} images and no fingerprint: set self.fingerprint = "
                    "ipvit.data.dataset.fingerprint(...) of what determines its images"
                )
            columns = [part for name in sorted(self.fields) for part in (name, np.asarray(self.fields[name]))]
            about = [type(self).__qualname__, self.name, list(self.ids), np.asarray(self.labels, np.int64)]
            return fingerprint(*about, list(self.classes or ()), *columns, *map(self._pixels, range(len(self))))

    def _pixels(self, index: int) -> object:
        try:
            return np.ascontiguousarray(self.read(index).numpy())
        except UnreadableImageError as error:
            return str(error)


def lacking(data: object) -> list[str]:
    """Return the attributes and methods of a :class:`Dataset` that an object does not have."""
    if isinstance(data, BaseDataset):
        return [name for name in ("name", "ids", "labels") if not hasattr(data, name)]
    wanted = (*Items.__annotations__, *Dataset.__annotations__, "__len__", "read", "read_mask", "choose")
    return [name for name in wanted if not hasattr(data, name)]


def known_fingerprints(data: Items) -> frozenset[str]:
    """Return what the data is called under every scheme that something may have been made under."""
    names = (getattr(data, name, "") for name in ("fingerprint", "sampled_fingerprint", "earlier_fingerprint"))
    return frozenset(name for name in names if name)


def fingerprint(*parts: object) -> str:
    """Return a digest (32 hex digits) of the ``repr`` of the parts, in their order; arrays count by their bytes.

    What lists, tuples, iterators and :class:`ipvit.core.text.texts.Texts` hold counts one by one.
    """
    return Fingerprint(*parts).followed_by()


class InPython:
    """The numbers of an array, which count in a :func:`fingerprint` as a list of Python's own would."""

    def __init__(self, numbers: np.ndarray) -> None:
        self._numbers = numbers

    def as_written(self) -> Iterator[bytes]:
        """Yield what Python writes for them, many together, each with a zero behind it."""
        for start in range(0, len(self._numbers), _AT_ONCE):
            some = self._numbers[start : start + _AT_ONCE].tolist()
            yield (str(some)[1:-1].replace(", ", "\0") + "\0").encode()


class Fingerprint:
    """The first parts of a :func:`fingerprint`, which several have in common."""

    def __init__(self, *parts: object) -> None:
        self._digest = hashlib.sha256()
        _add(self._digest, parts)

    def followed_by(self, *parts: object) -> str:
        """Return the fingerprint of these parts and some more."""
        digest = self._digest.copy()
        _add(digest, parts)
        return digest.hexdigest()[:32]


def _add(digest: hashlib._Hash, parts: Iterable[object]) -> None:
    for part in parts:
        if isinstance(part, np.ndarray):
            flat = part.reshape(-1)
            for start in range(0, flat.size, _ELEMENTS):  # all bytes at once would be a second array
                digest.update(flat[start : start + _ELEMENTS].tobytes())
        elif isinstance(part, Texts | InPython):
            for some in part.as_written():
                digest.update(some)
        elif isinstance(part, list | tuple | Iterator):
            items = iter(part)
            while some := list(map(repr, itertools.islice(items, _AT_ONCE))):
                digest.update("\0".join((*some, "")).encode("utf-8", "surrogatepass"))
        else:
            digest.update(repr(part).encode("utf-8", "surrogatepass"))
        digest.update(b"\1")


class MemoryDataset(BaseDataset):
    """Images held in memory: for tests, notebooks and small sets.

    Args:
        images: ``(N, 3, H, W)`` uint8, or float in [0, 1].
        labels: ``(N,)`` integers, or None for images without labels.
        classes: class names; ``"0", "1", ...`` when labels are given without names.
        masks: ``(N, H, W)`` foreground masks, or None.
        ids: one unique name per image; positions by default.
        fields: further columns.
        name: shown in tables.

    Raises:
        InputError: pixels are no such numbers, labels are no positions in ``classes``, or lengths differ.
    """

    def __init__(
        self,
        images: Tensor | np.ndarray,
        labels: Sequence[int] | np.ndarray | Tensor | None = None,
        classes: Sequence[str] | None = None,
        *,
        masks: Tensor | np.ndarray | None = None,
        ids: Sequence[str] | None = None,
        fields: Mapping[str, np.ndarray] | None = None,
        name: str = "memory",
    ) -> None:
        import torch

        pixels = torch.as_tensor(images)
        if pixels.ndim != 4 or pixels.shape[1] != 3:
            raise InputError(f"images must be (N, 3, H, W), not {tuple(pixels.shape)}")
        n = len(pixels)
        self._images = bytes_of(pixels)
        self._masks = None if masks is None else masks_of(torch.as_tensor(masks), n)
        self.labels = np.full(n, -1, np.int64) if labels is None else whole_numbers(labels)
        if classes is None and labels is not None:
            classes = [str(i) for i in range(int(self.labels.max(initial=-1)) + 1)]
        self.name = name
        self.ids = [f"{i:08d}" for i in range(n)] if ids is None else list(ids)
        if len(set(self.ids)) != n or len(self.labels) != n:
            raise InputError(f"{n} images need {n} labels and {n} different ids")
        self.classes = None if classes is None else tuple(classes)
        check_labels(name, self.labels, self.classes)
        self.fields = dict(fields or {})
        if short := [field for field, values in self.fields.items() if len(values) != n]:
            raise InputError(f"the field {short[0]!r} has {len(self.fields[short[0]])} values for {n} images")
        self.has_masks = masks is not None
        pixels = self._images.numpy(), None if self._masks is None else self._masks.numpy()
        fields_in_order = [part for field in sorted(self.fields) for part in (field, list(self.fields[field]))]
        first = "memory", list(self.ids), self.labels, *pixels
        self.fingerprint = fingerprint(*first, list(self.classes or ()), *fields_in_order)
        self.earlier_fingerprint = "" if self.fields else fingerprint(*first)

    def read(self, index: int) -> Tensor:
        """Return image ``index``, ``(3, H, W)`` uint8."""
        return self._images[index]

    def read_mask(self, index: int) -> Tensor:
        """Return the mask of image ``index``, ``(H, W)`` uint8."""
        return super().read_mask(index) if self._masks is None else self._masks[index]
