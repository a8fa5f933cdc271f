"""Among which answers a network chooses: over the data's classes it is a network without other outputs."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

import ipvit
from helpers.answers import (
    COLUMNS,
    EXPERIMENTS,
    NAMES,
    OF_DATA,
    network,
    of_two,
    several,
    two_classes,
    whole,
    with_sets,
)
from helpers.command_line import complaint
from helpers.plain_loops import answer, measured, photos, pixels_of, tiny_vit, wrapped
from ipvit.cli import main
from ipvit.commands.measure import print_tables
from ipvit.data.dataset import MemoryDataset
from ipvit.engine.diagnosis import examine
from ipvit.errors import InputError
from ipvit.experiments.base import BindContext
from ipvit.models.label_mapping import outputs_for, right_answers
from ipvit.models.label_spaces import ENTRY_LEVEL_CATEGORIES, entry_level_synsets, imagenet_classes
from ipvit.play import Shelf


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda one: one.name)
def test_among_the_datas_classes_every_experiment_is_that_of_a_network_without_other_outputs(tmp_path, experiment):
    found = measured(experiment, whole(), two_classes(), tmp_path / "whole", answers="data")
    wanted = measured(experiment, of_two(), two_classes(), tmp_path / "two", answers="all")
    key = ["image", "condition"]
    found, wanted = (frame.cast({"image": pl.String}).sort(key) for frame in (found, wanted))
    assert found.select(*key, "label", "prediction", "correct").equals(
        wanted.select(*key, "label", "prediction", "correct")
    )
    for name in ("confidence", "label_probability"):
        assert np.allclose(found[name], wanted[name], atol=1e-5, equal_nan=True)
    assert set(found["answers"]) == {"data"} and set(wanted["answers"]) == {"all"}


def test_among_all_outputs_is_a_plain_loop_over_all_of_them(tmp_path):
    model, data = whole(), two_classes()
    for row in measured(ipvit.Accuracy(), model, data, tmp_path).iter_rows(named=True):
        logits = answer(model, pixels_of(data, row["image"]))
        assert row["prediction"] == int(logits.argmax()) and row["label"] in COLUMNS
        assert row["correct"] == (row["prediction"] == row["label"])


def test_one_folder_keeps_both_apart_and_shows_what_was_asked_for(tmp_path):
    options = {"models": whole(), "data": two_classes(), "out": tmp_path, "workers": 0, "progress": False}
    every = ipvit.run(ipvit.Accuracy(), **options)
    few = ipvit.run(ipvit.Accuracy(), **options, answers="data")
    again = ipvit.run(ipvit.Accuracy(), **options, answers="data")
    assert again.manifest.measured_in_this_call == 0 and few.manifest.measured_in_this_call == 6
    assert set(every.records()["answers"]) == {"all"} and set(few.records()["answers"]) == {"data"}
    assert "6 records of another seed, precision, version, answer space or data set" in few.told[0]
    assert every.notes["accuracy"][0] == (
        "Answers are among all 8 outputs, not only the 2 classes of the data (--answers data)."
    )
    among = "Answers are among the 2 classes of the data, not all 8 outputs (--answers all); guessing gives 50.0 %."
    assert among in few.notes["accuracy"]
    assert every.tables["accuracy"]["n_answers"].to_list() == [8]
    assert few.tables["accuracy"]["n_answers"].to_list() == [2]


def test_tables_say_among_how_many_in_every_form(tmp_path, capsys):
    run = ipvit.run(
        ipvit.Shuffle(grids=("2x2", "4x4")),
        models=whole(),
        data=two_classes(),
        out=tmp_path,
        workers=0,
        progress=False,
        answers="data",
    )
    page = run.report().read_text()
    assert "Answers are among the 2 classes of the data" in page
    assert ", answers: 2;" in (tmp_path / "tables/shuffle.tex").read_text()
    markdown = (tmp_path / "tables/shuffle.md").read_text()
    assert "| answers | n images |" in markdown
    assert {row["n_answers"] for row in json.loads((tmp_path / "tables/shuffle.json").read_text())} == {2}
    print_tables(run)
    assert "top-1 (%), among 2 answers" in capsys.readouterr().out


def test_top_5_says_nothing_below_six_answers(tmp_path):
    options = {"models": whole(), "data": two_classes(), "workers": 0, "progress": False}
    few = ipvit.run(ipvit.Accuracy(), out=tmp_path / "few", answers="data", **options)
    every = ipvit.run(ipvit.Accuracy(), out=tmp_path / "all", **options)
    assert few.tables["accuracy"]["top5"].to_list() == [None] and not few.faults
    assert "top-5" not in few.summary_of("accuracy")[0] and "top-5" in every.summary_of("accuracy")[0]


def test_data_of_all_classes_have_one_answer_space(tmp_path):
    model, data = wrapped(tiny_vit(), name="vit"), photos()
    records = measured(ipvit.Accuracy(), model, data, tmp_path, answers="data")
    assert set(records["answers"]) == {"all"}


@pytest.mark.parametrize("order", [1, -1])
def test_a_network_of_the_datas_classes_alone_stands_beside_one_that_chooses_among_them(tmp_path, order):
    narrow = wrapped(tiny_vit(seed=4, num_classes=2), classes=OF_DATA, name="narrow")
    models = [whole(), narrow][::order]
    run = ipvit.run(
        ipvit.Accuracy(), models=models, data=two_classes(), out=tmp_path, workers=0, progress=False, answers="data"
    )
    assert run.tables["accuracy"].select("model", "n_images", "n_answers").rows() == [
        (model.name, 6, 2) for model in models
    ]
    among = "Answers are among the 2 classes of the data, not all 8 outputs"
    assert any(note.startswith(among) for note in run.notes_of("accuracy"))
    assert run.differences["accuracy"]["n_images"].to_list() == [6]


def test_networks_of_earlier_calls_stay_where_they_chose_alike(tmp_path):
    narrow = wrapped(tiny_vit(seed=4, num_classes=2), classes=OF_DATA, name="narrow")

    def shown(model, answers):
        options = {"data": two_classes(), "out": tmp_path, "workers": 0, "progress": False, "everything": True}
        return ipvit.run(ipvit.Accuracy(), models=model, answers=answers, **options).tables["accuracy"]["model"]

    assert shown(whole(), "data").to_list() == ["vit"]
    assert sorted(shown(narrow, "data")) == ["narrow", "vit"]
    assert sorted(shown(whole(), "data")) == ["narrow", "vit"]
    other = wrapped(tiny_vit(seed=5, num_classes=8), classes=NAMES, name="other")
    assert sorted(shown(other, "all")) == ["narrow", "other"]


class Published(MemoryDataset):
    answers = "data"


def test_the_datas_protocol_chooses_where_the_user_does_not(tmp_path):
    data = two_classes()
    published = Published(torch.stack([data.read(i) for i in range(6)]), data.labels, OF_DATA, name="published")
    assert set(measured(ipvit.Accuracy(), whole(), published, tmp_path)["answers"]) == {"data"}
    assert set(measured(ipvit.Accuracy(), whole(), published, tmp_path / "b", answers="all")["answers"]) == {"all"}


# --- shape bias, whose answers are categories -----------------------------------------------------------------------


def cue_conflicts(classes: tuple[str, ...], n: int = 8) -> MemoryDataset:
    pixels = photos(n)
    shapes = np.arange(n) % len(classes)
    return MemoryDataset(
        torch.stack([pixels.read(i) for i in range(n)]),
        shapes,
        classes,
        ids=list(pixels.ids),
        name="cues",
        fields={"shape": shapes, "texture": (shapes + 1) % len(classes)},
    )


def decisions(run: ipvit.Run) -> dict[str, str]:
    return dict(run.records("shape-bias").select(pl.col("image").cast(pl.String), "decision").iter_rows())


@pytest.mark.parametrize("classes", [("bird", "knife", "oven"), ("n02123045", "n02504013", "n04041544")])
def test_shape_bias_decides_among_categories_whatever_the_answers(tmp_path, classes):
    thousand = wrapped(tiny_vit(num_classes=1000), classes=imagenet_classes(), name="vit")
    few, stimuli = two_classes(), cue_conflicts(classes)
    few.classes = imagenet_classes()[:2]
    options = {"models": thousand, "workers": 0, "progress": False}
    found = {}
    for answers in (None, "data"):
        alone = ipvit.run(ipvit.ShapeBias(), data=stimuli, out=tmp_path / f"one {answers}", answers=answers, **options)
        found[f"alone {answers}"] = decisions(alone)
        assert ipvit.ShapeBias().analysis().among in alone.notes_of("shape-bias")
        assert set(alone.records("shape-bias")["answers"]) == {"all"}
    for answers in ("all", "data"):
        both = [ipvit.Accuracy(), ipvit.ShapeBias(stimuli="cues.py:make")]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("ipvit.api.bind_context", lambda *_: BindContext(lambda *_, **__: stimuli))
            run = ipvit.run(both, data=few, out=tmp_path / answers, answers=answers, **options)
        found[answers] = decisions(run)
        assert set(run.records("accuracy")["answers"]) == {answers}
    assert len({tuple(sorted(one.items())) for one in found.values()}) == 1
    probabilities = answer(thousand, pixels_of(stimuli, stimuli.ids[0])).double().softmax(0)
    names = list(ENTRY_LEVEL_CATEGORIES) if classes[0] == "bird" else list(classes)
    members = [entry_level_synsets()[name] if classes[0] == "bird" else (name,) for name in names]
    means = [np.mean([float(probabilities[imagenet_classes().index(one)]) for one in some]) for some in members]
    assert found["all"][stimuli.ids[0]] == names[int(np.argmax(means))]
    with pytest.raises(InputError, match="among the data's categories only; leave out --answers all"):
        ipvit.run(ipvit.ShapeBias(), data=stimuli, out=tmp_path / "refused", answers="all", **options)


def test_a_backend_converts_a_network_for_each_of_its_answer_spaces(monkeypatch):
    from ipvit.core.run_config import RunConfig
    from ipvit.engine import preparation

    made = []
    monkeypatch.setattr(preparation, "with_backend", lambda model, *_: made.append(model) or model)
    config = RunConfig(answers="data", backend="openvino")
    stimuli = cue_conflicts(("ant", "bee"))
    models = [whole()]
    able = [(experiment, models) for experiment in (ipvit.Accuracy(), ipvit.ShapeBias(), ipvit.Accuracy())]
    preparation._tasks(able, stimuli, config, BindContext(lambda *_: stimuli))
    assert [model.n_outputs for model in made] == [2, 8]


def test_a_single_class_leaves_nothing_to_choose(tmp_path):
    data = two_classes()
    data.classes, data.labels = ("fox",), np.zeros(6, dtype=np.int64)
    with pytest.raises(InputError, match=r"two has one class, 'fox': .* every answer would be right; --answers all"):
        measured(ipvit.Accuracy(), whole(), data, tmp_path, answers="data")
    assert set(measured(ipvit.Accuracy(), whole(), data, tmp_path)["answers"]) == {"all"}


def test_pgd_among_50_answers_sees_no_other_output(tmp_path):
    """Every step, loss and success is that of a plain loop over the 50 logits, however large others are."""
    names = tuple(f"o{number}" for number in range(80))
    inner = tiny_vit(seed=2, num_classes=80)
    with torch.no_grad():
        inner.head.bias[50:] += 30  # any of these would win among all outputs
    pixels = photos(8)
    data = MemoryDataset(
        torch.stack([pixels.read(i) for i in range(8)]), np.arange(8), names[:50], ids=list(pixels.ids), name="fifty"
    )
    model, kept = wrapped(inner, classes=names, name="vit"), slice(0, 50)
    with torch.no_grad():
        best = [int(answer(model, pixels_of(data, one))[kept].argmax()) for one in data.ids]
    data.labels = np.array(best)
    attack = ipvit.Attack(attacks=("pgd",), epsilons=(2.0,), steps=3, step_size=0.5, random_start=False)
    found = measured(attack, model, data, tmp_path, answers="data")
    assert found["prediction"].max() < 50
    assert found.filter(pl.col("attack") == "clean")["correct"].all()
    for row in found.filter(pl.col("attack") == "pgd").iter_rows(named=True):
        clean, label = torch.from_numpy(pixels_of(data, row["image"]))[None], row["label"]
        x, logits = clean.clone(), None
        for _ in range(3):
            x = x.detach().requires_grad_()
            loss = torch.nn.functional.cross_entropy(model(x)[:, kept], torch.tensor([label]))
            (gradient,) = torch.autograd.grad(loss, x)
            x = (x + 0.5 * 2 / 255 * gradient.sign()).clamp(clean - 2 / 255, clean + 2 / 255).clamp(0, 1)
            logits = model(x).detach()[0, kept]
            if int(logits.argmax()) != label:
                break
        assert row["prediction"] == int(logits.argmax()) and row["correct"] == (int(logits.argmax()) == label)
        assert row["label_probability"] == pytest.approx(float(logits.softmax(0)[label]), abs=2e-3)


def test_other_data_find_their_place_among_the_answers():
    from ipvit.models.label_mapping import answering

    model = answering(whole(), two_classes(), "data")
    assert (model.n_outputs, model.classes, model.output_classes) == (2, OF_DATA, NAMES)
    other = two_classes()
    other.classes = ("bee", "fox")
    assert outputs_for(other, model).tolist() == right_answers(other, model).tolist() == [1, 0]
    other.classes = ("bee", "ant")
    with pytest.raises(InputError, match=r"the class 'ant' of two is none of the 2 answers of vit; --answers all"):
        outputs_for(other, model)


def test_heads_that_are_fitted_choose_among_the_datas_classes(tmp_path):
    from helpers.plain_loops import coloured

    data = coloured(24, 1)
    chosen = np.flatnonzero(data.labels < 2)
    few = MemoryDataset(
        torch.stack([data.read(int(i)) for i in chosen]),
        data.labels[chosen],
        data.classes[:2],
        ids=[data.ids[i] for i in chosen],
        name="few",
    )
    runs = {}
    for answers in ("all", "data"):
        run = ipvit.run(
            ipvit.Probe(train=coloured(), heads=("lbfgs",), last=(), blocks=(2,)),
            models=wrapped(tiny_vit(), name="vit"),
            data=few,
            out=tmp_path / answers,
            workers=0,
            progress=False,
            answers=answers,
        )
        runs[answers] = run.records("probe")
    assert set(runs["data"]["prediction"]) <= {0, 1}
    assert set(runs["data"]["answers"]) == {"data"}
    assert (runs["data"]["label_probability"] >= runs["all"]["label_probability"] - 1e-6).all()


# --- the command line -----------------------------------------------------------------------------------------------


def test_the_command_line_and_json_say_among_what(tmp_path, monkeypatch, capsys):
    from helpers.plain_loops import working_folder

    working_folder(tmp_path, monkeypatch)
    (tmp_path / "wide.py").write_text(
        "from helpers.plain_loops import tiny_vit, wrapped\n\n\ndef make():\n"
        "    return wrapped(tiny_vit(num_classes=6), classes=None)\n"
    )
    (tmp_path / "images" / "classes.txt").write_text(
        "\n".join(f"{folder.name}\t{n}" for n, folder in enumerate(sorted((tmp_path / "images").glob("*/"))))
    )
    classes = len(list((tmp_path / "images").glob("*/")))
    command = ["accuracy", "-m", "wide.py:make", "-d", "images", "--workers", "0", "--json"]
    for answers in ("all", "data"):
        assert main([*command, "--answers", answers, "--out", answers]) == 0
        said = json.loads(capsys.readouterr().out)
        assert said["notes"]["accuracy"][0].startswith(
            {"all": "Answers are among all 6 outputs", "data": "Answers are among the"}[answers]
        )
        assert said["tables"]["accuracy"][0]["n_answers"] == (6 if answers == "all" else classes)
    assert main([*command, "--answers", "some"]) == 2
    assert "answers" in complaint(capsys)


def test_the_doctor_says_among_what_and_compares_no_other_number(tmp_path):
    from ipvit.models.published import Published

    stated = Published(80.0, "ImageNet", 50_000, "somebody")
    found = {
        answers: examine(whole(), two_classes(), torch.device("cpu"), published=stated, answers=answers)
        for answers in ("all", "data")
    }
    assert (found["all"].n_answers, found["data"].n_answers) == (8, 2)
    assert found["all"].published is stated and found["data"].published is None
    assert found["data"].among == [
        "Answers are among the 2 classes of the data, not all 8 outputs (--answers all); guessing gives 50.0 %."
    ]


@pytest.mark.parametrize(
    ("data", "top1", "n_answers"),
    [("imagenet-a:a", 3.053, 200), ("imagenet-v2:v2", 62.650, 1000), ("objectnet:objectnet", None, 3)],
)
def test_the_doctor_compares_with_what_is_published_on_the_set_itself(tmp_path, monkeypatch, data, top1, n_answers):
    from helpers.shift_trees import write_all
    from ipvit.commands import doctor

    monkeypatch.chdir(tmp_path)
    write_all(tmp_path)
    inner = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 1000))
    lite0 = ipvit.wrap(inner, classes=imagenet_classes(), size=224, name="tf_efficientnet_lite0")
    images = ipvit.load_dataset(data)
    stated = doctor._stated("tf_efficientnet_lite0", lite0, images, None)
    assert (stated and stated.top1) == top1
    found = examine(lite0, images, torch.device("cpu"), published=stated)
    assert (found.n_answers, found.published) == (n_answers, stated)
    if top1 is not None and n_answers == 200:
        assert examine(lite0, images, torch.device("cpu"), published=stated, answers="all").published is None


def test_the_playground_needs_data_to_choose_among_their_classes(capsys):
    assert main(["play", "--answers", "data", "--no-browser"]) == 2
    assert "--answers is for the classes of --data" in complaint(capsys)


def test_the_playground_knows_what_is_right_in_either_answer_space(capsys):
    from ipvit.engine.diagnosis import among_in_words
    from ipvit.models.label_mapping import answering
    from ipvit.play import Playground

    numbered = two_classes()
    numbered.classes, numbered.aliases = ("a", "b"), ("5", "1")
    for data, outputs in ((several("{}"), [{2, 3}, {4, 5, 6}]), (numbered, [{5}, {1}]), (with_sets(), None)):
        shelf, model = Shelf(data), whole()
        few = answering(model, data, "data")
        for number in range(6):
            place = shelf._place(str(number))[1]
            if outputs is None:
                assert shelf.right(str(number), model) == set(data.label_sets[place])
            else:
                assert shelf.right(str(number), model) == outputs[data.labels[place]]
                assert shelf.right(str(number), few) == {data.labels[place]}
    assert "among all 8 outputs" in among_in_words(whole(), two_classes())[0]
    few = answering(whole(), two_classes(), "data")
    assert among_in_words(few, two_classes())[0].startswith("Answers are among the 2 classes")
    assert Playground([whole()], Shelf(two_classes()))


def test_runs_that_differ_only_in_their_answers_are_told_apart_where_they_stand_together(tmp_path):
    for answers, model in (("all", whole()), ("data", wrapped(network(), classes=NAMES, name="other"))):
        with torch.no_grad():
            model.backbone.head.bias.add_(len(answers))  # other weights: the same network twice is told apart anyway
        ipvit.run(
            ipvit.Accuracy(),
            models=model,
            data=two_classes(),
            out=tmp_path / answers,
            workers=0,
            progress=False,
            answers=answers,
        )
    together = ipvit.RunCollection(tmp_path)
    assert set(together.tables["accuracy"]["data_set"]) == {"two (all)", "two (data)"}
