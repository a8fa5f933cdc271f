"""Our numbers beside published tables: the same network on the same images is compared, all else refused."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

import ipvit
from helpers.command_line import complaint
from helpers.comparison import among_the_datas_classes, manifest
from ipvit.analysis.published_tables import NotComparableError, verdict
from ipvit.cli import main
from ipvit.core.manifest import Manifest
from ipvit.experiments.registry import PUBLISHED_TABLES, published_table
from ipvit.metrics.mce import corruption_error
from ipvit.models.published.tables import robustbench_corruptions, timm_results
from ipvit.report.published_comparison import compare_published, joined, summary

PHOTOS = ["n09468604/ILSVRC2012_val_00015253.JPEG", "n02823750/ILSVRC2012_val_00020685.JPEG"]
FILES = "ImageNet-C files"


def loaded(name: str, source: str = "file", sha256: str | None = None, **changes) -> Manifest:
    """The manifest of a run on ImageNet-C, or other data, of a network that was loaded by a name."""
    published = changes.pop("published", "imagenet-c")
    preprocessing = changes.pop("preprocessing", {"size": (224, 224), "crop_pct": 0.875, "interpolation": "bilinear"})
    about = manifest("net", sources=(source,), data=changes.pop("data", "imagenet-c:C"))
    (model,) = about.models
    used = {
        "loaded_as": name,
        "weights_sha256": sha256,
        "preprocessing": model.preprocessing.model_copy(update=preprocessing),
    }
    data = about.data.model_copy(update={"published": published, "published_images": 50_000})
    return about.model_copy(update={"models": (model.model_copy(update=used),), "data": data, "subjects": {}})


def tables_like(name: str, n_images: int = 50_000, off: float = 0.0, made: str = FILES) -> dict:
    """Tables of a network that errs as RobustBench's does, some points more."""
    published = robustbench_corruptions()[name]
    place = {"model": "net", "made": made, "n_images": n_images}
    cells = [place | {"corruption": "clean", "severity": 0, **around("top1", 100 * published.clean - off)}]
    for corruption, by_severity in published.accuracies.items():
        for severity, accuracy in by_severity.items():
            cell = {"corruption": corruption, "severity": severity, **around("top1", 100 * accuracy - off)}
            cells.append(place | cell)
    errors = corruption_error(published.errors)
    ce = [
        place | {"reference": "AlexNet", "corruption": c, "severities": "1 2 3 4 5", **around("ce", v + off)}
        for c, v in errors.items()
    ]
    mce = [place | {"reference": "AlexNet", **around("mce", sum(errors.values()) / 15 + off)}]
    found = {"corruptions": cells, "corruptions-ce": ce, "corruptions-mce": mce}
    return {"corruptions": {key: pl.DataFrame(rows) for key, rows in found.items()}}


def around(name: str, value: float, half: float = 0.4) -> dict[str, float]:
    return {name: value, f"{name}_low": value - half, f"{name}_high": value + half}


def beside(name: str, tables: dict, about: Manifest, images=lambda *_: PHOTOS):
    return compare_published(published_table(name), tables, about, images)


# --- RobustBench ----------------------------------------------------------------------------------------------------


def test_a_network_that_errs_as_published_is_within_in_all_its_numbers():
    found = beside("robustbench", tables_like("Standard_R50"), loaded("torchvision:resnet50?weights=IMAGENET1K_V1"))
    assert found.table.height == 1 + 1 + 15 + 75 and set(found.table["verdict"]) == {"within"}
    row = found.table.row(0, named=True)
    assert (row["what"], row["published"], row["weights"]) == ("mCE (%)", 76.38, "published")
    assert row["ours"] == pytest.approx(76.37, abs=0.005) and 1 < row["published_uncertainty"] < 2
    assert (
        summary(found.table) == "92 of the 92 numbers that can tell are within, 0 outside; 0 are too uncertain to tell."
    )
    fog = found.table.filter(pl.col("corruption") == "fog", pl.col("severity") == 3).row(0, named=True)
    assert (
        fog["ours"] == pytest.approx(100 - 46.74) and fog["published"] == 53.26 and fog["ours_low"] < fog["ours_high"]
    )


def test_one_that_errs_more_is_outside():
    found = beside("robustbench", tables_like("Standard_R50", off=6), loaded("paper:ResNet50"))
    assert set(found.table["verdict"]) == {"outside"} and found.table["difference"].min() > 5.9


def test_a_part_of_the_photos_is_shown_and_not_judged():
    found = beside("robustbench", tables_like("Standard_R50", n_images=700), loaded("paper:resnet50"))
    assert set(found.table["verdict"]) == {"too uncertain"}
    assert found.notes[0].startswith("This run used 700 of 50,000 images.")
    assert summary(found.table) == "All 92 differences are too uncertain to tell."


def test_on_the_very_photos_there_is_no_sampling(real):
    from helpers.published_results import beside as published_file

    photos = published_file(real, "robustbench/imagenet_test_image_ids.txt").read_text().split()
    images = [f"fog/{severity}/{photo}" for severity in (1, 2) for photo in photos]
    tables, about = tables_like("Standard_R50", n_images=5_000, off=0.8), loaded("paper:resnet50")
    found = beside("robustbench", tables, about, lambda *_: images)
    assert set(found.table["verdict"]) == {"within"} and set(found.table["published_uncertainty"]) == {0.0}
    others = beside(
        "robustbench", tables, about, lambda *_: [*images[1:], "fog/1/n01440764/ILSVRC2012_val_00000293.JPEG"]
    )
    assert set(others.table["verdict"]) == {"too uncertain"}


@pytest.mark.parametrize(
    ("name", "sha256", "network", "weights"),
    [
        ("torchvision:alexnet", None, "AlexNet", "published"),
        ("paper:ResNet50-SIN", None, "Geirhos2018_SIN", "published"),
        ("resnet50.tv_in1k", None, "Standard_R50", "published"),
        ("hf-hub:timm/resnet50.tv_in1k", None, "Standard_R50", "published"),
        ("torchvision:resnet50@mine.pth", "ff" * 32, "Standard_R50", "weights from mine.pth"),
        ("torchvision:resnet50@w/any.pth", "0676ba61" + "0" * 56, "Standard_R50", "published"),
        ("torchvision:resnet50@w/any.pth", "2a0d100e" + "0" * 56, "Geirhos2018_SIN_IN", "published"),
        ("torchvision:resnet50@w/Hendrycks2020Many.pt", None, "Hendrycks2020Many", "weights from Hendrycks2020Many.pt"),
        ("paper:AugMix@augmix.pth", None, "Hendrycks2020AugMix", "weights from augmix.pth"),
        ("deit_small_patch16_224@x.pth", None, "Tian2022Deeper_DeiT-S", "weights from x.pth"),
    ],
)
def test_a_network_is_known_by_what_it_was_loaded_as_and_by_the_digest_of_its_file(name, sha256, network, weights):
    found = beside("robustbench", tables_like(network), loaded(name, sha256=sha256))
    assert set(found.table["network"]) == {network} and set(found.table["weights"]) == {weights}


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("torchvision:resnet50", "give torchvision:resnet50?weights=IMAGENET1K_V1 or paper:resnet50"),
        ("torchvision:resnet50?weights=IMAGENET1K_V2", "these are other weights than those that RobustBench measured"),
        ("resnet50.a1_in1k", "these are other weights"),
        ("deit_small_patch16_224", "give deit_small_patch16_224@FILE with those of Tian2022Deeper_DeiT-S"),
        ("paper:deit_small", "these are other weights"),
        ("resnet50.tv_in1k?num_classes=10", "with num_classes it is another network"),
        ("torchvision:resnet18", "RobustBench has no resnet18 on ImageNet-C; it has AlexNet, Standard_R50"),
        ("", "made in Python"),
    ],
)
def test_other_networks_are_refused_with_the_reason(name, why):
    found = beside("robustbench", tables_like("Standard_R50"), loaded(name))
    assert found.table.is_empty() and len(found.refused) == 1 and why in found.refused[0]


def test_random_weights_other_sizes_and_equal_names_are_refused():
    tables = tables_like("Standard_R50")
    random = loaded("paper:resnet50", source="random initialisation")
    assert beside("robustbench", tables, random).refused == ("net: random weights; the published ones are trained",)
    large = loaded("paper:resnet50", preprocessing={"size": (288, 288)})
    assert "with 224 pixels, here it is 288" in beside("robustbench", tables, large).refused[0]
    about = loaded("paper:resnet50")
    twice = about.model_copy(update={"models": about.models * 2})
    assert beside("robustbench", tables, twice).refused == ("net: two networks of the run are called so",)


@pytest.mark.parametrize(
    ("made", "published", "why"),
    [
        ("on the fly, JPEG 85", "imagenet-c", "the corruptions were made by ipvit ('on the fly, JPEG 85')"),
        ("ipvit corrupt files", "imagenet-c", "the corruptions were made by ipvit ('ipvit corrupt files')"),
        (FILES, "", "they are other data"),
        (FILES, None, "an earlier version wrote this folder"),
    ],
)
def test_other_data_are_refused_with_the_reason(made, published, why):
    found = beside("robustbench", tables_like("Standard_R50", made=made), loaded("paper:resnet50", published=published))
    assert found.table.is_empty() and why in found.refused[0]


def test_answers_among_the_classes_of_the_data_are_other_numbers():
    tables, about = tables_like("Standard_R50"), loaded("paper:resnet50")
    assert beside("robustbench", tables, about).table.height
    found = beside("robustbench", tables, among_the_datas_classes(about, "corruptions"))
    assert found.table.is_empty() and "answers were among the classes of imagenet-c:C" in found.refused[0]


def test_a_corruption_error_over_some_severities_is_another_number():
    tables = tables_like("Standard_R50")
    table = tables["corruptions"]["corruptions-ce"].with_columns(
        severities=pl.when(pl.col("corruption") == "fog").then(pl.lit("1 3")).otherwise("severities")
    )
    tables["corruptions"]["corruptions-ce"] = table
    found = beside("robustbench", tables, loaded("paper:resnet50"))
    assert found.table.height == 91 and "CE (%), fog" not in found.table["what"]


def test_errors_that_are_divided_by_another_networks_are_no_corruption_errors():
    tables = tables_like("Standard_R50")
    for name in ("corruptions-ce", "corruptions-mce"):
        tables["corruptions"][name] = tables["corruptions"][name].with_columns(reference=pl.lit("other"))
    found = beside("robustbench", tables, loaded("paper:resnet50"))
    assert found.table.height == 76 and not found.table["what"].str.contains("CE").any()


# --- timm -----------------------------------------------------------------------------------------------------------

DEIT = {"size": (224, 224), "crop_pct": 0.9, "interpolation": "bicubic"}


def accuracies(top1: float, n_images: int = 50_000, **columns) -> dict:
    row = {"model": "net", "n_images": n_images, **columns, **around("top1", top1), **around("top5", 95.0)}
    return {"accuracy": {"accuracy": pl.DataFrame([row])}}


def of_timm(name: str = "deit_small_patch16_224", **changes) -> Manifest:
    return loaded(name, **{"published": "imagenet", "data": "imagenet/val", "preprocessing": DEIT} | changes)


def test_on_all_validation_images_an_accuracy_must_be_the_published_one():
    found = beside("timm", accuracies(79.7), of_timm())
    assert found.table["network"][0] == "deit_small_patch16_224.fb_in1k at 224 pixels"
    assert found.table["published"].to_list() == [79.856, 95.056] and set(found.table["verdict"]) == {"within"}
    assert beside("timm", accuracies(78.0), of_timm()).table["verdict"].to_list() == ["outside", "within"]
    assert set(beside("timm", accuracies(79.7, 900), of_timm()).table["verdict"]) == {"too uncertain"}


def test_weights_of_a_file_are_marked_and_of_two_heads_their_mean_counts():
    found = beside("timm", accuracies(79.7, token="output"), of_timm("deit_small_patch16_224@w/mine.pth"))
    assert (
        set(found.table["weights"]) == {"weights from mine.pth"}
        and "weights from mine.pth: they need" in found.notes[0]
    )
    heads = pl.concat(
        [accuracies(top1, token=t)["accuracy"]["accuracy"] for t, top1 in (("class", 1.0), ("mean", 81.2))]
    )
    found = beside("timm", {"accuracy": {"accuracy": heads}}, of_timm("deit_small_distilled_patch16_224"))
    assert found.table["ours"][0] == 81.2
    dropped = {"occlusion": {"occlusion": accuracies(79.7, information_loss=0.5)["accuracy"]["accuracy"]}}
    assert "none of its published numbers" in beside("timm", dropped, of_timm()).refused[0]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"name": "torchvision:resnet50"}, "timm's results have no torchvision:resnet50"),
        ({"name": "paper:deit_small"}, "timm's results have no paper:deit_small"),
        ({"preprocessing": DEIT | {"size": (288, 288)}}, "with 224 pixels, crop 0.9, bicubic; here it is 288 pixels"),
        ({"preprocessing": DEIT | {"crop_pct": 0.875}}, "here it is 224 pixels, crop 0.875, bicubic"),
        ({"preprocessing": DEIT | {"interpolation": "bilinear"}}, "here it is 224 pixels, crop 0.9, bilinear"),
        ({"data": "imagenet-c:C"}, "are corrupted"),
        ({"data": "C/fog/3"}, "are corrupted"),
        ({"published": ""}, "they are other data"),
    ],
)
def test_what_timm_did_not_measure_is_refused(changes, why):
    found = beside("timm", accuracies(79.7), of_timm(**changes))
    assert found.table.is_empty() and why in found.refused[0]


def test_every_network_of_timm_is_compared_at_the_size_that_was_measured():
    parsed = ipvit.models.loading.ModelName.parse("resnet50.a1_in1k")
    for result in timm_results(parsed):
        preprocessing = {
            "size": (result.img_size, result.img_size),
            "crop_pct": result.crop_pct,
            "interpolation": result.interpolation,
        }
        found = beside("timm", accuracies(80.0), of_timm("resnet50.a1_in1k", preprocessing=preprocessing))
        assert found.table["published"][0] == result.top1


# --- verdicts, and the command line ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("difference", "half", "uncertainty", "same", "expected"),
    [
        (0.9, 5.0, 0.0, True, "within"),
        (1.1, 5.0, 0.0, True, "outside"),
        (0.5, 0.4, 0.0, False, "within"),
        (0.5, 0.6, 0.0, False, "too uncertain"),
        (2.0, 0.4, 1.5, False, "within"),
        (2.5, 0.4, 1.5, False, "outside"),
        (-2.5, 1.4, 1.5, False, "too uncertain"),
        (0.0, None, 0.0, False, "too uncertain"),
        (0.0, float("nan"), 0.0, False, "too uncertain"),
    ],
)
def test_a_verdict_says_what_the_interval_allows(difference, half, uncertainty, same, expected):
    ends = (None, None) if half is None else (difference - half, difference + half)
    assert verdict(difference, *ends, uncertainty, same=same) == expected


@pytest.mark.parametrize("name", PUBLISHED_TABLES)
def test_a_table_that_is_asked_about_nothing_refuses(name):
    with pytest.raises(NotComparableError, match="measure"):
        published_table(name).check("imagenet/val", {})
    assert published_table(name).name == name


@pytest.fixture
def imagenet_c(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    rng = np.random.default_rng(0)
    for place in ("c/fog/1", "c/contrast/1", "val"):
        for photo in PHOTOS:
            path = tmp_path / place / photo
            path.parent.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
            coarse.resize((224, 224)).save(path)
    return tmp_path


def published_alexnet() -> ipvit.Model:
    """AlexNet's answers are not needed: a small network that says it was loaded with the published weights."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(12, 1000))
    model = ipvit.wrap(
        network, size=224, classes=ipvit.models.label_spaces.imagenet_classes(), name="torchvision:alexnet"
    )
    model.source, model.origin = "torchvision IMAGENET1K_V1", ("torchvision:alexnet", True)
    return model


def test_the_command_line_shows_writes_and_refuses(imagenet_c, capsys):
    options = {"models": published_alexnet(), "workers": 0, "progress": False}
    experiment = ipvit.Corruptions(corruptions=("fog", "contrast"), severities=(1,))
    ipvit.run(experiment, data="imagenet-c:c", out="runs/files", **options)
    ipvit.run(experiment, data="val", out="runs/made", **options)
    assert main(["compare", "runs/files", "--with", "robustbench"]) == 0
    printed = capsys.readouterr().out
    assert "torchvision:alexnet (published) beside AlexNet" in printed and "This run used 2 of 50,000 images" in printed
    tables = printed.partition("All 2 differences")[0]
    assert max(map(len, tables.splitlines())) <= 80
    kinds = {path.suffix for path in Path("runs/files").glob("robustbench-comparison.*")}
    assert kinds == {".csv", ".json", ".md", ".tex"}
    assert main(["compare", "runs", "--with", "robustbench", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["what"] for row in found["quantities"]] == [
        "top-1 error (%), fog, severity 1",
        "top-1 error (%), contrast, severity 1",
    ]
    assert found["quantities"][0]["model"] == "files: torchvision:alexnet" and found["refused"][0].startswith(
        "made: the corr"
    )
    assert main(["compare", "runs/made", "--with", "robustbench"]) == 2
    assert "the corruptions were made by ipvit ('on the fly, JPEG 85')" in complaint(capsys)
    assert main(["compare", "runs/files", "--with", "timm"]) == 2
    assert "are corrupted" in complaint(capsys)
    assert main(["compare", "runs/files", "--with", "robustbnch"]) == 2
    assert "Did you mean 'robustbench'?" in complaint(capsys)
    assert main(["compare", "runs/files", "--with", "timm", "--all"]) == 2
    assert "leave it out with --with" in complaint(capsys)


def test_several_comparisons_are_joined_without_saying_things_twice():
    found = beside("timm", accuracies(79.7), of_timm("deit_small_patch16_224@mine.pth"))
    both = joined([found, dataclasses.replace(found, refused=("why",))])
    assert both.table.height == 4 and both.notes == found.notes and both.refused == ("why",)


# --- natural shifts ---------------------------------------------------------------------------------------------------

LITE0 = {"size": (224, 224), "crop_pct": 0.875, "interpolation": "bicubic"}
PUBLISHED = {
    "imagenet-v2/matched-frequency": (62.650, 10_000, 1000),
    "imagenet-a": (3.053, 7_500, 200),
    "imagenet-r": (36.033, 30_000, 200),
    "imagenet-sketch": (24.392, 50_889, 1000),
    "imagenet-real": (81.957, 46_837, 1000),
}
"""Top-1 of EfficientNet-Lite0 by timm's results, images with a label, and answers to choose from."""


def of_lite0(published: str, n_answers: int = 1000, **changes) -> Manifest:
    about = of_timm("tf_efficientnet_lite0", **{"preprocessing": LITE0, "published": published} | changes)
    (model,) = about.models
    used = about.subject("accuracy").model_copy(
        update={"answers": "all" if n_answers == 1000 else "data", "among": {model.digest: (n_answers, 1000)}}
    )
    return about.model_copy(update={"subjects": {"accuracy": used}})


@pytest.mark.parametrize("name", PUBLISHED)
def test_an_accuracy_on_a_whole_natural_shift_stands_beside_timms(name):
    top1, n_images, n_answers = PUBLISHED[name]
    found = beside("timm", accuracies(top1 + 0.3, n_images), of_lite0(name, n_answers))
    (row,) = found.table.to_dicts()
    assert (row["published"], row["n_images"], row["n_published"]) == (top1, n_images, n_images)
    assert row["verdict"] == "within" and row["published_uncertainty"] == 0 and not found.refused
    assert beside("timm", accuracies(top1 + 1.3, n_images), of_lite0(name, n_answers)).table["verdict"][0] == "outside"


@pytest.mark.parametrize(("letter", "top1"), [("a", 91.100), ("r", 91.360)])
def test_so_does_one_on_the_clean_images_of_its_classes(letter, top1):
    found = beside("timm", accuracies(top1, 10_000), of_lite0(f"imagenet-{letter}-clean", 200))
    assert found.table.height == 1 and found.table["verdict"][0] == "within"


@pytest.mark.parametrize(
    ("name", "n_images", "n_answers", "why"),
    [
        ("imagenet-a", 7_499, 200, "7,499 images were measured, and the published accuracy is that of all 7,500"),
        ("imagenet-a", 7_500, 1000, r"among 1,000, the published ones among 200 (--answers data)"),
        (
            "imagenet-real",
            50_000,
            1000,
            "50,000 images were measured, and the published accuracy is that of all 46,8",
        ),
        ("imagenet-sketch", 50_889, 120, r"among 120, the published ones among 1,000 (--answers all)"),
        ("objectnet", 18_574, 113, "timm publishes nothing on objectnet"),
        ("imagenet-v2/top-images", 10_000, 1000, "timm publishes nothing on imagenet-v2/top-images"),
    ],
)
def test_other_conditions_than_timms_are_refused_with_the_reason(name, n_images, n_answers, why):
    found = beside("timm", accuracies(50.0, n_images), of_lite0(name, n_answers))
    assert found.table.is_empty() and len(found.refused) == 1 and why in found.refused[0]


def shifted(*rows: tuple[str, float, int, int, float, int]) -> dict:
    names = ("set", "top1", "n_shifted", "n_answers", "clean", "n_clean")
    made = [
        {"model": "net"} | dict(zip(names, row, strict=True)) | around("top1", row[1]) | around("clean", row[4])
        for row in rows
    ]
    return {"shift": {"shift": pl.DataFrame(made)}}


def test_every_set_of_a_run_of_shifts_is_compared_by_itself():
    tables = shifted(
        ("imagenet-a", 3.1, 7_500, 200, 91.1, 10_000),
        ("imagenet-r", 36.0, 900, 200, 91.3, 10_000),
        ("imagenet-sketch", 24.4, 50_889, 1000, 74.8, 50_000),
        ("imagenet-v2/matched-frequency", 62.6, 10_000, 1000, 74.8, 50_000),
        ("objectnet", 20.0, 18_574, 113, 70.0, 5_650),
        ("./imagenet-a", 9.0, 7_500, 200, 70.0, 10_000),
    )
    found = beside("timm", tables, of_timm("tf_efficientnet_lite0", preprocessing=LITE0))
    shown = dict(zip(found.table["what"], found.table["published"], strict=True))
    assert shown == {
        "top-1 (%), ImageNet-V2": 62.650,
        "top-1 (%), Sketch": 24.392,
        "top-1 (%), ImageNet-A": 3.053,
        "top-1 (%), clean": 74.846,
        "top-1 (%), ImageNet-A-clean": 91.100,
        "top-1 (%), ImageNet-R-clean": 91.360,
    }
    assert set(found.table["verdict"]) == {"within"} and not found.notes
    assert found.refused == (
        "net: ImageNet-R: 900 images were measured, and the published accuracy is that of all 30,000",
        "objectnet: timm publishes no accuracy on it",
        "./imagenet-a: timm publishes no accuracy on it",
    )


def test_clean_accuracies_on_other_images_are_not_compared():
    tables = shifted(("imagenet-a", 3.1, 7_500, 200, 91.1, 10_000))
    found = beside("timm", tables, of_timm("tf_efficientnet_lite0", preprocessing=LITE0, published=""))
    assert found.table["what"].to_list() == ["top-1 (%), ImageNet-A"]


def test_a_comparison_of_several_sets_fits_the_terminal(capsys, monkeypatch):
    from ipvit.commands.published import _show

    monkeypatch.setenv("COLUMNS", "80")
    rows = [
        (name, top1, n, answers, 91.1, 50_000 if answers == 1000 else 10_000)
        for name, (top1, n, answers) in PUBLISHED.items()
    ]
    found = beside("timm", shifted(*rows), of_timm("tf_efficientnet_lite0", preprocessing=LITE0))
    _show(found, "timm")
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert any("ImageNet-A" in line and "7,500" in line and "3.05" in line and "within" in line for line in lines)


def test_a_run_of_shifts_and_one_of_accuracy_say_what_of_them_is_a_part(tmp_path, monkeypatch, capsys):
    from helpers.shift_trees import write_all

    monkeypatch.chdir(tmp_path)
    write_all(tmp_path)
    torch.manual_seed(0)
    inner = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(12, 1000))
    model = ipvit.wrap(inner, classes=ipvit.models.label_spaces.imagenet_classes(), name="lite0")
    model.source, model.origin = "timm, pretrained", ("tf_efficientnet_lite0", True)
    options = {"models": model, "workers": 0, "progress": False}
    ipvit.run(ipvit.Accuracy(), data="imagenet-a:a", out="runs/a", **options)
    sets = ("imagenet-a:a", "imagenet-v2:v2", "objectnet:objectnet", "imagenet-real:imagenet/val")
    ipvit.run(ipvit.Shift(sets=sets), data="imagenet/val", out="runs/shift", **options)
    assert main(["compare", "runs/a", "--with", "timm"]) == 2
    assert "lite0: ImageNet-A: 3 images were measured, and the published accuracy is" in complaint(capsys)
    assert main(["compare", "runs/shift", "--with", "timm"]) == 2
    printed = capsys.readouterr().err
    for words in ("ImageNet-V2: 8 images", "ImageNet-A: 3 images", "objectnet: timm publishes no accuracy on it"):
        assert words in printed
