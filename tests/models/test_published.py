"""Tables of published results: timm's accuracies and RobustBench's on ImageNet-C, as they were published."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.published_results import beside
from ipvit.metrics import mce
from ipvit.metrics.mce import ALEXNET_ERROR, mean_error
from ipvit.models.names import ModelName
from ipvit.models.published import IMAGENET, published, tables
from ipvit.models.published.tables import robustbench_corruptions, timm_results
from ipvit.perturb.corruptions import CORRUPTIONS, SEVERITIES


@pytest.mark.parametrize(
    ("name", "size", "top1", "top5"),
    [
        ("deit_small_patch16_224", None, 79.856, 95.056),
        ("deit_small_patch16_224.fb_in1k", 224, 79.856, 95.056),
        ("timm:resnet50.tv_in1k", None, 76.156, 92.866),
        ("hf-hub:timm/vit_base_patch16_224.orig_in21k_ft_in1k", None, 81.782, 96.122),
        ("resnet50.a1_in1k", 224, 80.382, 94.598),
        ("resnet50.a1_in1k", 288, 81.240, 95.112),
        ("resnet50.a1_in1k?img_size=288", None, 81.240, 95.112),
        ("eva02_large_patch14_448.mim_m38m_ft_in22k_in1k", 448, 90.056, 99.054),
    ],
)
def test_timms_results_are_known_by_name_and_size(name, size, top1, top5):
    found = published(name, size)
    assert (found.top1, found.top5) == (top1, top5)
    assert (found.data, found.images) == (IMAGENET, 50_000) and "timm's results" in found.source


def test_another_size_is_another_accuracy():
    assert published("resnet50.a1_in1k", 320) is None
    assert [result.img_size for result in timm_results(ModelName.parse("resnet50.a1_in1k"))] == [224, 288]


def test_the_table_of_timm_is_small_and_read_without_torch_or_timm():
    assert Path(tables._TIMM).stat().st_size < 100_000
    check = (
        "import sys\n"
        "for name in ('torch', 'torchvision', 'timm'): sys.modules[name] = None\n"
        "from ipvit.models.published import published\n"
        "assert published('resnet50.tv_in1k').top1 == 76.156\n"
    )
    subprocess.run([sys.executable, "-c", check], check=True)


def test_names_without_a_tag_mean_what_timm_loads_and_how_it_feeds_it():
    import timm
    from timm.models import get_pretrained_cfg

    stated = (
        tables.gzip.decompress(Path(tables._TIMM).read_bytes()).decode().split("default: 1 where timm ")[1].split()[0]
    )
    if timm.__version__ != stated:
        pytest.skip(f"the table says what timm {stated} loads, this is {timm.__version__}")
    for name, results in tables._timm().items():
        config = get_pretrained_cfg(name)
        assert f"{config.architecture}.{config.tag}" == results[0].network
        loaded = (config.input_size[-1], round(config.crop_pct, 3), config.interpolation)
        assert loaded == (results[0].img_size, results[0].crop_pct, results[0].interpolation), name


def test_the_table_of_timm_is_the_published_one(real):
    with beside(real, "timm/results-imagenet.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 1556
    for row in rows:
        found = published(row["model"], int(row["img_size"]))
        assert (found.top1, found.top5) == (float(row["top1"]), float(row["top5"]))


# --- RobustBench ----------------------------------------------------------------------------------------------------

PUBLISHED_MCE = {"Standard_R50": 76.38, "Geirhos2018_SIN": 76.67, "Tian2022Deeper_DeiT-S": 47.61}
PUBLISHED_MEAN = {"AlexNet": 21.12, "Standard_R50": 39.48, "Hendrycks2020Many": 52.9, "Tian2022Deeper_DeiT-B": 67.55}


def test_all_accuracies_are_there_in_the_order_of_the_corruptions():
    found = robustbench_corruptions()
    assert len(found) == 12
    for entry in found.values():
        assert tuple(entry.accuracies) == CORRUPTIONS and 0.5 < entry.clean < 0.9
        assert all(tuple(by_severity) == SEVERITIES for by_severity in entry.accuracies.values())
    assert found["AlexNet"].accuracies["shot_noise"][1] == 0.2944


@pytest.mark.parametrize("network", PUBLISHED_MCE)
def test_the_published_accuracies_give_the_published_mce(network):
    """RobustBench divides by AlexNet's errors on its own 5,000 photos."""
    found = robustbench_corruptions()
    assert round(mce(found[network].errors, found["AlexNet"].errors), 2) == PUBLISHED_MCE[network]


@pytest.mark.parametrize("network", PUBLISHED_MEAN)
def test_the_published_accuracies_give_the_published_mean_accuracy(network):
    assert round(100 - mean_error(robustbench_corruptions()[network].errors), 2) == PUBLISHED_MEAN[network]


def test_dividing_by_the_errors_on_all_photos_changes_little():
    found = robustbench_corruptions()
    for entry in found.values():
        assert mce(entry.errors, ALEXNET_ERROR) == pytest.approx(mce(entry.errors, found["AlexNet"].errors), abs=0.04)


def test_the_table_of_robustbench_is_the_published_one(real):
    with beside(real, "robustbench/imagenet-corruptions-unaggregated.csv").open(newline="") as file:
        names, severities, *rows = csv.reader(file)
    for network, *values in rows:
        accuracies = robustbench_corruptions()[network].accuracies
        for name, severity, value in zip(names[1:], severities[1:], values, strict=True):
            assert accuracies[name][int(severity)] == float(value)
