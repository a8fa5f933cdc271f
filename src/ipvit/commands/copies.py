"""What the commands that copy a data set in another form have in common."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ipvit.errors import InputError
from ipvit.files import user_path
from ipvit.terminal import Terminal

if TYPE_CHECKING:
    from ipvit.data.dataset import Dataset


def check_folders(source: str, out: Path) -> None:
    """Raise InputError where a copy would not go into a folder, or into the one that is copied."""
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {str(out)!r} is a file; give a folder")
    folder = user_path(source)
    if folder.is_dir() and out.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"--out {str(out)!r} lies in the images' own folder {source!r}; give a folder outside it")


def check_numbers(size: int, smallest: int, resize: int, workers: int | None, limit: int | None) -> None:
    """Raise InputError for numbers that cannot be meant."""
    if size < smallest:
        raise InputError(f"--size is at least {smallest} pixels, not {size}")
    if resize < size:
        raise InputError(f"--resize {resize} is smaller than the crop, --size {size}")
    if workers is not None and workers < 0:
        raise InputError(f"--workers is 0 or more, not {workers}")
    if limit is not None and limit < 1:
        raise InputError(f"--limit is at least 1, not {limit}")


def shortest_side(source: str, size: int, resize: int | None) -> int:
    """Return the shortest side before the crop: 256 for 224 and in proportion; drawn images need no crop."""
    return resize or (size if source.startswith("demo:") else round(size * 256 / 224))


def open_source(name: str, size: int) -> Dataset:
    """Open the images to copy; drawn ones are drawn ``size`` pixels wide."""
    from ipvit.data import load_dataset, trifeature

    return trifeature.parse(name, size) if name.startswith("demo:") else load_dataset(name)


def cores() -> int:
    """Return how many processes can work at once."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def warn_of_skipped(skipped: list[dict[str, str]], manifest: str) -> None:
    """Say on standard error which images could not be read."""
    if skipped:
        Terminal(stderr=True).print(
            f"ipvit: warning: {len(skipped)} unreadable images left out, for example {skipped[0]['image']!r} "
            f"({skipped[0]['reason']}); all are in {manifest}",
            style="yellow", highlight=False, soft_wrap=True,
        )  # fmt: skip
