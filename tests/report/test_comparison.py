"""Our numbers beside the paper's: every number of the paper once, and ours found where it stands."""

import polars as pl
import pytest

import ipvit
from helpers.comparison import among_the_datas_classes, compared, manifest, occlusion_table
from helpers.small_runs import photos, small_occlusion
from helpers.tiny import tiny_model
from ipvit.analysis.paper_numbers import targets
from ipvit.experiments.registry import BUILT_IN, experiment_class, paper_numbers
from ipvit.models.zoo.paper import NETWORKS
from ipvit.report import comparison

NOT_MEASURED = {
    "src",
    "tol",
    "tol_steep",
    "x",
    "levels",
    "cols",
    "sizes",
    "eps",
    "rates",
    "cells",
    "level",
    "note",
    "shape",
    "texture",
}


def numbers(node: object, key: str = "") -> list[float]:
    """All measured numbers below a node of the targets."""
    if isinstance(node, dict):
        return [value for name, below in node.items() if name not in NOT_MEASURED for value in numbers(below, name)]
    if isinstance(node, list):
        return [value for below in node for value in numbers(below)]
    return [float(node)] if isinstance(node, int | float) and not isinstance(node, bool) else []


@pytest.mark.parametrize("key", [key for key in targets() if key != "_meta"])
def test_every_number_of_the_targets_is_one_of_the_papers(key):
    expected = numbers(targets()[key])
    if key == "alexnet_err":  # published as errors, compared as accuracies
        expected = [100 - 100 * value for value in expected]
    if key == "resnet50_ce_examples":  # published as accuracy, compared as mean error
        expected = [100 - v if i % 2 == 0 else v for i, v in enumerate(expected)]
    if key == "fig16_fewshot":
        expected = [100 * value for value in expected]
    found = [number.value for number in paper_numbers() if number.key == key]
    assert sorted(found) == pytest.approx(sorted(expected), abs=0.006)


def test_every_number_names_a_network_that_exists_or_says_why_not():
    for number in paper_numbers():
        if number.network is None:
            assert number.why_not and not number.cells
        else:
            known = number.network in NETWORKS or number.network in ("torchvision:alexnet", "torchvision:vgg16")
            assert known and number.cells, number
        assert number.uncertainty > 0 and number.source


def test_every_cell_is_in_a_table_of_an_experiment_with_the_settings_it_asks_for():
    for cell in {cell.experiment: cell for number in paper_numbers() for cell in number.cells}.values():
        assert cell.experiment in BUILT_IN
    for number in paper_numbers():
        for cell in number.cells:
            fields = experiment_class(cell.experiment).model_fields
            assert set(cell.settings) <= set(fields), cell


def test_the_same_number_is_asked_for_once():
    places = [(q.key, q.title, q.what) for q in paper_numbers()]
    assert len(set(places)) == len(places)


def test_a_number_is_within_where_the_whole_interval_lies_in_the_margin():
    rows = [("random", 0.0, 0.0, 81.8), ("random", 0.5, 0.5, 70.0), ("random", 0.9, 0.9, 37.2)]
    found = compared(occlusion_table("paper:deit_base", rows), manifest("paper:deit_base"), occlusion=ipvit.Occlusion())
    half = found["Figure 27", "top-1 (%), random PatchDrop, 50 %"]
    assert half["ours"] == 70 and half["paper"] == 75.5 and half["difference"] == pytest.approx(-5.5)
    assert half["verdict"] == "outside" and half["source"] == "P" and half["experiment"] == "occlusion"
    assert half["margin"] == pytest.approx(0.05 + (81.7 - 75.5) / 4, abs=5), "of the panel"
    clean = found["Figure 27", "top-1 (%), clean"]
    assert clean["verdict"] == "within" and abs(clean["difference"]) + 0.4 < clean["margin"]
    assert found["Section 3.1", "top-1 (%), random PatchDrop, 90%"]["verdict"] == "within"


def test_salient_levels_are_compared_at_the_share_really_dropped():
    rows = [("salient", 0.3, 0.12, 70.0), ("salient", 0.4, 0.18, 60.0), ("salient", 0.5, 0.26, 52.0)]
    found = compared(
        occlusion_table("paper:deit_small", rows), manifest("paper:deit_small"), occlusion=ipvit.Occlusion()
    )
    assert found["Figure 3", "top-1 (%), salient PatchDrop, 20 % dropped"]["ours"] == pytest.approx(58.0)
    assert found["Figure 3", "share of patches that hold 50% of head 1's attention"]["ours"] == 0.26
    assert not any("10 %" in what or "30 %" in what for _, what in found), "nothing is extrapolated"


def test_other_settings_than_the_papers_are_not_compared():
    name = "paper:deit_small"
    tables, about = occlusion_table(name, [("random", 0.5, 0.5, 70.0)]), manifest(name)
    assert compared(tables, about, occlusion=ipvit.Occlusion())
    assert not compared(tables, about, occlusion=ipvit.Occlusion(grid="7x7"))
    assert not compared(tables, about, occlusion=ipvit.Occlusion(fill="mean"))
    several = {"occlusion": {"occlusion": tables["occlusion"]["occlusion"].with_columns(grid=pl.lit("7x7"))}}
    assert not compared(several, about, occlusion=ipvit.Occlusion(grid="14x14")), "the table says it itself"


def test_only_the_papers_networks_with_their_weights_are_compared():
    tables = occlusion_table("paper:deit_small", [("random", 0.5, 0.5, 70.0)])
    run = {"occlusion": ipvit.Occlusion()}
    assert compared(tables, manifest("paper:deit_small"), **run)
    assert not compared(tables, manifest("paper:deit_small", sources=("random initialisation",)), **run)
    assert not compared(occlusion_table("mine", [("random", 0.5, 0.5, 70.0)]), manifest("mine"), **run)
    assert comparison.without_counterpart(manifest("mine", "paper:deit_small")) == {"mine": ""}


def test_untrained_networks_are_compared_with_the_papers_untrained_ones():
    names = ("DeiT-T-random", "DeiT-T")
    table = pl.DataFrame(
        {
            "model": names,
            "token": "class",
            "threshold": 0.9,
            "mask": "best head (oracle)",
            "n_images": 1449,
            "jaccard": [19.5, 30.0],
            "jaccard_low": [19.0, 29.5],
            "jaccard_high": [20.0, 30.5],
        }
    )
    about = manifest(
        *names,
        sources=("random initialisation", "file"),
        loaded=("paper:deit_tiny?img_size=512",) * 2,
        data="voc2012:VOC",
        images=1449,
        published="voc",
        size=512,
    )
    rows = comparison.compare({"segment": {"segment": table}}, about, {"segment": ipvit.Segment(protocol="authors")})
    assert dict(rows.select("network", "ours").iter_rows()) == {"DeiT-T-random": 19.5, "DeiT-T": 30.0}
    assert not compared({"segment": {"segment": table}}, about, segment=ipvit.Segment()), "void counts otherwise"


def test_numbers_of_other_data_are_not_compared():
    row = {"model": "paper:no_pos_deit_t", "n_images": 10, "top1": 68.0, "top1_low": 67.0, "top1_high": 69.0}
    tables = {"accuracy": {"accuracy": pl.DataFrame([row])}}
    run, name = {"accuracy": ipvit.Accuracy()}, "paper:no_pos_deit_t"
    assert compared(tables, manifest(name), **run)
    assert not compared(tables, manifest(name, data="cub:birds/test", published="cub"), **run)
    assert not compared(tables, manifest(name, published=""), **run), "any folder"
    earlier = manifest(name).model_copy(update={"data": manifest(name).data.model_copy(update={"published": None})})
    assert not compared(tables, earlier, **run)


def test_answers_among_the_classes_of_the_data_are_not_compared():
    row = {"model": "paper:no_pos_deit_t", "n_images": 50_000, "top1": 68.0, "top1_low": 67.0, "top1_high": 69.0}
    tables = {"accuracy": {"accuracy": pl.DataFrame([row])}}
    about = among_the_datas_classes(manifest("paper:no_pos_deit_t"), "accuracy")
    assert not compared(tables, about, accuracy=ipvit.Accuracy())


def test_everything_lists_what_is_missing_and_where_it_would_be():
    frame = comparison.compare({}, manifest("DeiT-S"), {}, everything=True)
    assert frame.height == len(paper_numbers()) and frame["ours"].null_count() == frame.height
    notes = dict(frame.select("what", "note").iter_rows())
    assert notes["top-1 (%), top-right"] == "not measured here: position on deit_base"
    assert "people, not a network" in frame["note"].to_list()


def test_several_runs_are_joined_and_nothing_is_listed_twice():
    a = comparison.compare(
        occlusion_table("paper:deit_base", [("random", 0.5, 0.5, 75.0)]),
        manifest("paper:deit_base"),
        {"occlusion": ipvit.Occlusion()},
        everything=True,
    )
    b = comparison.compare({}, manifest("DeiT-S"), {}, everything=True)
    whole = comparison.joined([b, a])
    assert whole.height == len(paper_numbers())
    assert whole["ours"].drop_nulls().to_list() == a["ours"].drop_nulls().to_list() != []


def test_a_part_of_the_data_is_pointed_out():
    assert comparison.notes(manifest("DeiT-S")) == []
    (note,) = comparison.notes(manifest("DeiT-S", images=500))
    assert "500 images of imagenet/val" in note and "50,000 images of ImageNet" in note


def test_a_run_compares_itself_and_its_report_says_so(tmp_path):
    models = [tiny_model(0, name="DeiT-S", size=224), tiny_model(1, name="mine")]
    models[0].origin = ("paper:deit_small", True)
    experiment, images = ipvit.Shuffle(grids=("2x2", "4x4")), photos()
    images.ids = [f"n01440764/ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, len(images) + 1)]
    run = ipvit.run(experiment, models=models, data=images, out=tmp_path, workers=0, progress=False)
    frame = run.compare()
    assert set(frame["model"]) == {"DeiT-S"} and set(frame["where"]) == {"Figure 10"}
    assert frame.filter(pl.col("what") == "top-1 (%), clean")["paper"].to_list() == [79.9]
    page = run.report().read_text("utf-8")
    assert "Beside the paper" in page and "This run used 30 images" in page
    assert (tmp_path / "tables" / "paper-comparison.csv").exists()
    assert run.compare(everything=True).height == len(paper_numbers())


def test_without_a_network_of_the_paper_the_report_keeps_silent_about_it(tmp_path):
    run = ipvit.run(
        small_occlusion(), models=[tiny_model(name="mine")], data=photos(), out=tmp_path, workers=0, progress=False
    )
    assert run.compare().is_empty()
    assert "Beside the paper" not in run.report().read_text("utf-8")


def test_text_for_people_rounds_as_the_paper_prints():
    tables = occlusion_table("paper:deit_base", [("random", 0.5, 0.5, 75.04)])
    frame = comparison.compare(tables, manifest("paper:deit_base"), {"occlusion": ipvit.Occlusion()})
    row = comparison.for_people(frame.filter(pl.col("where") == "Figure 27")).to_dicts()[0]
    assert row["ours"] == "75.0 [74.6, 75.4]" and row["paper"] == "75.5" and row["difference"] == "-0.5"
    assert row["verdict"] == "within"
    assert comparison.summary(frame) == "2 of the 2 numbers that could have disagreed agree with the paper's."
