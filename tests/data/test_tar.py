"""Tar archives of pictures: one that is damaged is refused, and what is left out is told."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

import ipvit
from helpers.tiny import write_images
from ipvit.errors import InputError


@pytest.fixture
def archive(tmp_path):
    write_images(tmp_path / "images", per_class=2)
    with tarfile.open(tmp_path / "images.tar", "w") as tar:
        tar.add(tmp_path / "images", ".")
    return tmp_path / "images.tar"


def headers_of(archive: Path) -> list[int]:
    with tarfile.open(archive) as tar:
        return [member.offset for member in tar if member.isfile()]


def test_a_tar_whose_list_breaks_off_is_refused(archive):
    whole, places = archive.read_bytes(), headers_of(archive)
    assert len(ipvit.load_dataset(archive)) == len(places)
    damaged = bytearray(whole)
    damaged[places[3] + 150] ^= 1  # in the header's checksum
    for content in (bytes(damaged), whole[: places[3]] + bytes(512) + whole[places[3] + 512 :], whole + whole):
        archive.write_bytes(content)
        with pytest.raises(InputError, match=r"is damaged, or two archives behind each other: .* ends at byte"):
            ipvit.load_dataset(archive)
    archive.write_bytes(whole[: places[3] + 100])
    with pytest.raises(InputError, match="damaged|not an uncompressed tar|cut off"):
        ipvit.load_dataset(archive)


def test_links_in_a_tar_are_told(archive):
    content = io.BytesIO(archive.read_bytes())
    with tarfile.open(fileobj=content, mode="a") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
            link = tarfile.TarInfo(f"c0/link{kind.decode()}.jpg")
            link.type, link.linkname = kind, "c0/000.jpg"
            tar.addfile(link)
    archive.write_bytes(content.getvalue())
    assert "2 links" in ipvit.load_dataset(archive).notes[0]


def test_a_member_that_a_later_one_replaces_is_told(archive):
    content = io.BytesIO(archive.read_bytes())
    with tarfile.open(fileobj=content, mode="a") as tar:
        tar.add(archive.parent / "images" / "c1" / "000.jpg", "./c0/000.jpg")
    before = ipvit.load_dataset(archive)
    archive.write_bytes(content.getvalue())
    after = ipvit.load_dataset(archive)
    assert after.ids == before.ids
    assert "1 replaced by later ones of the same name (c0/000.jpg)" in after.notes[0]
