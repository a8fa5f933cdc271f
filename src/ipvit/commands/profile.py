"""``ipvit profile``: one row a model, one column a question."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ipvit.commands.options import Flag
from ipvit.core.terminal import Terminal, print_json
from ipvit.errors import InputError

if TYPE_CHECKING:
    from ipvit.report.profile import Profile

_CELL = 14  # characters of a column: an interval of two numbers with three decimals
_LONGEST_NAME = 26


def profile(folder: Path, /, *, everything: Flag = False, json: Flag = False) -> int:
    """Show what each model relies on: one row a model, one column a question, each with its interval and rank.

    Nothing is added up to one score. The picture and the table are written into the run folder:
    figures/profile.svg and .pdf, tables/profile.csv, .json, .md and .tex.

    Parameters
    ----------
    folder
        A run folder, or a folder of run folders.
    everything
        Show all that the folder holds on the same data, not only what its last study asked for.
    json
        Print JSON on standard output, nothing else.
    """
    from ipvit.report.build import write_profile
    from ipvit.run_collection import runs_in

    runs = runs_in(folder, everything=everything)
    found = [(run, run.profile) for run in runs]
    if not any(asked.columns for _, asked in found):
        raise InputError(
            f"{str(folder)!r} has no number that a profile could show: it needs finished experiments, for example "
            "accuracy, occlusion or shape-bias"
        )
    for run, asked in found:
        if asked.columns:
            write_profile(asked, run.out, run.looks)
    if json:
        whole = {run.out.name: asked.as_json() for run, asked in found}
        return print_json(found[0][1].as_json() if len(found) == 1 else whole)
    console = Terminal()
    for run, asked in found:
        if len(found) > 1:
            console.print(f"{run.out.name}: {run.manifest.data.name}", style="bold", highlight=False)
        print_profile(asked, console)
        if asked.columns:
            picture = run.out / "figures" / "profile.svg"
            console.print(f"picture: {picture} (and .pdf)", soft_wrap=True, highlight=False)
    return 0


def print_profile(asked: Profile, console: Terminal) -> None:
    """Print a profile: as many columns side by side as fit, each cell a value and its rank, below it the interval."""
    from rich import box
    from rich.table import Table

    from ipvit.report.profile import HOW_TO_READ

    heads, rows = asked.for_people()
    name = max(5, min(max(len(row[0][0]) for row in rows), _LONGEST_NAME)) if rows else 5
    across = max(1, (console.width - name - 3) // (_CELL + 3))
    for start in range(1, len(heads), across):
        places = range(start, min(start + across, len(heads)))
        title = "Profile (number, rank, 95 % interval)" if start == 1 else None
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1))
        table.add_column("model", min_width=len("model"), max_width=name, overflow="fold")
        for place in places:
            table.add_column(heads[place], justify="right", width=_CELL)
        for row in rows:
            cells = [row[place] for place in places]
            if any(value for value, _, _ in cells):
                table.add_row(row[0][0], *(_shown(*cell) for cell in cells))
        console.print(table)
    for note in (HOW_TO_READ, *asked.notes):
        console.print(note, style="dim", highlight=False)


def _shown(value: str, ends: str, rank: str) -> str:
    first = f"{value} (#{rank})" if rank else value
    return f"{first}\n{ends}" if ends else first
