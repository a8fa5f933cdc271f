"""What a reader must know of all tables of a run: how far it is, and which earlier studies its folder keeps."""

from __future__ import annotations

import re
from pathlib import Path

from ipvit.core.manifest import RunSummary
from ipvit.core.text.words import counted

_EARLIER = re.compile(r"study\.([0-9]+)\.yaml")


def unfinished(summary: RunSummary, coverage: tuple[int, int, int]) -> list[str]:
    """Say on how many images the numbers of a run rest that has not come to its end.

    Args:
        summary: of the run.
        coverage: on how few and how many images its models were measured, and how many it uses.
    """
    fewest, most, whole = coverage
    how = "was interrupted" if summary.status == "interrupted" else "is still going on, or was ended from outside"
    some = f"{fewest:,}" if fewest == most else f"{fewest:,} to {most:,}"
    left = whole - fewest
    if not left:
        return [f"Unfinished: the run {how}; all {counted(whole, 'image')} were measured under some conditions only."]
    return [f"Unfinished: the run {how}; its numbers rest on {some} of {counted(whole, 'image')}, {left:,} are left."]


def earlier_studies(out: Path) -> list[str]:
    """Name the studies that a run folder keeps of calls that asked for something else."""
    found = sorted(int(match[1]) for path in out.glob("study.*.yaml") if (match := _EARLIER.fullmatch(path.name)))
    if not found:
        return []
    names = [f"study.{number}.yaml" for number in found]
    shown = ", ".join(names) if len(names) <= 3 else f"{names[0]} to {names[-1]}"
    return [f"Earlier studies of this folder, which asked for something else: {shown}."]
