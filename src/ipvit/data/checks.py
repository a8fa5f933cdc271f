"""What images and labels that are handed over must be, and what is said of others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ipvit.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from ipvit.data.dataset import Items


def check_labels(name: str, labels: np.ndarray, classes: Sequence[str] | None) -> None:
    """Refuse labels that are no positions in ``classes``, or below -1, which stands for no class.

    Raises:
        InputError: names the first of them and what labels may be.
    """
    labels = np.asarray(labels)
    wrong = labels < -1 if classes is None else (labels < -1) | (labels >= len(classes))
    if not wrong.any():
        return
    first = int(np.flatnonzero(wrong)[0])
    known = "positions of classes" if classes is None else f"0 to {len(classes) - 1}, one of {len(classes)} classes"
    hint = "; do they count from 1?" if classes is not None and set(labels[wrong].tolist()) == {len(classes)} else ""
    raise InputError(
        f"the data {name}: image {first} has the label {labels[first]}; labels are {known}, or -1 for none "
        f"({int(wrong.sum())} labels are neither){hint}"
    )


def check_one_label(data: Items) -> None:
    """Refuse images with several labels where one counts: the first of them would be taken for the only one.

    Raises:
        InputError: they have.
    """
    if getattr(data, "label_sets", None) is not None:
        raise InputError(f"the images of {data.name} have several labels, or none, where one an image is needed")


def whole_numbers(labels: Sequence[int] | np.ndarray | Tensor) -> np.ndarray:
    """Return labels as int64; what is no whole number is refused instead of cut."""
    found = np.asarray(labels)
    try:
        with np.errstate(invalid="ignore"):  # of NaN, which is refused below
            whole = found.astype(np.int64)
    except (TypeError, ValueError):
        raise InputError(f"labels must be whole numbers, not {found.dtype}") from None
    if found.dtype.kind not in "iu" and not (found == whole).all():
        raise InputError(f"labels must be whole numbers; {found[found != whole][0]} is none")
    return whole


def masks_of(masks: Tensor, n: int) -> Tensor:
    """Return masks ``(N, H, W)`` as uint8: whole numbers from 0 (background) to 255; what would be cut is refused.

    Raises:
        InputError: there are not ``n``, or they are other numbers.
    """
    import torch

    if masks.ndim != 3 or len(masks) != n:
        raise InputError(f"masks must be ({n}, H, W), one for each image, not {tuple(masks.shape)}")
    if masks.dtype in (torch.uint8, torch.bool):
        return masks.to(torch.uint8)
    whole = masks.to(torch.int64)
    if bool((whole != masks).any()) or (masks.numel() and not 0 <= int(whole.min()) <= int(whole.max()) <= 255):
        low, high = (float(value) for value in torch.aminmax(masks.double()))
        raise InputError(
            f"masks must be whole numbers from 0 to 255, 0 for background; those given are {low:g} to {high:g}"
        )
    return whole.to(torch.uint8)


def bytes_of(pixels: Tensor) -> Tensor:
    """Return images as uint8: bytes as they are, floats in [0, 1] as the nearest of 256 levels.

    Raises:
        InputError: they are neither; says the range that was seen and what it probably means.
    """
    import torch

    from ipvit.perturb.pixels import as_bytes

    if pixels.dtype == torch.uint8 or not pixels.numel():
        return pixels.to(torch.uint8)
    kind = str(pixels.dtype).removeprefix("torch.")
    if pixels.is_complex() or pixels.dtype == torch.bool:
        raise InputError(f"images must be uint8, or float in [0, 1], not {kind}")
    if pixels.is_floating_point() and not bool(torch.isfinite(pixels).all()):
        raise InputError(f"images must be finite; of the {kind} values given some are NaN or infinite")
    low, high = (float(value) for value in torch.aminmax(pixels))
    if not pixels.is_floating_point():
        if low < 0 or high > 255:
            raise InputError(f"images must be uint8, or float in [0, 1]; the {kind} given is {low:g} to {high:g}")
        return pixels.to(torch.uint8)
    if round(low * 255) < 0 or round(high * 255) > 255:  # what an interpolation overshoots by rounds to a level
        if low >= 0:
            cause = "they look like grey levels: divide by 255" if high <= 255 else "of which scale is not known"
        else:
            cause = "they look normalised: give them before a mean is subtracted and a deviation divided by"
        raise InputError(f"float images must be in [0, 1]; those given are {low:.4g} to {high:.4g}, {cause}")
    return as_bytes(pixels)
