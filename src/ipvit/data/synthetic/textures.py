"""``demo:textures``: small paintings and textures drawn by this code, as styles where there is no folder of paintings.

A painting is a function of (seed, its number) alone and looks the same at every size: everything is drawn in shares of
the side, and anti-aliased at the end.
"""

from __future__ import annotations

import colorsys
import functools
import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ipvit.data.dataset import BaseDataset, fingerprint
from ipvit.errors import InputError
from ipvit.perturb import seeding

NAME = "demo:textures"

Plane = np.ndarray
"""float32 numbers, ``(size, size)``, or ``(size, size, 3)`` with colours."""

_DEFAULT_N = 30
# Part of the fingerprint: raise it whenever the drawing changes.
_DRAWING_VERSION = 1
_TAU = 2 * math.pi


class Textures(BaseDataset):
    """Drawn paintings without labels, see :class:`ipvit.data.dataset.Dataset` for the attributes.

    Args:
        n: number of paintings.
        size: height and width in pixels.
        seed: another seed is another set.

    >>> data = Textures(n=3, size=32)
    >>> list(data.ids)
    ['impression-000', 'swirls-001', 'points-002']
    >>> tuple(data.read(0).shape)
    (3, 32, 32)
    """

    def __init__(self, n: int = _DEFAULT_N, size: int = 256, seed: int = 0) -> None:
        if n < 1 or size < 16:
            raise InputError(f"{NAME} needs at least 1 painting of at least 16 pixels, not n={n}, size={size}")
        self.name, self.size = NAME, size
        kinds = list(KINDS)
        self.ids = [f"{kinds[i % len(kinds)]}-{i:03d}" for i in range(n)]
        self.labels = np.full(n, -1, dtype=np.int64)
        self.fingerprint = fingerprint("textures", _DRAWING_VERSION, n, size, seed)
        self._keys = seeding.keys(self.ids, "textures", seed)

    def read(self, index: int) -> Tensor:
        """Draw painting ``index``: ``(3, size, size)`` uint8."""
        pixels = draw(self.ids[index].rpartition("-")[0], int(self._keys[index]), self.size)
        return torch.from_numpy(pixels).permute(2, 0, 1)


@functools.lru_cache(maxsize=64)
def draw(kind: str, key: int, size: int) -> NDArray[np.uint8]:
    """Return one painting, ``(size, size, 3)`` uint8; ``kind`` is one of :data:`KINDS`."""
    rng = seeding.generator(key)
    picture = KINDS[kind](rng, _palette(rng), size)
    return np.rint(255 * np.clip(picture, 0, 1)).astype(np.uint8)


# --- colours and fields --------------------------------------------------------------------------------------------


def _palette(rng: np.random.Generator) -> np.ndarray:
    """Return six colours from dark to light, ``(6, 3)``: two or three hues, as a painter would lay them out."""
    hue, spread = rng.random(), rng.uniform(0.05, 0.5)
    hues = hue + spread * rng.choice([0.0, 0.5, 1.0], 6)
    lightness = np.linspace(0.12, 0.93, 6) + rng.uniform(-0.05, 0.05, 6)
    saturation = rng.uniform(0.25, 0.95) * rng.uniform(0.6, 1.0, 6)
    colours = [colorsys.hls_to_rgb(h % 1, light, s) for h, light, s in zip(hues, lightness, saturation, strict=True)]
    return np.array(colours, dtype=np.float32)


def _shade(palette: np.ndarray, tone: Plane) -> Plane:
    """Return the palette's colours along a tone in [0, 1], dark to light."""
    place = np.clip(tone, 0, 1) * (len(palette) - 1)
    low = np.minimum(place.astype(np.intp), len(palette) - 2)
    return palette[low] + (place - low)[..., None].astype(np.float32) * (palette[low + 1] - palette[low])


def _axes(size: int) -> tuple[Plane, Plane]:
    """Return x and y of the pixel centres, in shares of the side."""
    axis = ((np.arange(size) + 0.5) / size).astype(np.float32)
    return axis[None, :], axis[:, None]


def _field(rng: np.random.Generator, low: float, high: float, slope: float = 1.0, n: int = 40) -> Callable[..., Plane]:
    """Return a random smooth function of x and y: plane waves of ``low`` to ``high`` cycles a side, variance 1."""
    frequency = np.geomspace(low, high, n)
    angle, phase = rng.uniform(0, _TAU, n), rng.uniform(0, _TAU, n)
    amplitude = frequency**-slope
    amplitude /= math.sqrt(0.5 * float((amplitude**2).sum()))
    across, down = _TAU * frequency * np.cos(angle), _TAU * frequency * np.sin(angle)

    def value(x: Plane, y: Plane) -> Plane:
        total = np.zeros(np.broadcast_shapes(x.shape, y.shape), dtype=np.float32)
        for a, b, strength, start in zip(across, down, amplitude, phase, strict=True):
            total += np.float32(strength) * np.cos(np.float32(a) * x + np.float32(b) * y + np.float32(start))
        return total

    return value


def _tone(field: Plane) -> Plane:
    """Turn a field of variance 1 into tones that fill [0, 1] evenly."""
    return 0.5 + 0.5 * np.tanh(0.8 * field)


# --- kinds ---------------------------------------------------------------------------------------------------------


def _strokes(
    rng: np.random.Generator,
    palette: np.ndarray,
    size: int,
    *,
    layers: Sequence[tuple[int, float, float]],
    bend: float,
    jitter: float,
) -> Plane:
    """Paint layers of brush strokes (count, length, width in shares of the side) along a flow field.

    ``bend`` is how much the flow turns over the picture, ``jitter`` how far a stroke's tone strays, 0 to 1.
    """
    x, y = _axes(size)
    flow, tones = _field(rng, 0.6, 2.5, 1.2), _field(rng, 0.7, 4.0, 0.8)
    lean = rng.uniform(0, _TAU)
    canvas = _shade(palette, _tone(tones(x, y)))
    for count, length, width in layers:
        starts = rng.random((count, 2)).astype(np.float32) * 1.1 - 0.05
        strays = jitter * rng.uniform(-1, 1, count) + _tone(tones(starts[:, 0], starts[:, 1]))
        colours = _shade(palette, strays.astype(np.float32))
        bristles, depth = rng.uniform(0, _TAU, (count, 2)), rng.uniform(0.55, 1.0, count)
        steps = int(np.clip(length / width, 1, 5))
        paths = _paths(starts, flow, lean, bend, length, steps)
        for i in range(count):
            _stroke(canvas, paths[i], width, colours[i], bristles[i], float(depth[i]))
    return canvas


def _paths(starts: Plane, flow: Callable[..., Plane], lean: float, bend: float, length: float, steps: int) -> Plane:
    """Follow the flow from each point, ``(N, 2)``; ``(N, steps + 1, 2)``."""
    points = [starts]
    for _ in range(steps):
        angle = lean + bend * flow(points[-1][:, 0], points[-1][:, 1])
        points.append(points[-1] + np.float32(length / steps) * np.stack([np.cos(angle), np.sin(angle)], axis=1))
    return np.stack(points, axis=1)


def _stroke(canvas: Plane, path: Plane, width: float, colour: Plane, bristles: np.ndarray, depth: float) -> None:
    """Paint one stroke: a soft-edged band around the path, lighter and darker across it as bristles leave it."""
    size = len(canvas)
    low = np.clip(((path.min(axis=0) - width) * size).astype(int), 0, size)
    high = np.clip(((path.max(axis=0) + width) * size).astype(int) + 1, 0, size)
    if (high <= low).any():
        return
    x = ((np.arange(low[0], high[0]) + 0.5) / size).astype(np.float32)[None, :]
    y = ((np.arange(low[1], high[1]) + 0.5) / size).astype(np.float32)[:, None]
    distance: np.ndarray = np.full((1, 1), np.inf, dtype=np.float32)
    side = distance
    for (ax, ay), (bx, by) in itertools.pairwise(path):
        dx, dy = bx - ax, by - ay
        squared = float(dx * dx + dy * dy) + 1e-12
        along = (((x - ax) * dx + (y - ay) * dy) / squared).clip(0, 1)
        here = np.hypot(x - ax - along * dx, y - ay - along * dy)
        across = ((x - ax) * dy - (y - ay) * dx) / math.sqrt(squared)
        side = np.where(here < distance, across, side)
        distance = np.minimum(distance, here)
    cover = np.clip((width / 2 - distance) * size + 0.5, 0, 1) * np.float32(depth)
    ridge = np.cos(side * np.float32(9 / width) + bristles[0]) + 0.6 * np.cos(
        side * np.float32(23 / width) + bristles[1]
    )
    paint = colour + (0.07 * ridge.astype(np.float32))[..., None]
    window = canvas[low[1] : high[1], low[0] : high[0]]
    window += cover[..., None] * (paint - window)


def _impression(rng: np.random.Generator, palette: np.ndarray, size: int) -> Plane:
    layers = ((260, 0.16, 0.055), (900, 0.085, 0.026))
    return _strokes(rng, palette, size, layers=layers, bend=0.9, jitter=0.22)


def _swirls(rng: np.random.Generator, palette: np.ndarray, size: int) -> Plane:
    return _strokes(rng, palette, size, layers=((200, 0.25, 0.05), (900, 0.2, 0.016)), bend=2.4, jitter=0.3)


def _points(rng: np.random.Generator, palette: np.ndarray, size: int) -> Plane:
    return _strokes(rng, palette, size, layers=((500, 0.002, 0.06), (1900, 0.002, 0.028)), bend=0.0, jitter=0.38)


def _fur(rng: np.random.Generator, palette: np.ndarray, size: int) -> Plane:
    return _strokes(rng, palette, size, layers=((250, 0.2, 0.05), (1900, 0.1, 0.009)), bend=0.8, jitter=0.33)


def _hatching(rng: np.random.Generator, palette: np.ndarray, size: int) -> Plane:
    """Draw ruled lines in three directions, the darker the tone the more of them."""
    x, y = _axes(size)
    tones, wobble = _tone(_field(rng, 0.7, 3.5, 0.8)(x, y)), _field(rng, 1.5, 7.0)(x, y)
    lean, rate = rng.uniform(0, math.pi), rng.uniform(28, 42)
    ink, paper = palette[0], palette[5]
    cover = np.zeros((size, size), dtype=np.float32)
    for turn, limit in ((0.0, 1.0), (1.1, 0.62), (2.0, 0.36)):
        across = (x * math.cos(lean + turn) + y * math.sin(lean + turn)) * rate + 0.22 * wobble
        distance = np.abs(across - np.floor(across) - 0.5) / rate
        width = 0.5 * np.clip((limit - tones) / limit, 0, 0.75) / rate
        cover = np.maximum(cover, np.clip((width - distance) * size + 0.5, 0, 1) * (width > 0))
    wash = 0.75 * paper + 0.25 * _shade(palette, 0.35 + 0.6 * tones)
    return wash + cover[..., None] * (ink - wash)


def _watercolour(rng: np.random.Generator, palette: np.ndarray, size: int) -> Plane:
    """Flood washes into each other: a warped field in few tones, each with a dark rim where its pigment dried."""
    x, y = _axes(size)
    bend, grain = _field(rng, 1.0, 9.0, 1.1), _field(rng, 30.0, 90.0, 0.2)(x, y)
    tones = _tone(_field(rng, 0.8, 5.0, 0.9)(x + 0.09 * bend(x, y), y + 0.09 * bend(y, x))) * 6
    step = np.floor(tones)
    rim = np.exp(-((tones - step) * 9.0)) + 0.5 * np.exp(-((step + 1 - tones) * 14.0))
    wash = _shade(palette, (step + 0.35 * (tones - step)) / 6 + 0.1)
    return wash * (1 - 0.4 * rim[..., None]) + 0.025 * grain[..., None]


def _cells(rng: np.random.Generator, size: int, across: int, jitter: float) -> tuple[NDArray[np.intp], Plane, Plane]:
    """Return the cell of each pixel, the distance to the nearest border (in sides) and the cells' centres."""
    x, y = _axes(size)
    grid = np.stack(np.meshgrid(np.arange(-1, across + 1), np.arange(-1, across + 1)), axis=-1).reshape(-1, 2)
    centres = ((grid + 0.5 + jitter * rng.uniform(-0.5, 0.5, grid.shape)) / across).astype(np.float32)
    rows = []
    for row in y[:, 0]:  # one row at a time keeps the distances small
        squared = (x[0][:, None] - centres[:, 0]) ** 2 + (row - centres[:, 1]) ** 2
        nearest = np.argpartition(squared, 1, axis=1)[:, :2]
        rows.append((nearest[:, 0], np.sqrt(np.take_along_axis(squared, nearest, axis=1))))
    first = np.stack([row[0] for row in rows])
    distances = np.stack([row[1] for row in rows])
    return first, (distances[..., 1] - distances[..., 0]) / 2, centres


def _mosaic(rng: np.random.Generator, palette: np.ndarray, size: int) -> Plane:
    """Lay small stones of nearly one colour each, with grout between them."""
    cell, border, centres = _cells(rng, size, int(rng.integers(15, 23)), 0.75)
    tones = _tone(_field(rng, 0.7, 3.0, 0.8)(centres[:, 0], centres[:, 1])) + rng.uniform(-0.22, 0.22, len(centres))
    stones = _shade(palette, tones.astype(np.float32))[cell]
    grout = palette[int(rng.integers(0, 2)) * 5]
    cover = np.clip((border - 0.004) * size + 0.5, 0, 1)[..., None]
    return grout + cover * (stones * (0.9 + 4.0 * np.minimum(border, 0.04)[..., None]) - grout)


def _crackle(rng: np.random.Generator, palette: np.ndarray, size: int) -> Plane:
    """Fire a glaze with large and small cracks."""
    x, y = _axes(size)
    tones, warp = _tone(_field(rng, 0.8, 6.0, 1.0)(x, y)), _field(rng, 6.0, 30.0, 0.6)(x, y)
    picture = _shade(palette, 0.25 + 0.7 * tones + 0.05 * warp)
    for across, width in ((7, 0.006), (17, 0.0025)):
        _, border, _ = _cells(rng, size, across, 1.0)
        cover = np.clip((width * (1 + 0.4 * warp) - border) * size + 0.5, 0, 1)[..., None]
        picture += cover * 0.85 * (palette[0] - picture)
    return picture


def _facets(rng: np.random.Generator, palette: np.ndarray, size: int) -> Plane:
    """Overlay half-planes that fade away from their edge, as cubist painters did."""
    x, y = _axes(size)
    picture = _shade(palette, _tone(_field(rng, 0.6, 2.0)(x, y)))
    for _ in range(90):
        angle, reach = rng.uniform(0, _TAU), rng.uniform(0.05, 0.22)
        px, py = rng.random(2)
        ahead = (x - px) * math.cos(angle) + (y - py) * math.sin(angle)
        aside = np.abs((y - py) * math.cos(angle) - (x - px) * math.sin(angle))
        inside = np.clip(ahead * size + 0.5, 0, 1) * np.clip((reach - aside - 0.5 * ahead) * size + 0.5, 0, 1)
        cover = (inside * np.clip(1 - ahead / (2 * reach), 0, 1) * rng.uniform(0.5, 1.0))[..., None]
        picture += cover * (palette[rng.integers(0, 6)] - picture)
    return picture


def _rings(rng: np.random.Generator, palette: np.ndarray, size: int) -> Plane:
    """Cut through wood or agate: lines of equal height of a warped field."""
    x, y = _axes(size)
    bend = _field(rng, 1.0, 8.0, 1.2)
    height = _field(rng, 0.5, 2.2, 1.0)(x + 0.05 * bend(x, y), y + 0.05 * bend(y, x)) * rng.uniform(4.0, 7.0)
    rise = height - np.floor(height)
    return _shade(palette, 0.12 + 0.55 * rise**0.7 + 0.25 * _tone(_field(rng, 0.8, 3.0)(x, y)))


KINDS: dict[str, Callable[[np.random.Generator, np.ndarray, int], Plane]] = {
    "impression": _impression,
    "swirls": _swirls,
    "points": _points,
    "mosaic": _mosaic,
    "watercolour": _watercolour,
    "fur": _fur,
    "crackle": _crackle,
    "facets": _facets,
    "hatching": _hatching,
    "rings": _rings,
}
