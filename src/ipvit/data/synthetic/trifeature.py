"""The procedural set: shapes x textures x colours, drawn from a seed.

One object on a textured background, after the Trifeature set of Hermann & Lampinen (NeurIPS 2020): shape, texture and
colour are independent factors, so a split can make shape and texture agree, disagree or be unrelated. It stands in for
ImageNet, Stylized ImageNet and the cue-conflict images wherever a run must be small and offline.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from ipvit.data.dataset import BaseDataset, fingerprint
from ipvit.data.synthetic.trifeature_drawing import COLOURS, SHAPES, TEXTURES, Scene, draw, draw_mask, random_scene
from ipvit.errors import InputError, did_you_mean
from ipvit.perturb import seeding

Split = Literal["natural", "texture-random", "cue-conflict"]
Subset = Literal["train", "val"]

SHAPE_NAMES = tuple(SHAPES)
TEXTURE_NAMES = tuple(TEXTURES)
COLOUR_NAMES = tuple(COLOURS)

_PREFIX = "demo:trifeature"
_DEFAULT_N = {"train": 20_000, "val": 1_000}
# Part of the fingerprint: raise it whenever the drawing changes.
_DRAWING_VERSION = 1


class Trifeature(BaseDataset):
    """Drawn pictures of one object each; the label is the object's shape.

    Image ``i`` is a function of (seed, split, subset, i) alone, and shows the same scene at every ``size``. Colour and
    background are independent of the class. Every prefix of the set has balanced classes (to within one image).

    Args:
        split: ``natural``: shape ``k`` always carries texture ``k``, either one gives the label. ``texture-random``:
            the texture says nothing about the label, as in Stylized ImageNet. ``cue-conflict``: shape ``k`` carries
            a texture ``j != k``.
        subset: ``train`` or ``val``; they share no picture.
        n: number of images; 20,000 for ``train`` and 1,000 for ``val`` by default.
        size: height and width in pixels.
        seed: another seed is another set.

    Attributes:
        fields: ``shape``, ``texture`` and ``colour``, ``(N,)`` int64 each: positions in ``SHAPE_NAMES``,
            ``TEXTURE_NAMES`` and ``COLOUR_NAMES``. Texture ``k`` is the one that class ``k`` carries in ``natural``.

    >>> data = Trifeature("cue-conflict", n=10)
    >>> data.read(3).shape, bool((data.fields["texture"] != data.labels).all())
    (torch.Size([3, 64, 64]), True)
    """

    def __init__(
        self,
        split: Split = "natural",
        subset: Subset = "val",
        n: int | None = None,
        size: int = 64,
        seed: int = 0,
    ) -> None:
        for value, known in ((split, get_args(Split)), (subset, get_args(Subset))):
            if value not in known:
                raise InputError(f"trifeature has no {value!r}; it has {', '.join(known)}.{did_you_mean(value, known)}")
        n = _DEFAULT_N[subset] if n is None else n
        if n < 1 or size < 8:
            raise InputError(f"trifeature needs at least 1 image of at least 8 pixels, not n={n}, size={size}")
        self.split, self.subset, self.size, self.seed = split, subset, size, seed
        self.name = _PREFIX if (split, subset) == ("natural", "val") else f"{_PREFIX}/{split}"
        if subset == "train":
            self.name += "-train"
        self.ids = [f"{split}/{subset}/{i:06d}" for i in range(n)]
        self._keys = seeding.keys(self.ids, "trifeature", seed)
        self.labels = _balanced(n, seed, split, subset)
        self.classes = SHAPE_NAMES
        self.fields = {
            "shape": self.labels,
            "texture": _textures(self.labels, split),
            "colour": (seeding.random_words(self._keys, 1)[:, 0] % len(COLOUR_NAMES)).astype(np.int64),
        }
        self.has_masks = True
        self.fingerprint = fingerprint("trifeature", _DRAWING_VERSION, split, subset, n, size, seed)

    def read(self, index: int) -> Tensor:
        """Draw image ``index``: ``(3, size, size)`` uint8."""
        shape, texture = SHAPE_NAMES[self.labels[index]], TEXTURE_NAMES[self.fields["texture"][index]]
        return torch.from_numpy(draw(self._scene(index), shape, texture, self.size))

    def read_mask(self, index: int) -> Tensor:
        """Draw the mask of image ``index``: ``(size, size)`` uint8, 1 where the object covers half the pixel."""
        cover = draw_mask(self._scene(index), SHAPE_NAMES[self.labels[index]], self.size)
        return torch.from_numpy((cover >= 0.5).astype(np.uint8))

    def _scene(self, index: int) -> Scene:
        return random_scene(seeding.generator(self._keys[index]), int(self.fields["colour"][index]))


def parse(name: str, size: int = 64) -> Trifeature:
    """Return the set of that name: ``demo:trifeature``, with ``/SPLIT`` or ``/SPLIT-train`` behind it.

    Args:
        name: of the set; ``demo:trifeature`` alone is the validation subset of ``natural``.
        size: height and width of its images in pixels.

    Raises:
        InputError: for any other name.

    >>> len(parse("demo:trifeature/natural-train"))
    20000
    """
    known: dict[str, tuple[Split, Subset]] = {_PREFIX: ("natural", "val")}
    for split in get_args(Split):
        known[f"{_PREFIX}/{split}"] = (split, "val")
        known[f"{_PREFIX}/{split}-train"] = (split, "train")
    if name not in known:
        raise InputError(f"no data set is named {name!r}; known: {', '.join(known)}.{did_you_mean(name, known)}")
    return Trifeature(*known[name], size=size)


def _balanced(n: int, seed: int, split: str, subset: str) -> np.ndarray:
    """Return labels in which every run of ten from a multiple of ten on is a permutation of the classes."""
    blocks = [f"{split}/{subset}/{block}" for block in range(-(-n // len(SHAPE_NAMES)))]
    order = seeding.random_order(seeding.keys(blocks, "trifeature labels", seed), len(SHAPE_NAMES))
    return order.reshape(-1)[:n].astype(np.int64)


def _textures(labels: np.ndarray, split: str) -> np.ndarray:
    """Return one texture class per image; over ten blocks (nine in cue conflict) every allowed pair comes up once."""
    n = len(SHAPE_NAMES)
    block = np.arange(len(labels)) // n
    offset = {"natural": 0 * block, "texture-random": block % n, "cue-conflict": 1 + block % (n - 1)}[split]
    return (labels + offset) % n
