"""What every data set offers: ids, labels and decoded pictures by position."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

Decoder = Literal["fast", "pil"]
"""What reads image files: torchvision where it can, or Pillow alone."""


class UnreadableImage(Exception):
    """One image cannot be used (truncated, empty, not an image, too large); the text says why."""


@runtime_checkable
class Dataset(Protocol):
    """Pictures with labels, in a fixed order.

    Attributes:
        name: what the user asked for, for tables and messages.
        ids: one unique, stable name per image, for example its path below the data set's root.
        labels: ``(N,)`` int64, the position of each image's class in ``classes``; -1 where there is none.
        classes: names of the classes, or None where the data has no labels.
        aliases: a second name per class (same length as ``classes``), or None.
        fields: further columns per image, for example the texture label of a cue-conflict image.
        fingerprint: digest of what determines the images and labels.
        has_masks: whether :meth:`read_mask` works.

    A data set whose masks have pixels that count for nothing says so with a further attribute ``void``: their number.
    """

    name: str
    ids: Sequence[str]
    labels: np.ndarray
    classes: tuple[str, ...] | None
    aliases: tuple[str, ...] | None
    fields: Mapping[str, np.ndarray]
    fingerprint: str
    has_masks: bool

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def read(self, index: int) -> Tensor:
        """Decode one image: ``(3, H, W)`` uint8, its own size; raises :class:`UnreadableImage`."""
        ...

    def read_mask(self, index: int) -> Tensor:
        """Decode one image's mask: ``(H, W)`` uint8 in the proportions of the image, or two of them, ``(2, H, W)``.

        0 is background; other numbers tell objects apart. Of two, the first numbers classes, the second instances.
        """
        ...


def fingerprint(*parts: object) -> str:
    """Return a digest (32 hex digits) of the ``repr`` of the parts, in their order; arrays count by their bytes."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(part.tobytes())
        elif isinstance(part, list | tuple):
            for item in part:
                digest.update(repr(item).encode("utf-8", "surrogatepass") + b"\0")
        else:
            digest.update(repr(part).encode("utf-8", "surrogatepass"))
        digest.update(b"\1")
    return digest.hexdigest()[:32]


class MemoryDataset:
    """Images held in memory: for tests, notebooks and small sets.

    Args:
        images: ``(N, 3, H, W)`` uint8, or float in [0, 1].
        labels: ``(N,)`` integers, or None for images without labels.
        classes: class names; ``"0", "1", ...`` when labels are given without names.
        masks: ``(N, H, W)`` foreground masks, or None.
        ids: one unique name per image; positions by default.
        fields: further columns.
        name: shown in tables.
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
            raise ValueError(f"images must be (N, 3, H, W), not {tuple(pixels.shape)}")
        if pixels.is_floating_point():
            from ipvit.perturb.pixels import as_bytes

            pixels = as_bytes(pixels)
        n = len(pixels)
        self._images = pixels
        self._masks = None if masks is None else torch.as_tensor(masks).to(torch.uint8)
        self.labels = np.full(n, -1, np.int64) if labels is None else np.asarray(labels, dtype=np.int64)
        if classes is None and labels is not None:
            classes = [str(i) for i in range(int(self.labels.max(initial=-1)) + 1)]
        self.name = name
        self.ids = [f"{i:08d}" for i in range(n)] if ids is None else list(ids)
        if len(set(self.ids)) != n or len(self.labels) != n:
            raise ValueError(f"{n} images need {n} labels and {n} different ids")
        self.classes = None if classes is None else tuple(classes)
        self.aliases: tuple[str, ...] | None = None
        self.fields: Mapping[str, np.ndarray] = dict(fields or {})
        self.has_masks = masks is not None
        self.fingerprint = fingerprint(
            "memory",
            list(self.ids),
            self.labels,
            self._images.numpy(),
            None if self._masks is None else self._masks.numpy(),
        )

    def __len__(self) -> int:
        return len(self._images)

    def read(self, index: int) -> Tensor:
        """Return image ``index``, ``(3, H, W)`` uint8."""
        return self._images[index]

    def read_mask(self, index: int) -> Tensor:
        """Return the mask of image ``index``, ``(H, W)`` uint8."""
        if self._masks is None:
            raise ValueError(f"{self.name} has no masks")
        return self._masks[index]
