"""Records on disk: parquet parts, written whole or not at all, never rewritten.

A part's name ends in the digest of its content, so a damaged part is recognised and measured again. Every row carries
what identifies the result (``Identity``), so a folder may hold records of several seeds, precisions and data sets.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from ipvit.errors import InputError
from ipvit.experiments.base import Condition
from ipvit.files import write_atomic

RECORDS = "records"
FLUSH_SECONDS = 10.0
FLUSH_ROWS = 500_000


@dataclasses.dataclass(frozen=True)
class Identity:
    """What determines a result beside the condition and the image; all of it is columns of the records.

    Attributes:
        experiment: its name.
        version: the experiment's version.
        weights: digest of the model (weights, architecture, preprocessing).
        data: fingerprint of the data set.
        seed: of the study.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        labels: digest of the mapping from the data's classes to the model's outputs.
    """

    experiment: str
    version: int
    weights: str
    data: str
    seed: int
    precision: str
    labels: str

    def columns(self) -> dict[str, str | int]:
        """Return the fields as columns."""
        return dataclasses.asdict(self)


class Store:
    """The records of a run folder.

    Args:
        root: the run folder.
        flush_seconds: rows are written at least this often; a killed run loses at most that much work.
        mend: put damaged parts aside; only for whoever holds the folder's lock.
    """

    def __init__(self, root: Path, flush_seconds: float = FLUSH_SECONDS, *, mend: bool = False) -> None:
        self.root = root
        self.mend = mend
        self.flush_seconds = flush_seconds
        self.damaged: list[Path] = []
        self._waiting: dict[tuple[str, str], list[pl.DataFrame]] = {}
        self._rows = 0
        self._last_flush = time.monotonic()

    def add(
        self, identity: Identity, model_name: str, ids: Sequence[str], condition: Condition, columns: pl.DataFrame
    ) -> None:
        """Take in the rows of a batch under one condition; they reach the disk with the next flush."""
        fixed = {
            **dataclasses.asdict(condition),
            "condition": condition.key,
            "model": model_name,
            **identity.columns(),
        }
        frame = columns.insert_column(0, pl.Series("image", ids, dtype=pl.String)).with_columns(
            pl.lit(value).alias(name) for name, value in fixed.items()
        )
        folder = f"{safe_name(model_name)}-{identity.weights[:8]}"
        self._waiting.setdefault((identity.experiment, folder), []).append(frame)
        self._rows += frame.height

    def flush_if_due(self) -> None:
        """Write what is waiting when it is much or has waited long."""
        if self._rows >= FLUSH_ROWS or time.monotonic() - self._last_flush >= self.flush_seconds:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting, one part per experiment and model."""
        for (experiment, folder), frames in list(self._waiting.items()):
            self._write(self.root / RECORDS / experiment / folder, pl.concat(frames, how="diagonal_relaxed"))
            del self._waiting[experiment, folder]
        self._rows = 0
        self._last_flush = time.monotonic()

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
        frames = [frame for path in self._parts(experiment) if (frame := self._read(path)) is not None]
        if not frames:
            return pl.DataFrame()
        key = [field.name for field in dataclasses.fields(Identity)] + ["condition", "image"]
        whole = pl.concat(frames, how="diagonal_relaxed").unique(key, keep="first", maintain_order=True)
        return whole.sort(*key)

    def experiments(self) -> list[str]:
        """Return the names of the experiments that have records."""
        folder = self.root / RECORDS
        return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []

    def _parts(self, experiment: str, folder: str = "*") -> Iterator[Path]:
        yield from sorted((self.root / RECORDS / experiment).glob(f"{folder}/part-*.parquet"))

    def _read(self, path: Path, columns: list[str] | None = None) -> pl.DataFrame | None:
        """Return a part, or None where its content is not what was written; a damaged part is noted."""
        data = path.read_bytes()
        if path.stem.rpartition("-")[2] == _digest(data):
            return pl.read_parquet(io.BytesIO(data), columns=columns)
        if path not in self.damaged:
            self.damaged.append(path)
        if self.mend:
            path.rename(path.with_suffix(".damaged"))
        return None

    def _write(self, folder: Path, frame: pl.DataFrame) -> None:
        buffer = io.BytesIO()
        frame.write_parquet(buffer, compression="zstd", statistics=False)
        data = buffer.getvalue()
        write_atomic(folder / f"part-{_digest(data)}.parquet", data)


def safe_name(name: str) -> str:
    """Return a name as a folder name on any file system: letters, digits, ``._+-``, at most 80 characters."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "_", name).strip("._")[:80] or "model"


def prepare_folder(root: Path) -> None:
    """Make the run folder and make sure that it can be written.

    Raises:
        InputError: it cannot.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        probe = root / f".probe.{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise InputError(f"cannot write to the output folder {str(root)!r}: {error.strerror or error}") from None


def column_frame(columns: dict[str, np.ndarray]) -> pl.DataFrame:
    """Return measured columns as a frame; float64 is narrowed to float32, which the measures do not exceed."""
    narrowed = {
        name: array.astype(np.float32) if array.dtype == np.float64 else array for name, array in columns.items()
    }
    return pl.DataFrame(narrowed)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
