"""Images per second of every corruption, on one thread, beside the published algorithms and a package, and the share
of a ResNet-50 evaluation that all 95 versions of an image take.

    python benchmarks/corruptions.py [--severity 3] [--size 224] [--images FOLDER] [--reference PYTHON] [--share]
    python benchmarks/corruptions.py --tensors
    python benchmarks/corruptions.py --keyed

``published`` is the algorithm of the code released with ImageNet-C, written plainly on numpy, scipy and OpenCV: loops
over pixels and over taps, float64 throughout. Its motion blur calls ImageMagick; here it sums shifted images.
``imagecorruptions`` is the package ``imagecorruptions-imaug``, which wants an environment of its own: ``--reference``
names the Python of one where it is installed. It works in a process of its own, corruption by corruption in turn with
ipvit, and compiles its glass blur before the clock starts.

With ``--tensors`` the versions that a GPU makes of whole batches run on this processor instead, one thread and a batch
of 16, beside those of the workers, image by image, both stored as JPEG and both without; bytes are compared.

With ``--keyed`` it is those with keyed random numbers, beside the workers' of the same names, without JPEG.

Times are processor times, which on one thread are the wall times of an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from scipy import ndimage

from ipvit.engine.device import pooled_allocator
from ipvit.perturb import keys
from ipvit.perturb.corruptions import CORRUPTIONS, EXTRA, KEYED, SEVERITIES, corrupt, jpeg85
from ipvit.perturb.corruptions.frost_textures import textures
from ipvit.perturb.corruptions.keyed import keyed_tensors
from ipvit.perturb.corruptions.tensor_versions import TENSOR_VERSIONS, corrupt_tensors

Step = Callable[[np.ndarray], object]


def gaussian(x: np.ndarray, sigma: float) -> np.ndarray:
    """Blur as skimage does, which hands over to scipy."""
    return ndimage.gaussian_filter(x, (sigma, sigma, 0)[: x.ndim], mode="nearest")


def glass_blur(x: np.ndarray, s: int) -> np.ndarray:
    """Displace pixel by pixel."""
    sigma, reach, passes = ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))[s]
    x = (gaussian(x / 255, sigma) * 255).astype(np.uint8)
    for _ in range(passes):
        for h in range(x.shape[0] - reach, reach, -1):
            for w in range(x.shape[1] - reach, reach, -1):
                dx, dy = np.random.randint(-reach, reach, size=(2,))
                x[h, w] = x[h + dy, w + dx]
    return np.clip(gaussian(x / 255, sigma), 0, 1) * 255


def line(x: np.ndarray, radius: int, sigma: float, angle: float) -> np.ndarray:
    """Sum shifted images."""
    total, weights = np.zeros(x.shape), 0.0
    for i in range(2 * radius + 1):
        weight = math.exp(-i * i / (2 * sigma * sigma))
        rows = np.arange(x.shape[0]) + math.ceil(i * math.sin(math.radians(angle)) - 0.5)
        columns = np.arange(x.shape[1]) + math.ceil(i * math.cos(math.radians(angle)) - 0.5)
        total += weight * x[np.clip(rows, 0, len(x) - 1)][:, np.clip(columns, 0, x.shape[1] - 1)]
        weights += weight
    return (total / weights).astype(np.uint8)


def motion_blur(x: np.ndarray, s: int) -> np.ndarray:
    """Blur along a line."""
    return line(x, *((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))[s], np.random.uniform(-45, 45))


def enlarge(x: np.ndarray, factor: float) -> np.ndarray:
    """Enlarge the middle with scipy."""
    side = len(x)
    inside = math.ceil(side / factor)
    top = (side - inside) // 2
    x = np.asarray(ndimage.zoom(x[top : top + inside, top : top + inside], (factor, factor, 1), order=1))
    top = (len(x) - side) // 2
    return x[top : top + side, top : top + side]


def zoom_blur(x: np.ndarray, s: int) -> np.ndarray:
    """Average enlargements."""
    end, step = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))[s]
    x, factors = (x / 255).astype(np.float32), np.arange(1, end, step)
    total = sum(enlarge(x, factor) for factor in factors)
    return np.clip((x + total) / (len(factors) + 1), 0, 1) * 255


def snow(x: np.ndarray, s: int) -> np.ndarray:
    """Add flakes."""
    mean, deviation, factor, threshold, radius, sigma, share = (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    )[s]
    x = (x / 255).astype(np.float32)
    flakes = enlarge(np.random.normal(mean, deviation, (*x.shape[:2], 1)), factor)[..., 0]
    flakes[flakes < threshold] = 0
    flakes = (np.clip(flakes, 0, 1) * 255).astype(np.uint8)
    flakes = line(flakes, radius, sigma, np.random.uniform(-135, -45))[..., None] / 255
    x = share * x + (1 - share) * np.maximum(x, cv2.cvtColor(x, cv2.COLOR_RGB2GRAY)[..., None] * 1.5 + 0.5)
    return np.clip(x + flakes + np.rot90(flakes, 2), 0, 1) * 255


def defocus_blur(x: np.ndarray, s: int) -> np.ndarray:
    """Filter channel by channel."""
    radius, sigma = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))[s]
    offsets = np.arange(-max(8, radius), max(8, radius) + 1)
    disk = np.float32(offsets[:, None] ** 2 + offsets**2 <= radius**2)
    disk = cv2.GaussianBlur(disk / disk.sum(), (3, 3) if radius <= 8 else (5, 5), sigma)
    return np.clip(np.stack([cv2.filter2D(x[..., c] / 255, -1, disk) for c in range(3)], axis=-1), 0, 1) * 255


def elastic_transform(x: np.ndarray, s: int) -> np.ndarray:
    """Warp with scipy."""
    strength, sigma, reach = 244 * np.array(
        ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02))[s]
    )
    x = (x / 255).astype(np.float32)
    height, width = x.shape[:2]
    middle, arm = np.array((height // 2, width // 2), np.float32), min(height, width) // 3
    points = (middle + arm * np.array([[1, 1], [1, -1], [-1, -1]])).astype(np.float32)
    moved = points + np.random.uniform(-reach, reach, (3, 2)).astype(np.float32)
    x = cv2.warpAffine(x, cv2.getAffineTransform(points, moved), (width, height), borderMode=cv2.BORDER_REFLECT_101)
    dx, dy = (
        ndimage.gaussian_filter(np.random.uniform(-1, 1, (height, width)), sigma, truncate=3)[..., None] * strength
        for _ in range(2)
    )
    across, down, channel = np.meshgrid(np.arange(width), np.arange(height), np.arange(3))
    places = [part.reshape(-1, 1) for part in (down + dy, across + dx, channel)]
    return np.clip(ndimage.map_coordinates(x, places, order=1, mode="reflect").reshape(x.shape), 0, 1) * 255


PUBLISHED: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    f.__name__: f for f in (defocus_blur, glass_blur, motion_blur, zoom_blur, snow, elastic_transform)
}
"""Where the published algorithm is another one than ipvit's; of the rest only the number format differs."""


def some_images(folder: Path | None, size: int, n: int = 8) -> list[np.ndarray]:
    """Return ``n`` photos from a folder, or smooth noise."""
    if folder is None:
        rng = np.random.default_rng(0)
        coarse = [Image.fromarray(rng.integers(0, 256, (28, 28, 3), dtype=np.uint8)) for _ in range(n)]
    else:
        paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
        coarse = [Image.open(path).convert("RGB") for path in paths[:: max(1, len(paths) // n)][:n]]
    return [np.array(picture.resize((size, size), Image.Resampling.BICUBIC)) for picture in coarse]


def seconds(step: Step, images: list[np.ndarray], at_least: float = 0.4) -> float:
    """Return the median time of one image."""
    step(images[0])
    times: list[float] = []
    while sum(times) < at_least or len(times) < 3:
        image = images[len(times) % len(images)]
        started = time.process_time()
        step(image)
        times.append(time.process_time() - started)
    return float(np.median(times))


class Reference:
    """The package in its own environment, asked for one corruption at a time."""

    SCRIPT = """
import sys, time
import cv2
import numpy as np
from imagecorruptions import corrupt
cv2.setNumThreads(1)
images = np.load(sys.argv[1])
print("ready", flush=True)
for line in sys.stdin:
    name, severity = line.split()
    corrupt(images[0], corruption_name=name, severity=int(severity))
    times = []
    while sum(times) < 0.4 or len(times) < 3:
        image = images[len(times) % len(images)]
        started = time.process_time()
        corrupt(image, corruption_name=name, severity=int(severity))
        times.append(time.process_time() - started)
    print(float(np.median(times)), flush=True)
"""

    def __init__(self, python: str, images: list[np.ndarray], folder: str) -> None:
        np.save(f"{folder}/images.npy", np.stack(images))
        command = [python, "-c", self.SCRIPT, f"{folder}/images.npy"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._answer()

    def seconds(self, name: str, severity: int) -> float:
        """Return the median time of one image."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{name} {severity}\n")
        self.process.stdin.flush()
        return float(self._answer())

    def _answer(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("the reference's process has ended; is imagecorruptions-imaug installed there?")
        return line


def table(severity: int, images: list[np.ndarray], reference: Reference | None) -> None:
    """Print images/s of every corruption."""
    heads = ["ipvit", "published"] + ["imagecorruptions"] * (reference is not None)
    print(f"{'corruption':20}" + "".join(f"{head:>18}" for head in heads))
    total = dict.fromkeys(heads, 0.0)
    for name in CORRUPTIONS + EXTRA:
        times = {"ipvit": seconds(lambda image: corrupt(image, name, severity, 0), images)}  # noqa: B023 - called now
        if name in PUBLISHED:
            times["published"] = seconds(lambda image: np.uint8(PUBLISHED[name](image, severity - 1)), images)  # noqa: B023
        if reference:
            times["imagecorruptions"] = reference.seconds(name, severity)
        print(f"{name:20}" + "".join(f"{1 / times[h]:18.1f}" if h in times else f"{'':18}" for h in heads), flush=True)
        if name in CORRUPTIONS:
            for head in heads:
                total[head] += times.get(head, times["ipvit"])
    print(f"{'the 15, ms an image':20}" + "".join(f"{1000 * total[head]:18.1f}" for head in heads))
    print("(the published total takes ipvit's time where no published algorithm is listed)")
    bare = seconds(lambda image: np.clip(image.astype(np.float32), 0, 255).astype(np.uint8), images)
    print(f"{'floor, ms an image':20}{15 * 1000 * bare:18.1f}  15 times every pixel to float32, clipped and back")


def as_tensors(images: list[np.ndarray], batch: int = 16) -> None:
    """Print how long the tensor versions take on this processor, beside the workers' versions, over all severities."""
    images = (images * batch)[:batch]
    sent = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    heads = ("workers", "tensors", "ratio", "JPEG: workers", "tensors", "ratio", "bytes")
    print(f"{'ms an image':20}" + "".join(f"{head:>15}" for head in heads))
    for name in TENSOR_VERSIONS:
        row: list[float] = []
        same = True
        for jpeg in (False, True):
            store = jpeg85 if jpeg else np.asarray
            plain = tensors = 0.0
            for severity in SEVERITIES:
                started = time.process_time()
                expected = np.stack([store(corrupt(image, name, severity, 0)) for image in images])
                between = time.process_time()
                found = corrupt_tensors(sent, name, severity, jpeg=jpeg)
                plain, tensors = plain + between - started, tensors + time.process_time() - between
                same &= np.array_equal(found.permute(0, 2, 3, 1).numpy(), expected)
            row += [1000 * plain / batch / len(SEVERITIES), 1000 * tensors / batch / len(SEVERITIES), tensors / plain]
        print(f"{name:20}" + "".join(f"{value:15.2f}" for value in row) + f"{'equal' if same else 'DIFFERENT':>15}")


def keyed(images: list[np.ndarray], batch: int = 16) -> None:
    """Print how long the keyed corruptions take on this processor, beside the workers' own, over all severities."""
    images = (images * batch)[:batch]
    sent = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    key = keys([str(number) for number in range(batch)], "benchmark")
    print(f"{'ms an image':20}" + "".join(f"{head:>15}" for head in ("workers", "keyed", "ratio")))
    for name in KEYED:
        plain = tensors = 0.0
        for severity in SEVERITIES:
            keyed_tensors(sent[:1], name, severity, key[:1])  # its tables are made once
            started = time.process_time()
            for image, one in zip(images, key, strict=True):
                corrupt(image, name, severity, one)
            between = time.process_time()
            keyed_tensors(sent, name, severity, key)
            plain, tensors = plain + between - started, tensors + time.process_time() - between
        row = [1000 * taken / batch / len(SEVERITIES) for taken in (plain, tensors)]
        print(f"{name:20}" + "".join(f"{value:15.2f}" for value in [*row, tensors / plain]))


def share(images: list[np.ndarray], batch: int = 16) -> None:
    """Print what all 95 versions of an image take, and what ResNet-50 takes to classify them, both on one thread."""
    from torchvision.models import resnet50

    cells = [(name, severity) for name in CORRUPTIONS + EXTRA for severity in SEVERITIES]
    plain = stored = 0.0
    for name, severity in cells:
        plain += seconds(lambda image: corrupt(image, name, severity, 0), images, 0.05)  # noqa: B023 - called now
        stored += seconds(lambda image: jpeg85(corrupt(image, name, severity, 0)), images, 0.05)  # noqa: B023
    network = resnet50(weights=None).eval()
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float().div(255)
    pixels = pixels.repeat(-(-batch // len(images)), 1, 1, 1)[:batch].contiguous()
    times = []
    with torch.inference_mode(), pooled_allocator(torch.device("cpu")):  # as in a run
        network(pixels)
        for _ in range(5):
            started = time.process_time()
            network(pixels)
            times.append((time.process_time() - started) / batch)
    forward = float(np.median(times)) * len(cells)
    print(f"{len(cells)} versions of an image: {1000 * plain:.0f} ms, stored as JPEG {1000 * stored:.0f} ms")
    print(f"ResNet-50, fp32, batch {batch}, on them: {1000 * forward:.0f} ms")
    print(f"share: {plain / forward:.1%}, with JPEG {stored / forward:.1%}")


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--severity", type=int, default=3)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--images", type=Path, help="a folder of photos; smooth noise by default")
    parser.add_argument("--reference", help="the Python of an environment with imagecorruptions-imaug")
    parser.add_argument("--tensors", action="store_true", help="the versions that a GPU makes instead of the table")
    parser.add_argument("--keyed", action="store_true", help="the keyed corruptions instead of the table")
    parser.add_argument("--share", action="store_true", help="the 95 versions against ResNet-50 instead of the table")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    images = some_images(arguments.images, arguments.size)
    started = time.process_time()
    textures()
    print(f"{arguments.size} px, one thread; frost pictures drawn once in {time.process_time() - started:.2f} s")
    if arguments.share:
        share(images)
        return
    if arguments.tensors:
        as_tensors(images)
        return
    if arguments.keyed:
        keyed(images)
        return
    print(f"severity {arguments.severity}, images/s (median)")
    with tempfile.TemporaryDirectory() as folder:
        reference = Reference(arguments.reference, images, folder) if arguments.reference else None
        table(arguments.severity, images, reference)


if __name__ == "__main__":
    main()
