"""``ipvit diff``: two runs, or two models, image by image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from ipvit.commands.options import AssertOptions, Flag
from ipvit.commands.verdicts.asserting import Asserted
from ipvit.core.terminal import Terminal, print_json
from ipvit.core.text.words import counted
from ipvit.errors import InputError

if TYPE_CHECKING:
    import polars as pl

    from ipvit.analysis.base import Analysis
    from ipvit.verdicts.difference import Diff
    from ipvit.verdicts.families import Families

_MOST_FLIPS = 10  # images in the terminal
_WIDE = 110  # characters from which on an interval stands beside its number


def diff(
    run_a: Annotated[str, Parameter(name="RUN_A")],
    run_b: Annotated[str | None, Parameter(name="RUN_B")] = None,
    /,
    *,
    group: Annotated[list[str] | None, Parameter(negative="", consume_multiple=False)] = None,
    everything: Flag = False,
    page: Path | None = None,
    json: Flag = False,
    must: AssertOptions | None = None,
) -> int:
    """Compare two runs, or two models, image by image: is the second worse than the first?

    Every table's difference (B less A) with its 95 % interval, the paired test with Holm's correction, the difference
    of the drops, the images that flipped, and the smallest difference that could have been found. Nothing is measured.

    Parameters
    ----------
    run_a
        A run folder, or FOLDER:MODEL, that the other one is compared with.
    run_b
        A run folder, or FOLDER:MODEL; left out with --group.
    group
        NAME=MODEL,MODEL,...: compare kinds of networks of one run, the network being the unit; at least twice.
    everything
        Compare all that the folders hold on the same data, not only what their last studies asked for.
    page
        Also write a page with the images that flipped, as thumbnails where the data are at hand.
    json
        Print JSON on standard output, nothing else.
    """
    from ipvit.verdicts.difference import compared_sides
    from ipvit.verdicts.sides import side

    asserted = Asserted(must)
    if group:
        if page is not None:
            raise InputError("--page shows two runs; leave it out with --group")
        return _of_families(run_a, run_b, group, asserted, everything=everything, json=json)
    if run_b is None:
        raise InputError(f"a second run is missing: ipvit diff {run_a} RUN_B, or --group NAME=MODEL,... twice")
    first, second = (side(text, everything=everything) for text in (run_a, run_b))
    found = compared_sides(first, second)
    asserted.decide(second.run)
    if page is not None:
        from ipvit.verdicts.page import shown_flips, write_page
        from ipvit.verdicts.thumbnails import thumbnails

        write_page(page, found, *thumbnails(second.run, shown_flips(found)))
    if json:
        print_json(found.as_json() | asserted.as_json())
    else:
        print_diff(found, Terminal())
        if page is not None:
            Terminal().print(f"page: {page}", soft_wrap=True, highlight=False)
    asserted.tell(json=json)
    return asserted.code(0)


def _of_families(
    folder: str, other: str | None, group: list[str], asserted: Asserted, *, everything: bool, json: bool
) -> int:
    """Compare kinds of networks; return the exit code."""
    from ipvit.verdicts.families import families, read_groups
    from ipvit.verdicts.sides import side

    groups = read_groups(group)
    if other is not None:
        raise InputError(f"--group compares networks of one run; leave out {other!r}")
    run = side(folder, everything=everything).run
    found = families(run, groups)
    asserted.decide(run)
    if json:
        print_json(found.as_json() | asserted.as_json())
    else:
        _print_families(found, Terminal())
    asserted.tell(json=json)
    return asserted.code(0)


def _print_families(found: Families, console: Terminal) -> None:
    from rich import box
    from rich.table import Table

    from ipvit.verdicts.text import family_cells

    heads, rows = family_cells(found)
    title = "Kinds of networks (mean over networks; number of networks)"
    rich = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for number, head in enumerate(heads):
        rich.add_column(head, justify="right" if number else "left")
    for row in rows:
        rich.add_row(*row)
    console.print(rich)
    for sentence in found.verdicts() or ["No two groups are told apart."]:
        console.print(sentence, style="bold", highlight=False)
    for sentence in found.told:
        console.print(sentence, highlight=False)


def print_diff(found: Diff, console: Terminal) -> None:
    """Print a comparison: for each pair of models the tables, what they say, and which images flipped."""
    from ipvit.verdicts.text import could_find, told_of, verdict

    console.print(f"A is {found.a}, B is {found.b}; differences are B less A.", highlight=False)
    for a, b in found.pairs:
        if len(found.pairs) > 1 or found.a != a:
            console.print(f"A: {a}, B: {b}", style="bold", highlight=False)
        for name, analysis in found.analyses.items():
            table = told_of(found.tables.get(name), a, b)
            if table is not None:
                _print_table(table, analysis, console)
                for sentence in (*verdict(table, analysis), could_find(table, analysis)):
                    console.print(sentence, highlight=False)
        _print_profile(found, a, b, console)
        _print_flips(found, a, b, console)
    for (name, models), reason in found.refused.items():
        console.print(f"not compared: {name} of {models}: {reason}", style="yellow", highlight=False)
    for note in found.notes:
        console.print(f"note: {note}", style="yellow", highlight=False)


def _print_table(table: pl.DataFrame, analysis: Analysis, console: Terminal) -> None:
    """Print a table of differences; where the terminal is narrow, that of the drops stands below."""
    from rich import box
    from rich.table import Table

    from ipvit.verdicts.text import cells, places_of

    drops = "drop_difference" in table.columns
    for parts in (("values", "drops"),) if console.width >= _WIDE or not drops else (("values",), ("drops",)):
        heads, rows, title = cells(table, analysis, apart=" " if console.width >= _WIDE else "\n", parts=parts)
        shown = title if "values" in parts else f"{analysis.title}: what is lost and what is retained"
        rich = Table(title=shown, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
        for head, left in heads:
            rich.add_column(head, justify="left" if left else "right", overflow="fold", no_wrap=not left)
        for row in rows:
            if any(row[len(places_of(table)) :]):
                rich.add_row(*row)
        console.print(rich)


def _print_profile(found: Diff, a: str, b: str, console: Terminal) -> None:
    from rich import box
    from rich.table import Table

    from ipvit.verdicts.text import profile_cells, told_of

    table = told_of(found.profile, a, b)
    if table is None or table.height < 2:  # of one experiment its own table says it
        return
    title = "Profile: one number a question"
    rich = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for number, head in enumerate(("question", "A", "B", "B − A", "p (Holm)")):
        rich.add_column(head, justify="right" if number else "left")
    for row in profile_cells(table):
        rich.add_row(*row)
    console.print(rich)


def _print_flips(found: Diff, a: str, b: str, console: Terminal) -> None:
    from ipvit.verdicts.text import flip_line, told_of

    flips = told_of(found.flips, a, b)
    if flips is None:
        return
    for now, what in (("wrong", "A has right and B has wrong"), ("right", "A has wrong and B has right")):
        rows = [row for row in flips.to_dicts() if row["now"] == now]
        if rows:
            more = f", the {_MOST_FLIPS} most confident" if len(rows) > _MOST_FLIPS else ""
            many = counted(len(rows), "image")
            console.print(f"{many} unperturbed that {what}{more}:", highlight=False)
            for row in rows[:_MOST_FLIPS]:
                console.print(f"  {flip_line(row)}", highlight=False)
