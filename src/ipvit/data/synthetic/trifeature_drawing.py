"""Shapes, textures and colours of the procedural set, drawn with numpy.

Everything is a function of continuous coordinates, so a scene looks the same at any resolution. Edges are anti-aliased
by turning a signed distance into the share of the pixel that it covers.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Plane = np.ndarray
"""One float32 number per pixel, ``(size, size)``."""
_TAU = 2 * math.pi


# --- shapes: signed distance in units of the object's radius, negative inside, for x to the right and y upwards ----


def _wedge(x: Plane, y: Plane, n: int) -> tuple[Plane, Plane]:
    """Fold the plane into one half of one of ``n`` equal sectors, the first of which points along x."""
    half = math.pi / n
    angle = np.abs((np.arctan2(y, x) + half) % (2 * half) - half)
    radius = np.hypot(x, y)
    return radius * np.cos(angle), radius * np.sin(angle)


def _disc(x: Plane, y: Plane) -> Plane:
    return np.hypot(x, y) - 0.82


def _triangle(x: Plane, y: Plane) -> Plane:
    return np.maximum(x * 0.5 + np.abs(y) * math.sqrt(0.75), -x) - 0.52


def _square(x: Plane, y: Plane) -> Plane:
    return np.maximum(np.abs(x), np.abs(y)) - 0.72


def _star(x: Plane, y: Plane) -> Plane:
    a, b = _wedge(x, y, 5)
    # The edge runs from the tip (1.05, 0) to the inner corner at 36 degrees and radius 0.46.
    inner = (0.46 * math.cos(math.pi / 5), 0.46 * math.sin(math.pi / 5))
    length = math.hypot(1.05 - inner[0], inner[1])
    return ((a - 1.05) * inner[1] + b * (1.05 - inner[0])) / length


def _cross(x: Plane, y: Plane) -> Plane:
    x, y = np.abs(x), np.abs(y)
    return np.maximum(np.maximum(x, y) - 0.92, np.minimum(x, y) - 0.31)


def _crescent(x: Plane, y: Plane) -> Plane:
    return np.maximum(np.hypot(x, y) - 0.95, 0.72 - np.hypot(x - 0.5, y))


def _heart(x: Plane, y: Plane) -> Plane:
    # A square on its corner, half as wide as 0.54, and a disc on each of its two upper sides; it points along x.
    x, y = np.abs(y), x + 0.12
    diamond = (x + np.abs(y)) * math.sqrt(0.5) - 0.54
    lobe = np.hypot(x - 0.54 * math.sqrt(0.5), y - 0.54 * math.sqrt(0.5)) - 0.54
    return np.minimum(diamond, lobe)


def _ring(x: Plane, y: Plane) -> Plane:
    return np.abs(np.hypot(x, y) - 0.67) - 0.25


def _clover(x: Plane, y: Plane) -> Plane:
    a, b = _wedge(x, y, 3)
    return np.hypot(a - 0.5, b) - 0.45


def _arrow(x: Plane, y: Plane) -> Plane:
    y = np.abs(y)
    head = np.maximum(-0.02 - x, (x - 1.0) * 0.6247 + y * 0.7809)
    shaft = np.maximum(y - 0.29, np.abs(x + 0.45) - 0.5)
    return np.minimum(head, shaft)


SHAPES: dict[str, Callable[[Plane, Plane], Plane]] = {
    "disc": _disc,
    "triangle": _triangle,
    "square": _square,
    "star": _star,
    "cross": _cross,
    "crescent": _crescent,
    "heart": _heart,
    "ring": _ring,
    "clover": _clover,
    "arrow": _arrow,
}


# --- textures: 0 (dark tone) to 1 (light tone), for u, v in periods; ``pixel`` is a pixel's width in periods -------


def _soft(distance: Plane, pixel: float) -> Plane:
    """Turn a distance to an edge (positive on the light side) into a tone that changes over one pixel."""
    return np.clip(distance / pixel + 0.5, 0, 1)


def _band(u: Plane, width: float = 0.5) -> Plane:
    """Return the distance to the edge of bands along v, ``width`` wide, one a period; positive inside."""
    return width / 2 - np.abs(u - np.floor(u) - 0.5)


def _stripes(u: Plane, _v: Plane, _phase: np.ndarray, pixel: float) -> Plane:
    return _soft(_band(u), pixel)


def _checks(u: Plane, v: Plane, _phase: np.ndarray, pixel: float) -> Plane:
    columns, rows = _soft(_band(0.7 * u), 0.7 * pixel), _soft(_band(0.7 * v), 0.7 * pixel)
    return 0.5 + 0.5 * (2 * columns - 1) * (2 * rows - 1)


def _dots(u: Plane, v: Plane, _phase: np.ndarray, pixel: float) -> Plane:
    row = np.floor(v)
    u = u + 0.5 * (row % 2)
    return _soft(0.33 - np.hypot(u - np.floor(u) - 0.5, v - row - 0.5), pixel)


def _zigzag(u: Plane, v: Plane, _phase: np.ndarray, pixel: float) -> Plane:
    v = 0.6 * v
    return _soft(_band(u + 1.6 * np.abs(v - np.floor(v) - 0.5)), 1.8 * pixel)


def _bricks(u: Plane, v: Plane, _phase: np.ndarray, pixel: float) -> Plane:
    v = 1.15 * v
    u = 0.55 * u + 0.5 * (np.floor(v) % 2)
    return np.minimum(_soft(_band(v, 0.74), 1.15 * pixel), _soft(_band(u, 0.87), 0.55 * pixel))


def _scales(u: Plane, v: Plane, _phase: np.ndarray, _pixel: float) -> Plane:
    # Overlapping discs in staggered rows: the row below shows wherever the upper row's disc does not cover it.
    v = 1.7 * v
    row = np.floor(v)
    rise = v - row
    upper, lower = u + 0.5 * (row % 2), u + 0.5 * ((row + 1) % 2)
    near = np.hypot(upper - np.floor(upper) - 0.5, rise * 0.55)
    far = np.hypot(lower - np.floor(lower) - 0.5, (rise + 1) * 0.55)
    return np.where(near < 0.52, near, np.minimum(far, 1.0)) ** 2 * 3.0 % 1.0 * 0.9


def _honeycomb(u: Plane, v: Plane, _phase: np.ndarray, pixel: float) -> Plane:
    # The nearest of two interleaved rectangular lattices is the centre of the hexagon a point lies in.
    tall = math.sqrt(3)
    au, av = u - np.floor(u) - 0.5, v - tall * np.floor(v / tall) - tall / 2
    bu, bv = u + 0.5 - np.floor(u + 0.5) - 0.5, v + tall / 2 - tall * np.floor(v / tall + 0.5) - tall / 2
    first = au**2 + av**2 < bu**2 + bv**2
    x, y = np.abs(np.where(first, au, bu)), np.abs(np.where(first, av, bv))
    return _soft(0.39 - np.maximum(x, 0.5 * x + 0.866 * y), pixel)


def _marble(u: Plane, v: Plane, phase: np.ndarray, _pixel: float) -> Plane:
    bent = 0.55 * u + 0.34 * np.sin(2.3 * v + phase[0]) + 0.22 * np.sin(3.4 * u + 1.9 * v + phase[1])
    return 0.5 + 0.5 * np.sin(_TAU * bent + 1.2 * np.sin(1.4 * v - 2.2 * u + phase[2]))


def _gingham(u: Plane, v: Plane, _phase: np.ndarray, pixel: float) -> Plane:
    return 0.5 * (_soft(_band(0.8 * u), 0.8 * pixel) + _soft(_band(0.8 * v), 0.8 * pixel))


def _blots(u: Plane, v: Plane, phase: np.ndarray, pixel: float) -> Plane:
    # Waves of one length in all directions add up to a random field whose level set is a pattern of blots.
    field = np.zeros_like(u)
    for turn, shift in enumerate(phase):
        angle = math.pi * turn / len(phase)
        field += np.cos(5.4 * (math.cos(angle) * u + math.sin(angle) * v) + shift)
    return _soft(0.13 * (field - 0.6), pixel)


TEXTURES: dict[str, Callable[[Plane, Plane, np.ndarray, float], Plane]] = {
    "stripes": _stripes,
    "checks": _checks,
    "dots": _dots,
    "zigzag": _zigzag,
    "bricks": _bricks,
    "scales": _scales,
    "honeycomb": _honeycomb,
    "marble": _marble,
    "gingham": _gingham,
    "blots": _blots,
}

# sRGB in [0, 1].
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.90, 0.17, 0.18),
    "orange": (0.97, 0.51, 0.09),
    "yellow": (0.96, 0.81, 0.10),
    "lime": (0.58, 0.80, 0.12),
    "green": (0.10, 0.62, 0.29),
    "teal": (0.08, 0.68, 0.67),
    "blue": (0.14, 0.40, 0.88),
    "violet": (0.49, 0.27, 0.84),
    "pink": (0.95, 0.36, 0.66),
    "brown": (0.60, 0.37, 0.19),
}


# --- scenes --------------------------------------------------------------------------------------------------------

_BACKGROUND_WAVES = 14
_BLOT_WAVES = 7


@dataclasses.dataclass(frozen=True)
class Scene:
    """Everything random about one picture; lengths are shares of the picture's side.

    Attributes:
        radius: of the object.
        centre: of the object, ``(2,)`` from the top left corner, x first.
        angle: of the object, radians.
        texture_angle: of the texture, radians.
        period: of the texture.
        phase: ``(7,)`` float32, the texture's offsets, radians.
        tones: ``(2, 3)`` the object's dark and light colour.
        ground: ``(2, 3)`` the background's two colours.
        waves: ``(14, 4)`` the background's plane waves: frequency in x and y (cycles a side), amplitude, phase.
    """

    radius: float
    centre: NDArray[np.float64]
    angle: float
    texture_angle: float
    period: float
    phase: np.ndarray
    tones: NDArray[np.float64]
    ground: NDArray[np.float64]
    waves: NDArray[np.float64]


def random_scene(rng: np.random.Generator, colour: int) -> Scene:
    """Draw position, size, rotations, tones and background; nothing in it depends on shape or texture."""
    uniform = rng.random(13 + _BLOT_WAVES)
    radius = 0.24 + 0.15 * uniform[0]
    margin = 0.96 * radius
    base = np.array(tuple(COLOURS.values())[colour]) + rng.uniform(-0.06, 0.06, 3)
    # The texture's contrast varies, from faint but visible to strong.
    contrast = 0.4 + 0.6 * math.sqrt(uniform[12])
    grey = 0.25 + 0.5 * uniform[6]
    ground = grey + rng.normal(0, 1, (2, 3)) * (0.05 + 0.08 * uniform[7])
    ground += np.array([[-0.5], [0.5]]) * (0.08 + 0.14 * uniform[8])
    return Scene(
        radius=radius,
        centre=margin + (1 - 2 * margin) * uniform[1:3],
        angle=_TAU * uniform[3],
        texture_angle=_TAU * uniform[4],
        period=0.105 + 0.04 * uniform[5],
        phase=(_TAU * uniform[13:]).astype(np.float32),
        tones=np.clip(np.stack([(1 - 0.64 * contrast) * base, base + 0.34 * contrast * (1 - base)]), 0, 1),
        ground=np.clip(ground, 0.02, 0.98),
        waves=_background(
            rng, slope=0.6 + 1.2 * uniform[9], stretch=0.15 + 0.85 * uniform[10], angle=_TAU * uniform[11]
        ),
    )


def _background(rng: np.random.Generator, *, slope: float, stretch: float, angle: float) -> NDArray[np.float64]:
    """Draw plane waves whose spectrum falls with frequency: from clouds to brushed metal, never a texture class."""
    frequency = np.geomspace(1.0, 16.0, _BACKGROUND_WAVES) * rng.uniform(0.85, 1.15, _BACKGROUND_WAVES)
    direction = angle + stretch * rng.uniform(-math.pi / 2, math.pi / 2, _BACKGROUND_WAVES)
    amplitude = frequency**-slope
    amplitude /= math.sqrt(0.5 * float((amplitude**2).sum()))
    phase = rng.uniform(0, _TAU, _BACKGROUND_WAVES)
    return np.stack([frequency * np.cos(direction), frequency * np.sin(direction), amplitude, phase], axis=1)


@functools.lru_cache(maxsize=4)
def _axis(size: int) -> Plane:
    """Pixel centres along one side, in shares of the side."""
    return ((np.arange(size) + 0.5) / size).astype(np.float32)


def draw_mask(scene: Scene, shape: str, size: int) -> Plane:
    """Return the share of each pixel that the object covers, ``(size, size)`` float32 in [0, 1]."""
    axis = _axis(size)
    x, y = _turn(axis - np.float32(scene.centre[0]), axis - np.float32(scene.centre[1]), scene.angle, scene.radius)
    return np.clip(0.5 - SHAPES[shape](x, y) * np.float32(scene.radius * size), 0, 1)


def draw(scene: Scene, shape: str, texture: str, size: int) -> NDArray[np.uint8]:
    """Return the picture, ``(3, size, size)`` uint8."""
    axis = _axis(size)
    cover = draw_mask(scene, shape, size)
    u, v = _turn(axis, axis, scene.texture_angle, scene.period)
    offset = scene.phase[:2] / np.float32(_TAU) * 4
    tone = TEXTURES[texture](u + offset[0], v + offset[1], scene.phase, 1 / (size * scene.period))
    field = np.clip(0.5 + 0.28 * _waves(axis, scene.waves), 0, 1)
    return np.rint(255 * _blend(cover, _two_tone(scene.tones, tone), _two_tone(scene.ground, field))).astype(np.uint8)


def _turn(x: Plane, y: Plane, angle: float, unit: float) -> tuple[Plane, Plane]:
    """Return the coordinates in a frame that is turned by ``angle`` and measures in ``unit``; y points upwards."""
    cos, sin = np.float32(math.cos(angle) / unit), np.float32(math.sin(angle) / unit)
    row, column = x[None, :], -y[:, None]
    return cos * row + sin * column, cos * column - sin * row


def _waves(axis: Plane, waves: NDArray[np.float64]) -> Plane:
    """Sum plane waves; cos(a + b) = cos a cos b - sin a sin b makes it one small matrix product."""
    column = np.multiply.outer(waves[:, 1] * _TAU, axis) + waves[:, 3:]
    row = np.multiply.outer(waves[:, 0] * _TAU, axis)
    left = np.concatenate([np.cos(column), -np.sin(column)]) * np.tile(waves[:, 2], 2)[:, None]
    return (left.T @ np.concatenate([np.cos(row), np.sin(row)])).astype(np.float32)


def _two_tone(tones: NDArray[np.float64], share: Plane) -> Plane:
    low, high = tones.astype(np.float32)[:, :, None, None]
    return low + (high - low) * share


def _blend(cover: Plane, front: Plane, back: Plane) -> Plane:
    return back + cover * (front - back)
