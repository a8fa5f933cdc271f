"""What the probe says of its own fits: whether they ended, and whether the choice was wide enough."""

import polars as pl
import pytest

import ipvit
from helpers.analysis import tables_of
from helpers.comparison import printed
from helpers.plain_loops import coloured, heads_in, probed
from helpers.tiny import write_images
from ipvit.api import bind_context
from ipvit.core.preprocessing import View
from ipvit.engine.study import make_study
from ipvit.experiments.probe import fit as probe_fit
from ipvit.experiments.probe.fit import FitPlan
from ipvit.experiments.probe.measurement import ProbeMeasurement
from ipvit.features.linear_heads import HeadRecipe
from ipvit.models.io.probe_head import read_probe


def plan(settings, recipe=None) -> FitPlan:
    view = View((32, 32), 1.0)
    return FitPlan("lbfgs", settings, recipe, True, 0.2, True, None, view, True, "fp32", "a", "", "ours")


def test_the_ends_of_a_grid_are_its_edges_but_for_zero_and_for_grids_of_two():
    penalties = plan(((0.1,), (1.0,), (10.0,)))
    assert [penalties.at_edge(n) for n in range(3)] == [{"penalty": "lowest"}, {}, {"penalty": "highest"}]
    assert plan(((0.1,), (1.0,))).at_edge(0) == {}, "two values have no middle"
    steps = plan(tuple((rate, decay) for rate in (0.1, 1.0) for decay in (0.0, 0.1, 0.2)), HeadRecipe())
    assert [steps.at_edge(n) for n in range(3)] == [{}, {}, {"weight_decay": "highest"}]


def test_a_choice_at_the_edge_is_in_the_table_and_in_the_summary(tmp_path):
    penalties = (1e-3, 1e-2, 1e-1)
    hard = coloured(60, shuffled=True)  # only the strongest penalty does no harm
    run = probed(
        tmp_path, train=hard, val=coloured(40, 3, shuffled=True), penalties=penalties, last=(), heads=("lbfgs",)
    )
    heads = run.tables["probe-heads"]
    for row in heads.to_dicts():
        edge = {"penalty 0.001": "penalty lowest", "penalty 0.1": "penalty highest"}.get(row["chosen"], "")
        assert row["at_edge"] == edge
    edges = heads.filter(pl.col("at_edge") != "").height
    said = " ".join(run.summary_of("probe"))
    assert edges and f"{edges} of the 6 heads what was chosen lies at the edge" in said


def test_heads_that_make_no_mistake_need_no_wider_choice(tmp_path):
    run = probed(tmp_path, last=(), heads=("lbfgs",))
    assert (run.tables["probe-heads"]["validation"] == 100).all()
    assert "edge" not in " ".join(run.summary_of("probe"))


def test_a_fit_that_has_not_converged_is_said(tmp_path, monkeypatch):
    whole = probed(tmp_path / "whole", last=(), tokens=("class",), heads=("lbfgs",))
    heads = whole.tables["probe-heads"]
    assert heads["converged"].all() and (heads["gradient"] <= 1e-5).all() and (heads["steps"] > 3).all()
    assert "converged" not in " ".join(whole.summary_of("probe"))

    real = probe_fit.fit_logistic
    monkeypatch.setattr(probe_fit, "fit_logistic", lambda *args, **more: real(*args, **(more | {"most_steps": 2})))
    short = probed(tmp_path / "short", last=(), tokens=("class",), heads=("lbfgs",))
    assert short.tables["probe-heads"]["steps"].to_list() == [2, 2, 2]
    assert "vit: the fit of 3 of the 3 heads has not converged" in " ".join(short.summary_of("probe"))


def test_heads_by_steps_have_no_gradient_to_show(tmp_path):
    run = probed(tmp_path, heads=("sgd",), epochs=2, batch=16, last=(), tokens=("class",))
    heads = run.tables["probe-heads"]
    assert heads["gradient"].null_count() == heads.height and set(heads["steps"]) == {6}


def test_records_of_an_earlier_version_without_these_columns_are_still_shown(tmp_path):
    records = probed(tmp_path, last=(), tokens=("class",)).records("probe")
    old = records.drop("at_edge", "steps", "gradient", "converged")
    tables = tables_of(ipvit.Probe(), old)
    assert "steps" not in tables["probe-heads"].columns and ipvit.Probe().analysis().summary(tables)


@pytest.mark.parametrize("decoder", ["fast", "pil"])
def test_training_images_are_opened_as_the_study_opens_its_own(tmp_path, decoder):
    for number, name in enumerate(("train", "val", "test")):
        write_images(tmp_path / name, per_class=3 + number, size=(32, 32))
    study = make_study(
        {
            "models": ["demo:deit_micro"],
            "data": {"name": str(tmp_path / "test"), "decoder": decoder},
            "experiments": {"probe": {"train": str(tmp_path / "train"), "val": str(tmp_path / "val")}},
        }
    )
    (selected,) = study.make_experiments()
    bound = selected.experiment.bind([], coloured(), bind_context(study.data))
    assert isinstance(bound, ProbeMeasurement)
    assert bound.train.decoder == decoder and bound.val.decoder == decoder  # pyright: ignore


def test_class_names_and_root_of_the_study_reach_the_training_data(monkeypatch):
    asked = []
    monkeypatch.setattr("ipvit.api.load_dataset", lambda name, **more: asked.append((name, more)))
    options = {"root": "/data", "classes": "names.txt"}
    for root in (None, "/other"):
        study = make_study(
            {
                "models": ["demo:deit_micro"],
                "data": {"name": "torch/cifar10", **options},
                "experiments": {"probe": {"train": "torch/cifar10", "train_root": root}},
            }
        )
        study.make_experiments()[0].experiment.bind([], coloured(), bind_context(study.data))
    more = {"decoder": "fast", "split": "train", "classes": "names.txt"}
    assert asked == [("torch/cifar10", more | {"root": "/data"}), ("torch/cifar10", more | {"root": "/other"})]


def test_a_number_that_the_paper_prints_and_draws_is_one_bar():
    paper = printed("probe", "deit_small")
    same = paper.filter(pl.col("data") == "CUB", pl.col("blocks") == "11", pl.col("tokens") == "class")
    assert same.height == 2 and same.filter(pl.col("source") == "P")["top1"].to_list() == [68.16]
    row = {"model": "deit_small", "head": "adamw", "tokens": "class", "blocks": "11", "n_images": 9, "top1": 70.0}
    ours = pl.DataFrame([row | {"top1_low": 60.0, "top1_high": 80.0}])
    analysis = ipvit.Probe(train="cub:birds/train").analysis()
    chart = analysis.figures({"probe": ours, "probe-paper": paper})["probe-together"]
    (drawn,) = chart.to_dict()["datasets"].values()
    bars = [(row["series"], row["blocks read"]) for row in drawn]
    assert len(bars) == len(set(bars)) == 1 + 6
    assert sorted(row["top1"] for row in drawn if row["blocks read"] == "last block") == [68.16, 70.0, 70.66]


def test_the_head_in_the_file_is_the_one_that_the_remarks_are_about(tmp_path):
    run = probed(tmp_path, last=(), tokens=("class",), heads=("lbfgs",))
    for row in run.tables["probe-heads"].to_dicts():
        fit = read_probe(tmp_path / row["file"]).fit
        assert (fit["steps"], fit["converged"]) == (row["steps"], row["converged"])
        assert fit["gradient"] == pytest.approx(row["gradient"], rel=1e-5)
    assert heads_in(tmp_path).keys() == {"0-class-lbfgs", "1-class-lbfgs", "2-class-lbfgs"}
