"""DINO's own training, and learning rates, written out by hand as their authors published them."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter
from timm.layers import DropPath
from torch import nn

from helpers.training import DINO, dino_recipe
from ipvit.core.preprocessing import View
from ipvit.data.synthetic.trifeature import Trifeature
from ipvit.training.config import DinoConfig
from ipvit.training.dino import Dino
from ipvit.training.loop import Loop
from ipvit.training.multicrop import MultiCrop, change_colours
from ipvit.training.optimization import clip_gradients, make_optimizer
from ipvit.training.recipe import Recipe
from ipvit.training.start import assemble

EPOCHS, BATCH, IMAGES = 5, 8, 24
STEPS = IMAGES // BATCH
LR, MIN_LR, WARMUP, WD, WD_END, CLIP, MOMENTUM = 1e-3, 1e-6, 2, 0.04, 0.4, 0.02, 0.9


def recipe(**changes) -> Recipe:
    objective = DINO | {
        "momentum": MOMENTUM,
        "warmup_teacher_temp": 0.02,
        "teacher_temp": 0.05,
        "warmup_teacher_temp_epochs": 3,
    }
    rates = {"lr": LR, "min_lr": MIN_LR, "warmup_epochs": WARMUP, "warmup_lr": 0.0, "scheduler": "dino"}
    decay = {"weight_decay": WD, "weight_decay_end": WD_END, "clip_grad": CLIP, "clip_mode": "parameter"}
    made = {"objective": objective, "epochs": EPOCHS, "batch_size": BATCH} | rates | decay
    return dino_recipe(**(made | changes))


def loop_of(made: Recipe, out: Path) -> Loop:
    data = Trifeature("natural", "train", IMAGES, 32), Trifeature("natural", "val", 10, 32)
    return assemble(made, *data, out, device="cpu")


def cosine_scheduler(base, final, epochs, steps, warmup_epochs=0, start=0.0):
    """The authors', in numpy."""
    rise = np.linspace(start, base, warmup_epochs * steps) if warmup_epochs else np.array([])
    left = np.arange(epochs * steps - warmup_epochs * steps)
    return np.concatenate([rise, final + 0.5 * (base - final) * (1 + np.cos(np.pi * left / len(left)))])


def authors_groups(student: nn.Module) -> list[dict]:
    decayed, others = [], []
    for name, weight in student.named_parameters():
        if weight.requires_grad:
            (others if name.endswith(".bias") or weight.ndim == 1 else decayed).append(weight)
    return [{"params": decayed}, {"params": others, "weight_decay": 0.0}]


def authors_update(student, teacher, optimizer, center, views, step):
    """One iteration of the authors' loop."""
    epoch = step // STEPS
    rates = cosine_scheduler(LR, MIN_LR, EPOCHS, STEPS, WARMUP)
    decay, momenta = (cosine_scheduler(*ends, EPOCHS, STEPS) for ends in ((WD, WD_END), (MOMENTUM, 1.0)))
    for number, group in enumerate(optimizer.param_groups):
        group["lr"] = rates[step]
        if number == 0:
            group["weight_decay"] = decay[step]
    temperatures = np.concatenate([np.linspace(0.02, 0.05, 3), np.ones(EPOCHS - 3) * 0.05])
    with torch.no_grad():
        taught = torch.cat(teacher(views[:2]))
    said = torch.cat(student(views)) / 0.1
    targets = F.softmax((taught - center) / temperatures[epoch], dim=-1).chunk(2)
    total, terms = 0, 0
    for i, target in enumerate(targets):
        for j, answer in enumerate(said.chunk(len(views))):
            if i != j:
                total, terms = total + torch.sum(-target * F.log_softmax(answer, dim=-1), dim=-1).mean(), terms + 1
    loss = total / terms
    optimizer.zero_grad()
    loss.backward()
    for weight in student.parameters():
        if weight.grad is not None:
            share = CLIP / (weight.grad.norm(2) + 1e-6)
            if share < 1:
                weight.grad.mul_(share)
    if epoch < 1:
        for name, weight in student.named_parameters():
            if "head.last" in name:
                weight.grad = None
    optimizer.step()
    with torch.no_grad():
        for one, other in zip(student.parameters(), teacher.parameters(), strict=True):
            other.mul_(momenta[step]).add_((1 - momenta[step]) * one)
    return loss.item(), center * 0.9 + taught.mean(0, keepdim=True) * 0.1


def test_a_dino_training_is_the_authors_update_by_update(tmp_path):
    """Loss, schedules, clipping, decay groups, frozen layer, teacher and centre, on the same recorded batches."""
    loop = loop_of(recipe(), tmp_path)
    objective = loop.objective
    assert isinstance(objective, Dino)
    student, teacher = copy.deepcopy(objective.module).train(), copy.deepcopy(objective._teacher).train()
    optimizer, center = torch.optim.AdamW(authors_groups(student)), torch.zeros(1, 32)
    loop.wrapped.train()
    clipped = 0
    for epoch in range(EPOCHS):
        recorded = list(loop.train.batches(loop._epoch(epoch), epoch))
        for number, batch in enumerate(recorded):
            step = epoch * STEPS + number
            ours = loop._update(iter([batch]), epoch, step).item()
            views = [view.float() / 255 for view in batch.views]
            theirs, center = authors_update(student, teacher, optimizer, center, views, step)
            assert ours == pytest.approx(theirs, rel=1e-4)
            clipped += any(w.grad is not None and w.grad.norm() > 0.99 * CLIP for w in student.parameters())
    assert clipped, "a test of clipping clips"
    for mine, other in ((objective.module, student), (objective._teacher, teacher)):
        for (name, one), two in zip(mine.named_parameters(), other.parameters(), strict=True):
            assert torch.allclose(one, two, atol=2e-5), name
    assert torch.allclose(objective._center, center[0], atol=1e-6)


def test_stochastic_depth_is_the_students_alone(tmp_path):
    made = recipe()
    made.model.kwargs["drop_path_rate"] = 0.5
    objective = loop_of(made, tmp_path).objective
    student, teacher = (
        [layer.drop_prob for layer in network.modules() if isinstance(layer, DropPath)]
        for network in (objective.module, objective._teacher)
    )
    assert max(student) == 0.5 and not any(teacher)
    objective._teacher.train()
    views = [torch.rand(4, 3, 32, 32)]
    assert torch.equal(objective._teacher(views)[0], objective._teacher(views)[0])


@pytest.mark.parametrize(("decay", "spared"), [(True, False), (False, True)])
def test_tokens_and_positions_decay_as_in_dino_or_not_as_in_deit(tmp_path, decay, spared):
    objective = recipe().objective.model_copy(update={"decay_tokens": decay})
    loop = loop_of(recipe(objective=objective), tmp_path)
    names = {id(weight): name for name, weight in loop.objective.module.named_parameters()}
    still = {
        names[id(weight)]
        for group in loop.optimizer.param_groups
        if not group["weight_decay"]
        for weight in group["params"]
    }
    tokens = {"model.backbone.cls_token", "model.backbone.pos_embed"}
    assert tokens <= still if spared else not tokens & still


def test_small_views_are_blurred_as_strongly_as_large_ones():
    """By Pillow's Gaussian blur as well, with the same radius."""
    picture = Trifeature(n=1, size=64).read(0)
    still = {"jitter": (0, 0, 0, 0), "grayscale": 0, "solarize": 0}
    for key in range(12):
        blurred = change_colours(picture, np.random.default_rng(key), blur=1, **still)
        rng = np.random.default_rng(key)
        flipped = picture.flip(2) if rng.random() < 0.5 else picture
        if rng.random() < 0.8:
            rng.uniform(size=4), rng.permutation(4)
        rng.random(), rng.random()
        image = Image.fromarray(flipped.permute(1, 2, 0).numpy())
        theirs = np.asarray(image.filter(ImageFilter.GaussianBlur(rng.uniform(0.1, 2.0)))).astype(int)
        inner = np.abs(blurred.permute(1, 2, 0).numpy().astype(int) - theirs)[6:-6, 6:-6]
        assert inner.mean() < 2.5 and inner.max() < 25


@pytest.mark.parametrize(("scale_blur", "same"), [(False, True), (True, False)])
def test_blur_in_proportion_to_the_view_is_an_option(scale_blur, same):
    part = DinoConfig(kind="dino", local_views=1, local_size=32, local_scale=(1, 1), global_scale=(1, 1))
    picture = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    views = [
        MultiCrop(part.model_copy(update={"scale_blur": value}), View((32, 32)))(picture, None, np.uint64(3))
        for value in (scale_blur, False)
    ]
    assert torch.equal(views[0][0], views[1][0]) == same


@pytest.mark.parametrize("most", [0.01, 100.0])
def test_each_weight_is_clipped_by_its_own_norm(most):
    weights = [nn.Parameter(torch.randn(5, 4)), nn.Parameter(torch.randn(3)), nn.Parameter(torch.randn(2))]
    for weight in weights[:2]:
        weight.grad = torch.randn_like(weight)
    before = [weight.grad.clone() for weight in weights[:2]]
    clip_gradients(weights, most, "parameter")
    for weight, gradient in zip(weights[:2], before, strict=True):
        assert torch.allclose(weight.grad, gradient * min(1.0, most / (gradient.norm().item() + 1e-6)))
    assert weights[2].grad is None


# --- learning rates --------------------------------------------------------------------------------------------------


def rates(**changes) -> list[float]:
    made = Recipe.model_validate(
        {"model": {"name": "a"}, "data": {"train": "a", "val": "b"}, "epochs": 10, "lr": 1.0, "min_lr": 0.0} | changes
    )
    optimizer, schedule = make_optimizer(made, nn.Linear(2, 2), steps=4, images=1)
    found = []
    for step in range(made.epochs * 4):
        schedule.step_update(step)
        found.append(optimizer.param_groups[0]["lr"])
    return found


def test_dinos_rate_is_the_authors():
    found = rates(scheduler="dino", warmup_epochs=3, warmup_lr=0.1, min_lr=0.01)
    assert found == pytest.approx(cosine_scheduler(1.0, 0.01, 10, 4, 3, 0.1))


def test_the_cosine_of_timm_counts_the_warm_up():
    found = rates(scheduler="cosine", warmup_epochs=3, warmup_lr=0.0)
    assert found[12:] == pytest.approx([0.5 * (1 + math.cos(math.pi * step / 40)) for step in range(12, 40)])
    assert found[:12] == pytest.approx([step / 12 for step in range(12)])


def test_a_rate_falls_in_steps():
    assert rates(scheduler="step", decay_epochs=3) == pytest.approx([0.1 ** (step // 12) for step in range(40)])
    found = rates(scheduler="multistep", decay_milestones=[2, 7], decay_rate=0.5)
    # timm lowers it at the update before a milestone's first, which is what its bisection gives
    assert found == pytest.approx([0.5 ** sum(step + 1 >= 4 * at for at in (2, 7)) for step in range(40)])


@pytest.mark.parametrize(("power", "changes"), [(1.0, {}), (2.0, {"decay_rate": 2.0})])
def test_a_polynomial_rate_falls_to_its_end(power, changes):
    found = rates(scheduler="poly", **changes)
    assert found == pytest.approx([(1 - step / 40) ** power for step in range(40)])


def test_a_constant_rate_rises_and_stays():
    assert rates(scheduler="constant", warmup_epochs=1, warmup_lr=0.0)[3:6] == pytest.approx([0.75, 1.0, 1.0])
