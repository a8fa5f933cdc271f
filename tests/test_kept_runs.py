"""Run folders written by version 0.1.0 stay readable, and give the tables that they gave then, byte for byte.

The exceptions are intervals, so that the kept tables have been written anew: those of universal patches held the spread
over images alone, and hold that over patches now; those of means of a quantity with limits stay between them. So have
those of occlusion, which say what a loss is a share of, and of correlation, which say what was read; blocks and stages,
class tokens and pooled features are not compared any more, and p of the exact test, which has no error of rounding now.
Markdown and LaTeX are as they are printed today. Columns
on calibration, which stand to the right of all others in CSV and JSON, are looked at in
``tests/analysis/test_calibration_columns.py``.

``kept/runs/all-experiments`` is the study of ``helpers/whole_study.py``; ``kept/runs/several-studies`` was written by
three studies, one after the other, with other models, seeds and precisions.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import ipvit
from helpers import whole_study
from helpers.paths import KEPT as KEPT_FILES
from ipvit.analysis.columns import CALIBRATION, CALIBRATION_NOTE
from ipvit.engine.folders.class_names import NAMED
from ipvit.engine.store import Identity, Store, key_columns
from ipvit.report.tables.files import write_table

KEPT = KEPT_FILES / "runs"
FOLDERS = ("all-experiments", "several-studies")


def written_again(run: ipvit.Run, out: Path) -> Path:
    """Write all tables of a run, and the differences between its models."""
    for name, analysis in run.analyses.items():
        for key, table in run.tables_of(name).items():
            later = [f"{measure}{end}" for measure in CALIBRATION for end in ("", "_low", "_high")] + [CALIBRATION_NOTE]
            write_table(table.drop(later, strict=False), out / key, analysis.columns)
        differences = run.differences_of(name)
        if differences is not None:
            write_table(differences, out / f"{name}-differences", analysis.columns)
    return out


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_tables_of_an_old_run_folder_are_what_they_were(folder, tmp_path):
    tables = written_again(ipvit.Run(KEPT / folder), tmp_path)
    for expected in sorted((KEPT / folder / "tables").iterdir()):
        assert (tables / expected.name).read_bytes() == expected.read_bytes(), expected.name


@pytest.mark.parametrize("folder", FOLDERS)
def test_an_old_run_folder_reads_the_same_when_results_are_identified_by_one_thing_more(folder):
    @dataclasses.dataclass(frozen=True)
    class Grown(Identity):
        prompts: str = "none"

    today, grown = Store(KEPT / folder), Store(KEPT / folder, identity=Grown)
    for name in today.experiments():
        before, after = today.records(name), grown.records(name)
        assert after["prompts"].cast(pl.String).unique().to_list() == ["none"]
        assert after.drop("prompts").select(before.columns).equals(before)
        identity = {key: before[key][0] for key in key_columns() if key not in ("condition", "image")}
        found, _ = grown.select(name, identity | {"prompts": "none"})
        none, _ = grown.select(name, identity | {"prompts": "photo"})
        assert found.height == today.select(name, identity)[0].height > 0
        assert none.is_empty()
    assert not grown.damaged


def test_rows_with_the_later_field_stand_beside_rows_without_it(tmp_path):
    shutil.copytree(KEPT / "all-experiments", tmp_path / "run")
    store = Store(tmp_path / "run")
    before = store.records("accuracy")
    store.write(before.with_columns(answers=pl.lit("data"), calibrated=pl.lit(0.5)))  # and a nullable column of records
    store.compact()
    both = Store(tmp_path / "run").records("accuracy")
    assert both.height == 2 * before.height
    assert both.filter(pl.col("answers").cast(pl.String) == "all")["calibrated"].null_count() == before.height
    assert (
        ipvit.Run(tmp_path / "run").tables["accuracy"].height
        == ipvit.Run(KEPT / "all-experiments").tables["accuracy"].height
    )


def comparable(frame: pl.DataFrame) -> pl.DataFrame:
    """Leave out the heads that L-BFGS fitted: they end by another rule than when the folder was made."""
    return frame.filter(pl.col("head").cast(pl.String) != "lbfgs") if "head" in frame.columns else frame


@pytest.mark.slow
def test_the_whole_study_measures_what_it_measured(tmp_path):
    """The same decisions; probabilities and other measures to the rounding of another processor."""
    run, kept = whole_study.run(tmp_path / "run"), ipvit.Run(KEPT / "all-experiments")
    assert [name for name in run.analyses if name in kept.analyses] == list(kept.analyses)
    for name in kept.analyses:
        now, then = comparable(run.records(name)), comparable(kept.records(name))
        assert now.height == then.height, name
        assert set(now.columns) >= set(then.columns), name
        for column in then.columns:
            if column in NAMED.values():  # which the version that wrote the folder did not keep
                assert not then[column].count()
            elif now[column].dtype.is_float():
                np.testing.assert_allclose(now[column], then[column], rtol=1e-3, atol=1e-4, err_msg=f"{name}.{column}")
            elif now[column].dtype == pl.Binary:  # maps of attention
                ours, theirs = (np.frombuffer(b"".join(frame[column]), np.float16) for frame in (now, then))
                np.testing.assert_allclose(ours, theirs, rtol=1e-2, atol=1e-3, err_msg=f"{name}.{column}")
            else:
                assert now[column].equals(then[column]), (name, column)
    tables = written_again(run, tmp_path / "tables")
    for expected in sorted((KEPT / "all-experiments" / "tables").glob("*.json")):
        ours, theirs = (
            comparable(pl.read_json(path, infer_schema_length=None)) for path in (tables / expected.name, expected)
        )
        assert set(ours.columns) >= set(theirs.columns), "what is retained needs chance, which old folders do not state"
        for row, other in zip(ours.iter_rows(named=True), theirs.iter_rows(named=True), strict=True):
            for key, value in other.items():
                if isinstance(value, float):
                    assert math.isclose(row[key], value, rel_tol=1e-2, abs_tol=1e-3), (expected.name, key)
                elif key == "map":
                    np.testing.assert_allclose(json.loads(row[key]), json.loads(value), rtol=1e-2, atol=1e-3)
                else:
                    assert row[key] == value, (expected.name, key)


def test_an_old_study_goes_on_where_it_was(tmp_path):
    shutil.copytree(KEPT / "several-studies", tmp_path / "run")
    from ipvit.cli import main

    study = tmp_path / "run" / "study.yaml"
    (tmp_path / "study.yaml").write_bytes(study.read_bytes())
    assert main(["run", str(tmp_path / "study.yaml"), "--out", str(tmp_path / "run"), "--json"]) == 0
    assert ipvit.Run(tmp_path / "run").manifest.measured_in_this_call == 0
