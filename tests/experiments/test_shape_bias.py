"""Shape bias: the pooled ratio, the decisions behind it, and the experiment."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import ipvit
from helpers.analysis import tables_of
from helpers.published_results import beside
from ipvit.experiments.base import BindContext
from ipvit.experiments.shape_bias.analysis import PEOPLE_BY_CATEGORY, PEOPLE_COUNTS
from ipvit.experiments.shape_bias.measurement import decide
from ipvit.metrics import shape_bias, shape_bias_by_category, wilson
from ipvit.models.label_spaces import ENTRY_LEVEL_CATEGORIES, CategoryMap

PUBLISHED = {
    "cnn_resnet50": (162, 572, 0.2207),
    "cnn_resnet50_train_60_epochs": (586, 141, 0.8061),
    "cnn_alexnet": (182, 537, 0.2531),
    "cnn_densenet121": (163, 597, 0.2145),
    "cnn_squeezenet1_1": (133, 597, 0.1822),
    "human_subject-01": (None, None, 0.9617),
    "human_subject-02": (None, None, 0.9438),
    "human_subject-03": (None, None, 0.9673),
    "human_subject-04": (None, None, 0.9191),
    "human_subject-05": (None, None, 0.9640),
}


def published_decisions(path: Path) -> tuple[list[str], list[str], list[str]]:
    """The decision, shape and texture of every published trial; images are named ..._cat1-dog2.png."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    textures = [row["imagename"].removesuffix(".png").rpartition("-")[2].rstrip("0123456789") for row in rows]
    return [row["object_response"] for row in rows], [row["category"] for row in rows], textures


@pytest.mark.parametrize("observer", PUBLISHED)
def test_the_published_trials_give_the_published_shape_bias(real, observer):
    found = shape_bias(*published_decisions(real / "cue-conflict-decisions" / f"{observer}.csv"))
    shape, texture, bias = PUBLISHED[observer]
    assert found.value == pytest.approx(bias, abs=5e-5)
    assert found.images == 1200
    if shape is not None:
        assert (found.shape, found.texture) == (shape, texture)


ORACLES = {
    "vit_base_patch16_224.orig_in21k_ft_in1k": (347, 417, 0.454, 3),
    "ViT_L_14_openai_a_photo_of_a_CLS": (608, 402, 0.602, 3),
    "tv_resnet50": (180, 628, 0.2228, 4),
}
"""Decisions on all 1,280 stimuli that vlm_shapebias publishes: for shape, for texture, shape bias, its digits."""


def oracle(path: Path) -> pl.DataFrame:
    """Published decisions as records; images are named cat1-dog2."""
    images = pl.read_csv(path).rename({"pred_label": "decision"})
    cues = pl.col("image").str.replace_all(r"\d", "").str.split("-")
    return images.select(
        "image", "decision", shape=cues.list.get(0), texture=cues.list.get(1), model=pl.lit(path.stem)
    ).with_columns(token=pl.lit("output"), ties=pl.lit("first"), weights=pl.lit("published"))


@pytest.mark.parametrize("network", ORACLES)
def test_decisions_published_for_three_networks_give_their_published_shape_bias(real, network):
    """Once as a pure function of columns, once as what the experiment makes of its records."""
    shape, texture, bias, digits = ORACLES[network]
    records = oracle(beside(real, f"vlm-shapebias/{network}.csv"))
    found = shape_bias(*(records[name].to_numpy() for name in ("decision", "shape", "texture")))
    assert (found.images, found.shape, found.texture) == (1200, shape, texture)
    assert round(found.value, digits) == bias
    row = tables_of(ipvit.ShapeBias(), records)["shape-bias"].row(0, named=True)
    assert (row["n_images"], row["shape"], row["texture"]) == (1200, shape, texture)
    assert round(row["shape_bias"], digits) == bias and row["shape_bias_low"] < bias < row["shape_bias_high"]


def test_decisions_are_pooled_not_averaged_over_categories():
    shapes = ["cat"] * 8 + ["dog"] * 2
    textures = ["dog"] * 8 + ["cat"] * 2
    decisions = ["cat"] * 8 + ["cat", "na"]
    found = shape_bias(decisions, shapes, textures)
    assert (found.shape, found.texture, found.neither) == (8, 1, 1)
    assert found.value == pytest.approx(8 / 9)
    by_category = shape_bias_by_category(decisions, shapes, textures)
    assert {name: counts.value for name, counts in by_category.items()} == {"cat": 1.0, "dog": 0.0}


def test_images_without_a_conflict_and_third_answers_do_not_enter_the_ratio():
    found = shape_bias(["cat", "dog", "car", "cat"], ["cat"] * 4, ["cat", "dog", "dog", "dog"])
    assert (found.images, found.shape, found.texture, found.neither) == (3, 1, 1, 1)


def test_the_interval_is_wilsons_over_the_decisions_that_count():
    found = shape_bias([0] * 30 + [1] * 10 + [2] * 60, [0] * 100, [1] * 100)
    assert found.interval() == wilson(30, 40)


def test_without_a_decision_for_either_there_is_no_shape_bias():
    found = shape_bias(["car"], ["cat"], ["dog"])
    assert np.isnan(found.value)
    assert np.isnan(found.interval()).all()


def test_the_numbers_of_people_belong_together():
    assert pytest.approx(0.9587, abs=5e-5) == PEOPLE_COUNTS.value
    assert np.mean(list(PEOPLE_BY_CATEGORY.values())) == pytest.approx(0.9538, abs=5e-4)
    assert set(PEOPLE_BY_CATEGORY) == set(ENTRY_LEVEL_CATEGORIES)


def test_a_category_of_many_weak_classes_does_not_win_by_their_number():
    categories = CategoryMap(("cat", "dog"), ((0,), (1, 2, 3)), 4)
    logits = torch.tensor([[0.4, 0.2, 0.2, 0.2]]).log()
    assert list(decide(logits, categories)) == ["cat"]  # 0.4 against a mean of 0.2, although 0.6 in sum


def test_ties_go_to_the_first_or_the_last_category_and_broken_logits_to_none():
    categories = CategoryMap(("a", "b", "c"), ((0,), (1,), (2,)), 3)
    logits = torch.tensor([[1.0, 2.0, 2.0], [0.0, 0.0, 0.0], [float("nan"), 0.0, 1.0]])
    assert list(decide(logits, categories, "first")) == ["b", "a", ""]
    assert list(decide(logits, categories, "last")) == ["c", "c", ""]


class Says(torch.nn.Module):
    """A network that says what the image's mean grey tells it to, one class per grey level."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot((x.mean(dim=(1, 2, 3)) * 255).round().long().clamp(max=3), 4).float() * 9


def test_the_experiment_counts_what_the_network_says(tmp_path):
    said, shape, texture = np.array([0, 1, 2, 3, 0, 1]), np.array([0, 0, 0, 2, 0, 2]), np.array([1, 1, 1, 3, 0, 1])
    images = torch.from_numpy(said)[:, None, None, None].expand(-1, 3, 8, 8).to(torch.uint8)
    classes = ("a", "b", "c", "d")
    data = ipvit.MemoryDataset(images, shape, classes, fields={"shape": shape, "texture": texture})
    model = ipvit.wrap(Says(), mean=(0, 0, 0), std=(1, 1, 1), size=8, classes=classes[::-1])  # in another order
    model.classes = classes
    run = ipvit.run(ipvit.ShapeBias(), models=model, data=data, out=tmp_path, workers=0, progress=False)
    row = run.tables["shape-bias"].to_dicts()[0]
    assert (row["n_images"], row["shape"], row["texture"], row["neither"]) == (5, 1, 3, 1)
    assert row["shape_bias"] == pytest.approx(0.25)
    categories = {row["category"]: row["shape_bias"] for row in run.tables["shape-bias-categories"].to_dicts()}
    assert categories == {"a": pytest.approx(0.5), "c": 0.0}
    assert "people" not in run.tables["shape-bias"]["model"].to_list()
    assert run.report().exists()


def test_stimuli_are_opened_as_the_study_opens_its_data_and_as_many_are_used_as_images(images):
    stimuli, asked = ipvit.load_dataset("demo:trifeature/cue-conflict"), []
    context = BindContext(lambda name: asked.append(name) or stimuli)
    data = ipvit.load_dataset(images)
    measurement = ipvit.ShapeBias(stimuli="cue-conflict:elsewhere").bind([], data, context)
    assert asked == ["cue-conflict:elsewhere"]
    items = measurement.items(data, 5)
    assert len(items) == 5 and set(items.ids) <= set(stimuli.ids)
    assert ipvit.ShapeBias().bind([], data, context).items(data, 5) is data and len(asked) == 1


def test_it_says_when_the_data_has_no_textures(model, images, tmp_path):
    with pytest.raises(ipvit.InputError, match="needs the shape and the texture of every image"):
        ipvit.run(ipvit.ShapeBias(), models=model, data=images, out=tmp_path / "out", progress=False)


def test_a_category_that_nobody_knows_is_named(tmp_path):
    data = ipvit.MemoryDataset(
        torch.zeros(1, 3, 8, 8), [0], ["unicorn"], fields={"shape": np.array([0]), "texture": np.array([0])}
    )
    model = ipvit.wrap(Says(), size=8, classes=["a", "b", "c", "d"])
    with pytest.raises(ipvit.InputError, match="'unicorn' is neither an output"):
        ipvit.run(ipvit.ShapeBias(), models=model, data=data, out=tmp_path / "out", workers=0, progress=False)
    data.classes = None
    with pytest.raises(ipvit.InputError, match="the data does not name its categories"):
        ipvit.run(ipvit.ShapeBias(), models=model, data=data, out=tmp_path / "out", workers=0, progress=False)
    assert not (tmp_path / "out").exists(), "both are said before anything is measured"


def distilled() -> ipvit.Model:
    name = "deit_tiny_distilled_patch16_224?img_size=64&depth=2&num_classes=10"
    model = ipvit.load_model(name, pretrained=False, label="distilled")
    model.classes = ipvit.load_dataset("demo:trifeature").classes
    view = dataclasses.replace(model.preprocessing.view, crop_pct=1.0)
    model.preprocessing = dataclasses.replace(model.preprocessing, view=view)
    torch.manual_seed(0)
    for head in (model.backbone.head, model.backbone.head_dist):
        torch.nn.init.normal_(head.weight)  # apart, so that the answers differ
    return model


def test_a_distilled_network_answers_with_each_token_and_with_their_mean(tmp_path):
    data = ipvit.load_dataset("demo:trifeature/cue-conflict")  # 64 pixels: nothing is resized
    model = distilled()
    run = ipvit.run(
        [ipvit.ShapeBias(), ipvit.TokenSimilarity()],
        models=model,
        data=data,
        out=tmp_path,
        limit=12,
        workers=0,
        progress=False,
    )
    records = run.records("shape-bias")
    names = records["image"].unique(maintain_order=True).to_list()
    pictures = torch.stack([data.read(data.ids.index(name)) for name in names]).float() / 255
    with torch.inference_mode():
        tokens = model.backbone.forward_features(model.normalize(pictures))
        logits = {
            "class": model.backbone.head(tokens[:, 0]),
            "distillation": model.backbone.head_dist(tokens[:, 1]),
        }
    logits["mean"] = (logits["class"] + logits["distillation"]) / 2
    assert set(run.tables["shape-bias"]["token"]) == set(logits)
    for token, values in logits.items():
        decided = dict(records.filter(token=token).select("image", "decision").iter_rows())
        assert [decided[name] for name in names] == [model.classes[i] for i in values.argmax(dim=1).tolist()]
    for name, words in (("shape-bias", "images: a shape bias of"), ("token-similarity", "have a mean cosine of")):
        answers = run.analyses[name].answer(run.tables_of(name))
        assert list(answers) == ["distilled (random weights)"] and words in answers["distilled (random weights)"]
    angles = torch.nn.functional.cosine_similarity(tokens[:, 0], tokens[:, 1])
    assert run.tables["token-similarity"]["cosine"][0] == pytest.approx(float(angles.mean()), abs=1e-5)


def test_token_similarity_leaves_out_networks_with_one_token(tmp_path):
    plain = ipvit.load_model("demo:deit_micro")
    data = ipvit.load_dataset("demo:trifeature")
    with pytest.raises(ipvit.InputError, match="token_heads"):
        ipvit.run(ipvit.TokenSimilarity(), models=plain, data=data, out=tmp_path, limit=2, progress=False)


@pytest.mark.slow
def test_efficientnet_goes_by_the_texture_as_measured_elsewhere(real, tmp_path):
    model = ipvit.load_model(f"tf_efficientnet_lite0@{real / 'efficientnet_lite0.safetensors'}")
    run = ipvit.run(
        ipvit.ShapeBias(), models=model, data=f"cue-conflict:{real / 'cue-conflict'}", out=tmp_path, progress=False
    )
    row = run.tables["shape-bias"].to_dicts()[0]
    assert (row["n_images"], row["shape"], row["texture"]) == (271, 38, 154)
    assert row["shape_bias"] == pytest.approx(0.198, abs=5e-4)
    assert run.tables["shape-bias"]["model"].to_list()[1] == "people"
