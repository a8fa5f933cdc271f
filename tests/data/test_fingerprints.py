"""Which changes of files a fingerprint notices, and that what was measured under the first scheme is found."""

import io
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ipvit
from helpers.files import change_byte
from ipvit.data.dataset import fingerprint
from ipvit.data.fingerprints import SMALL

SUFFIXES = ["bmp", "ppm", "tif", "png"]
"""Formats whose files are as large as their pixels; the PNG is one that is not packed."""


def picture(seed: int, side: int = 96) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def write(folder: Path, suffix: str, **options) -> Path:
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(3):
            picture(number).save(folder / name / f"{number}.{suffix}", **options)
    return folder


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_byte_anywhere_in_an_unpacked_file_counts(tmp_path, suffix):
    folder = write(tmp_path, suffix, **({"compress_level": 0} if suffix == "png" else {}))
    before = ipvit.load_dataset(folder).fingerprint
    path = folder / "dog" / f"1.{suffix}"
    assert path.stat().st_size > SMALL
    change_byte(path, path.stat().st_size // 3)
    assert ipvit.load_dataset(folder).fingerprint != before


def test_a_byte_anywhere_in_a_small_file_counts_and_in_a_tar_too(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        picture(3, 24).save(tmp_path / "images" / name / "a.jpg")
    with tarfile.open(tmp_path / "images.tar", "w") as archive:
        archive.add(tmp_path / "images", ".")
    opened = [ipvit.load_dataset(tmp_path / name) for name in ("images", "images.tar")]
    assert opened[0].fingerprint == opened[1].fingerprint
    assert opened[0].earlier_fingerprint == opened[1].earlier_fingerprint != ""
    change_byte(tmp_path / "images" / "cat" / "a.jpg", 30)
    assert ipvit.load_dataset(tmp_path / "images").fingerprint != opened[0].fingerprint


def test_samples_of_a_packed_file_count_and_all_bytes_where_they_are_asked_for(tmp_path):
    folder = write(tmp_path, "jpg", quality=95)
    path = folder / "cat" / "2.jpg"
    size = path.stat().st_size
    assert size > SMALL
    before = ipvit.load_dataset(folder)
    assert before.fingerprint.startswith("samples-2:")
    whole = before.fingerprint_of_all_bytes()
    assert whole.startswith("bytes-2:")
    change_byte(path, size // 8)  # between two samples
    after = ipvit.load_dataset(folder)
    assert after.fingerprint == before.fingerprint
    assert after.fingerprint_of_all_bytes() != whole
    change_byte(path, size // 4 + 10)
    assert ipvit.load_dataset(folder).fingerprint != before.fingerprint


def test_the_first_scheme_is_computed_as_it_was(tmp_path):
    folder = write(tmp_path, "jpg", quality=95)
    data = ipvit.load_dataset(folder)
    paths = [folder / name for name in data.ids]
    sizes = [path.stat().st_size for path in paths]
    sums = [zlib.crc32(path.read_bytes()[size // 2 :][:1024]) for path, size in zip(paths, sizes, strict=True)]
    sizes = np.array(sizes, dtype=np.int64)
    assert data.earlier_fingerprint == fingerprint(
        "folder", data.ids, sizes, sums, data.labels, list(data.classes or ()), "fast"
    )


def test_pictures_that_are_decoded_otherwise_now_are_not_found_under_the_first_scheme(tmp_path):
    folder = write(tmp_path, "jpg")
    buffer = io.BytesIO()
    Image.fromarray(np.arange(100, dtype=np.uint16).reshape(10, 10) * 600).save(buffer, "PNG")
    (folder / "cat" / "deep.png").write_bytes(buffer.getvalue())
    assert ipvit.load_dataset(folder).earlier_fingerprint == ""


def test_masks_are_read_too(tmp_path):
    images, masks = write(tmp_path / "images", "jpg"), write(tmp_path / "masks", "bmp")
    before = ipvit.load_dataset(f"masks:{images},{masks}").fingerprint
    change_byte(masks / "cat" / "0.bmp", 2000)
    assert ipvit.load_dataset(f"masks:{images},{masks}").fingerprint != before
