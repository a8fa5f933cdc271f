"""The corruptions of ImageNet-C, written plainly from their definitions: loops, scipy and colorsys, nothing of ours.

Each takes an image ``(H, W, 3)`` of bytes, a severity and a random stream, and draws from the stream in the order of
the published code.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable

import cv2
import numpy as np
from scipy import ndimage


def cut(image: np.ndarray) -> np.ndarray:
    return np.uint8(np.clip(image, 0, 1) * 255)


def gaussian(image: np.ndarray, sigma: float) -> np.ndarray:
    sigmas = (sigma, sigma, 0)[: image.ndim]
    return ndimage.gaussian_filter(image, sigmas, mode="nearest", truncate=4)


def gaussian_noise(image, severity, random):
    return cut(image / 255 + random.normal(size=image.shape, scale=[0.08, 0.12, 0.18, 0.26, 0.38][severity - 1]))


def speckle_noise(image, severity, random):
    scale = [0.15, 0.2, 0.35, 0.45, 0.6][severity - 1]
    return cut(image / 255 * (1 + random.normal(size=image.shape, scale=scale)))


def shot_noise(image, severity, random):
    photons = [60, 25, 12, 5, 3][severity - 1]
    counts = np.reshape([random.poisson(mean) for mean in (image / 255 * photons).ravel()], image.shape)
    return cut(counts / photons)


def impulse_noise(image, severity, random):
    amount = [0.03, 0.06, 0.09, 0.17, 0.27][severity - 1]
    hit = random.choice([True, False], size=image.shape, p=[amount, 1 - amount])
    salt = random.choice([True, False], size=image.shape, p=[0.5, 0.5])
    out = image.copy()
    out[hit & salt] = 255
    out[hit & ~salt] = 0
    return out


def defocus_blur(image, severity, random):
    radius, sigma = [(3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)][severity - 1]
    reach = max(8, radius)
    disk = np.zeros((2 * reach + 1, 2 * reach + 1))
    for y in range(-reach, reach + 1):
        for x in range(-reach, reach + 1):
            disk[y + reach, x + reach] = x * x + y * y <= radius * radius
    disk /= disk.sum()
    half = 1 if radius <= 8 else 2
    taps = np.exp(-(np.arange(-half, half + 1) ** 2) / (2 * sigma**2))
    for axis in (0, 1):
        disk = ndimage.correlate1d(disk, taps / taps.sum(), axis=axis, mode="mirror")
    return cut(np.stack([ndimage.correlate(image[..., c] / 255, disk, mode="mirror") for c in range(3)], axis=-1))


def glass_blur(image, severity, random):
    sigma, reach, passes = [(0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)][severity - 1]
    height, width = image.shape[:2]
    x = cut(gaussian(image / 255, sigma))
    for _ in range(passes):
        for h in range(height - reach, reach, -1):
            for w in range(width - reach, reach, -1):
                dx, dy = random.randint(-reach, reach, size=(2,))
                # "swap", as published: both sides are views, so this copies
                x[h, w], x[h + dy, w + dx] = x[h + dy, w + dx], x[h, w]
    return cut(gaussian(x / 255, sigma))


def line_blur(image: np.ndarray, radius: int, sigma: float, angle: float) -> np.ndarray:
    height, width = image.shape[:2]
    total, weights = np.zeros(image.shape), 0.0
    for i in range(2 * radius + 1):
        weight = math.exp(-i * i / (2 * sigma * sigma))
        right = math.ceil(i * math.cos(math.radians(angle)) - 0.5)
        down = math.ceil(i * math.sin(math.radians(angle)) - 0.5)
        rows = np.clip(np.arange(height) + down, 0, height - 1)
        columns = np.clip(np.arange(width) + right, 0, width - 1)
        total += weight * image[rows][:, columns]
        weights += weight
    return np.uint8(np.floor(np.round(total / weights, 3)))  # 99.9999 is 100, and 99.9 is 99


def motion_blur(image, severity, random):
    radius, sigma = [(10, 3), (15, 5), (15, 8), (15, 12), (20, 15)][severity - 1]
    return line_blur(image, radius, sigma, random.uniform(-45, 45))


def enlarge(image: np.ndarray, factor: float) -> np.ndarray:
    for axis in (0, 1):
        side = image.shape[axis]
        inside = math.ceil(side / factor)
        start = (side - inside) // 2
        image = image.take(range(start, start + inside), axis=axis)
    # "nearest", since by default scipy paints a border black where rounding puts it just outside
    return ndimage.zoom(image, (factor, factor, 1)[: image.ndim], order=1, mode="nearest")


def middle(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    top, left = (image.shape[0] - size[0]) // 2, (image.shape[1] - size[1]) // 2
    return image[top : top + size[0], left : left + size[1]]


def zoom_blur(image, severity, random):
    end, step = [(1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)][severity - 1]
    values = image / 255
    pictures = [values, *(middle(enlarge(values, f), image.shape[:2]) for f in np.arange(1, end, step))]
    return cut(np.mean(pictures, axis=0))


def gaussian_blur(image, severity, random):
    return cut(gaussian(image / 255, [1, 2, 3, 4, 6][severity - 1]))


def snow(image, severity, random):
    mean, deviation, factor, threshold, radius, sigma, share = [
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ][severity - 1]
    flakes = middle(enlarge(random.normal(mean, deviation, image.shape[:2]), factor), image.shape[:2])
    flakes = np.where(flakes < threshold, 0, flakes)
    flakes = line_blur(cut(flakes), radius, sigma, random.uniform(-135, -45)) / 255
    x = image / 255
    grey = x @ [0.299, 0.587, 0.114]
    x = share * x + (1 - share) * np.maximum(x, grey[..., None] * 1.5 + 0.5)
    return cut(x + flakes[..., None] + np.rot90(flakes, 2)[..., None])


def fog(image, severity, random):
    strength, fall = [(1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)][severity - 1]
    height, width = image.shape[:2]
    n = 2 ** math.ceil(math.log2(max(height, width)))
    field, step, wobble = np.zeros((n, n)), n, 100.0
    while step >= 2:
        half = step // 2
        for diamond, first_row, first_column in ((False, half, half), (True, 0, half), (True, half, 0)):
            around = [(-half, 0), (half, 0), (0, -half), (0, half)]
            if not diamond:
                around = [(-half, -half), (-half, half), (half, -half), (half, half)]
            for y in range(first_row, n, step):
                for x in range(first_column, n, step):
                    total = sum(field[(y + dy) % n, (x + dx) % n] for dy, dx in around)
                    field[y, x] = total / 4 + wobble * random.uniform(-wobble, wobble)
        step, wobble = half, wobble / fall
    field = (field - field.min()) / (field.max() - field.min())
    brightest = image.max() / 255
    return cut((image / 255 + strength * field[:height, :width, None]) * brightest / (brightest + strength))


def in_hsv(image: np.ndarray, change: Callable[[float, float, float], tuple[float, float, float]]) -> np.ndarray:
    pixels = [colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*p))) for p in (image / 255).reshape(-1, 3)]
    return cut(np.reshape(pixels, image.shape))


def brightness(image, severity, random):
    return in_hsv(image, lambda h, s, v: (h, s, min(1, v + [0.1, 0.2, 0.3, 0.4, 0.5][severity - 1])))


def saturate(image, severity, random):
    times, plus = [(0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)][severity - 1]
    return in_hsv(image, lambda h, s, v: (h, min(1, s * times + plus), v))


def contrast(image, severity, random):
    x = image / 255
    means = x.mean(axis=(0, 1))
    return cut((x - means) * [0.4, 0.3, 0.2, 0.1, 0.05][severity - 1] + means)


def elastic_transform(image, severity, random):
    side = 244 * min(image.shape[:2]) / 224
    strength, sigma, reach = [
        (side * 2, side * 0.7, side * 0.1),
        (side * 2, side * 0.08, side * 0.2),
        (side * 0.05, side * 0.01, side * 0.02),
        (side * 0.07, side * 0.01, side * 0.02),
        (side * 0.12, side * 0.01, side * 0.02),
    ][severity - 1]
    height, width = image.shape[:2]
    x, y, arm = width // 2, height // 2, min(height, width) // 3
    points = np.array([[x + arm, y + arm], [x + arm, y - arm], [x - arm, y - arm]])
    moved = points + random.uniform(-reach, reach, size=(3, 2))
    # where each pixel of the result comes from: the affine map from the moved points back to the points
    back = np.linalg.solve(np.column_stack([moved, np.ones(3)]), points)
    rows, columns = np.mgrid[:height, :width]
    from_x, from_y = (np.stack([columns, rows, np.ones_like(rows)], axis=-1) @ back).transpose(2, 0, 1)
    channels = [
        ndimage.map_coordinates(image[..., c] / 255, [from_y, from_x], order=1, mode="mirror") for c in range(3)
    ]
    dx, dy = (
        strength * ndimage.gaussian_filter(random.uniform(-1, 1, (height, width)), sigma, mode="reflect", truncate=3)
        for _ in range(2)
    )
    place = [rows + dy, columns + dx]
    return cut(np.stack([ndimage.map_coordinates(c, place, order=1, mode="reflect") for c in channels], axis=-1))


def box(n: int, out: int) -> np.ndarray:
    """The matrix that averages ``n`` values into ``out`` as a box filter over pixel centres does."""
    scale, weights = n / out, np.zeros((out, n))
    reach = max(1, scale) / 2
    for i in range(out):
        for j in range(n):
            weights[i, j] = -reach < j + 0.5 - (i + 0.5) * scale <= reach
    return weights / weights.sum(axis=1, keepdims=True)


def box_resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    across = np.uint8(np.einsum("oj,ijc->ioc", box(image.shape[1], size[1]), image) + 0.5)
    return np.uint8(np.einsum("oi,ijc->ojc", box(image.shape[0], size[0]), across) + 0.5)


def pixelate(image, severity, random):
    share = [0.6, 0.5, 0.4, 0.3, 0.25][severity - 1]
    small = box_resize(image, (int(image.shape[0] * share), int(image.shape[1] * share)))
    return box_resize(small, image.shape[:2])


def jpeg_compression(image, severity, random):
    quality = [25, 18, 15, 10, 7][severity - 1]
    _, file = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.imdecode(file, cv2.IMREAD_COLOR)[..., ::-1]


def spatter(image, severity, random):
    mean, deviation, sigma, threshold, last = [
        (0.65, 0.3, 4, 0.69, 0.6),
        (0.65, 0.3, 3, 0.68, 0.6),
        (0.65, 0.3, 2, 0.68, 0.5),
        (0.65, 0.3, 1, 0.65, 1.5),
        (0.67, 0.4, 1, 0.65, 1.5),
    ][severity - 1]
    liquid = gaussian(random.normal(mean, deviation, image.shape[:2]), sigma)
    liquid[liquid < threshold] = 0
    x = image / 255
    if severity > 3:
        mud = gaussian(np.where(liquid > threshold, 1.0, 0.0), last)
        mud = np.where(mud < 0.8, 0, mud)[..., None]
        return cut(x * (1 - mud) + mud * np.array([63, 42, 20]) / 255)
    # OpenCV's edges and distances are part of the definition; the rest is by hand
    liquid = np.uint8(liquid * 255)
    far = np.minimum(cv2.distanceTransform(255 - cv2.Canny(liquid, 50, 150), cv2.DIST_L2, 5), 20)
    grey = np.uint8(ndimage.uniform_filter(far.astype(float), 3, mode="mirror") + 1e-6)
    counts = np.cumsum(np.bincount(grey.ravel(), minlength=256))
    first = counts[counts > 0][0]
    grey = np.rint((counts[grey] - first) / max(1, counts[-1] - first) * 255)
    relief = ndimage.correlate(grey, np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]), mode="mirror")
    relief = np.rint(ndimage.uniform_filter(np.clip(relief, 0, 255), 3, mode="mirror"))
    water = liquid * relief
    return cut(x + (water / water.max() * last)[..., None] * np.array([175, 238, 238]) / 255)


PLAIN = {
    function.__name__: function
    for function in (
        gaussian_noise,
        shot_noise,
        impulse_noise,
        defocus_blur,
        glass_blur,
        motion_blur,
        zoom_blur,
        snow,
        fog,
        brightness,
        contrast,
        elastic_transform,
        pixelate,
        jpeg_compression,
        speckle_noise,
        gaussian_blur,
        spatter,
        saturate,
    )
}
