"""Which published set the images of a data set are from: told by their names, never by the name of a folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from ipvit.data.dataset import Items
from ipvit.data.published import SETS
from ipvit.data.published.shift_facts import REAL_SUFFIX, V2_VARIANTS
from ipvit.data.published.shift_facts import SIZES as SHIFT_SIZES

IMAGENET_REAL = "imagenet-real"
IMAGENET, IMAGENET_C, VOC, CUE_CONFLICT = "imagenet", "imagenet-c", "voc", "cue-conflict"

_VALIDATION = re.compile(r"ILSVRC2012_val_000(?!00000)([0-4]\d{4}|50000)")
_VOC = re.compile(r"20(0[7-9]|1[01])_\d{6}")
_CUES = "airplane|bear|bicycle|bird|boat|bottle|car|cat|chair|clock|dog|elephant|keyboard|knife|oven|truck"
_STIMULUS = re.compile(rf"({_CUES})\d+-({_CUES})\d+")

_MOST_NAMES = 100_000

SIZES = {IMAGENET: 50_000, IMAGENET_C: 50_000, VOC: 1_449, CUE_CONFLICT: 1_280}
"""Images of the validation sets of ImageNet and VOC 2012, of ImageNet-C in each version, and cue-conflict stimuli."""


def published_set(data: Items) -> tuple[str, int]:
    """Return the published set that the items are images of, and how many images it has.

    Returns:
        ``imagenet`` (the validation set, as a whole or in part), ``imagenet-c``, ``voc`` (VOC 2012's validation set),
        ``cue-conflict`` (Geirhos et al. 2019), ``imagenet-real``, ``imagenet-v2/VARIANT``, or the word that begins the
        name of another published set, and its size;
        ``("", 0)`` for other images. Another split than the one that numbers are reported on is another set.
    """
    scheme, _, place = data.name.partition(":")
    if scheme == "imagenet-c":
        return (IMAGENET_C, SIZES[IMAGENET_C]) if _all(_VALIDATION, data.ids) else ("", 0)
    if scheme == "voc2012":
        listed = _all(_VOC, data.ids) and not place.endswith(")")  # another split is named behind the folder
        return (VOC, SIZES[VOC]) if listed else ("", 0)
    if scheme == "cue-conflict":
        return (CUE_CONFLICT, SIZES[CUE_CONFLICT]) if _all(_STIMULUS, data.ids) else ("", 0)
    if data.name.endswith(REAL_SUFFIX):
        return IMAGENET_REAL, SIZES[IMAGENET]
    if place and scheme in SHIFT_SIZES:
        variant = place.rpartition("/")[2]
        return (f"{scheme}/{variant}" if variant in V2_VARIANTS else scheme), SHIFT_SIZES[scheme]
    if scheme in SETS and scheme not in ("imagenet", "folder"):
        entry, split = SETS[scheme], place.rpartition("/")[2]
        parts = [part.published for part in entry.splits.get(split, ())]
        reported = split in (entry.reported, "all")
        return (scheme, sum(entry.sizes.get(part, 0) for part in dict.fromkeys(parts))) if reported else ("", 0)
    whole = len(data) == SIZES[IMAGENET] and len(data.classes or ()) == 1000
    return (IMAGENET, SIZES[IMAGENET]) if whole or _all(_VALIDATION, data.ids) else ("", 0)


def known_name(data: Items) -> str:
    """Return the published name of the set that the items are images of, else their own.

    A folder that is only called as a published set is a folder: ``./imagenet-a``.
    """
    if published := published_set(data)[0]:
        return published
    taken = {*SIZES, IMAGENET_REAL, *SHIFT_SIZES, *(f"imagenet-v2/{variant}" for variant in V2_VARIANTS)}
    return f"./{data.name}" if data.name in taken else data.name


def _all(pattern: re.Pattern[str], ids: Sequence[str]) -> bool:
    """Tell whether every image, of very many every so many, has a name of the pattern, without folder and ending."""
    step = max(1, len(ids) // _MOST_NAMES)
    return len(ids) > 0 and all(pattern.fullmatch(PurePosixPath(ids[i]).stem) for i in range(0, len(ids), step))
