"""``ipvit reproduce``: the study behind a table or figure of the paper, measured and compared."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import yaml
from cyclopts import Group, Parameter
from rich import box
from rich.table import Table

from ipvit import __version__
from ipvit.commands.measure import another_process_tells
from ipvit.commands.options import Flag, MeasureOptions, model_entries
from ipvit.commands.paper_studies import (
    ALL,
    OPTIONS,
    PaperStudy,
    find,
    paper_studies,
    parse_pairs,
    parse_weights,
)
from ipvit.commands.preflight import Sources
from ipvit.core.run_config import RunConfig
from ipvit.core.run_log import begin
from ipvit.core.terminal import Terminal, print_json
from ipvit.errors import InputError

DATA = Group("Data and weights", sort_key=1)


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
    partial: Annotated[bool, Parameter(group=DATA, negative="", show_default=False)] = False,
    options: MeasureOptions | None = None,
) -> int:
    """Run the study behind a table or figure of the paper with the paper's networks, and compare.

    Before anything is measured, all data are opened and all weights are loaded or downloaded; what is missing is
    listed at once.

    Parameters
    ----------
    name
        table-8, figure-3, ...: see --list; all for everything.
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
        Measure [LABEL=]NAME[@WEIGHTS] instead of the paper's networks; repeatable.
    partial
        Leave out what data or weights are missing for, and run the rest.
    """
    options = options or MeasureOptions()
    if list:
        return _list(json=options.json)
    if name is None:
        raise InputError("which table or figure? For example ipvit reproduce table-8; ipvit reproduce --list has all")
    config = options.config()
    studies = find(name)
    own = {"imagenet": imagenet, "imagenet-c": imagenet_c, "voc": voc, "cue-conflict": cue_conflict}
    given = {kind: place for kind, place in own.items() if place is not None} | parse_pairs(data or [], "--data")
    sources = Sources(given, parse_weights(weights or []), model_entries(model or [], pretrained=True))
    if options.dry_run:
        return _print_studies(studies, sources, config)
    from ipvit.commands.reproduction import Reproduction
    from ipvit.engine.folders.default_folder import default_folder_of_runs

    out, line = (options.out, "") if options.out else default_folder_of_runs(Path("runs") / name, config)
    if line and config.progress and not another_process_tells():
        Terminal(stderr=True).print(f"ipvit: {line}", highlight=False, soft_wrap=True)
    begin(f"{__version__}: ipvit {shlex.join(sys.argv[1:])}", verbose=options.verbose)
    return Reproduction(studies, out, config).run(sources, partial=partial, json=options.json, quiet=options.quiet)


def _print_studies(studies: list[PaperStudy], sources: Sources, config: RunConfig) -> int:
    options = config.model_dump(mode="json", exclude_unset=True)
    content = [sources.keys(part) | options for study in studies for part in study.parts]
    sys.stdout.write(yaml.safe_dump_all(content, sort_keys=False, allow_unicode=True))
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
    table.add_row(ALL, "Everything above", "")
    console = Terminal()
    console.print(table)
    options = ", ".join(option for option, _ in OPTIONS.values())
    console.print(f"Data are given with {options}, or --data NAME=PATH.", style="dim", highlight=False)
    return 0
