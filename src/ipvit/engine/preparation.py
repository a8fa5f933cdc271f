"""What comes before the first image: do models, experiments and data fit, what is on disk, who measures what."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch

from ipvit.analysis.base import Analysis
from ipvit.analysis.columns import RESERVED
from ipvit.core.run_config import RunConfig
from ipvit.core.shard import Shard
from ipvit.data.copies import copies
from ipvit.data.dataset import Dataset, Items, fingerprint, has_pictures
from ipvit.data.formats.timm import SCHEMES as BY_NAME
from ipvit.data.labels import map_classes
from ipvit.data.published import in_common
from ipvit.data.subset import subset_indices
from ipvit.engine.device import pick_device
from ipvit.engine.distributed import ProcessGroup
from ipvit.engine.loop.claims import Claims
from ipvit.engine.store import Identity, Store
from ipvit.engine.types import Selected, SweepPlan, Task
from ipvit.engine.worker_count import default_workers
from ipvit.errors import InputError, did_you_mean, error_line
from ipvit.experiments.base import BindContext, Condition, Experiment, Measurement
from ipvit.models.answers import AnswerSpace
from ipvit.models.backend import COMPUTES, check_backend
from ipvit.models.capabilities import OFFERED_BY
from ipvit.models.label_mapping import answering, right_answers, sets_as_text
from ipvit.models.model import Model
from ipvit.models.openvino_model import with_backend
from ipvit.models.zero_shot.network import is_tower


def checked(
    selected: Sequence[Selected],
    models: Sequence[Model],
    data: Dataset,
    config: RunConfig,
    group: ProcessGroup,
    context: BindContext,
) -> tuple[torch.device, list[Task], list[str]]:
    """Check everything that can be checked before anything is written.

    Returns:
        The device, the tasks, and in sentences which experiments leave which models out.

    Raises:
        InputError: models, experiments, data or device cannot be used.
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
    device = pick_device(config.device, group.local_rank if group.size > 1 else None)
    check_backend(config.backend, config.precision, device.type, compiled=config.compile)
    able, left_out = _able(selected, models)
    return device, _tasks(able, data, config, dataclasses.replace(context, device=device)), left_out


def usable(
    selected: Sequence[Selected], models: Sequence[Model], data: Dataset, config: RunConfig, context: BindContext
) -> tuple[list[Selected], list[str]]:
    """Return the experiments that models and data can be used for, and in sentences why the others cannot.

    Raises:
        InputError: none can, for the reason of the first.
    """
    found: list[Selected] = []
    refused: list[str] = []
    for entry in selected:
        try:
            checked([entry], models, data, config, ProcessGroup(), context)
        except InputError as error:
            name = entry.experiment.name
            refused.append(str(error) if str(error).startswith(name) else f"{name}: {error}")
        else:
            found.append(entry)
    if not found:
        raise InputError(refused[0])
    return found, refused


def _able(
    selected: Sequence[Selected], models: Sequence[Model]
) -> tuple[list[tuple[Experiment, list[Model]]], list[str]]:
    """Return every experiment with the models that can do it, and say which cannot.

    Raises:
        InputError: no model of the study can do an experiment.
    """
    able: list[tuple[Experiment, list[Model]]] = []
    left_out: list[str] = []
    for entry in selected:
        concerned = [model for model in models if entry.concerns(model)]
        lacking = {model.name: _lacking_capabilities(entry.experiment, model) for model in concerned}
        found = [model for model in concerned if not lacking[model.name]]
        if not found:
            raise InputError(lacking[concerned[0].name])
        able.append((entry.experiment, found))
        left_out += [text for text in lacking.values() if text]
    return able, left_out


def _lacking_capabilities(experiment: Experiment, model: Model) -> str:
    """Return what a model cannot do that an experiment needs, as a sentence; empty where it can do everything."""
    missing = {name: model.why_not(name) for name in sorted(experiment.requirements.capabilities)}
    missing = {name: reason for name, reason in missing.items() if reason}
    if not missing:
        return ""
    claimed = model.adapter.capabilities
    # of a network that claims no logits the last sentence says more
    said = [f"{name}: {reason}" for name, reason in missing.items() if name != "logits" or name in claimed]
    reasons = f" ({error_line('; '.join(said), 300)})" if said else ""
    text = f"{experiment.name} needs the capability {', '.join(missing)}, which {model.name} does not offer{reasons}; "
    if "logits" in missing and "logits" not in model.adapter.capabilities:
        return f"{text}{_no_classifier(model)}"
    others = "".join(f"; {name} is offered by {OFFERED_BY[name]}" for name in missing if name in OFFERED_BY)
    return f"{text}it offers {', '.join(sorted(model.capabilities))}{others}"


def _no_classifier(model: Model) -> str:
    """Return the ways on for a network without classifier."""
    name = model.name if model.origin is None else model.origin[0]
    ways = (
        f"give it one as {name}@probe:FILE, a head that `ipvit probe` fits, or as {name}@knn:DATA, where the nearest "
        "images of DATA vote"
    )
    if model.tower_of:
        return f"it is {model.tower_of}; or {ways}"
    if is_tower(model):
        return f"it is the image tower of a zero-shot model, without class names: give --class-names FILE; or {ways}"
    return f"it has no classifier: {ways}"


def _tasks(
    able: Sequence[tuple[Experiment, list[Model]]], data: Dataset, config: RunConfig, context: BindContext
) -> list[Task]:
    """Bind the experiments and make the tasks, those of one model after the other.

    An experiment that asks for no more than the backend computes goes through the backend.

    Raises:
        InputError: something does not fit, or a backend was asked for and no experiment can go through it.
    """
    computed: dict[tuple[str, bool], Model] = {}
    by_backend = config.backend != "torch"
    # all models of an experiment, or none
    through = [
        by_backend and all(needs.of(m) - needs.dispensable <= COMPUTES for m in found)
        for needs, found in ((experiment.requirements, found) for experiment, found in able)
    ]
    if by_backend and not any(through):
        names = ", ".join(dict.fromkeys(experiment.name for experiment, _ in able))
        raise InputError(f"the backend {config.backend} computes logits and attention, but {names} read more")
    if config.answers == "all" and all(experiment.only_categories for experiment, _ in able):
        names = ", ".join(dict.fromkeys(experiment.name for experiment, _ in able))
        raise InputError(f"{names} lets networks choose among the data's categories only; leave out --answers all")
    context = dataclasses.replace(context, answers=config.answers)
    tasks: list[Task] = []
    choosing: dict[str, Model] = {}
    for (experiment, found), passes in zip(able, through, strict=True):
        if not experiment.own_answers:
            for model in found:
                choosing.setdefault(model.name, answering(model, data, config.answers))
            found = [choosing[model.name] for model in found]
        if passes:  # each model is converted once for all experiments that let it choose among the same answers
            kinds = [(model.name, model.answer_space is None) for model in found]
            for kind, model in zip(kinds, found, strict=True):
                if kind not in computed:
                    computed[kind] = with_backend(model, config.backend, config.precision)
            found = [computed[kind] for kind in kinds]
        measurement = experiment.bind(found, data, context)
        _check_overrides(experiment, measurement)
        items = measurement.items(data, config.limit)
        made = [_task(experiment, measurement, model, items, config) for model in found]
        _check_analysis(experiment, condition_fields(made, experiment.name))
        tasks += made
    order = list(dict.fromkeys(model.name for _, found in able for model in found))
    return sorted(tasks, key=lambda task: order.index(task.model.name))


def condition_fields(tasks: Sequence[Task], experiment: str) -> list[str]:
    """Return the names of the fields of an experiment's conditions, in their order."""
    of_it = [task for task in tasks if task.experiment.name == experiment]
    kinds = dict.fromkeys(type(condition) for task in of_it for condition in task.conditions)
    return list(dict.fromkeys(field.name for kind in kinds for field in dataclasses.fields(kind)))


def _check_analysis(experiment: Experiment, fields: Sequence[str]) -> None:
    """Refuse an analysis that speaks of what the conditions do not have.

    Raises:
        InputError: names the first such word.
    """
    analysis = experiment.analysis()
    if taken := [name for name in fields if name in RESERVED]:
        raise InputError(
            f"{experiment.name}: a condition's field may not be called {taken[0]!r}; records have it already"
        )
    if type(analysis) is not Analysis:  # a subclass may tell conditions apart by columns of the records
        return
    for what, names in (("clean", analysis.clean), ("compare_by", analysis.compare_by or ())):
        if strange := [name for name in names if name not in fields]:
            close = did_you_mean(strange[0], fields)
            raise InputError(
                f"{experiment.name}: {what} of its analysis names {strange[0]!r}, which is no field of its conditions "
                f"({', '.join(fields)}).{close}"
            )


def _check_overrides(experiment: Experiment, measurement: Measurement) -> None:
    """Refuse a subclass whose methods would never be called, since its measurement is another object.

    Raises:
        InputError: it overrides one.
    """
    if measurement is experiment:
        return
    kind = type(experiment)
    asked = [name for name in vars(Measurement) if not name.startswith("_") and name != "view"]
    for name in asked:
        if getattr(kind, name) is not getattr(Measurement, name):
            raise InputError(
                f"{experiment.name}: {kind.__name__} overrides {name!r}, which is asked of what bind returns; override "
                f"bind, and {name!r} in a subclass of {type(measurement).__name__}"
            )


def _task(experiment: Experiment, measurement: Measurement, model: Model, items: Items, config: RunConfig) -> Task:
    """Return the task of an experiment on a model, of which nothing is on disk yet.

    Raises:
        InputError: experiment, model and items do not fit together.
    """
    if lacking := _lacking_capabilities(experiment, model):
        raise InputError(lacking)
    _check_items(experiment, items)
    notes = _among_voters(model, items)
    classes, answers = _right_answers(experiment, measurement, model, items, notes)
    space = measurement.answer_space(model) if answers else None
    identity = Identity(
        experiment.name,
        experiment.version,
        model.digest,
        items.fingerprint,
        config.seed,
        _numerics_of(config.precision, model),
        "" if classes is None else fingerprint("labels", *_mapping(classes, space, items))[:16],
        "all" if space is None else "data",
    )
    conditions = tuple(measurement.conditions(model))
    notes += measurement.notes(model)
    if not has_pictures(items):
        _check_no_pixels_needed(experiment, measurement, conditions, items)
    applicable = _applicable(measurement, conditions, items)
    among = answers, answers if space is None else space.outputs
    task = Task(experiment, measurement, model, identity, conditions, classes, among, items, applicable, notes=notes)
    _ = task.view, task.by_transform  # what they refuse is refused now, before anything is written
    return task


_MOST_VOTERS = 0.001
"""Share of the images that may be among those that vote: published sets have a few pictures twice."""


def _among_voters(model: Model, items: Items) -> list[str]:
    """Say of a model whose answers are votes of images that a few of the items are among these.

    Raises:
        InputError: more than :data:`_MOST_VOTERS` of them are: each would vote for itself.
    """
    if model.bank is None or not has_pictures(items):
        return []
    both = copies(model.bank, items)
    count = max(len(both), in_common(model.bank, items))
    if not count:
        return []
    example = f", for example {both[0]}" if both else ""
    said = f"{count:,} images of {items.name} are among the {len(model.bank):,} that vote in {model.name}{example}"
    if count > _MOST_VOTERS * len(items):
        raise InputError(f"{said}: each would be its own nearest neighbour; let images vote that are not measured")
    return [f"{said}; each is its own nearest neighbour"]


_SOURCES = {
    "texture": "`ipvit stylize --cue-conflict` makes such images, cue-conflict:PATH reads them",
    "shape": "`ipvit stylize --cue-conflict` makes such images, cue-conflict:PATH reads them",
}
"""Where data with a column come from."""


def _check_items(experiment: Experiment, items: Items) -> None:
    """Refuse items without the masks, the columns or the other images that an experiment needs.

    Raises:
        InputError: something is not there.
    """
    needs = experiment.requirements
    if needs.donors and len(items) < 2:
        raise InputError(f"{experiment.name} fills with other images, but {items.name} has {len(items)}")
    if needs.masks and not (has_pictures(items) and items.has_masks):
        raise InputError(
            f"{experiment.name} needs foreground masks, which {items.name} does not have; give data that have them as "
            "masks:IMAGES,MASKS or voc2012:PATH"
        )
    if lacking := [name for name in needs.fields if name not in items.fields]:
        raise InputError(
            f"{experiment.name} needs the {' and the '.join(lacking)} of every image; {items.name} has none"
            + "".join(f"; {_SOURCES[name]}" for name in lacking if name in _SOURCES)
        )


def _check_no_pixels_needed(
    experiment: Experiment, measurement: Measurement, conditions: Sequence[Condition], items: Items
) -> None:
    """Refuse what is done to pixels where the items are no pictures.

    Raises:
        InputError: the experiment asks for donors or image transforms.
    """
    transforms = any(measurement.image_transform(condition) is not None for condition in conditions)
    for what, asked in (("donors", experiment.requirements.donors > 0), ("image transforms", transforms)):
        if asked:
            raise InputError(f"{experiment.name} asks for {what}, but its items on {items.name} are no pictures")


def _mapping(classes: np.ndarray, space: AnswerSpace | None, items: Items) -> list[object]:
    """Return what determines which outputs are right: of answers made of outputs, and of several labels, these too."""
    sets = sets_as_text(items)
    return [classes, *([] if space is None else [space.digest]), *([sets] if sets else [])]


def _right_answers(
    experiment: Experiment, measurement: Measurement, model: Model, items: Items, notes: list[str]
) -> tuple[np.ndarray | None, int]:
    """Return the model's right answer, or answers, for every class of the items, and how many answers there are.

    None and 0 where there are no labels and none are needed.

    Raises:
        InputError: the experiment needs labels, and there are none or they do not fit the model.
    """
    labels = experiment.requirements.labels
    if items.classes is None:
        if labels:
            named = items.name.startswith(BY_NAME)
            lacking = "does not say what its labels mean: --classes" if named else "has no class folders"
            advice = " takes a file of their names, or imagenet-1k" if named else ""
            raise InputError(f"{experiment.name} needs labels: {items.name} {lacking}{advice}")
        return None, 0
    try:
        outputs = measurement.classes(model)
        if outputs is None or outputs is model.classes:
            return right_answers(items, model, notes), model.n_outputs
        right = map_classes(items.classes, items.aliases, outputs, data_name=items.name, model_name=model.name)
        return right, len(outputs)
    except InputError:
        if labels:
            raise
        return None, 0


def _numerics_of(precision: str, model: Model) -> str:
    """Return what the last digits of a result depend on: the precision, and the backend where it is not torch."""
    return precision if model.backend == "torch" else f"{precision} {model.backend}"


def _applicable(measurement: Measurement, conditions: Sequence[Condition], items: Items) -> np.ndarray:
    """Return which conditions are measured on which items, see :class:`Task`."""
    limited = [measurement.applicable_images(condition, items) for condition in conditions]
    if all(images is None for images in limited):
        return np.ones((1, 1), dtype=bool)
    return np.stack([np.ones(len(items), dtype=bool) if images is None else images for images in limited], axis=1)


def by_torch(tasks: Sequence[Task], config: RunConfig) -> list[str]:
    """Say, where a backend was asked for, which experiments torch computes all the same."""
    names = dict.fromkeys(task.experiment.name for task in tasks if task.model.backend == "torch")
    if config.backend == "torch" or not names:
        return []
    return [f"{', '.join(names)}: by torch, since {config.backend} computes no more than logits and attention"]


def uncompiled(tasks: Sequence[Task], config: RunConfig) -> list[str]:
    """Say, where networks are compiled, which experiments gain nothing: their passes go block by block, uncompiled."""
    inside = dict.fromkeys(
        task.experiment.name for task in tasks if task.experiment.requirements.of(task.model) - {"logits", "gradients"}
    )
    if not config.compile or not inside:
        return []
    return [f"{', '.join(inside)}: not compiled, since more than logits is read inside the networks"]


def plan_sweeps(
    tasks: Sequence[Task], data: Dataset, config: RunConfig, device: torch.device, group: ProcessGroup
) -> list[SweepPlan]:
    """Return the sweep over the images first, even where no task is on them, then one for each task on other items.

    What the options leave open is decided here: the batch size, and the decoding processes, for which the processes of
    a machine share its cores.

    Args:
        tasks: all tasks of the run.
        data: the images.
        config: the options of the run.
        device: where the models are.
        group: the processes of the run.
    """
    size = config.batch_size or default_batch(device)
    on_images = [task for task in tasks if task.items is data]
    workers = default_workers(tasks, device.type, group) if config.workers is None else config.workers
    plans = [SweepPlan(on_images, data, subset_indices(data, config.limit), size, workers, device, config)]
    for task in tasks:
        if task.items is not data:  # all of them: the limit was for the images that they are made of
            everything = np.arange(len(task.items))
            plans.append(SweepPlan([task], task.items, everything, size, workers, device, config))
    return plans


def default_batch(device: torch.device) -> int:
    """Return how many images at a time keep a device busy."""
    return 32 if device.type == "cpu" else 256


def mark_finished(tasks: Sequence[Task], store: Store) -> int:
    """Note which results a store holds already; return their number."""
    found = 0
    for task in tasks:
        held = store.done(task.identity, task.items.ids, task.conditions)
        found += int(held.sum())
        task.on_disk = task.on_disk | held
    return found


def measured_before(plans: Sequence[SweepPlan]) -> str:
    """Say how much of what is asked for is on disk already, in words; empty where that is nothing."""
    whole = begun = asked = have = results = 0
    for plan in plans:
        for task in plan.tasks:
            shape = (len(plan.positions), len(task.conditions))
            applicable, on_disk = (
                np.broadcast_to(array if len(array) == 1 else array[plan.positions], shape)
                for array in (task.applicable, task.on_disk)
            )
            there = (applicable & on_disk).sum(axis=0)
            wanted = applicable.sum(axis=0)
            whole += int((there == wanted).sum())
            begun += int(((there > 0) & (there < wanted)).sum())
            asked, have, results = asked + shape[1], have + int(there.sum()), results + int(wanted.sum())
    if not have:
        return ""
    if have == results:
        return f"{whole:,} of {asked:,} conditions measured before, nothing to do"
    part = f", {begun:,} in part" if begun else ""
    return f"{whole:,} of {asked:,} conditions measured before{part}; {results - have:,} of {results:,} results to do"


def count_finished(tasks: Sequence[Task], store: Store) -> int:
    """Return how many results of the tasks a store holds now."""
    return sum(int(store.done(task.identity, task.items.ids, task.conditions).sum()) for task in tasks)


def assign_shard(plan: SweepPlan, group: ProcessGroup) -> Claims:
    """Decide which results this process measures.

    Whole batches are shared out, the same ones that a single process would form: floating-point sums, and with them
    the last digit of a probability, may depend on what else is in a batch. What can be read in any order may be
    measured by another process after all, but for the first batch of each: pictures are taken of it.
    """
    batches = plan.config.effective_shard.of(plan.batches, contiguous=plan.sequential)
    pending = [number for number, batch in enumerate(batches) if any(task.missing(batch).any() for task in plan.tasks)]
    (pending, *_) = group.collect(pending)  # the first process's: on a network drive others may see an older state
    shares = [Shard(rank, group.size).of(pending, contiguous=plan.sequential) for rank in range(group.size)]
    own = shares[group.rank]
    kept = {*own, *(share[0] for share in shares if share)}
    others = [] if plan.sequential else [number for number in pending if number not in kept]
    first, left = group.counter(len(pending))
    claims = Claims(batches, own, others, first, left, group.size)
    mine = np.zeros((len(plan.items), 1), dtype=bool)
    mine[claims.possible] = True
    for task in plan.tasks:
        task.mine = mine
    return claims
