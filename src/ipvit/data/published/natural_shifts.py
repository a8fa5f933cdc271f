"""Natural shifts of ImageNet in the layouts of their authors: V2, A, R, Sketch and ObjectNet, and A's and R's classes.

Each knows among which answers its authors let a network choose: all of ImageNet's for V2 and Sketch, its own classes
for A, R and ObjectNet.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ipvit.core.files import user_path
from ipvit.data.dataset import Dataset, Decoder, Fingerprint, InPython, UnreadableImageError, fingerprint
from ipvit.data.formats.folder import FolderDataset
from ipvit.data.formats.image_files import LeftOut
from ipvit.data.formats.listing import Listing
from ipvit.data.published.imagenet_lists import synsets
from ipvit.data.published.shift_facts import SOURCES, V2_VARIANTS
from ipvit.data.subset import Relabelled
from ipvit.errors import InputError

_BORDER = 2
"""Pixels of the red border round ObjectNet's images, which are not to be shown."""

_MAPPINGS = (
    "folder_to_objectnet_label.json",
    "objectnet_to_imagenet_1k.json",
    "pytorch_to_imagenet_2012_id.json",
    "imagenet_to_label_2012_v2",
)


class ShiftDataset(FolderDataset):
    """Class folders whose names are mapped to published classes.

    Args:
        name: of the data.
        root: the folder with the class folders.
        classes: names of the classes; ImageNet's WordNet ids, or others with aliases.
        folders: the class of each folder by its name.
        decoder: ``fast`` or ``pil``.
        aliases: second names.
        answers: among which answers the authors let a network choose: ``all``, or those of the ``data``.
        aggregate: what counts of several outputs of one class, ``max``; empty where each class is one.
        border: pixels that are cut off on each side.
        others: leave out images in other folders, instead of refusing them.

    Raises:
        InputError: there is no image, or a folder is none of the classes.
    """

    def __init__(
        self,
        name: str,
        root: Path,
        classes: Sequence[str],
        folders: Mapping[str, int],
        decoder: Decoder,
        *,
        aliases: Sequence[str] | None = None,
        answers: str = "all",
        aggregate: str = "",
        border: int = 0,
        others: bool = False,
    ) -> None:
        self._folders, self._border, self._others = folders, border, others
        super().__init__(root, decoder)
        self.name, self.answers, self.aggregate = name, answers, aggregate
        self.classes, self.aliases = tuple(classes), None if aliases is None else tuple(aliases)
        owners = [path.split("/", 1)[0] if "/" in path else "" for path in self.ids]
        if strange := next((owner for owner in owners if owner not in folders), None):
            raise InputError(f"{name}: the folder {strange!r} in {str(root)!r} is none of its {len(classes)} classes")
        self.labels = np.array([folders.get(owner, -1) for owner in owners], dtype=np.int64)
        self._by_folder = self.labels, list(self.classes)
        self._identify()
        self.earlier_fingerprint = ""

    def read(self, index: int) -> Tensor:
        """Decode image ``index`` without its border: ``(3, H, W)`` uint8."""
        pixels = super().read(index)
        if not self._border:
            return pixels
        inner = pixels[:, self._border : -self._border, self._border : -self._border]
        if inner.numel() == 0:
            raise UnreadableImageError("nothing is left of it without its border")
        return inner.contiguous()

    def _files(self, left_out: LeftOut) -> Listing:
        found = super()._files(left_out)
        return found.of_folders(self._folders) if self._others else found

    def _digest(self, sums: np.ndarray | InPython, begun: Fingerprint) -> str:
        return fingerprint("natural shift", super()._digest(sums, begun), self._border, list(self.aliases or ()))


class ClassSubset(Relabelled):
    """The images of some classes, under other numbers.

    Args:
        name: of the data.
        data: whose images they are.
        classes: which of its classes, in their new order.
        answers: among which answers a network chooses.
    """

    def __init__(self, name: str, data: Dataset, classes: Sequence[str], answers: str) -> None:
        place = {known: number for number, known in enumerate(data.classes or ())}
        if missing := [known for known in classes if known not in place]:
            raise InputError(
                f"{name}: {len(missing)} of its {len(classes)} classes are not there, such as {missing[0]}"
            )
        number = np.full(len(place), -1, dtype=np.int64)
        number[[place[known] for known in classes]] = np.arange(len(classes))
        labels = np.asarray(data.labels)
        chosen = np.flatnonzero((labels >= 0) & (number[labels.clip(min=0)] >= 0))
        super().__init__(name, data, chosen, list(classes))
        self.classes, self.answers = tuple(classes), answers
        self.labels = number[labels[chosen]]


def _open_v2(place: str, _split: str, decoder: Decoder) -> Dataset:
    path, numbers = user_path(place), {str(number): number for number in range(1000)}
    folders = numbers | {synset: number for number, synset in enumerate(synsets())}
    wanted = path.name if path.name in V2_VARIANTS and not path.is_dir() else ""
    root = path.parent if wanted else path
    _there("imagenet-v2", root)
    named = {folder: variant for variant, folder in V2_VARIANTS.items()}
    if not wanted and (root / "0").is_dir():
        variant = named.get(root.name, "")
        return ShiftDataset(
            f"imagenet-v2:{place}" + (f"/{variant}" if variant else ""), root, synsets(), folders, decoder
        )
    variants = [variant for variant, folder in V2_VARIANTS.items() if (root / folder).is_dir()]
    if wanted not in ("", *variants) or not variants:
        lacking = V2_VARIANTS[wanted or "matched-frequency"]
        raise InputError(f"{str(root)!r} holds no ImageNet-V2: there is no folder {lacking}")
    variant = wanted or variants[0]
    name = f"imagenet-v2:{root.as_posix()}/{variant}"
    data = ShiftDataset(name, root / V2_VARIANTS[variant], synsets(), folders, decoder)
    if not wanted and len(variants) > 1:
        others = ", ".join(variants[1:])
        data.notes = (*data.notes, f"{place} holds several variants of ImageNet-V2: {variant}, and not {others}.")
    return data


def _open_of_classes(scheme: str, inner: str, which: str, answers: str) -> Callable[[str, str, Decoder], Dataset]:
    """Return what opens a set of class folders named by WordNet ids, in a folder or one below it."""

    def open_set(place: str, _split: str, decoder: Decoder) -> Dataset:
        root = user_path(place)
        _there(scheme, root)
        root = root / inner if (root / inner).is_dir() else root
        classes = synsets(which)
        folders = {synset: number for number, synset in enumerate(classes)}
        return ShiftDataset(f"{scheme}:{place}", root, classes, folders, decoder, answers=answers)

    return open_set


def _open_clean(scheme: str, which: str) -> Callable[[str, str, Decoder], Dataset]:
    """Return what opens the images of ImageNet's validation set that are of the 200 classes."""

    def open_set(place: str, _split: str, decoder: Decoder) -> Dataset:
        return ClassSubset(f"{scheme}:{place}", _validation(place, decoder), synsets(which), "data")

    return open_set


def _open_real(place: str, _split: str, decoder: Decoder) -> Dataset:
    """Open ImageNet's validation images with ReaL's labels."""
    from ipvit.data.published.real import RealLabels

    return RealLabels(_validation(place, decoder))


def _validation(place: str, decoder: Decoder) -> Dataset:
    """Open ImageNet's validation images: class folders, or what ``imagenet:`` takes."""
    from ipvit.data import published

    root = user_path(place)
    plain = root.is_dir() and any((root / synset).is_dir() for synset in synsets())
    return FolderDataset(root, decoder) if plain else published.open_set("imagenet", place, None, decoder)


def _open_objectnet(place: str, _split: str, decoder: Decoder) -> Dataset:
    root = user_path(place)
    _there("objectnet", root)
    root = next((base for base in (root, root / "objectnet-1.0") if (base / "mappings").is_dir()), root)
    outputs = _objectnet_outputs(root / "mappings")
    images = root / "images"
    if not images.is_dir():
        raise InputError(f"{str(root)!r} holds no ObjectNet: there is no folder images")
    data = ShiftDataset(
        f"objectnet:{place}",
        images,
        list(outputs),
        {folder: number for number, folder in enumerate(outputs)},
        decoder,
        aliases=[",".join(synsets()[output] for output in numbers) for numbers in outputs.values()],
        answers="data",
        aggregate="max",
        border=_BORDER,
        others=True,
    )
    inside = sum(1 for folder in images.iterdir() if folder.is_dir() and folder.name not in outputs)
    if inside:
        data.notes = (*data.notes, f"{place}: the images of {inside} classes that ImageNet does not have are left out.")
    return data


def _objectnet_outputs(mappings: Path) -> dict[str, tuple[int, ...]]:
    """Return ImageNet's outputs for each folder of ObjectNet that has some, as its distribution's files state them."""
    content: dict[str, Any] = {}
    for name in _MAPPINGS:
        try:
            text = (mappings / name).read_text("utf-8")
            content[name] = json.loads(text) if name.endswith(".json") else text.split("\n")
        except FileNotFoundError:
            raise InputError(f"{str(mappings.parent)!r} holds no ObjectNet: there is no mappings/{name}") from None
        except (OSError, ValueError) as error:
            raise InputError(f"{str(mappings / name)!r} cannot be read: {error}") from None
    labels, to_imagenet, numbers, names = (content[name] for name in _MAPPINGS)
    try:
        output = {identifier: int(number) for number, identifier in numbers.items()}
        of_name = {name.strip(): output[row] for row, name in enumerate(names) if name.strip()}
        folder = {label: name for name, label in labels.items()}
        found = {folder[label]: tuple(of_name[one] for one in text.split("; ")) for label, text in to_imagenet.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{str(mappings)!r}: the mappings do not fit each other: {error!r}") from None
    return dict(sorted(found.items()))


def _there(scheme: str, root: Path) -> None:
    if not root.is_dir():
        raise InputError(f"there is no folder {str(root)!r}; {scheme} is to be had from {SOURCES[scheme]}")


SHIFTS: Mapping[str, Callable[[str, str, Decoder], Dataset]] = {
    "imagenet-v2": _open_v2,
    "imagenet-a": _open_of_classes("imagenet-a", "imagenet-a", "a", "data"),
    "imagenet-r": _open_of_classes("imagenet-r", "imagenet-r", "r", "data"),
    "imagenet-sketch": _open_of_classes("imagenet-sketch", "sketch", "", "all"),
    "imagenet-a-clean": _open_clean("imagenet-a-clean", "a"),
    "imagenet-r-clean": _open_clean("imagenet-r-clean", "r"),
    "imagenet-real": _open_real,
    "objectnet": _open_objectnet,
}
"""What opens each set from its folder."""
