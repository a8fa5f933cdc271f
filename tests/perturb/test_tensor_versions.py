"""Corruptions and JPEG as tensors give the bytes that OpenCV, Pillow and numpy give. There is no GPU here: the same
tensor operations run on a processor.
"""

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from ipvit.perturb.corruptions import SEVERITIES, corrupt, jpeg85
from ipvit.perturb.corruptions.jpeg_tensors import through_jpeg
from ipvit.perturb.corruptions.tensor_versions import TENSOR_VERSIONS, corrupt_tensors, equal
from ipvit.perturb.tensors import from_numpy

CPU = torch.device("cpu")
ROUNDED_BY_PROCESSORS = ("gaussian_blur", "zoom_blur")
"""Whether a product and a sum are rounded once or twice is the choice of whoever compiles OpenCV and torch."""


def pictures(height: int, width: int) -> list[np.ndarray]:
    """Noise, smooth colours, and colours without any detail beside black and white."""
    random = np.random.default_rng(height * width)
    coarse = random.integers(0, 256, (max(2, height // 6), max(2, width // 6), 3), dtype=np.uint8)
    flat = np.full((height, width, 3), (255, 0, 17), np.uint8)
    flat[: height // 3] = 255
    return [
        random.integers(0, 256, (height, width, 3), dtype=np.uint8),
        np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)),
        flat,
    ]


def sent(images: list[np.ndarray]) -> torch.Tensor:
    return from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def back(images: torch.Tensor) -> np.ndarray:
    assert images.dtype == torch.uint8 and images.is_contiguous()
    return images.permute(0, 2, 3, 1).numpy()


def assert_the_same(name: str, images: list[np.ndarray]) -> None:
    if name in ROUNDED_BY_PROCESSORS and not equal(name, CPU, (32, 32), jpeg=False):
        pytest.skip("another processor rounds otherwise, so the workers make it there")
    before = sent(images)
    for severity in SEVERITIES:
        plain = [corrupt(image, name, severity, 0) for image in images]
        given = sent(images)
        np.testing.assert_array_equal(back(corrupt_tensors(given, name, severity)), np.stack(plain))
        stored = back(corrupt_tensors(given, name, severity, jpeg=True))
        np.testing.assert_array_equal(stored, np.stack([jpeg85(image) for image in plain]))
        assert torch.equal(given, before)


@pytest.mark.parametrize("size", [(32, 32), (64, 48)])
@pytest.mark.parametrize("name", TENSOR_VERSIONS)
def test_a_corruption_of_a_batch_is_byte_for_byte_that_of_its_images(name, size):
    assert_the_same(name, pictures(*size))


@pytest.mark.slow
@pytest.mark.parametrize("name", TENSOR_VERSIONS)
def test_it_is_so_at_224_pixels_and_on_real_photos(name, real):
    photos = []
    for path in sorted(real.glob("imagenet-sample/*/*"))[::60]:
        with Image.open(path) as picture:
            photos.append(np.array(picture.convert("RGB").resize((224, 224), Image.Resampling.BICUBIC)))
    assert len(photos) > 2
    assert_the_same(name, pictures(224, 224) + photos)


@pytest.mark.parametrize("name", TENSOR_VERSIONS)
def test_16_bit_precision_does_not_touch_it(name):
    images = sent(pictures(32, 32)[:2])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = corrupt_tensors(images, name, 3, jpeg=True)
    assert torch.equal(found, corrupt_tensors(images, name, 3, jpeg=True))


@pytest.mark.parametrize("quality", [7, 10, 25, 49, 50, 85, 95, 100])
@pytest.mark.parametrize("size", [(64, 64), (33, 47), (50, 24), (7, 5), (1, 1), (3, 4)])
def test_jpeg_is_that_of_pillow(quality, size):
    images = pictures(*size)
    expected = []
    for image in images:
        file = BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        expected.append(np.array(Image.open(file)))
    np.testing.assert_array_equal(back(through_jpeg(sent(images), quality)), np.stack(expected))


@pytest.mark.parametrize("name", ["brightness", "contrast", "pixelate", "jpeg_compression", "saturate"])
@pytest.mark.parametrize("jpeg", [True, False])
def test_what_gives_the_same_bytes_is_found_out(name, jpeg):
    assert equal(name, CPU, (224, 224), jpeg=jpeg)


def test_one_byte_of_one_grey_at_one_severity_is_enough_to_be_refused(monkeypatch):
    def off(images: torch.Tensor, severity: int) -> torch.Tensor:
        made = plain(images, severity)
        wrong = (images == 137).all(dim=3, keepdim=True).all(dim=2, keepdim=True)
        return torch.where(wrong, made + (severity == 4), made)

    plain = TENSOR_VERSIONS["brightness"]
    monkeypatch.setitem(TENSOR_VERSIONS, "brightness", off)
    assert not equal.__wrapped__("brightness", CPU, (64, 64), jpeg=False)


def test_what_is_random_or_too_small_is_not_made_as_tensors():
    assert not equal("fog", CPU, (224, 224), jpeg=False)
    assert not equal("brightness", CPU, (224, 31), jpeg=False)
    assert not equal("brightness", torch.device("mps"), (224, 224), jpeg=False)
