"""Records are read column by column and reduced model by model: tables are those of all records in memory at once."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import ipvit
from helpers.small_experiments import SMALL
from ipvit.analysis import aggregate, reduction
from ipvit.analysis.confidences import rows
from ipvit.analysis.records.reduction_file import decoded, encoded, same_reduction
from ipvit.engine import store
from ipvit.engine.folders import study_records
from ipvit.engine.folders.parts import Alike, read_part, write_part
from ipvit.engine.store import Store
from ipvit.experiments.registry import make_experiment
from ipvit.metrics import calibration, calibration_intervals
from ipvit.testing.samples import sample_data, sample_models, sample_vit


def read_whole(data: bytes, columns: Collection[str] | None, _: Alike) -> pl.DataFrame:
    """Read a part as polars does it."""
    frame = pl.read_parquet(io.BytesIO(data), columns=None if columns is None else list(columns))
    return frame.with_columns(pl.col(pl.String).cast(pl.Categorical))


def some_columns(data: bytes, columns: Collection[str] | None, alike: Alike) -> pl.DataFrame:
    known = pl.read_parquet_schema(io.BytesIO(data))
    return read_whole(data, None if columns is None else [name for name in known if name in columns], alike)


def grouped(records: pl.DataFrame, by: Sequence[str], _: Sequence[str]) -> Iterator[tuple[Any, pl.DataFrame]]:
    return iter(records.group_by(by, maintain_order=True)) if by else iter([((), records)])


def filtered(records: pl.DataFrame, conditions: Sequence[pl.Expr]) -> pl.DataFrame:
    return records.filter(*conditions)


def ranked(values: pl.Series) -> np.ndarray:
    return values.cast(pl.String).rank("dense").to_numpy().astype(np.int64) - 1


def numbered(values: Any) -> tuple[np.ndarray, np.ndarray]:
    return np.unique(np.asarray(values), return_inverse=True)


def sorted_once(frame: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    return frame.sort(key, maintain_order=True).unique(key, keep="first", maintain_order=True)


def made_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the plain ways in place of those that save memory."""
    monkeypatch.setattr(store, "read_part", some_columns)
    monkeypatch.setattr(store, "each_once", sorted_once)
    for module in (aggregate, reduction, rows):
        monkeypatch.setattr(module, "groups", grouped)
    for module in (store, study_records, reduction, rows):
        monkeypatch.setattr(module, "matching", filtered)
    for module in (reduction, rows):
        monkeypatch.setattr(module, "ranks", ranked)
    for module in (calibration, calibration_intervals, rows):
        monkeypatch.setattr(module, "distinct", numbered)


def scattered(out: Path, name: str) -> None:
    """Write the records again in several parts, in no order, some of them twice."""
    held = Store(out)
    for weights in held.folders(name):
        frame = held.select(name, {}, of=weights)[0]
        mixed = frame.sample(fraction=1.0, shuffle=True, seed=0)
        for path in sorted((out / "records" / name).glob(f"*-{weights}/part-*.parquet")):
            path.unlink()
        third = max(1, mixed.height // 3)
        for start in range(0, mixed.height, third):
            held.write(mixed[start : start + third + 2])


QUICK = ("accuracy", "occlusion")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] if n not in QUICK else []) for n in SMALL])
def test_tables_are_those_of_all_records_read_at_once(name, tmp_path, monkeypatch):
    experiment = make_experiment(name, SMALL[name])
    models = [model for model in sample_models() if all(map(model.can, experiment.requirements.capabilities))]
    models = models if len(models) > 1 else [*models, sample_vit(1)]
    data = sample_data() if name == "fewshot" else sample_data(9)
    ipvit.run(experiment, models=models, data=data, out=tmp_path / "run", workers=0, progress=False)

    def everything() -> tuple[dict[str, pl.DataFrame], dict[str, pl.DataFrame], list[str], list[str]]:
        run = ipvit.Run(tmp_path / "run", [experiment])
        return dict(run.tables), dict(run.differences), run.notes_of(name), run.summary_of(name)

    monkeypatch.setenv("IPVIT_TRACEBACK", "1")
    streamed = everything()
    reductions = ipvit.Run(tmp_path / "run", [experiment]).reductions(name)
    assert all(same_reduction(decoded(encoded(reduction)), reduction) for reduction in reductions), "it can be kept"
    scattered(tmp_path / "run", name)
    of_pieces = everything()
    made_at_once(monkeypatch)
    at_once = everything()
    assert streamed[0]
    for found in (streamed, of_pieces):
        for frames, expected in zip(found[:2], at_once[:2], strict=True):
            assert frames.keys() == expected.keys()
            for key, frame in frames.items():
                assert_frame_equal(frame, expected[key], check_exact=True)
        assert found[2:] == at_once[2:]


@pytest.fixture
def part() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "image": ["b", "a", "c"],
            "label": [1, 2, 3],
            "experiment": ["occlusion"] * 3,
            "fill": [None, None, None],
            "salience": ["x", None, "x"],
            "other": ["", "", ""],
        },
        schema_overrides={"fill": pl.String},
    )


@pytest.mark.parametrize("columns", [None, ["label"], ["experiment", "fill"], ["salience", "image", "label"], ["none"]])
def test_a_part_is_read_as_polars_reads_it(part, columns):
    data, alike = write_part(part), {}
    for known in (1, 2):  # the second time from what was found the first time
        found = read_part(data, columns, alike)
        assert_frame_equal(found, some_columns(data, columns, {})), known
        assert found.height == (3 if found.width else 0)
    assert set(alike) <= {"experiment", "fill", "other"}


def test_a_column_of_one_value_takes_no_memory():
    part = pl.DataFrame({"number": np.zeros(100_000, np.uint8), "text": ["a rather long text"] * 100_000})
    assert read_part(write_part(part), None, {}).estimated_size() < 110_000


def test_an_empty_part_has_its_columns(part):
    assert_frame_equal(read_part(write_part(part.clear()), None, {}), some_columns(write_part(part.clear()), None, {}))
