"""Several run folders seen together: tables below each other, and figures over the data sets."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import ipvit
from helpers.comparison import printed
from helpers.plain_loops import coloured
from helpers.plain_loops import quiet_vit as vit
from ipvit.cli import main


def named(data: Any, name: str) -> Any:
    data.name = name
    return data


def measured(out: Path, test, model=None, limit: int | None = None) -> ipvit.Run:
    train: Any = coloured()
    experiment = ipvit.Probe(train=train, heads=("lbfgs",), last=("2",), penalties=(0.1,))
    return ipvit.run(experiment, models=model or vit(), data=test, out=out, workers=0, progress=False, limit=limit)


@pytest.fixture
def two_sets(tmp_path) -> Path:
    measured(tmp_path / "a", named(coloured(12, 1), "cub:birds/test"))
    measured(tmp_path / "b", named(coloured(16, 2), "photos"))
    return tmp_path


def bars(chart) -> pl.DataFrame:
    (data,) = chart.to_dict()["datasets"].values()
    return pl.DataFrame(data, infer_schema_length=None)


def test_the_tables_of_two_data_sets_stand_below_each_other(two_sets):
    runs = ipvit.RunCollection(two_sets)
    table = runs.tables["probe"]
    assert table.columns[0] == "data_set" and set(table["data_set"]) == {"CUB", "photos"}
    for folder, name in (("a", "CUB"), ("b", "photos")):
        alone = ipvit.Run(two_sets / folder).tables["probe"]
        assert table.filter(data_set=name).drop("data_set").equals(alone)
    assert runs.manifest.images_used == 28 and runs.manifest.data.name == "CUB, photos"


def test_every_bar_is_a_head_on_the_last_blocks_of_a_data_set(two_sets):
    runs = ipvit.RunCollection(two_sets)
    drawn = bars(runs.figures["probe-transfer"])
    assert set(drawn["series"]) == {f"vit, {s}{b}" for s in ("", "class+patch, ") for b in ("last block", "last 2")}
    assert drawn.height == 2 * 4 and drawn.select("series", "data_set").n_unique() == 8
    wanted = runs.tables["probe"].filter(data_set="CUB", tokens="class", blocks="1-2")["top1"].item()
    assert drawn.filter(data_set="CUB", series="vit, last 2")["top1"].item() == wanted


def test_the_report_command_takes_a_folder_of_run_folders(two_sets, capsys):
    assert main(["report", str(two_sets)]) == 0
    printed = capsys.readouterr().out
    assert "CUB: vit: of single blocks" in printed and "photos: vit: of single blocks" in printed
    page = (two_sets / "report.html").read_text("utf-8")
    assert "Linear heads on the tokens of the last blocks" in page and "CUB, photos" in page
    assert (two_sets / "figures" / "probe-transfer.svg").exists()
    rows = json.loads((two_sets / "tables" / "probe.json").read_text())
    assert {row["data_set"] for row in rows} == {"CUB", "photos"}
    assert main(["report", str(two_sets), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tables"]["probe"] == rows


def test_two_models_that_were_measured_on_one_set_in_two_runs_share_its_group(tmp_path):
    data = coloured(12, 1)
    other = vit(seed=1)
    other.name = "other"
    measured(tmp_path / "a", data)
    measured(tmp_path / "b", data, model=other)
    table = ipvit.RunCollection(tmp_path).tables["probe"]
    assert set(table["data_set"]) == {"coloured 1"} and set(table["model"]) == {"vit", "other"}


def test_one_model_that_was_measured_twice_on_data_of_one_name_is_told_apart_by_the_folder(tmp_path):
    measured(tmp_path / "a", coloured(12, 1))
    measured(tmp_path / "b", coloured(12, 1), limit=8)
    table = ipvit.RunCollection(tmp_path).tables["probe"]
    assert set(table["data_set"]) == {"coloured 1 (a)", "coloured 1 (b)"}
    assert table.filter(data_set="coloured 1 (b)")["n_images"].unique().to_list() == [8]


def test_a_single_run_is_shown_as_before_and_no_run_is_an_error(two_sets, capsys):
    assert main(["report", str(two_sets / "a"), "--json"]) == 0
    assert "data_set" not in json.loads(capsys.readouterr().out)["tables"]["probe"][0]
    (two_sets / "empty").mkdir()
    assert main(["report", str(two_sets / "empty")]) == 2
    assert "is not a run folder" in capsys.readouterr().err


def test_table_5_of_the_paper_stands_beside_its_network_on_its_data():
    rows = [
        {
            "data_set": name,
            "model": "deit_small",
            "head": "adamw",
            "tokens": tokens,
            "blocks": blocks,
            "n_images": 9,
            "top1": 50.0,
            "top1_low": 40.0,
            "top1_high": 60.0,
        }
        for name in ("CUB", "iNat")
        for tokens in ("class", "class+last_patch")
        for blocks in ("11", "8-11", "0-11")
    ]
    paper = printed("probe", "deit_small")
    tables = {"probe": pl.DataFrame(rows), "probe-paper": paper}
    drawn = bars(ipvit.Probe().analysis().figures_across(tables)["probe-transfer"])
    beside = pl.col("series").str.starts_with("DeiT-S (paper), ")
    theirs = drawn.filter(beside).with_columns(pl.col("series").str.strip_prefix("DeiT-S (paper), "))
    assert drawn.height == 12 + 12 and theirs.select("series", "data_set").n_unique() == 12
    cub = dict(theirs.filter(data_set="CUB").select("series", "top1").iter_rows())
    assert cub["last block"] == 68.16 and cub["class+last_patch, all"] == 73.16
    assert set(theirs["data_set"]) == {"CUB", "iNat"}, "Flowers was not measured"


def test_few_shot_bars_stand_over_their_sources():
    rows = [
        {
            "data_set": name,
            "model": "deit_small",
            "kind": kind,
            "classifier": "logistic",
            "blocks": blocks,
            "accuracy": 60.0,
            "accuracy_low": 59.0,
            "accuracy_high": 61.0,
            "weight": 1.0,
            "n_episodes": 600,
        }
        for name in ("Omniglot", "Flowers")
        for kind in ("meta-dataset", "5-way-1-shot")
        for blocks in (1, 4)
    ]
    paper = printed("fewshot", "deit_small")
    tables = {"fewshot": pl.DataFrame(rows), "fewshot-paper": paper}
    drawn = bars(ipvit.FewShot().analysis().figures_across(tables)["fewshot-sources"])
    assert set(drawn["panel"]) == {"meta-dataset", "5-way-1-shot"} and drawn.height == 8 + 4
    assert set(drawn["data_set"]) == {"Omniglot", "Flowers"}
    theirs = drawn.filter(pl.col("series").str.contains("(paper)", literal=True))
    assert set(theirs["panel"]) == {"meta-dataset"}


def test_experiments_without_a_figure_over_data_sets_still_have_their_tables(tmp_path):
    for number, name in enumerate(("one", "two")):
        labelled = named(coloured(8, number), name)
        ipvit.run(
            ipvit.Shuffle(grids=("2x2",)),
            models=vit(),
            data=labelled,
            out=tmp_path / "runs" / name,
            workers=0,
            progress=False,
        )
    runs = ipvit.RunCollection(tmp_path / "runs")
    assert set(runs.tables["shuffle"]["data_set"]) == {"one", "two"} and runs.figures == {}
    assert runs.report().exists()
