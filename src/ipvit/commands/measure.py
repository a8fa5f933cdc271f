"""Commands that measure: ``ipvit run``, ``ipvit demo`` and what every experiment's command does."""

from __future__ import annotations

import json
import sys
import webbrowser
from pathlib import Path
from typing import Any

from rich.console import Console

from ipvit.api import run_study
from ipvit.commands.options import Flag, RunOptions
from ipvit.engine.study import Study, make_study, read_study
from ipvit.results import Run

DEMO = Path(__file__).parents[1] / "studies" / "demo.yaml"


def run(study: Path, /, *, options: RunOptions | None = None) -> int:
    """Run a study file, or continue it.

    Parameters
    ----------
    study
        A YAML file: models, data, experiments.
    """
    options = options or RunOptions()
    loaded = read_study(study)
    return measure(
        loaded.model_dump(exclude_unset=True) | options.given(), options, default_out=Path("runs") / study.stem
    )


def demo(*, options: RunOptions | None = None, open: Flag = False) -> int:  # noqa: A002
    """Everything in small, offline, on the bundled models and the procedural data set.

    Parameters
    ----------
    open
        Open the report in the browser afterwards.
    """
    options = options or RunOptions()
    loaded = read_study(DEMO)
    out = options.out or Path("ipvit-demo")
    code = measure(loaded.model_dump(exclude_unset=True) | options.given(), options, default_out=out)
    if open:
        webbrowser.open((out / "report.html").absolute().as_uri())
    return code


def measure(keys: dict[str, Any], options: RunOptions, *, default_out: Path) -> int:
    """Run a study given as a mapping, print its tables, write its report; return the exit code."""
    study: Study = make_study(keys)
    out = options.out or (Path(study.out) if study.out else default_out)
    results = run_study(study, out, fresh=options.fresh, progress=not options.json)
    report = results.report()
    if options.json:
        print_json(results)
    else:
        print_tables(results, report)
    return 1 if _complain(results) else 0


def print_json(results: Run) -> None:
    """Print all tables as one JSON object on standard output."""
    from ipvit.report import to_records

    content = {name: to_records(table) for name, table in results.tables.items()}
    limited = {"limited": results.manifest["limited"], "images_used": results.manifest["images_used"]}
    json.dump({"tables": content, **limited}, sys.stdout, indent=1, ensure_ascii=False)
    sys.stdout.write("\n")


def print_tables(results: Run, report: Path) -> None:
    """Print the main tables, what they show, and where the rest is."""
    from ipvit.report import terminal_tables

    console = Console()
    manifest = results.manifest
    used, whole = manifest["images_used"], manifest["data"]["images"]
    if manifest["limited"]:
        console.print(f"[bold yellow]limited run: {used:,} of {whole:,} images[/]")
    for name, experiment in results.experiments.items():
        tables = {key: table for key, table in results.tables.items() if key == name or key.startswith(f"{name}-")}
        for table in terminal_tables(tables, title=f"{experiment.title} ({experiment.reproduces})"):
            console.print(table)
        for sentence in experiment.summary(tables) if tables else []:
            console.print(sentence, highlight=False, markup=False)
    console.print(f"report: {report}", soft_wrap=True, highlight=False, markup=False)


def _complain(results: Run) -> bool:
    console = Console(stderr=True)
    skipped, failures = results.manifest["skipped"], results.manifest["failures"]
    if skipped:
        first = skipped[0]
        console.print(
            f"ipvit: warning: {len(skipped)} unreadable images left out, for example {first['image']!r} "
            f"({first['reason']}); all are in manifest.json",
            style="yellow", markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip
    if damaged := results.manifest.get("damaged"):
        console.print(
            f"ipvit: warning: {len(damaged)} damaged part files were put aside and measured again", style="yellow"
        )
    for sentence in results.manifest.get("left_out", []):
        console.print(f"ipvit: left out: {sentence}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    for failure in failures:
        console.print(
            f"ipvit: {failure['experiment']} failed on {failure['model']}: {failure['error']}; more in manifest.json",
            style="red", markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip
    return bool(failures)
