"""What opening a folder of JPEG files costs: its fingerprint beside the first scheme's, one sample of each file.

    python benchmarks/fingerprint.py                       # 20,000 small files that are written first
    python benchmarks/fingerprint.py --files 100000 --kb 110
    python benchmarks/fingerprint.py --data imagenet/val   # your own

Files are read from the system's cache where it holds them: the ratio is of the work, not of the drive. The first
scheme is computed beside the present one in every run, to find what was measured under it, and that is counted too.
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

import ipvit
from ipvit.data.fingerprints import sums_of_files


def write_files(root: Path, files: int, kilobytes: int) -> None:
    """Write so many JPEG files of one size into 100 class folders; their names are in no order."""
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG", quality=90)
    content = buffer.getvalue().ljust(1024 * kilobytes, b"\0")
    for number in range(files):
        folder = root / f"n{number % 100:08d}"
        folder.mkdir(exist_ok=True)
        (folder / f"{number * 7919 % files:08d}.jpg").write_bytes(content)


def first_scheme(paths: list[str], sizes: list[int]) -> list[int]:
    """Return the checksums of 1,024 bytes from the middle of each file."""
    found = []
    for path, size in zip(paths, sizes, strict=True):
        file = os.open(path, os.O_RDONLY)
        found.append(zlib.crc32(os.pread(file, 1024, size // 2)))
        os.close(file)
    return found


def seconds(function: Callable[[], object]) -> float:
    """Return how long a call takes on the clock."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main() -> None:
    """Print the medians of some rounds and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="class folders")
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--kb", type=int, default=20, help="size of each file that is written")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(arguments.data or folder)
        if arguments.data is None:
            write_files(root, arguments.files, arguments.kb)
        ids = list(ipvit.load_dataset(root).ids)
        paths = [str(root / name) for name in ids]
        sizes = [(root / name).stat().st_size for name in ids]
        times: dict[str, list[float]] = {"first scheme": [], "both schemes": [], "opening the folder": []}
        for _ in range(arguments.rounds):
            times["first scheme"].append(seconds(lambda: first_scheme(paths, sizes)))
            times["both schemes"].append(seconds(lambda: sums_of_files(paths, sizes)))
            times["opening the folder"].append(seconds(lambda: ipvit.load_dataset(root).fingerprint))
    medians = {name: float(np.median(values)) for name, values in times.items()}
    for name, value in medians.items():
        print(f"{name:20} {value:7.2f} s for {len(ids):,} files")
    before = medians["opening the folder"] - medians["both schemes"] + medians["first scheme"]
    print(f"reading: {medians['both schemes'] / medians['first scheme']:.2f} times the first scheme's")
    print(f"opening the folder: {medians['opening the folder'] / before:.2f} times what it was")


if __name__ == "__main__":
    main()
