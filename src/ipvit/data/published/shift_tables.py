"""Natural shifts of ImageNet that lie in tables: ``imagenet-a:hfds/owner/name``.

A table has the images and a column of labels; the word before the colon says which set it is, and with that among which
answers networks choose. Which class a label is, is never guessed where two readings are possible.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ipvit.data.published.imagenet_lists import synsets
from ipvit.data.published.shift_facts import REAL_SUFFIX, V2_VARIANTS
from ipvit.data.subset import Relabelled
from ipvit.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from ipvit.data.dataset import Dataset

_WHICH: Mapping[str, tuple[str, str]] = {
    "imagenet-v2": ("", "all"),
    "imagenet-sketch": ("", "all"),
    "imagenet-a": ("a", "data"),
    "imagenet-r": ("r", "data"),
    "imagenet-a-clean": ("a", "data"),
    "imagenet-r-clean": ("r", "data"),
}
"""Of each set, which list its classes are in, and among which answers networks choose."""

_REAL = "imagenet-real"

IN_TABLES = (*_WHICH, _REAL)
"""The sets that may lie in a table; ObjectNet is read with the files of its own distribution only."""


class TableOfShift(Relabelled):
    """The images of a table under the classes of a published set.

    Args:
        name: of the data.
        data: the table.
        classes: of the set, WordNet ids.
        class_of: for each class of the table its number among them; -1 for another class, whose images are left out.
        answers: among which answers networks choose.
        note: how the labels were read, in a sentence; empty where they are the classes' names.
    """

    def __init__(
        self, name: str, data: Dataset, classes: Sequence[str], class_of: np.ndarray, answers: str, note: str
    ) -> None:
        labels = np.asarray(data.labels)
        found = np.where(labels < 0, -1, class_of[labels.clip(min=0)])
        chosen = np.flatnonzero((labels < 0) | (found >= 0))
        super().__init__(name, data, chosen, list(classes), class_of)
        self.classes, self.answers, self.labels = tuple(classes), answers, found[chosen]
        self.notes = (*self.notes, *([note] if note else []))


class RealTable(Relabelled):
    """The images of a table whose column of labels holds lists: ReaL's several right classes of an image, or none."""

    def __init__(self, name: str, data: Dataset, outputs: Sequence[int], note: str) -> None:
        sets = getattr(data, "label_sets", None)
        assert sets is not None
        super().__init__(name, data, np.arange(len(data)), "ReaL", list(outputs))
        self.label_sets = [tuple(outputs[label] for label in labels) for labels in sets]
        self.labels = np.array([labels[0] if labels else -1 for labels in self.label_sets], dtype=np.int64)
        self.classes = synsets()
        self.notes = (*self.notes, *([note] if note else []))


def split_variant(scheme: str, place: str) -> tuple[str, str]:
    """Return the name of a table without ``?variant=...``, and the variant of ImageNet-V2 that it names, if any.

    Raises:
        InputError: there is no such variant, or only V2 has some.
    """
    name, mark, query = place.partition("?")
    parts = query.split("&") if mark else []
    stated = [part.removeprefix("variant=") for part in parts if part.startswith("variant=")]
    rest = "&".join(part for part in parts if not part.startswith("variant="))
    if stated and (scheme != "imagenet-v2" or stated[0] not in V2_VARIANTS):
        known = f"there are {', '.join(V2_VARIANTS)}.{did_you_mean(stated[0], V2_VARIANTS)}"
        raise InputError(f"{scheme}: unknown variant {stated[0]!r}; of imagenet-v2 {known}")
    return name + (f"?{rest}" if rest else ""), stated[0] if stated else ""


def as_shift(scheme: str, data: Dataset, variant: str = "") -> Dataset:
    """Return a table as the published set that it is.

    Args:
        scheme: one of :data:`IN_TABLES`.
        data: the table: its classes are WordNet ids or numbers.
        variant: of ImageNet-V2.

    Raises:
        InputError: labels are none of the set's classes, or could be read in two ways.
    """
    name = f"{scheme}:{data.name}" + (f"/{variant}" if variant else "")
    if data.classes is None:
        raise InputError(f"{name} has no labels; name their column: {data.name}?label=COLUMN")
    several = getattr(data, "label_sets", None)
    if (scheme == _REAL) != (several is not None):
        kind = "lists of classes, several or none an image" if scheme == _REAL else "one class an image"
        raise InputError(f"{name}: the column of labels must hold {kind}; name another one with ?label=COLUMN")
    labels = data.labels if several is None else [one for some in several for one in some]
    used = np.unique(np.asarray(labels, dtype=np.int64))
    used = used[used >= 0]
    if scheme == _REAL:
        outputs, note = _numbers(name, data.classes, used, synsets(), others=False)
        return RealTable(f"{name}{REAL_SUFFIX}", data, outputs.tolist(), note)
    which, answers = _WHICH[scheme]
    class_of, note = _numbers(name, data.classes, used, synsets(which), others=scheme.endswith("-clean"))
    found = TableOfShift(name, data, synsets(which), class_of, answers, note)
    there = set(found.labels.tolist())
    missing = [one for place, one in enumerate(synsets(which)) if place not in there]
    if scheme.endswith("-clean") and missing:
        raise InputError(f"{name}: {len(missing)} of its 200 classes are not there, such as {missing[0]}")
    return found


def _numbers(
    name: str, names: Sequence[str], used: np.ndarray, wanted: Sequence[str], *, others: bool
) -> tuple[np.ndarray, str]:
    """Return for each label of a table the number of the wanted class that it is, or -1, and how labels were read.

    Args:
        name: of the data.
        names: of the labels: WordNet ids, or numbers.
        used: labels that images have.
        wanted: WordNet ids of the classes.
        others: images of other classes are left out, instead of refused.
    """
    place = {synset: number for number, synset in enumerate(wanted)}
    ids, note = list(names), ""
    if all(one.isdecimal() for one in names):
        ids, note = _of_numbers(name, [int(one) for one in names], used, wanted, others=others)
    elif strange := next((one for one in names if one not in set(synsets())), ""):
        raise InputError(
            f"{name}: the label {strange!r} is no WordNet id of ImageNet's classes; --classes takes a file of these, a "
            "line for each label"
        )
    found = np.array([place.get(one, -1) for one in ids], dtype=np.int64)
    wrong = [ids[label] for label in used if found[label] < 0]
    if wrong and not others:
        raise InputError(f"{name}: the class {wrong[0]} is none of its {len(wanted)} classes")
    return found, note


def _of_numbers(
    name: str, numbers: Sequence[int], used: np.ndarray, wanted: Sequence[str], *, others: bool
) -> tuple[list[str], str]:
    """Return the WordNet id of each number, of the set's own classes or of ImageNet's outputs, and which it was.

    Raises:
        InputError: the numbers are neither, or could be both.
    """
    own, outputs, there = list(wanted), list(synsets()), {numbers[label] for label in used}
    of_output = there <= {outputs.index(one) for one in own} or (others and there <= set(range(len(outputs))))
    of_own = not others and there <= set(range(len(own)))
    if of_own and (not of_output or there == set(range(len(own))) or own == outputs):
        chosen, words = own, f"its {len(own):,} classes in the order of their WordNet ids"
    elif of_output and not of_own:
        chosen, words = outputs, "ImageNet's outputs"
    else:
        raise InputError(
            f"{name}: its labels are numbers, {min(there, default=0)} to {max(there, default=0)}, and nothing says of "
            "which classes; --classes takes a file of WordNet ids, a line for each label, or imagenet-1k"
        )
    ids = [chosen[number] if number < len(chosen) else "" for number in numbers]
    return ids, f"{name}: labels are numbers, taken for {words}."
