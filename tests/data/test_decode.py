"""Decoding and resizing against Pillow, and files that are not what they should be."""

import io
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from ipvit.core.preprocessing import View
from ipvit.data import remarks
from ipvit.data.dataset import MemoryDataset, UnreadableImageError
from ipvit.data.decode import apply_view, decode
from ipvit.data.loader import read_batches
from ipvit.errors import InputError


def encoded(picture: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def photo() -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (9, 13, 3), dtype=np.uint8)).resize(
        (310, 230), Image.Resampling.BICUBIC
    )


def pillow_transform(picture: Image.Image, resize: int, crop: int) -> np.ndarray:
    width, height = picture.size
    scale = resize / min(width, height)
    size = (resize, int(height * scale)) if width <= height else (int(width * scale), resize)
    resized = picture.resize(size, Image.Resampling.BICUBIC)
    left, top = round((resized.width - crop) / 2), round((resized.height - crop) / 2)
    return np.array(resized.crop((left, top, left + crop, top + crop)))


def test_the_fast_path_is_within_two_grey_levels_of_pillow(photo):
    data = encoded(photo, "JPEG", quality=90)
    view = View((112, 112), 0.875, "bicubic")
    reference = pillow_transform(Image.open(io.BytesIO(data)).convert("RGB"), 128, 112).astype(int)
    fast = apply_view(decode(data), view).permute(1, 2, 0).numpy().astype(int)
    slow = apply_view(decode(data, "pil"), view, "pil").permute(1, 2, 0).numpy().astype(int)
    assert abs(fast - reference).max() <= 2
    assert np.array_equal(slow, reference)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("JPEG", m) for m in ("L", "CMYK", "1")] + [("PNG", m) for m in ("L", "RGBA", "P", "LA", "1")] + [("GIF", "P")],
)
def test_every_colour_mode_becomes_rgb_as_in_pillow(photo, mode, kind):
    data = encoded(photo.convert(mode), kind)
    reference = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
    assert abs(decode(data).permute(1, 2, 0).numpy().astype(int) - reference).max() <= 2


def test_sixteen_bit_images_keep_their_brightness():
    deep = Image.fromarray(np.full((4, 4), 32768, dtype=np.uint16))
    assert abs(int(decode(encoded(deep, "PNG"))[0, 0, 0]) - 128) <= 1


def test_of_an_animation_the_first_frame_counts(photo):
    frames = [photo.convert("P"), Image.new("P", photo.size)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(data).float().mean() > 50


def test_orientation_tags_are_ignored_as_by_the_fields_loaders(photo):
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(encoded(photo, "JPEG", exif=exif)).shape == (3, 230, 310)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1)])
def test_thin_images_still_give_a_full_view(size):
    data = encoded(Image.new("RGB", size, (200, 10, 10)), "PNG")
    assert apply_view(decode(data), View((32, 32))).shape == (3, 32, 32)


@pytest.mark.parametrize("decoder", ["fast", "pil"])
def test_what_is_not_an_image_is_unreadable(photo, decoder):
    whole = encoded(photo, "JPEG")
    for data in (
        b"",
        b"<html></html>",
        whole[: len(whole) // 2],
        whole[:20],
        b"\xff\xd8\xff\xe0junk",
        encoded(photo, "PNG")[:200],
    ):
        with pytest.raises(UnreadableImageError):
            decode(data, decoder)


def test_a_decompression_bomb_is_refused_before_it_is_unpacked():
    import struct
    import zlib

    def block(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 200_000, 200_000, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + block(b"IHDR", header)
        + block(b"IDAT", zlib.compress(b"\0" * 1000))
        + block(b"IEND", b"")
    )
    with pytest.raises(UnreadableImageError, match="pixels"):
        decode(bomb)


def test_a_view_equals_timms_evaluation_transform(photo):
    from timm.data import create_transform

    for size, crop_pct in ((64, 0.875), (48, 0.9), (32, 1.0)):
        reference = create_transform(
            (3, size, size), crop_pct=crop_pct, interpolation="bicubic", mean=(0,) * 3, std=(1,) * 3
        )
        pixels = torch.from_numpy(np.array(photo)).permute(2, 0, 1)
        ours = apply_view(pixels, View((size, size), crop_pct), "pil").float() / 255
        assert torch.allclose(ours, reference(photo), atol=1e-6)


@pytest.mark.parametrize("size", [(41, 32), (32, 41), (33, 97), (20, 24)])
@pytest.mark.parametrize("mode", ["center", "center_floor"])
def test_an_odd_number_of_pixels_is_cut_off_where_the_crop_mode_says(size, mode):
    pixels = torch.arange(3 * size[0] * size[1], dtype=torch.int32).remainder(251).to(torch.uint8).view(3, *size)
    view = View((24, 24), 0.75, "bilinear", mode)
    found = apply_view(pixels, view)
    resized = apply_view(pixels, View(_resized(size, 32), 1.0, "bilinear", "squash"))
    margins = [side - 24 for side in resized.shape[1:]]
    top, left = (margin // 2 if mode == "center_floor" else round(margin / 2) for margin in margins)
    assert torch.equal(found, resized[:, top : top + 24, left : left + 24])


def _resized(size, edge):
    height, width = size
    return (edge, edge * width // height) if height <= width else (edge * height // width, edge)


@pytest.mark.parametrize("wrong", [{"crop_mode": "border"}, {"interpolation": "lanczos"}, {"crop_pct": 0.0}])
def test_a_view_that_is_not_implemented_is_refused(wrong):
    with pytest.raises(InputError, match="border|lanczos|crop 0"):
        View((24, 24), **wrong)


def test_a_decoders_warning_carries_the_name_of_its_image():
    class Warned(MemoryDataset):
        def read(self, index):
            warnings.warn("Corrupt EXIF data", stacklevel=1)
            return super().read(index)

    data = Warned(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), ids=["a.jpg", "b\n.jpg"])
    with pytest.warns(UserWarning, match="Corrupt EXIF") as caught:
        list(read_batches(data, [np.arange(2)], [View((8, 8), 1.0)], workers=0))
    assert [str(one.message) for one in caught] == ["a.jpg: Corrupt EXIF data", "b .jpg: Corrupt EXIF data"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert len(list(read_batches(data, [np.arange(2)], [View((8, 8), 1.0)], workers=0))) == 1


def test_pictures_that_are_nearly_black_are_counted_apart_from_those_of_one_colour():
    numbers = torch.zeros(3, 40, 40, dtype=torch.uint8)
    numbers[:, 10:20, 10:20] = 1
    stray = numbers.clone()
    stray[:, 0, 0] = 255
    dim = torch.full((3, 40, 40), 15, dtype=torch.uint8) - numbers
    night = numbers.clone()
    night[:, 30:33, 30:33] = 200
    pictures = [numbers, stray, dim, night, torch.zeros_like(numbers)]
    data = MemoryDataset(torch.stack(pictures), ids=["numbers", "stray", "dim", "night", "black"])
    (batch,) = read_batches(data, [np.arange(5)], [View((8, 8))], workers=0)
    assert {name: list(places) for name, places in batch.remarks.items()} == {"black": [0, 1, 2], "constant": [4]}
    (first, second) = remarks.notes("mine", {"black": {"numbers", "stray"}, "constant": {"black"}})
    assert first.startswith("1 image is one colour all over in mine, for example 'black'")
    assert second.startswith("2 images are nearly black, with no more than 15 of 255 grey levels in mine")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n", "a Git LFS pointer, not the picture"),
        (b"\n<!DOCTYPE html><title>404</title>", "a web page saved under that name"),
    ],
)
def test_what_a_download_left_in_place_of_a_picture_is_named(content, words):
    with pytest.raises(UnreadableImageError, match=words):
        decode(content)
