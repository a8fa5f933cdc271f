"""What comes before the first image: do models, experiments and data fit, what is done already, who measures what."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from ipvit.core.run_config import RunConfig
from ipvit.data.dataset import Dataset
from ipvit.data.loader import default_workers
from ipvit.data.subset import subset_indices
from ipvit.engine.device import keeping_memory, numerics, pick_device
from ipvit.engine.distributed import Team
from ipvit.engine.store import Store
from ipvit.engine.sweep import Pair, batches_of_images, default_batch, lacks, prepare_pair
from ipvit.engine.types import Selected
from ipvit.errors import InputError
from ipvit.experiments.base import BindContext, Experiment, Measurement
from ipvit.models.backend import COMPUTES, check_backend
from ipvit.models.model import Model
from ipvit.models.openvino_model import with_backend


def checked(
    selected: Sequence[Selected],
    models: Sequence[Model],
    data: Dataset,
    settings: RunConfig,
    team: Team,
    context: BindContext,
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
    device = pick_device(settings.device, team.local_rank if team.size > 1 else None)
    check_backend(settings.backend, settings.precision, device.type, compiled=settings.compile)
    able, left_out = _able(selected, models)
    return device, _pairs(able, data, settings, context), left_out


def of_this_process(settings: RunConfig, device: torch.device, team: Team) -> RunConfig:
    """Fill in what is not given; the processes of a machine share its cores."""
    workers = max(1, default_workers(device.type) // team.local_size) if settings.workers is None else settings.workers
    size = settings.batch_size or default_batch(device)
    return settings.model_copy(update={"batch_size": size, "workers": workers})


def _able(
    selected: Sequence[Selected], models: Sequence[Model]
) -> tuple[list[tuple[Experiment, list[Model]]], list[str]]:
    """Return every experiment with the models that can do it, and say which cannot.

    Raises:
        InputError: no model of the study can do an experiment.
    """
    able, left_out = [], []
    for entry in selected:
        concerned = [model for model in models if entry.concerns(model)]
        lacking = {model.name: lacks(entry.experiment, model) for model in concerned}
        found = [model for model in concerned if not lacking[model.name]]
        if not found:
            raise InputError(lacking[concerned[0].name])
        able.append((entry.experiment, found))
        left_out += [text for text in lacking.values() if text]
    return able, left_out


def _pairs(
    able: Sequence[tuple[Experiment, list[Model]]], data: Dataset, settings: RunConfig, context: BindContext
) -> list[Pair]:
    """Bind the experiments and prepare the pairs, those of one model after the other.

    An experiment that asks for no more than the backend computes goes through the backend.

    Raises:
        InputError: something does not fit, or a backend was asked for and no experiment can go through it.
    """
    computed: dict[str, Model] = {}
    by_backend = settings.backend != "torch"
    # all models of an experiment, or none
    through = [
        by_backend and all(experiment.requirements.of(m) <= COMPUTES for m in found) for experiment, found in able
    ]
    if by_backend and not any(through):
        names = ", ".join(dict.fromkeys(experiment.name for experiment, _ in able))
        raise InputError(f"the backend {settings.backend} computes logits and attention, but {names} read more")
    pairs = []
    for (experiment, found), passes in zip(able, through, strict=True):
        if passes:  # each model is converted once for all experiments
            for model in found:
                computed.setdefault(model.name, with_backend(model, settings.backend, settings.precision))
            found = [computed[model.name] for model in found]
        measurement = experiment.bind(found, data, context)
        _check_overrides(experiment, measurement)
        items = measurement.items(data, settings.limit)
        pairs += [prepare_pair(experiment, measurement, model, items, settings) for model in found]
    order = list(dict.fromkeys(model.name for _, found in able for model in found))
    return sorted(pairs, key=lambda pair: order.index(pair.model.name))


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


def by_torch(pairs: Sequence[Pair], settings: RunConfig) -> list[str]:
    """Say, where a backend was asked for, which experiments torch computes all the same."""
    names = dict.fromkeys(pair.experiment.name for pair in pairs if pair.model.backend == "torch")
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
    settings: RunConfig


def works_of(pairs: Sequence[Pair], data: Dataset, settings: RunConfig) -> list[Work]:
    """Return the sweep over the images first, even where no pair is on them."""
    whole = settings.model_copy(update={"limit": None})  # the limit was for the images that episodes are made of
    others = [Work([pair], pair.data, whole) for pair in pairs if pair.data is not data]
    return [Work([pair for pair in pairs if pair.data is data], data, settings), *others]


def take_share(work: Work, device: torch.device, team: Team) -> int:
    """Mark what this process leaves to others as done; return the number of images of the shard.

    Whole batches are shared out, the same ones that a single process would form: floating-point sums, and with them
    the last digit of a probability, may depend on what else is in a batch.
    """
    pairs, data, settings = work.pairs, work.data, work.settings
    batches = settings.share.of(
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
    models: Sequence[Model], device: torch.device, settings: RunConfig, pairs: Sequence[Pair] = ()
) -> Iterator[None]:
    """Put the networks on the device, compiled where asked for; afterwards they are where and what they were.

    Args:
        models: the networks.
        device: where to.
        settings: how the study is run.
        pairs: what is to be measured; a network that a backend computes everywhere keeps its layout.
    """
    elsewhere = {pair.model.name for pair in pairs} - {p.model.name for p in pairs if p.model.backend == "torch"}
    before = [(model, model.device, model.backbone) for model in models]
    short = settings.precision != "fp32" and device.type in ("cpu", "cuda")
    try:
        for model in models:
            model.to(device).eval()
            if short and model.name not in elsewhere:
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
            model(torch.zeros(2, 3, *model.image_size, device=device))
    except RuntimeError:  # for example a view of what is no longer contiguous; what else is wrong shows later
        model.to(memory_format=torch.contiguous_format)
