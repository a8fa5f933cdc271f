"""The cue-conflict images in their folder layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ipvit

NAMES = ("cat/cat1-elephant3.png", "cat/cat2-cat1.png", "elephant/elephant10-knife2.png", "elephant/elephant7-cat9.png")


def write(root: Path, names: tuple[str, ...] = NAMES, size: int = 224) -> Path:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)
        Image.fromarray(noise).save(root / name)
    return root


def test_shape_is_the_folder_and_texture_the_last_word_of_the_file(tmp_path):
    data = ipvit.load_dataset(f"cue-conflict:{write(tmp_path)}")
    assert data.classes == ("cat", "elephant", "knife")
    shapes = [data.classes[i] for i in data.fields["shape"]]
    textures = [data.classes[i] for i in data.fields["texture"]]
    assert dict(zip(data.ids, zip(shapes, textures, strict=True), strict=True)) == {
        "cat/cat1-elephant3.png": ("cat", "elephant"),
        "cat/cat2-cat1.png": ("cat", "cat"),
        "elephant/elephant10-knife2.png": ("elephant", "knife"),
        "elephant/elephant7-cat9.png": ("elephant", "cat"),
    }
    assert list(data.labels) == list(data.fields["shape"])
    assert list(data.fields["conflict"]) == [True, False, True, True]


def test_the_benchmarks_own_folder_is_found_from_above(tmp_path):
    write(tmp_path / "stimuli" / "style-transfer-preprocessed-512")
    for place in (tmp_path, tmp_path / "stimuli"):
        assert len(ipvit.load_dataset(f"cue-conflict:{place}")) == 4


@pytest.mark.parametrize("name", ["cat/dog1-cat1.png", "cat/photo.png", "cat/cat1-dog1-car1.png"])
def test_a_file_with_another_kind_of_name_is_pointed_out(tmp_path, name):
    write(tmp_path, (*NAMES, name))
    with pytest.raises(ipvit.InputError, match="is no cue-conflict image"):
        ipvit.load_dataset(f"cue-conflict:{tmp_path}")


def test_a_renamed_texture_is_other_data(tmp_path):
    before = ipvit.load_dataset(f"cue-conflict:{write(tmp_path)}").fingerprint
    (tmp_path / NAMES[0]).rename(tmp_path / "cat/cat1-knife3.png")
    assert ipvit.load_dataset(f"cue-conflict:{tmp_path}").fingerprint != before


class Keeper(torch.nn.Module):
    """A network that keeps what it was given."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = x.clone()
        return torch.zeros(len(x), 3)


def test_the_network_sees_the_224_pixels_as_they_are(tmp_path):
    data = ipvit.load_dataset(f"cue-conflict:{write(tmp_path / 'data')}")
    keeper = Keeper()
    model = ipvit.wrap(
        keeper, mean=(0, 0, 0), std=(1, 1, 1), size=224, crop_pct=0.875, classes=["cat", "elephant", "knife"]
    )
    ipvit.run(ipvit.ShapeBias(), models=model, data=data, out=tmp_path / "out", workers=0, progress=False)
    for row in range(4):
        assert torch.equal((keeper.seen[row] * 255).round().byte(), data.read(row))


def test_another_input_size_sees_the_whole_picture(tmp_path):
    data = ipvit.load_dataset(f"cue-conflict:{write(tmp_path / 'data')}")
    keeper = Keeper()
    model = ipvit.wrap(
        keeper, mean=(0, 0, 0), std=(1, 1, 1), size=112, crop_pct=0.5, classes=["cat", "elephant", "knife"]
    )
    ipvit.run(ipvit.ShapeBias(), models=model, data=data, out=tmp_path / "out", workers=0, progress=False)
    assert keeper.seen.shape[-2:] == (112, 112)
    corners = torch.stack([data.read(i)[:, :2, :2].float().mean() for i in range(4)])
    assert torch.allclose(keeper.seen[:, :, 0, 0].mean(dim=1) * 255, corners, atol=40)
