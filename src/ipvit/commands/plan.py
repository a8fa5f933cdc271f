"""``--dry-run``: what a command would measure, without measuring it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ipvit.core.terminal import print_json
from ipvit.errors import printable

if TYPE_CHECKING:
    from ipvit.engine.study import Study


def show_plan(study: Study, out: Path, *, json: bool, default: bool = False) -> int:
    """Load and check all that a study names and print it as a study file, what would be measured in comments above it.

    Args:
        study: with all options.
        out: the run folder.
        json: print it as JSON.
        default: nobody has chosen this folder: where it belongs to other data, for example, another one is taken.

    Raises:
        InputError: something cannot be used.
    """
    from ipvit.api import bind_context, load_study
    from ipvit.engine.distributed import ProcessGroup
    from ipvit.engine.folders.default_folder import default_folder
    from ipvit.engine.folders.run_folder import check_folder
    from ipvit.engine.preparation import checked, mark_finished, plan_sweeps
    from ipvit.engine.store import Store
    from ipvit.engine.study import study_text

    data, models = load_study(study)
    out, elsewhere = default_folder(out, data, study) if default else (out, "")
    check_folder(out)
    selected = study.make_experiments()
    group = ProcessGroup()
    device, tasks, left_out = checked(selected, models, data, study, group, bind_context(study.data))
    there = 0 if study.fresh or not out.exists() else mark_finished(tasks, Store(out))
    plans = plan_sweeps(tasks, data, study, device, group)
    parts = [
        {
            "experiment": task.experiment.name,
            "model": task.model.name,
            "images": len(plan.positions),
            "conditions": len(task.conditions),
            "results": int(task.missing(plan.positions).sum()),
        }
        for plan in plans
        for task in plan.tasks
    ]
    notes = [
        *([elsewhere] if elsewhere else []),
        *dict.fromkeys(note for task in tasks for note in task.notes),
        *(f"left out: {text}" for text in left_out),
    ]
    content: dict[str, Any] = {"parts": parts, "there": there, "out": str(out), "device": str(device), "notes": notes}
    experiments = [entry.experiment for entry in selected]
    entries = zip(study.experiments, experiments, strict=True)
    text = study_text(study.models, study.data, entries, study, texts=study.text_keys())
    if json:
        return print_json(content | {"study": yaml.safe_load(text)})
    for line in _lines(parts, there, out, str(device), notes):
        sys.stdout.write(f"# {printable(line)}\n")
    sys.stdout.write(text)
    return 0


def _lines(parts: list[dict[str, Any]], there: int, out: Path, device: str, notes: list[str]) -> list[str]:
    lines = ["nothing was measured or written; without --dry-run would be measured, on " + device]
    for part in parts:
        of = "".join(
            f"{part[name]:,} {name}" + (" x " if name == "images" else "") for name in ("images", "conditions")
        )
        lines.append(f"{part['experiment']} on {part['model']}: {of}, {part['results']:,} results to measure")
    total = sum(part["results"] for part in parts)
    return [*lines, f"{total:,} results in all, {there:,} are there; into {out}", *notes]
