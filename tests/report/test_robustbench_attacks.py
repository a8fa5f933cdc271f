"""Accuracies under AutoAttack beside RobustBench's: the same protocol is compared, all else refused."""

import polars as pl
import pytest

import ipvit
from helpers.comparison import manifest
from ipvit.core.manifest import Manifest
from ipvit.data.published.subsets import robustbench_numbers
from ipvit.experiments.registry import further_tables
from ipvit.report.published_comparison import PublishedComparison, compare_published

PHOTOS = [f"n01440764/ILSVRC2012_val_{number:08d}.JPEG" for number in sorted(robustbench_numbers())]


def loaded(name: str, **preprocessing) -> Manifest:
    about = manifest("net", sources=("file",), data="imagenet/val, subset robustbench")
    (model,) = about.models
    used = model.preprocessing.model_copy(update={"size": (224, 224), "crop_pct": 0.875} | preprocessing)
    data = about.data.model_copy(update={"published": "imagenet", "published_images": 50_000})
    model = model.model_copy(update={"loaded_as": name, "preprocessing": used})
    return about.model_copy(update={"models": (model,), "data": data, "subjects": {}})


def tables(robust: float, *, attack: str = "autoattack", epsilon: float = 4.0, clean: float = 64.02, **more) -> dict:
    rows = [
        {"model": "net", "attack": "clean", "epsilon": 0.0, "n_images": 5000, "top1": clean},
        {"model": "net", "attack": attack, "epsilon": epsilon, "n_images": 5000, "top1": robust, **more},
    ]
    rows = [row | {"top1_low": row["top1"] - 1.3, "top1_high": row["top1"] + 1.3} for row in rows]
    return {"attack": {"attack": pl.DataFrame(rows)}}


def beside(found: dict, about: Manifest, images=PHOTOS) -> PublishedComparison:
    (table,) = further_tables("robustbench")
    return compare_published(table, found, about, lambda *_: images)


def test_the_published_network_on_the_published_images_is_judged_without_sampling():
    """RobustBench prints 64.02 and 34.96 for Salman2020Do_R50."""
    found = beside(tables(34.5), loaded("resnet50@weights/Salman2020Do_R50.pt"))
    assert found.table["published"].to_list() == [64.02, 34.96] and not found.refused
    assert found.table["verdict"].to_list() == ["within", "within"]
    assert set(found.table["published_uncertainty"]) == {0.0}
    outside = beside(tables(38.0), loaded("resnet50@weights/Salman2020Do_R50.pt"))
    assert outside.table["verdict"].to_list() == ["within", "outside"]


def test_other_images_are_shown_with_what_they_may_change():
    found = beside(tables(34.5), loaded("resnet50@Salman2020Do_R50.pt"), images=PHOTOS[:-1])
    assert all(1 < value < 2 for value in found.table["published_uncertainty"])


@pytest.mark.parametrize(
    ("found", "about", "why"),
    [
        (tables(34, attack="pgd"), loaded("resnet50@Salman2020Do_R50.pt"), "the attacks were pgd, RobustBench's is"),
        (tables(34, attack="ensemble"), loaded("resnet50@Salman2020Do_R50.pt"), "the attacks were ensemble"),
        (tables(34, epsilon=8.0), loaded("resnet50@Salman2020Do_R50.pt"), "at 8/255, RobustBench's at 4/255"),
        (tables(34, norm="l2"), loaded("resnet50@Salman2020Do_R50.pt"), "limited in l2, RobustBench's in linf"),
        (tables(34), loaded("resnet50@Salman2020Do_R50.pt", crop_pct=0.95), "resizes pictures to 256 and crops 224"),
        (tables(34), loaded("resnet50@mine.pt"), "none of RobustBench's networks in linf"),
        (tables(34), loaded("resnet50.a1_in1k"), "none of RobustBench's networks in linf"),
        ({}, loaded("resnet50@Salman2020Do_R50.pt"), "no attacks were measured"),
    ],
)
def test_another_protocol_is_refused_with_the_reason(found, about, why):
    compared = beside(found, about)
    assert compared.table.is_empty() and why in compared.refused[0]


def test_standard_training_has_no_accuracy_left():
    found = beside(tables(0.0, clean=76.5), loaded("torchvision:resnet50?weights=IMAGENET1K_V1"))
    assert found.table["published"].to_list() == [76.52, 0.0] and set(found.table["verdict"]) == {"within"}
    assert ipvit.experiments.registry.published_table("robustbench").data == "imagenet-c"
