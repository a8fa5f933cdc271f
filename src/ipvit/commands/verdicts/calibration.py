"""``ipvit calibration``: does a model know when it is wrong? From records, without a pass."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipvit.commands.options import Flag
from ipvit.core.terminal import Terminal, print_json

if TYPE_CHECKING:
    import polars as pl

    from ipvit.results import Run
    from ipvit.verdicts.calibration import Calibration

_SHOWN = ("ece", "overconfidence", "auroc")


def calibration(folder: Path, /, *, everything: Flag = False, json: Flag = False) -> int:
    """Show how well the confidences of a run say how often its models are right; nothing is measured.

    One row for each experiment, model and condition: calibration error, likelihood, Brier's score, overconfidence, and
    how well confidence tells right answers from wrong ones; and a temperature fitted to one half of the clean images.
    Tables go to tables/calibration*, reliability, confidence beside accuracy, and risk against coverage to
    figures/calibration*. What records of earlier versions lack is said.

    Parameters
    ----------
    folder
        A run folder, or a folder of run folders.
    everything
        Show all that the folder holds on the same data, not only what its last study asked for.
    json
        Print JSON on standard output, nothing else.
    """
    from ipvit.run_collection import runs_in
    from ipvit.verdicts.calibration import calibration as calibrated

    runs = runs_in(folder, everything=everything)
    found = [(run, calibrated(run)) for run in runs]
    for run, one in found:
        _write(run, one)
    if json:
        whole = {run.out.name: _as_json(run, one) for run, one in found}
        return print_json(next(iter(whole.values())) if len(found) == 1 else whole)
    console = Terminal()
    for run, one in found:
        if len(found) > 1:
            console.print(f"{run.out.name}: {run.manifest.data.name}", style="bold", highlight=False)
        _print(run, one, console)
    return 0


def _as_json(run: Run, found: Calibration) -> dict[str, Any]:
    from ipvit.report import to_records

    tables = {name: to_records(table) for name, table in found.tables.items()}
    return {"out": str(run.out), "tables": tables, "sentences": [*found.sentences], "notes": [*run.told, *found.notes]}


def _write(run: Run, found: Calibration) -> None:
    from ipvit.analysis.looks import using
    from ipvit.core.links import refuse_links
    from ipvit.core.outdated import MADE
    from ipvit.report.figures import save_figure
    from ipvit.report.tables.files import write_table
    from ipvit.verdicts.calibration import COLUMNS
    from ipvit.verdicts.calibration_figures import figures

    refuse_links(run.out, MADE)
    for name, table in found.tables.items():
        write_table(table, run.out / "tables" / name, COLUMNS, f"Calibration, {run.manifest.data.name}")
    with using(run.looks):
        for name, figure in figures(found, run).items():
            save_figure(figure, run.out / "figures" / name, ("svg", "pdf"))


def _print(run: Run, found: Calibration, console: Terminal) -> None:
    from ipvit.verdicts.calibration import FILE

    for text in run.told:
        console.print(text, style="yellow", highlight=False)
    main = found.tables[FILE]
    for (name,), rows in main.group_by(["experiment"], maintain_order=True):
        title = f"Calibration, {run.analyses[str(name)].title}, n = {_counts(rows)} images"
        console.print(_table(rows, title, ("model", "condition", *_SHOWN), console.width))
    if (fitted := found.tables.get(f"{FILE}-temperature")) is not None:
        title = "Temperature, fitted to one half of the clean images and judged on the other"
        console.print(_table(fitted, title, ("model", "temperature", "ece", "ece_scaled"), console.width))
    for text in found.sentences:
        console.print(text, highlight=False)
    for text in (*found.notes, *_remarks(main)):
        console.print(f"note: {text}", style="yellow", highlight=False)
    folder = run.out / "tables"
    console.print(f"tables: {folder / FILE}*, figures: {run.out / 'figures' / FILE}*", soft_wrap=True, highlight=False)


def _counts(rows: pl.DataFrame) -> str:
    counts = sorted({f"{count:,}" for count in rows["n_images"]}, key=len)
    return counts[0] if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def _table(rows: pl.DataFrame, title: str, names: tuple[str, ...], width: int) -> Any:
    """Return a table for the terminal: intervals below the numbers where it is narrow."""
    from rich import box
    from rich.table import Table

    from ipvit.report.tables.cells import cell_of, head
    from ipvit.verdicts.calibration import COLUMNS

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    texts = [name for name in names if f"{name}_low" not in rows.columns]
    for name in names:
        is_text = name in texts
        table.add_column(
            head(name, COLUMNS), justify="left" if is_text else "right", overflow="fold", no_wrap=not is_text
        )
    between = "\n" if width < 100 else " "
    for row in rows.iter_rows(named=True):
        cells = [(row[name], "") if name in texts else cell_of(row, name, COLUMNS) for name in names]
        table.add_row(*(between.join(filter(None, cell)) for cell in cells))
    return table


def _remarks(rows: pl.DataFrame) -> list[str]:
    """Return what is said of measures, each once, with the number of rows that it is said of."""
    from ipvit.analysis.columns import CALIBRATION_NOTE

    counts: dict[str, int] = {}
    for text in rows[CALIBRATION_NOTE].drop_nulls():
        for part in text.split("; "):
            counts[part] = counts.get(part, 0) + 1
    said = sorted(counts.items(), key=lambda item: -item[1])
    found = [f"{text} (in {count} of {rows.height} rows)" for text, count in said[:6]]
    return [*found, *([f"{len(said) - 6} more remarks are in the files."] if len(said) > 6 else [])]
