"""What a training sees: which images make up an update, and what augmentation makes of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ipvit.core.preprocessing import Preprocessing, View
from ipvit.data.synthetic.trifeature import Trifeature
from ipvit.errors import InputError
from ipvit.perturb import seeding
from ipvit.training.augment import Augmentation
from ipvit.training.config import AugmentConfig
from ipvit.training.images import training_batches, validation_batches


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


def augmented(images: torch.Tensor, part: AugmentConfig, epoch: int, ids=None) -> torch.Tensor:
    view = Augmentation(part, Preprocessing(View((images.shape[-2], images.shape[-1]), 1.0, "bicubic")))
    keys = seeding.keys([str(i) for i in (range(len(images)) if ids is None else ids)], "augment", 0, epoch)
    return torch.stack([view(view.prepare(image), None, key)[0] for image, key in zip(images, keys, strict=True)])


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
    out = augmented(images, AugmentConfig(erase=1.0), epoch=0)
    changed = (out != 7).any(dim=1)
    for image in changed:
        rows, columns = image.any(1).nonzero().flatten(), image.any(0).nonzero().flatten()
        box = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert 0.01 < box.numel() / 1024 < 0.4 and box.float().mean() > 0.95
    kept = augmented(images, AugmentConfig(erase=0.25), epoch=0)
    assert 3 <= int((kept != 7).flatten(1).any(1).sum()) <= 20


def test_an_unknown_policy_is_named():
    with pytest.raises(InputError, match=r"timm knows no policy 'random'"):
        Augmentation(AugmentConfig(auto="random"), Preprocessing(View((8, 8), 1.0, "bicubic")))
