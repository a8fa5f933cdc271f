"""A reduction as bytes, and back: numbers, texts and tables, nothing that is executed."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from ipvit.analysis.records.packed import PackedRows
from ipvit.analysis.reduction import Reduction, Values

_DIGEST = 32  # bytes in front
_LENGTH = 8
_PARTS, _VALUES, _CALIBRATION = "part ", "values", "calibration"


def encoded(reduction: Reduction) -> bytes:
    """Return a reduction as bytes: a digest of the rest, what is short as JSON, and tables as Arrow has them.

    Raises:
        TypeError: it holds something that JSON has no word for.
        polars.exceptions.PolarsError: a table holds objects of Python.
    """
    frames = {f"{_PARTS}{name}": frame for name, frame in reduction.parts.items()}
    if reduction.calibration is not None:
        frames[_CALIBRATION] = reduction.calibration
    if reduction.values is not None:
        frames[_VALUES] = _table_of(reduction.values)
    tables = {name: _arrow(frame) for name, frame in frames.items()}
    about = {
        "model": reduction.model,
        "weights": reduction.weights,
        "missing": dict(reduction.missing),
        "unlabelled": sorted(reduction.unlabelled),
        "n_answers": reduction.n_answers,
        "size": reduction.size,
        "one_answer": reduction.one_answer,
        "values": None if reduction.values is None else _about(reduction.values),
        "tables": {name: len(table) for name, table in tables.items()},
    }
    head = json.dumps(about).encode()
    content = b"".join([len(head).to_bytes(_LENGTH, "little"), head, *tables.values()])
    return hashlib.sha256(content).digest() + content


def decoded(data: bytes) -> Reduction:
    """Return the reduction that bytes hold.

    Raises:
        ValueError: they are not what was written.
    """
    content = memoryview(data)[_DIGEST:]
    if hashlib.sha256(content).digest() != data[:_DIGEST]:
        raise ValueError("it is not what was written")
    start = _LENGTH + int.from_bytes(content[:_LENGTH], "little")
    try:
        about: dict[str, Any] = json.loads(bytes(content[_LENGTH:start]))
        frames: dict[str, pl.DataFrame] = {}
        for name, length in about["tables"].items():
            frames[name] = pl.read_ipc(io.BytesIO(content[start : start + length]))
            start += length
        return Reduction(
            about["model"],
            about["weights"],
            {name.removeprefix(_PARTS): frame for name, frame in frames.items() if name.startswith(_PARTS)},
            None if about["values"] is None else _values(about["values"], frames[_VALUES]),
            about["missing"],
            frozenset(about["unlabelled"]),
            about["n_answers"],
            None if about["size"] is None else tuple(about["size"]),
            about["one_answer"],
            frames.get(_CALIBRATION),
        )
    except (KeyError, TypeError, AttributeError, RecursionError, pl.exceptions.PolarsError) as error:
        raise ValueError(f"it holds no reduction: {error}") from None


def same_reduction(one: Reduction, other: Reduction) -> bool:
    """Tell whether two reductions agree in every value and type."""
    fields = [
        field.name for field in dataclasses.fields(Reduction) if field.name not in ("parts", "values", "calibration")
    ]
    return (
        type(one) is type(other) is Reduction
        and all(_same(getattr(one, name), getattr(other, name)) for name in fields)
        and list(one.parts) == list(other.parts)
        and all(_same_frame(one.parts[name], other.parts[name]) for name in one.parts)
        and _same_frame(one.calibration, other.calibration)
        and _same_values(one.values, other.values)
    )


def _same(one: object, other: object) -> bool:
    """Tell whether two values agree, with 1, 1.0 and True apart and NaN the same as NaN."""
    return one == other if isinstance(one, frozenset) else repr(one) == repr(other)


def _same_frame(one: pl.DataFrame | None, other: pl.DataFrame | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.schema == other.schema and one.equals(other)


def _same_values(one: Values | None, other: Values | None) -> bool:
    if one is None or other is None:
        return one is other
    plain = [field.name for field in dataclasses.fields(Values) if field.name not in ("images", "means", "clusters")]
    return (
        type(one) is type(other) is Values
        and all(_same(getattr(one, name), getattr(other, name)) for name in plain if name != "runs")
        and one.runs == other.runs
        and one.images.dtype == other.images.dtype
        and one.images.equals(other.images)
        and one.means.dtype == other.means.dtype
        and len(one.means) == len(other.means)
        and all(np.array_equal(a, b, equal_nan=True) for a, b in zip(one.means, other.means, strict=True))
        and len(one.clusters) == len(other.clusters)
        and all(_same_numbers(a, b) for a, b in zip(one.clusters, other.clusters, strict=True))
    )


def _same_numbers(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.dtype == other.dtype and np.array_equal(one, other)


def _arrow(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_ipc(buffer, compression="zstd")
    return buffer.getvalue()


def _about(values: Values) -> dict[str, Any]:
    return {
        "names": values.names,
        "keys": values.keys,
        "runs": [sorted(runs) for runs in values.runs],
        "clustered": [clusters is not None for clusters in values.clusters],
        "proportions": values.proportions,
        "span": values.span,
    }


def _table_of(values: Values) -> pl.DataFrame:
    """Return one row an image: its id, its mean in every condition, and the mask that it shares there."""
    means = {f"mean {row}": mean for row, mean in enumerate(values.means)}
    clusters = {f"mask {row}": found for row, found in enumerate(values.clusters) if found is not None}
    return pl.DataFrame({"image": values.images, **means, **clusters})


def _values(about: Mapping[str, Any], table: pl.DataFrame) -> Values:
    clustered = about["clustered"]
    return Values(
        table["image"].rename(""),
        tuple(about["names"]),
        tuple(tuple(key) for key in about["keys"]),
        PackedRows(table[f"mean {row}"].to_numpy() for row in range(len(clustered))),
        tuple(frozenset(runs) for runs in about["runs"]),
        tuple(table[f"mask {row}"].to_numpy() if found else None for row, found in enumerate(clustered)),
        about["proportions"],
        about["span"],
    )
