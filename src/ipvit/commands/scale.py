"""Commands for large runs: ``ipvit check`` before, ``ipvit merge`` after."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from ipvit.commands.measure import complain, tell
from ipvit.commands.options import Flag, OtherModelsAndData, RunOptions
from ipvit.core.terminal import Terminal, print_json
from ipvit.core.text.words import counted
from ipvit.errors import CombinedInputError, InputError

if TYPE_CHECKING:
    from ipvit.core.shard import Shard
    from ipvit.engine.costs.estimate import Estimate
    from ipvit.engine.study import Study


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


def check(
    study: Path | None = None,
    /,
    *,
    subject: OtherModelsAndData | None = None,
    options: RunOptions | None = None,
) -> int:
    """Load models and data, time two batches of each part of a study, and say what it will cost.

    Without a study, with --model and --data, of every experiment that these can be used for.

    Parameters
    ----------
    study
        A YAML file: models, data, experiments; options take the place of what it says.
    """
    from ipvit.api import bind_context, load_study
    from ipvit.commands.named_code import open_study
    from ipvit.engine.costs.estimate import estimate
    from ipvit.engine.folders.default_folder import default_folder

    options, subject = options or RunOptions(), subject or OtherModelsAndData()
    opened = _every_experiment(subject) if study is None else open_study(study, json=options.json, instead=subject)
    loaded = opened.with_options(options.config())
    data, models = load_study(loaded)
    given = options.out or loaded.out
    base = Path("runs") / ("all" if study is None else study.stem)
    out = Path(given) if given else default_folder(base, data, loaded)[0]
    context = bind_context(loaded.data)
    chosen, refused = loaded.make_experiments(), []
    if study is None:
        from ipvit.engine.preparation import usable

        chosen, refused = usable(chosen, models, data, loaded, context)
    found = estimate(chosen, models, data, loaded, out, context)
    found = dataclasses.replace(found, left_out=[*found.left_out, *refused])
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


def _every_experiment(subject: OtherModelsAndData) -> Study:
    """Return the study of all built-in experiments on the models and data that were given.

    Raises:
        InputError: one of both is missing.
    """
    from ipvit.engine.study import make_study
    from ipvit.experiments.registry import BUILT_IN

    if not subject.model or subject.data is None:
        lacking = "" if subject.model or subject.data else ", or a study file"
        what = "--data" if subject.model else "--model" if subject.data else "--model and --data"
        raise InputError(f"what is to be checked? Give {what}{lacking}: ipvit check --model NAME --data DATA")
    return make_study(subject.change({"experiments": [{"name": name} for name in BUILT_IN]}))


def _print_estimate(found: Estimate, models: int, shard: Shard) -> None:
    console = Terminal(highlight=False, soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column("experiment", no_wrap=True, min_width=max(len(part.experiment) for part in found.parts))
    table.add_column("model", overflow="fold")
    for name in ("images x\nconditions", "to do", "time", "disk"):
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
    for sentence in found.settings:
        Terminal(highlight=False).print(sentence)  # in lines as wide as the terminal
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
