"""A data set that breaks a promise is caught, in a sentence that says which."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import ipvit
from ipvit.data.dataset import UnreadableImageError
from ipvit.data.subset import select
from ipvit.testing import ContractError, check_dataset
from ipvit.testing.samples import SIZE, sample_images

COUNT = 9


class Sound(ipvit.BaseDataset):
    """Images and masks without fault; one of them cannot be read, and says so."""

    classes = ("red", "green", "blue", "yellow")
    has_masks = True

    def __init__(self) -> None:
        super().__init__(labels=np.arange(COUNT) % 4, ids=[f"image {number}" for number in range(COUNT)])
        self.images = sample_images(COUNT)

    def read(self, index):
        if index == 5:
            raise UnreadableImageError("torn")
        return self.images[index]

    def read_mask(self, index):
        if index == 6:
            raise UnreadableImageError("no such mask")
        return (self.images[index, 0] > 100).to(torch.uint8)


def with_members(**members: Any) -> Any:
    """Return the sound data set with other methods or attributes."""
    data = Sound()
    methods = {name: member for name, member in members.items() if callable(member) or isinstance(member, property)}
    data.__class__ = type("Broken", (Sound,), {"__module__": __name__} | methods)
    for name in members.keys() - methods:
        setattr(data, name, members[name])
    globals()["Broken"] = type(data)  # pickle looks a class up by its name
    return data


def broken(words: str, **members: Any) -> None:
    with pytest.raises(ContractError, match=words):
        check_dataset(with_members(**members))


def test_a_sound_data_set_keeps_it():
    assert check_dataset(Sound()) is None
    assert check_dataset(with_members()) is None


class Bare:
    """Something that has images and nothing else."""

    def read(self, index):
        return torch.zeros(3, 8, 8, dtype=torch.uint8)


def test_what_is_lacking_is_named():
    with pytest.raises(ContractError, match="Bare lacks name, ids, labels, .*; ipvit.BaseDataset has defaults"):
        check_dataset(Bare())  # pyright: ignore[reportArgumentType]


digests = iter("abcdefgh")
STATED = [
    ({"ids": [], "labels": np.zeros(0, int)}, "Broken has no images"),
    ({"name": ""}, "Broken.name is ''; it must be a text for tables"),
    ({"labels": np.zeros(4, int)}, "Broken has 9 images, 9 ids and 4 labels"),
    ({"ids": list(range(COUNT))}, "Broken.ids holds 0; an id is a text"),
    ({"ids": ["same"] * COUNT}, "Broken.ids holds 'same' twice"),
    ({"labels": np.zeros(COUNT)}, r"Broken.labels is an array \(9,\) of float64; it must be \(9,\) of integers"),
    ({"labels": np.zeros((COUNT, 1), int)}, r"Broken.labels is an array \(9, 1\) of int64"),
    ({"labels": np.full(COUNT, -2)}, "Broken.labels holds -2; -1 stands for an image without class"),
    ({"classes": None}, "Broken.labels holds 3 and classes is None; name the classes"),
    ({"classes": None, "labels": np.full(COUNT, -1), "aliases": ("a",)}, "aliases are second names of classes, and"),
    ({"classes": ["a", "b", "c", "d"]}, "Broken.classes is .*; it must be a tuple of names"),
    ({"classes": ("a", "a", "b", "c")}, "Broken.classes holds a name twice"),
    ({"classes": ("a", "b", "c")}, "Broken.labels holds 3 and there are 3 classes, numbered from 0"),
    ({"aliases": ("a",)}, "Broken.aliases has 1 names for 4 classes"),
    ({"fingerprint": ""}, "Broken.fingerprint is ''; it must be a text"),
    ({"fingerprint": property(lambda self: next(digests))}, "Broken.fingerprint is another one the second time"),
    (
        {"fields": {"texture": np.zeros(3)}},
        r"Broken.fields\['texture'\] has the shape \(3,\); it must have one",
    ),
    ({"has_masks": None}, "Broken.has_masks is None; it must be true or false"),
    ({"void": 300}, "Broken.void is 300; it must be a number of pixels in masks, from 0 to 255, or None"),
    ({"decoder": "opencv"}, "Broken.decoder is 'opencv'; known: fast, pil"),
]


@pytest.mark.parametrize(("members", "words"), STATED, ids=[words for _, words in STATED])
def test_what_it_states(members, words):
    broken(words, **members)


drawn = np.random.default_rng(0)


def alternating(self, limit):
    return np.arange(COUNT) if limit >= COUNT else np.arange(limit) + (limit % 2)


CHOOSING = [
    (lambda self, limit: np.zeros(limit, int), r"Broken.choose\(2\) must return positions of images, in their order"),
    (lambda self, limit: np.array([COUNT]), r"Broken.choose\(1\) must return positions of images"),
    (
        lambda self, limit: np.sort(drawn.permutation(COUNT)[:limit]),
        r"Broken.choose\(\d\) returns other images the",
    ),
    (lambda self, limit: select(self.ids, limit - 1), r"Broken.choose\(1\) returns 0 images"),
    (alternating, r"Broken.choose\(\d\) leaves out images that a smaller limit chose"),
    (lambda self, limit: np.arange(COUNT - 1)[:limit], r"Broken.choose\(9\) returns 8 images"),
    (lambda self, limit: 1 / 0, "Broken: choosing 1 images raises ZeroDivisionError"),
]


@pytest.mark.parametrize(("choose", "words"), CHOOSING, ids=[words for _, words in CHOOSING])
def test_what_a_limit_chooses(choose, words):
    broken(words, choose=choose)


def damaged(self, index):
    raise OSError("image file is truncated")


def counted(self, index):
    self.reads = getattr(self, "reads", 0) + 1
    return self.images[index] // self.reads


def in_passing(self, index):
    """The picture depends on the one that was read before."""
    found = self.images[index] // (2 if getattr(self, "before", -1) > index else 1)
    self.before = index
    return found


def noisy(self, index):
    return self.images[index] // 2 + torch.randint(0, 9, (3, SIZE, SIZE), dtype=torch.uint8)


READING = [
    (
        damaged,
        r"Broken.read\(0\) raises OSError: image file is truncated; an image that cannot be",
    ),
    (
        lambda self, index: self.images[index].float() / 255,
        r"Broken.read\(0\) returns \(3, 32, 32\) of torch.float32",
    ),
    (lambda self, index: self.images[index].permute(1, 2, 0), r"Broken.read\(0\) returns \(32, 32, 3\) of torch.uint8"),
    (
        lambda self, index: self.images[index].numpy(),
        r"Broken.read\(0\) returns ndarray; it must return",
    ),
    (lambda self, index: self.images[index][:, :0], r"Broken.read\(0\) returns \(3, 0, 32\)"),
    (noisy, "Broken.read changes the global random state of torch"),
    (counted, r"Broken.read\(\d\) is another picture when it is read again in another order"),
    (in_passing, r"Broken.read\(\d\) is another picture when it is read again in another order"),
]


@pytest.mark.parametrize(("read", "words"), READING, ids=[words for _, words in READING])
def test_its_pictures(read, words):
    broken(words, read=read)


def counted_mask(self, index):
    self.reads = getattr(self, "reads", 0) + 1
    return torch.full((SIZE, SIZE), self.reads, dtype=torch.uint8)


MASKS = [
    (lambda self, index: self.images[index, 0] > 100, r"Broken.read_mask\(0\) returns \(32, 32\) of torch.bool"),
    (
        lambda self, index: self.images[index],
        r"Broken.read_mask\(0\) returns \(3, 32, 32\) of torch.uint8; it",
    ),
    (lambda self, index: self.images[index, 0, :16], "Broken.read_mask.0. is 16 x 32 and its image 32 x 32; they must"),
    (counted_mask, r"Broken.read_mask\(0\) is another mask when it is read again"),
    (lambda self, index: 1 / 0, r"Broken.read_mask\(0\) raises ZeroDivisionError"),
]


@pytest.mark.parametrize(("read_mask", "words"), MASKS, ids=[words for _, words in MASKS])
def test_its_masks(read_mask, words):
    broken(words, read_mask=read_mask)


def test_a_mask_that_there_is_not_is_refused():
    words = r"Broken.read_mask\(0\) of data without masks returns something; it must raise an InputError"
    broken(words, has_masks=False, read_mask=lambda self, index: self.images[index, 0])


def other_labels(self):
    return {**self.__dict__, "labels": np.zeros(COUNT, int)}


def darker(self):
    return {**self.__dict__, "images": self.images // 2}


COPIES = [
    ({"handle": (number for number in range(3))}, "Broken: pickling it for worker processes raises TypeError"),
    ({"__getstate__": other_labels}, "Broken has other ids, labels or another fingerprint in a worker process"),
    ({"__getstate__": darker, "fingerprint": "1"}, r"Broken.read\(0\) is another picture in a worker process"),
]


@pytest.mark.parametrize(("members", "words"), COPIES, ids=[words for _, words in COPIES])
def test_its_copy_in_a_worker_process(members, words):
    broken(words, **members)


def test_a_class_inside_a_function_reaches_no_worker_process():
    class Local(Sound):
        pass

    with pytest.raises(ContractError, match="Local: pickling it for worker processes raises"):
        check_dataset(Local())


def test_a_stream_is_read_from_the_front_only():
    class Stream(Sound):
        sequential = True
        fingerprint = "of the stream"
        place = 0

        def read(self, index):
            assert index == self.place, "a stream does not go back"
            self.place += 1
            return self.images[index]

    check_dataset(Stream())
