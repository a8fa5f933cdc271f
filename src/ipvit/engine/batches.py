"""From the items of a sweep to the batches that a task measures."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ipvit.core.preprocessing import View
from ipvit.data.loader import (
    VOID,
    DecodedBatch,
    ImageTransform,
    TransformRequests,
    read_batches,
    shared_memory_lacking,
)
from ipvit.data.subset import select
from ipvit.engine.types import SweepPlan, Task
from ipvit.experiments.base import Batch
from ipvit.models.label_mapping import right_of_images
from ipvit.perturb.pixels import as_floats
from ipvit.perturb.tensors import from_numpy

Images = Mapping[View, Tensor]
"""``(B, 3, H, W)`` float in [0, 1] per view."""


def decoded_batches(plan: SweepPlan, batches: Sequence[np.ndarray], notes: list[str]) -> Iterator[DecodedBatch]:
    """Return the batches of a sweep, decoded and transformed as its tasks ask; without pixels for other items.

    Args:
        plan: the sweep.
        batches: positions of the items of each batch.
        notes: what the user should know, to be filled.
    """
    if plan.pictures is None:
        return (_without_pixels(plan, batch) for batch in batches)
    views = [task.view for task in plan.tasks]
    masks = any(task.experiment.requirements.masks for task in plan.tasks)
    if lacking := shared_memory_lacking(batches, views, plan.workers, masks):
        notes.append(lacking)
    return read_batches(
        plan.pictures,
        batches,
        views,
        workers=plan.workers,
        masks=masks,
        decoder=plan.pictures.decoder,
        pin_memory=plan.device.type == "cuda",
        transforms=[transform_requests(plan.tasks, batch) for batch in batches],
        seed=plan.config.seed,
        through_pipes=bool(lacking),
        notes=notes,
    )


def _without_pixels(plan: SweepPlan, positions: np.ndarray) -> DecodedBatch:
    return DecodedBatch(positions, np.asarray(plan.items.labels)[positions], pixels={}, masks={}, unreadable=[])


def transform_requests(tasks: Sequence[Task], positions: np.ndarray) -> TransformRequests:
    """Return the images of a batch that some task still needs transformed, per view and transform."""
    requested: dict[tuple[View, ImageTransform], np.ndarray] = {}
    for task in tasks:
        missing = task.missing(positions)
        for transform, numbers in task.by_transform.items():
            needed = missing[:, numbers].any(axis=1)
            if transform is not None and needed.any():
                earlier = requested.get((task.view, transform), np.zeros(len(positions), dtype=bool))
                requested[task.view, transform] = needed | earlier
    return {place: positions[needed] for place, needed in requested.items()}


def on_device(decoded: DecodedBatch, device: torch.device) -> Images:
    """Return the pixels of a batch as floats on a device."""
    return {view: as_floats(pixels, device).contiguous() for view, pixels in decoded.pixels.items()}


@dataclasses.dataclass(frozen=True)
class Donors:
    """Images whose pixels occlude others: a fixed choice, so that no batch depends on its neighbours."""

    ids: tuple[str, ...] = ()
    images: Images = dataclasses.field(default_factory=dict[View, Tensor])


def read_donors(plan: SweepPlan) -> dict[int, Donors]:
    """Return the donors by how many were asked for: what one experiment asks for must not change another's."""
    counts = {task.experiment.requirements.donors for task in plan.tasks}
    return {count: _read_donors(plan, count) for count in counts}


def _read_donors(plan: SweepPlan, count: int) -> Donors:
    data = plan.pictures
    if not count or data is None:
        return Donors()
    (decoded,) = read_batches(data, [select(data.ids, count)], [task.view for task in plan.tasks], workers=0)
    return Donors(tuple(data.ids[int(i)] for i in decoded.indices), on_device(decoded, plan.device))


def batches_of(task: Task, plan: SweepPlan, decoded: DecodedBatch, images: Images, donors: Donors) -> Iterator[Batch]:
    """Yield a decoded batch as batches of items that lack the same conditions: one batch, unless a limit was raised.

    Args:
        task: whose batches.
        plan: the sweep.
        decoded: the batch.
        images: its pixels, see :func:`on_device`.
        donors: what the experiment asked for.
    """
    if plan.pictures is None:
        pixels = torch.empty(len(decoded.indices), 0, 0, 0, device=plan.device)
    elif task.view in images:
        pixels = images[task.view]
    else:  # a transform for other tasks, or nothing could be read
        return
    items = plan.items
    ids = [items.ids[int(i)] for i in decoded.indices]
    labels = _right(task, decoded)
    for numbers, rows in _by_missing_conditions(task, decoded).items():
        whole = len(rows) == len(ids)
        part = pixels if whole else pixels[rows]
        regions = decoded.masks.get(task.view)
        if regions is not None:  # whole batches are pinned; what is picked from one is not
            regions = (regions if whole else regions[rows]).to(part.device, non_blocking=True)
        yield Batch(
            images=part,
            labels=from_numpy(labels[rows]).to(part.device, non_blocking=True),
            ids=tuple(ids[row] for row in rows),
            positions=decoded.indices[rows],
            conditions=tuple(task.conditions[number] for number in numbers),
            seed=plan.config.seed,
            masks=None if regions is None else (regions[:, 0] > 0) & (regions[:, 0] != VOID),
            regions=regions,
            fields={name: column[decoded.indices[rows]] for name, column in items.fields.items()},
            donors=donors.images.get(task.view),
            donor_ids=donors.ids,
            classes=items.classes,
            prepared=task.prepared,
            room=plan.batch_size if plan.config.join_conditions else 0,
        )


def _right(task: Task, decoded: DecodedBatch) -> np.ndarray:
    """Return the right answer of each image, or its right answers; see :class:`ipvit.experiments.base.Batch`."""
    if task.classes is None:
        return np.full_like(decoded.labels, -1)
    sets = getattr(task.items, "label_sets", None)
    chosen = None if sets is None else [sets[int(index)] for index in decoded.indices]
    return right_of_images(task.classes, decoded.labels, chosen, task.among[0])


def _by_missing_conditions(task: Task, decoded: DecodedBatch) -> dict[tuple[int, ...], list[int]]:
    """Return the rows of a decoded batch by the numbers of the conditions that are missing with its transform."""
    numbers = task.by_transform.get(decoded.transform, np.zeros(0, dtype=np.int64))
    groups: dict[tuple[int, ...], list[int]] = {}
    for row, missing in enumerate(task.missing(decoded.indices)[:, numbers]):
        if missing.any():
            groups.setdefault(tuple(numbers[missing].tolist()), []).append(row)
    return groups
