"""What is odd about a picture or its mask though it can be read: counted over the data, and told in a note."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

CONSTANT, BLACK, NO_OBJECT, ALL_OBJECT = "constant", "black", "no object", "all object"

_BLACK = 15
"""Grey levels up to which all is as good as black: 12 bits in a file of 16 end there."""

_STRAY = 1000
"""One value in so many may be brighter in a picture that is called black."""

_STEP = 7  # pixels between those that are looked at first

_WORDS = {
    CONSTANT: "one colour all over",
    BLACK: f"nearly black, with no more than {_BLACK} of 255 grey levels",
    NO_OBJECT: "without any object by their masks",
    ALL_OBJECT: "object all over by their masks",
}
_MEANS = {
    CONSTANT: "nothing can be recognised there; is that the file, or a format that reads as black?",
    BLACK: "little can be seen there; are these masks or numbers of classes, or a range that the file overstates?",
    NO_OBJECT: "they have no Jaccard index and nothing salient; are the masks of these images, and not black?",
    ALL_OBJECT: "a mask of the whole image is right there, and all is salient; is the background 0 in the masks?",
}


def of_picture(pixels: Tensor) -> list[str]:
    """Return what is odd about a picture, ``(3, H, W)`` uint8."""
    if is_constant(pixels):
        return [CONSTANT]
    return [BLACK] if _is_black(pixels) else []


def of_mask(mask: Tensor, void: int) -> list[str]:
    """Return what is odd about a mask, ``(K, H, W)`` uint8: 0 is background, ``void`` neither."""
    foreground = mask[0][mask[0] != void] > 0
    if bool(foreground.any()):
        return [ALL_OBJECT] if bool(foreground.all()) else []
    return [NO_OBJECT]


def notes(name: str, remarks: Mapping[str, Collection[str]]) -> list[str]:
    """Return what a reader should know of the images of some data, given the ids under each remark."""
    return [
        f"{len(ids):,} {'image is' if len(ids) == 1 else 'images are'} {words} in {name}, for example {min(ids)!r}: "
        + _MEANS[remark]
        for remark, words in _WORDS.items()
        if (ids := remarks.get(remark))
    ]


def is_constant(pixels: Tensor) -> bool:
    """Tell whether a picture ``(3, H, W)`` is one colour all over: nothing can be recognised in it."""
    first = pixels[:, :1, :1]
    corner = pixels[:, -1:, -1:]
    return bool((first == corner).all()) and bool((pixels == first).all())  # most pictures end at the first question


def _is_black(pixels: Tensor) -> bool:
    sample = pixels[:, ::_STEP, ::_STEP] > _BLACK  # most pictures end at the first question
    if 10 * int(torch.count_nonzero(sample)) > sample.numel():
        return False
    return int(torch.count_nonzero(pixels > _BLACK)) * _STRAY <= pixels.numel()
