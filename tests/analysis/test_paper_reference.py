"""The paper's numbers beside ours: as printed, and only for the paper's networks."""

import polars as pl
import pytest

import ipvit
from helpers.small_runs import photos, small_occlusion
from helpers.tiny import tiny_model
from ipvit.analysis.paper_numbers import targets
from ipvit.experiments.registry import paper_numbers
from ipvit.models.zoo.paper import network_of
from ipvit.report.paper import reference


@pytest.mark.parametrize(
    ("model", "network"),
    [
        ("deit_small_patch16_224", "deit_small"),
        ("deit_small_patch16_224.fb_in1k", "deit_small"),
        ("torchvision:resnet50", "resnet50"),
        ("paper:deit_s_sin", "deit_s_sin"),
        ("DeiT-S", "deit_small"),
        ("resnet50@weights.pth", "resnet50"),
        ("tiny", None),
        ("demo:deit_micro", None),
    ],
)
def test_a_model_is_recognised_as_a_network_of_the_paper(model, network):
    assert network_of(model) == network


def test_the_rows_are_the_printed_numbers():
    rows = reference("occlusion", ["paper:deit_base", "tiny"])
    assert rows is not None and rows["model"].unique().to_list() == ["DeiT-B (paper)"]
    assert rows.filter(mode="random", dropped=0.9)["top1"].to_list() == [37]
    assert reference("position", ["paper:resnet50"])["top1"].to_list() == [5.59, 5.71, 4.86, 5.3]
    drop = reference("feature-drop", ["paper:deit_base", "paper:resnet50"])
    assert drop.filter(model="DeiT-B (paper)", block=0, rate=0.25)["top1"].to_list() == [57.36]
    assert drop.filter(model="ResNet50 (paper)", block=4, rate=0.75)["top1"].to_list() == [73.57]
    assert reference("correlation", ["paper:t2t_vit_24"])["correlation"].to_list() == [0.8, 0.6, 0.31]
    assert reference("occlusion", ["tiny"]) is None and reference("attention", ["paper:deit_base"]) is None


def test_every_network_of_the_targets_is_one_that_can_be_loaded():
    for experiment in ("occlusion", "shuffle", "position", "correlation", "feature-drop"):
        drawn = [n for n in paper_numbers() if n.drawn and n.cells[0].experiment == experiment]
        named = {number.drawn.get("model", number.title) for number in drawn}
        assert named and all(network_of(name) for name in named)
    assert all("src" in entry for key, entry in targets().items() if key != "_meta")


def test_a_report_shows_the_papers_curve_for_the_papers_networks_only(tmp_path):
    models = [tiny_model(0, name="DeiT-S"), tiny_model(1, name="mine")]
    run = ipvit.run(small_occlusion(), models=models, data=photos(), out=tmp_path, workers=0, progress=False)
    assert run.tables["occlusion-paper"]["model"].unique().to_list() == ["DeiT-S (paper)"]
    assert "DeiT-S (paper)" not in run.tables["occlusion"]["model"]
    chart = run.figures["occlusion-random"].to_json()
    assert "DeiT-S (paper)" in chart and "mine (paper)" not in chart
    assert set(run.figures) == {"occlusion-random"}, "modes that were not measured are not drawn"
    assert isinstance(run.tables["occlusion-paper"], pl.DataFrame) and run.report().exists()
