"""What the commands that copy a data set in another form have in common."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipvit.core.files import resumable, user_path
from ipvit.core.links import refuse_links
from ipvit.core.preprocessing import View
from ipvit.core.terminal import Terminal, print_json, progress
from ipvit.errors import InputError

if TYPE_CHECKING:
    from ipvit.data.dataset import Dataset
    from ipvit.data.derived.copy import DerivedCopy


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
    from ipvit.data.loading import load_dataset
    from ipvit.data.synthetic import trifeature

    return trifeature.parse(name, size) if name.startswith("demo:") else load_dataset(name)


def square(size: int, shorter: int) -> View:
    """Return how an image becomes a square of ``size`` pixels, its shortest side being ``shorter`` before the crop."""
    # half a pixel, so that rounding down gives the wanted side again
    return View((size, size), crop_pct=size / (shorter + 0.5), interpolation="bilinear")


def make(
    job: DerivedCopy, out: Path, verb: str, *, workers: int | None, limit: int | None, quiet: bool
) -> dict[str, Any]:
    """Make a copy, or continue; return what was done.

    Args:
        job: what is made.
        out: the folder.
        verb: for the progress bar.
        workers: processes that work at once; None for one a core.
        limit: how many images of the source; None for all.
        quiet: show no progress bar.
    """
    from ipvit.core.lock import FolderLock
    from ipvit.data.derived.folder import CopyFolder
    from ipvit.data.subset import subset_indices
    from ipvit.engine.worker_count import usable_cores

    start = time.monotonic()
    indices = subset_indices(job.source, limit).tolist()
    job.check()
    out.mkdir(parents=True, exist_ok=True)
    refuse_links(out)
    with FolderLock(out), resumable():
        folder = CopyFolder(job, out)
        missing = [index for index in indices if index not in folder.there]
        kept = len(indices) - len(missing)
        with progress(verb, len(missing), shown=not quiet) as advance:
            for there in folder.fill(missing, len(usable_cores()) if workers is None else workers):
                kept += there
                advance()
        manifest, sheet = folder.finish()
    return {
        "out": str(out),
        "made": folder.written,
        "kept": kept,
        "images": len(indices) - len(folder.skipped),
        "skipped": manifest["skipped"],
        "settings": manifest["settings"],
        "manifest": str(out / job.manifest),
        "contact_sheet": None if sheet is None else str(sheet),
        "seconds": round(time.monotonic() - start, 1),
    }


def tell(summary: dict[str, Any], json: bool, *lines: str) -> int:
    """Print what was done, as lines or as JSON, and which images could not be read; return the exit code."""
    _warn_of_skipped(summary["skipped"], summary["manifest"])
    if json:
        print_json(summary)
    else:
        console = Terminal(soft_wrap=True, highlight=False)
        for line in lines:
            console.print(line)
        if summary["contact_sheet"]:
            console.print(f"to look at: {summary['contact_sheet']}")
    return 0 if summary["images"] else 1


def _warn_of_skipped(skipped: list[dict[str, str]], manifest: str) -> None:
    if skipped:
        Terminal(stderr=True).print(
            f"ipvit: warning: {len(skipped)} unreadable images left out, for example {skipped[0]['image']!r} "
            f"({skipped[0]['reason']}); all are in {manifest}",
            style="yellow",
            highlight=False,
            soft_wrap=True,
        )
