"""The procedural set: determinism, balance, independence of the factors, and that a picture shows what it says."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from ipvit.data.dataset import Dataset
from ipvit.data.synthetic import trifeature_drawing as drawing
from ipvit.data.synthetic.trifeature import COLOUR_NAMES, SHAPE_NAMES, TEXTURE_NAMES, Trifeature, parse
from ipvit.errors import InputError

SPLITS = ("natural", "texture-random", "cue-conflict")


def centred_scene(radius: float = 0.35, angle: float = 0.0) -> drawing.Scene:
    scene = drawing.random_scene(np.random.default_rng(0), colour=0)
    return dataclasses.replace(scene, radius=radius, centre=np.array([0.5, 0.5]), angle=angle)


def test_it_is_a_dataset_of_ten_classes_with_masks():
    data = Trifeature(n=20)
    assert isinstance(data, Dataset)
    assert len(data) == 20 and len(set(data.ids)) == 20
    assert data.classes == SHAPE_NAMES and len(SHAPE_NAMES) == len(TEXTURE_NAMES) == len(COLOUR_NAMES) == 10
    image, mask = data.read(7), data.read_mask(7)
    assert image.shape == (3, 64, 64) and image.dtype == torch.uint8
    assert mask.shape == (64, 64) and set(mask.unique().tolist()) == {0, 1}


@pytest.mark.parametrize("split", SPLITS)
def test_an_image_depends_on_nothing_but_its_position_and_the_settings(split):
    long, short = Trifeature(split, n=500), Trifeature(split, n=30)
    for index in (29, 3, 11):
        assert torch.equal(short.read(index), long.read(index))
        assert short.labels[index] == long.labels[index]
        assert {k: v[index] for k, v in short.fields.items()} == {k: v[index] for k, v in long.fields.items()}
    assert not torch.equal(short.read(3), Trifeature(split, n=30, seed=1).read(3))


def test_the_same_scene_is_shown_at_every_size():
    small, large = Trifeature(n=12, size=64), Trifeature(n=12, size=128)
    for index in range(12):
        shrunk = large.read(index).float().reshape(3, 64, 2, 64, 2).mean((2, 4))
        assert (shrunk - small.read(index)).abs().mean() < 6
        overlap = large.read_mask(index)[::2, ::2] == small.read_mask(index)
        assert overlap.float().mean() > 0.98


def test_training_and_validation_share_no_picture():
    pictures = [
        Trifeature(split, subset, n=100, size=32).read(index).numpy().tobytes()
        for split in SPLITS
        for subset in ("train", "val")
        for index in range(100)
    ]
    assert len(set(pictures)) == 600


@pytest.mark.parametrize("split", SPLITS)
def test_every_prefix_has_balanced_classes(split):
    labels = Trifeature(split, n=237).labels
    for n in range(1, 238):
        counts = np.bincount(labels[:n], minlength=10)
        assert counts.max() - counts.min() <= 1


def test_texture_agrees_is_unrelated_or_disagrees_as_the_split_says():
    natural, random, conflict = (Trifeature(split, n=900) for split in SPLITS)
    for data in (natural, random, conflict):
        assert np.array_equal(data.fields["shape"], data.labels)
    assert np.array_equal(natural.fields["texture"], natural.labels)
    pairs = np.zeros((10, 10), int)
    np.add.at(pairs, (random.labels, random.fields["texture"]), 1)
    assert (pairs == 9).all()
    pairs = np.zeros((10, 10), int)
    np.add.at(pairs, (conflict.labels, conflict.fields["texture"]), 1)
    assert (pairs == 10 * (1 - np.eye(10, dtype=int))).all()


def test_colour_and_background_say_nothing_about_the_class():
    data = Trifeature("natural", "train", n=3000, size=16)
    pairs = np.zeros((10, 10))
    np.add.at(pairs, (data.labels, data.fields["colour"]), 1)
    # Chi-square of independence, 81 degrees of freedom: mean 81, standard deviation 12.7.
    assert ((pairs - 30) ** 2 / 30).sum() < 81 + 4 * 12.7
    corners = np.stack([data.read(i)[:, 0, 0].numpy() for i in range(1500)]).astype(float)
    labels = data.labels[:1500]
    between = np.array([corners[labels == k].mean(0) for k in range(10)]).std(0)
    assert (between < 3 * corners.std(0) / math.sqrt(150)).all()


@pytest.mark.parametrize(
    ("shape", "area"),
    [
        ("disc", math.pi * 0.82**2),
        ("square", 1.44**2),
        ("ring", math.pi * (0.92**2 - 0.42**2)),
        ("cross", 2 * 1.84 * 0.62 - 0.62**2),
        ("triangle", 3 * math.sqrt(3) * 0.52**2),
        ("star", 5 * 1.05 * 0.46 * math.sin(math.pi / 5)),
        ("heart", 1.08**2 + math.pi * 0.54**2),
    ],
)
def test_a_shape_covers_its_area_whatever_its_rotation(shape, area):
    for angle in (0.0, 0.4, 2.0):
        cover = drawing.draw_mask(centred_scene(0.35, angle), shape, 96)
        assert cover.sum() == pytest.approx(area * (0.35 * 96) ** 2, rel=0.01)


@pytest.mark.parametrize("shape", SHAPE_NAMES)
def test_objects_lie_inside_the_picture(shape):
    rng = np.random.default_rng(1)
    for _ in range(20):
        cover = drawing.draw_mask(drawing.random_scene(rng, 0), shape, 64)
        border = np.concatenate([cover[0], cover[-1], cover[:, 0], cover[:, -1]])
        assert cover.max() == 1 and (border > 0.5).mean() < 0.05


def test_the_mask_is_where_the_texture_makes_a_difference():
    scene = centred_scene()
    mask = drawing.draw_mask(scene, "disc", 64)
    pictures = np.stack([drawing.draw(scene, "disc", texture, 64) for texture in TEXTURE_NAMES])
    varies = (pictures != pictures[0]).any((0, 1))
    assert not varies[mask == 0].any()
    assert varies[mask == 1].mean() > 0.95


def test_any_two_textures_and_any_two_shapes_look_different():
    scene = centred_scene(0.4)
    textures = [drawing.draw(scene, "square", texture, 64).astype(float) for texture in TEXTURE_NAMES]
    shapes = [drawing.draw_mask(scene, shape, 64) for shape in SHAPE_NAMES]
    for a in range(10):
        for b in range(a):
            assert np.abs(textures[a] - textures[b]).mean() > 4
            assert (np.abs(shapes[a] - shapes[b]) > 0.5).mean() > 0.03


def test_names_are_parsed_and_a_typing_mistake_gets_a_suggestion():
    assert len(parse("demo:trifeature")) == 1000
    train = parse("demo:trifeature/cue-conflict-train", size=32)
    assert (train.split, train.subset, len(train), train.size) == ("cue-conflict", "train", 20_000, 32)
    for name in ("demo:trifeature", "demo:trifeature/natural-train", "demo:trifeature/texture-random"):
        assert parse(name).name == name
    assert parse("demo:trifeature/natural").fingerprint == parse("demo:trifeature").fingerprint
    with pytest.raises(InputError, match=r"Did you mean 'demo:trifeature/texture-random'"):
        parse("demo:trifeature/texture_random")


def test_the_fingerprint_tells_sets_apart():
    sets = [
        Trifeature(),
        Trifeature("cue-conflict"),
        Trifeature(subset="train"),
        Trifeature(n=999),
        Trifeature(size=32),
        Trifeature(seed=1),
    ]
    assert len({data.fingerprint for data in sets}) == len(sets)
    assert Trifeature().fingerprint == Trifeature().fingerprint


@pytest.mark.parametrize("wrong", [{"split": "naturl"}, {"subset": "test"}, {"n": 0}, {"size": 4}])
def test_impossible_settings_are_the_users_mistake(wrong):
    with pytest.raises(InputError, match="trifeature"):
        Trifeature(**wrong)
