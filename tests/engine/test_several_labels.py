"""Classes that are several outputs, and images that have several right labels or none."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch

import ipvit
from helpers.answers import EXPERIMENTS, NAMES, PETS, WILD, network, several, two_classes, whole, with_sets
from helpers.plain_loops import answer, measured, photos, pixels_of, wrapped
from ipvit.engine.diagnosis import examine
from ipvit.errors import InputError
from ipvit.metrics.accuracy import topk_correct
from ipvit.models.label_mapping import as_booleans, right_answers, space_for
from ipvit.perturb.attack import is_right, margin_loss
from ipvit.play import Shelf
from ipvit.training import sources


def test_other_label_sets_are_measured_again(tmp_path):
    found = []
    for labels in ((0, 3), (1,)):
        data = with_sets()
        data.label_sets[0] = labels
        rows = measured(ipvit.Accuracy(), whole(), data, tmp_path).filter(pl.col("image") == data.ids[0])
        found.append((rows.height, rows["label_probability"].to_list()))
    assert found[0][0] == found[1][0] == 1 and found[0] != found[1]


@pytest.mark.parametrize(("rule", "pooled"), [("{}", np.mean), ("mean({})", np.mean), ("max({})", np.max)])
def test_an_answer_of_several_outputs_has_the_mean_of_their_probabilities_or_the_largest(tmp_path, rule, pooled):
    model, data = whole(), several(rule)
    for row in measured(ipvit.Accuracy(), model, data, tmp_path, answers="data").iter_rows(named=True):
        probabilities = answer(model, pixels_of(data, row["image"])).softmax(0).numpy()
        shares = np.array([pooled(probabilities[PETS]), pooled(probabilities[WILD])])
        assert row["prediction"] == shares.argmax() and row["label"] == data.labels[list(data.ids).index(row["image"])]
        assert row["confidence"] == pytest.approx(shares.max() / shares.sum(), abs=1e-5)


def test_among_all_outputs_any_of_a_class_is_right_and_their_probabilities_add_up(tmp_path):
    model, data = whole(), several("{}")
    for row in measured(ipvit.Accuracy(), model, data, tmp_path).iter_rows(named=True):
        logits = answer(model, pixels_of(data, row["image"]))
        right = (PETS, WILD)[data.labels[list(data.ids).index(row["image"])]]
        assert row["prediction"] == int(logits.argmax()) and row["correct"] == (row["prediction"] in right)
        assert row["correct5"] == bool(set(right) & set(logits.topk(5).indices.tolist()))
        assert row["label_probability"] == pytest.approx(float(logits.softmax(0)[right].sum()), abs=1e-5)


@pytest.mark.parametrize(
    ("aliases", "words"),
    [
        (("cat, dog", "dog,fox"), "two classes of two are the same output"),
        (("cat, cat", "fox"), "names one output of vit twice"),
        (("cat, yak", "fox"), "cannot map 1 of the 2 classes"),
        (("cat,,dog", "fox"), "cannot map 1 of the 2 classes"),
        (("max(cat, dog", "fox"), "cannot map 1 of the 2 classes"),
        (("cat, dog)", "fox"), "cannot map 1 of the 2 classes"),
        (("min(cat, dog)", "fox"), "cannot map 1 of the 2 classes"),
        (("cat, 8", "fox"), "cannot map 1 of the 2 classes"),
    ],
)
def test_classes_that_do_not_fit_are_refused(tmp_path, aliases, words):
    data = two_classes()
    data.classes, data.aliases = ("a", "b"), aliases
    with pytest.raises(InputError, match=words):
        measured(ipvit.Accuracy(), whole(), data, tmp_path)


@pytest.mark.parametrize(
    ("second", "outputs"),
    [
        (("fox, elk", "bee"), [(5, 4), (1,)]),
        (("max(fox, 4)", "bee"), [(5, 4), (1,)]),
        (("max(fox)", "bee"), [(5,), (1,)]),
        (("Vulpes vulpes, red fox", "bee"), [(5,), (1,)]),
        (("fox, Vulpes vulpes", "bee"), [(5,), (1,)]),
    ],
)
def test_a_folder_named_as_an_output_may_state_more_of_them(second, outputs):
    data = two_classes()
    data.aliases = second
    found = right_answers(data, whole())
    assert [tuple(np.flatnonzero(row)) for row in as_booleans(found, 8)] == [tuple(sorted(one)) for one in outputs]


def test_stated_outputs_that_are_not_there_are_no_synonyms():
    data = two_classes()
    data.aliases = ("max(fox, yak)", "bee")
    with pytest.raises(InputError, match=r"cannot map 1 of the 2 classes of two \('fox'\)"):
        right_answers(data, whole())


def test_an_output_whose_own_name_holds_commas_is_one_output(tmp_path):
    names = ("tench, Tinca tinca", "max(a, b)", *NAMES[2:])
    model = wrapped(network(), classes=names, name="vit")
    data = two_classes()
    data.classes, data.aliases = ("a", "b"), ("tench, Tinca tinca", "max(cat, dog)")
    space = space_for(model, data, "data")
    assert (space.columns, space.aggregate) == (((0,), (2, 3)), "max")


def test_one_rule_holds_for_all_classes(tmp_path):
    data = several("{}")
    data.aliases = ("max(cat,dog)", "mean(fox,elk)")
    with pytest.raises(InputError, match="states the mean for some classes of several outputs and the maximum"):
        measured(ipvit.Accuracy(), whole(), data, tmp_path, answers="data")


def test_any_right_label_counts_and_images_without_one_are_left_out(tmp_path):
    model, data = whole(), with_sets()
    options = {"models": model, "data": data, "out": tmp_path, "workers": 0, "progress": False}
    run = ipvit.run(ipvit.Accuracy(), **options)
    for row in run.records().iter_rows(named=True):
        sets = data.label_sets[list(data.ids).index(row["image"])]
        logits = answer(model, pixels_of(data, row["image"]))
        assert row["correct"] == (int(logits.argmax()) in sets) and row["label"] == min(sets, default=-1)
        total = float(logits.softmax(0)[list(sets)].sum()) if sets else float("nan")
        assert row["label_probability"] == pytest.approx(total, abs=1e-5, nan_ok=True)
    assert run.tables["accuracy"]["n_images"].to_list() == [5]
    assert "1 images have no label and are left out of the accuracies." in run.notes["accuracy"]


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda one: one.name)
def test_every_experiment_measures_images_of_several_labels(tmp_path, experiment):
    records = measured(experiment, whole(), with_sets(), tmp_path)
    sets = dict(zip(with_sets().ids, with_sets().label_sets, strict=True))
    for image, prediction, correct in records.select("image", "prediction", "correct").iter_rows():
        assert correct == (prediction in sets[image])


SEVERAL = "the images of two have several labels, or none, where one an image is needed"


@pytest.mark.parametrize(
    ("experiment", "data"),
    [
        (ipvit.FewShot(count=2), with_sets()),
        (ipvit.Probe(blocks=(1,), train=with_sets()), photos(8)),
        (ipvit.Probe(blocks=(1,), train=photos(8), val=with_sets()), photos(8, seed=1)),
    ],
)
def test_where_one_label_is_needed_images_of_several_are_refused(tmp_path, experiment, data):
    with pytest.raises(InputError, match=SEVERAL):
        ipvit.run(experiment, models=whole(), data=data, out=tmp_path, workers=0, progress=False)


def test_images_of_several_labels_are_not_diagnosed_and_not_trained_on(monkeypatch):
    with pytest.raises(InputError, match=SEVERAL):
        examine(whole(), with_sets(), torch.device("cpu"))
    monkeypatch.setattr(sources, "load_dataset", lambda *_, **__: with_sets())
    with pytest.raises(InputError, match=SEVERAL):
        sources.open_data("two", 32, "train")


def test_a_photo_of_several_labels_shows_them_all():
    data, shelf = with_sets(), Shelf(with_sets())
    shown = {shelf.photo(str(number)).names for number in range(len(data))}
    assert shown == {tuple(NAMES[label] for label in labels) for labels in data.label_sets}


def test_attacks_leave_all_right_labels():
    logits = torch.tensor([[2.0, 1.0, 0.5], [0.0, 3.0, 1.0]])
    right = torch.tensor([[True, False, True], [True, False, False]])
    assert is_right(logits, right).tolist() == [True, False]
    joint = (logits.softmax(1) * right).sum(1)
    assert torch.allclose(torch.log1p(margin_loss(logits, right).exp()), -joint.log(), atol=1e-6)
    single = torch.tensor([0, 1])
    one_hot = torch.nn.functional.one_hot(single, 3).bool()
    assert torch.allclose(margin_loss(logits, single), margin_loss(logits, one_hot), atol=1e-6)
    for k in (1, 2):
        assert topk_correct(logits, one_hot, k).equal(topk_correct(logits, single, k))
