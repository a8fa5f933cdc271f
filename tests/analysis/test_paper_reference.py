"""The paper's numbers beside ours: as printed, and only for the paper's networks."""

import dataclasses

import pytest

import ipvit
from helpers.comparison import printed
from helpers.small_runs import photos, small_occlusion
from helpers.tiny import tiny_model
from ipvit.analysis.paper_numbers import targets
from ipvit.experiments.registry import paper_numbers
from ipvit.models.zoo.paper import NETWORKS, loaded_network


@pytest.mark.parametrize(
    ("name", "network"),
    [
        ("deit_small_patch16_224", "deit_small"),
        ("deit_small_patch16_224.fb_in1k", "deit_small"),
        ("hf-hub:timm/deit_small_patch16_224.fb_in1k", "deit_small"),
        ("deit_small_patch16_224.another_tag", None),
        ("torchvision:resnet50?weights=IMAGENET1K_V1", "resnet50"),
        ("torchvision:resnet50", None),
        ("torchvision:resnet50@weights.pth", "resnet50"),
        ("torchvision:alexnet", "torchvision:alexnet"),
        ("paper:deit_s_sin", "deit_s_sin"),
        ("paper:deit_small@weights.pth", "deit_small"),
        ("paper:deit_small?img_size=512", "deit_small"),
        ("paper:deit_small?depth=3", None),
        ("paper:deit_small@probe:head.safetensors", None),
        ("DeiT-S", None),
        ("resnet50@weights.pth", None),
        ("tiny", None),
        ("demo:deit_micro", None),
        ("net.py:deit_small", None),
    ],
)
def test_a_name_that_is_loaded_is_recognised_as_a_network_of_the_paper_and_a_label_is_not(name, network):
    assert loaded_network(name)[0] == network


def test_the_rows_are_the_printed_numbers():
    rows = printed("occlusion", "deit_base")
    assert rows["model"].unique().to_list() == ["DeiT-B (paper)"]
    assert rows.filter(mode="random", dropped=0.9)["top1"].to_list() == [37]
    assert printed("position", "resnet50")["top1"].to_list() == [5.59, 5.71, 4.86, 5.3]
    drop = printed("feature-drop", "deit_base", "resnet50")
    assert drop.filter(model="DeiT-B (paper)", block=0, rate=0.25)["top1"].to_list() == [57.36]
    assert drop.filter(model="ResNet50 (paper)", block=4, rate=0.75)["top1"].to_list() == [73.57]
    assert printed("correlation", "t2t_vit_24")["correlation"].to_list() == [0.8, 0.6, 0.31]


def test_every_network_of_the_targets_is_one_that_can_be_loaded():
    for experiment in ("occlusion", "shuffle", "position", "correlation", "feature-drop"):
        drawn = [n for n in paper_numbers() if n.drawn and n.cells[0].experiment == experiment]
        assert drawn and all(number.network in NETWORKS for number in drawn)
    assert all("src" in entry for key, entry in targets().items() if key != "_meta")


def test_a_report_shows_the_papers_curve_for_the_papers_networks_in_its_protocol_only(tmp_path):
    network, mine = tiny_model(0, name="ours"), tiny_model(1, name="DeiT-S")
    network.origin = ("paper:deit_small", True)
    images, grid = photos(), "14x14"
    network.preprocessing = mine.preprocessing = dataclasses.replace(
        network.preprocessing, view=dataclasses.replace(network.preprocessing.view, size=(224, 224))
    )
    images.ids = [f"n01440764/ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, len(images) + 1)]

    def shown(name, **changes) -> tuple[set[str], str]:
        experiment = small_occlusion(grid=grid, levels=(0, 0.5), runs=1, **changes)
        run = ipvit.run(experiment, models=[network, mine], data=images, out=tmp_path / name, workers=0, progress=False)
        rows = run.tables.get("occlusion-paper")
        chart = next(figure.to_json() for key, figure in run.figures.items() if key.startswith("occlusion-"))
        return set() if rows is None else set(rows["model"]), chart

    models, chart = shown("papers")
    assert models == {"DeiT-S (paper)"} and "DeiT-S (paper)" in chart and "ours (paper)" not in chart
    assert shown("fill", fill="mean")[0] == set() == shown("offset", offset=(8, 8))[0]
    network.origin = ("demo:deit_micro", True)
    assert shown("label")[0] == set(), "a label makes no network"
    network.origin = ("paper:deit_small", True)
    images.ids = [f"photo {number}" for number in range(len(images))]
    assert shown("photos")[0] == set(), "other images"
