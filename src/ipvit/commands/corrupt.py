"""``ipvit corrupt``: a copy of an image folder under ImageNet-C's corruptions, in its layout."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from ipvit.commands import copies
from ipvit.commands.options import Flag
from ipvit.errors import InputError, did_you_mean
from ipvit.preprocessing import View
from ipvit.terminal import Terminal, print_json, progress

if TYPE_CHECKING:
    from ipvit.data.corrupted_copy import CorruptedCopy

_Several = Parameter(consume_multiple=True, negative="")


def corrupt(
    source: str,
    /,
    *,
    out: Path,
    corruptions: Annotated[tuple[str, ...], _Several] = (),
    severities: Annotated[tuple[int, ...], _Several] = (1, 2, 3, 4, 5),
    size: int = 224,
    resize: int | None = None,
    quality: int = 85,
    frost: str | None = None,
    workers: int | None = None,
    seed: int = 0,
    limit: int | None = None,
    json: Flag = False,
) -> int:
    """Copy images under ImageNet-C's corruptions, as OUT/CORRUPTION/SEVERITY/CLASS/NAME.JPEG, or continue.

    Parameters
    ----------
    source
        A folder of class folders, a .tar of them, demo:trifeature, or another name that --data takes.
    out
        Folder for the copy; run again on it to continue, or to add corruptions, severities or images.
    corruptions
        Names; the fifteen that count for mCE by default. Further ones: speckle_noise gaussian_blur spatter saturate.
    severities
        From 1 to 5.
    size
        Height and width of the copies in pixels; ImageNet-C's is 224.
    resize
        Shortest side before the crop; 256 for 224 and in proportion, for drawn images the size itself.
    quality
        Of the JPEG files, 1 to 95.
    frost
        Folder of the original's frost pictures, frost1.png to frost5.jpg; drawn ones by default.
    workers
        Processes that work at once; one a core by default.
    seed
        Everything random follows from it.
    limit
        Use that many images.
    json
        Print a summary as JSON on standard output, nothing else.
    """
    shorter = copies.shortest_side(source, size, resize)
    _check(severities, quality)
    copies.check_numbers(size, 8, shorter, workers, limit)
    copies.check_folders(source, out)
    from ipvit.data.corrupted_copy import CorruptedCopy

    job = CorruptedCopy(
        source=copies.open_source(source, shorter),
        # half a pixel, so that rounding down gives the wanted side again
        view=View((size, size), crop_pct=size / (shorter + 0.5), interpolation="bilinear"),
        corruptions=_names(corruptions),
        severities=tuple(sorted(set(severities))),
        quality=quality,
        frost=frost,
        seed=seed,
    )
    return _run(job, out, workers if workers is not None else copies.cores(), limit, json)


def _run(job: CorruptedCopy, out: Path, workers: int, limit: int | None, json: bool) -> int:
    from ipvit.data import corrupted_copy, corrupted_folder
    from ipvit.data.subset import subset_indices
    from ipvit.engine.lock import FolderLock

    start = time.monotonic()
    indices = subset_indices(job.source, limit).tolist()
    skipped: dict[int, str] = {}
    written = kept = 0
    job.identity()  # a frost folder that cannot be used is found before anything is made
    out.mkdir(parents=True, exist_ok=True)
    with FolderLock(out):
        corrupted_folder.prepare(job, out)
        corrupted_folder.write_manifest(job, out, skipped, whole=False)
        with progress("corrupting", len(indices), shown=not json) as advance:
            for made in corrupted_copy.make(job, out, indices, workers):
                if made.reason is not None:
                    skipped[made.index] = made.reason
                written, kept = written + made.written, kept + made.kept
                advance()
        manifest = corrupted_folder.write_manifest(job, out, skipped, whole=True)
        there = [index for index in indices if index not in skipped]
        sheet = corrupted_folder.write_contact_sheet(job, out, there)
    summary = {
        "out": str(out),
        "made": written,
        "kept": kept,
        "images": len(there),
        "skipped": manifest["skipped"],
        "settings": manifest["settings"],
        "manifest": str(out / corrupted_folder.MANIFEST),
        "contact_sheet": None if sheet is None else str(sheet),
        "seconds": round(time.monotonic() - start, 1),
    }
    _tell(summary, json)
    return 0 if there else 1


def _tell(summary: dict, json: bool) -> None:
    copies.warn_of_skipped(summary["skipped"], summary["manifest"])
    if json:
        print_json(summary)
        return
    console = Terminal(soft_wrap=True, highlight=False)
    console.print(
        f"{summary['made']:,} files made, {summary['kept']:,} were there, of {summary['images']:,} images: "
        f"{summary['out']}"
    )
    console.print(f"to measure on: ipvit corruptions --data imagenet-c:{summary['out']} --model ...")
    if summary["contact_sheet"]:
        console.print(f"to look at: {summary['contact_sheet']}")


def _check(severities: tuple[int, ...], quality: int) -> None:
    if not severities:
        raise InputError("--severities needs at least one, from 1 to 5")
    if wrong := [severity for severity in severities if not 1 <= severity <= 5]:
        raise InputError(f"--severities lie between 1 and 5, not {wrong[0]}")
    if not 1 <= quality <= 95:
        raise InputError(f"--quality lies between 1 and 95, not {quality}")


def _names(given: tuple[str, ...]) -> tuple[str, ...]:
    from ipvit.perturb.corruptions import CORRUPTIONS, EXTRA

    known = (*CORRUPTIONS, *EXTRA)
    for name in given:
        if name not in known:
            hint = did_you_mean(name, known)
            raise InputError(f"--corruptions: there is no {name!r}; known: {', '.join(known)}.{hint}")
    return tuple(name for name in known if name in given) or CORRUPTIONS
