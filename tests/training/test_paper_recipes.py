"""The recipes of the paper's networks, scaled down: they run to their end where a user would run them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from helpers.forks import python
from ipvit.cli import main
from ipvit.data.synthetic.trifeature import Trifeature
from ipvit.errors import InputError
from ipvit.models.loading import load_checkpoint
from ipvit.models.model import Model
from ipvit.models.zoo.micro import build_network
from ipvit.training.bundled import ran_to_end
from ipvit.training.dry_run import dry_run
from ipvit.training.optimization import make_optimizer
from ipvit.training.recipe import Recipe, load_recipe, recipe_names
from ipvit.training.start import assemble

SCALED_DOWN = """
import resource, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
resource.setrlimit(resource.RLIMIT_NOFILE, (1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
from ipvit.data.synthetic.trifeature import Trifeature
from ipvit.training.recipe import Recipe, load_recipe
from ipvit.training.start import assemble

small = {"img_size": 224, "patch_size": 32, "embed_dim": 16, "depth": 1, "num_heads": 2}


def run(name, workers, out):
    content = load_recipe(name).model_dump()
    if content["objective"]["kind"] == "dino":
        content["model"] = {"name": "deit_micro", "kwargs": small | {"dynamic_img_size": True}}
        content["objective"] |= {"out_dim": 32, "hidden_dim": 16, "bottleneck_dim": 8}
    else:
        content["model"] = {"name": "deit_micro", "kwargs": small | {"distilled": True}}
        content["objective"] |= {"teacher": "demo:resnet_micro_sin"}
    content["data"] |= {"workers": workers}
    content |= {"epochs": 1, "warmup_epochs": 0, "precision": "no", "lr_batch": None}
    recipe = Recipe.model_validate(content)
    train, val = Trifeature("natural", "train", 2 * recipe.batch_size, 32), Trifeature("natural", "val", 10, 32)
    assemble(recipe, train, val, out, device="cpu").run(progress=False)


for name in ("deit_t_shape", "dino_vits16"):
    for workers in (2, 8):
        run(name, workers, Path(sys.argv[1]) / f"{name}-{workers}")
"""


SINCE_THE_PAPER = [
    ("deit_t_nopos", (196, None)),
    ("deit_t_patch22", (100, 22)),
    ("deit_t_patch28", (64, 28)),
    ("deit_t_patch32", (49, 32)),
    ("deit_t_patch38", (25, 38)),
]


@pytest.mark.parametrize("name", [*(name for name, _ in SINCE_THE_PAPER), "resnet50_sin"])
def test_a_dry_run_builds_the_papers_network(name):
    cost = dry_run(load_recipe(name), device="cpu", batch_size=2)
    assert (cost.classes, cost.classes_known) == (1000, False)
    assert cost.parameters > 5e6 and cost.read_seconds > 0 and cost.workers_needed >= 1


WANT_A_FILE = {"tin50_deit_micro_shape", "tin50_deit_micro_attention"}
"""Their teachers are files that the user has, or trains by another recipe before."""


def _for_a_processor() -> list[Any]:
    recipes = {name: load_recipe(name) for name in recipe_names()}
    small = {name: recipe for name, recipe in recipes.items() if recipe.epochs < 60}
    slow = {name: not hasattr(recipe.objective, "teacher") for name, recipe in small.items()}
    return [pytest.param(name, marks=[pytest.mark.slow] * slow[name]) for name in small]


@pytest.mark.parametrize("name", _for_a_processor())
def test_a_dry_run_takes_updates_of_every_recipe_for_a_processor(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if name in WANT_A_FILE:
        with pytest.raises(InputError, match=r"there is no .*file.*safetensors"):
            dry_run(load_recipe(name), device="cpu", batch_size=2)
        return
    cost = dry_run(load_recipe(name), device="cpu", batch_size=2)
    assert cost.seconds_per_update > 0 and cost.parameters > 1e5


def one_step(name: str, out: Path) -> Model:
    content = load_recipe(name).model_dump()
    content["data"] |= {"workers": 0, "train": "demo:trifeature/natural-train", "val": "demo:trifeature"}
    content["model"] |= {"start": None}
    content |= {"epochs": 1, "batch_size": 2, "warmup_epochs": 0, "precision": "no", "lr_batch": None}
    content |= {"scheduler": "cosine", "decay_epochs": None, "decay_rate": None}
    recipe = Recipe.model_validate(content)
    sets = Trifeature("natural", "train", 2, 32), Trifeature("natural", "val", 2, 32)
    return load_checkpoint(assemble(recipe, *sets, out, device="cpu").run(progress=False))


@pytest.mark.parametrize(("name", "shape"), SINCE_THE_PAPER)
def test_a_deit_t_without_positions_or_with_large_patches_takes_a_step(tmp_path, name, shape):
    network: Any = one_step(name, tmp_path).backbone
    tokens, patch = shape
    if patch is None:
        assert network.pos_embed is None and network.patch_embed.num_patches == tokens
    else:  # the shapes of the authors' checkpoints
        assert network.pos_embed.shape == (1, 1 + tokens, 192)
        assert network.patch_embed.proj.weight.shape == (192, 3, patch, patch)
    assert network(torch.zeros(1, 3, 224, 224)).shape == (1, 10)


def test_the_teacher_of_the_shape_token_takes_a_step(tmp_path):
    model = one_step("resnet50_sin", tmp_path)
    assert model.backbone(torch.zeros(1, 3, 224, 224)).shape == (1, 10)
    recipe = load_recipe("resnet50_sin")
    optimizer, schedule = make_optimizer(recipe, torch.nn.Linear(2, 2), steps=1, images=256)
    found = []
    for epoch in range(60):
        schedule.step_update(epoch)
        found.append(optimizer.param_groups[0]["lr"])
    assert found == pytest.approx([0.1] * 20 + [0.01] * 20 + [0.001] * 20)  # Geirhos et al.
    assert optimizer.param_groups[0]["momentum"] == 0.9


@pytest.mark.parametrize("name", recipe_names())
def test_the_list_says_which_recipes_were_run_to_their_end(name):
    assert ran_to_end(name) == (load_recipe(name).epochs < 60)


def test_a_dry_run_counts_the_classes_of_the_data(capsys):
    assert main(["train", "deit_micro", "--dry-run", "--batch-size", "2"]) == 0
    said = " ".join("".join(capsys.readouterr()).split())
    assert "10 classes" in said and "assumed" not in said and "ms an image in one process; " in said
    weights = build_network("deit_micro", 10).parameters()
    assert f"{sum(weight.numel() for weight in weights) / 1e6:.2f} M weights" in said


def test_a_dry_run_reads_the_one_image_that_there_is(tmp_path):
    recipe = load_recipe("deit_micro")
    picture = tmp_path / "a" / "0.png"
    picture.parent.mkdir()
    Image.new("RGB", (40, 40)).save(picture)
    data = recipe.data.model_copy(update={"train": str(tmp_path)})
    cost = dry_run(recipe.model_copy(update={"data": data, "mixup": None}), device="cpu", batch_size=2)
    assert cost.classes == 1 and cost.read_seconds > 0


@pytest.mark.slow
def test_batches_of_the_papers_size_need_few_open_files(tmp_path: Path):
    """The recipes' policy, batch and views; images and network are small. Every tensor that crosses is an open file."""
    done = python(["-c", SCALED_DOWN, tmp_path], timeout=600)
    assert done.returncode == 0, done.stderr
    for name in ("deit_t_shape", "dino_vits16"):
        for workers in (2, 8):
            rows = [
                json.loads(line) for line in (tmp_path / f"{name}-{workers}" / "log.jsonl").read_text().splitlines()
            ]
            assert [row["epoch"] for row in rows] == [1]
