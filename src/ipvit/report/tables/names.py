"""Names that are too long for their place: cut in the middle, and still distinct."""

from __future__ import annotations

from collections.abc import Sequence

from ipvit.core.manifest import DOUBTS, RANDOM_WEIGHTS

_MARKS = {RANDOM_WEIGHTS: " (random)"} | {f" ({doubt})": f" ({doubt.split(' ')[0]})" for doubt in DOUBTS}


def shortened(names: Sequence[str], width: int) -> list[str]:
    """Return names of at most ``width`` characters, longer ones cut in the middle.

    What is left of two different names differs: the cut moves until it does, and where no place does it, the names are
    numbered. That weights are random is said of a short name too.

    >>> shortened(["vit_base_patch16_224", "vit_base_patch32_224", "cnn"], 12)
    ['vit_b…16_224', 'vit_b…32_224', 'cnn']
    """
    whole = list(dict.fromkeys(names))
    if all(len(name) <= width for name in whole):
        return list(names)
    middle = width // 2
    for tail in sorted(range(1, max(2, width - 1)), key=lambda place: abs(place - middle)):
        cut = [_cut(name, width, tail) for name in whole]
        if len(set(cut)) == len(whole):
            return [cut[whole.index(name)] for name in names]
    numbered = [f"{name[: max(1, width - 1 - len(str(n)))]}…{n}" for n, name in enumerate(whole, 1)]
    return [numbered[whole.index(name)] for name in names]


def _cut(name: str, width: int, tail: int) -> str:
    if len(name) <= width:
        return name
    whole = next((mark for mark in _MARKS if name.endswith(mark)), "")
    name, mark = name.removesuffix(whole), _MARKS.get(whole, "")
    width -= len(mark)
    if len(name) > width:
        tail = max(1, min(tail, width - 2))
        name = f"{name[: max(1, width - 1 - tail)]}…{name[-tail:]}"
    return name + mark
