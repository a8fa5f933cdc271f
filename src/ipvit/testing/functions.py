"""``check_attack``, ``check_fill``, ``check_corruption``: does a function return what a run can show to a network?"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from ipvit.core.plugins import OwnCodeError, OwnFunction
from ipvit.experiments.returned import check_pixels, into_budget, returned_images
from ipvit.perturb.attack import AttackFunction
from ipvit.perturb.budget import LEVELS, Budget, Norm
from ipvit.perturb.corruptions.arrays import random_state
from ipvit.perturb.patchdrop import replace
from ipvit.perturb.seeding import keys
from ipvit.testing.contract import ContractError, NetworkState, no_error, randomness_untouched, require, seeded
from ipvit.testing.samples import SIZE, attacked_model, sample_images

COUNT = 4
"""Images in a batch."""

Made = Callable[[slice], Tensor]
"""Part of the batch to what a function makes of it."""


def check_attack(attack: AttackFunction, *, norm: Norm = "linf", size: float = 8 / LEVELS) -> None:
    """Hold an attack to what the experiment ``attack`` asks of it, on a tiny network and images that it has right.

    The images come back whole and finite, in [0, 1] and within the budget up to rounding to float32; what the function
    is given stays as it is, and the network too; the same key gives the same image, alone or in a batch.

    Args:
        attack: a function of model, images, labels, budget and key.
        norm: of the budget.
        size: of the budget, with pixels in [0, 1].

    Raises:
        ContractError: a promise is not kept; the message says which.
    """
    own, budget = _own(attack), Budget(norm, size)
    with seeded(0):
        model, images, ids, key = attacked_model(), _images(), _ids(), keys(_ids(), 0, "attack")
        with torch.no_grad():
            labels = model(images).argmax(dim=1)
        state = NetworkState(model)

        def made(part: slice) -> Tensor:
            given = images[part].clone(), labels[part].clone()
            with torch.enable_grad():
                found = attack(model, *given, budget, key[part].copy())
            state.require_unchanged(own.label)
            kept = torch.equal(given[0], images[part]) and torch.equal(given[1], labels[part])
            require(kept, f"{own.label} changes the images or labels that it is given; it must work on a copy")
            with _as_contract():
                moved = returned_images(own, found, images[part])
                check_pixels(own, moved, ids[part])
                return into_budget(own, images[part], moved, budget, ids[part])

        _check_repeated(own.label, made)


def check_fill(fill: Callable[[Tensor, Tensor, np.ndarray], Tensor]) -> None:
    """Hold a fill to what the experiment ``occlusion`` asks of it.

    The images come back whole, finite and in [0, 1] where pixels were dropped; what the function is given stays as it
    is; the same key gives the same image, alone or in a batch.

    Args:
        fill: a function of images, a mask that is true where a pixel stays, and key.

    Raises:
        ContractError: a promise is not kept; the message says which.
    """
    own = _own(fill)
    with seeded(0):
        images, ids, key = _images(), _ids(), keys(_ids(), 0, "fill")
        for share in (0.5, 0.0, 1.0):
            mask = torch.rand(COUNT, 1, SIZE, SIZE) < share

            def made(part: slice, mask: Tensor = mask) -> Tensor:
                given = images[part].clone(), mask[part].clone()
                found = fill(*given, key[part].copy())
                kept = torch.equal(given[0], images[part]) and torch.equal(given[1], mask[part])
                require(kept, f"{own.label} changes the images or the mask that it is given; it must work on a copy")
                with _as_contract():
                    filled = replace(images[part], mask[part], returned_images(own, found, images[part]))
                    check_pixels(own, filled, ids[part])
                return filled

            _check_repeated(f"{own.label}, with {share:.0%} of the pixels kept,", made)


def check_corruption(corruption: Callable[[np.ndarray, int, np.random.RandomState], np.ndarray]) -> None:
    """Hold a corruption to what the experiment ``corruptions`` asks of it.

    At every severity an image of any size comes back as bytes of its size; the image that the function is given stays
    as it is; the same stream of random numbers gives the same image.

    Args:
        corruption: a function of an image ``(H, W, 3)`` uint8, a severity from 1 to 5 and a ``RandomState``.

    Raises:
        ContractError: a promise is not kept; the message says which.
    """
    name = _own(corruption).label
    whole = np.ascontiguousarray(sample_images(1)[0].permute(1, 2, 0).numpy())
    for image in (whole, np.ascontiguousarray(whole[:, :24])):
        for severity in range(1, 6):
            doing = f"{name} at severity {severity}"
            found = []
            for seed in (1, 2):
                given = image.copy()
                with seeded(seed), no_error(doing), randomness_untouched(doing):
                    made = corruption(given, severity, random_state(keys(["image"], 0)[0], name, severity))
                right = isinstance(made, np.ndarray) and made.shape == image.shape and made.dtype == np.uint8
                what = f"{made.dtype} {made.shape}" if isinstance(made, np.ndarray) else type(made).__name__
                require(right, f"{doing} returns {what}; it must return uint8 {image.shape}")
                found.append(made.copy())
                require(np.array_equal(given, image), f"{doing} changes the image it is given; it must work on a copy")
            require(
                np.array_equal(*found),
                f"{doing} makes another image of the same one the second time; what is random must come from the "
                "RandomState it is given",
            )


def _own(function: Callable[..., object]) -> OwnFunction:
    """Return what messages call a function, as a run would know it."""
    name = getattr(function, "__name__", type(function).__name__)
    return OwnFunction(name, name, "")


def _images() -> Tensor:
    """Return images in [0, 1], float32, that have black and white pixels too."""
    images = sample_images(COUNT).float() / 255
    images[:, :, 0], images[:, :, 1] = 0.0, 1.0
    return images


def _ids() -> list[str]:
    return [f"image {number}" for number in range(COUNT)]


@contextlib.contextmanager
def _as_contract() -> Iterator[None]:
    """Let what a run would tell of the images be the broken promise."""
    try:
        yield
    except OwnCodeError as error:
        raise ContractError(str(error)) from None


def _check_repeated(doing: str, made: Made) -> None:
    """The same comes out twice, and of one image alone what comes out of it in a batch."""
    found = []
    for seed in (1, 2):
        with seeded(seed), no_error(doing), randomness_untouched(doing):
            found.append(made(slice(0, COUNT)))
    require(
        torch.equal(*found),
        f"{doing} makes other images of the same ones the second time; what is random must come from key",
    )
    for row in range(COUNT):
        with no_error(f"{doing} of one image"):
            alone = made(slice(row, row + 1))
        require(
            torch.allclose(alone[0], found[0][row], atol=1e-5),
            f"{doing} makes something else of an image alone than in a batch; what is done to one must not depend on "
            "the others",
        )
