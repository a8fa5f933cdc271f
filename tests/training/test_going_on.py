"""A training that goes on: with other workers, more epochs, another number of processes; and what it refuses."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from safetensors.torch import load_file

from helpers.training import die_at, tiny_recipe
from ipvit.data.synthetic.trifeature import Trifeature
from ipvit.errors import InputError
from ipvit.training import loop as loop_module
from ipvit.training.loop import Loop
from ipvit.training.recipe import Recipe
from ipvit.training.start import assemble, train


def loop_of(recipe: Recipe, out: Path) -> Loop:
    return assemble(
        recipe, Trifeature("natural", "train", 64, 32), Trifeature("natural", "val", 20, 32), out, device="cpu"
    )


def begun(recipe: Recipe, out: Path, monkeypatch, epoch: int = 1) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        die_at(epoch, 2, patch)
        loop_of(recipe, out).run(progress=False)


def changed(recipe: Recipe, **data) -> Recipe:
    return recipe.model_copy(update={"data": recipe.data.model_copy(update=data)})


def test_other_workers_and_memory_do_not_change_where_a_training_ends(tmp_path, monkeypatch):
    recipe = tiny_recipe(epochs=2)
    loop_of(recipe, tmp_path / "whole").run(progress=False)
    begun(recipe, tmp_path / "parts", monkeypatch)
    other = changed(recipe, workers=2, memory=0.0).model_copy(update={"tracker": None})
    loop_of(other, tmp_path / "parts").run(progress=False)
    whole, parts = (load_file(tmp_path / name / "last.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    assert yaml.safe_load((tmp_path / "parts" / "recipe.yaml").read_text())["data"]["workers"] == 2


def test_more_epochs_are_a_new_schedule_and_said_to_be(tmp_path, capsys):
    loop_of(tiny_recipe(epochs=2), tmp_path).run(progress=False)
    assert not capsys.readouterr().err
    loop_of(tiny_recipe(epochs=4), tmp_path).run(progress=False)
    assert "4 epochs instead of 2: a new schedule" in capsys.readouterr().err
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    fresh = loop_of(tiny_recipe(epochs=4), tmp_path / "fresh")
    fresh.scheduler.step_update(4 * fresh.steps - 1)
    assert len(rows) == 4 and rows[-1]["lr"] == fresh.optimizer.param_groups[0]["lr"]
    with pytest.raises(InputError, match="of 4 epochs, more than 3"):
        loop_of(tiny_recipe(epochs=3), tmp_path).run(progress=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 16}, r"batch_size: 8 there, 16 here"),
        ({"augment": {"pad": 1, "hflip": 0.5}}, r"augment.pad: 2 there, 1 here"),
        ({"ema": None}, r"ema"),
        ({"seed": 3}, r"seed: 0 there, 3 here"),
    ],
)
def test_what_changes_results_is_refused_by_its_name(tmp_path, changes, message):
    loop_of(tiny_recipe(epochs=1), tmp_path).run(progress=False)
    with pytest.raises(InputError, match=message):
        loop_of(tiny_recipe(epochs=1, **changes), tmp_path).run(progress=False)


def with_processes(loop: Loop, processes: int) -> Loop:
    """Make a loop believe that as many processes train: its rate, schedule and notes follow."""
    loop.images_per_update = loop.recipe.batch_size * processes
    loop.steps = len(loop.train) // loop.images_per_update
    loop.accelerator = SimpleNamespace(num_processes=processes, is_main_process=True, scaler=None)
    optimizer, loop.scheduler = loop_module.make_optimizer(
        loop.recipe, loop.objective.module, loop.steps, loop.images_per_update
    )
    loop.optimizer = optimizer
    return loop


def test_a_training_that_goes_on_with_other_processes_has_their_rate_and_schedule(tmp_path, monkeypatch, capsys):
    recipe = tiny_recipe(epochs=3, lr_batch=8, lr=1e-4)
    begun(recipe, tmp_path, monkeypatch, epoch=2)
    resumed = with_processes(loop_of(recipe, tmp_path), 4)
    resumed._restore()
    fresh = with_processes(loop_of(recipe, tmp_path / "fresh"), 4)
    for loop in (resumed, fresh):
        loop.scheduler.step_update(2 * loop.steps)
    rate = resumed.optimizer.param_groups[0]["lr"]
    assert rate == fresh.optimizer.param_groups[0]["lr"] and 1e-4 < rate < 4e-4
    said = " ".join(capsys.readouterr().err.split())
    assert "goes on with 4 process(es) where it stopped with 1: 32 images an update instead of 8" in said


def test_the_moments_of_the_optimiser_go_on(tmp_path, monkeypatch):
    recipe = tiny_recipe(epochs=2)
    begun(recipe, tmp_path, monkeypatch)
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed = loop_of(recipe, tmp_path)
    resumed._restore()
    moments = resumed.optimizer.state_dict()["state"]
    assert moments.keys() == saved["optimizer"]["state"].keys() and len(moments)
    assert all(torch.equal(moments[key]["exp_avg"], saved["optimizer"]["state"][key]["exp_avg"]) for key in moments)
    assert (saved["processes"], saved["images_per_update"]) == (1, 8)


def earlier(out: Path) -> None:
    """Make a folder what version 2 of the state left: without the keys that came since."""
    state = torch.load(out / "state.pt", weights_only=True)
    state |= {"format": 2, "scheduler": {}}
    del state["processes"], state["images_per_update"]
    torch.save(state, out / "state.pt")
    content = yaml.safe_load((out / "recipe.yaml").read_text())
    for key in ("clip_mode", "decay_epochs", "decay_milestones", "decay_rate", "loss", "bce_threshold", "compile"):
        del content[key]
    for key in ("simple_crop", "color_jitter", "erase_mode", "erase_count"):
        del content["augment"][key]
    (out / "recipe.yaml").write_text(yaml.safe_dump(content))


def test_a_folder_of_an_earlier_version_goes_on(tmp_path, monkeypatch):
    recipe = tiny_recipe(epochs=2)
    loop_of(recipe, tmp_path / "whole").run(progress=False)
    begun(recipe, tmp_path / "parts", monkeypatch)
    earlier(tmp_path / "parts")
    loop_of(recipe, tmp_path / "parts").run(progress=False)
    whole, parts = (load_file(tmp_path / name / "last.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_dino_of_an_earlier_version_is_refused(tmp_path):
    kwargs = {"img_size": 32, "embed_dim": 16, "depth": 1, "num_heads": 2, "dynamic_img_size": True}
    objective = {
        "kind": "dino",
        "out_dim": 16,
        "hidden_dim": 8,
        "bottleneck_dim": 4,
        "local_views": 1,
        "local_size": 16,
    }
    plain = {"augment": {}, "ema": None, "label_smoothing": 0}
    recipe = tiny_recipe(epochs=1, model={"name": "deit_micro", "kwargs": kwargs}, objective=objective, **plain)
    loop_of(recipe, tmp_path).run(progress=False)
    earlier(tmp_path)
    with pytest.raises(InputError, match="begun by an earlier version, which clipped, decayed and blurred otherwise"):
        loop_of(recipe, tmp_path).run(progress=False)


def test_styled_copies_are_made_once(tmp_path, monkeypatch):
    from ipvit.data.derived import restyled

    recipe = changed(tiny_recipe(epochs=1), memory=0.0)
    content = recipe.model_dump() | {"data": recipe.data.model_dump() | {"stylize": {"texture_scale": 0.11}}}
    recipe = Recipe.model_validate(content)
    first = loop_of(recipe, tmp_path)
    (before,) = first.train.batches(first._epoch(0)[:1])
    assert len(list((tmp_path / "styled").rglob("*.png"))) == 8  # those of the batch

    def never(*_):
        raise AssertionError("made anew")

    monkeypatch.setattr(restyled.Painter, "styled", never)
    again = loop_of(recipe, tmp_path)
    (after,) = again.train.batches([copy.deepcopy(again._epoch(0)[0])])
    assert torch.equal(before.views[0], after.views[0])


def test_a_compiled_network_is_what_trains_and_the_plain_one_is_saved(tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda module: compiled.append(module) or module)
    best = loop_of(tiny_recipe(epochs=1, compile=True), tmp_path).run(progress=False)
    assert len(compiled) == 1 and not any("_orig_mod" in key for key in load_file(best))


def test_train_says_which_recipe_it_continues_and_writes_it_only_then(tmp_path, small_sets):
    train(tiny_recipe(epochs=1), tmp_path, device="cpu", progress=False)
    before = (tmp_path / "recipe.yaml").read_bytes()
    train(tiny_recipe(epochs=1), tmp_path, device="cpu", progress=False)
    assert (tmp_path / "recipe.yaml").read_bytes() == before
