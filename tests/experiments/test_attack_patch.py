"""The adversarial patch: where it goes, what it covers, that it works, and that its files are safe."""

import hashlib
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import ipvit
from ipvit.data.labels import map_classes
from ipvit.errors import InputError
from ipvit.experiments.attack.patch_files import Patch, PatchMetadata, PatchSpec, load_patch, save_patch
from ipvit.experiments.attack.patches import training_positions
from ipvit.perturb.attack import is_right
from ipvit.perturb.patch import PatchGeometry, noise_patch, paste, quantised, random_places, train_patch


def draws(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((n, 4))


def numbered(side: int) -> torch.Tensor:
    """A patch whose every pixel has a value of its own."""
    return torch.arange(3 * side * side).float().view(3, side, side) / (3 * side * side)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.sampled_from(["square", "circle"]),
    area=st.floats(0.02, 0.45),
    height=st.integers(24, 60),
    wider=st.integers(0, 12),
    seed=st.integers(0, 999),
)
def test_a_patch_lies_wholly_in_the_image_and_covers_its_share(shape, area, height, wider, seed):
    size = (height, height + wider)
    try:
        form = PatchGeometry(shape, size, area)
    except ValueError:
        return
    places = random_places(form, draws(5, seed))
    images = torch.full((5, 3, *size), 2.0)  # a value that no patch has
    pasted, inside = paste(images, noise_patch(seed, form.resolution), places, shape)
    assert torch.equal(inside.unsqueeze(1).expand_as(pasted), pasted != 2.0)
    covered = inside.flatten(1).sum(1).double()
    # a pixel counts by its centre, so a patch that left the image would miss a part of its share
    around = 4 * form.side if shape == "square" else math.pi * form.side
    assert (covered - area * size[0] * size[1]).abs().max() <= around / 2 + 1
    assert shape == "circle" or bool((covered == form.side**2).all())


def test_random_numbers_at_the_ends_of_their_range_stay_inside():
    for shape in ("square", "circle"):
        form = PatchGeometry(shape, (32, 32), 0.2)
        for value in (0.0, math.nextafter(1.0, 0.0)):
            places = random_places(form, np.full((1, 4), value))
            _, inside = paste(torch.zeros(1, 3, 32, 32), noise_patch(0, form.resolution), places, shape)
            assert abs(int(inside.sum()) - 0.2 * 1024) < 15


def test_a_square_is_pasted_pixel_by_pixel_in_quarter_turns():
    form, patch = PatchGeometry("square", (32, 32), 0.1), numbered(10)
    assert form.side == 10
    turned = set()
    for row in draws(40):
        places = random_places(form, row[None])
        pasted, inside = paste(torch.zeros(1, 3, 32, 32), patch, places, "square")
        rows, columns = (torch.where(inside[0].any(axis))[0] for axis in (1, 0))
        cut = pasted[0][:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        quarter = [q for q in range(4) if torch.allclose(cut, torch.rot90(patch, q, (1, 2)), atol=1e-5)]
        assert len(quarter) == 1
        turned.add(quarter[0])
    assert turned == {0, 1, 2, 3}


def test_places_and_rotations_are_spread_over_the_whole_image():
    places = random_places(PatchGeometry("circle", (100, 100), 0.05), draws(4000))
    radius = float(places.side[0]) / 2
    for axis in (0, 1):
        spread = (places.centre[:, axis] - radius) / (100 - 2 * radius)
        assert abs(float(spread.mean()) - 0.5) < 0.02 and spread.min() < 0.01 and spread.max() > 0.99
    assert 0 <= places.angle.min() < 0.01 and 6.27 < places.angle.max() < 2 * math.pi


def test_a_random_scale_changes_the_size():
    form = PatchGeometry("circle", (64, 64), 0.1, scale=(0.5, 1.5))
    sides = random_places(form, draws(2000)).side / form.side
    assert 0.5 <= sides.min() < 0.51 and 1.49 < sides.max() <= 1.5


@pytest.mark.parametrize(("placement", "cells"), [("grid", 4), ("off_grid", 9)])
def test_on_the_grid_a_patch_touches_as_few_cells_as_it_can_and_off_it_more(placement, cells):
    """Two by two cells of 8 pixels; half a cell off, three by three are touched."""
    form = PatchGeometry("square", (64, 64), 0.06, placement, (8, 8))
    assert form.side == 16
    _, inside = paste(torch.zeros(50, 3, 64, 64), noise_patch(0, 16), random_places(form, draws(50)), "square")
    touched = torch.nn.functional.max_pool2d(inside.float(), 8).flatten(1).sum(1)
    assert bool((touched == cells).all()) and bool((inside.flatten(1).sum(1) == 256).all())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("square", (32, 32), 0.6), "between 0 and 0.5"),
        (("square", (32, 320), 0.4), "does not fit"),
        (("circle", (32, 32), 0.2, "grid", (4, 4)), "only squares"),
        (("square", (32, 32), 0.2, "grid", (5, 5)), "does not divide"),
        (("square", (32, 32), 0.2, "grid"), "needs a grid"),
        (("square", (32, 32), 0.2, "free", None, (1.5, 0.5)), "smaller to a larger"),
        (("square", (32, 32), 0.4, "free", None, (1.0, 2.0)), "does not fit"),
    ],
)
def test_a_form_that_cannot_be_is_refused_in_words(arguments, words):
    with pytest.raises(ValueError, match=words):
        PatchGeometry(*arguments)


def test_gradients_flow_to_the_patch_as_finite_differences_say():
    form = PatchGeometry("circle", (16, 16), 0.2)
    places = random_places(form, draws(2))
    images, weight = torch.rand(2, 3, 16, 16).double(), torch.rand(2, 3, 16, 16).double()
    patch = (0.2 + 0.6 * torch.rand(3, form.resolution, form.resolution)).double().requires_grad_()

    def value(p):
        return (paste(images, p, places, "circle")[0] * weight).sum()

    (gradient,) = torch.autograd.grad(value(patch), patch)
    for place in ((0, 3, 4), (2, 4, 1), (1, 2, 2)):
        step = torch.zeros(patch.shape).double()
        step[place] = 1e-6
        assert float(gradient[place]) == pytest.approx(
            float((value(patch + step) - value(patch - step)).detach()) / 2e-6, abs=1e-6
        )


def test_noise_is_reproducible_and_of_whole_grey_levels():
    patch = noise_patch(7, 12)
    assert torch.equal(patch, noise_patch(7, 12)) and not torch.equal(patch, noise_patch(8, 12))
    assert torch.equal(quantised(patch), patch) and 0.4 < float(patch.mean()) < 0.6


def bundled(name: str, n: int, split: str = "demo:trifeature") -> tuple[ipvit.Model, torch.Tensor, torch.Tensor]:
    model, data = ipvit.load_model(name), ipvit.load_dataset(split)
    outputs = map_classes(data.classes, data.aliases, model.classes, data_name=split, model_name=name)
    images = torch.stack([data.read(i) for i in range(n)])
    return model, images, torch.from_numpy(outputs[data.labels[:n]])


def accuracy(model, images, labels, patch, form, seed=0) -> float:
    with torch.no_grad():
        pasted, _ = paste(images.float() / 255, patch, random_places(form, draws(len(images), seed)), form.shape)
        return float(is_right(model(pasted), labels).float().mean())


def test_a_trained_patch_is_worth_more_than_noise_after_a_few_steps():
    model, images, labels = bundled("demo:resnet_micro", 48, "demo:trifeature/natural-train")
    form = PatchGeometry("square", (64, 64), 0.12)
    patch = train_patch(model, images, labels, form, 3, steps=16, batch=16, rate=0.15)
    noise, trained = (accuracy(model, images, labels, p, form) for p in (noise_patch(3, form.resolution), patch))
    assert trained < noise - 0.15
    assert torch.equal(quantised(patch), patch), "what was trained is what a PNG file holds"
    assert torch.equal(patch, train_patch(model, images, labels, form, 3, steps=16, batch=16, rate=0.15))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["demo:deit_micro", "demo:resnet_micro"])
def test_a_patch_trained_on_a_bundled_network_drops_its_accuracy_far_more_than_noise(name, capsys):
    """Trained on one split, evaluated on the other."""
    model, images, labels = bundled(name, 128, "demo:trifeature/natural-train")
    form = PatchGeometry("circle", (64, 64), 0.1)
    patch = train_patch(model, images, labels, form, 0, steps=80)
    _, others, theirs = bundled(name, 120)
    noise, trained = (accuracy(model, others, theirs, p, form) for p in (noise_patch(0, form.resolution), patch))
    with capsys.disabled():
        print(f"\n{name}: 10 % of the image, noise {noise:.1%}, trained patch {trained:.1%}")
    assert trained < noise - 0.25


@pytest.mark.slow
def test_a_targeted_patch_makes_images_look_like_its_class():
    model, images, labels = bundled("demo:resnet_micro", 96, "demo:trifeature/natural-train")
    form = PatchGeometry("square", (64, 64), 0.2)
    patch = train_patch(model, images, labels, form, 0, target=4, steps=60)
    _, others, theirs = bundled("demo:resnet_micro", 60)
    with torch.no_grad():
        pasted, _ = paste(others.float() / 255, patch, random_places(form, draws(60)), "square")
        hits = (model(pasted).argmax(1) == 4)[theirs != 4].float().mean()
    assert hits > 0.5


def test_training_needs_images_that_the_network_gets_right():
    model, images, labels = bundled("demo:resnet_micro", 4)
    with pytest.raises(ValueError, match="gets them all wrong"):
        train_patch(model, images, torch.full_like(labels, -1), PatchGeometry("square", (64, 64), 0.1), 0, steps=1)
    with pytest.raises(ValueError, match="training mode"):
        train_patch(model.train(), images, labels, PatchGeometry("square", (64, 64), 0.1), 0, steps=1)
    model.eval()


def test_training_images_are_a_fixed_choice_that_grows():
    ids = [f"photo {i}" for i in range(100)]
    few, many = set(training_positions(ids, 10)), set(training_positions(ids, 30))
    assert few < many and len(few) == 10 and few != set(range(10))


def a_patch() -> Patch:
    metadata = PatchMetadata(
        look=PatchSpec(shape="circle", area=0.1),
        run=0,
        trained_on="net",
        weights="ab" * 16,
        data="cd" * 16,
        data_name="images",
        images=5,
        steps=1,
        batch=1,
        rate=0.1,
        seed=0,
        precision="fp32",
    )
    return Patch(noise_patch(5, 9), metadata)


def test_a_saved_patch_comes_back_bit_for_bit(tmp_path):
    path = save_patch(tmp_path / "5.5pct", a_patch())
    for name in (path, path.with_suffix(".json")):
        found = load_patch(name)
        assert torch.equal(found.pixels, a_patch().pixels)
        assert found.metadata.look == a_patch().metadata.look and found.metadata.trained_on == "net"


def damage(path, what: str) -> None:
    metadata = json.loads(path.with_suffix(".json").read_text())
    if what == "another picture":
        Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(path)
    elif what == "no json":
        path.with_suffix(".json").unlink()
    elif what == "no picture":
        path.unlink()
    elif what == "not json":
        path.with_suffix(".json").write_text("import os")
    elif what == "unknown field":
        path.with_suffix(".json").write_text(json.dumps(metadata | {"run_this": "rm"}))
    elif what == "area":
        path.with_suffix(".json").write_text(json.dumps(metadata | {"look": metadata["look"] | {"area": 0.9}}))
    elif what == "huge json":
        path.with_suffix(".json").write_text(json.dumps(metadata) + " " * 100_000)
    else:
        replacement = {
            "oblong": Image.new("RGB", (9, 10)),
            "grey": Image.new("L", (9, 9)),
            "large": Image.new("RGB", (5000, 5000)),
        }
        if what in replacement:
            replacement[what].save(path)
        else:
            path.write_bytes(b"not a picture")
        metadata["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        del metadata["card_sha256"]  # not damaged: whoever wrote it meant this picture
        path.with_suffix(".json").write_text(json.dumps(metadata))


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("another picture", "not the picture that its .json file describes"),
        ("no json", "cannot read the patch file"),
        ("no picture", "cannot read the patch file"),
        ("not json", "does not describe a patch"),
        ("unknown field", "run_this"),
        ("area", "look.area"),
        ("huge json", "larger than a patch can be"),
        ("oblong", "9x10"),
        ("grey", "is L"),
        ("large", "5000x5000"),
        ("bytes", "not a PNG picture"),
    ],
)
def test_a_damaged_or_foreign_patch_file_is_refused_in_one_line(tmp_path, what, words):
    path = save_patch(tmp_path / "patch", a_patch())
    damage(path, what)
    with pytest.raises(InputError, match=words) as error:
        load_patch(path)
    assert "\n" not in str(error.value)
