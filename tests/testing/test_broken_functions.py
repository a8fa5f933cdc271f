"""An attack, a fill or a corruption that returns what cannot be shown, or is not the same each time, is caught."""

from __future__ import annotations

import random as python_random

import numpy as np
import pytest
import torch
from torch import nn

from ipvit.perturb.distance import random_noise
from ipvit.testing import ContractError, check_attack, check_corruption, check_fill

# --- attacks ---------------------------------------------------------------------------------------------------------


class Attacks:
    """What may be wrong with an attack."""

    @staticmethod
    def bytes_(model, images, labels, budget, key):
        return (images * 255).to(torch.uint8)

    @staticmethod
    def one(model, images, labels, budget, key):
        return images[:1, :, :8]

    @staticmethod
    def nothing(model, images, labels, budget, key):
        return None

    @staticmethod
    def not_finite(model, images, labels, budget, key):
        return images * float("nan")

    @staticmethod
    def bright(model, images, labels, budget, key):
        return images + budget.size

    @staticmethod
    def far(model, images, labels, budget, key):
        return (images + 1.01 * budget.size).clamp(0, 1)

    @staticmethod
    def in_place(model, images, labels, budget, key):
        return images.mul_(0.99)

    @staticmethod
    def relabelling(model, images, labels, budget, key):
        labels += 1
        return images

    @staticmethod
    def backward(model, images, labels, budget, key):
        nn.functional.cross_entropy(model(images), labels).backward()
        return images

    @staticmethod
    def training(model, images, labels, budget, key):
        model.train()
        return images

    @staticmethod
    def frozen(model, images, labels, budget, key):
        for weight in model.parameters():
            weight.requires_grad_(False)
        return images

    @staticmethod
    def of_torch(model, images, labels, budget, key):
        return (images + budget.size * torch.rand_like(images)).clamp(0, 1)

    @staticmethod
    def of_python(model, images, labels, budget, key):
        return (images + budget.size * python_random.random()).clamp(0, 1)

    @staticmethod
    def unseeded(model, images, labels, budget, key):
        return random_noise(images, budget, np.random.default_rng().integers(0, 2**30, len(images)))

    @staticmethod
    def first_key(model, images, labels, budget, key):
        """One noise for all: that of the first image."""
        return random_noise(images, budget, np.full_like(key, key[0]))

    @staticmethod
    def relative(model, images, labels, budget, key):
        return images + (images.mean(dim=0) - images).clamp(-budget.size, budget.size)

    @staticmethod
    def broken(model, images, labels, budget, key):
        return images / missing  # noqa: F821 - the mistake that is meant


ATTACKS = {
    "bytes_": r"bytes_ must return a tensor of floating-point numbers \(4, 3, 32, 32\), not uint8",
    "one": r"one must return a tensor of floating-point numbers \(4, 3, 32, 32\), not float32 \(1, 3, 8, 32\)",
    "nothing": "nothing must return a tensor .* not NoneType",
    "not_finite": "not_finite returned pixels that are not finite, for 'image 0'",
    "bright": "bright must return pixels from 0 to 1, not 1.03137 as for 'image 0'",
    "far": "far moved 'image 0' by 0.0316863 in linf, 0.00031 more than the budget of 0.0313725",
    "in_place": "in_place changes the images or labels that it is given; it must work on a copy",
    "relabelling": "relabelling changes the images or labels that it is given",
    "backward": "backward leaves a gradient on the weight .*; take gradients by torch.autograd.grad",
    "training": "training leaves another mode",
    "frozen": "frozen changes requires_grad of the weight",
    "of_torch": "of_torch changes the global random state of torch; what is random must come from keys alone",
    "of_python": "of_python changes the global random state of random",
    "unseeded": "unseeded makes other images of the same ones the second time; what is random must come from key",
    "first_key": "first_key makes something else of an image alone than in a batch",
    "relative": "relative makes something else of an image alone than in a batch",
    "broken": "broken raises NameError: name 'missing' is not defined",
}


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks(name):
    with pytest.raises(ContractError, match=ATTACKS[name]):
        check_attack(getattr(Attacks, name))


def test_an_attack_is_held_to_its_own_norm():
    def along_the_sign(model, images, labels, budget, key):
        return (images + budget.size).clamp(0, 1)

    check_attack(along_the_sign)
    with pytest.raises(ContractError, match="moved 'image 0' by .* in l2, .* more than the budget of 0.5"):
        check_attack(along_the_sign, norm="l2", size=0.5)


# --- fills -----------------------------------------------------------------------------------------------------------


class Fills:
    """What may be wrong with a fill."""

    @staticmethod
    def scalar(images, mask, key):
        return torch.tensor(0.5)

    @staticmethod
    def glaring(images, mask, key):
        return images + 1

    @staticmethod
    def in_place(images, mask, key):
        images[:, 0] = 0
        return images

    @staticmethod
    def inverting(images, mask, key):
        mask.logical_not_()
        return images

    @staticmethod
    def of_numpy(images, mask, key):
        return torch.full_like(images, np.random.rand())

    @staticmethod
    def unseeded(images, mask, key):
        return torch.full_like(images, np.random.default_rng().random())

    @staticmethod
    def of_all(images, mask, key):
        return images.mean(dim=0).expand_as(images)

    @staticmethod
    def of_what_stays(images, mask, key):
        return (images * mask).sum(dim=(2, 3), keepdim=True) / mask.sum(dim=(2, 3), keepdim=True) + 0 * images


FILLS = {
    "scalar": r"scalar must return a tensor of floating-point numbers \(4, 3, 32, 32\), not float32 \(\)",
    "glaring": "glaring must return pixels from 0 to 1",
    "in_place": "in_place changes the images or the mask that it is given",
    "inverting": "inverting changes the images or the mask that it is given",
    "of_numpy": "of_numpy, with 50% of the pixels kept, changes the global random state of numpy.random",
    "unseeded": "unseeded, .* makes other images of the same ones the second time",
    "of_all": "of_all, .* makes something else of an image alone than in a batch",
    "of_what_stays": "of_what_stays returned pixels that are not finite",
}


@pytest.mark.parametrize("name", FILLS)
def test_fills(name):
    with pytest.raises(ContractError, match=FILLS[name]):
        check_fill(getattr(Fills, name))


def test_what_a_fill_makes_of_kept_pixels_does_not_matter():
    check_fill(lambda images, mask, key: torch.where(mask, torch.full_like(images, float("nan")), images * 0))


# --- corruptions -----------------------------------------------------------------------------------------------------


class Corruptions:
    """What may be wrong with a corruption."""

    @staticmethod
    def floats(image, severity, random):
        return image / 255

    @staticmethod
    def square(image, severity, random):
        return np.zeros((32, 32, 3), np.uint8)

    @staticmethod
    def nothing(image, severity, random):
        return None

    @staticmethod
    def in_place(image, severity, random):
        image //= 2
        return image

    @staticmethod
    def five_only(image, severity, random):
        return image // [1, 2, 3, 4][severity]

    @staticmethod
    def of_numpy(image, severity, random):
        return image + np.random.randint(0, 2, image.shape).astype(np.uint8)

    @staticmethod
    def unseeded(image, severity, random):
        return image + np.random.default_rng().integers(0, 9, image.shape).astype(np.uint8)


CORRUPTIONS = {
    "floats": r"floats at severity 1 returns float64 \(32, 32, 3\); it must return uint8 \(32, 32, 3\)",
    "square": r"square at severity 1 returns uint8 \(32, 32, 3\); it must return uint8 \(32, 24, 3\)",
    "nothing": "nothing at severity 1 returns NoneType",
    "in_place": "in_place at severity 1 changes the image it is given; it must work on a copy",
    "five_only": "five_only at severity 4 raises IndexError",
    "of_numpy": "of_numpy at severity 1 changes the global random state of numpy.random",
    "unseeded": "unseeded at severity 1 makes another image of the same one the second time",
}


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corruptions(name):
    with pytest.raises(ContractError, match=CORRUPTIONS[name]):
        check_corruption(getattr(Corruptions, name))
