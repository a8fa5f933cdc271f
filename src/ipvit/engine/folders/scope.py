"""What of a run folder a study asked for: of each experiment the models, the conditions and the images.

A run folder may hold more than its last study asks for: further models, levels, images of a larger limit. Tables are of
what was asked for, so the manifest keeps it, and the records are held against it when they are read.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from ipvit.core.files import path_component, write_atomic
from ipvit.core.manifest import Asked, AskedImages, Manifest
from ipvit.core.plugins import OWN_FILE
from ipvit.data.recognition import IMAGENET_C
from ipvit.data.subset import image_keys
from ipvit.engine.store import RECORDS, Store
from ipvit.engine.study import STUDY, Study, read_study
from ipvit.engine.types import SweepPlan, Task
from ipvit.errors import InputError
from ipvit.models.names import short_name

LISTED = "asked-images.parquet"
"""Keys of the items that a study asked for, where no rule says which they are."""
_PARTS = (0, 2)
"""Leading parts of ids that may not count: none, and the corruption and severity of ImageNet-C."""


@dataclasses.dataclass(frozen=True)
class Scope:
    """What a study asked for of one experiment.

    Attributes:
        models: digests; None for all that are there.
        conditions: keys by a model's digest; None for all that are there.
        parts: see :class:`AskedImages`.
        up_to: the largest key of an image; None for no such limit.
        listed: sorted keys of the images; None where they are not listed.
        n_images: how many images were asked for; None where nobody knows.
    """

    models: frozenset[str] | None = None
    conditions: Mapping[str, frozenset[str]] | None = None
    parts: int = 0
    up_to: int | None = None
    listed: np.ndarray | None = None
    n_images: int | None = None

    def concerns(self, weights: str) -> bool:
        """Tell whether a model was asked for."""
        return self.models is None or weights in self.models

    def chosen(self, ids: Sequence[str]) -> np.ndarray:
        """Return which of some images were asked for, ``(len(ids),)`` booleans."""
        if self.up_to is None and self.listed is None:
            return np.ones(len(ids), dtype=bool)
        found = image_keys(ids, self.parts)
        return np.isin(found, self.listed) if self.listed is not None else found <= np.uint64(self.up_to or 0)

    def of(self, records: pl.DataFrame, weights: str) -> pl.DataFrame:
        """Return the records of one model that were asked for."""
        if not self.concerns(weights):
            return records.clear()
        if self.conditions is not None:
            wanted, there = self.conditions.get(weights, frozenset()), records["condition"].unique().cast(pl.String)
            if not wanted.issuperset(there):
                records = records.filter(pl.col("condition").cast(pl.String).is_in(sorted(wanted)))
        if self.up_to is None and self.listed is None:
            return records
        ids = records["image"].cast(pl.String).unique()
        chosen = ids.filter(pl.Series(self.chosen(ids.to_list()), dtype=pl.Boolean))
        if len(chosen) == len(ids):
            return records
        return records.filter(pl.col("image").cast(pl.String).is_in(chosen.to_list()))


EVERYTHING = Scope()
"""Whatever a folder holds."""


def asked_for(tasks: Sequence[Task], images: SweepPlan, out: Path | None = None) -> dict[str, Asked]:
    """Return what a study asks for, by the name of the experiment.

    Args:
        tasks: of the study.
        images: the sweep over the images.
        out: the run folder, into which images are listed that no rule chooses; None writes nothing.
    """
    of_experiment: dict[str, list[Task]] = {}
    for task in tasks:
        of_experiment.setdefault(task.experiment.name, []).append(task)
    return {name: _asked(name, alike, images, out) for name, alike in of_experiment.items()}


def _asked(name: str, tasks: Sequence[Task], images: SweepPlan, out: Path | None) -> Asked:
    conditions: dict[str, list[str]] = {}
    for task in tasks:
        conditions.setdefault(task.identity.weights, []).extend(condition.key for condition in task.conditions)
    groups = {digest: tuple(sorted(set(keys))) for digest, keys in conditions.items()}
    distinct = list(dict.fromkeys(groups.values()))
    items = tasks[0].items
    whole = items is images.items
    chosen = [items.ids[int(position)] for position in images.positions] if whole else list(items.ids)
    choice = AskedImages()
    if not whole or len(chosen) < len(items):
        choice = _rule(items.ids, images.positions) if whole else AskedImages(which="listed")
        if choice.which == "listed" and out is not None:
            _list_images(out, name, chosen)
    return Asked(
        models={digest: distinct.index(group) for digest, group in groups.items()},
        conditions=tuple(distinct),
        images=choice,
        n_images=len(chosen),
    )


def _rule(ids: Sequence[str], positions: np.ndarray) -> AskedImages:
    """Return the rule by which images were chosen; where none of ours is, they are listed."""
    chosen = np.zeros(len(ids), dtype=bool)
    chosen[positions] = True
    for parts in _PARTS:
        found = image_keys(ids, parts)
        if (largest := found[chosen].max()) < found[~chosen].min():
            return AskedImages(which="smallest keys", up_to=f"{int(largest):016x}", parts=parts)
    return AskedImages(which="listed")


def _list_images(out: Path, name: str, ids: Sequence[str]) -> None:
    buffer = io.BytesIO()
    pl.DataFrame({"key": np.sort(image_keys(ids))}).write_parquet(buffer, compression="zstd", statistics=False)
    path = out / RECORDS / path_component(name) / LISTED
    if not path.is_file() or path.read_bytes() != buffer.getvalue():
        write_atomic(path, buffer.getvalue())


def scopes(out: Path, manifest: Manifest, experiments: Collection[str]) -> dict[str, Scope]:
    """Return what the study of a run folder asked for, by the name of the experiment.

    Args:
        out: the run folder.
        manifest: of the folder.
        experiments: that it has records of.
    """
    if manifest.asked:
        return {name: _scope(out, name, asked) for name, asked in manifest.asked.items()}
    study = _study_of(out)
    if study is None:
        return dict.fromkeys(experiments, EVERYTHING)
    named = {entry.name: entry for entry in study.experiments}
    own_files = any(OWN_FILE in name for name in named)  # only their code knows what they are called in the records
    digests = _digests(study, manifest)
    return {
        name: _of_earlier_version(out, manifest, name, _of(digests, named[name].models if name in named else None))
        for name in experiments
        if name in named or own_files
    }


def _scope(out: Path, name: str, asked: Asked) -> Scope:
    images = asked.images
    groups = [frozenset(group) for group in asked.conditions]
    return Scope(
        models=frozenset(asked.models),
        conditions={digest: groups[place] for digest, place in asked.models.items() if place < len(groups)},
        parts=images.parts,
        up_to=int(images.up_to, 16) if images.up_to else None,
        listed=_listed(out, name) if images.which == "listed" else None,
        n_images=asked.n_images,
    )


def _listed(out: Path, name: str) -> np.ndarray | None:
    try:
        data = (out / RECORDS / path_component(name) / LISTED).read_bytes()
        return pl.read_parquet(io.BytesIO(data), columns=["key"])["key"].cast(pl.UInt64).to_numpy()
    except (OSError, pl.exceptions.PolarsError):
        return None


def _study_of(out: Path) -> Study | None:
    try:
        return read_study(out / STUDY, check=False)
    except InputError:  # gone, or written by another version
        return None


def _digests(study: Study, manifest: Manifest) -> dict[str, str] | None:
    """Return the digests of a study's models by label and name; None where some of them are not in the manifest."""
    found: dict[str, str] = {}
    for entry in study.models:
        names = {entry.label} if entry.label else {entry.name, *_short(entry.name)}
        digest = next((model.digest for model in manifest.models if model.name in names), None)
        if digest is None:
            return None
        found |= dict.fromkeys({*names, entry.name}, digest)
    return found


def _short(name: str) -> list[str]:
    try:
        return [short_name(name)]
    except ValueError:  # an address that is none
        return []


def _of(digests: Mapping[str, str] | None, names: Sequence[str] | None) -> frozenset[str] | None:
    if digests is None:
        return None
    return frozenset(digest for name, digest in digests.items() if names is None or name in names)


def _of_earlier_version(out: Path, manifest: Manifest, name: str, models: frozenset[str] | None) -> Scope:
    """Return what is known of a folder whose manifest does not state what was asked for: not which conditions."""
    if manifest.subject(name).fingerprint != manifest.data.fingerprint:
        return Scope(models=models)
    up_to = _largest_key(out, manifest, name) if manifest.limited and not manifest.shard else None
    return Scope(models=models, up_to=up_to, n_images=manifest.selected or None)


def _largest_key(out: Path, manifest: Manifest, name: str) -> int | None:
    """Return the largest key of the images of a limited study; None where nobody can tell, or all are of the study.

    A larger limit only adds images, so those of the study have the smallest keys of all that the folder knows.
    """
    if manifest.data.name.startswith(f"{IMAGENET_C}:") or manifest.limit is None:  # it chooses photos
        return None
    records, _ = Store(out).select(name, {"data": manifest.data.fingerprint}, ["image"])
    known: set[str] = set() if records.is_empty() else set(records["image"].cast(pl.String).unique().to_list())
    known |= {skipped.image for skipped in manifest.skipped}
    if not 0 < manifest.selected < len(known):
        return None
    return int(np.sort(image_keys(sorted(known)))[manifest.selected - 1])
