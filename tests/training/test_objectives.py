"""What each training minimises, held against formulas written out by hand, and who learns from whom."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from helpers.forks import ranks
from helpers.training import DINO, KWARGS, dino_recipe, plain_recipe
from ipvit.core.preprocessing import View
from ipvit.data.dataset import MemoryDataset
from ipvit.data.synthetic.trifeature import Trifeature
from ipvit.errors import InputError
from ipvit.models.init_from import init_from
from ipvit.models.io.checkpoint import read_metadata
from ipvit.models.loading import load_checkpoint, load_model
from ipvit.models.zoo.micro import build_network
from ipvit.training.config import DinoConfig
from ipvit.training.dino import Dino, dino_loss, neighbours
from ipvit.training.distillation import distillation_loss
from ipvit.training.dry_run import dry_run
from ipvit.training.loop import Loop
from ipvit.training.multicrop import MultiCrop
from ipvit.training.optimization import cosine
from ipvit.training.recipe import Recipe, dump_recipe, load_recipe, recipe_names
from ipvit.training.start import assemble

DISTILLATION = {"kind": "distillation", "teacher": "demo:resnet_micro"}


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def distilled(**objective) -> Recipe:
    return plain_recipe(
        model={"name": "deit_micro", "kwargs": KWARGS | {"distilled": True}}, objective=DISTILLATION | objective
    )


def loop_of(made: Recipe, out: Path, n: int = 32) -> Loop:
    train, val = Trifeature("natural", "train", n, 32), Trifeature("natural", "val", 20, 32)
    return assemble(made, train, val, out, device="cpu")


# --- distillation ----------------------------------------------------------------------------------------------------


def test_hard_distillation_is_cross_entropy_with_the_teachers_decision():
    student, teacher = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    by_hand = -np.mean([student[i].log_softmax(0)[teacher[i].argmax()].item() for i in range(5)])
    assert distillation_loss(student, teacher, "hard").item() == pytest.approx(by_hand)


@pytest.mark.parametrize("tau", [1.0, 3.0])
def test_soft_distillation_is_the_divergence_at_a_temperature(tau):
    student, teacher = torch.randn(5, 4, dtype=torch.float64, requires_grad=True), torch.randn(5, 4).double()
    p, q = (teacher / tau).softmax(1), (student / tau).softmax(1)
    by_hand = tau**2 * (p * (p / q).log()).sum(1).mean()
    loss = distillation_loss(student, teacher, "soft", tau)
    assert loss.item() == pytest.approx(by_hand.item())
    (gradient,) = torch.autograd.grad(loss, student)
    assert torch.allclose(gradient, tau * (q - p) / 5)  # the textbook derivative


def gradients(loop: Loop, alpha_loss: str) -> dict[str, torch.Tensor | None]:
    images, labels = torch.rand(8, 3, 32, 32), torch.arange(8) % 10
    loop.objective.module.train()
    loss = loop.objective.loss(loop.wrapped, [images], labels, torch.arange(8), key=0, epoch=0)
    loss.backward()
    backbone = loop.model.backbone
    return {name: getattr(backbone, name).weight.grad for name in ("head", "head_dist")}


@pytest.mark.parametrize(("alpha", "taught", "untaught"), [(0.0, "head", "head_dist"), (1.0, "head_dist", "head")])
def test_labels_teach_the_class_head_alone_and_the_teacher_the_shape_head_alone(tmp_path, alpha, taught, untaught):
    found = gradients(loop_of(distilled(alpha=alpha), tmp_path), "")
    assert found[taught] is not None and found[taught].abs().sum() > 0
    assert found[untaught] is None or not found[untaught].any()


def test_the_two_heads_add_up_with_alpha(tmp_path):
    whole = loop_of(distilled(alpha=0.3, target="soft", tau=2.0), tmp_path)
    images, labels = torch.rand(8, 3, 32, 32), torch.arange(8) % 10
    loss = whole.objective.loss(whole.wrapped, [images], labels, torch.arange(8), key=0, epoch=0)
    of_class, of_shape = whole.objective.module(images)
    teacher = load_model("demo:resnet_micro")
    resized = torch.nn.functional.interpolate(images, (64, 64), mode="bicubic", antialias=True).clamp(0, 1)
    p, q = (teacher(resized) / 2).softmax(1), (of_shape / 2).softmax(1)
    by_hand = 0.7 * torch.nn.functional.cross_entropy(of_class, labels) + 0.3 * 4 * (p * (p / q).log()).sum(1).mean()
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_the_teacher_does_not_learn(tmp_path):
    loop = loop_of(distilled(), tmp_path)
    teacher = loop.objective._teacher._model
    before = copy.deepcopy(teacher.state_dict())
    loop.run(progress=False)
    assert not teacher.training and all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
    assert not any(value.requires_grad for value in teacher.parameters())


def test_a_network_with_a_shape_token_says_how_good_each_token_is_and_how_it_is_called(tmp_path):
    best = loop_of(distilled(token="shape"), tmp_path).run(progress=False)
    measured = (read_metadata(best) or {})["measured"]
    assert {"top1", "top1_class", "top1_shape"} <= set(measured)
    model = load_checkpoint(best)
    assert model.distillation_token == "shape"
    heads = model.logits_by_token(torch.rand(2, 3, 32, 32))
    assert set(heads) == {"class", "shape", "mean"}


def test_judging_each_unchanged_image_once_is_what_the_teacher_says_of_it(tmp_path):
    made = plain_recipe(objective=DISTILLATION | {"sees": "original"})
    loop = loop_of(made, tmp_path)
    data, teacher = Trifeature("natural", "train", 32, 64), load_model("demo:resnet_micro")
    at_32 = Trifeature("natural", "train", 32, 32)
    picture = torch.nn.functional.interpolate(at_32.read(5)[None].float(), (64, 64), mode="bicubic", antialias=True)
    said = loop.objective._teacher(torch.zeros(1, 3, 32, 32), torch.tensor([5]))
    assert torch.allclose(said, teacher(picture.clamp(0, 255).round() / 255), atol=0.02)
    assert len(list(tmp_path.glob("teacher-*.npy"))) == 1 and len(data) == 32


def test_a_teacher_with_other_classes_is_refused_in_one_line(tmp_path):
    images = torch.randint(0, 255, (16, 3, 32, 32), dtype=torch.uint8)
    data = MemoryDataset(images, np.arange(16) % 2, ["apple", "pear"], name="fruit")
    with pytest.raises(InputError, match=r"cannot map 2 of the 2 classes of fruit \('apple', 'pear'\)") as caught:
        assemble(plain_recipe(objective=DISTILLATION), data, data, tmp_path, device="cpu")
    assert "\n" not in str(caught.value)


# --- stylised copies -------------------------------------------------------------------------------------------------


def test_training_on_stylised_copies_shows_them_and_not_the_images(tmp_path):
    data = Trifeature("natural", "train", 32, 32)
    for share, low, high in ((1.0, 1.0, 1.0), (0.5, 0.2, 0.8)):
        part = plain_recipe().data.model_dump() | {"stylize": {"share": share, "texture_scale": 0.11}}
        loop = loop_of(plain_recipe(data=part), tmp_path)
        (batch,) = loop.train.batches([np.stack([np.arange(32), np.zeros(32, int)], 1)])
        changed = [not torch.equal(view, data.read(i)) for i, view in enumerate(batch.views[0])]
        assert low <= np.mean(changed) <= high
        (val,) = loop.val.batches([np.array([[3, 0]])])
        assert torch.equal(val.views[0][0], loop.val.data.read(3))


def test_a_style_folder_without_images_and_a_copy_that_lacks_images_are_named(tmp_path):
    (tmp_path / "empty").mkdir()
    part = plain_recipe().data.model_dump()
    with pytest.raises(InputError, match=r"empty"):
        loop_of(plain_recipe(data=part | {"stylize": {"styles": str(tmp_path / "empty")}}), tmp_path / "out")
    with pytest.raises(InputError, match=r"lacks copies of 32 of the 32 images.*ipvit stylize"):
        loop_of(plain_recipe(data=part | {"stylize": {"folder": str(tmp_path / "empty")}}), tmp_path / "out")


def test_a_copy_on_disk_is_read_image_by_image(tmp_path):
    data = Trifeature("natural", "train", 32, 32)
    for index, label in enumerate(data.labels):
        path = tmp_path / "copy" / data.classes[label] / f"{data.ids[index].replace('/', '-')}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((32, 32, 3), index, np.uint8)).save(path)
    part = plain_recipe().data.model_dump() | {"stylize": {"folder": str(tmp_path / "copy")}}
    loop = loop_of(plain_recipe(data=part), tmp_path / "out")
    (batch,) = loop.train.batches([np.array([[9, 0], [30, 0]])])
    assert batch.views[0][:, 0, 0, 0].tolist() == [9, 30]


# --- DINO ------------------------------------------------------------------------------------------------------------


def test_the_dino_loss_is_the_mean_cross_entropy_over_pairs_of_different_views():
    student = [torch.randn(3, 5, dtype=torch.float64) for _ in range(4)]
    teacher = [torch.randn(3, 5, dtype=torch.float64) for _ in range(2)]
    center = torch.randn(5, dtype=torch.float64)
    terms = []
    for i in range(2):
        for j in range(4):
            if i == j:
                continue
            for b in range(3):
                target = ((teacher[i][b] - center) / 0.04).softmax(0)
                terms.append(-(target * (student[j][b] / 0.1).log_softmax(0)).sum().item())
    assert dino_loss(student, teacher, center, 0.1, 0.04).item() == pytest.approx(np.mean(terms))


def test_the_teacher_is_a_moving_average_of_the_student_and_gets_no_gradient(tmp_path):
    loop = loop_of(dino_recipe(), tmp_path)
    objective = loop.objective
    assert isinstance(objective, Dino)
    before = {key: value.clone() for key, value in objective._teacher.named_parameters()}
    loop.time_updates(1)
    for key, value in objective._teacher.named_parameters():
        student = dict(objective.module.named_parameters())[key]
        assert torch.allclose(value, 0.996 * before[key] + 0.004 * student, atol=1e-6)
        assert value.grad is None
    assert objective.module.head.last.weight is not None
    assert torch.equal(
        objective.module.head.last.parametrizations.weight.original1,
        loop_of(dino_recipe(), tmp_path).objective.module.head.last.parametrizations.weight.original1,
    ), "the last layer is frozen in the first epoch"


def test_the_center_follows_the_teachers_mean_output(tmp_path):
    loop = loop_of(dino_recipe(), tmp_path)
    views = [torch.rand(8, 3, 32, 32), torch.rand(8, 3, 32, 32)]
    with torch.no_grad():
        mean = torch.cat(loop.objective._teacher(views)).mean(0)
    loop.objective.loss(loop.wrapped, views, torch.zeros(8), torch.arange(8), key=0, epoch=0)
    assert torch.allclose(loop.objective._center, 0.1 * mean, atol=1e-6)


def test_views_of_the_copy_and_of_the_image_can_be_mixed(tmp_path):
    data = dino_recipe().data.model_dump() | {"stylize": {"texture_scale": 0.11}}
    objective = DINO | {"global_views_of": "stylized"}
    (mixed,) = loop_of(dino_recipe(data=data, objective=objective), tmp_path).train.batches(
        [np.array([[0, 0], [1, 0]])]
    )
    (plain,) = loop_of(dino_recipe(), tmp_path).train.batches([np.array([[0, 0], [1, 0]])])
    assert [view.shape[-1] for view in mixed.views] == [32, 32, 16, 16]
    same = [torch.equal(one, other) for one, other in zip(mixed.views, plain.views, strict=True)]
    assert same == [False, False, True, True]


def views_of(picture: torch.Tensor, **options: Any) -> list[torch.Tensor]:
    """All views of a picture under twenty keys, uncut."""
    part = DinoConfig(kind="dino", global_scale=(1, 1), local_views=1, local_scale=(1, 1), local_size=32, **options)
    crop = MultiCrop(part, View((32, 32), 1.0, "bicubic"))
    return [view for key in range(20) for view in crop(picture, None, np.uint64(key))]


def test_views_lose_their_colour_as_often_as_the_recipe_says():
    picture = torch.zeros(3, 32, 32, dtype=torch.uint8)
    picture[0] = 100  # red
    still = {"color_jitter": (0, 0, 0, 0)}
    grey = [bool((view[0] == view[1]).all()) for view in views_of(picture, **still, grayscale=1)]
    assert all(grey)
    assert not any((view[0] == view[1]).all() for view in views_of(picture, **still, grayscale=0))


def test_a_view_changes_its_colours_by_no_more_than_the_recipe_says():
    picture = torch.zeros(3, 32, 32, dtype=torch.uint8)
    picture[0] = 100  # red, below what solarising turns round
    plain = views_of(picture, color_jitter=(0, 0, 0, 0), grayscale=0)
    assert all((view[:, 8:24, 8:24] == picture[:, 8:24, 8:24]).all() for view in plain)
    brighter = [int(view[0, 16, 16]) for view in views_of(picture, color_jitter=(0.4, 0, 0, 0), grayscale=0)]
    assert min(brighter) < 80 and max(brighter) > 120 and all(59 <= value <= 141 for value in brighter)
    turned = views_of(picture, color_jitter=(0, 0, 0, 0.5), grayscale=0)
    assert any(view[2, 16, 16] > view[0, 16, 16] for view in turned), "half a circle makes red blue or green"
    nearby = views_of(picture, color_jitter=(0, 0, 0, 0.1), grayscale=0)
    assert all(view[0, 16, 16] > max(view[1, 16, 16], view[2, 16, 16]) for view in nearby)


def test_a_network_that_takes_one_size_only_is_refused_for_local_views(tmp_path):
    with pytest.raises(InputError, match="set model.kwargs.dynamic_img_size to true"):
        loop_of(plain_recipe(objective=DINO), tmp_path)


def test_neighbours_vote_with_their_closeness():
    bank = torch.nn.functional.normalize(torch.randn(30, 6), dim=1)
    labels = torch.arange(30) % 3
    query = torch.nn.functional.normalize(torch.randn(4, 6), dim=1)
    votes = neighbours(query, bank, labels, k=5)
    for row in range(4):
        closeness = (bank @ query[row]).tolist()
        nearest = sorted(range(30), key=lambda i: -closeness[i])[:5]
        by_hand = [sum(np.exp(closeness[i] / 0.07) for i in nearest if labels[i] == c) for c in range(3)]
        assert votes[row].tolist() == pytest.approx(by_hand, rel=1e-4)


def test_a_cosine_runs_from_start_to_end():
    assert [cosine(1.0, 3.0, step, 4) for step in (0, 2, 4)] == pytest.approx([1.0, 2.0, 3.0])


@pytest.mark.parametrize("made", [dino_recipe(), distilled()], ids=["dino", "distillation"])
def test_an_interrupted_training_goes_on_bit_for_bit(tmp_path, monkeypatch, made):
    loop_of(made, tmp_path / "whole").run(progress=False)
    update = Loop._update
    with monkeypatch.context() as patch:

        def dying(self, batches, epoch, step):
            if step == self.steps + 1:
                raise KeyboardInterrupt
            return update(self, batches, epoch, step)

        patch.setattr(Loop, "_update", dying)
        with pytest.raises(KeyboardInterrupt):
            loop_of(made, tmp_path / "parts").run(progress=False)
    torch.manual_seed(11)
    loop_of(made, tmp_path / "parts").run(progress=False)
    for name in ("last.safetensors", "best.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()


# --- larger batches, several processes -------------------------------------------------------------------------------


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "log.jsonl").read_text().splitlines()]


def test_accumulated_batches_are_one_larger_batch(tmp_path):
    loop_of(plain_recipe(batch_size=16), tmp_path / "large").run(progress=False)
    loop_of(plain_recipe(batch_size=4, accumulate=4), tmp_path / "small").run(progress=False)
    assert losses(tmp_path / "small") == pytest.approx(losses(tmp_path / "large"), rel=1e-5)
    large, small = (load_file(tmp_path / name / "last.safetensors") for name in ("large", "small"))
    assert all(torch.allclose(large[key], small[key], atol=1e-4) for key in large)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("made", "launched"),
    [(plain_recipe(), True), (distilled(), False), (dino_recipe(), False)],
    ids=["supervised", "distillation", "dino"],
)
def test_two_processes_train_as_one_with_twice_the_batch(tmp_path, made, launched):
    path = tmp_path / "recipe.yaml"
    script = tmp_path / "train.py"
    script.write_text(
        "import sys, torch\n"
        "torch.set_num_threads(1)\n"
        "from ipvit.data.synthetic.trifeature import Trifeature\n"
        "from ipvit.training import start\n"
        "start.open_data = lambda name, size, part: "
        "Trifeature('natural', 'train' if name.endswith('train') else 'val', 64, size)\n"
        "start.train(sys.argv[1], sys.argv[2], device='cpu', progress=False)\n"
    )
    for processes, batch in ((1, 16), (2, 8)):
        path.write_text(dump_recipe(made.model_copy(update={"batch_size": batch})))
        arguments = [script, path, tmp_path / str(processes)]
        if processes == 2 and launched:
            launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
            subprocess.run([*launcher, *arguments], env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True, timeout=300)
            continue
        for process in ranks(arguments, processes):
            assert process.wait(300) == 0, process.communicate()
    assert losses(tmp_path / "2") == pytest.approx(losses(tmp_path / "1"), rel=1e-4)
    one, two = (load_file(tmp_path / name / "last.safetensors") for name in ("1", "2"))
    assert all(torch.allclose(one[key], two[key], atol=2e-3) for key in one)


# --- weights to start from, trackers, trying out ---------------------------------------------------------------------


def test_a_network_with_a_second_token_continues_one_without():
    network = build_network("deit_micro", 10, distilled=True)
    left = init_from(network, "demo:deit_micro")
    stored = load_model("demo:deit_micro").backbone.state_dict()
    own = network.state_dict()
    assert left == [] and torch.equal(own["head_dist.weight"], stored["head.weight"])
    assert torch.equal(own["pos_embed"][:, 2:], stored["pos_embed"][:, 1:])
    assert torch.equal(own["dist_token"], stored["cls_token"])


def test_nothing_to_start_from_is_named():
    with pytest.raises(InputError, match=r"no bundled model 'demo:deit_mikro'.*Did you mean 'demo:deit_micro'"):
        init_from(build_network("deit_micro", 10), "demo:deit_mikro")
    with pytest.raises(InputError, match=r"nothing in 'demo:resnet_micro' fits"):
        init_from(build_network("deit_micro", 10), "demo:resnet_micro")


def test_a_tracker_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="tracker: wandb needs a package that is not installed: pip install wandb"):
        loop_of(plain_recipe(tracker="wandb"), tmp_path)


def test_tensorboard_gets_what_the_log_has(tmp_path):
    pytest.importorskip("tensorboardX")
    loop_of(plain_recipe(tracker="tensorboard"), tmp_path).run(progress=False)
    assert list(tmp_path.rglob("events.out.tfevents*"))


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_that_comes_along_is_valid(name):
    assert load_recipe(name).epochs >= 1


@pytest.mark.parametrize(
    "made", [plain_recipe(), distilled(), dino_recipe()], ids=["supervised", "distillation", "dino"]
)
def test_a_dry_run_costs_two_updates_and_writes_nothing(tmp_path, monkeypatch, made):
    monkeypatch.chdir(tmp_path)
    data = made.data.model_copy(update={"train": "not/there", "val": "not/there"})
    objective = made.objective
    if objective.kind == "distillation":
        objective = objective.model_copy(update={"teacher": "resnet18"})
    cost = dry_run(made.model_copy(update={"data": data, "objective": objective}), device="cpu")
    assert cost.images_per_update == 8 and cost.seconds_per_update > 0 and cost.memory_gb > 0
    assert not list(tmp_path.iterdir())
