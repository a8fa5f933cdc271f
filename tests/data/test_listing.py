"""One list of what is hidden and what is a picture, for folders and tar files, and what is left out is told."""

import tarfile
from pathlib import Path

import pytest
from PIL import Image

import ipvit

USED = ["a.jpg", "b.JPEG", "c.jfif", "d.jpe", "e.png", "f.avif", "g.jp2", "h.webp"]
HIDDEN = ["cat/._a.jpg", "cat/@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg", "__MACOSX/cat/._a.jpg", "@eaDir/x.png"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    for name in [*(f"cat/{name}" for name in USED), *HIDDEN]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        kinds = {".jfif": "JPEG", ".jpe": "JPEG", ".jp2": "JPEG2000"}
        Image.new("RGB", (12, 9), "red").save(root / name, kinds.get(Path(name).suffix))
    (root / "cat" / "notes.txt").write_text("two cats")
    (root / "cat" / "raw.heic").write_bytes(b"0")
    (root / "cat" / "Thumbs.db").write_bytes(b"0")
    return root


def test_a_folder_and_a_tar_of_it_hold_the_same_pictures(folder, tmp_path):
    with tarfile.open(tmp_path / "images.tar", "w") as archive:
        archive.add(folder, ".")
    for data in (ipvit.load_dataset(folder), ipvit.load_dataset(tmp_path / "images.tar")):
        assert list(data.ids) == sorted(f"cat/{name}" for name in USED)
        assert data.classes == ("cat",)
        assert all(data.read(i).shape == (3, 9, 12) for i in range(len(data)))
        (note,) = data.notes
        assert "hidden" in note
        assert ".txt 1" in note
        assert ".heic 1" in note


def test_what_is_left_out_is_told_in_the_run(folder, tmp_path):
    model = ipvit.load_model("demo:deit_micro")
    data = ipvit.load_dataset(folder)
    assert data.classes == ("cat",)
    out = tmp_path / "run"
    run = ipvit.run(ipvit.Correlation(runs=1, grid="8x8"), models=model, data=data, out=out, progress=False)
    assert any(note.startswith(f"{folder}: files left out") for note in run.manifest.notes)


def test_a_folder_of_nothing_but_other_files_says_what_they_are(tmp_path):
    (tmp_path / "a.heic").write_bytes(b"0")
    with pytest.raises(ipvit.InputError, match=r"holds no image files .*\.heic 1"):
        ipvit.load_dataset(tmp_path)
