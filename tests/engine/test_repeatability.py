"""How far the same study gives the same numbers: threads, batch sizes, workers, the order of models and conditions.

What is decided (predictions, masks, episodes, corrupted pictures) is the same; what is summed in floating point may
differ in the last digits. The largest differences stand in ``docs/scale.md``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import ipvit
from helpers import whole_study
from helpers.forks import ranks
from helpers.paths import TESTS
from ipvit.engine.store import KEY, Store
from ipvit.experiments.registry import BUILT_IN

pytestmark = pytest.mark.slow

TOLERANCE = 2e-6
"""Most that a measured number may move, relative to the largest of its column."""

FITTED = 5e-3
"""The same for the probabilities of heads that are fitted here: L-BFGS ends where the gradient is small enough."""

SOLVER = ("steps", "gradient")
"""Columns that say how a head was fitted, not what it answers: an iteration more or less ends at the same head."""


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    assert not whole_study.run(out, flush_seconds=10).manifest.failures
    return out


def records(out: Path, name: str) -> pl.DataFrame:
    frame = Store(out).records(name)
    texts = [column for column, kind in frame.schema.items() if kind == pl.Categorical]
    return frame.with_columns(pl.col(texts).cast(pl.String)).sort(KEY)


def exactly_equal(one: Path, other: Path) -> None:
    for name in BUILT_IN:
        ours, theirs = records(one, name), records(other, name)
        assert ours.select(sorted(ours.columns)).equals(theirs.select(sorted(theirs.columns))), name


def moved(one: Path, other: Path) -> dict[str, float]:
    """Return the largest difference per column of numbers, relative to the column's largest; the rest is equal."""
    found: dict[str, float] = {}
    for name in BUILT_IN:
        ours, theirs = records(one, name), records(other, name)
        assert ours.height == theirs.height > 0 and set(ours.columns) == set(theirs.columns)
        for column, kind in ours.schema.items():
            if column in SOLVER:
                continue
            if kind.is_float():
                a, b = (frame[column].to_numpy().astype(np.float64) for frame in (ours, theirs))
                difference = np.abs(a - b)
                difference[np.isnan(a) & np.isnan(b)] = 0
                found[f"{name} {column}"] = float(difference.max() / max(np.nanmax(np.abs(a)), 1e-9))
            elif kind == pl.Binary:  # attention maps of half precision
                a, b = (np.frombuffer(b"".join(frame[column]), np.float16).astype(float) for frame in (ours, theirs))
                found[f"{name} {column}"] = float(np.abs(a - b).max() / np.abs(a).max())
            else:
                assert ours[column].equals(theirs[column]), f"{name}: {column} changed"
    return found


def tables_differ_by(one: Path, other: Path) -> float:
    """Return the largest difference in any table, in the unit of its column (points of accuracy mostly)."""
    ours, theirs = (ipvit.Run(out, whole_study.experiments()).tables for out in (one, other))
    assert set(ours) == set(theirs)
    worst = 0.0
    for name, table in ours.items():
        if name == "attention-maps":
            continue
        assert table.height == theirs[name].height, name
        for column, kind in table.schema.items():
            if kind.is_float():
                a, b = (frame[column].fill_null(np.nan).to_numpy() for frame in (table, theirs[name]))
                same = (np.isnan(a) & np.isnan(b)) | (a == b)
                worst = max([worst, *np.abs(a - b)[~same].tolist()])
    return worst


def run(out: Path, **options: Any) -> Path:
    whole_study.run(out, flush_seconds=10, **options)
    return out


@pytest.mark.parametrize("workers", [1, 2])
def test_decoding_processes_change_nothing(reference, tmp_path, workers):
    exactly_equal(run(tmp_path, workers=workers), reference)


def test_tables_are_the_same_bytes_on_any_number_of_threads(reference, tmp_path):
    """Averages must not depend on the order in which a table's threads happen to group images."""
    code = (
        "import sys, ipvit; from helpers import whole_study\n"
        "run = ipvit.Run(sys.argv[1], whole_study.experiments())\n"
        "for name, table in (run.tables | {f'{n}-differences': t for n, t in run.differences.items()}).items():\n"
        "    print(name, table.write_csv())\n"
    )
    found = []
    for threads in (1, 2, 3):
        surroundings = {**os.environ, "POLARS_MAX_THREADS": str(threads), "PYTHONPATH": str(TESTS)}
        command = [sys.executable, "-c", code, reference]
        found.append(subprocess.run(command, env=surroundings, check=True, capture_output=True, timeout=300).stdout)
    assert len(found[0]) > 10_000 and found[0] == found[1] == found[2]


@pytest.mark.parametrize("count", [2, 3])
def test_several_processes_change_nothing(reference, tmp_path, count):
    script = tmp_path / "study.py"
    script.write_text(
        "import pathlib, sys\nfrom helpers import whole_study\nwhole_study.run(pathlib.Path(sys.argv[1]))\n"
    )
    for process in ranks([script, tmp_path / "run"], count):
        assert process.wait(900) == 0, process.communicate()
    exactly_equal(tmp_path / "run", reference)


def test_the_order_of_models_and_experiments_changes_nothing(reference, tmp_path):
    backwards = {"models": whole_study.models()[::-1], "experiments": whole_study.experiments()[::-1]}
    exactly_equal(run(tmp_path, **backwards), reference)


def test_the_order_of_conditions_and_what_was_there_before_change_nothing(reference, tmp_path):
    one_by_one = [
        experiment
        for name in ("occlusion", "corruptions", "shuffle", "feature-drop", "correlation")
        for experiment in whole_study.in_pieces(name)
    ]
    for experiment in one_by_one[::-1]:
        whole_study.run(tmp_path, experiments=[experiment])
    exactly_equal(run(tmp_path), reference)


def test_two_threads_move_the_last_digits_and_no_decision(reference, tmp_path):
    torch.set_num_threads(2)
    try:
        found = moved(run(tmp_path), reference)
    finally:
        torch.set_num_threads(1)
    print("\ntwo threads:", worst(found))
    assert_still(found, tmp_path, reference)


@pytest.mark.parametrize("size", [1, 7, 32])
def test_the_batch_size_moves_the_last_digits_and_no_decision(reference, tmp_path, size):
    found = moved(run(tmp_path, batch_size=size), reference)
    print(f"\nbatches of {size}:", worst(found))
    assert_still(found, tmp_path, reference)


def assert_still(found: dict[str, float], one: Path, other: Path) -> None:
    """Check that numbers moved in their last digits only, and tables not beyond what they print."""
    for column, difference in found.items():
        assert difference <= (FITTED if column.startswith("probe ") else TOLERANCE), column
    assert tables_differ_by(one, other) <= 1e-4


def worst(found: dict[str, float]) -> dict[str, float]:
    return dict(sorted(found.items(), key=lambda item: -item[1])[:6])
