"""What a training sees: which images make up an update, and what augmentation makes of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from timm.data import auto_augment
from timm.data.random_erasing import RandomErasing
from timm.data.transforms_factory import create_transform

from ipvit.core.preprocessing import Preprocessing, View
from ipvit.data.synthetic.trifeature import Trifeature
from ipvit.errors import InputError
from ipvit.perturb import seeding
from ipvit.training import policies
from ipvit.training.augment import Augmentation
from ipvit.training.config import AugmentConfig, DinoConfig
from ipvit.training.erasing import Erasing
from ipvit.training.images import TrainingImages, training_batches, validation_batches
from ipvit.training.multicrop import MultiCrop
from ipvit.training.policies import global_seeds
from ipvit.training.reading import Pipeline
from ipvit.training.recipe import load_recipe, recipe_names


def test_an_epochs_batches_share_out_the_images_between_processes_without_overlap():
    parts = [training_batches(103, 5, seed=0, epoch=2, rank=rank, world=2) for rank in (0, 1)]
    assert [len(part) for part in parts] == [10, 10]
    seen = np.concatenate([batch for part in parts for batch in part])
    assert len(set(seen[:, 0].tolist())) == 100 and not seen[:, 1].any()
    again = training_batches(103, 5, seed=0, epoch=3)
    assert not np.array_equal(again[0], training_batches(103, 5, seed=0, epoch=2)[0])
    validation = [validation_batches(103, 10, rank, 3) for rank in range(3)]
    assert sorted(np.concatenate([b for part in validation for b in part])[:, 0].tolist()) == list(range(103))


def test_repeated_images_are_dealt_out_to_different_processes_and_numbered():
    parts = [training_batches(90, 5, seed=0, epoch=0, rank=rank, world=3, repeats=3) for rank in range(3)]
    first = np.stack([part[0] for part in parts])  # (3 processes, 5 images, 2)
    assert (first[:, :, 0] == first[0, :, 0]).all()
    assert (np.sort(first[:, :, 1], axis=0) == np.arange(3)[:, None]).all()
    assert len({index for part in parts for batch in part for index in batch[:, 0].tolist()}) == 30


@pytest.mark.parametrize("pieces", [2, 4])
def test_the_images_of_an_update_do_not_depend_on_how_it_is_cut_up(pieces):
    whole = training_batches(100, 20, seed=0, epoch=0)
    parts = [training_batches(100, 20 // pieces, seed=0, epoch=0, rank=rank, world=pieces) for rank in range(pieces)]
    for step, update in enumerate(whole):
        assert np.array_equal(np.concatenate([part[step] for part in parts]), update)


def like(images: torch.Tensor) -> Preprocessing:
    return Preprocessing(View((images.shape[-2], images.shape[-1]), 1.0, "bicubic"))


def keys_of(images: torch.Tensor, epoch: int, ids=None) -> np.ndarray:
    return seeding.keys([str(i) for i in (range(len(images)) if ids is None else ids)], "augment", 0, epoch)


def augmented(images: torch.Tensor, part: AugmentConfig, epoch: int, ids=None) -> torch.Tensor:
    view, keys = Augmentation(part, like(images)), keys_of(images, epoch, ids)
    return torch.stack([view(view.prepare(image), None, key)[0] for image, key in zip(images, keys, strict=True)])


def erased(images: torch.Tensor, part: AugmentConfig, epoch: int = 0, ids=None) -> torch.Tensor:
    """In [0, 1], as they are on the device."""
    return Erasing(part, like(images))(images.float() / 255, keys_of(images, epoch, ids))


EVERYTHING = AugmentConfig(crop_scale=(0.3, 1.0), hflip=0.5, vflip=0.5, auto="rand-m9-mstd0.5-inc1", erase=0.5)


@pytest.mark.parametrize("part", [AugmentConfig(pad=3, hflip=0.5, vflip=0.5), EVERYTHING], ids=["light", "everything"])
def test_augmentation_belongs_to_the_image_not_to_the_batch(part):
    data = Trifeature(n=12, size=32)
    images = torch.stack([data.read(index) for index in range(12)])
    whole = augmented(images, part, epoch=1)
    order = [7, 2, 11]
    torch.manual_seed(7)
    np.random.seed(7)
    assert torch.equal(augmented(images[order], part, 1, ids=order), whole[order])
    assert not torch.equal(augmented(images, part, epoch=2), whole)
    assert whole.dtype == torch.uint8 and whole.shape == images.shape
    assert torch.equal(erased(images[order], EVERYTHING, 1, ids=order), erased(images, EVERYTHING, 1)[order])


def test_a_mirror_image_is_the_image_mirrored():
    images = torch.randint(0, 255, (4, 3, 8, 8), dtype=torch.uint8)
    assert torch.equal(augmented(images, AugmentConfig(hflip=1.0), epoch=0), images.flip(3))
    assert torch.equal(augmented(images, AugmentConfig(vflip=1.0), epoch=0), images.flip(2))


def test_a_padded_crop_is_a_window_of_the_padded_image():
    images = torch.randint(1, 255, (20, 3, 9, 9), dtype=torch.uint8)
    out = augmented(images, AugmentConfig(pad=2), epoch=0)
    offsets = set()
    for image, cut in zip(images, out, strict=True):
        padded = torch.nn.functional.pad(image, [2] * 4)
        found = [(y, x) for y in range(5) for x in range(5) if torch.equal(padded[:, y : y + 9, x : x + 9], cut)]
        assert len(found) == 1
        offsets.update(found)
    assert len(offsets) > 8


def test_a_random_crop_shows_the_stated_share_of_the_picture():
    """On a ramp, the range of values says which part was cut."""
    size, shares = 96, []
    across = torch.arange(size, dtype=torch.uint8).expand(size, size)
    ramp = torch.stack([across, across.T, across])
    for crop in augmented(ramp.expand(60, 3, size, size), AugmentConfig(crop_scale=(0.25, 0.5)), epoch=0):
        wide, tall = (int(channel.max()) - int(channel.min()) + 1 for channel in crop[:2])
        shares.append(wide * tall / size**2)
        assert 0.6 < wide / tall < 1.6
    assert 0.2 < min(shares) < 0.3 and 0.45 < max(shares) < 0.56


def test_erasing_replaces_a_rectangle_and_nothing_else():
    images = torch.full((40, 3, 32, 32), 7, dtype=torch.uint8)
    out = erased(images, AugmentConfig(erase=1.0))
    changed = (out != 7 / 255).any(dim=1)
    for image in changed:
        rows, columns = image.any(1).nonzero().flatten(), image.any(0).nonzero().flatten()
        box = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert 0.01 < box.numel() / 1024 < 0.4 and box.float().mean() > 0.95
    kept = erased(images, AugmentConfig(erase=0.25))
    assert 3 <= int((kept != 7 / 255).flatten(1).any(1).sum()) <= 20


@pytest.mark.parametrize("mode", ["pixel", "rand", "const"])
@pytest.mark.parametrize("count", [1, 3])
def test_erasing_is_timms_on_the_normalised_image(mode, count):
    images, part = torch.rand(30, 3, 24, 32), AugmentConfig(erase=0.6, erase_mode=mode, erase_count=count)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (like(images).mean, like(images).std))
    keys = keys_of(images, 0)
    ours = (Erasing(part, like(images))(images, keys) - mean) / std
    for image, mine, key in zip(images, ours, keys, strict=True):
        normalised = (image - mean) / std
        with global_seeds(int(key) ^ 0xE5A5E):
            theirs = RandomErasing(0.6, mode=mode, max_count=count, device="cpu")(normalised)
        assert torch.allclose(mine, theirs, atol=1e-5)
    if mode == "pixel":
        assert ours.max() > 3, "noise is not cut off at white"


# --- policies --------------------------------------------------------------------------------------------------------

RECIPES = {name: load_recipe(name) for name in recipe_names()}
POLICIES = sorted({recipe.augment.auto for recipe in RECIPES.values() if recipe.augment.auto})


@pytest.mark.parametrize(("auto", "n"), [*((auto, 5000) for auto in POLICIES), ("3a", 200), ("augmix-m3", 200)])
def test_every_policy_gets_through_thousands_of_images(auto, n):
    view = Augmentation(AugmentConfig(auto=auto), Preprocessing(View((16, 16), 1.0, "bicubic")))
    picture = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8)
    shapes = {view(picture, None, key)[0].shape for key in seeding.keys([str(i) for i in range(n)], "augment", 0, 0)}
    assert shapes == {(3, 16, 16)}


def test_posterising_to_no_bits_is_black_and_to_some_bits_is_pillows():
    changes = policies.policy("original", None, Preprocessing(View((8, 8), 1.0, "bicubic")))
    operation = next(op for op in policies._operations(changes) if op.name == "PosterizeOriginal").aug_fn
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8))
    assert not np.asarray(operation(image, 0)).any()
    for bits in (1, 3, 7):
        assert np.array_equal(np.asarray(operation(image, bits)), np.asarray(image) & (256 - (1 << (8 - bits))))
    assert operation(image, 8) is image


@pytest.mark.parametrize(
    ("auto", "jitter"), [("rand-m9-mstd0.5-inc1", None), ("3a", 0.3), ("augmix-m3", None), (None, 0.4)]
)
def test_a_policy_is_what_timms_training_transform_does(auto, jitter, monkeypatch):
    monkeypatch.setattr(ImageOps, "posterize", lambda image, bits: image.point(lambda value: value & -(1 << 8 - bits)))
    like = Preprocessing(View((32, 32), 1.0, "bicubic"))
    theirs = create_transform(
        32, is_training=True, separate=True, auto_augment=auto, color_jitter=jitter, interpolation="bicubic"
    )[1]
    picture = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    for key in range(40):
        ours = policies.change(picture, auto, jitter, like, np.uint64(key))
        with global_seeds(key):
            expected = np.asarray(theirs(Image.fromarray(picture.permute(1, 2, 0).numpy())))
        assert np.array_equal(ours.permute(1, 2, 0).numpy(), expected)


def test_a_change_that_fails_names_operation_and_image(monkeypatch):
    policies.policy.cache_clear()

    def broken(image, *_, **__):
        raise OSError("no such colour")

    monkeypatch.setitem(auto_augment.NAME_TO_OP, "Invert", broken)
    data = Trifeature(n=40, size=16)
    part = AugmentConfig(auto="rand-m9-n8")
    images = TrainingImages(data, Augmentation(part, Preprocessing(View((16, 16), 1.0, "bicubic"))))
    with pytest.raises(
        InputError, match=r"Invert of augment.auto failed \(OSError: no such colour\) on .*\d+"
    ) as caught:
        list(images.batches(validation_batches(40, 10)))
    assert "\n" not in str(caught.value)
    policies.policy.cache_clear()


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_makes_its_views(name):
    recipe = RECIPES[name]
    size = 32
    if isinstance(recipe.objective, DinoConfig):
        pipeline: Pipeline = MultiCrop(recipe.objective.model_copy(update={"local_size": 16}), View((size, size)))
    else:
        pipeline = Augmentation(recipe.augment, Preprocessing(View((size, size), 1.0, "bicubic")))
    images = TrainingImages(Trifeature("natural", "train", 60, size), pipeline, memory=0)
    batches = training_batches(60, 20, recipe.seed, 0, repeats=recipe.augment.repeats)
    assert sum(len(batch.labels) for batch in images.batches(batches)) == 60


def test_a_simple_crop_is_a_window_of_the_resized_mirrored_picture():
    picture = torch.randint(0, 256, (3, 8, 16), dtype=torch.uint8)
    view = Augmentation(AugmentConfig(simple_crop=True), Preprocessing(View((8, 8), 1.0, "bicubic")))
    padded = torch.from_numpy(np.pad(picture.numpy(), ((0, 0), (4, 4), (4, 4)), mode="reflect"))
    places = set()
    for key in keys_of(torch.zeros(60, 3, 8, 8), 0):
        (cut,) = view(view.prepare(picture), None, key)
        found = [(y, x) for y in range(9) for x in range(17) if torch.equal(padded[:, y : y + 8, x : x + 8], cut)]
        assert len(found) == 1
        places.update(found)
    assert len(places) > 30


def test_an_unknown_policy_is_named():
    with pytest.raises(InputError, match=r"timm knows no policy 'random'"):
        Augmentation(AugmentConfig(auto="random"), Preprocessing(View((8, 8), 1.0, "bicubic")))
