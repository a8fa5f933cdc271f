"""Commands that measure: ``ipvit run``, ``ipvit demo`` and what every experiment's command does."""

from __future__ import annotations

import os
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipvit.commands.options import Flag, RunOptions
from ipvit.core.terminal import Terminal, print_json

if TYPE_CHECKING:
    from ipvit.engine.study import Study
    from ipvit.results import Run
    from ipvit.run_collection import RunCollection

DEMO = Path(__file__).with_name("studies") / "demo.yaml"


def run(study: Path, /, *, options: RunOptions | None = None) -> int:
    """Run a study file, or continue it.

    Parameters
    ----------
    study
        A YAML file: models, data, experiments.
    """
    from ipvit.commands.named_code import open_study

    options = options or RunOptions()
    return measure(open_study(study, json=options.json), options, default_out=Path("runs") / study.stem)


def demo(*, options: RunOptions | None = None, open: Flag = False) -> int:  # noqa: A002
    """Everything in small, offline, on the bundled models and the procedural data set.

    Parameters
    ----------
    open
        Open the report in the browser afterwards.
    """
    from ipvit.engine.study import read_study

    options = options or RunOptions()
    out = options.out or Path("ipvit-demo")
    code = measure(read_study(DEMO), options, default_out=out)
    if open:
        webbrowser.open((out / "report.html").absolute().as_uri())
    return code


def measure(study: Study, options: RunOptions, *, default_out: Path) -> int:
    """Run a study with the options given, print its tables, write its report; return the exit code."""
    from ipvit.api import run_study

    out = options.out or (Path(study.out) if study.out else default_out)
    results = run_study(study.with_options(options.config()), out)
    if int(os.environ.get("RANK", "0")) > 0:
        return 0  # one of several processes; the first one tells
    whole = tell(results, json=options.json)
    return 1 if complain(results) or not whole else 0


def tell(results: Run | RunCollection, *, json: bool) -> bool:
    """Write the report, then print the tables: who reads them may go away at any time, as in ``| head``.

    Returns:
        Whether all that the experiments make of their records could be made; what could not is told.
    """
    try:
        page = results.report()
    except OSError:  # where the disk is full, the tables are worth seeing all the same
        _show(results, json)
        raise
    _show(results, json)
    if not json:
        Terminal().print(f"report: {page}", soft_wrap=True, highlight=False)
    return tell_faults(results)


def tell_faults(results: Run | RunCollection) -> bool:
    """Print what could not be made of the records on standard error; return whether everything could."""
    for text in results.faults.values():
        print_failure(text)
    return not results.faults


def print_failure(text: str) -> None:
    """Print on standard error what failed, while the command goes on."""
    Terminal(stderr=True).print(f"ipvit: {text}", style="red", highlight=False, soft_wrap=True)


def _show(results: Run | RunCollection, json: bool) -> None:
    if json:
        print_json(_json_of(results))
    else:
        print_tables(results)


def _json_of(results: Run | RunCollection) -> dict[str, Any]:
    """Return all tables, the paired differences between the models, and what a reader must know of the numbers."""
    from ipvit.report import to_records

    content = {name: to_records(table) for name, table in results.tables.items()}
    limited = {"limited": results.manifest.limited, "images_used": results.manifest.images_used}
    differences = {name: to_records(table) for name, table in results.differences.items()}
    notes = {name: said for name in results.analyses if (said := results.notes(name))}
    answers = {name: said for name in results.analyses if (said := results.answers_of(name))}
    return {"tables": content, "differences": differences, "answers": answers, **limited, "notes": notes}


def print_tables(results: Run | RunCollection) -> None:
    """Print the main tables and what they show."""
    from ipvit.report import terminal_tables
    from ipvit.report.findings import headline, unit_of

    console = Terminal()
    manifest = results.manifest
    used, whole = manifest.images_used, manifest.data.images
    if manifest.limited:
        console.print(f"limited run: {used:,} of {whole:,} images", style="bold yellow")
    for name, analysis in results.analyses.items():
        tables = {key: table for key, table in results.tables.items() if key == name or key.startswith(f"{name}-")}
        for table in terminal_tables(tables, analysis.heading, analysis.columns, console.width):
            console.print(table)
        for sentence in results.summary_of(name):
            console.print(sentence, highlight=False)
        for note in results.notes(name):
            console.print(f"note: {note}", style="yellow", highlight=False)
        if name in results.differences:
            console.print(headline(results.differences[name], unit_of(analysis)), highlight=False)


def complain(results: Run) -> bool:
    """Print warnings and failures on standard error; return whether something failed."""
    console = Terminal(stderr=True)
    manifest = results.manifest
    if manifest.skipped:
        first = manifest.skipped[0]
        console.print(
            f"ipvit: warning: {len(manifest.skipped)} unreadable images left out, for example {first.image!r} "
            f"({first.reason}); all are in manifest.json",
            style="yellow",
            highlight=False,
            soft_wrap=True,
        )
    if damaged := manifest.damaged:
        console.print(
            f"ipvit: warning: {len(damaged)} damaged part files were put aside and measured again", style="yellow"
        )
    for note in manifest.notes:
        console.print(f"ipvit: note: {note}", style="yellow", highlight=False, soft_wrap=True)
    for sentence in manifest.left_out:
        console.print(f"ipvit: left out: {sentence}", style="yellow", highlight=False, soft_wrap=True)
    for failure in manifest.failures:
        which = f" ({failure.condition})" if failure.condition else ""
        print_failure(f"{failure.experiment}{which} failed on {failure.model}: {failure.error}; more in manifest.json")
    return bool(manifest.failures)
