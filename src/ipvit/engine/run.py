"""A study from start to end: checks, the sweep, the manifest."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ipvit.data.dataset import Dataset
from ipvit.engine.device import pick_device
from ipvit.engine.lock import FolderLock
from ipvit.engine.manifest import MANIFEST, describe, read_manifest, write_manifest
from ipvit.engine.store import FLUSH_SECONDS, Store, prepare_folder
from ipvit.engine.sweep import Outcome, Pair, Settings, count_missing, lacks, prepare_pair, sweep
from ipvit.errors import InputError
from ipvit.experiments.base import Batch, Experiment
from ipvit.files import write_atomic
from ipvit.models.model import Model

STUDY = "study.yaml"
EXAMPLES = "examples"


def execute(
    experiments: Sequence[Experiment],
    models: Sequence[Model],
    data: Dataset,
    out: Path,
    settings: Settings,
    *,
    study_yaml: str = "",
    fresh: bool = False,
    progress: bool = True,
    flush_seconds: float = FLUSH_SECONDS,
) -> dict[str, Any]:
    """Measure what a study asks for and is not in the run folder yet.

    Args:
        experiments: what to measure.
        models: the networks, with different names.
        data: the images.
        out: the run folder.
        settings: how to run.
        study_yaml: the resolved study, kept in the folder.
        fresh: put an earlier run folder aside and start over.
        progress: show a progress bar on standard error.
        flush_seconds: how much work a killed run may lose.

    Returns:
        The manifest.

    Raises:
        InputError: model, data, experiment or folder cannot be used; raised before anything is measured.
    """
    names = [model.name for model in models]
    if len(set(names)) != len(names):
        raise InputError(f"two models are called {max(names, key=names.count)!r}; give one of them a label")
    for model in models:
        model.forget_digest()
    twins = {model.digest: model.name for model in models}
    for model in models:
        if twins[model.digest] != model.name:
            raise InputError(f"{model.name!r} and {twins[model.digest]!r} are the same network with the same weights")
    if fresh:
        _put_aside(out)
    prepare_folder(out)
    with FolderLock(out):
        started = time.monotonic()
        device = pick_device(settings.device)
        store = Store(out, flush_seconds, mend=True)
        able, left_out = _able(experiments, models)
        pairs = [prepare_pair(experiment, model, data, store, settings) for experiment, model in able]
        _place(models, device, settings)
        _keep_study(out, study_yaml)
        outcome = Outcome(min(len(data), settings.limit or len(data)))

        def write(status: str, outcome: Outcome) -> dict[str, Any]:
            manifest = describe(
                models, data, settings, str(device), [e.name for e in experiments], outcome, status,
                time.monotonic() - started,
            )  # fmt: skip
            manifest["left_out"] = left_out
            manifest["damaged"] = [str(path.relative_to(out)) for path in store.damaged]
            manifest = _with_earlier(manifest, read_manifest(out))
            write_manifest(out, manifest)
            return manifest

        write("running", outcome)
        status = "interrupted"
        try:
            with _progress_bar(count_missing(pairs, data, settings), progress) as advance:
                sweep(
                    pairs, data, store, settings, device, outcome,
                    advance=advance, on_first_batch=lambda pair, batch: _save_examples(out, pair, batch),
                )  # fmt: skip
            status = "failed" if outcome.failures else "done"
        finally:
            manifest = write(status, outcome)
        if len(outcome.unreadable) == outcome.selected:
            raise InputError(f"none of the {outcome.selected} images of {data.name} could be read")
        return manifest


def _able(
    experiments: Sequence[Experiment], models: Sequence[Model]
) -> tuple[list[tuple[Experiment, Model]], list[str]]:
    """Pair every experiment with the models that can do it, and say which cannot.

    Raises:
        InputError: no model of the study can do an experiment.
    """
    pairs, left_out = [], []
    for model in models:
        for experiment in experiments:
            if lacking := lacks(experiment, model):
                left_out.append(lacking)
            else:
                pairs.append((experiment, model))
    for experiment in experiments:
        if not any(paired is experiment for paired, _ in pairs):
            raise InputError(lacks(experiment, models[0]))
    return pairs, left_out


def _put_aside(out: Path) -> None:
    if not out.exists():
        return
    if not (out / MANIFEST).exists():
        if any(out.iterdir()):
            raise InputError(f"{str(out)!r} holds something else than a run; --fresh leaves it alone")
        return
    out = out.resolve()
    number = next(n for n in range(1, 10_000) if not out.with_name(f"{out.name}.{n}").exists())
    try:
        with FolderLock(out):
            out.rename(out.with_name(f"{out.name}.{number}"))
    except OSError as error:
        raise InputError(f"cannot put {str(out)!r} aside: {error.strerror}") from None


def _place(models: Sequence[Model], device: torch.device, settings: Settings) -> None:
    for model in models:
        model.to(device).eval()
        if settings.compile and not hasattr(model.backbone, "_orig_mod"):
            model.backbone = torch.compile(model.backbone)  # pyright: ignore[reportAttributeAccessIssue]


def _keep_study(out: Path, text: str) -> None:
    path = out / STUDY
    if not text:
        return
    if path.is_file():
        earlier = path.read_bytes()
        if earlier == text.encode():
            return
        number = next(n for n in range(1, 10_000) if not (out / f"study.{n}.yaml").exists())
        write_atomic(out / f"study.{number}.yaml", earlier)
    write_atomic(path, text.encode())


def _with_earlier(manifest: dict[str, Any], earlier: dict[str, Any] | None) -> dict[str, Any]:
    """Keep what earlier calls on the same folder and data measured."""
    if earlier is None or earlier.get("data", {}).get("fingerprint") != manifest["data"]["fingerprint"]:
        return manifest
    known = {model["digest"] for model in manifest["models"]}
    manifest["models"] += [model for model in earlier["models"] if model["digest"] not in known]
    manifest["experiments"] = list(dict.fromkeys([*manifest["experiments"], *earlier["experiments"]]))
    if manifest["status"] == "running":
        manifest["skipped"] = manifest["skipped"] or earlier.get("skipped", [])
    return manifest


def _save_examples(out: Path, pair: Pair, batch: Batch) -> None:
    """Keep pictures of the conditions, once per experiment, for the report."""
    folder = out / EXAMPLES / pair.experiment.name
    if (folder / "captions.json").exists():
        return
    captions = []
    with torch.inference_mode():
        for number, example in enumerate(pair.experiment.examples(pair.model, batch)):
            folder.mkdir(parents=True, exist_ok=True)
            pixels = (example.image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
            Image.fromarray(pixels).save(folder / f"{number:03d}.png")
            captions.append({"file": f"{number:03d}.png", "caption": example.caption})
    if captions:
        write_atomic(folder / "captions.json", json.dumps(captions, ensure_ascii=False, indent=1).encode())


@contextlib.contextmanager
def _progress_bar(total: int, shown: bool) -> Iterator[Any]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not shown or not console.is_terminal or total == 0) as bar:
        task = bar.add_task("measuring", total=total)
        yield lambda n: bar.advance(task, n)
