"""Commands that read: models, datasets, experiments, report."""

from __future__ import annotations

import fnmatch
import json as json_module
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from ipvit.errors import InputError, did_you_mean

Flag = Annotated[bool, Parameter(negative="")]


def report(folder: Path, /, *, json: Flag = False) -> int:
    """Build tables, figures and report.html of a run folder.

    Parameters
    ----------
    folder
        A run folder.
    json
        Print the tables as JSON on standard output, nothing else.
    """
    from ipvit.commands.measure import print_json, print_tables
    from ipvit.results import Run

    results = Run(folder)
    path = results.report()
    if json:
        print_json(results)
    else:
        print_tables(results, path)
    return 0


def models(pattern: str = "*", /, *, json: Flag = False) -> int:
    """List the networks that can be used, by name.

    Parameters
    ----------
    pattern
        Shell wildcards, for example 'deit*' or 'torchvision:resnet*'.
    json
        Print JSON on standard output, nothing else.
    """
    import timm
    import torchvision.models as zoo

    from ipvit.models.loading import demo_models

    names = [*demo_models(), *(f"torchvision:{name}" for name in zoo.list_models(module=zoo)), *timm.list_models()]
    found = [name for name in names if fnmatch.fnmatch(name, pattern)]
    if not found:
        raise InputError(f"no model matches {pattern!r}.{did_you_mean(pattern, names)}")
    if json:
        return _print_json(found)
    console = Console()
    for name in found:
        console.print(name, highlight=False, markup=False)
    console.print(
        f"{len(found)} models; also hf-hub:OWNER/NAME and FILE.py:FACTORY; weights of your own as NAME@FILE",
        style="dim",
    )
    return 0


def datasets(*, json: Flag = False) -> int:
    """List the kinds of data that can be used.

    Parameters
    ----------
    json
        Print JSON on standard output, nothing else.
    """
    kinds = {
        "PATH": "a folder of class folders (ROOT/CLASS/image.jpg), with classes.txt if the names are not the model's",
        "PATH.tar": "a tar file of class folders, with classes.txt beside it",
        "demo:trifeature": "the procedural set, shape and texture agree: 1,000 images with masks, drawn on the fly",
        "demo:trifeature/texture-random": "the same with any texture on any shape",
        "demo:trifeature/cue-conflict": "the same with a texture of another class",
        "torch/NAME": "torchvision's data sets through timm, with --data-root and --split",
        "hfds/OWNER/NAME": "Hugging Face data sets through timm (needs the package datasets)",
        "tfds/NAME": "TensorFlow data sets through timm (needs the package tensorflow-datasets)",
    }
    if json:
        return _print_json([{"name": name, "what": what} for name, what in kinds.items()])
    _print_table("Data", ("name", "what"), list(kinds.items()))
    return 0


def experiments(*, json: Flag = False) -> int:
    """List the experiments and what each reproduces and needs.

    Parameters
    ----------
    json
        Print JSON on standard output, nothing else.
    """
    from ipvit.experiments.registry import experiment_class, experiment_names

    rows = []
    for name in experiment_names():
        kind = experiment_class(name)
        needs = kind().needs
        wanted = [*sorted(needs.capabilities), *(["labels"] if needs.labels else []), *(["masks"] if needs.masks else [])]
        rows.append(
            {"name": name, "reproduces": kind.reproduces, "needs": ", ".join(wanted), "question": kind.question}
        )
    if json:
        return _print_json(rows)
    _print_table("Experiments", ("name", "reproduces", "needs", "question"), [tuple(row.values()) for row in rows])
    return 0


def _print_json(content: Any) -> int:
    json_module.dump(content, sys.stdout, indent=1, ensure_ascii=False)
    sys.stdout.write("\n")
    return 0


def _print_table(title: str, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
