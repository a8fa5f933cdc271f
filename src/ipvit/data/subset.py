"""Which images a limited run uses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ipvit.data.dataset import BaseDataset, Dataset, fingerprint
from ipvit.perturb.seeding import keys

if TYPE_CHECKING:
    from torch import Tensor


def subset_indices(data: Dataset, limit: int | None) -> np.ndarray:
    """Return the positions of the images that ``--limit`` stands for, in their order; all where ``limit`` is None.

    These are ``limit`` randomly chosen images, always the same ones, see :func:`select`. Where the data has several
    versions of each photo, ``limit`` counts photos, and all versions of a photo are among them.
    """
    own = None if limit is None else data.choose(limit)
    return select(data.ids, limit) if own is None else own


def select(ids: Sequence[str], limit: int | None) -> np.ndarray:
    """Return the positions of ``limit`` images in their order; all where ``limit`` is None or too large.

    The choice is random but fixed: it depends on the ids alone, and the images of a smaller limit are among those of a
    larger one, so that raising the limit only adds images. The first images would not do: class folders are sorted.
    """
    if limit is None or limit >= len(ids):
        return np.arange(len(ids))
    rank = np.argsort(image_keys(ids), kind="stable")
    return np.sort(rank[:limit])


def image_keys(ids: Sequence[str], parts: int = 0) -> np.ndarray:
    """Return by what images are chosen, ``(len(ids),)`` uint64: a limit takes those of the smallest keys.

    Args:
        ids: of the images.
        parts: how many leading parts of an id, divided by ``/``, do not count.
    """
    return keys([name.split("/", parts)[-1] for name in ids] if parts else ids, "limit")


class Subset(BaseDataset):
    """Some images of a data set, which keep their ids, labels and columns.

    The fingerprint stays that of the whole set: an image is the same whichever others are used.

    Args:
        data: the whole set.
        chosen: positions of the images.
    """

    def __init__(self, data: Dataset, chosen: np.ndarray) -> None:
        self._data, self._chosen = data, chosen
        self.name, self.fingerprint = data.name, data.fingerprint
        self.earlier_fingerprint = getattr(data, "earlier_fingerprint", "")
        self.classes, self.aliases = data.classes, data.aliases
        self.has_masks, self.void = data.has_masks, data.void
        self.decoder, self.sequential = data.decoder, data.sequential
        self.ids = [data.ids[int(index)] for index in chosen]
        self.labels = np.asarray(data.labels)[chosen]
        self.fields = {name: column[chosen] for name, column in data.fields.items()}
        self.answers, self.aggregate = getattr(data, "answers", "all"), getattr(data, "aggregate", "")
        sets = getattr(data, "label_sets", None)
        self.label_sets = None if sets is None else [sets[int(index)] for index in chosen]
        self.notes = tuple(getattr(data, "notes", ()))

    def read(self, index: int) -> Tensor:
        """Decode one image: ``(3, H, W)`` uint8."""
        return self._data.read(int(self._chosen[index]))

    def read_mask(self, index: int) -> Tensor:
        """Decode one image's mask."""
        return self._data.read_mask(int(self._chosen[index]))


class Relabelled(Subset):
    """Images of a data set under other labels, which a subclass gives them.

    Args:
        name: of the data.
        data: whose images they are.
        chosen: positions of the images.
        about: what determines the labels beside the images.
    """

    def __init__(self, name: str, data: Dataset, chosen: np.ndarray, *about: object) -> None:
        super().__init__(data, chosen)
        self.name, self._about = name, about
        self.aliases, self.label_sets = None, None
        self.fingerprint, self.earlier_fingerprint = self._relabelled(data.fingerprint), ""

    def fingerprint_of_all_bytes(self) -> str:
        """Return a fingerprint that notices every change of every file."""
        whole = getattr(self._data, "fingerprint_of_all_bytes", None)
        return self.fingerprint if whole is None else self._relabelled(whole())

    def _relabelled(self, images: str) -> str:
        """Return the fingerprint, under the images' scheme."""
        scheme, mark, _ = images.rpartition(":")
        return scheme + mark + fingerprint("relabelled", *self._about, images)
