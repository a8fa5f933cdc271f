"""Whatever decides a result identifies it: nothing old is taken for new."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import ipvit
from helpers.plain_loops import plain
from helpers.small_runs import CLASSES, photos, small_occlusion
from helpers.tiny import PatchNet, tiny_model, write_images
from ipvit.data.dataset import MemoryDataset
from ipvit.errors import InputError


def run(out, model=None, data=None, **options):
    settings = {"workers": 0, "progress": False} | options
    return ipvit.run(
        small_occlusion(levels=(0,)),
        models=model or tiny_model(),
        data=photos() if data is None else data,
        out=out,
        **settings,
    )


def test_another_mapping_of_labels_is_measured_anew(tmp_path):
    images = write_images(tmp_path / "images")
    names = ipvit.wrap(PatchNet(), size=16, crop_pct=1.0, classes=["c1", "c0", "c2", "c3"], name="net")
    run(tmp_path / "out", names, ipvit.load_dataset(images))
    names.classes = ("c0", "c1", "c2", "c3")
    again = run(tmp_path / "out", names, ipvit.load_dataset(images))
    assert again.manifest.measured_in_this_call == 20


def test_weights_changed_in_place_are_other_weights(tmp_path):
    model = tiny_model()
    run(tmp_path, model)
    with torch.no_grad():
        model.backbone.head.bias[0] += 100
    assert run(tmp_path, model).manifest.measured_in_this_call == 30


class Scaled(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.net, self.scale = PatchNet(), scale

    def forward(self, x):
        return self.scale * self.net(x)


def test_plain_values_of_a_network_count_as_its_architecture():
    torch.manual_seed(0)
    first = ipvit.wrap(Scaled(1.0), size=16)
    torch.manual_seed(0)
    assert ipvit.wrap(Scaled(-9.0), size=16).digest != first.digest


def test_the_same_network_twice_is_refused(tmp_path):
    with pytest.raises(ipvit.InputError, match="the same network with the same weights"):
        run(tmp_path, [tiny_model(0, name="one"), tiny_model(0, name="two")])


def test_a_file_rewritten_at_the_same_size_is_another_file(tmp_path):
    images = write_images(tmp_path / "images")
    before = ipvit.load_dataset(images).fingerprint
    path = images / "c0" / "001.png"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert ipvit.load_dataset(images).fingerprint != before


def test_images_without_label_are_neither_right_nor_wrong(tmp_path):
    pixels = torch.stack([photos().read(i) for i in range(8)])
    labels = np.array([0, 1, 2, 3, -1, -1, -1, -1])
    results = run(tmp_path, data=MemoryDataset(pixels, labels, CLASSES))
    assert results.tables["occlusion"]["n_images"].to_list() == [4]
    assert "4 images have no label" in results.report().read_text()


def test_settings_that_differ_between_models_are_columns(tmp_path):
    ipvit.run(small_occlusion(), models=tiny_model(0, name="a"), data=photos(), out=tmp_path, workers=0, progress=False)
    other = ipvit.run(
        small_occlusion(grid="2x2"),
        models=tiny_model(1, name="b"),
        data=photos(),
        out=tmp_path,
        workers=0,
        progress=False,
        everything=True,
    )
    assert "grid" in other.tables["occlusion"].columns


def test_what_is_not_a_run_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    for fresh in (False, True):
        with pytest.raises(ipvit.InputError, match=r"holds 'thesis.txt' and is not the folder of a run; give a new"):
            run(tmp_path, fresh=fresh)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_damaged_manifest_stops_neither_a_run_nor_is_it_a_riddle(tmp_path):
    run(tmp_path)
    (tmp_path / "manifest.json").write_text('{"models": [')
    with pytest.raises(ipvit.InputError, match="or a damaged one"):
        ipvit.Run(tmp_path)
    assert run(tmp_path).manifest.measured_in_this_call == 0
    assert json.loads((tmp_path / "manifest.json").read_text())["status"] == "done"


def test_a_report_says_that_a_part_is_damaged_and_leaves_it_where_it_is(tmp_path):
    run(tmp_path)
    (part,) = tmp_path.glob("records/*/*/part-*.parquet")
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    assert ipvit.Run(tmp_path).records("occlusion").is_empty()
    assert part.exists()


def accuracy(out, **options) -> float:
    shown = ipvit.run(ipvit.Accuracy(), out=out, workers=0, progress=False, **options)
    return shown.tables["accuracy"]["top1"][0]


def test_another_second_column_of_classes_txt_is_another_labelling(tmp_path):
    write_images(tmp_path / "images", per_class=4)
    named = ipvit.wrap(PatchNet(), size=16, crop_pct=1.0, classes=["w", "x", "y", "z"], name="net")
    folders = sorted(path.name for path in (tmp_path / "images").iterdir())
    found = []
    for order in (folders, folders[::-1], folders):
        lines = (f"{folder}\t{number}\n" for folder, number in zip(folders, map(folders.index, order), strict=True))
        (tmp_path / "images" / "classes.txt").write_text("".join(lines))
        options = {"models": named, "data": str(tmp_path / "images")}
        found.append(accuracy(tmp_path / "one", **options))
        assert found[-1] == accuracy(tmp_path / f"fresh {len(found)}", **options)
    assert found[0] == found[2]


def test_other_names_of_the_outputs_are_another_labelling(tmp_path):
    for classes in (CLASSES, CLASSES[::-1]):
        model = plain()
        model.classes = tuple(classes)
        shown = accuracy(tmp_path / "one", models=model, data=photos(8))
        assert shown == accuracy(tmp_path / classes[0], models=model, data=photos(8))


def test_two_outputs_of_one_name_cannot_be_told_apart(tmp_path):
    model = plain()
    model.classes = (CLASSES[0], CLASSES[0], *CLASSES[2:])
    with pytest.raises(InputError, match="several outputs of net are called"):
        accuracy(tmp_path, models=model, data=photos(8))
