"""The one loop: every image is read once, for all models, experiments and conditions."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from ipvit.data.dataset import Dataset, fingerprint
from ipvit.data.labels import map_classes
from ipvit.data.loader import VOID, Chunk, default_workers, read_chunks
from ipvit.data.subset import select
from ipvit.engine.device import is_out_of_memory, numerics
from ipvit.engine.store import Identity, Store, column_frame
from ipvit.errors import InputError
from ipvit.experiments.base import Batch, Condition, Experiment, Records
from ipvit.models.model import Model
from ipvit.preprocessing import View


@dataclasses.dataclass
class Settings:
    """How a study is run; nothing here but ``seed``, ``limit`` and ``precision`` changes what is measured."""

    seed: int = 0
    limit: int | None = None
    batch_size: int | None = None
    workers: int | None = None
    device: str = "auto"
    precision: str = "fp32"
    compile: bool = False
    strict: bool = False


@dataclasses.dataclass(frozen=True)
class Failure:
    """Something that went wrong while the rest went on."""

    experiment: str
    model: str
    error: str
    details: str


@dataclasses.dataclass
class Pair:
    """One experiment on one model over one data set: what is to be done, and what is done already."""

    experiment: Experiment
    model: Model
    identity: Identity
    conditions: tuple[Condition, ...]
    classes: np.ndarray | None
    done: np.ndarray
    failed: bool = False

    @functools.cached_property
    def view(self) -> View:
        """How pictures become the model's input in this experiment."""
        return self.experiment.view(self.model)

    def missing(self, indices: np.ndarray) -> list[tuple[int, ...]]:
        """Return per image, given by its position, the numbers of the conditions that are not on disk."""
        return [tuple(np.flatnonzero(~row).tolist()) for row in self.done[indices]]


@dataclasses.dataclass
class Outcome:
    """What a sweep met on its way.

    Attributes:
        selected: images of the data set that the study uses.
        unreadable: id and reason of the images that could not be read.
        failures: models or experiments that failed.
        measured: results (image x condition x model) measured in this call.
    """

    selected: int
    unreadable: dict[str, str] = dataclasses.field(default_factory=dict)
    failures: list[Failure] = dataclasses.field(default_factory=list)
    measured: int = 0


def lacks(experiment: Experiment, model: Model) -> str:
    """Return what a model cannot do that an experiment needs, as a sentence; empty where it can do everything."""
    missing = sorted(experiment.needs.capabilities - model.capabilities)
    if not missing:
        return ""
    return (
        f"{experiment.name} needs the capability {', '.join(missing)}, which {model.name} does not offer; "
        f"it offers {', '.join(sorted(model.capabilities))}"
    )


def prepare_pair(experiment: Experiment, model: Model, data: Dataset, store: Store, settings: Settings) -> Pair:
    """Check that an experiment, a model and a data set fit together and look up what is already done.

    Raises:
        InputError: they do not fit.
    """
    needs = experiment.needs
    if lacking := lacks(experiment, model):
        raise InputError(lacking)
    experiment.check(model)
    if needs.masks and not data.has_masks:
        raise InputError(f"{experiment.name} needs foreground masks, which {data.name} does not have")
    if lacking := [name for name in needs.fields if name not in data.fields]:
        raise InputError(
            f"{experiment.name} needs the {' and the '.join(lacking)} of every image; {data.name} has none"
        )
    classes = None
    if data.classes is not None:
        try:
            classes = map_classes(data.classes, data.aliases, model.classes, data_name=data.name, model_name=model.name)
        except InputError:
            if needs.labels:
                raise
    elif needs.labels:
        raise InputError(f"{experiment.name} needs labels: {data.name} has no class folders")
    identity = Identity(
        experiment.name,
        experiment.version,
        model.digest,
        data.fingerprint,
        settings.seed,
        settings.precision,
        "" if classes is None else fingerprint("labels", classes)[:16],
    )
    conditions = tuple(experiment.conditions(model))
    return Pair(experiment, model, identity, conditions, classes, store.done(identity, data.ids, conditions))


def sweep(
    pairs: Sequence[Pair],
    data: Dataset,
    store: Store,
    settings: Settings,
    device: torch.device,
    outcome: Outcome,
    *,
    advance: Callable[[int], None] = lambda _: None,
    on_first_batch: Callable[[Pair, Batch], None] = lambda _pair, _batch: None,
) -> None:
    """Measure what is missing.

    Args:
        pairs: experiments and models, all on this data set, from :func:`prepare_pair`.
        data: the data set.
        store: where records go.
        settings: how to run.
        device: where the models are.
        outcome: filled as the sweep goes on, so that it holds even when the sweep is interrupted.
        advance: told of every finished number of results, for a progress bar.
        on_first_batch: given the first batch of each pair, for example pictures.
    """
    chosen = select(data.ids, settings.limit)
    outcome.selected = len(chosen)
    chunks = [chunk for chunk in _chunks(chosen, settings, device) if _anything_missing(pairs, chunk)]
    views = [pair.view for pair in pairs]
    workers = default_workers(device.type) if settings.workers is None else settings.workers
    reader = read_chunks(
        data,
        chunks,
        views,
        workers=workers,
        masks=any(pair.experiment.needs.masks for pair in pairs),
        decoder=getattr(data, "decoder", "fast"),
        pin_memory=device.type == "cuda",
    )
    donors = _donors(pairs, data, views, device) if chunks else {}
    shown: set[int] = set()
    try:
        for chunk in reader:
            _note_unreadable(chunk, data, outcome, settings)
            images = _on_device(chunk, device)
            for number, pair in enumerate(pairs):
                if pair.failed or not len(chunk.indices):
                    continue
                for batch in _batches(
                    pair, data, chunk, images, donors.get(pair.experiment.needs.donors, NO_DONORS), settings.seed
                ):
                    first = number not in shown
                    shown.add(number)
                    if first:
                        with _recording_failures(pair, outcome, fatal=False):
                            on_first_batch(pair, batch)
                    with _recording_failures(pair, outcome):
                        _measure_into(store, pair, batch, outcome, device, settings.precision)
                    advance(len(batch) * len(batch.conditions))
                    store.flush_if_due()
    finally:  # also on Ctrl-C: what is measured is kept
        store.flush()


@dataclasses.dataclass(frozen=True)
class Donors:
    """Images whose pixels occlude others: a fixed choice, so that no batch depends on its neighbours."""

    ids: tuple[str, ...]
    images: dict[Any, torch.Tensor]


NO_DONORS = Donors((), {})


def _donors(pairs: Sequence[Pair], data: Dataset, views: Sequence[Any], device: torch.device) -> dict[int, Donors]:
    """Return the donors by how many were asked for: what one experiment asks for must not change another's."""
    return {
        wanted: _read_donors(wanted, data, views, device)
        for wanted in {pair.experiment.needs.donors for pair in pairs}
        if wanted
    }


def _read_donors(wanted: int, data: Dataset, views: Sequence[Any], device: torch.device) -> Donors:
    (chunk,) = read_chunks(data, [select(data.ids, wanted)], views, workers=0)
    return Donors(tuple(data.ids[int(i)] for i in chunk.indices), _on_device(chunk, device))


def _note_unreadable(chunk: Chunk, data: Dataset, outcome: Outcome, settings: Settings) -> None:
    for position, reason in chunk.unreadable:
        if settings.strict:
            raise InputError(f"unreadable image {data.ids[position]!r} in {data.name}: {reason}")
        outcome.unreadable[data.ids[position]] = reason


def count_missing(pairs: Sequence[Pair], data: Dataset, settings: Settings) -> int:
    """Return how many results (image x condition x model) are still to be measured."""
    chosen = select(data.ids, settings.limit)
    return sum(int((~pair.done[chosen]).sum()) for pair in pairs)


def _chunks(chosen: np.ndarray, settings: Settings, device: torch.device) -> list[np.ndarray]:
    size = settings.batch_size or (32 if device.type == "cpu" else 256)
    return [chosen[start : start + size] for start in range(0, len(chosen), size)]


def _anything_missing(pairs: Sequence[Pair], chunk: np.ndarray) -> bool:
    return any(not pair.done[chunk].all() for pair in pairs)


def _on_device(chunk: Chunk, device: torch.device) -> dict[Any, torch.Tensor]:
    return {
        view: pixels.to(device, non_blocking=True).float().div_(255).contiguous()
        for view, pixels in chunk.pixels.items()
    }


def _batches(
    pair: Pair, data: Dataset, chunk: Chunk, images: dict[Any, torch.Tensor], donors: Donors, seed: int
) -> Iterator[Batch]:
    """Yield the chunk as batches of images that lack the same conditions: one batch, unless a limit was raised."""
    ids = [data.ids[int(i)] for i in chunk.indices]
    groups: dict[tuple[int, ...], list[int]] = {}
    for row, missing in enumerate(pair.missing(chunk.indices)):
        if missing:
            groups.setdefault(missing, []).append(row)
    view = pair.view
    labels = chunk.labels
    if pair.classes is None:
        labels = np.full_like(labels, -1)
    else:
        labels = np.where(labels < 0, -1, pair.classes[labels.clip(min=0)])
    for numbers, rows in groups.items():
        whole = len(rows) == len(ids)
        pixels = images[view] if whole else images[view][rows]
        regions = chunk.masks[view][rows].to(pixels.device) if view in chunk.masks else None
        yield Batch(
            images=pixels,
            labels=torch.from_numpy(labels[rows]).to(pixels.device),
            ids=tuple(ids[row] for row in rows),
            positions=chunk.indices[rows],
            conditions=tuple(pair.conditions[number] for number in numbers),
            seed=seed,
            masks=None if regions is None else (regions[:, 0] > 0) & (regions[:, 0] != VOID),
            regions=regions,
            fields={name: column[chunk.indices[rows]] for name, column in data.fields.items()},
            donors=donors.images.get(view),
            donor_ids=donors.ids,
            classes=data.classes,
        )


@contextlib.contextmanager
def _recording_failures(pair: Pair, outcome: Outcome, *, fatal: bool = True) -> Iterator[None]:
    """Record whatever a network or an experiment raises; when fatal, leave the pair alone from then on."""
    try:
        yield
    except (InputError, OSError):  # the user's mistake, or a full disk: not the network's
        raise
    except Exception as error:  # noqa: BLE001 - anything may come out of somebody's network
        text = " ".join(str(error).split())
        what = f"{type(error).__name__}: {text[:300]}"
        outcome.failures.append(Failure(pair.experiment.name, pair.model.name, what, traceback.format_exc()))
        pair.failed = fatal


def _measure_into(
    store: Store, pair: Pair, batch: Batch, outcome: Outcome, device: torch.device, precision: str
) -> None:
    measured = [
        (records.condition, _columns(records, batch))
        for records in _measure(pair.experiment, pair.model, batch, device, precision)
    ]
    for condition, columns in measured:
        store.add(pair.identity, pair.model.name, batch.ids, condition, column_frame(columns))
        outcome.measured += len(batch)


def _measure(experiment: Experiment, model: Model, batch: Batch, device: torch.device, precision: str) -> list[Records]:
    """Measure a batch; when it does not fit into memory, measure its halves and join them."""
    gradients = "gradients" in experiment.needs.capabilities
    try:
        with numerics(device, precision), contextlib.nullcontext() if gradients else torch.inference_mode():
            return list(experiment.measure(model, batch))
    except Exception as error:
        if len(batch) == 1 or not is_out_of_memory(error):
            raise
    if device.type == "cuda":
        torch.cuda.empty_cache()
    middle = len(batch) // 2
    halves = [
        _measure(experiment, model, part, device, precision)
        for part in (batch.part(0, middle), batch.part(middle, len(batch)))
    ]
    return [
        Records(first.condition, {name: _joined(first.columns[name], second.columns[name]) for name in first.columns})
        for first, second in zip(*halves, strict=True)
    ]


def _joined(first: Any, second: Any) -> np.ndarray:
    return np.concatenate([_array(first), _array(second)])


def _columns(records: Records, batch: Batch) -> dict[str, np.ndarray]:
    columns = {"label": _array(batch.labels).astype(np.int32)}
    columns |= {name: _array(column) for name, column in batch.fields.items()}
    columns |= {name: _array(values) for name, values in records.columns.items()}
    for name, values in columns.items():
        if len(values) != len(batch):
            raise ValueError(f"the column {name!r} has {len(values)} values for {len(batch)} images")
    return columns


def _array(values: Any) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
