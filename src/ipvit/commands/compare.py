"""``ipvit compare``: our numbers beside the paper's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich import box
from rich.table import Table

from ipvit.commands.options import Flag
from ipvit.commands.published import compare_published
from ipvit.core.terminal import Terminal, print_json
from ipvit.errors import InputError
from ipvit.experiments.registry import published_table

if TYPE_CHECKING:
    import polars as pl

    from ipvit.results import Run


def compare(
    folder: Path,
    /,
    *,
    all: Flag = False,  # noqa: A002 - the option's name
    everything: Flag = False,
    published: Annotated[str | None, Parameter(name="--with")] = None,
    json: Flag = False,
) -> int:
    """Put our numbers beside the paper's: the difference, and whether they can be the same.

    Parameters
    ----------
    folder
        A run folder, or a folder of run folders.
    all
        List also what was not measured here, and where it would be.
    everything
        Compare all that the folder holds on the same data, not only what its last study asked for.
    published
        Compare with another publication instead: robustbench (corruption errors of twelve networks on ImageNet-C,
        accuracies of thirty under AutoAttack) or timm (accuracies of timm's networks on ImageNet).
    json
        Print JSON on standard output, nothing else.
    """
    from ipvit.run_collection import runs_in

    if published is not None:
        published_table(published)  # a word that is none is told before a folder is read
        if all:
            raise InputError("--all lists the paper's numbers; leave it out with --with")
        return compare_published(runs_in(folder, everything=everything), published, folder, json=json)
    runs = runs_in(folder, everything=everything)
    table, notes = together(runs)
    return show(table, notes, everything=all, json=json)


def together(runs: Sequence[Run]) -> tuple[pl.DataFrame, list[str]]:
    """Return everything that the paper gives, with our numbers where there are any, and what to bear in mind."""
    from ipvit.report import comparison

    table = comparison.joined([run.compare(everything=True) for run in runs])
    notes: list[str] = []
    for run in runs:
        notes += run.told if len(runs) == 1 else [f"{run.out.name}: {sentence}" for sentence in run.told]
        strangers = comparison.without_counterpart(run.manifest)
        plain = [name for name, reason in strangers.items() if not reason]
        if plain:
            known = "is no network" if len(plain) == 1 else "are no networks"
            notes.append(f"{', '.join(plain)} {known} of the paper: nothing to compare with")
        notes += [f"{name} is not compared: {reason}" for name, reason in strangers.items() if reason]
        if len(strangers) < len(run.manifest.models):
            notes += comparison.notes(run.manifest)
    return table, [*dict.fromkeys(notes)]


def show(table: pl.DataFrame, notes: Sequence[str], *, everything: bool, json: bool, folder: Path | None = None) -> int:
    """Print a comparison, what it says in one sentence, and what to bear in mind; return the exit code 0.

    Args:
        table: the comparison.
        notes: what to bear in mind.
        everything: list also what was not measured.
        json: print JSON, nothing else.
        folder: what ``ipvit compare`` would be given, where this is another command.
    """
    from ipvit.report import comparison
    from ipvit.report.tables.files import to_records

    if json:
        return print_json({"summary": comparison.summary(table), "notes": [*notes], "quantities": to_records(table)})
    console = Terminal()
    measured = table.filter(table["ours"].is_not_null())
    for rich in _tables(table if everything else measured):
        console.print(rich)
    console.print(comparison.summary(table), highlight=False)
    for note in notes:
        console.print(note, highlight=False, soft_wrap=True)
    missing = table.filter(table["ours"].is_null())
    for reason in comparison.reasons(missing, refused=not everything):
        console.print(reason, highlight=False, soft_wrap=True)
    if missing.height and not everything:
        lists = "--all" if folder is None else f"ipvit compare {folder} --all"
        places = ", ".join(missing["where"].unique(maintain_order=True))
        console.print(
            f"{missing.height} numbers were not measured here, of {places} ({lists} lists them).", style="dim"
        )
    return 0


def _tables(table: pl.DataFrame) -> Iterator[Table]:
    """Yield a table per network and measure, narrow enough for a terminal."""
    import polars as pl

    from ipvit.report.comparison import for_people, title

    measure = pl.col("what").str.splitn(", ", 2)
    parts = table.with_columns(
        measure.struct[0].alias("measure"), measure.struct[1].fill_null("").alias("what")
    ).group_by(["where", "network", "measure"], maintain_order=True)
    for (where, _, measured), frame in parts:
        name = title(frame.row(0, named=True))
        rich = Table(box=box.SIMPLE_HEAD, title=f"{where}, {name}: {measured}", title_justify="left", pad_edge=False)
        for column in ("", "ours", "paper", "diff.", "verdict"):
            rich.add_column(column, justify="left" if column in ("", "verdict") else "right")
        rows = frame.with_columns(what=pl.lit(f"{measured}, ") + pl.col("what"))
        for row in for_people(rows).to_dicts():
            said = row["quantity"].removeprefix(f"{measured}, ")
            rich.add_row(said, row["ours"], row["paper"], row["difference"], row["verdict"])
        yield rich
