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

from ipvit.core.manifest import Failure
from ipvit.core.memory import halving
from ipvit.core.run_config import RunConfig
from ipvit.data.dataset import Dataset, fingerprint
from ipvit.data.labels import map_classes
from ipvit.data.loader import VOID, Alteration, Chunk, Wanted, default_workers, read_chunks, shared_memory_lacking
from ipvit.data.subset import select, subset_indices
from ipvit.engine.device import numerics
from ipvit.engine.store import Identity, Store, column_frame
from ipvit.errors import InputError, error_line
from ipvit.experiments.base import Batch, Condition, Experiment, Measurement, PrepareContext, Records
from ipvit.models.model import Model
from ipvit.perturb.pixels import as_floats
from ipvit.preprocessing import View


@dataclasses.dataclass
class Pair:
    """One experiment on one model over one data set: what is to be done, and what is done already."""

    experiment: Experiment
    measurement: Measurement
    model: Model
    identity: Identity
    conditions: tuple[Condition, ...]
    classes: np.ndarray | None
    done: np.ndarray
    data: Dataset
    failed: bool = False
    prepared: Any = None

    @functools.cached_property
    def view(self) -> View:
        """How pictures become the model's input in this experiment on these data."""
        return self.measurement.view(self.model) or self.experiment.view(self.model)

    @functools.cached_property
    def by_alteration(self) -> dict[Alteration | None, np.ndarray]:
        """The numbers of the conditions per alteration of the pictures."""
        groups: dict[Alteration | None, list[int]] = {}
        for number, condition in enumerate(self.conditions):
            groups.setdefault(self.measurement.image_transform(condition), []).append(number)
        return {alteration: np.array(numbers) for alteration, numbers in groups.items()}

    def leave(self, numbers: Sequence[int] | np.ndarray) -> None:
        """Let conditions that fail be: nothing more is to be done about them in this run."""
        self.done[:, numbers] = True
        self.failed = bool(self.done.all())

    def missing(self, indices: np.ndarray, alteration: Alteration | None = None) -> list[tuple[int, ...]]:
        """Return per image, given by its position, the conditions on an alteration that are not on disk."""
        numbers = self.by_alteration.get(alteration)
        if numbers is None:
            return [()] * len(indices)
        return [tuple(numbers[~row].tolist()) for row in self.done[indices][:, numbers]]


@dataclasses.dataclass
class Outcome:
    """What a sweep met on its way.

    Attributes:
        selected: images of the data set that the study uses.
        unreadable: id and reason of the images that could not be read.
        failures: models or experiments that failed.
        measured: results (image x condition x model) measured in this call.
        notes: what the user should know of how it went.
    """

    selected: int
    unreadable: dict[str, str] = dataclasses.field(default_factory=dict)
    failures: list[Failure] = dataclasses.field(default_factory=list)
    measured: int = 0
    notes: list[str] = dataclasses.field(default_factory=list)

    @classmethod
    def joined(cls, parts: Sequence[Outcome]) -> Outcome:
        """Return what several processes met, each on its share."""
        failures = {(f.experiment, f.model, f.condition, f.error): f for part in parts for f in part.failures}
        return cls(
            max(part.selected for part in parts),
            {image: reason for part in parts for image, reason in part.unreadable.items()},
            list(failures.values()),
            sum(part.measured for part in parts),
            list(dict.fromkeys(note for part in parts for note in part.notes)),
        )


def numerics_of(precision: str, model: Model) -> str:
    """Return what the last digits of a result depend on: the precision, and the backend where it is not torch."""
    return precision if model.backend == "torch" else f"{precision} {model.backend}"


def lacks(experiment: Experiment, model: Model) -> str:
    """Return what a model cannot do that an experiment needs, as a sentence; empty where it can do everything."""
    missing = sorted(experiment.requirements.capabilities - model.capabilities)
    if not missing:
        return ""
    return (
        f"{experiment.name} needs the capability {', '.join(missing)}, which {model.name} does not offer; "
        f"it offers {', '.join(sorted(model.capabilities))}"
    )


def prepare_pair(
    experiment: Experiment, measurement: Measurement, model: Model, data: Dataset, settings: RunConfig
) -> Pair:
    """Check that an experiment, a model and a data set fit together; nothing is on disk yet.

    Args:
        experiment: what was asked for.
        measurement: the same, bound to all models and the data set.
        model: one of these models.
        data: what is measured one by one, see :meth:`Measurement.items`.
        settings: how the study is run.

    Raises:
        InputError: they do not fit.
    """
    needs = experiment.requirements
    if lacking := lacks(experiment, model):
        raise InputError(lacking)
    if needs.masks and not data.has_masks:
        raise InputError(f"{experiment.name} needs foreground masks, which {data.name} does not have")
    if lacking := [name for name in needs.fields if name not in data.fields]:
        raise InputError(
            f"{experiment.name} needs the {' and the '.join(lacking)} of every image; {data.name} has none"
        )
    classes = None
    if data.classes is not None:
        try:
            outputs = measurement.classes(model)
            classes = map_classes(data.classes, data.aliases, outputs, data_name=data.name, model_name=model.name)
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
        numerics_of(settings.precision, model),
        "" if classes is None else fingerprint("labels", classes)[:16],
    )
    conditions = tuple(measurement.conditions(model))
    done = np.zeros((len(data), len(conditions)), dtype=bool)
    for column, condition in enumerate(conditions):
        if (covered := measurement.applicable_images(condition, data)) is not None:
            done[~covered, column] = True
    return Pair(experiment, measurement, model, identity, conditions, classes, done, data)


def sweep(
    pairs: Sequence[Pair],
    data: Dataset,
    store: Store,
    settings: RunConfig,
    device: torch.device,
    outcome: Outcome,
    *,
    advance: Callable[[int], None] = lambda _: None,
    on_first_batch: Callable[[Pair, Batch], None] = lambda _pair, _batch: None,
    one_first: Callable[[Callable[[], None]], None] = lambda work: work(),
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
        on_first_batch: given the first batch of each pair, once measured, for example to take pictures.
        one_first: calls a function, where there are several processes in one of them before the others.
    """
    chosen = subset_indices(data, settings.limit)
    chunks = [chunk for chunk in batches_of_images(chosen, settings, device) if _anything_missing(pairs, chunk)]
    views = [pair.view for pair in pairs]
    workers = default_workers(device.type) if settings.workers is None else settings.workers
    size = settings.batch_size or default_batch(device)
    context = PrepareContext(
        store.root, data, settings.seed, settings.precision, device, size, workers, outcome.unreadable, outcome.notes
    )
    one_first(lambda: _prepare([pair for pair in pairs if not pair.done[chosen].all()], context, outcome))
    masks = any(pair.experiment.requirements.masks for pair in pairs)
    if lacking := shared_memory_lacking(chunks, views, workers, masks):
        outcome.notes.append(lacking)
    reader = read_chunks(
        data,
        chunks,
        views,
        workers=workers,
        masks=masks,
        decoder=data.decoder,
        pin_memory=device.type == "cuda",
        altered=[altered_in(pairs, chunk) for chunk in chunks],
        seed=settings.seed,
        through_pipes=bool(lacking),
    )
    donors = _donors(pairs, data, views, device) if chunks else {}
    shown: set[int] = set()
    try:
        for chunk in reader:
            _note_unreadable(chunk, data, outcome, settings)
            if chunk.failure:
                _note_failure(chunk, pairs, outcome)
            images = _on_device(chunk, device)
            for number, pair in enumerate(pairs):
                if pair.failed or pair.view not in images:
                    continue
                for batch in _batches(
                    pair, data, chunk, images, donors.get(pair.experiment.requirements.donors, NO_DONORS), settings.seed
                ):
                    first = number not in shown and chunk.alteration is None
                    shown.update([number] if first else [])
                    _measure_into(store, pair, batch, outcome, device, settings.precision)
                    if first:
                        with _recording_failures(pair, outcome, fatal=False):
                            on_first_batch(pair, batch)
                    advance(len(batch) * len(batch.conditions))
                    store.flush_if_due()
    finally:  # also on Ctrl-C: what is measured is kept
        store.flush()


def _prepare(pairs: Sequence[Pair], context: PrepareContext, outcome: Outcome) -> None:
    for pair in pairs:
        with _recording_failures(pair, outcome), numerics(context.device, context.precision):
            pair.prepared = pair.measurement.prepare(pair.model, context)


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
        for wanted in {pair.experiment.requirements.donors for pair in pairs}
        if wanted
    }


def _read_donors(wanted: int, data: Dataset, views: Sequence[Any], device: torch.device) -> Donors:
    (chunk,) = read_chunks(data, [select(data.ids, wanted)], views, workers=0)
    return Donors(tuple(data.ids[int(i)] for i in chunk.indices), _on_device(chunk, device))


def _note_unreadable(chunk: Chunk, data: Dataset, outcome: Outcome, settings: RunConfig) -> None:
    for position, reason in chunk.unreadable:
        if settings.strict:
            raise InputError(f"unreadable image {data.ids[position]!r} in {data.name}: {reason}")
        outcome.unreadable[data.ids[position]] = reason


def count_missing(pairs: Sequence[Pair], data: Dataset, settings: RunConfig) -> int:
    """Return how many results (image x condition x model) are still to be measured."""
    chosen = subset_indices(data, settings.limit)
    return sum(int((~pair.done[chosen]).sum()) for pair in pairs)


def batches_of_images(chosen: np.ndarray, settings: RunConfig, device: torch.device) -> list[np.ndarray]:
    """Return the positions of the images of each batch; the same whatever is done already and whoever measures."""
    size = settings.batch_size or default_batch(device)
    return [chosen[start : start + size] for start in range(0, len(chosen), size)]


def default_batch(device: torch.device) -> int:
    """Return how many images at a time keep a device busy."""
    return 32 if device.type == "cpu" else 256


def _anything_missing(pairs: Sequence[Pair], chunk: np.ndarray) -> bool:
    return any(not pair.done[chunk].all() for pair in pairs)


def altered_in(pairs: Sequence[Pair], chunk: np.ndarray) -> Wanted:
    """Return which images of a chunk some experiment still lacks altered, per view and alteration."""
    wanted: dict[tuple[View, Alteration], np.ndarray] = {}
    for pair in pairs:
        for alteration, numbers in pair.by_alteration.items():
            if alteration is None:
                continue
            lacking = ~pair.done[chunk][:, numbers].all(axis=1)
            if lacking.any():
                earlier = wanted.get((pair.view, alteration), np.zeros(len(chunk), dtype=bool))
                wanted[pair.view, alteration] = lacking | earlier
    return {place: chunk[lacking] for place, lacking in wanted.items()}


def _note_failure(chunk: Chunk, pairs: Sequence[Pair], outcome: Outcome) -> None:
    """Record an alteration that failed for all who wanted it, and leave its conditions alone from then on."""
    error = chunk.failure.strip().splitlines()[-1][:300]
    for pair in pairs:
        numbers = pair.by_alteration.get(chunk.alteration)
        if numbers is None or pair.failed or pair.done[:, numbers].all():
            continue
        which = _describe([pair.conditions[number] for number in numbers], pair)
        outcome.failures.append(_failure(pair, error, chunk.failure, which))
        pair.leave(numbers)


def _on_device(chunk: Chunk, device: torch.device) -> dict[Any, torch.Tensor]:
    return {view: as_floats(pixels, device).contiguous() for view, pixels in chunk.pixels.items()}


def _batches(
    pair: Pair, data: Dataset, chunk: Chunk, images: dict[Any, torch.Tensor], donors: Donors, seed: int
) -> Iterator[Batch]:
    """Yield the chunk as batches of images that lack the same conditions: one batch, unless a limit was raised."""
    ids = [data.ids[int(i)] for i in chunk.indices]
    groups: dict[tuple[int, ...], list[int]] = {}
    for row, missing in enumerate(pair.missing(chunk.indices, chunk.alteration)):
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
            prepared=pair.prepared,
        )


@contextlib.contextmanager
def _recording_failures(pair: Pair, outcome: Outcome, *, fatal: bool = True) -> Iterator[None]:
    """Record whatever a network or an experiment raises; when fatal, leave the pair alone from then on."""
    try:
        yield
    except (InputError, OSError):  # the user's mistake, or a full disk: not the network's
        raise
    except Exception as error:  # noqa: BLE001 - anything may come out of somebody's network
        outcome.failures.append(_failure(pair, _text(error), _traceback(error)))
        pair.failed = fatal


def _measure_into(
    store: Store, pair: Pair, batch: Batch, outcome: Outcome, device: torch.device, precision: str
) -> None:
    """Measure a batch; where that fails, try its conditions one by one, and give those up that fail alone."""
    try:
        _measure_and_add(store, pair, batch, outcome, device, precision)
        return
    except (InputError, OSError):
        raise
    except Exception as error:  # noqa: BLE001 - anything may come out of somebody's network
        errors = {condition.key: error for condition in batch.conditions}
    for condition in batch.conditions if len(batch.conditions) > 1 else ():
        try:
            alone = dataclasses.replace(batch, conditions=(condition,))
            _measure_and_add(store, pair, alone, outcome, device, precision)
            del errors[condition.key]
        except (InputError, OSError):
            raise
        except Exception as error:  # noqa: BLE001 - see above
            errors[condition.key] = error
    failing = [condition for condition in batch.conditions if condition.key in errors]
    for text in dict.fromkeys(map(_text, errors.values())):
        alike = [condition for condition in failing if _text(errors[condition.key]) == text]
        details = _traceback(errors[alike[0].key])
        outcome.failures.append(_failure(pair, text, details, _describe(alike, pair)))
    pair.leave([number for number, condition in enumerate(pair.conditions) if condition.key in errors])


def _measure_and_add(
    store: Store, pair: Pair, batch: Batch, outcome: Outcome, device: torch.device, precision: str
) -> None:
    measured = [
        (records.condition, column_frame(_columns(records, batch)))
        for records in _measure(pair, batch, device, precision)
    ]
    for condition, frame in measured:
        store.add(pair.identity, pair.model.name, batch.ids, condition, frame)
        outcome.measured += len(batch)


def _failure(pair: Pair, error: str, details: str, condition: str = "") -> Failure:
    return Failure(
        experiment=pair.experiment.name, model=pair.model.name, condition=condition, error=error, details=details
    )


def _traceback(error: Exception) -> str:
    return "".join(traceback.format_exception(error))


def _text(error: Exception) -> str:
    return error_line(error, 300, named=True)


def _describe(conditions: Sequence[Condition], pair: Pair) -> str:
    """Return what sets these conditions of a pair apart from its others; empty where they are all there are."""
    if len(conditions) == len(pair.conditions):
        return ""
    every = [dataclasses.asdict(condition) for condition in pair.conditions]
    varying = [name for name in every[0] if len({repr(fields[name]) for fields in every}) > 1]
    texts = [" ".join(f"{name}={getattr(condition, name)}" for name in varying) for condition in conditions]
    return "; ".join(texts[:3]) + (f" and {len(texts) - 3} more" if len(texts) > 3 else "")


def _measure(pair: Pair, batch: Batch, device: torch.device, precision: str) -> list[Records]:
    """Measure a batch; when it does not fit into memory, measure its halves and join them."""
    gradients = "gradients" in pair.experiment.requirements.capabilities

    def measured(part: Batch) -> list[Records]:
        with numerics(device, precision), contextlib.nullcontext() if gradients else torch.inference_mode():
            return list(pair.measurement.measure(pair.model, part))

    return halving(measured, batch, _halves, _joined)


def _halves(batch: Batch) -> tuple[Batch, Batch]:
    middle = len(batch) // 2
    return batch.part(0, middle), batch.part(middle, len(batch))


def _joined(first: Sequence[Records], second: Sequence[Records]) -> list[Records]:
    return [
        Records(one.condition, {name: _concatenated(one.columns[name], other.columns[name]) for name in one.columns})
        for one, other in zip(first, second, strict=True)
    ]


def _concatenated(first: Any, second: Any) -> np.ndarray:
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
