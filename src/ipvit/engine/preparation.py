"""What comes before the first image: do models, experiments and data fit, what is done already, who measures what."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from ipvit.data.dataset import Dataset
from ipvit.data.loader import default_workers
from ipvit.data.subset import subset_indices
from ipvit.engine.device import keeping_memory, numerics, pick_device
from ipvit.engine.distributed import Team
from ipvit.engine.store import Store
from ipvit.engine.sweep import Pair, Settings, batches_of_images, default_batch, lacks, prepare_pair
from ipvit.errors import InputError
from ipvit.experiments.base import Experiment
from ipvit.models.backend import OpenVinoNetwork, check_backend
from ipvit.models.model import Model


def checked(
    experiments: Sequence[Experiment], models: Sequence[Model], data: Dataset, settings: Settings, team: Team
) -> tuple[torch.device, list[Pair], list[str]]:
    """Check everything that can be checked before anything is written.

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
    for experiment in experiments:
        experiment.check_all(models)
    device = pick_device(settings.device, team.local_rank if team.size > 1 else None)
    check_backend(settings.backend, settings.precision, device.type, compiled=settings.compile)
    able, left_out = _able(experiments, models)
    return device, _pairs(able, data, settings), left_out


def of_this_process(settings: Settings, device: torch.device, team: Team) -> Settings:
    """Fill in what is not given; the processes of a machine share its cores."""
    workers = max(1, default_workers(device.type) // team.local_size) if settings.workers is None else settings.workers
    return dataclasses.replace(settings, batch_size=settings.batch_size or default_batch(device), workers=workers)


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
            if not experiment.concerns(model):
                continue
            if lacking := lacks(experiment, model):
                left_out.append(lacking)
            else:
                pairs.append((experiment, model))
    for experiment in experiments:
        if not any(paired is experiment for paired, _ in pairs):
            raise InputError(lacks(experiment, next(filter(experiment.concerns, models))))
    return pairs, left_out


def _pairs(able: Sequence[tuple[Experiment, Model]], data: Dataset, settings: Settings) -> list[Pair]:
    """Prepare the pairs; an experiment that asks for no more than the backend computes goes through the backend.

    Raises:
        InputError: something does not fit, or a backend was asked for and no experiment can go through it.
    """
    if settings.backend == "torch":
        return [prepare_pair(experiment, model, data, settings) for experiment, model in able]
    by_itself = dataclasses.replace(settings, backend="torch")
    inside = {id(experiment) for experiment, model in able if not experiment.whole_passes(model)}
    if all(id(experiment) in inside for experiment, _ in able):
        names = ", ".join(dict.fromkeys(experiment.name for experiment, _ in able))
        raise InputError(f"the backend {settings.backend} computes logits and attention, but {names} read more")
    networks = {model.name: OpenVinoNetwork(model, settings.precision) for _, model in able}
    pairs = []
    for experiment, model in able:
        pair = prepare_pair(experiment, model, data, by_itself if id(experiment) in inside else settings)
        if id(experiment) not in inside:
            pair.answers = networks[model.name]  # converted once for all experiments
        pairs.append(pair)
    return pairs


def by_torch(pairs: Sequence[Pair], settings: Settings) -> list[str]:
    """Say, where a backend was asked for, which experiments torch computes all the same."""
    names = dict.fromkeys(pair.experiment.name for pair in pairs if pair.answers is None)
    if settings.backend == "torch" or not names:
        return []
    return [f"{', '.join(names)}: by torch, since {settings.backend} computes no more than logits and attention"]


def look_up(pairs: Sequence[Pair], store: Store) -> bool:
    """Note what a store holds already; tell whether that is anything."""
    found = False
    for pair in pairs:
        done = store.done(pair.identity, pair.data.ids, pair.conditions)
        found |= bool(done.any())
        pair.done |= done
    return found


@dataclasses.dataclass(frozen=True)
class Work:
    """What one sweep goes over: the images with all pairs on them, or the episodes of one pair."""

    pairs: Sequence[Pair]
    data: Dataset
    settings: Settings


def works_of(pairs: Sequence[Pair], data: Dataset, settings: Settings) -> list[Work]:
    """Return the sweep over the images first, even where no pair is on them."""
    whole = dataclasses.replace(settings, limit=None)  # the limit was for the images that episodes are made of
    others = [Work([pair], pair.data, whole) for pair in pairs if pair.data is not data]
    return [Work([pair for pair in pairs if pair.data is data], data, settings), *others]


def take_share(work: Work, device: torch.device, team: Team) -> int:
    """Mark what this process leaves to others as done; return the number of images of the shard.

    Whole batches are shared out, the same ones that a single process would form: floating-point sums, and with them
    the last digit of a probability, may depend on what else is in a batch.
    """
    pairs, data, settings = work.pairs, work.data, work.settings
    batches = settings.shard.of(
        batches_of_images(subset_indices(data, settings.limit), settings, device), contiguous=data.sequential
    )
    pending = [number for number, batch in enumerate(batches) if any(not pair.done[batch].all() for pair in pairs)]
    (pending, *_) = team.collect(pending)  # the first process's: on a network drive others may see an older state
    mine = np.zeros(len(data), dtype=bool)
    for number in team.share.of(pending, contiguous=data.sequential):
        mine[batches[number]] = True
    for pair in pairs:
        pair.done[~mine] = True
    return sum(map(len, batches))


@contextlib.contextmanager
def placed(
    models: Sequence[Model], device: torch.device, settings: Settings, pairs: Sequence[Pair] = ()
) -> Iterator[None]:
    """Put the networks on the device, compiled where asked for; afterwards they are where and what they were.

    Args:
        models: the networks.
        device: where to.
        settings: how the study is run.
        pairs: what is to be measured; a network that a backend answers for everywhere keeps its layout.
    """
    of_torch = {pair.model for pair in pairs if pair.answers is None}
    answered = {pair.model for pair in pairs} - of_torch
    before = [(model, model.device, model.backbone) for model in models]
    short = settings.precision != "fp32" and device.type in ("cpu", "cuda")
    try:
        for model in models:
            model.to(device).eval()
            if short and model not in answered:
                _put_channels_last(model, device, settings.precision)
            if settings.compile and not hasattr(model.backbone, "_orig_mod"):
                model.backbone = torch.compile(model.backbone)  # pyright: ignore[reportAttributeAccessIssue]
        with keeping_memory(device):
            yield
    finally:
        for model, earlier, backbone in before:
            model.backbone = backbone
            if short:
                model.to(memory_format=torch.contiguous_format)
            model.to(earlier)


def _put_channels_last(model: Model, device: torch.device, precision: str) -> None:
    """Lay convolutions out as their 16-bit kernels want them, unless the network's code does not stand it."""
    model.to(memory_format=torch.channels_last)
    try:
        with torch.inference_mode(), numerics(device, precision):
            model.plain(torch.zeros(2, 3, *model.image_size, device=device))
    except RuntimeError:  # for example a view of what is no longer contiguous; what else is wrong shows later
        model.to(memory_format=torch.contiguous_format)
