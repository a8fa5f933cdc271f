"""``ipvit missingness``: does the ranking of models under occlusion survive what dropped patches become?"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from ipvit.commands.options import PROTOCOL, Commas, MeasureOptions, ModelsAndData
from ipvit.core.terminal import Terminal, print_json
from ipvit.errors import InputError, did_you_mean, shown
from ipvit.experiments.occlusion.experiment import FILLS, TOKENS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ipvit.engine.study import Study
    from ipvit.models.model import Model
    from ipvit.results import Run
    from ipvit.verdicts.missingness import Missingness

_LIST = Parameter(consume_multiple=True, converter=Commas(), negative="", show_default=False)


@Parameter(name="*", group=PROTOCOL)
@dataclasses.dataclass(kw_only=True)
class MissingnessProtocol:
    """What is dropped, and what it becomes."""

    fills: Annotated[list[str] | None, _LIST] = None
    """What dropped patches become: our fills, tokens (they are taken out of networks that can do without), or what a
    FILE.py:FUNCTION of your own makes. [default: black mean noise blur other tokens]"""
    levels: Annotated[list[str] | None, _LIST] = None
    """Information losses, the same for all fills. [default: 0.25 0.5 0.75]"""
    runs: int = 1
    """Random masks per image and level; all fills have the same ones."""
    grid: str = "14x14"
    """Rows and columns of the patch grid; tokens are taken out on the network's own."""


def missingness(
    subject: ModelsAndData, *, protocol: MissingnessProtocol | None = None, options: MeasureOptions | None = None
) -> int:
    """Drop the same patches and let them become each of several things: does the ranking of the models survive?

    Black patches are a thing to see, not a thing that is missing (Jain et al. 2022). Occlusion at equal levels with
    every fill, and with tokens taken out of networks that can do without; ranks by retained accuracy, Kendall's tau
    between the fills with a bootstrap interval over images, and a sentence that says what follows.
    """
    from ipvit.api import run_study
    from ipvit.commands.measure import complain, tell_faults
    from ipvit.commands.plan import show_plan
    from ipvit.verdicts.missingness import missingness as verdict

    options, protocol = options or MeasureOptions(), protocol or MissingnessProtocol()
    study = _study(subject, protocol).with_options(options.config())
    out = options.out or Path("runs") / "missingness"
    if options.dry_run:
        return show_plan(study, out, json=options.json, default=options.out is None)
    run = run_study(study, out, default=options.out is None)
    run.report()
    failed = complain(run, quiet=options.quiet)
    found = verdict(run)
    _write(run, found)
    if options.json:
        print_json(_as_json(run, found))
    elif not options.quiet:
        _print(run, found, Terminal())
    return 1 if failed or not tell_faults(run) else 0


def _study(subject: ModelsAndData, protocol: MissingnessProtocol) -> Study:
    """Return occlusion once for each fill, the first with clean images, and once for each grid of tokens.

    Raises:
        InputError: there is nothing to rank or to set side by side, or a fill is not known.
    """
    from ipvit.api import load_study
    from ipvit.engine.study import make_study

    fills = list(dict.fromkeys(protocol.fills or [*FILLS, TOKENS]))
    known = (*FILLS, TOKENS)
    for fill in fills:
        if fill not in known and ".py:" not in fill:
            raise InputError(
                f"--fills: there is no fill {shown(fill)}.{did_you_mean(fill, known)} There are {', '.join(known)}, "
                "and FILE.py:FUNCTION of your own"
            )
    pixels = [fill for fill in fills if fill != TOKENS]
    if len(subject.model) < 2:
        raise InputError("missingness ranks models: give two or more with --model")
    if not pixels or len(fills) < 2:
        raise InputError(f"--fills: give two or more to set side by side, at least one of them not {TOKENS}")
    levels = protocol.levels or ["0.25", "0.5", "0.75"]
    common: dict[str, Any] = {"levels": levels, "runs": protocol.runs}
    entries = [
        {"name": "occlusion", "parameters": common | {"grid": protocol.grid, "fill": fill, "levels": of_fill}}
        for fill, of_fill in zip(pixels, [["0", *levels], *([levels] * len(pixels))], strict=False)
    ]
    study = make_study(subject.study_keys() | {"experiments": entries})
    if TOKENS not in fills:
        return study
    _, models = load_study(study)
    for grid, names in _own_grids(models).items():
        entries.append({"name": "occlusion", "models": names, "parameters": common | {"grid": grid, "removal": TOKENS}})
    return make_study(subject.study_keys() | {"experiments": entries})


def _own_grids(models: Sequence[Model]) -> dict[str, list[str]]:
    """Return the networks that tokens can be taken out of, by their own grid."""
    found: dict[str, list[str]] = {}
    for model in models:
        if model.can("token_removal"):
            grid = "x".join(map(str, model.adapter.patch_grid(model.image_size)))
            found.setdefault(grid, []).append(model.name if model.origin is None else model.origin[0])
    return found


def _as_json(run: Run, found: Missingness) -> dict[str, Any]:
    from ipvit.report import to_records

    return {
        "out": str(run.out),
        "tables": {"missingness": to_records(found.ranks), "missingness-tau": to_records(found.taus)},
        "levels": [*found.levels],
        "sentences": [*found.sentences],
        "notes": [*run.told, *found.notes, *run.notes_of("occlusion")],
    }


def _write(run: Run, found: Missingness) -> None:
    from ipvit.analysis import charts
    from ipvit.analysis.looks import using
    from ipvit.report.figures import save_figure
    from ipvit.report.tables.files import write_table
    from ipvit.verdicts.missingness import COLUMNS, FILE

    title = f"Occlusion by fill, {run.manifest.data.name}"
    for name, table in ((FILE, found.ranks), (f"{FILE}-tau", found.taus)):
        write_table(table, run.out / "tables" / name, COLUMNS, title)
    encoding = charts.Encoding(
        x="fill",
        y="retained",
        x_title="What dropped patches become",
        y_title="Retained accuracy (%)",
        x_scale="ordinal",
    )
    with using(run.looks):
        figure = charts.curve(found.ranks, encoding, title="What models retain, by fill")
        save_figure(figure, run.out / "figures" / FILE, ("svg", "pdf"))


def _print(run: Run, found: Missingness, console: Terminal) -> None:
    for text in run.told:
        console.print(text, style="yellow", highlight=False)
    console.print(_table_of_ranks(found))
    console.print(_table_of_taus(found))
    for text in found.sentences:
        console.print(text, style="bold", highlight=False)
    for text in (*found.notes, *run.notes_of("occlusion")):
        console.print(f"note: {text}", style="yellow", highlight=False)
    console.print(f"tables: {run.out / 'tables' / 'missingness'}*", soft_wrap=True, highlight=False)


def _table_of_ranks(found: Missingness) -> Any:
    """Return fills down and models across: what is retained, the rank, and below it the interval."""
    from ipvit.report.tables.cells import cell_of
    from ipvit.verdicts.missingness import COLUMNS

    table = _table(f"Retained accuracy (%) and rank, n = {found.ranks['n_images'][0]:,} images")
    models = found.ranks["model"].unique(maintain_order=True).to_list()
    table.add_column("fill")
    for model in models:
        table.add_column(model, justify="right", overflow="fold")
    cells = {(row["fill"], row["model"]): row for row in found.ranks.iter_rows(named=True)}
    for fill in found.ranks["fill"].unique(maintain_order=True):
        rows = [cells.get((fill, model)) for model in models]
        texts = ["" if row is None else f"{row['retained']:.1f} (#{row['rank']})" for row in rows]
        ends = ["" if row is None else cell_of(row, "retained", COLUMNS)[1] for row in rows]
        table.add_row(fill, *("\n".join(filter(None, cell)) for cell in zip(texts, ends, strict=True)))
    return table


def _table_of_taus(found: Missingness) -> Any:
    from ipvit.report.tables.cells import cell_of
    from ipvit.verdicts.missingness import COLUMNS

    table = _table("Kendall's tau between fills, with 95 % intervals over images")
    for head, right in (("fill", False), ("beside", False), ("models", True), ("tau", True), ("with itself", True)):
        table.add_column(head, justify="right" if right else "left")
    for row in found.taus.iter_rows(named=True):
        own = "" if row["tau_self"] is None else f"{row['tau_self']:.2f}"
        table.add_row(row["fill_a"], row["fill_b"], str(row["n_models"]), " ".join(cell_of(row, "tau", COLUMNS)), own)
    return table


def _table(title: str) -> Any:
    from rich import box
    from rich.table import Table

    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
