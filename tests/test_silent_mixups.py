"""Numbers that would be of something else: what changed between two calls is noticed, what is damaged is refused."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import ipvit
from helpers.plain_loops import CLASSES, photos, plain
from helpers.tiny import tiny_model, write_images
from ipvit.data.dataset import BaseDataset, MemoryDataset
from ipvit.errors import InputError


def accuracy(out: Path, **options) -> float:
    run = ipvit.run(ipvit.Accuracy(), out=out, workers=0, progress=False, **options)
    return run.tables["accuracy"]["top1"][0]


# --- between two calls ----------------------------------------------------------------------------------------------


def test_another_second_column_of_classes_txt_is_another_labelling(tmp_path):
    write_images(tmp_path / "images", per_class=4)
    folders = sorted(path.name for path in (tmp_path / "images").iterdir())
    found = []
    for order in (folders, folders[::-1], folders):
        lines = (f"{folder}\t{number}\n" for folder, number in zip(folders, map(folders.index, order), strict=True))
        (tmp_path / "images" / "classes.txt").write_text("".join(lines))
        options = {"models": tiny_model(), "data": str(tmp_path / "images")}
        found.append(accuracy(tmp_path / "one", **options))
        assert found[-1] == accuracy(tmp_path / f"fresh {len(found)}", **options)
    assert found[0] == found[2]


def test_other_names_of_the_outputs_are_another_labelling(tmp_path):
    for classes in (CLASSES, CLASSES[::-1]):
        model = plain()
        model.classes = tuple(classes)
        shown = accuracy(tmp_path / "one", models=model, data=photos(8))
        assert shown == accuracy(tmp_path / classes[0], models=model, data=photos(8))


def test_other_columns_and_classes_of_images_in_memory_are_other_data():
    pixels, labels = torch.zeros(4, 3, 8, 8, dtype=torch.uint8), [0, 1, 0, 1]

    def of(classes=("a", "b"), **fields) -> str:
        return MemoryDataset(pixels, labels, classes, fields=fields).fingerprint

    texture = np.array([0, 1, 1, 0])
    assert of() == of() and len({of(), of(("b", "a")), of(texture=texture), of(texture=1 - texture)}) == 4


class Odd(nn.Module):
    """A network whose answers depend on what no state dict holds."""

    def __init__(self, scales=(1,), act=torch.abs, buffer=1.0, table=None) -> None:
        super().__init__()
        self.head = nn.Linear(12, 2)
        nn.init.ones_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.scales, self.act, self.table = list(scales), act, table or {"a": 1}
        self.register_buffer("factor", torch.tensor([buffer]), persistent=False)

    def forward(self, x):
        return self.act(self.head(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))) * self.scales[0] * self.factor


def digest(module: nn.Module) -> str:
    return ipvit.wrap(module.eval(), size=16, classes=["a", "b"]).digest


def test_what_no_state_dict_holds_is_part_of_a_networks_digest():
    others = [Odd(scales=(-1,)), Odd(act=torch.neg), Odd(buffer=2.0), Odd(table={"a": 2})]
    assert digest(Odd()) == digest(Odd()) and len({digest(Odd()), *map(digest, others)}) == 5


def test_traced_networks_differ_by_their_code():
    traced = [
        torch.jit.trace(Odd(act=act).eval(), torch.rand(2, 3, 16, 16)) for act in (torch.abs, torch.neg, torch.abs)
    ]
    assert digest(traced[0]) == digest(traced[2]) != digest(traced[1])


# --- archives -------------------------------------------------------------------------------------------------------


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


# --- what is handed over --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "masks", [np.full((4, 8, 8), 0.9), np.full((4, 8, 8), 256), np.zeros((3, 8, 8)), -np.ones((4, 8, 8))]
)
def test_masks_that_would_be_cut_are_refused(masks):
    with pytest.raises(InputError, match="masks must be"):
        MemoryDataset(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), masks=masks)


class Grey(BaseDataset):
    def read(self, index):
        return torch.zeros(3, 8, 8, dtype=torch.uint8)


def test_fields_and_labels_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="the field 'shape' has 3 values for 4 images"):
        MemoryDataset(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), fields={"shape": np.arange(3)})
    with pytest.raises(InputError, match="labels must be whole numbers; 0.9 is none"):
        Grey("x", labels=np.array([0.9]))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mean": (123.7, 116.3, 103.5)}, "divide those of grey levels by 255"),
        ({"std": (0.2, -0.2, 0.2)}, "must be three numbers each"),
        ({"mean": (0.5,)}, "must be three numbers each"),
        ({"crop_pct": 87.5}, "crop_pct is a share"),
    ],
)
def test_a_scale_that_is_not_of_images_from_0_to_1_is_refused(options, words):
    with pytest.raises(InputError, match=words):
        ipvit.wrap(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), size=8, **options)


def test_two_outputs_of_one_name_cannot_be_told_apart(tmp_path):
    model = plain()
    model.classes = (CLASSES[0], CLASSES[0], *CLASSES[2:])
    with pytest.raises(InputError, match="several outputs of net are called"):
        accuracy(tmp_path, models=model, data=photos(8))


def test_an_empty_line_among_class_names_is_refused(tmp_path):
    (tmp_path / "names.txt").write_text("a\n\nb\n")
    (tmp_path / "real" / "cat").mkdir(parents=True)
    with pytest.raises(InputError, match=r"names\.txt, line 2: empty"):
        ipvit.load_dataset("torch/image_folder", root=tmp_path, split="real", classes=str(tmp_path / "names.txt"))


def test_the_folders_of_other_splits_are_no_classes(tmp_path):
    for split in ("train", "validation"):
        write_images(tmp_path / split, per_class=1)
    with pytest.raises(InputError, match="has no split 'test'; folders of"):
        ipvit.load_dataset("torch/image_folder", root=tmp_path, split="test")
    assert len(ipvit.load_dataset("torch/image_folder", root=tmp_path, split="val").classes) > 2


# --- files of weights -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ema_model", "average_model", "swa_state_dict", "model_avg", "ema_weights", "polyak"])
def test_averaged_weights_go_first_and_the_others_are_told(tmp_path, name):
    from ipvit.models.io.weights_file import WeightsFile

    network = nn.Linear(2, 2)
    state = {key: value + 1 for key, value in network.state_dict().items()}
    torch.save({"model": network.state_dict(), name: state}, tmp_path / "w.pth")
    file = WeightsFile.read(str(tmp_path / "w.pth"))
    assert torch.equal(file.state_for(network)["weight"], state["weight"])
    assert file.in_words.endswith("w.pth without model")


def test_whole_numbers_are_no_weights(tmp_path):
    from ipvit.models.io.state_dict import load_strictly

    network = nn.Linear(2, 2)
    state = {key: (10 * value).to(torch.int8) for key, value in network.state_dict().items()}
    with pytest.raises(InputError, match=r"hold 'weight' as int8, where Linear has floating-point numbers \(2 such"):
        load_strictly(network, state, "here")


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_a_file_for_a_network_that_scales_its_inputs_says_whether_it_does(tmp_path, name):
    torch.save({}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"\?transform_input=true for torchvision's published weights"):
        ipvit.load_model(f"torchvision:{name}@{tmp_path / 'w.pth'}")
