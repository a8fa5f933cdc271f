"""Commands that put our numbers beside the paper's: ``ipvit compare`` and ``ipvit reproduce``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import yaml
from cyclopts import Group, Parameter
from rich import box
from rich.table import Table

from ipvit.commands.options import Flag, RunOptions
from ipvit.commands.paper_studies import (
    OPTIONS,
    StudyPart,
    data_name,
    find,
    missing_data,
    missing_weights,
    paper_studies,
    parse_pairs,
)
from ipvit.commands.published import compare_published
from ipvit.core.run_config import RunConfig
from ipvit.core.terminal import Terminal, print_json
from ipvit.errors import CombinedInputError, InputError
from ipvit.experiments.registry import published_table
from ipvit.models.names import ModelName
from ipvit.models.zoo.paper import paper_name

if TYPE_CHECKING:
    import polars as pl

    from ipvit.results import Run

DATA = Group("Data and weights", sort_key=1)
FILE = "paper-comparison"


def compare(
    folder: Path,
    /,
    *,
    all: Flag = False,  # noqa: A002 - the option's name
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
    published
        Compare with another publication instead: robustbench (corruption errors of twelve networks on ImageNet-C) or
        timm (accuracies of timm's networks on ImageNet).
    json
        Print JSON on standard output, nothing else.
    """
    from ipvit.run_collection import runs_in

    if published is not None:
        published_table(published)  # a word that is none is told before a folder is read
        if all:
            raise InputError("--all lists the paper's numbers; leave it out with --with")
        return compare_published(runs_in(folder), published, folder, json=json)
    runs = runs_in(folder)
    table, notes = _together(runs)
    return _show(table, notes, everything=all, json=json)


def reproduce(
    name: str | None = None,
    /,
    *,
    list: Flag = False,  # noqa: A002 - the option's name
    imagenet: Annotated[str | None, Parameter(group=DATA)] = None,
    imagenet_c: Annotated[str | None, Parameter(group=DATA)] = None,
    voc: Annotated[str | None, Parameter(group=DATA)] = None,
    cue_conflict: Annotated[str | None, Parameter(group=DATA)] = None,
    data: Annotated[list[str] | None, Parameter(group=DATA, negative="")] = None,
    weights: Annotated[list[str] | None, Parameter(group=DATA, negative="")] = None,
    model: Annotated[list[str] | None, Parameter(name=("--model", "-m"), group=DATA, negative="")] = None,
    partial: Annotated[bool, Parameter(group=DATA, negative="")] = False,
    dry_run: Flag = False,
    options: RunOptions | None = None,
) -> int:
    """Run the study behind a table or figure of the paper with the paper's networks, and compare.

    Parameters
    ----------
    name
        table-8, figure-3, ...: see --list.
    list
        List what can be reproduced, and the data it takes.
    imagenet
        ImageNet-1k's validation images.
    imagenet_c
        The published ImageNet-C.
    voc
        PASCAL VOC 2012.
    cue_conflict
        The cue-conflict images of Geirhos et al.
    data
        NAME=PATH of another data set, for example cub=CUB_200_2011; repeatable.
    weights
        NETWORK=FILE for weights that are on disk, for example deit_small=deit_small.pth; repeatable.
    model
        Measure this model instead of the paper's; repeatable.
    partial
        Leave out what data or weights are missing for, and run the rest.
    dry_run
        Print the study files and stop.
    """
    options = options or RunOptions()
    if list:
        return _list(json=options.json)
    if name is None:
        raise InputError("which table or figure? For example ipvit reproduce table-8; ipvit reproduce --list has all")
    config = options.config()
    studies = find(name)
    own = {"imagenet": imagenet, "imagenet-c": imagenet_c, "voc": voc, "cue-conflict": cue_conflict}
    given = {kind: place for kind, place in own.items() if place is not None} | parse_pairs(data or [], "--data")
    files = {paper_name(key): file for key, file in parse_pairs(weights or [], "--weights").items()}
    parts = [part for study in studies for part in study.parts]
    if dry_run:
        return _print_studies(parts, given, files, model or [], config)
    ready, left_out = _ready(parts, given, files, model or [], partial=partial)
    out = options.out or Path("runs") / name
    failed = False
    runs = []
    for part, keys in ready:
        place = out / part.name if len(parts) > 1 else out
        run, complaint = _measure(keys, place, config, json=options.json)
        runs.append(run)
        failed |= complaint
    table, notes = _together(runs)
    wanted = [target for study in studies for target in study.targets]
    table = table.filter(table["target"].is_in(wanted))
    _write(table, out)
    if len(parts) > 1:
        from ipvit.run_collection import RunCollection

        RunCollection(out, runs).report()
    _show(table, [*left_out, *notes], everything=False, json=options.json)
    return 1 if failed else 0


def _measure(keys: dict[str, Any], out: Path, config: RunConfig, *, json: bool) -> tuple[Run, bool]:
    from ipvit.api import run_study
    from ipvit.commands.measure import complain, print_tables
    from ipvit.engine.study import make_study

    results = run_study(make_study(keys).with_options(config), out)
    if not json:
        print_tables(results)
    results.report()
    return results, complain(results)


def _ready(
    parts: Sequence[StudyPart], given: dict[str, str], files: dict[str, str], models: Sequence[str], *, partial: bool
) -> tuple[list[tuple[StudyPart, dict[str, Any]]], list[str]]:
    """Return the parts that can be run with their studies, and lines about what is left out.

    Raises:
        InputError: something is missing and ``partial`` is not given, or nothing can be run.
    """
    without_data = missing_data(parts, given)
    there = [part for part in parts if not missing_data([part], given)]
    # gigabytes are not fetched for a run that cannot start
    without_weights = missing_weights(there if partial else parts, files, models, fetch=partial or not without_data)
    lines = [*without_data, *without_weights.values()]
    if lines and not partial:
        more = ["--partial runs what there is"] if len(without_data) < len({part.data for part in parts}) else []
        raise CombinedInputError([*lines, *more])
    ready = []
    for part in there:
        keys = part.keys(data_name(part.data, given[part.data]), files, models)
        keys["models"] = [entry for entry in keys["models"] if not _lacks(entry, without_weights)]
        if keys["models"] and not (part.needs_salience and "dino_vits16" in without_weights):
            ready.append((part, keys))
    if not ready:
        raise CombinedInputError(lines)
    return ready, [f"left out: {line}" for line in lines]


def _lacks(entry: Any, without: dict[str, str]) -> bool:
    name = entry["name"] if isinstance(entry, dict) else entry
    trained = not isinstance(entry, dict) or entry.get("pretrained", True)
    if not trained or not name.startswith("paper:") or "@" in name:
        return False
    return paper_name(ModelName.parse(name).name) in without


def _print_studies(
    parts: Sequence[StudyPart], given: dict[str, str], files: dict[str, str], models: Sequence[str], config: RunConfig
) -> int:
    studies = []
    options = config.model_dump(mode="json", exclude_unset=True)
    for part in parts:
        place = given.get(part.data, f"PATH-OF-{part.data.upper()}")
        studies.append(part.keys(data_name(part.data, place), files, models) | options)
    sys.stdout.write(yaml.safe_dump_all(studies, sort_keys=False, allow_unicode=True))
    return 0


def _list(*, json: bool) -> int:
    rows = [
        {
            "name": study.name,
            "title": study.title,
            "also": [*study.also],
            "compared": bool(study.targets),
            "data": [*dict.fromkeys(part.data for part in study.parts)],
            "experiments": [*dict.fromkeys(name for part in study.parts for name in part.experiments)],
        }
        for study in paper_studies().values()
    ]
    if json:
        return print_json(rows)
    table = Table("name", "what", "data", box=box.SIMPLE_HEAD, title="What can be reproduced", title_justify="left")
    for row in rows:
        also = f" (also {', '.join(row['also'])})" if row["also"] else ""
        table.add_row(row["name"], f"{row['title']}{also}", ", ".join(row["data"]))
    console = Terminal()
    console.print(table)
    options = ", ".join(option for option, _ in OPTIONS.values())
    console.print(f"Data are given with {options}, or --data NAME=PATH.", style="dim", highlight=False)
    return 0


def _together(runs: Sequence[Run]) -> tuple[pl.DataFrame, list[str]]:
    """Return everything that the paper gives, with our numbers where there are any, and what to bear in mind."""
    from ipvit.report import comparison

    table = comparison.joined([run.compare(everything=True) for run in runs])
    notes: list[str] = []
    for run in runs:
        strangers = comparison.without_counterpart(run.manifest)
        plain = [name for name, reason in strangers.items() if not reason]
        if plain:
            known = "is no network" if len(plain) == 1 else "are no networks"
            notes.append(f"{', '.join(plain)} {known} of the paper: nothing to compare with")
        notes += [f"{name} is not compared: {reason}" for name, reason in strangers.items() if reason]
        if len(strangers) < len(run.manifest.models):
            notes += comparison.notes(run.manifest)
    return table, [*dict.fromkeys(notes)]


def _show(table: pl.DataFrame, notes: Sequence[str], *, everything: bool, json: bool) -> int:
    from ipvit.report import comparison
    from ipvit.report.tables import to_records

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
        places = ", ".join(missing["where"].unique(maintain_order=True))
        console.print(f"{missing.height} numbers were not measured here, of {places} (--all lists them).", style="dim")
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


def _write(table: pl.DataFrame, out: Path) -> None:
    from ipvit.report import write_table

    write_table(table, out / FILE)
