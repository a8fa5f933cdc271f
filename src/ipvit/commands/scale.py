"""Commands for large runs: ``ipvit check`` before, ``ipvit merge`` after."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from ipvit.commands.measure import complain, tell
from ipvit.commands.options import Flag, RunOptions
from ipvit.core.terminal import Terminal, print_json
from ipvit.core.text.words import counted
from ipvit.errors import CombinedInputError, InputError

if TYPE_CHECKING:
    from ipvit.core.shard import Shard
    from ipvit.engine.estimate import Estimate


def merge(*folders: Path, out: Path | None = None, partial: Flag = False, json: Flag = False) -> int:
    """Join the shards of a study into one run folder.

    Parameters
    ----------
    folders
        Run folders of shards, or the one folder that has them below shards/, also for each of several runs.
    out
        The folder of the whole; by default the one that has the shards.
    partial
        Join what is there even where shards are missing.
    json
        Print the tables as JSON on standard output, nothing else.
    """
    if not folders:
        raise InputError("which folders? Give the shards' run folders, or the folder that has them below shards/")
    if out is None and len(folders) > 1:
        raise InputError("where to? Give --out with the folder of the whole")
    from ipvit.engine.merge import merge as merge_folders
    from ipvit.engine.merge import runs_with_shards
    from ipvit.results import Run

    first = next(iter(folders))
    if out is None and (runs := runs_with_shards(first)):
        return _merge_runs(first, runs, partial=partial, json=json)
    whole = out or first
    manifest = merge_folders(folders, whole, partial=partial)
    results = Run(whole)
    told = tell(results, json=json)
    if not json:
        Terminal(stderr=True).print(f"ipvit: joined {len(manifest.merged)} shards", highlight=False)
    return 1 if complain(results) or not told or manifest.status != "done" else 0


def _merge_runs(folder: Path, runs: Sequence[Path], *, partial: bool, json: bool) -> int:
    """Join the shards of each of several runs, such as the parts of a reproduction, and show them together.

    Raises:
        CombinedInputError: the shards of some cannot be joined; those of the others are.
    """
    from ipvit.engine.merge import merge as merge_folders
    from ipvit.run_collection import RunCollection

    joined, errors = [], []
    for run in runs:
        try:
            joined.append(merge_folders([run], run, partial=partial))
        except InputError as error:
            errors.append(f"{run.name}: {error}")
    if errors:
        raise CombinedInputError(errors)
    results = RunCollection(folder)
    told = tell(results, json=json)
    failed = [complain(run) for run in results.runs]
    if not json:
        shards = sum(len(manifest.merged) for manifest in joined)
        Terminal(stderr=True).print(f"ipvit: joined {shards} shards of {len(joined)} runs", highlight=False)
    return 1 if any(failed) or not told or any(manifest.status != "done" for manifest in joined) else 0


def check(study: Path, /, *, options: RunOptions | None = None) -> int:
    """Load every model and the data of a study, time two batches of each part, and say what it will cost.

    Parameters
    ----------
    study
        A YAML file: models, data, experiments.
    """
    from ipvit.api import bind_context, load_study
    from ipvit.commands.named_code import open_study
    from ipvit.engine.estimate import estimate
    from ipvit.engine.folders.default_folder import default_folder

    options = options or RunOptions()
    loaded = open_study(study, json=options.json).with_options(options.config())
    data, models = load_study(loaded)
    given = options.out or loaded.out
    out = Path(given) if given else default_folder(Path("runs") / study.stem, data, loaded)[0]
    found = estimate(loaded.make_experiments(), models, data, loaded, out, bind_context(loaded.data))
    if options.json:
        content = dataclasses.asdict(found) | {
            "seconds": found.seconds,
            "disk": found.disk,
            "shard": str(loaded.effective_shard),
        }
        print_json(content)
    else:
        _print_estimate(found, len(models), loaded.effective_shard)
    failing = any(part.error for part in found.parts) or found.disk > found.disk_free
    return 1 if failing else 0


def _print_estimate(found: Estimate, models: int, shard: Shard) -> None:
    console = Terminal(highlight=False, soft_wrap=True)
    table = Table("experiment", box=box.SIMPLE_HEAD, padding=(0, 1))
    table.add_column("model", overflow="fold")
    for name in ("images x conditions", "to do", "time", "disk"):
        table.add_column(name, justify="right", no_wrap=True)
    for part in found.parts:
        time = "fails" if part.error else "trains first" if part.seconds is None else _duration(part.seconds)
        size = f"{part.images:,} x {part.conditions:,}"
        table.add_row(part.experiment, part.model, size, f"{part.results:,}", time, _size(part.disk))
    console.print(table)
    results = sum(part.results for part in found.parts)
    console.print(
        f"{counted(found.images, 'image')}, {counted(models, 'model')}, {counted(results, 'result')} to measure"
    )
    console.print(
        f"expected: {_duration(found.seconds)} on this machine, {_size(found.memory)} of memory, "
        f"{_size(found.disk)} of {_size(found.disk_free)} free on disk"
    )
    if shard.count > 1:
        console.print(f"in {shard.count} shards: about {_duration(found.seconds / shard.count)} each")
    if any(part.seconds is None and not part.error for part in found.parts):
        console.print(
            "what trains first is in neither the time nor the disk (?): how long it takes shows only in doing it"
        )
    if found.disk > found.disk_free:
        console.print("the records will not fit on the disk", style="red")
    for sentence in found.left_out:
        console.print(f"left out: {sentence}")
    for part in found.parts:
        if part.error:
            console.print(f"{part.experiment} fails on {part.model}: ", end="", style="red")
            console.print(part.error)


def _duration(seconds: float) -> str:
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 99.5 * 60 else f"{seconds / 3600:.1f} h"


def _size(count: float | None) -> str:
    if count is None:
        return "?"
    for unit in ("kB", "MB"):
        count /= 1000
        if count < 999.5:
            return f"{count:,.{0 if count >= 99.5 else 1}f} {unit}"
    return f"{count / 1000:,.1f} GB"
