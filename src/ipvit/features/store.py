"""The feature store: what leaves any blocks of a network, one vector per image, computed once and kept on disk.

One folder per model, data set and preprocessing holds one ``.npy`` file per block and kind of token, with room for
every image of the data set, and a ``.sums`` file with a checksum of every row that is filled. Rows reach the disk
before their checksums, so that a process killed at any moment leaves nothing that looks finished and is not; and a row
that does not have its checksum when it is wanted, whatever became of the file, is computed again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import secrets
import time
import tokenize
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ipvit.core.artifacts import Kind, Metadata, first_whole, made_again
from ipvit.core.digests import digest_of_json
from ipvit.core.files import user_path
from ipvit.core.links import open_in_place, refuse_unwritable
from ipvit.core.memory import Fitting, halving
from ipvit.core.preprocessing import View
from ipvit.data import remarks
from ipvit.data.dataset import Dataset
from ipvit.data.loader import read_batches
from ipvit.errors import InputError
from ipvit.features import StoredType
from ipvit.models.model import Model
from ipvit.models.readout import FeatureSpec, last_blocks, own_token, read_batch
from ipvit.perturb.pixels import as_floats

__all__ = ["FeatureSpec", "FeatureStore", "Features", "StoredType", "last_blocks", "own_token", "read_batch"]

FORMAT = 1
"""Raised whenever the same key would hold other numbers."""

FEATURES = "features"
"""Folder of a run folder with its feature store."""

FLUSH_SECONDS = 10.0
LABELS = "labels"
NOT_FINITE = "what the network makes of it is not finite"

_METADATA = "about.json"
_KEY_DIGITS = 24
_SUM = np.dtype("<u8")
_ROWS_AT_A_TIME = 4096  # when they are checked: some MB
_TYPES = {"fp32": np.dtype("<f4"), "fp16": np.dtype("<f2")}


class _Metadata(Metadata):
    """What the rows of a folder are; each row has its own checksum."""

    model: str
    data: str
    view: dict[str, Any]
    norm: bool
    precision: str
    stored: StoredType
    model_name: str
    data_name: str
    images: int


FEATURE_SET = Kind(
    "set of features", _Metadata, "rows", "about.json", hint="they are computed where there are none", format=FORMAT
)


class Features:
    """Features of some images of a data set.

    Attributes:
        ids: the images, in the order of the data set.
        positions: ``(N,)`` int64, their positions in the data set.
        labels: ``(N,)`` int64 in the data set's own numbering; -1 where there is none.
        unreadable: id and reason of the images that were asked for and could not be read.
        notes: what a reader must know, in sentences: how much on disk was damaged and computed again.
    """

    def __init__(
        self,
        arrays: dict[FeatureSpec, NDArray[np.floating]],
        positions: NDArray[np.int64],
        labels: NDArray[np.int64],
        ids: Sequence[str],
        unreadable: dict[str, str],
        notes: Sequence[str] = (),
    ) -> None:
        self._arrays = arrays
        self.positions = positions
        self.labels = labels
        self.ids = tuple(ids)
        self.unreadable = unreadable
        self.notes = tuple(notes)

    def __len__(self) -> int:
        return len(self.positions)

    def width(self, specs: Sequence[FeatureSpec]) -> int:
        """Return the length of the concatenated vectors."""
        return sum(self._arrays[read].shape[1] for read in specs)

    def matrix(
        self, specs: Sequence[FeatureSpec], rows: slice | NDArray[np.integer] | None = None
    ) -> NDArray[np.float32]:
        """Return ``(N, D)`` float32, the vectors of several reads side by side.

        Args:
            specs: any of those that were extracted, in the order of the columns.
            rows: of these images only; all by default.
        """
        positions = self.positions if rows is None else self.positions[rows]
        return np.concatenate([self._arrays[read][positions] for read in specs], axis=1, dtype=np.float32)


class FeatureStore:
    """Features on disk, each computed once.

    What they are is identified by the model's digest, the data's fingerprint, view, normalisation, precision and stored
    type; not by batch size, device or path.

    Args:
        root: folder of the store; several runs may share one.
        dtype: how numbers are stored. ``fp16`` takes half the space, rounds to 3 digits and clips at 65504.
        flush_seconds: how much work a killed process may lose.
    """

    def __init__(self, root: str | Path, *, dtype: StoredType = "fp32", flush_seconds: float = FLUSH_SECONDS) -> None:
        if dtype not in _TYPES:
            raise InputError(f"features are stored as {' or '.join(_TYPES)}, not {dtype!r}")
        self.root = user_path(root)
        self.dtype: StoredType = dtype
        self.flush_seconds = flush_seconds

    def extract(
        self,
        model: Model,
        data: Dataset,
        specs: Sequence[FeatureSpec],
        *,
        view: View | None = None,
        norm: bool = True,
        precision: str = "fp32",
        positions: NDArray[np.integer] | None = None,
        batch_size: int = 32,
        workers: int = 0,
        advance: Callable[[int], None] = lambda _: None,
    ) -> Features:
        """Return features, computing in one forward pass for all reads what is not on disk yet.

        Args:
            model: the network, in evaluation mode; on its own device.
            data: the images.
            specs: which blocks and tokens; a negative block counts from the end.
            view: how pictures become the input; the model's own by default.
            norm: put every token through the network's last normalisation, where it fits.
            precision: of the surrounding autocast, which is the caller's to enter; part of the identity.
            positions: of the images in the data set; all by default.
            batch_size: images at a time; halved where a GPU's memory does not suffice.
            workers: decoding processes.
            advance: called with the number of images that were finished.

        Raises:
            InputError: the network has no such block or token, or the folder cannot be written.
        """
        view = view or model.preprocessing.view
        specs = _resolved(model, specs)
        wanted = np.arange(len(data)) if positions is None else np.unique(np.asarray(positions, dtype=np.int64))
        folder, notes = self._folder(model, data, view, norm, precision)
        columns = {read: _Column(folder / str(read), len(data), _TYPES[self.dtype]) for read in specs}
        labels = _Column(folder / LABELS, len(data), np.dtype("<i8"))
        if damaged := sum(column.check(wanted) for column in (*columns.values(), labels)):
            rows = f"{damaged:,} rows of the stored features of {model.name} were damaged"
            notes.append(made_again(rows, "they were computed"))
        missing = wanted[~_all_done([*columns.values(), labels], wanted)]
        lacking = [read for read, column in columns.items() if not column.done[missing].all()]
        unreadable: dict[str, str] = {}
        odd: dict[str, set[str]] = {}
        model.eval()
        started = time.monotonic()
        try:
            batches = [missing[start : start + batch_size] for start in range(0, len(missing), batch_size)]
            in_turn = read_batches(
                data,
                batches,
                [view],
                workers=workers,
                decoder=data.decoder,
                pin_memory=model.device.type == "cuda",
                notes=notes,
            )
            fitting = Fitting()
            for batch in in_turn:
                unreadable |= {data.ids[place]: reason for place, reason in batch.unreadable}
                for remark, places in batch.remarks.items():
                    odd.setdefault(remark, set()).update(data.ids[place] for place in places)
                if len(batch.indices):
                    images = as_floats(batch.pixels[view], model.device)
                    found = _forward(model, images, lacking, norm, fitting) if lacking else {}
                    finite = np.all([np.isfinite(values).all(axis=1) for values in found.values()], axis=0)
                    finite = np.broadcast_to(finite, len(batch.indices))  # where nothing but labels was lacking
                    unreadable |= {data.ids[int(place)]: NOT_FINITE for place in batch.indices[~finite]}
                    for read, values in found.items():
                        columns[read].write(batch.indices[finite], values[finite])
                    labels.write(batch.indices[finite], batch.labels[finite, None])
                advance(len(batch.indices) + len(batch.unreadable))
                if time.monotonic() - started >= self.flush_seconds:
                    _commit([*columns.values(), labels])
                    started = time.monotonic()
        finally:  # also on Ctrl-C: what is computed is kept
            _commit([*columns.values(), labels])
        notes += remarks.notes(data.name, odd)
        kept = wanted[_all_done([*columns.values(), labels], wanted)]
        if not len(kept):
            why = next(iter(unreadable.values()), "")
            raise InputError(f"none of the {len(wanted)} images of {data.name} could be read: {why}")
        return Features(
            {read: column.values() for read, column in columns.items()},
            kept,
            np.asarray(labels.values()[kept, 0], dtype=np.int64),
            [data.ids[int(place)] for place in kept],
            unreadable,
            notes,
        )

    def _folder(self, model: Model, data: Dataset, view: View, norm: bool, precision: str) -> tuple[Path, list[str]]:
        """Return the folder of these features, with its metadata, and what was wrong with the metadata."""
        determined_by = {
            "model": model.tower_digest,
            "data": data.fingerprint,
            "view": dataclasses.asdict(view),
            "norm": norm,
            "precision": precision,
            "stored": self.dtype,
        }
        key = digest_of_json({"format": FORMAT} | determined_by, _KEY_DIGITS)
        folder = self.root / key
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write to the feature store {str(self.root)!r}: {error.strerror}") from None
        metadata, damage = first_whole([folder / _METADATA], FEATURE_SET.read)
        if metadata is None:
            names = {"model_name": model.name, "data_name": data.name, "images": len(data)}
            FEATURE_SET.write(folder / _METADATA, _Metadata(key=key, **determined_by, **names))
        return folder, [made_again(damage, "it was written")] if damage else []


def check_store(root: str | Path) -> None:
    """Refuse a folder that no store can be written to; nothing is written.

    Raises:
        InputError: it lies below a file, or may not be written to.
    """
    refuse_unwritable(user_path(root), "feature store")


class _Column:
    """One array on disk, ``(rows, width)``, and a checksum of each of its rows that is filled.

    Rows are written through the file and not through a memory map: a full disk is then an error, not a crash.

    Attributes:
        done: which rows are there and whole; of those that :meth:`check` or :meth:`commit` was given.
    """

    def __init__(self, stem: Path, rows: int, dtype: np.dtype) -> None:
        self.path = stem.with_name(f"{stem.name}.npy")
        self.rows, self.dtype = rows, dtype
        self._sums = stem.with_name(f"{stem.name}.sums")
        self._file = -1
        self._written: list[tuple[NDArray[np.int64], NDArray[np.uint64]]] = []
        self.done = np.zeros(rows, dtype=bool)

    def check(self, positions: NDArray[np.int64]) -> int:
        """Find out which of these rows are done; return how many others were and are damaged now."""
        if not self._sums.is_file():
            return 0
        sums = np.fromfile(self._sums, dtype=_SUM)
        array = self._open()
        if len(sums) != self.rows or array is None:
            return len(positions)
        filled = positions[sums[positions] != 0]
        for start in range(0, len(filled), _ROWS_AT_A_TIME):
            places = filled[start : start + _ROWS_AT_A_TIME]
            self.done[places] = _sums_of(array[places]) == sums[places]
        return int((~self.done[filled]).sum())

    def write(self, positions: NDArray[np.int64], values: NDArray) -> None:
        """Put rows at their places, except those that are done; the next :meth:`commit` calls them done."""
        fresh = ~self.done[positions]
        positions, values = positions[fresh], values[fresh]
        if not len(positions):
            return
        if self.dtype.kind == "f":
            values = values.clip(np.finfo(self.dtype).min, np.finfo(self.dtype).max)
        values = np.ascontiguousarray(values, dtype=self.dtype)
        array = self._open(values.shape[1])
        assert array is not None  # made where it was not there
        if self._file < 0:
            self._file = open_in_place(self.path, os.O_RDWR)
        _write_rows(self._file, positions, values, array.offset)
        self._written.append((positions, _sums_of(values)))

    def commit(self) -> None:
        """Flush what was written, then its checksums, which say that it is there."""
        if self._written:
            os.fsync(self._file)
            positions, sums = (np.concatenate(parts) for parts in zip(*self._written, strict=True))
            if not self._sums.is_file() or self._sums.stat().st_size != self.rows * _SUM.itemsize:
                self._sums.unlink(missing_ok=True)
                _make(self._sums, lambda path: path.write_bytes(bytes(self.rows * _SUM.itemsize)))
            file = open_in_place(self._sums, os.O_RDWR)
            try:
                _write_rows(file, positions, sums[:, None], 0)
                os.fsync(file)
            finally:
                os.close(file)
            self.done[positions] = True
            self._written = []
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def values(self) -> np.memmap:
        """Return the array, read from disk where it is touched."""
        array = self._open()
        assert array is not None  # only asked for where rows are done
        return array

    def _open(self, width: int | None = None) -> np.memmap | None:
        """Return the array; where there is none that fits, make one of this width."""
        if self.path.is_file():
            try:
                array = np.load(self.path, mmap_mode="r")
            except (ValueError, OSError, EOFError, OverflowError, SyntaxError, tokenize.TokenError):
                array = None  # cut short, or its head is damaged: all of it is computed again
            if isinstance(array, np.memmap) and self._fits(array, width):
                return array
            if width is not None:
                self.path.unlink(missing_ok=True)
        if width is None:
            return None
        self._sums.unlink(missing_ok=True)
        self.done[:] = False
        shape = (self.rows, width)
        _make(self.path, lambda path: np.lib.format.open_memmap(path, mode="w+", dtype=self.dtype, shape=shape))
        return np.load(self.path, mmap_mode="r")

    def _fits(self, array: np.memmap, width: int | None) -> bool:
        right = array.dtype == self.dtype and array.ndim == 2 and len(array) == self.rows and array.flags.c_contiguous
        return right and width in (None, array.shape[1])


def _make(path: Path, make: Callable[[Path], object]) -> None:
    """Make an empty file, unless another process has just done so: what it wrote must not be lost."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        make(temporary)
        try:
            os.link(temporary, path)  # a rename would replace the other's
        except FileExistsError:
            pass
        except OSError:  # no links on this drive
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_rows(file: int, positions: NDArray[np.int64], rows: NDArray, offset: int) -> None:
    """Write rows at their places in an array that begins at an offset of a file; neighbours together."""
    cuts = np.flatnonzero(np.diff(positions) != 1) + 1
    size = rows.shape[1] * rows.itemsize
    for places, part in zip(np.split(positions, cuts), np.split(rows, cuts), strict=True):
        data, at = part.tobytes(), offset + int(places[0]) * size
        while data:
            written = os.pwrite(file, data, at)
            data, at = data[written:], at + written


def _sums_of(rows: NDArray) -> NDArray[np.uint64]:
    """Return a checksum of each row, never 0: that stands for a row that is not there."""
    rows = np.ascontiguousarray(rows, dtype=rows.dtype).view(np.ndarray)
    numbers = [int.from_bytes(hashlib.blake2b(row, digest_size=8).digest(), "little") or 1 for row in rows]
    return np.array(numbers, dtype=_SUM)


def _commit(columns: Sequence[_Column]) -> None:
    for column in columns:
        column.commit()


def _all_done(columns: Sequence[_Column], positions: NDArray[np.int64]) -> NDArray[np.bool_]:
    return np.logical_and.reduce([column.done[positions] for column in columns])


def _resolved(model: Model, specs: Sequence[FeatureSpec]) -> list[FeatureSpec]:
    count = model.adapter.n_blocks
    wrong = [read.block for read in specs if not -count <= read.block < count]
    if wrong:
        raise InputError(f"{model.name} has blocks 0 to {count - 1} (or -1 for the last), not {wrong[0]}")
    return list(dict.fromkeys(FeatureSpec(read.block % count, read.token) for read in specs))


def _forward(
    model: Model, images: Tensor, specs: Sequence[FeatureSpec], norm: bool, fitting: Fitting
) -> dict[FeatureSpec, NDArray[np.float32]]:
    """Read a batch; when it does not fit into the memory, its halves."""

    def forward(part: Tensor) -> dict[FeatureSpec, NDArray[np.float32]]:
        with torch.inference_mode():
            return {read: values.cpu().numpy() for read, values in read_batch(model, part, specs, norm=norm).items()}

    return halving(
        forward,
        images,
        lambda whole: (whole.tensor_split(2)[0], whole.tensor_split(2)[1]),
        lambda first, second: {read: np.concatenate([first[read], second[read]]) for read in specs},
        fitting,
    )
