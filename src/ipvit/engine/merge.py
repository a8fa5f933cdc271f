"""Shards of one study, measured apart, joined into one run folder."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from ipvit.core.files import in_pieces, write_atomic
from ipvit.core.links import refuse_links
from ipvit.core.lock import FolderLock
from ipvit.core.manifest import Manifest
from ipvit.core.shard import Shard
from ipvit.engine.examples import EXAMPLES
from ipvit.engine.folders.class_names import FILE
from ipvit.engine.folders.joining import PIECE_ROWS, Rows, in_order, rows_of
from ipvit.engine.folders.run_folder import SHARDS, check_folder, clear_left_over, prepare_folder
from ipvit.engine.folders.scope import LISTED
from ipvit.engine.manifest import MANIFEST, read_manifest, write_manifest
from ipvit.engine.store import ANALYSIS, KEY, RECORDS, Store
from ipvit.engine.study import STUDY
from ipvit.errors import InputError

KEPT = ("patches", "probes")
"""Folders with what experiments made before they measured, which the whole keeps too. Features are left where they are:
they are large, and computed again where something asks for them."""

_FOLDER = "_folder"
"""Column of the folder that a row is in."""

Source = tuple[Path, Manifest]
"""A run folder and its manifest."""

_MUST_AGREE: Mapping[str, Callable[[Manifest], Any]] = {
    "data": lambda manifest: manifest.data.fingerprint,
    "seed": lambda manifest: manifest.seed,
    "precision": lambda manifest: manifest.precision,
    "backend": lambda manifest: manifest.backend,
    "limit": lambda manifest: manifest.limit,
    "answers": lambda manifest: {name: used.answers for name, used in manifest.subjects.items()},
    "models": lambda manifest: sorted(model.digest for model in manifest.models),
    "experiments": lambda manifest: sorted(manifest.experiments),
}


def merge(folders: Sequence[Path], out: Path, *, partial: bool = False) -> Manifest:
    """Join shards into one run folder.

    Args:
        folders: run folders of shards, or the folder that has them below ``shards``.
        out: the folder of the whole; what it holds already is kept.
        partial: join what is there even where images are missing.

    Returns:
        The manifest of the whole.

    Raises:
        InputError: the shards are not of one study, contradict each other, or do not cover all images; nothing is
            written then.
    """
    check_folder(out)
    sources = _sources(folders, out)
    _check_agreement(sources)
    _check_shards(sources)
    missing = _missing(sources)
    experiments = _experiments(sources)
    with _beside(out) as aside:
        for name in experiments:
            for model in _models(name, sources):  # the memory holds the records of one
                _write_joined(Store(aside), name, model, sources)
        if missing and not partial:
            more = f"; {len(missing) - 9} more" if len(missing) > 9 else ""
            raise InputError(f"{'; '.join(missing[:9])}{more}; run those again, or join what is there with --partial")
        for folder, _ in sources:
            # what links lead to is not theirs to share
            refuse_links(folder, (RECORDS, EXAMPLES, STUDY, *KEPT), files=True)
        prepare_folder(out)
        with FolderLock(out) as lock:
            clear_left_over(out)
            for path in sorted((aside / RECORDS).rglob("part-*.parquet")):
                lock.check()
                write_atomic(out / path.relative_to(aside), in_pieces(path))
            Store(out, guard=lock.check).compact()
            for name in (
                EXAMPLES,
                STUDY,
                *(f"{RECORDS}/{experiment}/{file}" for experiment in experiments for file in (ANALYSIS, LISTED, FILE)),
            ):
                _copy(name, sources, out)
            told = [note for name in KEPT for note in _gather(name, sources, out)]
            manifest = _manifest(sources, told, whole=not missing)
            write_manifest(out, manifest)
    return manifest


@contextlib.contextmanager
def _beside(out: Path) -> Generator[Path]:
    """Give a folder on the disk of another one, which need not be there, until all is known to fit together."""
    place = next(folder for folder in out.absolute().parents if folder.is_dir())
    with tempfile.TemporaryDirectory(prefix=".merge-", dir=place) as folder:
        yield Path(folder)


def runs_with_shards(folder: Path) -> list[Path]:
    """Return the run folders in a folder that have shards to be joined; none where the folder itself is one."""
    if read_manifest(folder) is not None or [*folder.glob(f"{SHARDS}/*/{MANIFEST}")]:
        return []
    return sorted({path.parents[2] for path in folder.glob(f"*/{SHARDS}/*/{MANIFEST}")})


def _sources(folders: Sequence[Path], out: Path) -> list[Source]:
    found: dict[Path, Manifest] = {}
    for folder in folders:
        below = sorted(path.parent for path in folder.glob(f"{SHARDS}/*/{MANIFEST}"))
        for place in [folder, *below]:
            manifest = read_manifest(place)
            if manifest is not None:
                found[place.resolve()] = manifest
            elif place != folder or not below:
                raise InputError(f"{str(place)!r} is not a run folder: it has no manifest.json, or a damaged one")
    manifest = read_manifest(out)
    if manifest is not None:
        found.setdefault(out.resolve(), manifest)
    return list(found.items())


def _check_agreement(sources: Sequence[Source]) -> None:
    first, reference = sources[0]
    for folder, manifest in sources[1:]:
        for what, value in _MUST_AGREE.items():
            ours, theirs = value(reference), value(manifest)
            if ours != theirs:
                detail = f": {ours!r} and {theirs!r}" if isinstance(ours, int | str | None) else ""
                raise InputError(f"{str(first)!r} and {str(folder)!r} differ in their {what}{detail}")
        for name, used in manifest.subjects.items():
            ours, theirs = reference.subject(name).labels, used.labels
            if ours and theirs and ours != theirs:  # an earlier version does not state them
                raise InputError(f"{name}: {str(first)!r} and {str(folder)!r} differ in which output a class is")
            if reference.subject(name).sets != used.sets:
                raise InputError(f"{name}: {str(first)!r} and {str(folder)!r} differ in one of the sets")


def _check_shards(sources: Sequence[Source]) -> None:
    """Refuse folders of which none is a shard, or has been joined from shards: there is nothing to join."""
    if not any(manifest.shard or manifest.merged for _, manifest in sources):
        folder = str(sources[0][0])
        raise InputError(f"{folder!r} is no shard of a study, but a whole run; shards are measured with --shard 1/8")


def _experiments(sources: Sequence[Source]) -> list[str]:
    return list(dict.fromkeys(name for folder, _ in sources for name in Store(folder).experiments()))


def _models(experiment: str, sources: Sequence[Source]) -> list[str]:
    """Return the beginnings of the digests of the networks that there are records of."""
    return sorted({model for folder, _ in sources for model in Store(folder).folders(experiment)})


def _write_joined(store: Store, experiment: str, model: str, sources: Sequence[Source]) -> None:
    """Write the records of one network; a function of its own, so that they are gone when the next one's are read."""
    rows = _joined(experiment, model, sources)
    devices = {device for folder, _ in sources for device in Store(folder).devices(experiment, of=model)}
    store.write_rows(rows, devices)


def _joined(experiment: str, model: str, sources: Sequence[Source]) -> Rows:
    """Return the records of one network in all sources, each result once.

    Raises:
        InputError: two of them have different values for the same result, or one has a damaged part.
    """
    frames: list[pl.DataFrame] = []
    for folder, _ in sources:
        store = Store(folder)
        here = pl.lit(str(folder), dtype=pl.Categorical).alias(_FOLDER)
        frames += [frame.with_columns(here) for frame in store.read(experiment, of=model)]
        if store.damaged:
            raise InputError(f"{str(store.damaged[0])!r} is damaged; run this shard again to replace it")
    rows = rows_of(frames)
    order, again = in_order(rows.frame, KEY)
    if again.any() and _FOLDER in rows.frame.columns:  # shards seldom have results in common
        origin = rows.frame[_FOLDER][order]
        of_folders = ~(again & (origin == origin.shift(1)).fill_null(value=False))  # of each folder its first
        _check_equal(experiment, rows, order.filter(of_folders), again.filter(of_folders))
    names = tuple(name for name in rows.names if name != _FOLDER)
    return dataclasses.replace(rows, names=names, places=order.filter(~again))


def _check_equal(experiment: str, rows: Rows, order: pl.Series, again: pl.Series) -> None:
    """Check that results which several shards have are the same.

    Args:
        experiment: its name.
        rows: with the folder that each is in.
        order: their order.
        again: which of the sorted rows have the same key as the one before.

    Raises:
        InputError: they are not.
    """
    places, before = order.filter(again), order.filter(again.shift(-1, fill_value=False))
    compared = [name for name in rows.frame.columns if name not in (_FOLDER, "model")]
    for start in range(0, len(places), PIECE_ROWS):
        one, other = (rows.frame.select(compared)[of[start : start + PIECE_ROWS]] for of in (before, places))
        different = pl.Series([False]).new_from_index(0, one.height)
        for name in compared:
            different |= one[name].ne_missing(other[name])
        if different.any():
            at = start + int(different.arg_max() or 0)
            row = rows.take(places[at : at + 1]).row(0, named=True)
            raise InputError(
                f"{experiment}: two shards have different results for the image {row['image']!r} under the same "
                f"condition (one is in {row[_FOLDER]!r}): they were not measured by the same code on the same kind "
                "of machine"
            )


def _manifest(sources: Sequence[Source], told: Sequence[str], *, whole: bool) -> Manifest:
    """Return the manifest of the whole, from the newest shard's.

    Args:
        sources: what is joined.
        told: notes on the joining.
        whole: whether no image is missing.
    """
    manifests = sorted((manifest for _, manifest in sources), key=lambda manifest: manifest.finished)
    newest = manifests[-1]
    selected = max(sum(group) for group in _groups(sources, lambda manifest: manifest.selected).values())
    skipped = {entry.image: entry for manifest in manifests for entry in manifest.skipped}
    failures = tuple(dict.fromkeys(failure for manifest in manifests for failure in manifest.failures))
    return newest.model_copy(
        update={
            "status": "failed" if failures else "done" if whole else "interrupted",
            "skipped": tuple(skipped[image] for image in sorted(skipped)),
            "selected": selected,
            "images_used": max(selected - len(skipped), 0),
            "limited": selected < newest.data.images,
            "failures": failures,
            "notes": tuple(dict.fromkeys([*newest.notes, *told])),
            "seconds": round(sum(manifest.seconds for manifest in manifests), 1),
            "measured_in_this_call": 0,
            "shard": None,
            "merged": tuple(sorted(manifest.shard for manifest in manifests if manifest.shard)),
        }
    )


def _missing(sources: Sequence[Source]) -> list[str]:
    """Say what is missing: nothing where one run, or all shards of one division, ended well."""
    lacking = {
        count: [f"shard {Shard(index, count)} is missing" for index in range(count) if index not in indices]
        for count, indices in _groups(sources, lambda m: _shard(m).index).items()
    }
    for _, manifest in sources:
        shard = _shard(manifest)
        if manifest.status != "done":
            lacking[shard.count].append(f"shard {shard} is {manifest.status}")
    for count, sizes in _groups(sources, lambda manifest: manifest.batch_size).items():
        known = {size for size in sizes if size is not None}
        if len(known) > 1:
            lacking[count].append(
                f"shards had other images as their batch sizes differ ({min(known)} and {max(known)})"
            )
    places = {str(folder) for folder, _ in sources}
    for folder, manifest in sources:
        for place in manifest.reused_runs:
            if place not in places:
                lacking[_shard(manifest).count].append(f"{str(folder)!r} rests on {place!r}, which is not among them")
    return min(lacking.values(), key=len)


def _shard(manifest: Manifest) -> Shard:
    return Shard.parse(manifest.shard or "1/1")


def _groups(sources: Sequence[Source], value: Callable[[Manifest], Any]) -> dict[int, list[Any]]:
    """Return a value of every manifest, by the number of shards that the study was divided into."""
    groups: dict[int, list[Any]] = {}
    for _, manifest in sources:
        groups.setdefault(_shard(manifest).count, []).append(value(manifest))
    return groups


def _copy(name: str, sources: Sequence[Source], out: Path) -> None:
    """Copy what the shards have in common from the first that has it."""
    origin = next((folder / name for folder, _ in sources if (folder / name).exists()), None)
    if origin is None:
        return
    paths = sorted(path for path in origin.rglob("[!.]*") if path.is_file()) if origin.is_dir() else [origin]
    for path in paths:
        copy = out / name / path.relative_to(origin)
        if not copy.is_file():
            write_atomic(copy, path.read_bytes())


def _gather(name: str, sources: Sequence[Source], out: Path) -> list[str]:
    """Copy what each shard made below a folder of that name; tell where they made different things of one name.

    What belongs together differs in its suffix only, and comes from one shard.
    """
    found: dict[Path, dict[str, bytes]] = {}
    different: set[Path] = set()
    for folder in (out, *(folder for folder, _ in sources)):
        mine: dict[Path, dict[str, bytes]] = {}
        for path in sorted((folder / name).rglob("[!.]*")):
            if path.is_file():
                mine.setdefault(path.relative_to(folder).with_suffix(""), {})[path.suffix] = path.read_bytes()
        for stem, files in mine.items():
            if found.setdefault(stem, files) != files:
                different.add(stem)
    for stem, files in found.items():
        for suffix, data in files.items():
            path = out / stem.with_name(f"{stem.name}{suffix}")
            if not path.is_file():
                write_atomic(path, data)
    if not different:
        return []
    return [
        f"the shards made {len(different)} different files of the same names in {name}/, for example "
        f"{min(different).as_posix()}: they ran on different kinds of machines; the first shard's are kept"
    ]
