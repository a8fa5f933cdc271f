"""``ipvit corrupt``: a copy of an image folder under ImageNet-C's corruptions, in its layout."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ipvit.commands.derived import copies
from ipvit.commands.options import Commas, Flag
from ipvit.errors import InputError, did_you_mean, shown

_Names = Parameter(consume_multiple=True, negative="", show_default=False, converter=Commas())
_Numbers = Parameter(consume_multiple=True, negative="", show_default=" ".join, converter=Commas())


def corrupt(
    source: str,
    /,
    *,
    out: Path,
    corruptions: Annotated[tuple[str, ...], _Names] = (),
    severities: Annotated[tuple[str, ...], _Numbers] = ("1", "2", "3", "4", "5"),
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
        Names; further ones: speckle_noise gaussian_blur spatter saturate. [default: the fifteen that count for mCE]
    severities
        From 1 to 5.
    size
        Height and width of the copies in pixels; ImageNet-C's is 224.
    resize
        Shortest side before the crop. [default: 256 for 224 and in proportion, for drawn images the size itself]
    quality
        Of the JPEG files, 1 to 95.
    frost
        Folder of the original's frost pictures, frost1.png to frost5.jpg. [default: drawn ones]
    workers
        Processes that work at once. [default: one a core]
    seed
        Everything random follows from it.
    limit
        Use that many randomly chosen images, always the same ones. [default: all]
    json
        Print a summary as JSON on standard output, nothing else.
    """
    shorter = copies.shortest_side(source, size, resize)
    chosen = _severities(severities)
    _check(chosen, quality)
    copies.check_numbers(size, 8, shorter, workers, limit)
    copies.check_folders(source, out)
    from ipvit.data.derived.corrupted import CorruptedCopy

    job = CorruptedCopy(
        source=copies.open_source(source, shorter),
        view=copies.square(size, shorter),
        corruptions=_names(corruptions),
        severities=tuple(sorted(set(chosen))),
        quality=quality,
        frost=frost,
        seed=seed,
    )
    summary = copies.make(job, out, "corrupting", workers=workers, limit=limit, quiet=json)
    made = "{made:,} files made, {kept:,} were there, of {images:,} images: {out}".format(**summary)
    return copies.tell(summary, json, made, f"to measure on: {_command(out)}")


def _command(out: Path) -> str:
    """Return a command that measures on what the folder holds now, of this call and of earlier ones."""
    from ipvit.data.formats.imagenet_c import PREFIX, ImageNetC
    from ipvit.perturb.corruptions import CORRUPTIONS, EXTRA

    words = ["ipvit corruptions --data", shlex.quote(f"{PREFIX}{out}"), "--model ..."]
    try:
        cells = ImageNetC(str(out)).cells
    except InputError:  # no image could be read
        return " ".join(words)
    there: dict[str, set[int]] = {}
    for name, severity in cells:
        there.setdefault(name, set()).add(severity)
    severities = set.intersection(*there.values())
    if not severities:  # none that all have: the corruption with most of them, alone
        most = max(there, key=lambda name: len(there[name]))
        there, severities = {most: there[most]}, there[most]
    if there.keys() != set(CORRUPTIONS):
        words += ["--corruptions", *(name for name in (*CORRUPTIONS, *EXTRA) if name in there)]
    if severities != {1, 2, 3, 4, 5}:
        words += ["--severities", *map(str, sorted(severities))]
    return " ".join(words)


def _severities(given: tuple[str, ...]) -> tuple[int, ...]:
    try:
        return tuple(int(text) for text in given)
    except ValueError:
        raise InputError(f"--severities are whole numbers from 1 to 5, not {shown(' '.join(given))}") from None


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
