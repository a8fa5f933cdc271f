"""``manifest.json``: made of a run, written into its folder, read back."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError

from ipvit.core.digests import digest_of_json
from ipvit.core.files import write_atomic
from ipvit.core.manifest import (
    Asked,
    ExperimentData,
    Hardware,
    Manifest,
    SkippedImage,
    Status,
    UsedData,
    UsedModel,
    UsedPreprocessing,
    UsedTexts,
)
from ipvit.core.run_config import Answers, RunConfig
from ipvit.core.versions import installed_version
from ipvit.data.dataset import Items
from ipvit.data.recognition import published_set
from ipvit.engine.types import Outcome, SweepPlan, Task
from ipvit.experiments.base import Experiment, SetCondition

if TYPE_CHECKING:
    from ipvit.models.model import Model

MANIFEST = "manifest.json"

_Value = TypeVar("_Value")

_PACKAGES = ("ipvit", "torch", "torchvision", "timm", "numpy", "pillow", "opencv-python-headless", "polars")


def describe(
    experiments: Sequence[Experiment],
    models: Sequence[Model],
    images: SweepPlan,
    tasks: Sequence[Task],
    outcome: Outcome,
    *,
    status: Status,
    seconds: float,
    left_out: Sequence[str] = (),
    damaged: Sequence[str] = (),
    processes: int = 1,
    reused_runs: Sequence[str] = (),
    earlier: Manifest | None = None,
    asked: Mapping[str, Asked] | None = None,
    measured_before: str = "",
) -> Manifest:
    """Return the manifest of a run.

    Args:
        experiments: what was asked for.
        models: likewise.
        images: the sweep over the images.
        tasks: experiments and models that are measured, on the images and on other items.
        outcome: what the run has met so far.
        status: how the run stands.
        seconds: since the call began.
        left_out: see :class:`Manifest`, likewise the next three.
        damaged: part files.
        processes: that measure together.
        reused_runs: run folders.
        earlier: what the folder's manifest was before; what it names on the same data stays named.
        asked: what the study asks for, by experiment.
        measured_before: see :class:`Manifest`.
    """
    data, config = images.items, images.config
    fingerprints = _other_schemes(data, earlier)
    if earlier is not None and earlier.data.fingerprint != data.fingerprint:
        earlier = None
    sets = {items.fingerprint: published_set(items) for items in (data, *(task.items for task in tasks))}
    names = [experiment.name for experiment in experiments]
    used = {model.digest: _model(model) for model in models}
    subjects = {
        task.identity.experiment: ExperimentData(
            name=task.items.name,
            fingerprint=task.identity.data,
            precision=task.identity.precision,
            published=sets[task.items.fingerprint][0],
            published_images=sets[task.items.fingerprint][1],
            answers=_answers(tasks, task.identity.experiment),
            answered=_by_model(tasks, task.identity.experiment, lambda task: task.identity.answers),
            n_classes=len(task.items.classes or ()) if task.among[0] else 0,
            among=_among(tasks, task.identity.experiment),
            labels=_by_model(tasks, task.identity.experiment, lambda task: task.identity.labels),
            sets=_by_model(tasks, task.identity.experiment, _sets),
        )
        for task in tasks
    }
    skipped = tuple(SkippedImage(image=image, reason=reason) for image, reason in sorted(outcome.unreadable.items()))
    images_used = outcome.selected - len(skipped)
    if earlier is not None:
        names += earlier.experiments
        used |= {model.digest: model for model in earlier.models if model.digest not in used}
        subjects = {**earlier.subjects, **{name: _with_earlier(now, earlier, name) for name, now in subjects.items()}}
        if status == "running":  # what this call cannot read shows only in time
            skipped = skipped or earlier.skipped
    packages = _PACKAGES if config.backend == "torch" else (*_PACKAGES, config.backend)
    return Manifest(
        status=status,
        finished=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        seconds=round(seconds, 1),
        experiments=tuple(dict.fromkeys(names)),
        models=tuple(used.values()),
        data=UsedData(
            name=data.name,
            fingerprint=data.fingerprint,
            images=len(data),
            classes=None if data.classes is None else len(data.classes),
            published=sets[data.fingerprint][0],
            published_images=sets[data.fingerprint][1],
            labelling=labelling(data),
        ),
        selected=outcome.selected,
        images_used=images_used,
        limited=outcome.selected < len(data),
        skipped=skipped,
        failures=tuple(outcome.failures),
        notes=tuple(outcome.notes),
        left_out=tuple(left_out),
        seed=config.seed,
        precision=config.precision,
        device=str(images.device),
        versions={"python": platform.python_version()} | {name: installed_version(name) for name in packages},
        hardware=Hardware(machine=platform.machine(), system=platform.system(), cores=os.cpu_count()),
        limit=config.limit,
        batch_size=images.batch_size,
        backend=config.backend,
        shard=str(config.effective_shard) if config.effective_shard.count > 1 else None,
        answer_space=chosen_answers(data, config),
        measured_in_this_call=outcome.measured,
        measured_before=measured_before,
        asked=asked or {},
        subjects=subjects,
        fingerprints=fingerprints,
        damaged=tuple(damaged),
        processes=processes,
        rests_on=tuple(reused_runs),
    )


def chosen_answers(data: Items, config: RunConfig) -> Answers:
    """Return among which answers models choose: as the user said, else as the data's protocol says, else all."""
    return config.answers or ("data" if getattr(data, "answers", "all") == "data" else "all")


def labelling(data: Items) -> str:
    """Return a digest (16 hex digits) of the names of the classes, both of each where there are two."""
    return digest_of_json([list(data.classes or ()), list(data.aliases or ())], 16)


def _among(tasks: Sequence[Task], experiment: str) -> dict[str, tuple[int, int]]:
    """Return how many answers each model of an experiment chose among, and how many outputs it has."""
    of_it = [task for task in tasks if task.identity.experiment == experiment]
    return {task.identity.weights: task.among for task in of_it if task.among[0]}


def _answers(tasks: Sequence[Task], experiment: str) -> str:
    """Return ``data`` where a model of an experiment chose among the classes of the data, else ``all``."""
    found = {task.identity.answers for task in tasks if task.identity.experiment == experiment}
    return "data" if "data" in found else "all"


def _by_model(tasks: Sequence[Task], experiment: str, value: Callable[[Task], _Value]) -> dict[str, _Value]:
    """Return something of the tasks of an experiment that is not empty, by the digest of the model."""
    of_it = {task.identity.weights: value(task) for task in tasks if task.identity.experiment == experiment}
    return {weights: found for weights, found in of_it.items() if found}


def _sets(task: Task) -> dict[str, str]:
    """Return the digests of the data sets that conditions are on, by their names."""
    return {one.set: one.set_digest for one in task.conditions if isinstance(one, SetCondition)}


def write_manifest(root: Path, manifest: Manifest) -> None:
    """Write the manifest of a run folder."""
    write_atomic(root / MANIFEST, manifest.model_dump_json(indent=1, by_alias=True).encode())


def read_manifest(root: Path) -> Manifest | None:
    """Return the manifest of a run folder, or None where there is none, or none that can be read."""
    try:
        text = (root / MANIFEST).read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    try:
        return Manifest.model_validate_json(text)
    except ValidationError:
        return None


def _with_earlier(now: ExperimentData, earlier: Manifest, name: str) -> ExperimentData:
    """Return what an experiment was measured on, with the models of earlier calls that chose among the same."""
    before = earlier.subjects.get(name)
    if before is None or before.fingerprint != now.fingerprint:
        return now
    wanted = before.answers if _nothing_to_choose(now) else now.answers
    kept = [
        weights
        for weights, among in before.among.items()
        if before.answers_of(weights) == wanted or len({*among, before.n_classes}) == 1
    ]
    joined = {
        field: {weights: value for weights, value in getattr(before, field).items() if weights in kept}
        | getattr(now, field)
        for field in ("among", "labels", "answered")
    }
    # what is on disk of a set that this call does not measure is of the same data still
    sets = {
        weights: {**before.sets.get(weights, {}), **found} for weights, found in {**before.sets, **now.sets}.items()
    }
    return now.model_copy(update={**joined, "sets": sets, "answers": wanted})


def _nothing_to_choose(used: ExperimentData) -> bool:
    """Tell whether the classes of the data are all outputs of all models."""
    return all(len({*among, used.n_classes}) == 1 for among in used.among.values())


def _other_schemes(data: Items, earlier: Manifest | None) -> Mapping[str, str]:
    """Return what a manifest keeps of fingerprints under other schemes, given the folder's manifest until now."""
    known = {} if earlier is None else dict(earlier.fingerprints)
    today = getattr(data, "sampled_fingerprint", "")
    return known | {data.fingerprint: today} if today else known


def _model(model: Model) -> UsedModel:
    view = model.preprocessing.view
    return UsedModel(
        name=model.name,
        loaded_as=model.origin[0] if model.origin else "",
        digest=model.digest,
        source=model.source,
        weights_sha256=model.weights_sha256,
        parameters=sum(p.numel() for p in model.backbone.parameters()),
        preprocessing=UsedPreprocessing(
            size=view.size,
            crop_pct=view.crop_pct,
            interpolation=view.interpolation,
            crop_mode=view.crop_mode,
            mean=tuple(model.preprocessing.mean),
            std=tuple(model.preprocessing.std),
        ),
        doubt=model.doubt,
        texts=_texts(model),
    )


def _texts(model: Model) -> UsedTexts | None:
    texts = model.texts
    if texts is None:
        return None
    return UsedTexts(
        in_words=texts.in_words,
        prompts=texts.prompts.templates,
        outputs=texts.names.outputs,
        words=texts.names.words,
        prepared=texts.prepared,
        alike=tuple(texts.alike),
    )


def named_networks(manifest: Manifest, there: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Name networks, given by digest and name, as the manifest does and in its order.

    Different weights under one name are told apart.
    """
    names = {model.digest: model.name for model in manifest.models}
    labels: dict[str, str] = {}
    for weights, model in there:
        label = str(names.get(weights, model))
        taken = {text for digest, text in labels.items() if digest != weights}
        labels[weights] = f"{label} #{weights[:4]}" if label in taken else label
    order = {digest: number for number, digest in enumerate(names)}
    place = {weights: (order.get(weights, len(order)), label) for weights, label in labels.items()}
    return {weights: labels[weights] for weights in sorted(labels, key=place.__getitem__)}
