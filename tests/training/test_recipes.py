"""Recipes: mistakes are named in one line with their file, and a recipe survives being written out."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.files import contents
from helpers.training import tiny_recipe
from ipvit.cli import main
from ipvit.errors import InputError
from ipvit.training.recipe import dump_recipe, load_recipe, recipe_names
from ipvit.training.start import train


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


GOOD = "model: {name: deit_micro}\ndata: {train: a, val: b}\nepochs: 1\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "learning_rat: 1\n", r"unknown key 'learning_rat'"),
        (GOOD + "label_smoothin: 0.1\n", r"unknown key 'label_smoothin'.*Did you mean 'label_smoothing'\?"),
        (GOOD + "mixup: {mixup_alfa: 1}\n", r"unknown key 'mixup.mixup_alfa'.*Did you mean 'mixup_alpha'"),
        (GOOD.replace("val: b", "valid: b"), r"key 'data.val' is missing"),
        (
            GOOD.replace("train: a", "train: {name: a, slit: b}"),
            r"unknown key 'data.train.slit'; .*Did you mean 'split'",
        ),
        (GOOD.replace("train: a", "train: {split: b}"), r"key 'data.train.name' is missing"),
        (GOOD.replace("train: a", "train: [a]"), r"data.train: "),
        (GOOD.replace("deit_micro", "deit_micro, kwargs: {num_classes: 5}"), r"model.kwargs has no num_classes"),
        (GOOD + "lr: fast\n", r"lr: .*not 'fast'"),
        (GOOD + "objective: {kind: distilation}\n", r"objective.kind must be one of.*Did you mean 'distillation'"),
        (GOOD + "objective: {}\n", r"objective.kind must be one of supervised, distillation, dino$"),
        (GOOD + "objective: {kind: distillation}\n", r"key 'objective.teacher' is missing"),
        (
            GOOD + "objective: {kind: dino, local_crops: 8}\n",
            r"unknown key 'objective.local_crops'; known here: kind, out",
        ),
        (GOOD + "objective: {kind: dino, global_views_of: stylized}\n", r"needs data.stylize"),
        (GOOD + "objective: {kind: dino}\naugment: {hflip: 0.5}\n", r"makes its own views"),
        (
            GOOD + "objective: {kind: distillation, teacher: a, sees: original}\nmixup: {}\n",
            r"mixup needs a teacher that sees the mixed images",
        ),
        (GOOD + "augment: {crop_scale: [0.5, 0.2]}\n", r"crop_scale must be two rising numbers"),
        (GOOD + "batch_size: 7\nmixup: {}\n", r"mixup needs an even batch_size"),
        (GOOD + "mixup: {cutmix_minmax: [0.8, 0.2]}\n", r"cutmix_minmax: 0.8 and 0.2 are no range of shares"),
        (GOOD + "mixup: {cutmix_minmax: [0, 1.5]}\n", r"cutmix_minmax: 0 and 1.5 are no range of shares"),
        (GOOD + "mixup: {cutmix_alpha: 0, cutmix_minmax: [0.1, 0.5]}\n", r"which cutmix_alpha: 0 turns off"),
        (GOOD + "scheduler: step\n", r"scheduler: step needs decay_epochs"),
        (GOOD + "scheduler: multistep\n", r"scheduler: multistep needs decay_milestones"),
        (GOOD + "decay_epochs: 3\n", r"decay_epochs is for scheduler: step"),
        (GOOD + "decay_rate: 0.5\n", r"decay_rate is for scheduler: step, multistep or poly"),
        (
            GOOD + "scheduler: step\ndecay_epochs: 3\n",
            r"decay_epochs must lie within the 1 epochs, or the rate never falls",
        ),
        (GOOD + "scheduler: multistep\ndecay_milestones: []\n", r"decay_milestones must lie within"),
        (GOOD + "warmup_epochs: 5\n", r"warmup_epochs \(5\) are more than epochs \(1\)"),
        (GOOD + "lr: 1.0e-6\n", r"min_lr \(1e-05\) is above lr \(1e-06\)"),
        (GOOD + "weight_decay: 0\nweight_decay_end: 0.4\n", r"weight_decay_end needs a weight_decay above 0"),
        (GOOD + "clip_grad: null\nclip_mode: agc\n", r"clip_mode: agc needs clip_grad"),
        (GOOD + "bce_threshold: 0.2\n", r"bce_threshold is for loss: bce"),
        (GOOD + "augment: {auto: rand-m9, color_jitter: 0.3}\n", r"timm does not jitter colours beside auto: rand-m9"),
        (GOOD + "augment: {simple_crop: true, pad: 4}\n", r"simple_crop cuts windows itself"),
        ("- 1\n", r"a recipe is a mapping"),
        ("a: [1\n", r"not YAML"),
        ("!!python/object/apply:os.system ['true']\n", r"not YAML"),
    ],
)
def test_a_mistake_in_a_recipe_is_named_in_one_line_with_its_file(tmp_path, text, message):
    path = write(tmp_path / "mine.yaml", text)
    with pytest.raises(InputError, match=message) as caught:
        load_recipe(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_bundled_recipes_load_by_name_and_survive_being_written_out(tmp_path):
    assert {"deit_micro", "resnet_micro"} <= set(recipe_names())
    for name in recipe_names():
        recipe = load_recipe(name)
        assert load_recipe(write(tmp_path / "again.yaml", dump_recipe(recipe))) == recipe
    with pytest.raises(InputError, match=r"Did you mean 'deit_micro'"):
        load_recipe("deit_mico")


def test_the_command_line_takes_another_seed_and_other_epochs(tmp_path, monkeypatch, small_sets, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "mine.yaml", dump_recipe(tiny_recipe(epochs=1)))
    assert main(["train", "mine.yaml", "--seed", "3", "--epochs", "2", "--device", "cpu", "--no-progress"]) == 0
    kept = load_recipe("runs/train-mine-seed3/recipe.yaml")
    assert (kept.seed, kept.epochs) == (3, 2)
    assert len((tmp_path / "runs/train-mine-seed3/log.jsonl").read_text().splitlines()) == 2
    capsys.readouterr()
    assert main(["train", "mine.yaml", "--epochs", "0"]) == 2
    assert "mine.yaml: epochs: " in capsys.readouterr().err


def test_a_folder_of_another_recipe_is_refused_and_left_as_it_was(tmp_path, small_sets):
    train(tiny_recipe(epochs=1), tmp_path, device="cpu", progress=False)
    before = contents(tmp_path)
    with pytest.raises(InputError, match=r"another recipe \(lr: 0.001 there, 0.002 here\); choose another folder"):
        train(tiny_recipe(epochs=1, lr=2e-3), tmp_path, device="cpu", progress=False)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"name": "deit_mircro"}}, r"Did you mean 'deit_micro'"),
        ({"model": {"name": "deit_micro", "kwargs": {"deph": 2}}}, r"does not take these arguments"),
        ({"model": {"name": "deit_micro"}}, r"model.kwargs.img_size to 32"),
        ({"optimizer": "adamv"}, r"Did you mean 'adam'"),
        ({"batch_size": 100}, r"64 images, fewer than the 100 of one update"),
    ],
)
def test_a_recipe_that_cannot_work_is_refused_before_training(tmp_path, small_sets, changes, message):
    with pytest.raises(InputError, match=message):
        train(tiny_recipe(**changes), tmp_path, device="cpu", progress=False)
