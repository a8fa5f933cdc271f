"""Calibration in the tables: of new records, of earlier ones, and of folders that hold both."""

import io
import json

import polars as pl
import pytest
import torch
import torch.nn.functional as F

import ipvit
from helpers.paths import KEPT
from helpers.small_runs import photos, small_occlusion
from helpers.tiny import tiny_model
from ipvit.analysis.columns import CALIBRATION, CALIBRATION_NOTE
from ipvit.engine.store import Store
from ipvit.metrics.temperature import SCALED
from ipvit.report.tables.cells import for_people
from ipvit.report.tables.terminal import terminal_tables

OLD = KEPT / "runs" / "all-experiments"
LATER = ("label_log_probability", "probability_squares", *SCALED)


def run_of(out, experiments=None, n=30, **options):
    experiments = experiments or small_occlusion()
    given = {"models": tiny_model(), "data": photos(n), "out": out, "workers": 0, "progress": False}
    return ipvit.run(experiments, **given | options)


def as_earlier(out):
    """Take out of a run folder what earlier versions did not record."""
    for path in (out / "records").glob("*/*/*.parquet"):
        frame = pl.read_parquet(path)
        path.unlink()
        Store(out).write(frame.drop(name for name in LATER if name in frame.columns))


def test_table_has_the_measures_of_every_condition(tmp_path):
    run = run_of(tmp_path)
    table, data = run.tables["occlusion"], photos()
    clean = table.row(0, named=True)
    assert clean["information_loss"] == 0
    with torch.no_grad():
        logits = tiny_model()(torch.stack([data.read(row) for row in range(30)]).float() / 255)
    assert clean["nll"] == pytest.approx(float(F.cross_entropy(logits, torch.arange(30) % 4)), abs=1e-5)
    for row in table.iter_rows(named=True):
        mine = run.records("occlusion").filter((pl.col("information_loss") - row["information_loss"]).abs() < 1e-6)
        gap = (mine["confidence"].cast(pl.Float64) - mine["correct"].cast(pl.Float64)).mean()
        assert row["overconfidence"] == pytest.approx(gap, abs=1e-6)
        squares = mine["probability_squares"].cast(pl.Float64) - 2 * mine["label_probability"].cast(pl.Float64) + 1
        assert row["brier"] == pytest.approx(squares.mean(), abs=1e-6)


def test_all_six_experiments_have_them(tmp_path):
    experiments = [
        ipvit.Accuracy(),
        small_occlusion(levels=(0, 0.5), runs=1),
        ipvit.Shuffle(grids=("1x1", "2x2"), runs=1),
        ipvit.Position(),
        ipvit.Corruptions(corruptions=("brightness",), severities=(1,)),
    ]
    run = run_of(tmp_path, experiments, n=12)
    assert not run.faults
    for name in ("accuracy", "occlusion", "shuffle", "position", "corruptions"):
        table = run.tables[name]
        for measure in ("ece", "nll", "brier", "overconfidence"):
            assert table[measure].null_count() == 0, (name, measure)


def test_terminal_page_and_paper_show_what_they_showed(tmp_path):
    run = run_of(tmp_path)
    analysis, table = run.analyses["occlusion"], run.tables["occlusion"]
    heads, _ = for_people(table, analysis.columns)
    assert not any(CALIBRATION[name].head(name) in heads for name in CALIBRATION)
    shown = terminal_tables({"occlusion": table}, "Occlusion", analysis.columns)
    assert not any("ECE" in str(column.header) for one in shown for column in one.columns)
    page = run.report().read_text("utf-8")
    assert '<th class="number">ECE</th>' in page.partition("All columns of table")[2]
    assert {"ece", "ece_low", CALIBRATION_NOTE} <= set(json.loads((tmp_path / "tables/occlusion.json").read_text())[0])
    assert "brier" in pl.read_csv(io.StringIO((tmp_path / "tables/occlusion.csv").read_text())).columns


def test_old_run_folder_gives_what_its_records_hold_and_says_what_they_do_not():
    run = ipvit.Run(OLD)
    for row in run.tables["occlusion"].iter_rows(named=True):
        assert row["ece"] is not None and row["overconfidence"] is not None and row["nll"] is not None
        assert row["brier"] is None
        assert "brier not recorded" in row[CALIBRATION_NOTE]


def test_resumed_old_folder_has_no_brier_score_of_a_part_of_its_images(tmp_path):
    run_of(tmp_path, limit=10)
    as_earlier(tmp_path)
    whole = run_of(tmp_path)
    assert whole.manifest.measured_in_this_call == 20 * 7
    clean = whole.tables["occlusion"].row(0, named=True)
    assert clean["n_images"] == 30
    assert clean["brier"] is None
    assert "brier not recorded for 10 of 30 answers" in clean[CALIBRATION_NOTE]
    fresh = run_of(tmp_path / "fresh")
    for name in ("ece", "nll", "overconfidence", "auroc", "top1"):
        assert clean[name] == pytest.approx(fresh.tables["occlusion"][name][0], abs=1e-6)


def test_likelihood_of_a_probability_of_nothing_is_not_made_up(tmp_path):
    run_of(tmp_path)
    as_earlier(tmp_path)
    for path in (tmp_path / "records").glob("*/*/*.parquet"):
        frame = pl.read_parquet(path)
        path.unlink()
        none = pl.when(pl.col("image") == "photo 3").then(pl.lit(0.0, pl.Float32)).otherwise("label_probability")
        Store(tmp_path).write(frame.with_columns(none.alias("label_probability")))
    clean = ipvit.Run(tmp_path).tables["occlusion"].row(0, named=True)
    assert clean["nll"] is None
    assert "nll not recorded for 1 of 30 answers" in clean[CALIBRATION_NOTE]


def test_masks_that_all_images_share_leave_no_interval(tmp_path):
    run = run_of(tmp_path, small_occlusion(mask_scope="batch", runs=1))
    rows = run.tables["occlusion"].filter(pl.col("information_loss") > 0)
    assert rows["ece_low"].null_count() == rows.height
    assert rows[CALIBRATION_NOTE].str.contains("hang together by their masks").all()
    assert rows["ece"].null_count() == 0
