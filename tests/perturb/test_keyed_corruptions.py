"""Keyed corruptions are the original ones with other random numbers: given these, the originals say the same."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import stats

from helpers.corruptions_by_hand import PLAIN
from ipvit.perturb import corruptions, keys, seeding
from ipvit.perturb.corruptions import CORRUPTIONS, EXTRA, KEYED, RANDOM, SEVERITIES, corrupt
from ipvit.perturb.corruptions.keyed import by_name, keyed_tensors
from ipvit.perturb.corruptions.keyed.draws import Draws
from ipvit.perturb.corruptions.keyed.noise import normals, table
from ipvit.perturb.corruptions.names import KEYED_VERSION
from ipvit.perturb.tensors import from_numpy

NUMBERS = 65_536
KEYS = keys(["a", "b", "c"], "test")


class Replayed:
    """A stream that gives what a keyed corruption draws, in the order in which the original asks; in numpy alone."""

    def __init__(self, key: int, name: str, severity: int) -> None:
        digest = hashlib.blake2b(f"{key}/{name}/{severity}/keyed".encode(), digest_size=8).digest()
        self.key = np.frombuffer(digest, "<u8").astype(np.uint64)
        self.taken = 0
        self.salt: np.ndarray | None = None
        self.fields: list[np.ndarray] = []

    def words(self, n: int) -> np.ndarray:
        found = seeding.random_words(self.key, n, self.taken)[0]
        self.taken += n
        return found

    def sixteens(self, size: tuple[int, ...]) -> np.ndarray:
        """Colours are drawn plane by plane."""
        planes = (size[2], *size[:2]) if len(size) == 3 else size
        n = int(np.prod(planes))
        words = self.words(-(-n // 4))
        parts = np.stack([words >> np.uint64(16 * part) & np.uint64(NUMBERS - 1) for part in range(4)], axis=1)
        drawn = parts.ravel()[:n].astype(np.int64).reshape(planes)
        return drawn.transpose(1, 2, 0) if len(size) == 3 else drawn

    def normal(self, loc: float = 0, scale: float = 1, size: tuple[int, ...] = ()) -> np.ndarray:
        return loc + scale * normals()[self.sixteens(size)]

    def poisson(self, mean: np.ndarray) -> np.ndarray:
        return stats.poisson.ppf((self.sixteens(mean.shape) + 0.5) / NUMBERS, mean)

    def random_sample(self, size: tuple[int, ...]) -> np.ndarray:
        """What hits, as both ends of the numbers, and then which end."""
        if self.salt is None:
            drawn = self.sixteens(size)
            self.salt = np.where(drawn >= NUMBERS // 2, 0.25, 0.75)
            return (np.minimum(drawn, NUMBERS - 1 - drawn) + 0.5) * 2 / NUMBERS
        return self.salt

    def randint(self, low: int, high: int | None = None, size: Any = None) -> Any:
        low, high = (0, low) if high is None else (low, high)
        if size is None:
            return low + int(self.fractions(1)[0] * (high - low))
        return low + (self.sixteens_in_order(size) * (high - low) >> 16)

    def sixteens_in_order(self, size: tuple[int, ...]) -> np.ndarray:
        return self.sixteens((int(np.prod(size)),)).reshape(size)

    def fractions(self, n: int) -> np.ndarray:
        return (self.words(n) >> np.uint64(11)) * 2.0**-53

    def uniform(self, low: float, high: float, size: tuple[int, ...] | None = None) -> Any:
        if size is None:
            return low + (high - low) * self.fractions(1)[0]
        if (low, high) == (-1, 1):  # the elastic field, across and down, which are drawn at once
            self.fields = self.fields or list((2 * self.sixteens((2 * size[0], size[1])) + 1) / NUMBERS - 1)
            field, self.fields = self.fields[: size[0]], self.fields[size[0] :]
            return np.array(field)
        return low + (high - low) * self.fractions(int(np.prod(size))).reshape(size)


def pictures(height: int, width: int, n: int = 3) -> np.ndarray:
    """Noise, a smooth slope, and colours without detail, ``(n, H, W, 3)``."""
    random = np.random.default_rng(height * width)
    slope = np.add.outer(np.arange(height) * 3, np.arange(width) * 2)[..., None] + np.array([0, 40, 90])
    flat = np.full((height, width, 3), (255, 0, 17))
    flat[: height // 3] = 200
    found = [random.integers(0, 256, (height, width, 3)), slope % 256, flat]
    return np.stack(found[:n]).astype(np.uint8)


def sent(images: np.ndarray) -> torch.Tensor:
    return from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def made(images: np.ndarray, name: str, severity: int, key: np.ndarray = KEYS, **options: Any) -> np.ndarray:
    found = keyed_tensors(sent(images), name, severity, key[: len(images)], **options)
    assert found.dtype == torch.uint8 and found.shape == sent(images).shape
    return found.permute(0, 2, 3, 1).numpy()


def originals(images: np.ndarray, name: str, severity: int, **options: Any) -> np.ndarray:
    """What the original makes of the keyed numbers."""
    streams = [Replayed(int(key), name, severity) for key in KEYS[: len(images)]]
    function = getattr(corruptions, name)
    return np.stack([function(one, severity, stream, **options) for one, stream in zip(images, streams, strict=True)])


SIZES = [(48, 40), (33, 64), (9, 9), (1, 1), (3, 40)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "frost", "fog"])
def test_it_is_the_original_with_the_keyed_numbers_to_the_byte(name, size):
    for severity in SEVERITIES:
        np.testing.assert_array_equal(made(pictures(*size), name, severity), originals(pictures(*size), name, severity))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["motion_blur", "snow"])
def test_sums_in_float32_are_the_same_but_for_a_level_of_a_few_values(name, size):
    for severity in SEVERITIES:
        off = made(pictures(*size), name, severity).astype(int) - originals(pictures(*size), name, severity)
        assert np.abs(off).max() <= 1 and (off != 0).mean() < 0.01
        assert not off[1:].any() or name == "snow"


@pytest.mark.parametrize("size", SIZES)
def test_glass_is_the_same_where_the_originals_cut_offs_take_nothing_away(size):
    for severity in SEVERITIES:
        images = pictures(*size)
        off = made(images, "glass_blur", severity).astype(int) - originals(images, "glass_blur", severity)
        assert off.min() >= -1 and off.max() <= 2  # 17 / 255 blurred may be a last bit less, and cut off it is 16
        assert (off < 0).mean() < 0.001
        assert (off[0] > 0).mean() < 0.01 or min(size) < 9  # of noise, whose sums are rarely whole


@pytest.mark.parametrize("size", SIZES)
def test_the_elastic_transform_is_the_same_but_for_a_level(size):
    name, images = "elastic_transform", pictures(*size)
    for severity in SEVERITIES:
        found = made(images, name, severity).astype(int)
        if int(cv2.__version__.split(".")[0]) >= 5:  # before, OpenCV warps in steps of 1/32 pixel
            assert np.abs(found - originals(images, name, severity)).max() <= 1
        streams = [Replayed(int(key), name, severity) for key in KEYS]
        plain = [PLAIN[name](one, severity, stream) for one, stream in zip(images, streams, strict=True)]
        assert (np.abs(found - plain)[1:] > 1).mean() < 0.02  # scipy's; not of noise, which shows every rounding


@pytest.mark.parametrize("name", ["glass_blur", "motion_blur", "elastic_transform"])
def test_a_colour_without_detail_keeps_it_where_only_pixels_move(name):
    for value in (0, 17, 255):
        flat = np.full((1, 33, 47, 3), value, np.uint8)
        for severity in SEVERITIES:
            assert (made(flat, name, severity) == value).all()


@pytest.mark.parametrize("name", KEYED)
def test_an_image_comes_out_the_same_in_every_batch(name, monkeypatch):
    images = pictures(36, 32)
    together = made(images, name, 3, jpeg=True)
    alone = np.concatenate([made(images[i : i + 1], name, 3, KEYS[i : i + 1], jpeg=True) for i in range(3)])
    monkeypatch.setattr(by_name, "_AT_ONCE", 2 * 36 * 32)
    parts = made(images, name, 3, jpeg=True)
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(together, parts)


@pytest.mark.parametrize("name", KEYED)
def test_key_name_and_severity_decide_and_the_image_is_left_as_it_was(name):
    images = np.repeat(pictures(32, 32, 1), 2, axis=0)
    before = images.copy()
    first, second = made(images, name, 2)
    assert not np.array_equal(first, second)
    assert np.array_equal(made(images, name, 2)[0], first)
    np.testing.assert_array_equal(images, before)


def test_no_two_corruptions_and_severities_share_their_numbers():
    own = {int(by_name._own_keys(KEYS[:1], name, severity)[0]) for name in KEYED for severity in SEVERITIES}
    assert len(own) == len(KEYED) * len(SEVERITIES)


@pytest.mark.parametrize("name", KEYED)
def test_precision_does_not_touch_it(name):
    images = pictures(32, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = made(images, name, 3, jpeg=True)
    np.testing.assert_array_equal(found, made(images, name, 3, jpeg=True))


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(KEYED), st.integers(1, 40), st.integers(1, 40), st.integers(1, 5))
def test_every_size_is_corrupted(name, height, width, severity):
    image = pictures(height, width, 1)
    assert made(image, name, severity).shape == image.shape


def test_every_random_corruption_but_spatter_has_a_keyed_version():
    images = pictures(32, 32, 1)
    for name in CORRUPTIONS + EXTRA:
        same = np.array_equal(corrupt(images[0], name, 3, 1), corrupt(images[0], name, 3, 2))
        assert same == (name not in RANDOM)
    assert set(RANDOM) - set(KEYED) == {"spatter"} and set(by_name._FUNCTIONS) == set(KEYED)


OTHER_SIZES = ((60, 50), (20, 90), (33, 33), (70, 16), (48, 41))
"""Of pictures of frost; some are smaller than the images, which OpenCV enlarges."""


def frost_folder(folder: Path, sizes: Sequence[tuple[int, int]]) -> Path:
    """Write five pictures of noise."""
    random = np.random.default_rng(0)
    for number, size in enumerate(sizes, start=1):
        Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / f"frost{number}.png")
    return folder


def test_frost_takes_the_pictures_of_a_folder(tmp_path):
    folder, images = frost_folder(tmp_path, OTHER_SIZES), pictures(48, 40)
    for severity in SEVERITIES:
        expected = originals(images, "frost", severity, folder=folder)
        np.testing.assert_array_equal(made(images, "frost", severity, frost_folder=folder), expected)
    assert not np.array_equal(expected, made(images, "frost", severity))


def test_numbers_of_16_bits_are_uniform_and_independent():
    drawn = Draws(keys([str(i) for i in range(50)]), torch.device("cpu")).sixteens(4000).numpy()
    assert drawn.min() >= 0 and drawn.max() < NUMBERS
    assert stats.chisquare(np.bincount(drawn.ravel() >> 8, minlength=256)).pvalue > 0.001
    ranks = drawn / NUMBERS
    assert abs(np.corrcoef(ranks[:, :-1].ravel(), ranks[:, 1:].ravel())[0, 1]) < 0.01
    assert abs(np.corrcoef(ranks[:-1].ravel(), ranks[1:].ravel())[0, 1]) < 0.01


def test_normal_numbers_are_those_of_scipy_in_steps_of_a_millionth():
    expected = stats.norm.ppf((np.arange(NUMBERS) + 0.5) / NUMBERS)
    assert np.abs(normals() - expected).max() <= 2.0**-21 + 1e-12
    assert np.array_equal(normals(), -normals()[::-1])


@pytest.mark.parametrize("name", ["gaussian_noise", "speckle_noise", "shot_noise", "impulse_noise"])
@pytest.mark.parametrize("severity", [1, 5])
def test_noise_has_the_distribution_of_numpys(name, severity):
    found = table(name, severity)
    for byte in (3, 100, 240):
        image = np.full((200, 200, 3), byte, np.uint8)
        drawn = corrupt(image, name, severity, 5).ravel()
        ours, theirs = (np.bincount(values, minlength=256).cumsum() / values.size for values in (found[byte], drawn))
        assert np.abs(ours - theirs).max() < 1.95 / drawn.size**0.5  # Kolmogorov's bound for one in a thousand


@pytest.mark.parametrize(
    ("images", "name", "key", "words"),
    [
        (torch.zeros(2, 3, 8, 8), "fog", KEYS[:2], r"images must be \(B, 3, H, W\) of uint8"),
        (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), "fog", KEYS[:2], r"images must be \(B, 3, H, W\) of uint8"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "fog", KEYS[:1], "there must be 2 keys of uint64"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "fog", np.arange(2), "there must be 2 keys of uint64"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "spatter", KEYS[:2], "no keyed version of 'spatter'; known: "),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "contrast", KEYS[:2], "no keyed version of 'contrast'; known: "),
    ],
)
def test_what_cannot_be_corrupted_is_refused(images, name, key, words):
    with pytest.raises(ValueError, match=words):
        keyed_tensors(images, name, 3, key)


def test_a_severity_that_there_is_not_is_refused_and_no_image_gives_none():
    with pytest.raises(ValueError, match="severity must be a whole number from 1 to 5, not 6"):
        made(pictures(8, 8), "fog", 6)
    assert keyed_tensors(torch.empty(0, 3, 8, 8, dtype=torch.uint8), "fog", 3, KEYS[:0]).shape == (0, 3, 8, 8)


EXPECTED = "8b3db0f149ae8764"


def test_bytes_stay_as_they_are_until_the_version_is_raised(tmp_path):
    digest, folder = hashlib.sha256(), frost_folder(tmp_path, [(64, 60 + n) for n in range(5)])  # nothing of OpenCV
    for name in KEYED:
        for severity in SEVERITIES:
            for size in ((32, 32), (41, 27)):
                digest.update(made(pictures(*size), name, severity, frost_folder=folder).tobytes())
    assert (KEYED_VERSION, digest.hexdigest()[:16]) == (1, EXPECTED)
