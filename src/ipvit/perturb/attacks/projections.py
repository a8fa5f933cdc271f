"""Nearest points under constraints, within the box of pixel values: what APGD in l1 and FAB step to.

All solve for one number per image, the root of a monotone piecewise linear function, by Newton's method within a
bracket, in float64; the values of an image are never sorted where that can be left out.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ipvit.perturb.budget import Norm

_MOST = 100
"""Steps of Newton's method with bisection. It ends by itself after about ten."""


def onto_l1(images: Tensor, moved: Tensor, size: float) -> Tensor:
    """Return the points nearest to others (in l2) within ``size`` in l1 of images and within [0, 1].

    The change of every value is shortened by one number per image and then cut off at the end of the range (Croce and
    Hein 2021).

    Args:
        images: ``(B, 3, H, W)`` in [0, 1].
        moved: ``(B, 3, H, W)``.
        size: the most that the changes may sum up to.
    """
    exact = _double(images)
    change = _double(moved) - exact
    length = change.abs().flatten(1)
    room = torch.where(change > 0, 1 - exact, exact).flatten(1)
    cut = torch.minimum(length, room)
    out = torch.where(cut.sum(dim=1) > size)[0]
    if len(out):
        length, room = length[out], room[out]

        def excess(less: Tensor) -> tuple[Tensor, Tensor]:
            rest = length - less
            inside = (rest > 0) & (rest < room)
            return torch.minimum(rest.clamp(min=0), room).sum(dim=1, keepdim=True) - size, -inside.sum(1, keepdim=True)

        less = _root(excess, torch.zeros_like(length[:, :1]), length.amax(dim=1, keepdim=True))
        cut[out] = torch.minimum((length - less).clamp(min=0), room)
    found = exact + cut.view_as(change) * change.sign()
    return found.clamp(0, 1).to(images)


def onto_plane(points: Tensor, weight: Tensor, rise: Tensor, norm: Norm) -> Tensor:
    """Return the shortest change of points that raises a linear function by so much and stays within [0, 1].

    Where the box does not allow that, the function is raised as far as the box allows.

    Args:
        points: ``(B, 3, H, W)`` in [0, 1].
        weight: ``(B, 3, H, W)``, the gradient of the linear function.
        rise: ``(B,)``; negative where it is to fall.
        norm: in which the change is shortest.

    Returns:
        ``(B, 3, H, W)``, in the type of the points.
    """
    exact, slope = _double(points).flatten(1), _double(weight).flatten(1)
    rise = _double(rise).unsqueeze(1)
    slope = torch.where(rise < 0, -slope, slope)
    wanted, steep = rise.abs(), slope.abs()
    room = torch.where(slope > 0, 1 - exact, exact)
    length = _greedy(steep, room, wanted) if norm == "l1" else _even(steep, room, wanted, norm)
    return (length * slope.sign()).view_as(points).to(points)


def _even(steep: Tensor, room: Tensor, wanted: Tensor, norm: Norm) -> Tensor:
    """Move all values by one length (linf), or in proportion to their slope (l2), each as far as it has room."""
    pace = (steep > 0).to(steep) if norm == "linf" else steep

    def lacking(reach: Tensor) -> tuple[Tensor, Tensor]:
        way = reach * pace
        slope = (steep * pace * (way < room)).sum(dim=1, keepdim=True)
        return (steep * torch.minimum(way, room)).sum(dim=1, keepdim=True) - wanted, slope

    # concave and rising: from zero Newton's method comes from below and needs no bracket
    reach = torch.zeros_like(wanted)
    for _ in range(_MOST):
        value, slope = lacking(reach)
        further = torch.where((value < 0) & (slope > 0), -value / slope.clamp(min=1e-300), 0.0)
        if not bool((further > 1e-12 * reach).any()):
            break
        reach = reach + further
    full = (steep * room).sum(dim=1, keepdim=True) <= wanted
    return torch.where(full, room * (steep > 0), torch.minimum(reach * pace, room))


def _greedy(steep: Tensor, room: Tensor, wanted: Tensor) -> Tensor:
    """Move the steepest values first, each as far as it has room, until what is wanted is reached."""
    order = steep.argsort(dim=1, descending=True)
    steep, room = steep.gather(1, order), room.gather(1, order)
    before = (steep * room).cumsum(dim=1) - steep * room
    length = ((wanted - before).clamp(min=0) / steep.clamp(min=1e-300)).minimum(room) * (steep > 0)
    return torch.zeros_like(length).scatter(1, order, length)


def _root(function: Callable[[Tensor], tuple[Tensor, Tensor]], low: Tensor, high: Tensor) -> Tensor:
    """Return where a falling function is zero, ``(B, 1)``, up to rounding."""
    point = low
    for _ in range(_MOST):
        value, slope = function(point)
        low, high = torch.where(value > 0, point, low), torch.where(value > 0, high, point)
        newton = point - value / torch.where(slope == 0, -1.0, slope)
        usable = (slope != 0) & (newton > low) & (newton < high)
        following = torch.where(usable, newton, (low + high) / 2)
        if not bool(((following - point).abs() > 1e-14 * high).any()):
            break
        point = following
    return point


def _double(values: Tensor) -> Tensor:
    """Return values as float64, where the device can hold that."""
    return values.detach().to("cpu" if values.device.type == "mps" else values.device, torch.float64)
