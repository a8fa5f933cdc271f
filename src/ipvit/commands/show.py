"""Commands that read: models, datasets, experiments, report."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.columns import Columns
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ipvit.commands.options import AssertOptions, Flag
from ipvit.core.terminal import Terminal, print_json

if TYPE_CHECKING:
    from ipvit.models.catalogue import CatalogueEntry
    from ipvit.models.zoo.paper import PaperNetwork


def report(
    folder: Path,
    /,
    *,
    everything: Flag = False,
    paper: Flag = False,
    json: Flag = False,
    no_cache: Flag = False,
    must: AssertOptions | None = None,
) -> int:
    """Build tables, figures and report.html of a run folder, or of several together.

    Parameters
    ----------
    folder
        A run folder, or a folder of run folders, one for each data set.
    everything
        Show all that the folder holds on the same data, not only what its last study asked for.
    paper
        Also write every figure for one and both columns of a paper: NAME-1col and NAME-2col, as .svg and .pdf.
    json
        Print the tables as JSON on standard output, nothing else.
    no_cache
        Read all records again, and use nothing that was kept of an earlier report.
    """
    from ipvit.commands.measure import tell
    from ipvit.commands.verdicts.asserting import Asserted
    from ipvit.data.known_files import files_read_anew
    from ipvit.run_collection import RunCollection, runs_in

    asserted = Asserted(must)
    with files_read_anew(no_cache):
        runs = runs_in(folder, everything=everything)
        results = RunCollection(folder, runs) if folder.is_dir() and runs[0].out != folder else runs[0]
        told = tell(results, json=json, asserted=asserted)
    if paper:
        from ipvit.report.build import write_paper_figures

        write_paper_figures(results)
    return asserted.code(0 if told else 1)


def models(pattern: str | None = None, /, *, paper: Flag = False, json: Flag = False) -> int:
    """List the networks that can be used, by family.

    Parameters
    ----------
    pattern
        Shell wildcards, for example 'deit*' or 'torchvision:resnet*'; without it the families.
    paper
        Only the networks of the paper, with their figures, weights and sizes.
    json
        Print JSON on standard output, nothing else.
    """
    from ipvit.models.catalogue import catalogue, describe, matching, paper_networks

    if paper:
        chosen = paper_networks(pattern)
        return print_json([describe(network) for network in chosen]) if json else _print_paper_networks(chosen)
    found = matching(pattern) if pattern else list(catalogue())
    if json:
        rows = [{**dataclasses.asdict(entry), "capabilities": sorted(entry.capabilities or ())} for entry in found]
        return print_json(rows)
    return _print_names(found) if pattern else _print_families(found)


def _print_paper_networks(networks: list[PaperNetwork]) -> int:
    from ipvit.models.catalogue import publisher

    table = Table(title="Networks of the paper", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1))
    for column in ("name", "figures and tables", "weights"):
        table.add_column(column, no_wrap=column == "name")
    for column in ("M param.", "px"):
        table.add_column(column, justify="right", no_wrap=True)
    for family, members in itertools.groupby(networks, key=lambda network: network.family):
        table.add_row(Text(family, "bold"))
        for network in members:
            size = str(network.preprocessing.view.size[0])
            millions = f"{network.parameters / 1e6:.1f}"
            table.add_row(f" {network.name}", network.where, publisher(network), millions, size)
    console = Terminal()
    console.print(table)
    console.print("Use paper:NAME; all are shown resized to 256 pixels (bilinear), cropped to 224.", style="dim")
    return 0


def _print_names(entries: list[CatalogueEntry]) -> int:
    from ipvit.models.catalogue import by_family

    console = Terminal()
    for (source, family), members in by_family(entries).items():
        abilities = sorted(frozenset.intersection(*(member.capabilities or frozenset() for member in members)))
        console.print(Text.assemble((f"{source} {family}", "bold"), "  ", (", ".join(abilities), "dim")))
        names = Columns([Text(entry.name) for entry in members], padding=(0, 2), column_first=True)
        console.print(Padding(names, (0, 0, 0, 2)))
    console.print(f"{len(entries)} models; weights of your own as NAME@FILE", style="dim", highlight=False)
    return 0


def _print_families(entries: list[CatalogueEntry]) -> int:
    from ipvit.models.catalogue import by_family

    console = Terminal()
    titles = {
        "demo": "Bundled",
        "tin50": "Bundled, of 50 classes of Tiny ImageNet",
        "paper": "The paper's",
        "torchvision": "torchvision's",
        "open_clip": "open_clip's zero-shot models",
        "timm": "timm's",
    }
    groups = by_family(entries)
    for source, title in titles.items():
        families = {family: members for (where, family), members in groups.items() if where == source}
        if not families:  # of a library that is not installed
            continue
        count = sum(len(members) for members in families.values())
        prefix = "" if source == "timm" else f", as {source}:NAME"
        console.print(f"{title}, {count} networks{prefix}", style="bold", highlight=False)
        if source in ("demo", "tin50", "paper"):
            names = {family: ", ".join(entry.plain for entry in members) for family, members in families.items()}
            lines = [f"{family}: {text}" if source == "paper" else text for family, text in names.items()]
        else:
            lines = [", ".join(f"{family}\N{NO-BREAK SPACE}{len(members)}" for family, members in families.items())]
        for line in lines:
            console.print(Padding(Text(line), (0, 0, 0, 2)))
    console.print(
        "Also hf-hub:OWNER/NAME, transformers:OWNER/NAME (classifiers, zero-shot CLIP and SigLIP), FILE.py:FACTORY; "
        "NAME@FILE for weights.\n"
        "ipvit models 'deit*' lists names, ipvit models --paper tells of the paper's.",
        style="dim",
        highlight=False,
    )
    return 0


def datasets(*, json: Flag = False) -> int:
    """List the kinds of data that can be used.

    Parameters
    ----------
    json
        Print JSON on standard output, nothing else.
    """
    from ipvit.data.published import SETS
    from ipvit.data.published.shift_facts import KINDS

    kinds = {
        "PATH": "a folder of class folders (ROOT/CLASS/image.jpg), with classes.txt if the names are not the model's",
        "PATH.tar": "a tar file of class folders, with classes.txt beside it",
        "demo:trifeature": "the procedural set, shape and texture agree: 1,000 images with masks, drawn on the fly",
        "demo:trifeature/texture-random": "the same with any texture on any shape",
        "demo:trifeature/cue-conflict": "the same with a texture of another class",
        "cue-conflict:PATH": "shape-texture cue-conflict images, SHAPE/SHAPE1-TEXTURE2.png, used without a crop",
        "voc2012:PATH": "PASCAL VOC 2012 with its segmentations; --split val (the default), train or trainval",
        "imagenet-c:PATH": "corrupted photos, CORRUPTION/SEVERITY/SYNSET/NAME.JPEG; as PATH,CLEAN with the originals",
        **KINDS,
        "masks:IMAGES,MASKS": "a folder of images and one of foreground masks with the same names",
        "FILE.py:FACTORY": "a function of yours that returns an ipvit.data.Dataset",
        "torch/NAME": "torchvision's data sets through timm, with --data-root and --split",
        "wds/NAME": "WebDataset shards through timm, with --split 'SHARDS|NUMBER' (needs webdataset)",
        "hfds/OWNER/NAME": "Hugging Face data sets through timm (needs the package datasets)",
        "tfds/NAME": "TensorFlow data sets through timm (needs the package tensorflow-datasets)",
    }
    if json:
        published = [{"name": f"{entry.name}:PATH/SPLIT", **entry.summary()} for entry in SETS.values()]
        return print_json([*({"name": name, "what": what} for name, what in kinds.items()), *published])
    _print_table("Data", ("name", "what"), list(kinds.items()))
    rows = [
        (f"{entry.name}:PATH", Text.assemble(f"{entry.title}\n", (entry.layout, "dim")), entry.parts())
        for entry in SETS.values()
    ]
    columns = ("name", "what lies in PATH", "/SPLIT and images as published (* the one meant without /SPLIT)")
    _print_table("Published sets on your disk", columns, rows)
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
        needs = kind().requirements
        wanted = [
            *sorted(needs.capabilities),
            *(["labels"] if needs.labels else []),
            *(["masks"] if needs.masks else []),
            *needs.fields,
        ]
        rows.append(
            {"name": name, "reproduces": kind.reproduces, "needs": ", ".join(wanted), "question": kind.question}
        )
    if json:
        return print_json(rows)
    console = Terminal()
    for row in rows:
        console.print(Text.assemble((row["name"], "bold"), f" ({row['reproduces']})" if row["reproduces"] else ""))
        console.print(f"  {row['question']}", highlight=False)
        console.print(f"  needs {row['needs']}", style="dim", highlight=False)
    return 0


def _print_table(title: str, columns: tuple[str, ...], rows: Sequence[tuple[str | Text, ...]]) -> None:
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    Terminal().print(table)
