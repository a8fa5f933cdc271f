"""Commands that measure: ``ipvit run``, ``ipvit demo`` and what every experiment's command does."""

from __future__ import annotations

import os
import shlex
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipvit import __version__
from ipvit.commands.options import Flag, JudgedOptions, OtherModelsAndData
from ipvit.commands.plan import show_plan
from ipvit.commands.verdicts.asserting import Asserted
from ipvit.core.outdated import PAGE
from ipvit.core.run_log import begin
from ipvit.core.terminal import Terminal, print_json
from ipvit.errors import InputError

if TYPE_CHECKING:
    from ipvit.engine.study import Study
    from ipvit.results import Run
    from ipvit.run_collection import RunCollection

DEMO = Path(__file__).with_name("studies") / "demo.yaml"


def run(study: Path, /, *, subject: OtherModelsAndData | None = None, options: JudgedOptions | None = None) -> int:
    """Run a study file, or continue it; options take the place of what it says.

    Parameters
    ----------
    study
        A YAML file: models, data, experiments.
    """
    from ipvit.commands.named_code import open_study

    options = options or JudgedOptions()
    options.config()  # what is wrong with an option is said before the code of a study runs
    Asserted(options)
    opened = open_study(study, json=options.json, instead=subject)
    return measure(opened, options, default_out=Path("runs") / study.stem)


def demo(*, options: JudgedOptions | None = None, open: Flag = False) -> int:  # noqa: A002
    """Run all experiments on small bundled models and a procedural data set; needs no data and no internet.

    It prints what each experiment found and a profile of the networks; the tables are in the report.

    Parameters
    ----------
    open
        Open the report in the browser afterwards.
    """
    from ipvit.engine.study import read_study

    options = options or JudgedOptions()
    return measure(read_study(DEMO), options, default_out=Path("ipvit-demo"), open_page=open, brief=True)


def _explain_demo(out: Path) -> None:
    """Say what the networks of the demo are, and what to type next."""
    from ipvit.models.zoo.bundled import ABOUT

    console = Terminal()
    console.print("The networks, all tiny and trained on the procedural set (10 classes):", style="bold")
    for name, what in ABOUT.items():
        console.print(f"  {name}: {what}", highlight=False)
    console.print("Next:", style="bold")
    for command, what in (
        (f"ipvit report {out}", "all tables, in the terminal"),
        ("ipvit occlusion -m demo:deit_micro -m demo:resnet_micro -d demo:trifeature --grid 8x8", "one experiment"),
        ("ipvit experiments", "what else can be asked, and what each needs"),
    ):
        console.print(f"  {command}", style="bold", highlight=False, soft_wrap=True)
        console.print(f"    {what}", highlight=False)


def another_process_tells() -> bool:
    """Whether this is one of several processes, of which the first one tells."""
    return int(os.environ.get("RANK", "0")) > 0


def measure(
    study: Study, options: JudgedOptions, *, default_out: Path, open_page: bool = False, brief: bool = False
) -> int:
    """Run a study with the options given, print its tables, write its report; return the exit code.

    Args:
        study: what to measure.
        options: of the command line.
        default_out: where the run goes unless that, or the study, says it.
        open_page: show the report in the browser.
        brief: print what each experiment found without its tables, and at the end what the demo's networks are.
    """
    from ipvit.api import run_study

    given = options.out or (Path(study.out) if study.out else None)
    wanted = study.with_options(options.config())
    asserted = Asserted(options)
    asserted.check(wanted)
    if options.dry_run:
        return show_plan(wanted, given or default_out, json=options.json, default=given is None)
    begin(f"{__version__}: ipvit {shlex.join(sys.argv[1:])}", verbose=options.verbose)
    results = run_study(wanted, given or default_out, default=given is None)
    if another_process_tells():
        return 0
    whole = tell(results, json=options.json, quiet=options.quiet, brief=brief, asserted=asserted)
    code = asserted.code(1 if complain(results, quiet=options.quiet) or not whole else 0)
    if brief and not options.json and not options.quiet:
        _explain_demo(results.out)
    if open_page:
        webbrowser.open((results.out / PAGE).absolute().as_uri())
    return code


def tell(
    results: Run | RunCollection,
    *,
    json: bool,
    quiet: bool = False,
    brief: bool = False,
    asserted: Asserted | None = None,
) -> bool:
    """Write the report, then print the tables: who reads them may go away at any time, as in ``| head``.

    Args:
        results: what was measured.
        json: print it as JSON.
        quiet: print what could not be made, nothing else.
        brief: print what each experiment found, without its tables.
        asserted: what must hold; decided here, and told after the tables.

    Raises:
        InputError: what is asserted cannot be decided; raised after the tables are told.

    Returns:
        Whether all that the experiments make of their records could be made; what could not is told.
    """
    asserted, undecided = asserted or Asserted(None), None
    try:
        asserted.decide(results)
    except InputError as error:
        undecided = error
    try:
        page = results.report()
    except OSError:  # where the disk is full, the tables are worth seeing all the same
        _show(results, json, quiet=quiet, brief=brief, more=asserted.as_json())
        raise
    _show(results, json, quiet=quiet, brief=brief, more=asserted.as_json())
    if not json and not quiet:
        _print_profile(results)
        Terminal().print(f"report: {page}", soft_wrap=True, highlight=False)
    asserted.tell(json=json, quiet=quiet)
    if undecided is not None:
        raise undecided
    return tell_faults(results)


def tell_faults(results: Run | RunCollection) -> bool:
    """Print what could not be made of the records on standard error; return whether everything could."""
    for text in results.faults.values():
        print_failure(text)
    return not results.faults


def print_failure(text: str) -> None:
    """Print on standard error what failed, while the command goes on."""
    Terminal(stderr=True).print(f"ipvit: {text}", style="red", highlight=False, soft_wrap=True)


def _show(
    results: Run | RunCollection, json: bool, *, quiet: bool, brief: bool, more: dict[str, Any] | None = None
) -> None:
    if quiet:
        return
    if json:
        print_json(_json_of(results) | (more or {}))
    elif brief:
        print_answers(results)
    else:
        print_tables(results)


def _print_profile(results: Run | RunCollection) -> None:
    """Print the profile of a run of several experiments; of one its own table says it."""
    from ipvit.commands.profile import print_profile

    asked = results.profile
    if asked is not None and len({column.experiment for column in asked.columns}) > 1:
        print_profile(asked, Terminal())


def print_answers(results: Run | RunCollection) -> None:
    """Print what each experiment found, and what a reader must know of it."""
    console = Terminal()
    _print_limit(results, console)
    for name, analysis in results.analyses.items():
        console.print(analysis.heading, style="bold", highlight=False)
        if lead := results.lead_of(name):
            console.print(f"  {lead}", highlight=False)
        for note in results.notes_of(name):
            console.print(f"  note: {note}", style="yellow", highlight=False)


def _print_limit(results: Run | RunCollection, console: Terminal) -> None:
    """Print on how many images all numbers rest, where that is not all, and what else the folder holds."""
    manifest = results.manifest
    if manifest.limited:
        used, whole = manifest.images_used, manifest.data.images
        console.print(f"limited run: {used:,} of {whole:,} images", style="bold yellow")
    for sentence in results.told:
        console.print(sentence, style="bold yellow" if sentence.startswith("Unfinished") else "yellow", highlight=False)
    for sentence in manifest.zero_shot:
        console.print(sentence, highlight=False)


def _json_of(results: Run | RunCollection) -> dict[str, Any]:
    """Return all tables, the paired differences between the models, and what a reader must know of the numbers."""
    from ipvit.report import to_records

    content = {name: to_records(table) for name, table in results.tables.items()}
    manifest = results.manifest
    limited = {"limited": manifest.limited, "images_used": manifest.images_used, "finished": manifest.finished_well}
    differences = {name: to_records(table) for name, table in results.differences.items()}
    notes = {name: said for name in results.analyses if (said := results.notes_of(name))}
    leads = {name: said for name in results.analyses if (said := results.lead_of(name))}
    answers = {name: said for name in results.analyses if (said := results.answers_of(name))}
    asked = results.profile
    made = {"tables": content, "differences": differences, "leads": leads, "answers": answers}
    made |= {} if asked is None else {"profile": asked.as_json()}
    zero_shot = {"zero_shot": list(manifest.zero_shot)} if manifest.zero_shot else {}
    return {"out": str(results.out), **made, **limited, **zero_shot, "told": results.told, "notes": notes}


def print_tables(results: Run | RunCollection) -> None:
    """Print the main tables and what they show."""
    from ipvit.report import terminal_tables
    from ipvit.report.findings import headlines, unit_of

    console = Terminal()
    _print_limit(results, console)
    for name, analysis in results.analyses.items():
        for table in terminal_tables(results.tables_of(name), analysis.heading, analysis.columns, console.width):
            console.print(table)
        lead = results.lead_of(name)
        if lead:
            console.print(lead, style="bold", highlight=False)
        if name in results.differences:
            for sentence in headlines(results.differences[name], unit_of(analysis)):
                console.print(sentence, highlight=False)
        for sentence in results.summary_of(name):
            if sentence not in lead:
                console.print(sentence, highlight=False)
        for note in results.notes_of(name):
            console.print(f"note: {note}", style="yellow", highlight=False)


def complain(results: Run, *, quiet: bool = False) -> bool:
    """Print warnings, failures and, unless it is to be quiet, notes on standard error; return whether it failed."""
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
    for note in () if quiet else manifest.notes:
        console.print(f"ipvit: note: {note}", style="yellow", highlight=False, soft_wrap=True)
    for sentence in manifest.left_out:
        console.print(f"ipvit: left out: {sentence}", style="yellow", highlight=False, soft_wrap=True)
    for failure in manifest.failures:
        which = f" ({failure.condition})" if failure.condition else ""
        print_failure(f"{failure.experiment}{which} failed on {failure.model}: {failure.error}; more in manifest.json")
    return bool(manifest.failures)
