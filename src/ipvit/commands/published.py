"""``ipvit compare DIR --with NAME``: our numbers beside a table that others published."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

from ipvit.core.terminal import Terminal, print_json
from ipvit.errors import CombinedInputError
from ipvit.experiments.registry import published_table

if TYPE_CHECKING:
    import polars as pl

    from ipvit.report.published_comparison import PublishedComparison
    from ipvit.results import Run


def compare_published(runs: Sequence[Run], name: str, folder: Path, *, json: bool) -> int:
    """Show and write what of some runs has a counterpart in a published table.

    Args:
        runs: to compare.
        name: of the table.
        folder: the comparison is written into it, as ``NAME-comparison.csv``, ``.json``, ``.md`` and ``.tex``.
        json: print JSON alone.

    Raises:
        InputError: there is no such table, or nothing of the runs has a counterpart in it; says why.
    """
    from ipvit.report import write_table
    from ipvit.report.published_comparison import joined

    published = published_table(name)
    found = joined([_of_run(run, name, several=len(runs) > 1) for run in runs])
    if found.table.is_empty():
        raise CombinedInputError(
            [f"nothing in {str(folder)!r} can be set beside {published.source}: {line}" for line in found.refused]
        )
    write_table(found.table, folder / f"{name}-comparison")
    return _json(found, published.source) if json else _show(found, published.source)


def _of_run(run: Run, name: str, *, several: bool) -> PublishedComparison:
    """Return what of a run has a counterpart, named after its folder where there are several."""
    import polars as pl

    found = run.compare_published(name)
    if not several:
        return found
    model = pl.format("{}: {}", pl.lit(run.out.name), "model").alias("model")
    refused = tuple(f"{run.out.name}: {line}" for line in found.refused)
    return dataclasses.replace(found, table=found.table.with_columns(model), refused=refused)


def _json(found: PublishedComparison, source: str) -> int:
    from ipvit.report.published_comparison import summary
    from ipvit.report.tables.files import to_records

    return print_json(
        {
            "source": source,
            "summary": summary(found.table),
            "notes": [*found.notes],
            "refused": [*found.refused],
            "quantities": to_records(found.table),
        }
    )


def _show(found: PublishedComparison, source: str) -> int:
    from ipvit.report.published_comparison import summary

    console = Terminal()
    console.print(f"Beside {source}.", highlight=False)
    for (_, model), frame in found.table.group_by(["network", "model"], maintain_order=True):
        first, in_grid = frame.row(0, named=True), frame["corruption"].is_not_null()
        one = frame["n_images"].n_unique() == 1
        console.print(
            f"{model} ({first['weights']}) beside {first['network']}" + (f"; n = {first['n_images']:,}" if one else ""),
            highlight=False,
            soft_wrap=True,
        )
        if not in_grid.all():
            console.print(_numbers(frame.filter(~in_grid)))
        if in_grid.any():
            console.print(_grid(frame.filter(in_grid)))
    console.print(summary(found.table), highlight=False)
    for note in found.notes:
        console.print(note, highlight=False, soft_wrap=True)
    for line in found.refused:
        console.print(f"not compared: {line}", highlight=False, soft_wrap=True)
    return 0


def _numbers(frame: pl.DataFrame) -> Table:
    """Return a table of some numbers of one network."""
    table = _narrow("In %, with 95 % intervals", 1)
    several = ["n"] if frame["n_images"].n_unique() > 1 else []
    for column in ("", *several, "ours", "published", "diff.", "verdict"):
        table.add_column(column, justify="left" if column in ("", "verdict") else "right")
    for row in frame.iter_rows(named=True):
        digits = 2 if row["ours_low"] is not None and row["ours_high"] - row["ours_low"] < 1 else 1
        what = _in_words(row["what"].replace(" (%)", ""))
        difference = f"{row['difference']:+.{digits}f}"
        n_images = [f"{row['n_images']:,}"] if several else []
        table.add_row(what, *n_images, _ours(row, digits), _published(row), difference, row["verdict"])
    return table


def _narrow(title: str, space: int) -> Table:
    """Return a table whose columns stand so close that it fits into 80 characters."""
    return Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", padding=(0, space, 0, 0), pad_edge=False)


def _in_words(name: str) -> str:
    return name.replace("_", " ")


def _ours(row: dict[str, Any], digits: int) -> str:
    ends = "" if row["ours_low"] is None else f" [{row['ours_low']:.1f}, {row['ours_high']:.1f}]"
    return f"{row['ours']:.{digits}f}{ends}"


def _published(row: dict[str, Any]) -> str:
    uncertainty = row["published_uncertainty"]
    return f"{row['published']:.2f}" + (f" ± {uncertainty:.1f}" if uncertainty else "")


def _grid(frame: pl.DataFrame) -> Table:
    """Return our errors by corruption and severity, each with its difference to the published one."""
    severities = sorted(frame["severity"].unique())
    table = _narrow("Top-1 error by severity, in %: ours, and its difference to the published one", 0)
    table.add_column("")
    for severity in severities:
        table.add_column(str(severity), justify="right")
    for (corruption,), rows in frame.group_by(["corruption"], maintain_order=True):
        cells = dict(_cells(rows))
        table.add_row(_in_words(str(corruption)), *(cells.get(severity, "") for severity in severities))
    return table


def _cells(rows: pl.DataFrame) -> Iterator[tuple[int, str]]:
    for row in rows.iter_rows(named=True):
        yield row["severity"], f"{row['ours']:.1f} {row['difference']:+.1f}"
