"""timm's policies (AutoAugment, RandAugment, AugMix, ThreeAugment) and colour jitter, as functions of a key."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import auto_augment
from timm.data.transforms_factory import create_transform
from torch import Tensor

from ipvit.core.preprocessing import Preprocessing
from ipvit.errors import InputError, error_line


class OperationError(Exception):
    """One operation of a policy failed; the text names it."""


def change(picture: Tensor, auto: str | None, jitter: float | None, like: Preprocessing, key: np.uint64) -> Tensor:
    """Return a picture as timm's policy and colour jitter change it under a key: ``(3, H, W)`` uint8.

    Args:
        picture: ``(3, H, W)`` uint8.
        auto: a policy of ``timm.data.auto_augment``, or None.
        jitter: most that brightness, contrast and saturation change, or None.
        like: size, interpolation and mean colour, which some operations use.
        key: what happens follows from it.

    Raises:
        OperationError: an operation failed.
    """
    image = Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
    with global_seeds(int(key)):
        changed = policy(auto, jitter, like)(image)
    return torch.from_numpy(np.array(changed)).permute(2, 0, 1)


@cache
def policy(auto: str | None, jitter: float | None, like: Preprocessing) -> Callable[[Any], Any]:
    """Return what timm's own training transform does between the flips and the tensor.

    Raises:
        InputError: timm knows no such policy.
    """
    try:
        parts: Any = create_transform(
            (3, *like.view.size),
            is_training=True,
            separate=True,
            use_prefetcher=True,
            auto_augment=auto,
            color_jitter=jitter,  # pyright: ignore[reportArgumentType] - None is none
            interpolation=like.view.interpolation,
            mean=like.mean,
        )
    except (AssertionError, KeyError, ValueError, AttributeError) as error:
        raise InputError(
            f"augment.auto: timm knows no policy {auto!r}; rand-m9-mstd0.5-inc1 is an example ({error})"
        ) from error
    changes = parts[1]  # after the crop and the flips, before the tensor
    for operation in _operations(changes):
        operation.aug_fn = _Named(operation.name, operation.aug_fn)
    return changes


def _operations(changes: Any) -> Iterator[Any]:
    """Yield the operations of all policies among some transforms."""
    for transform in changes.transforms:
        yield from getattr(transform, "ops", ())
        for together in getattr(transform, "policy", ()):
            yield from together


class _Named:
    """An operation that says its name when it fails, and knows what 0 bits are."""

    def __init__(self, name: str, operation: Callable[..., Any]) -> None:
        self._name, self._operation = name, operation
        self._posterizes = operation is auto_augment.posterize

    def __call__(self, image: Image.Image, *arguments: Any, **options: Any) -> Image.Image:
        if self._posterizes and arguments[0] < 1:
            return Image.new(image.mode, image.size)  # as Pillow did before 13, which refuses
        try:
            return self._operation(image, *arguments, **options)
        except Exception as error:
            raise OperationError(f"{self._name} of augment.auto failed ({error_line(error, named=True)})") from error


@contextmanager
def global_seeds(key: int) -> Iterator[None]:
    """Seed the global generators that timm's transforms draw from (Python's, numpy's, torch's on the processor).

    They are put back afterwards.
    """
    # of torch's generators only this one: torch.manual_seed would seed the accelerator's as well
    generator = torch.default_generator
    before = random.getstate(), np.random.get_state(), generator.get_state()
    random.seed(key)
    np.random.seed(key % 2**32)
    generator.manual_seed(key % 2**63)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        generator.set_state(before[2])
