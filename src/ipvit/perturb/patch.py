"""The adversarial patch: one small picture that fools a network on any image it is pasted on (section 3.4, figure 12).

After Brown et al. 2017: a universal patch of 5 to 50 % of the image's area, at a random place and rotation in every
image, untargeted or towards one class. Pasting is differentiable, so the patch is trained through it.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ipvit.perturb.attack import Network, is_right, margin_loss, refuse_training
from ipvit.perturb.choices import Placement, Shape
from ipvit.perturb.pixels import as_bytes, as_floats
from ipvit.perturb.seeding import generator
from ipvit.perturb.tensors import from_numpy


@dataclasses.dataclass(frozen=True)
class PatchGeometry:
    """What patches look like on images of one size.

    Attributes:
        shape: a square turns by quarters, a circle by any angle.
        size: height and width of the images in pixels.
        area: share of the image that the patch covers.
        placement: ``free``: anywhere in the image; ``grid``: on whole cells of a grid; ``off_grid``: half a cell off
            it. With the last two the patch is as large as the whole cells that come nearest to ``area``.
        grid: rows and columns of that grid.
        scale: smallest and largest factor on the patch's height and width, drawn per image.
    """

    shape: Shape
    size: tuple[int, int]
    area: float
    placement: Placement = "free"
    grid: tuple[int, int] | None = None
    scale: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        if not 0 < self.area <= 0.5:
            raise ValueError(f"a patch covers a share of the image between 0 and 0.5, not {self.area}")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"the scale runs from a smaller to a larger factor, not {self.scale}")
        if self.placement != "free":
            self._check_grid()
        if self.side * self.scale[1] > min(self.size):
            raise ValueError(
                f"a {self.shape} of {self.area:.0%}"
                + (f", scaled by up to {self.scale[1]:g}," if self.scale[1] > 1 else "")
                + f" does not fit into {self.size[0]}x{self.size[1]} pixels"
            )
        if self.placement == "off_grid" and self.side + self.cell > min(self.size):
            raise ValueError(f"a patch of {self.side:g} pixels leaves no room half a cell off the grid")

    @property
    def cell(self) -> int:
        """Height and width of a cell of the grid in pixels."""
        assert self.grid is not None
        return self.size[0] // self.grid[0]

    @property
    def side(self) -> float:
        """Height and width of the patch (a circle's diameter) in pixels, before its random scale."""
        pixels = self.area * self.size[0] * self.size[1]
        if self.shape == "circle":
            return 2 * math.sqrt(pixels / math.pi)
        if self.placement == "free":
            return max(1, round(math.sqrt(pixels)))
        return self.cell * max(1, round(math.sqrt(pixels) / self.cell))

    @property
    def resolution(self) -> int:
        """Height and width of a picture with one pixel for every pixel of the image."""
        return math.ceil(self.side)

    def _check_grid(self) -> None:
        if self.grid is None:
            raise ValueError(f"the placement {self.placement!r} needs a grid")
        if self.shape != "square" or self.scale != (1.0, 1.0):
            raise ValueError(
                f"only squares of one scale can be aligned with a grid, not a {self.shape} of {self.scale}"
            )
        if any(length % cells for length, cells in zip(self.size, self.grid, strict=True)):
            raise ValueError(f"a grid of {self.grid[0]}x{self.grid[1]} does not divide {self.size[0]}x{self.size[1]}")
        if self.size[0] // self.grid[0] != self.size[1] // self.grid[1]:
            raise ValueError("the cells of the grid must be square")


@dataclasses.dataclass(frozen=True)
class Places:
    """Where patches go, one place per image.

    Attributes:
        centre: ``(B, 2)`` row and column in pixels from the top left corner of the image.
        side: ``(B,)`` height and width (diameter) in pixels.
        angle: ``(B,)`` rotation in radians.
    """

    centre: Tensor
    side: Tensor
    angle: Tensor


def random_places(form: PatchGeometry, draws: np.ndarray) -> Places:
    """Turn random numbers into places.

    Args:
        form: of the patch.
        draws: ``(B, 4)`` uniform in [0, 1): row, column, rotation, scale.
    """
    down, right, turn, scale = (draws[:, i] for i in range(4))
    side = form.side * (form.scale[0] + (form.scale[1] - form.scale[0]) * scale)
    if form.shape == "square":
        side = np.maximum(1, np.round(side))
        turn = np.floor(4 * turn) / 4
    if form.placement == "free":
        corner = [
            _free(draw, length - side, whole=form.shape == "square")
            for draw, length in zip((down, right), form.size, strict=True)
        ]
    else:
        offset = form.cell // 2 if form.placement == "off_grid" else 0
        corner = [
            offset + form.cell * np.floor(draw * ((length - side - offset) // form.cell + 1))
            for draw, length in zip((down, right), form.size, strict=True)
        ]
    centre = np.stack(corner, axis=1) + side[:, None] / 2
    return Places(*(from_numpy(np.asarray(a, np.float32)) for a in (centre, side, 2 * math.pi * turn)))


def _free(draw: np.ndarray, room: np.ndarray, *, whole: bool) -> np.ndarray:
    return np.floor(draw * (room + 1)) if whole else draw * room


def paste(images: Tensor, patch: Tensor, places: Places, shape: Shape) -> tuple[Tensor, Tensor]:
    """Paste a patch on images; gradients flow to patch and images.

    Args:
        images: ``(B, 3, H, W)`` in [0, 1].
        patch: ``(3, S, S)`` in [0, 1]; scaled to the side of its place (bilinear).
        places: one per image.
        shape: pixels whose centres are inside the square or circle are replaced, all others stay as they are.

    Returns:
        The images ``(B, 3, H, W)`` in [0, 1] and where the patch is, bool ``(B, H, W)``.
    """
    height, width = images.shape[-2:]
    centre, side, angle = (values.to(images) for values in (places.centre, places.side, places.angle))
    down = torch.arange(height).to(images)[None, :, None] + 0.5 - centre[:, 0, None, None]
    right = torch.arange(width).to(images)[None, None, :] + 0.5 - centre[:, 1, None, None]
    cos, sin, half = (values[:, None, None] for values in (angle.cos(), angle.sin(), side / 2))
    u, v = (cos * right + sin * down) / half, (cos * down - sin * right) / half
    inside = (u.abs() <= 1) & (v.abs() <= 1) if shape == "square" else u.square() + v.square() <= 1
    drawn = F.grid_sample(
        patch.to(images).expand(len(images), -1, -1, -1),
        torch.stack([u, v], dim=-1),
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )
    return torch.where(inside.unsqueeze(1), drawn.clamp(0, 1), images), inside


def noise_patch(key: np.uint64 | int, resolution: int) -> Tensor:
    """Return a patch of uniform noise, ``(3, S, S)`` of whole grey levels in [0, 1]: the start and the control."""
    noise = generator(key).random((3, resolution, resolution), dtype=np.float32)
    return quantised(from_numpy(noise))


def quantised(patch: Tensor) -> Tensor:
    """Return the patch as an 8-bit picture holds it."""
    return as_floats(as_bytes(patch))


def train_patch(
    network: Network,
    images: Tensor,
    labels: Tensor,
    form: PatchGeometry,
    key: np.uint64 | int,
    *,
    target: int | None = None,
    steps: int = 1250,
    batch: int = 32,
    rate: float = 0.05,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Train one patch on many images.

    Untargeted, the loss is ``-log(1 - p)`` of the label's probability ``p``: what is already wrong pulls no more, what
    is still right pulls most. Targeted, it is the cross-entropy to the target. Only images that the network gets right
    without a patch, and that are not of the target class, take part. Adam, its rate falling linearly to zero, clamped
    to [0, 1] after every step; the result is rounded to whole grey levels.

    Args:
        network: images to logits; refused in training mode.
        images: ``(N, 3, H, W)`` uint8, the training split.
        labels: ``(N,)``.
        form: of the patch.
        key: what the start, the order of images and all places follow from.
        target: the class that images are to be taken for; None: any wrong one.
        steps: gradient steps.
        batch: images per step.
        rate: step size of Adam.
        device: where the network is.

    Returns:
        ``(3, S, S)`` in [0, 1], on the CPU.

    Raises:
        ValueError: the network is in training mode, has no gradient, or gets no image right.
    """
    refuse_training(network)
    rows = _usable(network, images, labels, target, batch, device)
    if not len(rows):
        raise ValueError(f"none of the {len(images)} training images is of use: the network gets them all wrong")
    start = noise_patch(key, form.resolution)
    patch = start.to(device).requires_grad_()
    random = generator(np.uint64(key) ^ np.uint64(1))  # another stream than the noise's
    optimiser: Any = torch.optim.Adam([patch], lr=rate)  # whose step() has no full type
    queue = rows[:0]
    for step in range(steps):
        while len(queue) < min(batch, len(rows)):
            queue = np.concatenate([queue, random.permutation(rows)])
        chosen, queue = queue[:batch], queue[batch:]
        pixels = _pixels(images, chosen, device)
        places = random_places(form, random.random((len(chosen), 4)))
        with torch.enable_grad():
            pasted, _ = paste(pixels, patch, places, form.shape)
            logits = network(pasted)
            loss = (
                F.softplus(-margin_loss(logits, labels[chosen].to(device))).mean()
                if target is None
                else F.cross_entropy(logits, torch.full((len(chosen),), target, device=device))
            )
        if not loss.requires_grad:
            raise ValueError("the network's logits have no gradient with respect to its images")
        (gradient,) = torch.autograd.grad(loss, patch)
        patch.grad = gradient.nan_to_num(0.0)
        for group in optimiser.param_groups:
            group["lr"] = rate * (1 - step / steps)
        optimiser.step()
        with torch.no_grad():
            patch.clamp_(0, 1)
    return quantised(patch.detach().cpu())


def _usable(
    network: Network, images: Tensor, labels: Tensor, target: int | None, batch: int, device: torch.device | str
) -> np.ndarray:
    """Return the numbers of the images that the network gets right and that are not of the target class."""
    right: list[Tensor] = []
    with torch.no_grad():
        for start in range(0, len(images), batch):
            chosen = np.arange(start, min(start + batch, len(images)))
            right.append(is_right(network(_pixels(images, chosen, device)).cpu(), labels[chosen]))
    useful = torch.cat(right) & (labels >= 0) if right else torch.zeros(0, dtype=torch.bool)
    if target is not None:
        useful &= labels != target
    return np.flatnonzero(useful.numpy())


def _pixels(images: Tensor, rows: np.ndarray, device: torch.device | str) -> Tensor:
    return as_floats(images[from_numpy(rows)], device)
