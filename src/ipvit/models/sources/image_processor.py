"""What an image processor of transformers does to a picture, as a view and a normalisation; held against it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from ipvit.core.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing, View
from ipvit.data.decode import apply_view
from ipvit.errors import FOREIGN_ERRORS, InputError, error_line

RESAMPLING = {0: "nearest", 2: "bilinear", 3: "bicubic"}
"""Pillow's numbers in an image processor's ``resample``."""

MEAN_APART, MOST_APART = 0.5, 3.0
"""Grey levels that a view may be from the processor's own picture: on average, and anywhere."""

_READ = (
    "do_resize",
    "size",
    "resample",
    "do_center_crop",
    "crop_size",
    "crop_pct",
    "do_rescale",
    "rescale_factor",
    "rescale_offset",
    "do_normalize",
    "image_mean",
    "image_std",
    "include_top",
    "do_flip_channel_order",
    "resize_short",
)
"""What is read of a processor, whatever its class; defaults of the class are among its attributes."""

_LEVIT_ENLARGES = 256 / 224


def preprocessing_of(processor: Any, title: str) -> Preprocessing:
    """Return the preprocessing that does what an image processor does to three made-up pictures.

    Args:
        processor: of transformers.
        title: what messages call the network.

    Raises:
        InputError: no view does the same, up to :data:`MEAN_APART` and :data:`MOST_APART` grey levels.
    """
    stated = {name: _plain(getattr(processor, name)) for name in _READ if hasattr(processor, name)}
    kind = type(processor).__name__
    stated.setdefault("do_normalize", False)
    possible = list(dict.fromkeys(candidates(stated, title)))
    return held_against(
        possible,
        lambda picture: processor(images=picture, return_tensors="pt")["pixel_values"],
        title,
        f"image processor, {kind}",
    )


def held_against(
    possible: Sequence[Preprocessing], transform: Callable[[Image.Image], Any], title: str, kind: str
) -> Preprocessing:
    """Return the first preprocessing that does what a library's own transform does to three made-up pictures.

    Args:
        possible: what may be meant, the usual first.
        transform: from a picture to what enters the network.
        title: what messages call the network.
        kind: what they call the transform.

    Raises:
        InputError: none of them does the same, up to :data:`MEAN_APART` and :data:`MOST_APART` grey levels.
    """
    pictures = probe_pictures(possible[0].view)
    try:
        theirs = [transform(Image.fromarray(one)) for one in pictures]
        apart = [_apart(one, pictures, theirs) for one in possible]
    except (OSError, *FOREIGN_ERRORS) as error:
        raise InputError(f"{title}: its own {kind}, fails: {error_line(error)}") from None
    for preprocessing, (mean, most) in zip(possible, apart, strict=True):
        if mean <= MEAN_APART and most <= MOST_APART:
            return preprocessing
    mean, most = min(apart)
    found = (
        "gives something else than a picture of its input size"
        if math.isinf(mean)
        else (f"is {mean:.2g} grey levels off on average and {most:.0f} at most")
    )
    raise InputError(
        f"{title}: what its {kind.removeprefix('image processor, ')} does to pictures cannot be expressed here as "
        f"resizing, centre crop and normalisation (the nearest {found}); wrap it in a FILE.py:FACTORY that takes "
        "pictures as they are"
    )


def probe_pictures(view: View) -> list[np.ndarray]:
    """Return a portrait, a panorama and a picture smaller than the input, ``(H, W, 3)`` uint8, with edges and detail.

    As many pixels are cut off the longer sides as make a difference to how the place of a crop is rounded.
    """
    side, resized = max(view.size), min(view.resize)
    short = math.ceil(1.2 * side)
    longer = [
        next(long for long in range(start, start + 64) if (int(resized * long / short) - min(view.size)) % 4 == 3)
        for start in (math.ceil(1.7 * side), math.ceil(3.1 * side))
    ]
    shapes = ((longer[0], short), (short, longer[1]), (math.ceil(0.6 * side), math.ceil(0.7 * side)))
    return [_drawn(height, width) for height, width in shapes]


def _drawn(height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    y, x = rows / height, columns / width
    waves = [np.sin(2 * np.pi * (a * x + b * y) + c) for a, b, c in ((1.5, 5.0, 0.3), (7.0, 2.0, 1.1), (4.0, 9.0, 2.0))]
    picture = 127 + 70 * np.stack(waves, axis=-1)
    picture[(np.abs(x - 0.3) < 0.12) & (np.abs(y - 0.6) < 0.2)] = (230, 40, 90)
    picture[(x - 0.7) ** 2 + (y - 0.4) ** 2 < 0.03] = (20, 200, 160)
    return picture.round().clip(0, 255).astype(np.uint8)


def _apart(preprocessing: Preprocessing, pictures: Sequence[np.ndarray], theirs: Sequence[Any]) -> tuple[float, float]:
    """Return mean and largest difference in grey levels; infinite where the shapes differ."""
    std = torch.tensor(preprocessing.std, dtype=torch.float64).view(-1, 1, 1)
    mean = torch.tensor(preprocessing.mean, dtype=torch.float64).view(-1, 1, 1)
    means, most = [0.0], 0.0
    for picture, values in zip(pictures, theirs, strict=True):
        found = torch.as_tensor(values).squeeze(0)
        if tuple(found.shape) != (3, *preprocessing.view.size):
            return math.inf, math.inf
        ours = apply_view(torch.from_numpy(picture).permute(2, 0, 1), preprocessing.view).double()
        difference = ((found.double() * std + mean) * 255 - ours).abs()
        means.append(float(difference.mean()))
        most = max(most, float(difference.max()))
    return max(means), most


def candidates(stated: Mapping[str, Any], title: str) -> Iterator[Preprocessing]:
    """Yield what a processor's configuration may mean, the usual first: those of one configuration do different things.

    Args:
        stated: the configuration.
        title: what messages call the network.

    Raises:
        InputError: it states something that a view cannot express.
    """
    stated_one = stated.get("resample")
    resample = 2 if stated_one is None else int(stated_one)
    interpolation = RESAMPLING.get(resample)
    if interpolation is None:
        raise InputError(f"{title} resizes by Pillow's method {resample}; known: {RESAMPLING}")
    if stated.get("do_flip_channel_order"):
        raise InputError(f"{title} takes channels as blue, green, red; wrap it in a FILE.py:FACTORY that turns them")
    mean, std = _normalisation(stated)
    for view in _views(stated, interpolation, title):
        yield Preprocessing(view, mean, std)


def _normalisation(stated: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation for pictures in [0, 1], whatever the processor scales them to."""
    scale = 255 * float(stated.get("rescale_factor") or 1 / 255) if stated.get("do_rescale", True) else 255.0
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    if not stated.get("do_normalize", True):
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    elif stated.get("image_mean") is not None:
        mean, std = _channels(stated["image_mean"]), _channels(stated["image_std"])
    if stated.get("rescale_offset"):  # to -1 ... 1
        mean = tuple(value + 1 for value in mean)
    if stated.get("include_top") and stated.get("do_normalize", True):  # EfficientNet divides once more
        std = tuple(value * value for value in std)
    if abs(scale - 1) > 1e-6:
        mean, std = tuple(value / scale for value in mean), tuple(value / scale for value in std)
    return mean, std


def _channels(value: Any) -> tuple[float, ...]:
    values = tuple(value) if isinstance(value, Sequence) else (float(value),)
    return values * 3 if len(values) == 1 else values


def _views(stated: Mapping[str, Any], interpolation: str, title: str) -> Iterator[View]:
    size, crop = stated.get("size"), stated.get("crop_size")
    edge = size.get("shortest_edge") if isinstance(size, Mapping) else None
    resized = (edge, edge) if edge else _sides(size)
    cropped = _sides(crop) if stated.get("do_center_crop") else None
    if resized is None:
        raise InputError(f"{title} states no input size in its image processor; wrap it in a FILE.py:FACTORY")
    share, mode = stated.get("crop_pct"), "center" if edge else "squash"
    whole = cropped or resized
    if cropped is None and share and edge:  # ConvNeXt's: resize a little larger, then crop to the size; squash from 384
        mode = "center" if edge < 384 else "squash"
        yield from _both(View(whole, share if edge < 384 else 1.0, interpolation, mode))
    yield from _both(View(whole, _share(whole[0], resized[0]), interpolation, mode))
    enlarged = [int(stated.get("resize_short") or 0)]
    if edge and cropped is not None:
        enlarged += [int(edge / share) if share else 0, int(_LEVIT_ENLARGES * edge)]  # PoolFormer's, LeViT's
    for side in filter(None, enlarged):
        yield from _both(View(whole, _share(whole[0], side), interpolation))
    if cropped is not None and not edge:  # Perceiver's: the crop first, and then to the size
        yield from _both(View(resized, _share(resized[0], cropped[0]), interpolation))


def _both(view: View) -> Iterator[View]:
    """Yield a centre crop as transformers rounds its place, and as releases that leave it to torchvision do."""
    if view.crop_mode == "center":
        yield dataclasses.replace(view, crop_mode="center_floor")
    yield view


def _share(crop: int, resized: int) -> float:
    """Return the crop's share that a view resizes by to exactly so many pixels, whatever the rounding."""
    share = crop / resized
    while math.floor(crop / share) < resized:
        share = math.nextafter(share, 0)
    return share


def _sides(size: Any) -> tuple[int, int] | None:
    if isinstance(size, int):
        return (size, size)
    if isinstance(size, Mapping) and size.get("height"):
        return (size["height"], size["width"])
    return None


def _plain(value: Any) -> Any:
    """Return a size as a dictionary, whatever class a release of transformers has for it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name: number for name, number in dataclasses.asdict(value).items() if number is not None}
    return dict(value) if isinstance(value, Mapping) else value
