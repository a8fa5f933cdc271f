"""Learning where to look: loss and maps held against plain computations, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from helpers.training import KWARGS, plain_recipe
from ipvit.data.synthetic.trifeature import Trifeature
from ipvit.errors import InputError
from ipvit.models.loading import load_model
from ipvit.models.model import Model
from ipvit.training.distillation import Distillation, attention_loss
from ipvit.training.loop import Loop
from ipvit.training.recipe import Recipe
from ipvit.training.start import _check_folder, assemble
from ipvit.training.teacher import AttentionTeacher

ATTENTION = {"kind": "distillation", "teacher": "demo:deit_micro", "alpha": 0.0, "attention": 2.0, "sees": "original"}
STUDENT = {"name": "deit_micro", "kwargs": KWARGS | {"patch_size": 4}}
"""32 pixels in patches of 4: the 8 x 8 patches of the teacher, which has 64 in patches of 8."""


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def attentive(model: dict = STUDENT, **objective) -> Recipe:
    return plain_recipe(model=model, objective=ATTENTION | objective)


def teacher_of(loop: Loop) -> AttentionTeacher:
    objective = loop.objective
    assert isinstance(objective, Distillation) and objective._attention is not None
    return objective._attention


def loop_of(made: Recipe, out: Path, n: int = 32) -> Loop:
    train, val = Trifeature("natural", "train", n, 32), Trifeature("natural", "val", 20, 32)
    return assemble(made, train, val, out, device="cpu")


def looks_at(model: Model, images: torch.Tensor) -> torch.Tensor:
    """Return the shares of the patches ``(B, heads, patches)``, by the last block's own weights."""
    seen = []
    backbone: Any = model.backbone
    block = backbone.blocks[-1]
    handle = block.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        backbone(model.normalize(images))
    handle.remove()
    q, k, _ = (
        part.unflatten(-1, (block.attn.num_heads, -1)).transpose(1, 2)
        for part in block.attn.qkv(block.norm1(seen[0])).chunk(3, -1)
    )
    scores = (q[:, :, :1] @ k.transpose(-2, -1)) / q.shape[-1] ** 0.5
    return scores[:, :, 0, 1:].softmax(dim=-1)  # of the patches alone: their shares in what goes to patches


def enlarged(size: int, index: int) -> torch.Tensor:
    picture = Trifeature("natural", "train", 32, 32).read(index)[None].float()
    return F.interpolate(picture, (size, size), mode="bicubic", antialias=True).clamp(0, 255).round() / 255


def test_the_loss_of_attention_is_the_mean_divergence_of_each_heads_shares():
    student, teacher = torch.rand(3, 2, 5).double(), torch.rand(3, 5).double()
    student, teacher = student / student.sum(-1, keepdim=True), teacher / teacher.sum(-1, keepdim=True)
    terms = [
        sum(t.item() * np.log(t.item() / s.item()) for s, t in zip(student[image, head], teacher[image], strict=True))
        for image in range(3)
        for head in range(2)
    ]
    assert attention_loss(student, teacher).item() == pytest.approx(np.mean(terms))
    assert attention_loss(teacher[:, None], teacher).item() == pytest.approx(0)


def test_a_patch_that_nobody_looks_at_costs_nothing_and_is_no_nan():
    teacher, student = torch.tensor([[0.0, 1.0]]), torch.tensor([[[0.0, 1.0]]], requires_grad=True)
    loss = attention_loss(student, teacher)
    loss.backward()
    assert loss.item() == 0 and student.grad is not None and student.grad.isfinite().all()


@pytest.mark.parametrize("head", [None, 1])
def test_the_teachers_maps_are_the_softmax_of_its_own_queries_and_keys(tmp_path, head):
    loop = loop_of(attentive(attention_head=head), tmp_path)
    said = teacher_of(loop)(torch.zeros(1, 3, 32, 32), torch.tensor([5]))
    by_hand = looks_at(load_model("demo:deit_micro"), enlarged(64, 5))
    assert torch.allclose(said, by_hand.mean(dim=1) if head is None else by_hand[:, head], atol=2e-3)
    assert [path.name[:10] for path in tmp_path.glob("*.npy")] == ["attention-"]  # answers are not asked for


def test_the_teacher_sees_the_part_of_the_picture_that_the_student_sees(tmp_path):
    part = plain_recipe().data.model_dump() | {"crop_pct": 0.5}
    loop = loop_of(plain_recipe(model=STUDENT, objective=ATTENTION, data=part), tmp_path)
    said = teacher_of(loop)(torch.zeros(1, 3, 32, 32), torch.tensor([5]))
    middle = F.interpolate(
        Trifeature("natural", "train", 32, 32).read(5)[None].float(), (128, 128), mode="bicubic", antialias=True
    )[..., 32:96, 32:96]
    by_hand = looks_at(load_model("demo:deit_micro"), middle.clamp(0, 255).round() / 255).mean(dim=1)
    assert torch.allclose(said, by_hand, atol=2e-3)


def test_a_training_that_is_killed_between_two_judgements_goes_on_and_keeps_the_first(tmp_path, monkeypatch):
    made = attentive(alpha=0.5)

    def killed(self, device):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(AttentionTeacher, "_all_judged", killed)
        loop_of(made, tmp_path).run(progress=False)
    (answers,) = tmp_path.glob("*.npy")
    made_at = answers.stat().st_mtime_ns
    _check_folder(tmp_path, made)
    loop_of(made, tmp_path).run(progress=False)
    assert sorted(path.name.partition("-")[0] for path in tmp_path.glob("*.npy")) == ["attention", "teacher"]
    assert answers.stat().st_mtime_ns == made_at


def test_labels_and_attention_add_up_with_its_weight(tmp_path):
    loop = loop_of(attentive(sees="augmented"), tmp_path)
    images, labels = torch.rand(8, 3, 32, 32), torch.arange(8) % 10
    loss = loop.objective.loss(loop.wrapped, [images], labels, torch.arange(8), key=0, epoch=0)
    teacher = load_model("demo:deit_micro")
    larger = F.interpolate(images, (64, 64), mode="bicubic", antialias=True).clamp(0, 1)
    target, own = looks_at(teacher, larger).mean(dim=1, keepdim=True), looks_at(loop.model, images)
    divergence = (target * (target / own).log()).sum(-1).mean()
    by_hand = F.cross_entropy(loop.model(images), labels) + 2 * divergence
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-4)


def test_a_teacher_may_say_both_its_answers_and_its_attention(tmp_path):
    loop = loop_of(attentive(alpha=0.3, target="soft", sees="augmented"), tmp_path)
    images, labels = torch.rand(8, 3, 32, 32), torch.arange(8) % 10
    loss = loop.objective.loss(loop.wrapped, [images], labels, torch.arange(8), key=0, epoch=0)
    teacher, answers = load_model("demo:deit_micro"), loop.model(images)
    larger = F.interpolate(images, (64, 64), mode="bicubic", antialias=True).clamp(0, 1)
    p = teacher(larger).softmax(1)
    target, own = looks_at(teacher, larger).mean(dim=1, keepdim=True), looks_at(loop.model, images)
    by_hand = (
        0.7 * F.cross_entropy(answers, labels)
        + 0.3 * (p * (p.log() - answers.log_softmax(1))).sum(1).mean()
        + 2 * (target * (target / own).log()).sum(-1).mean()
    )
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-4)


def test_a_student_comes_to_look_where_its_teacher_looks(tmp_path):
    made = attentive(attention=5.0)
    changed = made.model_copy(update={"epochs": 12, "lr": 3e-3, "batch_size": 16})
    loop = loop_of(changed, tmp_path)
    images = torch.cat([enlarged(32, i) for i in range(32)])
    target = looks_at(load_model("demo:deit_micro"), torch.cat([enlarged(64, i) for i in range(32)])).mean(dim=1)

    def distance() -> float:
        return attention_loss(looks_at(loop.model.eval(), images), target).item()

    before = distance()
    loop.run(progress=False)
    assert distance() < 0.8 * before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"augment": {"hflip": 0.5}}, r"augment.hflip moves what the teacher saw.*sees: augmented"),
        ({"augment": {"crop_scale": (0.5, 1.0)}}, r"augment.crop_scale moves"),
        ({"augment": {"auto": "rand-m9-mstd0.5-inc1"}}, r"augment.auto moves"),
        ({"compile": True}, r"objective.attention .*compile: true"),
        (
            {"objective": ATTENTION | {"attention": 0.0, "attention_head": 1}},
            r"attention_head is for attention above 0",
        ),
    ],
)
def test_a_recipe_that_could_not_teach_attention_rightly_is_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        plain_recipe(**({"model": STUDENT, "objective": ATTENTION} | changes))


def test_changes_that_move_nothing_may_stand_beside_kept_maps():
    plain_recipe(model=STUDENT, objective=ATTENTION, augment={"color_jitter": 0.3, "erase": 0.25})
    plain_recipe(model=STUDENT, objective=ATTENTION | {"sees": "augmented"}, augment={"hflip": 0.5})


@pytest.mark.parametrize(
    ("model", "objective", "message"),
    [
        ({"name": "deit_micro", "kwargs": KWARGS}, {}, r"demo:deit_micro has 8x8 patches and deit_micro 4x4"),
        (STUDENT, {"attention_head": 3}, r"attention_head: demo:deit_micro has heads 0 to 2"),
        (STUDENT, {"teacher": "demo:resnet_micro"}, r"demo:resnet_micro has no attention of a class token"),
        ({"name": "resnet_micro"}, {}, r"resnet_micro has no attention of a class token"),
        (
            {"name": "deit_micro", "kwargs": STUDENT["kwargs"] | {"distilled": True}},
            {},
            r"alpha: 0 leaves the second token without a teacher",
        ),
    ],
)
def test_networks_that_cannot_teach_or_learn_attention_are_refused(tmp_path, model, objective, message):
    with pytest.raises(InputError, match=message) as caught:
        loop_of(attentive(model=model, **objective), tmp_path)
    assert "\n" not in str(caught.value)
