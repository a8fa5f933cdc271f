"""Records on disk: parquet parts, written whole or not at all.

A part's name ends in the digest of its content, so a damaged part is recognised and measured again. Every row carries
what identifies the result (``Identity``), so a folder may hold records of several seeds, precisions and data sets, and
a row that is there twice counts once: several processes can write side by side, and small parts can be joined.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from pydantic import ValidationError

from ipvit.analysis.base import Analysis
from ipvit.analysis.records.frames import matching
from ipvit.core.digests import digest_of, digest_of_file
from ipvit.core.files import path_component, write_atomic, write_named
from ipvit.engine.folders.joining import Rows, each_once, rows_of
from ipvit.engine.folders.parts import Alike, devices_of, read_part, together, write_part, write_pieces
from ipvit.engine.folders.rows import Measured, RowMaker
from ipvit.experiments.base import Condition

RECORDS = "records"
ANALYSIS = "analysis.json"
FLUSH_ROWS = 500_000
_DIGITS = 16  # of the digest in a part's name
SMALL_PART = 32 * 2**20
"""Bytes; parts below it are joined when a run ends."""


@dataclasses.dataclass(frozen=True)
class Identity:
    """What determines a result beside the condition and the image; all of it is columns of the records.

    It may grow: a later field has a default, which is its value in every part that was written before there was such a
    column. The fields without default are in every part.

    Attributes:
        experiment: its name.
        version: the experiment's version.
        weights: digest of the model (weights, architecture, preprocessing).
        data: fingerprint of the data set.
        seed: of the study.
        precision: ``fp32``, ``bf16`` or ``fp16``; where not torch computes, with the program: ``fp32 openvino``.
        labels: digest of the mapping from the data's classes to the model's outputs.
        answers: ``all`` where the model chooses among its outputs, ``data`` where among those of the data's classes.
    """

    experiment: str
    version: int
    weights: str
    data: str
    seed: int
    precision: str
    labels: str
    answers: str = "all"

    def columns(self) -> dict[str, str | int]:
        """Return the fields as columns."""
        return dataclasses.asdict(self)

    @classmethod
    def later(cls) -> dict[str, str | int]:
        """Return the fields that the earliest parts lack, with the value they have there."""
        return {f.name: f.default for f in dataclasses.fields(cls) if f.default is not dataclasses.MISSING}


def key_columns(identity: type[Identity] = Identity) -> tuple[str, ...]:
    """Return the columns that identify a row."""
    return (*(field.name for field in dataclasses.fields(identity)), "condition", "image")


KEY = key_columns()
"""Columns that identify a row."""


class Store:
    """The records of a run folder.

    Args:
        root: the run folder.
        flush_seconds: rows are written at least this often, so that a killed run loses at most that much work; by
            default when there are many, or when asked.
        mend: put damaged parts aside; only for the process that holds the folder's lock.
        identity: what a row is identified by.
        guard: called before anything is written, to raise where nothing may be.
        device: name of what the rows are measured on that are added; parts name it.
    """

    def __init__(
        self,
        root: Path,
        flush_seconds: float = math.inf,
        *,
        mend: bool = False,
        identity: type[Identity] = Identity,
        guard: Callable[[], None] = lambda: None,
        device: str = "",
    ) -> None:
        self.root = root
        self._guard = guard
        self._devices = frozenset([device] if device else [])
        self._key = key_columns(identity)
        self._later = identity.later()
        self.mend = mend
        self.flush_seconds = flush_seconds
        self.damaged: list[Path] = []
        self._maker = RowMaker()
        self._alike: dict[Path, Alike] = {}
        self._waiting: dict[tuple[str, str], list[pl.DataFrame]] = {}
        self._rows = 0
        self._last_flush = time.monotonic()

    def add(
        self,
        identity: Identity,
        model_name: str,
        ids: Sequence[str],
        measured: Measured,
    ) -> None:
        """Take in the rows of a batch under some conditions, all or none; they reach the disk with the next flush.

        Raises:
            polars.exceptions.PolarsError: they cannot stand in one table, or not in one with those before.
        """
        waiting = self._waiting.setdefault((identity.experiment, _folder_name(model_name, identity.weights)), [])
        frames: list[pl.DataFrame] = []
        for frame in self._maker.frames(identity, model_name, ids, measured):
            before = (frames or waiting)[-1:]
            if before and before[0].schema != frame.schema:
                pl.concat([before[0].clear(), frame.clear()], how="diagonal_relaxed")
            frames.append(frame)
        waiting += frames
        self._rows += sum(frame.height for frame in frames)

    def flush_if_due(self) -> None:
        """Write what is waiting when it is much or has waited long."""
        if self._rows >= FLUSH_ROWS or time.monotonic() - self._last_flush >= self.flush_seconds:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting, one part per experiment and model."""
        for (experiment, folder), frames in list(self._waiting.items()):
            if frames:
                rows = together(frames)
                self._write(self._folder(experiment) / folder, rows, self._devices)
            del self._waiting[experiment, folder]
        self._rows = 0
        self._last_flush = time.monotonic()

    def write(self, frame: pl.DataFrame, devices: Collection[str] = ()) -> None:
        """Write rows of one experiment, as :meth:`records` returns them, one part per model.

        Args:
            frame: the rows.
            devices: what they were measured on.
        """
        if not frame.is_empty():
            self.write_rows(rows_of([frame.with_columns(pl.col(pl.String).cast(pl.Categorical))]), devices)

    def write_rows(self, rows: Rows, devices: Collection[str] = ()) -> None:
        """Write rows in their order, one part per experiment and model; see :meth:`write`."""
        for (experiment, model, weights), found in rows.by(["experiment", "model", "weights"]):
            self._write_rows(self._folder(experiment) / _folder_name(model, weights), found, devices)

    def compact(self) -> None:
        """Join the small parts of each experiment and model into one; only for the process that holds the lock.

        The joined part is on the disk before the first of its pieces goes. Killed in between, rows are there twice,
        which :meth:`records` and the next call put right. Where there is no room, everything stays as it is.
        """
        for folder in sorted((self.root / RECORDS).glob("*/*")):
            with contextlib.suppress(OSError):
                self._compact(folder)

    def _compact(self, folder: Path) -> None:
        small = [path for path in sorted(folder.glob("part-*.parquet")) if path.stat().st_size < SMALL_PART]
        if len(small) < 2:
            return
        sound = {path: frame for path in small if (frame := self._read(path)) is not None}
        paths, frames = list(sound), list(sound.values())
        sound.clear()
        if len(paths) < 2:
            return
        whole = self._write_rows(folder, rows_of(frames).each_once(self._key), _devices_of(paths))
        for path in paths:
            if path != whole:
                path.unlink()

    def done(self, identity: Identity, ids: Sequence[str], conditions: Sequence[Condition]) -> np.ndarray:
        """Return which results are already on disk.

        Args:
            identity: whose results.
            ids: the images of the data set.
            conditions: the conditions that are asked for.

        Returns:
            ``(len(ids), len(conditions))`` boolean array.
        """
        done = np.zeros((len(ids), len(conditions)), dtype=bool)
        parts = list(self._parts(identity.experiment, f"*-{identity.weights[:8]}"))
        rows = {image: row for row, image in enumerate(ids)} if parts else {}
        columns = {condition.key: column for column, condition in enumerate(conditions)}
        wanted = [pl.col(name) == value for name, value in identity.columns().items()]
        for path in parts:
            frame = self._read(path, [*identity.columns(), "condition", "image"])
            if frame is None:
                continue
            for key, images in frame.filter(*wanted).group_by("condition").agg("image").iter_rows():
                if key in columns:
                    done[[rows[image] for image in images if image in rows], columns[key]] = True
        return done

    def records(self, experiment: str) -> pl.DataFrame:
        """Return all records of an experiment in a fixed order, each result once."""
        return self.select(experiment, {})[0]

    def models(self, experiment: str, where: Mapping[str, Any]) -> tuple[list[tuple[str, str]], int]:
        """Return the networks that have records of an experiment, and the number of rows that are of something else.

        Args:
            experiment: its name.
            where: values that columns must have.

        Returns:
            Digest and name of every network, by digest.
        """
        found: dict[str, str] = {}
        others = 0
        for path in self._parts(experiment):
            frame = self._read(path, {*where, "weights", "model"})
            if frame is not None:
                ours = matching(frame, [pl.col(name) == value for name, value in where.items()])
                others += frame.height - ours.height
                alike = {"weights", "model"} <= self._alike[path].keys()
                networks = ours.select("weights", "model")
                for weights, model in networks.head(1).iter_rows() if alike else networks.unique().iter_rows():
                    found.setdefault(weights, model)
        return sorted(found.items()), others

    def select(
        self,
        experiment: str,
        where: Mapping[str, Any],
        columns: Collection[str] | None = None,
        *,
        of: str = "",
    ) -> tuple[pl.DataFrame, int]:
        """Return some records of an experiment in a fixed order, each result once, and the number of the other rows.

        Args:
            experiment: its name.
            where: values that columns must have, for example those of an :class:`Identity`.
            columns: the columns to return beside ``model``, ``weights`` and ``image``; all by default.
            of: digest of the one network whose parts are read; all by default.

        Returns:
            One row per image, condition and model. What identifies a row is categorical where it is text: as strings,
            a million rows would take 1 GB.
        """
        wanted = None if columns is None else {*columns, *where, *self._key, "model"}
        frames: list[pl.DataFrame] = []
        others = 0
        for path in self._parts(experiment, f"*-{of[:8]}" if of else "*"):
            whole = self._read(path, wanted)
            if whole is not None:
                frames.append(matching(whole, [pl.col(name) == value for name, value in where.items()]))
                others += whole.height - frames[-1].height
        if not frames:
            return pl.DataFrame(), 0
        found = each_once(together(frames), self._key)
        if columns is not None:
            found = found.select(name for name in found.columns if name in {*columns, "model", "weights", "image"})
        texts = [name for name, kind in found.schema.items() if kind == pl.Categorical and name not in self._key]
        return (found.with_columns(pl.col(texts).cast(pl.String)) if texts else found), others

    def read(self, experiment: str, *, of: str) -> Iterator[pl.DataFrame]:
        """Yield what the parts of a network hold, one after the other, with texts as categories.

        Args:
            experiment: its name.
            of: digest of the network.
        """
        for path in self._parts(experiment, f"*-{of[:8]}"):
            frame = self._read(path)
            if frame is not None:
                yield frame

    def contents(self, experiment: str, of: str, fewest_bytes: int) -> list[str] | None:
        """Return digests of the parts of a network, by name; None where one is damaged, or all of them are small.

        Args:
            experiment: its name.
            of: digest of the network.
            fewest_bytes: of all parts together.
        """
        paths = list(self._parts(experiment, f"*-{of[:8]}"))
        if sum(path.stat().st_size for path in paths) < fewest_bytes:
            return None
        digests = [digest_of_file(path) for path in paths]
        whole = all(
            path.stem.rpartition("-")[2] == digest[:_DIGITS] for path, digest in zip(paths, digests, strict=True)
        )
        return sorted(digests) if whole else None

    def fingerprints(self) -> set[str]:
        """Return the fingerprints of the data that there are records of."""
        frames = [self._read(path, ["data"]) for name in self.experiments() for path in self._parts(name)]
        return {str(value) for frame in frames if frame is not None for value in frame["data"].unique()}

    def experiments(self) -> list[str]:
        """Return the names of the experiments that have records."""
        folder = self.root / RECORDS
        return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []

    def folders(self, experiment: str) -> list[str]:
        """Return what :meth:`select` may be asked for as ``of``: the beginning of the digest of each network."""
        return sorted({path.parent.name.rpartition("-")[2] for path in self._parts(experiment)})

    def devices(self, experiment: str, *, of: str) -> set[str]:
        """Return the names of what a network's records were measured on, as far as their parts say.

        Args:
            experiment: its name.
            of: digest of the network.
        """
        return _devices_of(self._parts(experiment, f"*-{of[:8]}"))

    def _folder(self, experiment: str) -> Path:
        return self.root / RECORDS / path_component(experiment)

    def _parts(self, experiment: str, folder: str = "*") -> Iterator[Path]:
        yield from sorted(self._folder(experiment).glob(f"{folder}/part-*.parquet"))

    def _read(self, path: Path, columns: Collection[str] | None = None) -> pl.DataFrame | None:
        """Return a part, or None where its content is not what was written; a damaged part is noted."""
        data = path.read_bytes()
        if path.stem.rpartition("-")[2] == digest_of(data, _DIGITS):
            with contextlib.suppress(pl.exceptions.PolarsError):
                schema = pl.read_parquet_schema(io.BytesIO(data))
                if schema.keys() >= {*self._key, "model"} - self._later.keys():
                    frame = read_part(data, columns, self._alike.setdefault(path, {}))
                    missing = {name: value for name, value in self._later.items() if name not in schema}
                    frame = frame.with_columns(
                        pl.lit(value).alias(name)
                        for name, value in missing.items()
                        if columns is None or name in columns
                    )
                    return frame.with_columns(pl.col(pl.String).cast(pl.Categorical))
        if path not in self.damaged:
            self.damaged.append(path)
        if self.mend:
            path.rename(path.with_suffix(".damaged"))
        return None

    def _write(self, folder: Path, frame: pl.DataFrame, devices: Collection[str]) -> Path:
        data = write_part(frame, devices)
        self._guard()
        path = folder / _part_name(digest_of(data))
        write_atomic(path, data)
        return path

    def _write_rows(self, folder: Path, rows: Rows, devices: Collection[str]) -> Path:
        def name(digest: str) -> str:
            self._guard()  # all is written by now, which may have taken long, and gets its name
            return _part_name(digest)

        return write_named(folder, name, lambda file: write_pieces(file, rows.pieces(), rows.kinds, devices))


def keep_analysis(root: Path, analysis: Analysis, conditions: Sequence[str]) -> None:
    """Keep what the columns of an experiment mean beside its records.

    Args:
        root: the run folder.
        analysis: of the experiment.
        conditions: the fields of its conditions; those that were kept before stay.
    """
    earlier = read_analysis(root, analysis.name)
    known = (*(() if earlier is None else earlier.conditions), *conditions)
    content = analysis.model_dump(include=set(Analysis.model_fields)) | {"conditions": tuple(dict.fromkeys(known))}
    text = Analysis.model_validate(content).model_dump_json(indent=1)
    path = root / RECORDS / path_component(analysis.name) / ANALYSIS
    if not path.is_file() or path.read_text("utf-8") != text:
        write_atomic(path, text.encode())


def read_analysis(root: Path, experiment: str) -> Analysis | None:
    """Return what was kept of an experiment's analysis, or None where there is nothing, or nothing that can be read."""
    try:
        found = Analysis.model_validate_json((root / RECORDS / path_component(experiment) / ANALYSIS).read_bytes())
    except (OSError, ValidationError):
        return None
    return found if path_component(found.name) == path_component(experiment) else None  # it speaks for itself only


def _devices_of(parts: Iterable[Path]) -> set[str]:
    return {device for path in parts for device in devices_of(path)}


def _part_name(digest: str) -> str:
    return f"part-{digest[:_DIGITS]}.parquet"


def _folder_name(model_name: str, weights: str) -> str:
    return path_component(model_name, mark=weights[:8])
